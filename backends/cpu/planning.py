"""The launch plan of a loops-level program."""

from __future__ import annotations

from typing import Any

import numpy as np

from einloom.backends.cpu.plan import BufferPlan, Code, LaunchPlan, Plan, StoragePlan
from einloom.ir import extents as ext
from einloom.ir.errors import BackendError
from einloom.ir.expressions import Apply, Expression, Literal, Symbol
from einloom.ir.loops import LoopProgram, tensor_of
from einloom.ir.promotion import numpy_dtype


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
