"""Writing a plan as statements: temporaries, and for slices a scan that adds them up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from einloom.ir.casting import highest, lowest
from einloom.ir.expressions import Access, Cast, Expression, Index, Literal
from einloom.ir.infer import Inference
from einloom.ir.names import unique_name
from einloom.ir.node import Node, postorder, rebuild
from einloom.ir.ops import MONOIDS, apply
from einloom.ir.program import Bound, Einsum, Reduction, Scan, Statement, Target
from einloom.ir.record import record
from einloom.ir.types import FLOAT, DType, Rank, Scalar, TensorType
from einloom.passes.contraction.cost import Plan
from einloom.passes.contraction.network import Step
from einloom.passes.contraction.recognize import Contraction


class Names:
    """Fresh names of one module: `result_1`, `result_2`, ..., skipping those taken."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.taken = set(taken)
        self.counts: dict[str, int] = {}

    def temporary(self, base: str) -> str:
        """The next numbered name; linear over all calls, whatever their number."""
        count = self.counts.get(base, 0)
        while True:
            count += 1
            if f"{base}_{count}" not in self.taken:
                break
        self.counts[base] = count
        name = f"{base}_{count}"
        self.taken.add(name)
        return name

    def plain(self, base: str) -> str:
        """The name itself where it is free."""
        name = unique_name(base, self.taken)
        self.taken.add(name)
        return name


def emitted(
    contraction: Contraction, plan: Plan, names: Names, inference: Inference
) -> list[Statement]:
    """The statements that replace a contraction."""
    return _Emitter(contraction, plan, names, inference).statements()


