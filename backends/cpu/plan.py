"""What a launcher needs to know of a loops-level program, as plain data that caches on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from einloom.ir.errors import ShapeError
from einloom.ir.integers import integer_op
from einloom.ir.record import record

Code = tuple[str | int, ...]
"""An extent in postfix order: integers, symbol names, and `(op, count)` as `op/count`."""


@record
class StoragePlan:
    """A tensor that the launcher allocates. `dtype` is what `np.dtype` is made from."""

    name: str
    dtype: Any
    extents: tuple[Code, ...]


@record
class BufferPlan:
    """A kernel's buffer: component `item` of a tensor, or all of it (None)."""

    tensor: str
    item: int | None


@record
class LaunchPlan:
    """One launch: the function's buffers and scalars, slices of its parallel loop, its faults."""

    function: str
    buffers: tuple[BufferPlan, ...]
    scalars: tuple[Code, ...]
    slices: Code | None
    work: Code
    faults: tuple[str, ...]


@record
class Plan:
    """All launches of a program in order, and the storages they need."""

    storages: tuple[StoragePlan, ...]
    launches: tuple[LaunchPlan, ...]

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @staticmethod
    def from_json(data: bytes) -> Plan:
        """Raises ValueError, KeyError or TypeError for anything that is not a plan."""
        raw = json.loads(data)
        return Plan(
            tuple(
                StoragePlan(s["name"], s["dtype"], tuple(tuple(e) for e in s["extents"]))
                for s in raw["storages"]
            ),
            tuple(
                LaunchPlan(
                    x["function"],
                    tuple(BufferPlan(b["tensor"], b["item"]) for b in x["buffers"]),
                    tuple(tuple(e) for e in x["scalars"]),
                    None if x["slices"] is None else tuple(x["slices"]),
                    tuple(x["work"]),
                    tuple(x["faults"]),
                )
                for x in raw["launches"]
            ),
        )


def storage_dtype(data: Any) -> np.dtype[Any]:
    if isinstance(data, str):
        if data == "bfloat16":
            import ml_dtypes

            found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
            return found
        return np.dtype(data)
    return np.dtype([(name, storage_dtype(inner)) for name, inner in data])


def evaluate(code: Code, symbols: Mapping[str, int]) -> int:
    """The value of an encoded extent."""
    stack: list[int] = []
    for item in code:
        if isinstance(item, int):
            stack.append(item)
        elif item.startswith("$"):
            stack.append(symbols[item[1:]])
        else:
            op, _, count = item.rpartition("/")
            arguments = stack[len(stack) - int(count) :]
            del stack[len(stack) - int(count) :]
            stack.append(integer_op(op, arguments))
    (value,) = stack
    return value


def shape_of(storage: StoragePlan, symbols: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a storage. Raises ShapeError where an extent comes out negative."""
    shape = tuple(evaluate(code, symbols) for code in storage.extents)
    for extent in shape:
        if extent < 0:
            raise ShapeError(f"{storage.name} would have shape {shape}: an extent is negative")
    return shape
