"""The loops of one sweep: the bodies of several statements in one loop nest, values shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from einloom.ir.expressions import Cast, Expression, Literal
from einloom.ir.loops import LoopStatement
from einloom.passes.lowering.fold_loops import FoldLoops, Turns
from einloom.passes.lowering.folds import Fold
from einloom.passes.lowering.function import FunctionBuilder
from einloom.passes.lowering.running_loops import RunningLoops
from einloom.passes.lowering.sweeps import Schedule, Step, Sweep
from einloom.passes.lowering.values import Values, lower_value, substituted


@dataclass
class SweepLoops:
    """The loops of the sweeps of one kernel, for one iteration of its shared loops.

    `values`: results that are one value there, by tensor.
    """

    builder: FunctionBuilder
    schedule: Schedule
    values: dict[str, Expression] = field(default_factory=dict)

    def sweep(self, sweep: Sweep) -> list[LoopStatement]:
        """All steps of a sweep; results that are single values are known to later ones."""
        merged = _Merged(self.builder, self.schedule, sweep, self.values)
        out: list[LoopStatement] = []
        if not sweep.extents:
            merged.turn(merged.members, {}, [], [], out)
            self.values.update(merged.computed)
            return out
        for (step, fold), values in zip(merged.folds, merged.loops(out), strict=True):
            self.finish(step, fold.results(values), out)
        return out

    def finish(self, step: Step, values: Values, out: list[LoopStatement]) -> None:
        """The result of a reduction, under a name and stored where it is needed."""
        (dtype,) = step.nest.component_dtypes()
        (value,) = step.nest.finished({}, values, out, usable(step, self.values))
        value = self.builder.bind(Cast(dtype, value), step.tensor, out)
        self.values[step.tensor] = value
        if step.tensor in self.schedule.stored:
            step.nest.store({}, (value,), out)


@dataclass
class _Merged:
    builder: FunctionBuilder
    schedule: Schedule
    sweep: Sweep
    known: dict[str, Expression]

    def __post_init__(self) -> None:
        self.members = [self.schedule.steps[k] for k in sorted(self.sweep.steps)]
        self.folds: list[tuple[Step, Fold]] = [
            (step, step.nest.folds()[0]) for step in self.members if not step.is_map
        ]
        self.computed: dict[str, Expression] = {}

    def loops(self, out: list[LoopStatement]) -> list[Values]:
        """The loops of all steps; the accumulators of all folds after them."""
        turns = self.turns()
        if any(step.correction is not None for step in self.members):
            return RunningLoops(self.builder, turns[0], self.members, self.folds, self.turn).run(
                out
            )

        def step(
            here: list[Expression], accumulators: list[Values], body: list[LoopStatement]
        ) -> list[Values]:
            return self.turn(self.members, {}, here, accumulators, body)

        return FoldLoops(self.builder, turns, [fold for _, fold in self.folds], step).run(out)

    def turns(self) -> list[Turns]:
        """The loops, their variables named as the first step's indices."""
        names = {axis: name for name, axis in self.sweep.steps[self.members[0].position].items()}
        return [
            Turns(names[axis], Literal(0), self.builder.scalar(extent), extent)
            for axis, extent in enumerate(self.sweep.extents)
        ]

    def turn(
        self,
        steps: Sequence[Step],
        known: Mapping[str, Expression],
        variables: list[Expression],
        accumulators: list[Values],
        out: list[LoopStatement],
    ) -> list[Values]:
        """The bodies of some steps in order; what their accumulators are after them."""
        yields: list[Values] = []
        folds = {step.position: fold for step, fold in self.folds}
        for step in steps:
            here = {name: variables[k] for name, k in self.sweep.steps[step.position].items()}
            body = substituted(step.body, usable(step, {**self.known, **self.computed, **known}))
            values = lower_value(self.builder, body, step.nest.inner_place(here), out)
            if step.is_map:
                self.map(step, values, here, out)
            else:
                current = accumulators[len(yields)]
                yields.append(folds[step.position].step(current, values, out))
        return yields

    def map(
        self, step: Step, values: Values, here: dict[str, Expression], out: list[LoopStatement]
    ) -> None:
        """One cell of a map, under a name, and stored by the first sweep that computes it."""
        (dtype,) = step.nest.component_dtypes()
        value = self.builder.bind(Cast(dtype, values[0]), step.tensor, out)
        self.computed[step.tensor] = value
        first = next(s for s in self.schedule.sweeps if step.position in s.steps)
        if step.tensor in self.schedule.stored and first is self.sweep:
            step.nest.store(here, (value,), out)


def usable(step: Step, values: Mapping[str, Expression]) -> dict[str, Expression]:
    """The values that may stand for a step's reads: not where a tensor is an index, too."""
    return {tensor: value for tensor, value in values.items() if tensor not in step.nested}
