"""Rules on a loop program as a whole: names, buffers at kernels' boundaries, launches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from einloom.ir.errors import DTypeError
from einloom.ir.loops import For, LoopFunction, LoopProgram
from einloom.ir.names import counted
from einloom.ir.verify.complaints import Complaint, complaint, near
from einloom.ir.verify.loop_values import known_scalar

ROLES = ("in", "out", "inout")


def names_are_unique(program: LoopProgram) -> Iterator[Complaint]:
    """Functions, storages, buffers and scalars each have their own name."""
    for name in _repeated([function.name for function in program.functions]):
        yield complaint(f"there are two kernels {name}", *program.functions)
    for name in _repeated([storage.name for storage in program.storages]):
        yield complaint(f"there is storage for {name} twice", *program.storages)
    for function in program.functions:
        names = [*(buffer.name for buffer in function.buffers), *function.scalars]
        for name in _repeated(names):
            yield complaint(f"kernel {function.name} has two parameters {name}", function)


def _repeated(names: list[str]) -> list[str]:
    counts = Counter(names)
    return [name for name, count in counts.items() if count > 1]


def buffers_are_sound(program: LoopProgram) -> Iterator[Complaint]:
    """A buffer is read, written or both, and holds a dtype of the table."""
    for function in program.functions:
        for buffer in function.buffers:
            if buffer.role not in ROLES:
                message = f"the buffer {buffer.name} is {buffer.role}"
                yield complaint(message, buffer, function, hint=f"roles are {', '.join(ROLES)}")
            if not known_scalar(buffer.dtype):
                message = f"unknown dtype {buffer.dtype} of buffer {buffer.name}"
                yield complaint(message, buffer, function, kind=DTypeError)


def launches_fit(program: LoopProgram) -> Iterator[Complaint]:
    """A launch names a function, hands over its scalars, and slices its parallel loop."""
    functions = {function.name: function for function in program.functions}
    for launch in program.launches:
        function = functions.get(launch.function)
        if function is None:
            hint = near(launch.function, list(functions))
            yield complaint(f"there is no kernel {launch.function} to launch", launch, hint=hint)
            continue
        if len(launch.scalars) != len(function.scalars):
            yield complaint(
                f"kernel {function.name} takes {counted(len(function.scalars), 'scalar')}, "
                f"the launch gives {len(launch.scalars)}",
                launch,
            )
        if (launch.slices is not None) != has_parallel_loop(function):
            has = "has no" if launch.slices is not None else "has a"
            message = f"kernel {function.name} {has} parallel loop"
            hint = "slices are the extent of the parallel loop"
            yield complaint(message, launch, hint=hint)
    for fault in program.faults:
        if fault.function not in functions:
            yield complaint(f"fault {fault.number} is of no kernel: {fault.function}", fault)


def has_parallel_loop(function: LoopFunction) -> bool:
    return any(isinstance(s, For) and s.kind == "parallel" for s in function.body)
