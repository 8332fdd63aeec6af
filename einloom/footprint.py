"""What memory a program needs beyond its inputs and results, and what needs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING

from einloom.ir import extents as ext
from einloom.ir.errors import EinloomError
from einloom.ir.loops import Allocate, LoopProgram
from einloom.ir.node import postorder
from einloom.ir.record import record
from einloom.kernels import default_threads, threads_to_use
from einloom.report import Cell, Quantity, Table

if TYPE_CHECKING:
    from einloom.executable import Executable

ALLOWED_BYTES = 64_000_000
"""What a program may take beside inputs and results without its being remarked on."""
SMALL_BYTES = 4096
"""Buffers of a kernel that together are smaller are not listed."""


@record
class Need:
    """Bytes that something takes beside inputs and results. `kernel`: while it runs only."""

    name: str
    bytes: float
    why: str
    kernel: bool


def needs(executable: Executable, sizes: Mapping[str, int], loops: LoopProgram) -> list[Need]:
    """Intermediates, which are there from the beginning to the end, and buffers of kernels."""
    from einloom.backends.cost import element_bits

    found: list[Need] = []
    results = set(executable.native.outputs)
    for storage in loops.storages:
        if storage.name not in results:
            extents = [max(0, ext.evaluate(extent, sizes)) for extent in storage.extents]
            size = prod(extents) * element_bits(storage.dtype) / 8
            if size:
                found.append(Need(storage.name, size, "intermediate between kernels", False))
    return [*found, *_buffers(loops, sizes)]


def _buffers(loops: LoopProgram, sizes: Mapping[str, int]) -> Iterator[Need]:
    """What the buffers of each kernel take, those of all threads together."""
    from einloom.backends.cost import element_bits

    functions = {function.name: function for function in loops.functions}
    threads = threads_to_use(default_threads())
    for launch in loops.launches:
        function = functions[launch.function]
        known = dict(sizes)
        for name, extent in zip(function.scalars, launch.scalars, strict=True):
            known[name] = ext.evaluate(extent, sizes)
        total = 0.0
        for part in postorder(function):
            if isinstance(part, Allocate):
                try:
                    count = prod(ext.evaluate(extent, known) for extent in part.extents)
                except (EinloomError, KeyError):  # it depends on a value of the loop around
                    continue
                total += count * element_bits(part.dtype) / 8
        users = threads if launch.slices is not None else 1
        if total * users >= SMALL_BYTES:
            why = f"buffers of {users} thread{'' if users == 1 else 's'}"
            yield Need(launch.function, total * users, why, True)


def footprint_table(found: list[Need]) -> Table:
    """Every need, their sum at the worst moment, and what exceeds what is allowed."""
    whole = sum(need.bytes for need in found if not need.kernel)
    largest = max((need.bytes for need in found if need.kernel), default=0.0)
    rows: list[tuple[Cell, ...]] = [(n.name, Quantity(n.bytes, "bytes"), n.why) for n in found]
    verdict = "within 64 MB"
    if whole + largest > ALLOWED_BYTES:
        most = sorted(found, key=lambda need: -need.bytes)
        left = whole + largest
        names: list[str] = []
        for need in most:
            if left <= ALLOWED_BYTES:
                break
            names.append(need.name)
            left -= need.bytes
        verdict = f"more than 64 MB: {', '.join(names)}"
    if rows:
        rows.append(("at most", Quantity(whole + largest, "bytes"), verdict))
    columns = ("what", "bytes", "why")
    return Table("memory beyond inputs and results", columns, tuple(rows), numbers=(1,))
