"""Loops that carry the accumulators of one or several folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from einloom.ir import extents as ext
from einloom.ir.expressions import Apply, Expression, Literal, Local
from einloom.ir.loops import Carried, For, Let, LoopStatement, Store
from einloom.ir.ops import apply
from einloom.ir.record import record
from einloom.passes.lowering.folds import Fold
from einloom.passes.lowering.function import FunctionBuilder
from einloom.passes.lowering.values import Values

SUM_BLOCK = 4096  # terms of a floating sum that are added up before the rest


@record
class Turns:
    """One loop: from `lower` up to `upper`, at most `longest` turns.

    `longest` is an expression over the program's symbols. `hint` names the loop's variable.
    """

    hint: str
    lower: Expression
    upper: Expression
    longest: Expression


MakeStep = Callable[[list[Expression], list[Values], list[LoopStatement]], list[Values]]
"""Given the loops' variables and the accumulators, the statements of one turn and what the
accumulators are after it."""


@dataclass
class FoldLoops:
    """Nested loops over `turns`, each carrying the accumulators of `folds`, around one step.

    A sum that rounds is added up in parts, one for each iteration of an outer loop and for each
    block of the innermost, so that the error does not grow with the number of terms.
    """

    builder: FunctionBuilder
    turns: Sequence[Turns]
    folds: Sequence[Fold]
    step: MakeStep

    def run(self, out: list[LoopStatement]) -> list[Values]:
        """The loops; the accumulators after them."""
        start = self.carried([fold.initial() for fold in self.folds])
        out.append(self.loop(0, [], start))
        return [current(carried) for carried in start]

    # -- accumulators

    def carried(self, start: Sequence[Values]) -> list[tuple[Carried, ...]]:
        """Carried values of all folds that begin with `start`."""
        return [
            tuple(
                Carried(self.builder.fresh("acc"), dtype, value)
                for dtype, value in zip(fold.dtypes, values, strict=True)
            )
            for fold, values in zip(self.folds, start, strict=True)
        ]

    def in_parts(self, fold: Fold) -> bool:
        return fold.rounds and not self.builder.context.strict

    def restarted(self, outer: Sequence[tuple[Carried, ...]]) -> list[tuple[Carried, ...]]:
        """Accumulators of an inner loop: those added up in parts begin anew."""
        pairs = zip(self.folds, outer, strict=True)
        return self.carried([f.initial() if self.in_parts(f) else current(c) for f, c in pairs])

    def combined(
        self,
        outer: Sequence[tuple[Carried, ...]],
        inner: Sequence[tuple[Carried, ...]],
        out: list[LoopStatement],
    ) -> list[Values]:
        """What the outer accumulators are after an inner loop."""
        found: list[Values] = []
        for fold, before, part in zip(self.folds, outer, inner, strict=True):
            values = current(part)
            found.append(fold.step(current(before), values, out) if self.in_parts(fold) else values)
        return found

    # -- loops

    def loop(
        self, level: int, variables: list[Expression], accumulators: list[tuple[Carried, ...]]
    ) -> LoopStatement:
        """The loop of one level and all inside it."""
        turns = self.turns[level]
        innermost = level + 1 == len(self.turns)
        if innermost and any(map(self.in_parts, self.folds)) and is_long(turns.longest):
            return self.blocks(turns, variables, accumulators)
        name = self.builder.fresh(turns.hint)
        here = [*variables, Local(name)]
        body: list[LoopStatement] = []
        if innermost:
            yields = self.step(here, [current(c) for c in accumulators], body)
            kind = kind_of(body)
        else:
            inner = self.restarted(accumulators)
            body.append(self.loop(level + 1, here, inner))
            yields = self.combined(accumulators, inner, body)
            kind = "serial"
        return For(
            name, turns.lower, turns.upper, tuple(body), kind, 1, flat(accumulators), _all(yields)
        )

    def blocks(
        self,
        turns: Turns,
        variables: list[Expression],
        accumulators: list[tuple[Carried, ...]],
    ) -> LoopStatement:
        """Loops over the blocks of the innermost index, the sum of each block added up."""
        block, start, count = (self.builder.fresh(n) for n in ("block", "start", "count"))
        first: Expression = Apply("mul", (Local(block), Literal(SUM_BLOCK)))
        if turns.lower != Literal(0):
            first = Apply("add", (turns.lower, first))
        left = Apply("sub", (turns.upper, Local(start)))
        body: list[LoopStatement] = [
            Let(start, first),
            Let(count, apply("min", left, Literal(SUM_BLOCK))),
        ]
        parts = self.restarted(accumulators)
        term = self.builder.fresh(turns.hint)
        here = [*variables, Apply("add", (Local(start), Local(term)))]
        inside: list[LoopStatement] = []
        yields = self.step(here, [current(c) for c in parts], inside)
        body.append(
            For(
                term, Literal(0), Local(count), tuple(inside), kind_of(inside), 1,
                flat(parts), _all(yields),
            )
        )  # fmt: skip
        total = self.combined(accumulators, parts, body)
        blocks = self.builder.scalar(Apply("ceildiv", (turns.longest, Literal(SUM_BLOCK))))
        return For(
            block, Literal(0), blocks, tuple(body), "serial", 1, flat(accumulators), _all(total)
        )


def current(carried: tuple[Carried, ...]) -> Values:
    return tuple(Local(item.name) for item in carried)


def flat(accumulators: Sequence[tuple[Carried, ...]]) -> tuple[Carried, ...]:
    return tuple(item for carried in accumulators for item in carried)


def _all(values: Sequence[Values]) -> tuple[Expression, ...]:
    return tuple(value for items in values for value in items)


def kind_of(body: Sequence[LoopStatement]) -> str:
    """`vector` where turns do not depend on one another but through what is carried."""
    return "vector" if all(isinstance(s, Let | Store) for s in body) else "serial"


def is_long(extent: Expression) -> bool:
    """Whether there may be more turns than a block of a sum has."""
    known = ext.simplify(extent)
    return not isinstance(known, Literal) or int(known.value.real) > SUM_BLOCK
