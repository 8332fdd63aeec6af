"""Compiled expressions: straight lists of steps over registers, values dropped early."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from einloom.ir.interpret.storage import Frame
from einloom.ir.interpret.values import Value
from einloom.ir.promotion import Typing
from einloom.ir.record import record

Run: TypeAlias = Callable[[Frame, list[Value]], Value]


@dataclass(frozen=True, slots=True)
class Step:
    """One operation. Its result is the register with the step's number.

    `indices`: the indices that the value varies with. `drops`: registers not needed after it.
    """

    run: Run
    arguments: tuple[int, ...]
    indices: frozenset[str]
    item_size: int
    drops: tuple[int, ...] = ()


@record
class Plan:
    """A compiled expression."""

    steps: tuple[Step, ...]
    result: int
    typing: Typing

    @property
    def indices(self) -> frozenset[str]:
        return self.steps[self.result].indices

    def run(self, frame: Frame) -> Value:
        """The value at all points of `frame`: arrays that are 0-d or have one axis per index."""
        registers: list[Value | None] = [None] * len(self.steps)
        for number, step in enumerate(self.steps):
            arguments: list[Value] = [registers[k] for k in step.arguments]  # type: ignore[misc]
            registers[number] = step.run(frame, arguments)
            for dropped in step.drops:
                registers[dropped] = None
        value = registers[self.result]
        assert value is not None
        return value

    def peak(self, sizes: Mapping[str, int]) -> int:
        """Bytes that `run` needs at most, for these extents of the indices; an estimate."""
        counts: dict[frozenset[str], int] = {}
        alive = peak = 0
        held: list[int] = []
        for step in self.steps:
            if step.indices not in counts:
                cells = 1
                for name in step.indices:
                    cells *= sizes[name]
                counts[step.indices] = cells
            size = counts[step.indices] * step.item_size
            held.append(size)
            alive += size
            peak = max(peak, alive + 2 * size)  # converted arguments, masks
            alive -= sum(held[k] for k in step.drops)
        return peak
