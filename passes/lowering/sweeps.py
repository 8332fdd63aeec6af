"""Which statements of a kernel run in one loop: a schedule of sweeps over common indices.

A map and what reads its cells one by one, several reductions of the same data, and a map with the
reduction over it are one sweep: the map's values need no memory, and the data is read once. A
sweep ends where something is needed that all of a reduction gives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from einloom.ir import extents as ext
from einloom.ir.definitions import inline
from einloom.ir.expressions import Access, Apply, Expression, Index
from einloom.ir.node import postorder
from einloom.ir.ops import OPS
from einloom.passes.lowering.nests import Nest
from einloom.passes.lowering.order import is_exchangeable
from einloom.passes.lowering.products.blocking import Running
from einloom.passes.lowering.running import Correction, correction_of, inlined
from einloom.passes.lowering.values import compared

CHEAP = 4.0
"""A map that costs at most so many additions is computed again by each sweep that needs it."""
FEW_READS = 2
"""And it reads at most so many tensors along the sweep."""

Axes = dict[str, int]


@dataclass
class Step:
    """One statement of a kernel, at its place in the kernel's order.

    `space`: the indices that its loops run over inside the kernel's, outermost first; None where
    it has loops of its own. `body`: what is mapped or folded. `reads`: by tensor; `nested`: those
    read inside an index of another. `correction`: how it runs along with another fold.
    """

    position: int
    nest: Nest
    space: tuple[str, ...] | None
    body: Expression
    reads: dict[str, list[Access]]
    nested: set[str]
    correction: Correction | None = None

    @property
    def tensor(self) -> str:
        return self.nest.statement.targets[0].name

    @property
    def tensors(self) -> list[str]:
        return [target.name for target in self.nest.statement.targets]

    @property
    def is_map(self) -> bool:
        return self.space is not None and not self.nest.statement.reductions

    def extents(self) -> list[Expression]:
        return [self.nest.typing.extents[name] for name in self.space or ()]


@dataclass
class Sweep:
    """Loops over `extents` around the bodies of steps; by step, which loop each index has.

    `alone`: a step with loops of its own instead.
    """

    extents: list[Expression]
    steps: dict[int, Axes] = field(default_factory=dict)
    alone: Step | None = None


@dataclass
class Schedule:
    """The sweeps of a kernel in order.

    `stored`: the tensors that need memory; all others are values of their sweep.
    """

    steps: list[Step]
    sweeps: list[Sweep]
    stored: set[str]


def step_of(position: int, nest: Nest) -> Step:
    """What a schedule needs to know of a statement."""
    context = nest.builder.context
    body = inline(nest.statement.body, context.functions)
    accesses = [part for part in postorder(body) if isinstance(part, Access)]
    if nest.statement.condition is not None:
        condition = inline(nest.statement.condition, context.functions)
        accesses += [part for part in postorder(condition) if isinstance(part, Access)]
    nested: set[str] = set()
    for access in accesses:
        for index in access.indices:
            nested |= {part.tensor for part in postorder(index) if isinstance(part, Access)}
    reads = _by_tensor(accesses)
    terms = compared(inline(nest.terms, context.functions), context)
    return Step(position, nest, _space(nest), terms, reads, nested)


def _by_tensor(accesses: Sequence[Access]) -> dict[str, list[Access]]:
    found: dict[str, list[Access]] = {}
    for access in accesses:
        found.setdefault(access.tensor, []).append(access)
    return found


def _space(nest: Nest) -> tuple[str, ...] | None:
    statement = nest.statement
    context = nest.builder.context
    simple = (
        len(statement.targets) == 1
        and len(context.components(statement.targets[0].name)) == 1
        and statement.condition is None
    )
    if not simple or nest.scatters or nest.fills or nest.place.inside or nest.order.blocked:
        return None
    if not all(isinstance(e, Index) for e in statement.indices):
        return None
    if not statement.reductions:
        return (*nest.order.outer, *([nest.order.inner] if nest.order.inner is not None else []))
    plain = len(statement.reductions) == 1 or is_exchangeable(statement, context)
    return nest.order.reduced if plain and not nest.order.outer else None


def schedule(steps: Sequence[Step], outputs: Collection[str]) -> Schedule:
    """The sweeps of a kernel, each step as early as its inputs allow and maps as late as they can.

    `outputs`: the tensors of the kernel that others read.
    """
    work = _Scheduling(list(steps), set(outputs))
    for step in steps:
        work.add(step)
    for step in reversed(steps):
        work.sink(step)
    work.sweeps = [sweep for sweep in work.sweeps if sweep.alone is not None or sweep.steps]
    return Schedule(work.steps, work.sweeps, work.stored())


@dataclass
class _Scheduling:
    steps: list[Step]
    outputs: set[str]
    sweeps: list[Sweep] = field(default_factory=list)
    home: dict[str, tuple[Step, int]] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        position = self.along(step)
        if position is None:
            position = self.placed(step)
        for tensor in step.tensors:
            self.home[tensor] = step, position

    def placed(self, step: Step) -> int:
        """Put a step into the first sweep that takes it, or into one of its own."""
        if step.space is not None:
            for position in range(self.earliest(step), len(self.sweeps)):
                axes = self.axes(step, position)
                if axes is not None:
                    self.sweeps[position].steps[step.position] = axes
                    return position
            axes = {name: k for k, name in enumerate(step.space)}
            self.sweeps.append(Sweep(step.extents(), {step.position: axes}))
        else:
            self.sweeps.append(Sweep([], alone=step))
        return len(self.sweeps) - 1

    def along(self, step: Step) -> int | None:
        """Put a fold into the sweep of another that its terms refer to, if it may run with it."""
        context = step.nest.builder.context
        wanted = isinstance(context.blockings.get(step.tensor), Running)
        if not wanted or context.strict or step.is_map or len(step.space or ()) != 1:
            return None
        makers = {tensor: maker for tensor, (maker, _) in self.home.items()}
        term = inlined(step, makers)
        reads = _by_tensor([part for part in postorder(term) if isinstance(part, Access)])
        for tensor in reads:
            base, position = self.home.get(tensor, (None, -1))
            if base is None or base.is_map or len(base.space or ()) != 1:
                continue
            others = [self.home[name][0] for name in reads if name in self.home]
            if any(other.is_map and other.space for other in others) or step.nested:
                return None
            changed = replace(step, body=term, reads=reads)
            if max(self.earliest(changed, base), position) > position:
                return None
            axes = self.axes(changed, position, base)
            if axes is None:
                return None
            same = _same_indices(base, self.sweeps[position].steps[base.position], step, axes)
            correction = correction_of(step, term, base, inlined(base, makers), same)
            if correction is None:
                return None
            step.body, step.reads, step.correction = term, reads, correction
            self.sweeps[position].steps[step.position] = axes
            return position
        return None

    def earliest(self, step: Step, base: Step | None = None) -> int:
        """The first sweep in which all that a step reads is there, or may be, its base apart."""
        found = 0
        for tensor in step.reads:
            if tensor in self.home and self.home[tensor][0] is not base:
                maker, position = self.home[tensor]
                found = max(found, position + (not maker.is_map))
        return found

    # -- which loop is which

    def axes(self, step: Step, position: int, base: Step | None = None) -> Axes | None:
        """The loop of a sweep that each index of a step has, None where they do not fit."""
        sweep = self.sweeps[position]
        assert step.space is not None
        if sweep.alone is not None or len(sweep.extents) != len(step.space):
            return None
        found: Axes = {}
        for tensor, accesses in step.reads.items():
            maker, place = self.home.get(tensor, (None, -1))
            if maker is None or place != position or maker is base:
                continue
            axes = sweep.steps[maker.position]
            if tensor in step.nested or any(
                not _aligned(access, maker, axes, step, found) for access in accesses
            ):
                return None
        self.guess(step, sweep, found)
        if sorted(found.values()) != list(range(len(sweep.extents))):
            return None
        extents = step.nest.typing.extents
        if any(ext.equal(extents[n], sweep.extents[k]) is not True for n, k in found.items()):
            return None
        return found if self.is_ordered(step, found) else None

    def guess(self, step: Step, sweep: Sweep, found: Axes) -> None:
        """Indices that nothing fixes yet: as others read the same tensor, then in order."""
        assert step.space is not None
        known = set(found.values())
        for other, axes in sweep.steps.items():
            reads = self.steps[other].reads
            for tensor in (name for name in step.reads if name in reads):
                theirs = reads[tensor][0].indices
                for ours, their in zip(step.reads[tensor][0].indices, theirs, strict=False):
                    if not isinstance(ours, Index) or not isinstance(their, Index):
                        continue
                    axis = axes.get(their.name)
                    is_open = ours.name in step.space and ours.name not in found
                    if is_open and axis is not None and axis not in known:
                        found[ours.name] = axis
                        known.add(axis)
        rest = [axis for axis in range(len(sweep.extents)) if axis not in known]
        for name in step.space:
            if name not in found and rest:
                found[name] = rest.pop(0)

    def is_ordered(self, step: Step, axes: Axes) -> bool:
        """Whether the step may run in the sweep's order: its own innermost index stays so, and
        `strict` keeps the order of folds."""
        assert step.space is not None
        order = [axes[name] for name in step.space]
        if step.nest.builder.context.strict and not step.is_map:
            return order == sorted(order)
        return not order or order[-1] == len(order) - 1

    # -- maps that are needed later only

    def sink(self, step: Step) -> None:
        """Move a map to the sweeps that read it: the first, or all where it is cheap."""
        if not step.is_map or not step.space or step.tensor in self.outputs:
            return
        _, own = self.home[step.tensor]
        wanted: dict[int, Axes] = {}
        for position, reader in self.readers(step.tensor):
            axes = None if reader is None else self.through(step, reader, position)
            if axes is None or wanted.setdefault(position, axes) != axes:
                return
        if set(wanted) == {own} or not (wanted or self.is_replaced()):
            return
        if wanted and not is_cheap(step):
            first = min(wanted)
            wanted = {first: wanted[first]}
        del self.sweeps[own].steps[step.position]
        for position, axes in wanted.items():
            sweep = self.sweeps[position]
            sweep.steps = dict(sorted({**sweep.steps, step.position: axes}.items()))
        self.home[step.tensor] = step, min(wanted, default=own)

    def is_replaced(self) -> bool:
        """Whether bodies of maps stand in other steps, so that nobody may read the maps."""
        return any(step.correction is not None for step in self.steps)

    def readers(self, tensor: str) -> Iterator[tuple[int, Step | None]]:
        """The sweeps that read a tensor and their steps that do; None for a step alone."""
        for position, sweep in enumerate(self.sweeps):
            if sweep.alone is not None and tensor in sweep.alone.reads:
                yield position, None
            for other in sweep.steps:
                if tensor in self.steps[other].reads:
                    yield position, self.steps[other]

    def through(self, step: Step, reader: Step, position: int) -> Axes | None:
        """The loops of a sweep that the indices of a map have, by how a step there reads it."""
        sweep = self.sweeps[position]
        if step.tensor in reader.nested or len(sweep.extents) != len(step.space or ()):
            return None
        read = sweep.steps[reader.position]
        known: Axes = {}
        for access in reader.reads[step.tensor]:
            if access.view or access.padding is not None:
                return None
            for ours, theirs in zip(step.nest.statement.indices, access.indices, strict=True):
                assert isinstance(ours, Index)
                if ours.name not in (step.space or ()):
                    continue
                axis = read.get(theirs.name) if isinstance(theirs, Index) else None
                if axis is None or known.setdefault(ours.name, axis) != axis:
                    return None
        placed = sweep.steps.get(step.position, known)
        complete = sorted(known.values()) == list(range(len(sweep.extents)))
        return known if complete and placed == known else None

    # -- memory

    def stored(self) -> set[str]:
        """The tensors that others read, or that a sweep reads which does not compute them."""
        found = set(self.outputs)
        for step in self.steps:
            for tensor in step.tensors:
                if step.space is None or self.is_read_from_memory(step, tensor):
                    found.add(tensor)
        return found

    def is_read_from_memory(self, step: Step, tensor: str) -> bool:
        is_value = not step.is_map or not step.space  # known to all that follows
        for position, reader in self.readers(tensor):
            if reader is None or tensor in reader.nested:
                return True
            if not is_value and step.position not in self.sweeps[position].steps:
                return True
        return False


def _same_indices(base: Step, theirs: Axes, step: Step, ours: Axes) -> dict[Index, Index]:
    """By index of the base, the step's of the same loop: of the sweep's, or the kernel's."""
    names = {axis: name for name, axis in ours.items()}
    found = {Index(name): Index(names[axis]) for name, axis in theirs.items()}
    outer = {value: name for name, value in step.nest.place.variables.items()}
    for name, value in base.nest.place.variables.items():
        if value in outer:
            found[Index(name)] = Index(outer[value])
    return found


def _aligned(access: Access, maker: Step, axes: Axes, step: Step, found: Axes) -> bool:
    """Whether an access reads the cell that the maker computes in the same turn of the loops."""
    if access.view or access.padding is not None:
        return False
    for ours, theirs in zip(access.indices, maker.nest.statement.indices, strict=True):
        assert isinstance(theirs, Index)
        axis = axes.get(theirs.name)
        if axis is None:
            continue  # an index of the kernel's own loops: `join` has seen to it
        if not isinstance(ours, Index) or ours.name not in (step.space or ()):
            return False
        if found.setdefault(ours.name, axis) != axis:
            return False
    return True


def is_cheap(step: Step) -> bool:
    """Whether computing a map again costs no more than storing and reading it."""
    applied = [part for part in postorder(step.body) if isinstance(part, Apply)]
    cost = sum(OPS[part.op].cost * max(1, len(part.arguments) - 1) for part in applied)
    moving = [
        access
        for accesses in step.reads.values()
        for access in accesses
        if any(set(step.space or ()) & set(ext.indices_in(e)) for e in access.indices)
    ]
    return cost <= CHEAP and len(set(moving)) <= FEW_READS
