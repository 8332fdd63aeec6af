"""A module taken apart for rewriting: slots for statements, and a def-use index kept up to date."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from einloom.ir.expressions import Expression
from einloom.ir.infer import EinsumTyping, Inference
from einloom.ir.program import Call, Constant, Einsum, Kernel, Module, Scan, Statement
from einloom.ir.rewrite.parts import parts_of
from einloom.ir.types import TensorType

# Orders of neighbouring slots start this far apart, so that slots can be put between them.
ORDER_GAP = 1 << 20


@dataclass(eq=False)
class Region:
    """A list of statements: the module's, a kernel's, or one of a scan's two.

    `scans` are the indices that enclosing scans define.
    """

    kind: str
    owner: Slot | None
    scans: tuple[str, ...]
    slots: list[Slot] = field(default_factory=list)

    def encloses(self, other: Region) -> bool:
        """Whether `other` is this region or lies inside it."""
        current: Region | None = other
        while current is not None:
            if current is self:
                return True
            current = current.owner.region if current.owner is not None else None
        return False


@dataclass(eq=False)
class Slot:
    """The place of one statement. A scan or kernel holds regions; `statement` is its frame.

    `order` grows in program order, also across regions. `extents`: of the indices of an einsum,
    those of the enclosing scans included.
    """

    statement: Statement
    region: Region
    order: int
    extents: Mapping[str, Expression] = field(default_factory=dict)
    regions: tuple[Region, ...] = ()
    alive: bool = True
    reads: tuple[str, ...] = ()
    queued: bool = False

    @property
    def targets(self) -> tuple[str, ...]:
        """Names that the statement itself writes."""
        match self.statement:
            case Einsum() | Call():
                return tuple(target.name for target in self.statement.targets)
            case Constant():
                return (self.statement.name,)
        return ()

    @property
    def label(self) -> str:
        """What messages call the statement: the tensors that it defines."""
        match self.statement:
            case Scan():
                return f"scan {self.statement.index}"
            case Kernel():
                return f"kernel {self.statement.name}"
        return ", ".join(self.targets)


class Graph:
    """The statements of a module, and for every tensor who defines it and who reads it.

    A scan state has several definers. `types` gives every tensor's type, that of new ones
    included. `moved`: tensors that are read at other places than at the start.
    """

    def __init__(self, module: Module, inference: Inference) -> None:
        self.module = module
        self.types: dict[str, TensorType] = dict(inference.tensors)
        self.states = dict(inference.states)
        self.outputs = frozenset(module.outputs)
        self.inputs = frozenset(item.name for item in module.inputs)
        self.definers: dict[str, dict[Slot, None]] = {}
        self.readers: dict[str, dict[Slot, None]] = {}
        self.moved: set[str] = set()
        self.removed: dict[str, None] = {}
        # Statements by a rough description, for the rule that looks for equal ones.
        self.similar: dict[Hashable, dict[Slot, None]] = {}
        # Slots to visit again because of what was seen in another one.
        self.woken: dict[Slot, None] = {}
        self.body = Region("module", None, ())
        self._names = {*self.types, *inference.symbols}
        self._build(module, inference.einsums)

    # -- taking apart

    def _build(self, module: Module, typings: Mapping[Einsum, EinsumTyping]) -> None:
        order = 0
        pending: list[tuple[Region, deque[Statement]]] = [(self.body, deque(module.body))]
        # Depth first: the statements of an inner region come right after its frame.
        while pending:
            region, statements = pending[-1]
            if not statements:
                pending.pop()
                continue
            statement = statements.popleft()
            order += ORDER_GAP
            slot = Slot(statement, region, order)
            region.slots.append(slot)
            if isinstance(statement, Einsum):
                slot.extents = typings[statement].extents
            inner: list[tuple[Region, deque[Statement]]] = []
            if isinstance(statement, Kernel):
                inner = [(Region("kernel", slot, region.scans), deque(statement.body))]
            elif isinstance(statement, Scan):
                scans = (*region.scans, statement.index)
                inner = [
                    (Region("initial", slot, region.scans), deque(statement.initial)),
                    (Region("body", slot, scans), deque(statement.body)),
                ]
            slot.regions = tuple(part for part, _ in inner)
            self._enter(slot)
            pending.extend(reversed(inner))

    def _enter(self, slot: Slot) -> None:
        for name in slot.targets:
            self.definers.setdefault(name, {})[slot] = None
        slot.reads = tensors_read(slot.statement)
        for name in slot.reads:
            self.readers.setdefault(name, {})[slot] = None

    def _leave(self, slot: Slot) -> None:
        for name in slot.targets:
            self.definers.get(name, {}).pop(slot, None)
        for name in slot.reads:
            self.readers.get(name, {}).pop(slot, None)

    # -- questions

    def slots(self) -> Iterator[Slot]:
        """All slots in program order."""
        pending: list[Slot] = list(reversed(self.body.slots))
        while pending:
            slot = pending.pop()
            if slot.alive:
                yield slot
                for region in reversed(slot.regions):
                    pending.extend(reversed(region.slots))

    def definition(self, name: str) -> Slot | None:
        """The one slot that defines a tensor; None for inputs and for scan states."""
        found = self.definers.get(name, {})
        if len(found) != 1 or name in self.states:
            return None
        return next(iter(found))

    def visible(self, name: str, at: Slot) -> Slot | None:
        """The definition of a tensor where it precedes `at` in its region or an enclosing one."""
        slot = self.definition(name)
        if slot is None or slot.order >= at.order or not slot.region.encloses(at.region):
            return None
        return slot

    def readers_of(self, name: str) -> Mapping[Slot, None]:
        """Slots that read a tensor."""
        return self.readers.get(name, {})

    def is_needed(self, name: str) -> bool:
        """Whether somebody reads a tensor, or it is a result."""
        return name in self.outputs or bool(self.readers.get(name))

    def fresh(self, name: str) -> str:
        """A tensor name that is not taken, made from `name`; taken from now on."""
        candidate, count = name, 0
        while candidate in self._names:
            count += 1
            candidate = f"{name}_{count}"
        self._names.add(candidate)
        return candidate

    # -- changes

    def set(self, slot: Slot, statement: Statement) -> None:
        """Replace the statement of a slot."""
        before = set(slot.reads)
        self._leave(slot)
        slot.statement = statement
        self._enter(slot)
        self.moved |= set(slot.reads) - before

    def insert_before(self, slot: Slot, statement: Einsum) -> Slot:
        """A new slot for `statement` in front of another one."""
        siblings = slot.region.slots
        place = siblings.index(slot)
        previous = _last_order(siblings[place - 1]) if place else self._frame_order(slot.region)
        if slot.order - previous < 2:
            self._respace()
            previous = _last_order(siblings[place - 1]) if place else self._frame_order(slot.region)
        new = Slot(statement, slot.region, (previous + slot.order) // 2)
        siblings.insert(place, new)
        self._enter(new)
        self.moved |= set(new.reads)
        return new

    def remove(self, slot: Slot) -> None:
        """Take a slot out, with all that it holds. Its region forgets it when put together."""
        pending = [slot]
        while pending:
            current = pending.pop()
            current.alive = False
            self._leave(current)
            for name in current.targets:
                if not self.definers.get(name):
                    self.removed[name] = None
            for region in current.regions:
                pending.extend(inner for inner in region.slots if inner.alive)

    def _frame_order(self, region: Region) -> int:
        return region.owner.order if region.owner is not None else 0

    def _respace(self) -> None:
        for place, slot in enumerate(self.slots(), start=1):
            slot.order = place * ORDER_GAP

    # -- putting together

    def rebuilt(self) -> tuple[Statement, ...]:
        """The body of the module as it stands now; kernels that have become empty are left out."""
        done: dict[Region, tuple[Statement, ...]] = {}
        for region in reversed(list(self._regions())):
            statements = []
            for slot in region.slots:
                statement = self._put_together(slot, done) if slot.alive else None
                if statement is not None:
                    statements.append(statement)
            done[region] = tuple(statements)
        return done[self.body]

    def _regions(self) -> Iterator[Region]:
        yield self.body
        for slot in self.slots():
            yield from slot.regions

    def _put_together(
        self, slot: Slot, done: Mapping[Region, tuple[Statement, ...]]
    ) -> Statement | None:
        statement = slot.statement
        match statement:
            case Kernel():
                body = done[slot.regions[0]]
                if not body:
                    return None
                return replace(statement, body=body, outputs=self._kernel_outputs(slot))
            case Scan():
                initial = tuple(s for s in done[slot.regions[0]] if isinstance(s, Einsum))
                return replace(statement, initial=initial, body=done[slot.regions[1]])
        return statement

    def _kernel_outputs(self, slot: Slot) -> tuple[str, ...]:
        """What is read outside a kernel: the outputs it had, then those that have become one."""
        assert isinstance(slot.statement, Kernel)
        region = slot.regions[0]
        written = [name for inner in slots_in(region) for name in inner.targets]
        kept = [name for name in slot.statement.outputs if name in written]
        for name in written:
            outside = name in self.outputs or any(
                not region.encloses(reader.region) for reader in self.readers_of(name)
            )
            if outside and name not in kept:
                kept.append(name)
        return tuple(kept)


def _last_order(slot: Slot) -> int:
    """The highest order in a slot and all that it holds."""
    current = slot
    while True:
        inner = [region.slots[-1] for region in current.regions if region.slots]
        if not inner:
            return current.order
        current = inner[-1]


def slots_in(region: Region) -> Iterator[Slot]:
    """All slots of a region, those of inner regions included, in program order."""
    pending = list(reversed(region.slots))
    while pending:
        slot = pending.pop()
        if slot.alive:
            yield slot
            for inner in reversed(slot.regions):
                pending.extend(reversed(inner.slots))


def tensors_read(statement: Statement) -> tuple[str, ...]:
    """Tensors that a statement itself reads; of a scan, those of its `until`."""
    match statement:
        case Einsum():
            roots = [statement.body, *statement.indices]
            if statement.condition is not None:
                roots.append(statement.condition)
        case Scan():
            roots = [] if statement.until is None else [statement.until]
        case Call():
            roots = list(statement.arguments)
        case _:
            roots = []
    found: dict[str, None] = {}
    for root in roots:
        for access in parts_of(root).accesses:
            found.setdefault(access.tensor)
    return tuple(found)
