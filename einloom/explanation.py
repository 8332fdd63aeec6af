"""What a compiled program will do: work, traffic, decisions, loop orders and storage, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from einloom.ir import extents as ext
from einloom.ir.binding import size_of
from einloom.ir.definitions import functions_of, inline, monoids_of
from einloom.ir.errors import UnsupportedError
from einloom.ir.expressions import Access, Apply, Expression, Index
from einloom.ir.infer import EinsumTyping, infer
from einloom.ir.names import nested_statements
from einloom.ir.node import Node, child_nodes, postorder
from einloom.ir.ops import is_flat
from einloom.ir.program import Constant, Einsum, Kernel, Module, Scan, Statement
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import Quantized, TensorType
from einloom.report import Cell, Quantity, Report, Table

if TYPE_CHECKING:
    from einloom.executable import Executable
    from einloom.passes.lowering.function import ProgramContext
    from einloom.passes.lowering.spine import Member


def explain(executable: Executable, sizes: Mapping[str, int]) -> Report:
    """The tables of `einloom explain` for a program whose symbols have these sizes.

    Work is that of the program as it is after all passes, for contiguous operands.
    """
    work = Explanation(executable, sizes)
    tables = (work.statements(), work.decisions(), work.orders(), work.storage())
    return Report(tuple(table for table in tables if table.rows))


@dataclass(frozen=True)
class Placed:
    """An einsum statement and where it stands: its kernel, and how it shares that one's loops."""

    statement: Einsum
    kernel: str
    member: Member | None

    @property
    def name(self) -> str:
        return ", ".join(target.name for target in self.statement.targets)


