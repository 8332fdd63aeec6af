"""The loops of a sweep in which folds run along with the one that they refer to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from einloom.ir.expressions import Apply, Expression, Literal, Local
from einloom.ir.loops import Carried, For, If, Let, LoopStatement
from einloom.ir.ops import apply
from einloom.passes.lowering.fold_loops import SUM_BLOCK, FoldLoops, Turns, current, flat, kind_of
from einloom.passes.lowering.folds import Fold
from einloom.passes.lowering.function import FunctionBuilder
from einloom.passes.lowering.running import is_finite, or_zero
from einloom.passes.lowering.sweeps import Step
from einloom.passes.lowering.values import Values

MakeTurn = Callable[
    [Sequence[Step], Mapping[str, Expression], list[Expression], list[Values], list[LoopStatement]],
    list[Values],
]
"""Given steps, the values of tensors, the loop's variable and the accumulators of those steps, the
statements of one turn and what the accumulators are after it."""


@dataclass
class RunningLoops:
    """One loop in blocks: each is folded by the steps that need nothing else, and then, from the
    cache, by those that follow them.

    A reference that is not finite makes values that no correction mends, but for the identity: all
    terms vanish there, and the correction of what was folded, nothing or NaN, does, too. Where the
    last reference is not finite, what follows it is folded again, in the plain way.
    """

    builder: FunctionBuilder
    turns: Turns
    steps: Sequence[Step]
    folds: Sequence[tuple[Step, Fold]]
    turn: MakeTurn

    def __post_init__(self) -> None:
        self.plain = [(s, f) for s, f in self.folds if s.correction is None]
        self.following = [(s, f) for s, f in self.folds if s.correction is not None]
        self.leading_steps = [s for s in self.steps if s.correction is None]

    def run(self, out: list[LoopStatement]) -> list[Values]:
        """The loops; the accumulators of all folds after them, in the order of `folds`."""
        every = self.loops([*self.plain, *self.following])
        accumulators = every.carried([fold.initial() for _, fold in [*self.plain, *self.following]])
        out.append(self.blocks(accumulators))
        found = {
            step.position: current(carried)
            for (step, _), carried in zip([*self.plain, *self.following], accumulators, strict=True)
        }
        for step, fold in self.following:
            found[step.position] = self.mended(step, fold, found, out)
        return [found[step.position] for step, _ in self.folds]

    def loops(self, folds: Sequence[tuple[Step, Fold]]) -> FoldLoops:
        """Plain loops over the whole extent with some of the folds."""

        def step(
            here: list[Expression], accumulators: list[Values], out: list[LoopStatement]
        ) -> list[Values]:
            return self.turn([s for s, _ in folds], {}, here, accumulators, out)

        return FoldLoops(self.builder, [self.turns], [fold for _, fold in folds], step)

    def blocks(self, accumulators: list[tuple[Carried, ...]]) -> LoopStatement:
        block, start, count = (self.builder.fresh(n) for n in ("block", "start", "count"))
        left = Apply("sub", (self.turns.upper, Local(start)))
        body: list[LoopStatement] = [
            Let(start, Apply("mul", (Local(block), Literal(SUM_BLOCK)))),
            Let(count, apply("min", left, Literal(SUM_BLOCK))),
        ]
        before = accumulators[: len(self.plain)]
        plain = self.loops(self.plain)
        parts = plain.restarted(before)
        self.inner_loop(self.leading_steps, {}, parts, start, count, body)
        totals = plain.combined(before, parts, body)
        old = {s.tensor: current(c)[0] for (s, _), c in zip(self.plain, before, strict=True)}
        new: dict[str, Expression] = {}
        for (step, _), values in zip(self.plain, totals, strict=True):
            if any(s.correction and s.correction.base == step.tensor for s, _ in self.following):
                new[step.tensor] = self.builder.bind(or_zero(values[0]), "reference", body)
        following = self.loops(self.following)
        terms = following.carried([fold.initial() for _, fold in self.following])
        self.inner_loop([s for s, _ in self.following], new, terms, start, count, body)
        rest = accumulators[len(self.plain) :]
        for (step, fold), sums, term in zip(self.following, rest, terms, strict=True):
            assert step.correction is not None
            base = step.correction.base
            factor = step.correction.factor(old[base], new[base])
            kept = apply(step.correction.product, current(sums)[0], factor)
            totals.append(fold.step((kept,), current(term), body))
        blocks = self.builder.scalar(Apply("ceildiv", (self.turns.longest, Literal(SUM_BLOCK))))
        yields = tuple(value for values in totals for value in values)
        return For(block, Literal(0), blocks, tuple(body), "serial", 1, flat(accumulators), yields)

    def inner_loop(
        self,
        steps: Sequence[Step],
        known: Mapping[str, Expression],
        accumulators: list[tuple[Carried, ...]],
        start: str,
        count: str,
        out: list[LoopStatement],
    ) -> None:
        """The loop over a block with some of the steps."""
        name = self.builder.fresh(self.turns.hint)
        here: list[Expression] = [Apply("add", (Local(start), Local(name)))]
        body: list[LoopStatement] = []
        yields = self.turn(steps, known, here, [current(c) for c in accumulators], body)
        out.append(
            For(
                name, Literal(0), Local(count), tuple(body), kind_of(body), 1,
                flat(accumulators), tuple(value for values in yields for value in values),
            )
        )  # fmt: skip

    def mended(
        self, step: Step, fold: Fold, found: Mapping[int, Values], out: list[LoopStatement]
    ) -> Values:
        """A following fold, made anew where what it refers to is not finite."""
        assert step.correction is not None
        base = next(s for s, _ in self.plain if s.tensor == step.correction.base)
        (reference,) = found[base.position]
        inside: list[LoopStatement] = []

        def turn(
            here: list[Expression], accumulators: list[Values], body: list[LoopStatement]
        ) -> list[Values]:
            return self.turn([step], {base.tensor: reference}, here, accumulators, body)

        (again,) = FoldLoops(self.builder, [self.turns], [fold], turn).run(inside)
        kept = [
            Carried(self.builder.fresh("acc"), dtype, value)
            for dtype, value in zip(fold.dtypes, found[step.position], strict=True)
        ]
        wrong = Apply("not", (is_finite(reference),))
        out.append(If(wrong, tuple(inside), (), tuple(kept), again))
        return tuple(Local(item.name) for item in kept)