class _Emitter:
    def __init__(
        self, contraction: Contraction, plan: Plan, names: Names, inference: Inference
    ) -> None:
        self.contraction = contraction
        self.plan = plan
        self.names = names
        self.inference = inference
        self.steps = plan.tree.steps
        self.nodes = tuple(Index(name) for name in contraction.names)
        self.values: list[Expression] = list(contraction.factors)
        self.mentions = [_mentions(value) for value in self.values]
        bounded = {bound.index: bound for bound in contraction.statement.bounds}
        self.bounded: Mapping[str, Bound] = bounded
        fixed = {contraction.names[index] for index in plan.sliced}
        own = zip(contraction.names, contraction.extents, strict=True)
        self.extents = {name: extent for name, extent in own if name not in fixed}

    def statements(self) -> list[Statement]:
        if self.plan.sliced:
            return self.sliced()
        out: list[Statement] = [self.temporary(step) for step in self.steps[:-1]]
        return [*out, self.result(self.steps[-1])]

    # -- single statements

    def temporary(self, step: Step) -> Einsum:
        """A step as a statement that defines a fresh tensor, which it becomes the value of."""
        target = Target(self.names.temporary(self.contraction.name))
        indices = tuple(self.nodes[index] for index in step.kept)
        location = self.contraction.statement.location
        made = Einsum(
            (target,), indices, self.body(step), self.folds(step),
            bounds=self.bounds(target, step), location=location,
        )  # fmt: skip
        self.values.append(Access(target.name, indices, location=location))
        names = frozenset(index.name for index in indices)
        self.mentions.append(Mentions(names, names))
        return made

    def result(self, step: Step) -> Einsum:
        """The last step as the statement that defines what the contraction defined."""
        target, statement = self.target(), self.contraction.statement
        return replace(
            statement,
            targets=(target,),
            body=self.body(step),
            reductions=self.folds(step),
            bounds=self.bounds(target, step),
        )

    def target(self) -> Target:
        target = self.contraction.statement.targets[0]
        if self.contraction.annotate:
            return Target(target.name, self.inference.tensors[target.name])
        return target

    def body(self, step: Step) -> Expression:
        return apply(self.contraction.op, *(self.values[operand] for operand in step.operands))

    def folds(self, step: Step) -> tuple[Reduction, ...]:
        if not step.reduced:
            return ()
        first = self.contraction.statement.reductions[0]
        reduced = tuple(self.contraction.names[index] for index in step.reduced)
        return (Reduction(self.contraction.monoid, reduced, location=first.location),)

    def bounds(self, target: Target, step: Step) -> tuple[Bound, ...]:
        """`where` for indices whose extent was stated, or that no operand of a step settles."""
        settled: set[str] = set()
        used: dict[str, None] = dict.fromkeys(self.contraction.names[i] for i in step.space)
        for operand in step.operands:
            settled |= self.mentions[operand].settled
            used.update(dict.fromkeys(sorted(self.mentions[operand].used)))
        if target.type is not None:
            settled.update(
                e.name for e in self.contraction.statement.indices if isinstance(e, Index)
            )
        found: list[Bound] = []
        for name in used:
            if name in self.bounded:
                found.append(self.bounded[name])
            elif name in self.extents and name not in settled:
                found.append(Bound(name, self.extents[name]))
        return tuple(found)

    # -- slices

    def sliced(self) -> list[Statement]:
        """What is the same for all slices, then a scan that adds them up, then the result.

        scan j < J from { ACC[0, i] = 0 } { T[i] = ...; ACC[j+1, i] = ACC[j, i] + T[i] }
        result[i] = final(ACC)[i]
        """
        varying = self.plan.varying()
        before: list[Statement] = []
        counter, extent = self.counter()
        inside: list[Statement] = []
        for step, varies in zip(self.steps, varying, strict=True):
            (inside if varies else before).append(self.temporary(step))
        total = self.names.plain(f"{self.contraction.name}_total")
        kept = tuple(self.nodes[index] for index in self.plan.network.output)
        last = self.values[-1]
        running = Access(total, (Index(counter), *kept))
        op = MONOIDS[self.contraction.monoid].op
        after = (apply("add", Index(counter), Literal(1)), *kept)
        location = self.contraction.statement.location
        inside.append(Einsum((Target(total),), after, apply(op, running, last), location=location))
        scan = Scan(
            counter,
            extent,
            (self.initial(total, counter, extent, kept),),
            tuple(inside),
            location=location,
        )
        result = replace(
            self.contraction.statement,
            targets=(self.target(),),
            body=Access(total, kept, view="final"),
            reductions=(),
            bounds=(),
        )
        return [*before, scan, result]

    def counter(self) -> tuple[str, Expression]:
        """The scan's index and its extent; the factors are rewritten to it where it is new.

        One sliced index is the scan's own. Several are the digits of one number, the first being
        the most significant, because only the states of an outermost scan are kept in a ring.
        """
        names = [self.contraction.names[index] for index in self.plan.sliced]
        extents = [self.contraction.extents[index] for index in self.plan.sliced]
        if len(names) == 1:
            return names[0], extents[0]
        counter = unique_name("slice", {*self.names.taken, *self.contraction.names})
        digits: dict[str, Expression] = {}
        rest: Expression = Index(counter)
        for name, extent in reversed(list(zip(names[1:], extents[1:], strict=True))):
            digits[name] = apply("mod", rest, extent)
            rest = apply("floordiv", rest, extent)
        digits[names[0]] = rest
        self.values = [_replaced(value, digits) for value in self.values]
        self.mentions = [_mentions(value) for value in self.values]
        return counter, apply("mul", *extents)

    def initial(
        self, total: str, counter: str, extent: Expression, kept: tuple[Index, ...]
    ) -> Einsum:
        ranks = [Rank(counter, apply("add", extent, Literal(1)))]
        extents = [self.contraction.extents[index] for index in self.plan.network.output]
        ranks += [Rank(i.name, e) for i, e in zip(kept, extents, strict=True)]
        type_ = TensorType(self.contraction.dtype, tuple(ranks))
        identity = self.identity(self.contraction.dtype)
        return Einsum((Target(total, type_),), (Literal(0), *kept), identity)

    def identity(self, dtype: DType) -> Expression:
        value = MONOIDS[self.contraction.monoid].identity
        if isinstance(value, str):
            return Literal((lowest if value == "lowest" else highest)(dtype).item())
        if isinstance(dtype, Scalar) and dtype.kind == FLOAT:
            return Literal(float(value.real))
        whole = isinstance(dtype, Scalar) and dtype.is_integer
        return Literal(value) if whole else Cast(dtype, Literal(value))


@record
class Mentions:
    """Indices of an expression: all that are used, and those whose extent an access settles."""

    used: frozenset[str]
    settled: frozenset[str]


def _mentions(value: Expression) -> Mentions:
    if isinstance(value, Cast):
        value = value.value
    if isinstance(value, Access) and value.padding is None and all(map(_is_plain, value.indices)):
        names = frozenset(index.name for index in value.indices if isinstance(index, Index))
        return Mentions(names, names)
    used: set[str] = set()
    settled: set[str] = set()
    for part in postorder(value):
        if isinstance(part, Index):
            used.add(part.name)
        elif isinstance(part, Access) and part.padding is None:
            settled.update(e.name for e in part.indices if isinstance(e, Index))
    return Mentions(frozenset(used), frozenset(settled))


def _is_plain(index: Expression) -> bool:
    return isinstance(index, Index)


def _replaced(value: Expression, digits: Mapping[str, Expression]) -> Expression:
    def change(current: Node) -> Node:
        return digits.get(current.name, current) if isinstance(current, Index) else current

    return rebuild(value, change)