class Explanation:
    """Reads one compiled program."""

    def __init__(self, executable: Executable, sizes: Mapping[str, int]) -> None:
        self.executable = executable
        self.module: Module = executable.module
        self.sizes = sizes
        self.inference = infer(self.module)
        self.context = _program_context(self.module, executable.strict)
        self.placed = list(self._placed(self.module.body, ""))
        self.local = self._local_tensors()

    def _placed(self, statements: Sequence[Statement], around: str) -> Iterator[Placed]:
        for statement in statements:
            if isinstance(statement, Kernel):
                members = {m.statement: m for m in self._members(statement)}
                for inner in nested_statements(statement.body):
                    if isinstance(inner, Einsum):
                        yield Placed(inner, statement.name, members.get(inner))
            elif isinstance(statement, Scan):
                where = around if around else f"scan {statement.index}"
                yield from self._placed((*statement.initial, *statement.body), where)
            elif isinstance(statement, Einsum):
                yield Placed(statement, around, None)

    def _members(self, kernel: Kernel) -> Sequence[Member]:
        """The statements of a kernel that share loops; none where they could not be shared."""
        from einloom.passes.lowering.spine import Refusal, spine_of

        einsums = [s for s in kernel.body if isinstance(s, Einsum)]
        if len(einsums) < len(kernel.body):
            return ()
        members = spine_of(einsums, self.context)
        return () if isinstance(members, Refusal) else members

    def _local_tensors(self) -> dict[str, tuple[str, Member]]:
        """Intermediates that live for one iteration of a kernel: its name and the statement."""
        found: dict[str, tuple[str, Member]] = {}
        kernels = {s.name: s for s in self.module.body if isinstance(s, Kernel)}
        for place in self.placed:
            if place.member is None:
                continue
            for target in place.statement.targets:
                if target.name not in kernels[place.kernel].outputs:
                    found[target.name] = (place.kernel, place.member)
        return found

    # ---- work and traffic -----------------------------------------------------------------

    def statements(self) -> Table:
        """Operations, bytes and their ratio for every statement, and for the whole."""
        rows: list[tuple[Cell, ...]] = []
        total = 0
        traffic: dict[tuple[str, str, bool], int] = {}
        for number, place in enumerate(self.placed):
            operations = self.operations(place.statement)
            moved = self.traffic(place.statement)
            total += operations
            # Statements of one kernel find in the cache what an earlier one has read.
            group = place.kernel if place.member is not None else str(number)
            for (tensor, written), size in moved.items():
                key = group, tensor, written
                traffic[key] = max(size, traffic.get(key, 0))
            rows.append(
                (
                    place.name,
                    place.kernel or "-",
                    Quantity(operations),
                    Quantity(sum(moved.values()), "bytes"),
                    _intensity(operations, sum(moved.values())),
                )
            )
        whole = sum(traffic.values())
        cells = Quantity(total), Quantity(whole, "bytes"), _intensity(total, whole)
        rows.append(("all", "", *cells))
        columns = ("statement", "inside", "FLOPs", "bytes", "FLOPs/byte")
        return Table(f"work of {self.module.name}", columns, tuple(rows), numbers=(2, 3, 4))

    def operations(self, statement: Einsum) -> int:
        """Scalar operations: those of the body and the condition, and one per fold."""
        typing = self.inference.einsums[statement]
        extents = {n: self.size(e) for n, e in typing.extents.items()}
        roots = [inline(statement.body, self.context.functions)]
        if statement.condition is not None:
            roots.append(inline(statement.condition, self.context.functions))
        per_cell = sum(_operations(root) for root in roots)
        total = per_cell * prod(extents.values())
        folds = prod(extents.values())
        for reduction in reversed(statement.reductions):
            total += folds
            folds //= max(1, prod(extents[name] for name in reduction.indices))
        return total

    def traffic(self, statement: Einsum) -> dict[tuple[str, bool], int]:
        """Bytes by tensor and whether they are written, each cell counted once.

        What lives for one iteration of a kernel stays near the processor and counts nothing.
        """
        typing = self.inference.einsums[statement]
        found: dict[tuple[str, bool], int] = {}
        for part in postorder(statement):
            if isinstance(part, Access) and part.tensor not in self.local:
                read = self._cells(part.tensor, part.indices, typing)
                found[part.tensor, False] = max(read, found.get((part.tensor, False), 0))
        for target in statement.targets:
            if target.name not in self.local:
                found[target.name, True] = self._cells(target.name, statement.indices, typing)
        return found

    def _cells(self, tensor: str, indices: Sequence[Expression], typing: EinsumTyping) -> int:
        """Bytes that accesses with these indices can touch."""
        type_ = self.inference.tensors[tensor]
        names = {name for index in indices for name in ext.indices_in(index)}
        reached = prod(self.size(typing.extents[name]) for name in names)
        return min(reached, self.elements(type_)) * item_bytes(type_)

    def size(self, extent: Expression) -> int:
        return size_of(extent, self.sizes)

    def elements(self, type_: TensorType) -> int:
        return prod(self.size(extent) for extent in type_.extents)

    # ---- decisions and loops --------------------------------------------------------------

    def decisions(self) -> Table:
        """What passes decided, and why they declined to do more."""
        rows = tuple((n.pass_name, n.subject, n.text) for n in self.executable.notes)
        return Table("decisions of passes", ("pass", "about", "decision"), rows)

    def orders(self) -> Table:
        """The loops of every statement from the outermost in, and why they stand so."""
        rows: list[tuple[Cell, ...]] = []
        for place in self.placed:
            loops, reason = self.order(place)
            rows.append((place.name, loops, reason))
        columns = ("statement", "loops", "why")
        return Table("loop order, outermost first", columns, tuple(rows))

    def order(self, place: Placed) -> tuple[str, str]:
        """The loops of one statement, and the reason for the innermost."""
        from einloom.passes.lowering.function import FunctionBuilder, Place
        from einloom.passes.lowering.nests import Nest

        typing = self.inference.einsums[place.statement]
        shared = () if place.member is None else place.member.spine
        typing = replace(typing, scans=(*typing.scans, *shared))
        builder = FunctionBuilder("explain", self.context)
        try:
            nest = Nest(builder, place.statement, typing, Place({}, {}))
        except UnsupportedError as error:
            return "-", error.message
        order = nest.order
        # A blocked innermost loop over the result runs inside the reductions.
        inner = [] if order.inner is None or order.inner in order.reduced else [order.inner]
        own = [*order.outer, *order.reduced, *inner]
        scans = self.inference.einsums[place.statement].scans
        words = [*(f"{name} (scan)" for name in scans), *(f"{name} (shared)" for name in shared)]
        reason = order.reason
        if order.blocked:
            reason += "; it is blocked, and a block of results is kept while the sum runs"
        return ", ".join([*words, *own]) or "none", reason

    # ---- storage --------------------------------------------------------------------------

    def storage(self) -> Table:
        """Where every tensor lives, and the bytes that takes."""
        rows: list[tuple[Cell, ...]] = []
        stored = self._allocations()
        inputs = {item.name for item in self.module.inputs}
        constants = {s.name for s in self.module.body if isinstance(s, Constant)}
        for name, type_ in self.inference.tensors.items():
            size = self.elements(type_) * item_bytes(type_)
            if name in inputs:
                where = "input"
            elif name in constants:
                where = "constant"
            elif name in self.local:
                kernel, member = self.local[name]
                kept = [
                    extent
                    for index, extent in zip(member.statement.indices, type_.extents, strict=True)
                    if not (isinstance(index, Index) and index.name in member.spine)
                ]
                size = prod(self.size(extent) for extent in kept) * item_bytes(type_)
                place = stored.get(name, "registers")
                where = f"{place}: one iteration of {kernel}"
            elif name in self.context.rings:
                kept_states = self.context.rings[name]
                size = kept_states * prod(map(self.size, type_.extents[1:])) * item_bytes(type_)
                where = f"its last {kept_states} states"
            else:
                where = "result" if name in self.module.outputs else "whole, between kernels"
            rows.append((name, str(type_), Quantity(size, "bytes"), where))
        columns = ("tensor", "type", "bytes", "where")
        return Table("storage", columns, tuple(rows), numbers=(2,))

    def _allocations(self) -> dict[str, str]:
        """How kernels hold their buffers, by name: `stack` or `workspace`."""
        from einloom.ir.loops import Allocate

        try:
            loops = self.executable.loops()
        except UnsupportedError:
            return {}
        return {p.name: p.storage for p in postorder(loops) if isinstance(p, Allocate)}


def item_bytes(type_: TensorType) -> int:
    """Bytes per element of a tensor; of a quantized one, of its codes in whole bytes."""
    if isinstance(type_.dtype, Quantized):
        return 1
    return int(numpy_dtype(type_.dtype).itemsize)


def _operations(root: Expression) -> int:
    """Scalar operations of one evaluation; shared parts count once, index arithmetic nothing."""
    count = 0
    seen: set[int] = set()
    stack: list[Node] = [root]
    while stack:
        current = stack.pop()
        if id(current) in seen or isinstance(current, Access):
            continue
        seen.add(id(current))
        if isinstance(current, Apply):
            count += len(current.arguments) - 1 if is_flat(current.op) else 1
        stack.extend(child_nodes(current))
    return count


def _intensity(operations: int, size: int) -> Cell:
    return Quantity(operations / size, "ratio") if size else "-"


def _program_context(module: Module, strict: bool) -> ProgramContext:
    """What the lowering decides loop orders in, for contiguous operands."""
    from einloom.passes.lowering.function import ProgramContext
    from einloom.passes.lowering.scans import rings

    inference = infer(module)
    kept = rings(module, inference)
    return ProgramContext(inference, {}, functions_of(module), monoids_of(module), kept, strict)
