"""What a launcher needs to know of a loops-level program, as plain data that caches on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from einloom.ir import extents as ext
from einloom.ir.errors import BackendError, ShapeError
from einloom.ir.expressions import Apply, Expression, Literal, Symbol
from einloom.ir.loops import LoopProgram, tensor_of
from einloom.ir.promotion import numpy_dtype

Code = tuple[str | int, ...]
"""An extent in postfix order: integers, symbol names, and `(op, count)` as `op/count`."""


@dataclass(frozen=True)
class StoragePlan:
    """A tensor that the launcher allocates. `dtype` is what `np.dtype` is made from."""

    name: str
    dtype: Any
    extents: tuple[Code, ...]


@dataclass(frozen=True)
class BufferPlan:
    """A kernel's buffer: component `item` of a tensor, or all of it (None)."""

    tensor: str
    item: int | None


@dataclass(frozen=True)
class LaunchPlan:
    """One launch: the function's buffers and scalars, slices of its parallel loop, its faults."""

    function: str
    buffers: tuple[BufferPlan, ...]
    scalars: tuple[Code, ...]
    slices: Code | None
    work: Code
    faults: tuple[str, ...]


@dataclass(frozen=True)
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


def plan_of(program: LoopProgram) -> Plan:
    """The launch plan of a loops-level program."""
    functions = {function.name: function for function in program.functions}
    storages = tuple(
        StoragePlan(s.name, _dtype_data(numpy_dtype(s.dtype)), tuple(encode(e) for e in s.extents))
        for s in program.storages
    )
    launches = []
    for launch in program.launches:
        names = [b.name for b in functions[launch.function].buffers]
        buffers = tuple(BufferPlan(*tensor_of(name)) for name in names)
        sites = sorted(
            (f for f in program.faults if f.function == launch.function), key=lambda f: f.number
        )
        launches.append(
            LaunchPlan(
                launch.function,
                buffers,
                tuple(encode(e) for e in launch.scalars),
                None if launch.slices is None else encode(launch.slices),
                encode(launch.work),
                tuple(site.message for site in sites),
            )
        )
    return Plan(storages, tuple(launches))


def _dtype_data(dtype: np.dtype[Any]) -> Any:
    """A dtype as JSON data that `storage_dtype` reads back."""
    if dtype.names:
        return [[name, _dtype_data(dtype[name])] for name in dtype.names]
    return dtype.name


def storage_dtype(data: Any) -> np.dtype[Any]:
    if isinstance(data, str):
        if data == "bfloat16":
            import ml_dtypes

            found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
            return found
        return np.dtype(data)
    return np.dtype([(name, storage_dtype(inner)) for name, inner in data])


def encode(extent: Expression) -> Code:
    """An extent expression in postfix order."""
    code: list[str | int] = []
    stack: list[tuple[Expression, bool]] = [(ext.simplify(extent), False)]
    while stack:
        current, expanded = stack.pop()
        match current:
            case Literal():
                code.append(int(current.value.real))
            case Symbol():
                code.append(f"${current.name}")
            case Apply() if expanded:
                code.append(f"{current.op}/{len(current.arguments)}")
            case Apply():
                stack.append((current, True))
                stack.extend((a, False) for a in reversed(current.arguments))
            case _:
                raise BackendError(f"{current} is not an extent")
    return tuple(code)


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
            stack.append(ext.integer_op(op, arguments))
    (value,) = stack
    return value


def shape_of(storage: StoragePlan, symbols: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a storage. Raises ShapeError where an extent comes out negative."""
    shape = tuple(evaluate(code, symbols) for code in storage.extents)
    for extent in shape:
        if extent < 0:
            raise ShapeError(f"{storage.name} would have shape {shape}: an extent is negative")
    return shape


__all__ = [
    "BufferPlan",
    "LaunchPlan",
    "Plan",
    "StoragePlan",
    "evaluate",
    "plan_of",
    "shape_of",
    "storage_dtype",
]
