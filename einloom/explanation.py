"""What a compiled program will do: work, traffic, decisions, loop orders and storage, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from einloom.footprint import footprint_table, needs
from einloom.ir.binding import size_of
from einloom.ir.definitions import functions_of, monoids_of
from einloom.ir.errors import UnsupportedError
from einloom.ir.expressions import Expression, Index, Literal
from einloom.ir.infer import infer
from einloom.ir.names import nested_statements
from einloom.ir.node import postorder
from einloom.ir.program import Call, Constant, Einsum, Kernel, Module, Scan, Statement
from einloom.ir.record import record
from einloom.ir.types import TensorType
from einloom.predictions import costs as predicted_costs
from einloom.predictions import decisions, kernel_times, loops_for, measured_table
from einloom.report import Cell, Quantity, Report, Table

if TYPE_CHECKING:
    from einloom.backends.cost import StatementCost
    from einloom.executable import Executable
    from einloom.ir.loops import LoopProgram
    from einloom.passes.lowering.function import ProgramContext
    from einloom.passes.lowering.products.decisions import Decision
    from einloom.passes.lowering.spine import Member


def explain(
    executable: Executable, sizes: Mapping[str, int], *, measure: bool = False, seed: int = 0
) -> Report:
    """The tables of `einloom explain` for a program whose symbols have these sizes.

    They describe the program as it is after all passes, for contiguous operands. With `measure`
    every kernel is run, on operands made from `seed`, and timed.
    """
    work = Explanation(executable, sizes)
    tables = [work.statements(), work.decisions(), work.orders(), work.cuts(), work.storage()]
    tables += work.footprint()
    if measure:
        tables.insert(1, measured_table(kernel_times(executable, sizes, seed)))
    return Report(tuple(table for table in tables if table.rows))


@record
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
        self.placed = list(self._placed())
        self.decided = decisions(executable, sizes)
        self.loops = _native_loops(executable, sizes)
        self.local = self._local_tensors()

    def _placed(self) -> Iterator[Placed]:
        for statement in self.module.body:
            kernel = isinstance(statement, Kernel)
            members = {m.statement: m for m in self._members(statement)} if kernel else {}
            for inner in nested_statements([statement]):
                if isinstance(inner, Einsum):
                    yield Placed(inner, _around(statement), members.get(inner))

    def _members(self, kernel: Statement) -> Sequence[Member]:
        """The statements of a kernel that share loops; none where they could not be shared."""
        from einloom.passes.lowering.spine import Refusal, spine_of

        assert isinstance(kernel, Kernel)
        einsums = [s for s in kernel.body if isinstance(s, Einsum)]
        if len(einsums) < len(kernel.body):
            return ()
        members = spine_of(einsums, self.context)
        return () if isinstance(members, Refusal) else members

    def _local_tensors(self) -> dict[str, tuple[str, Member]]:
        """Intermediates that live for one iteration of a kernel: its name and the statement."""
        found: dict[str, tuple[str, Member]] = {}
        kernels = {s.name: s for s in self.module.body if isinstance(s, Kernel)}
        # A kernel that is cut at a packed contraction keeps what crosses the cut whole.
        whole = set() if self.loops is None else {item.name for item in self.loops.storages}
        for place in self.placed:
            if place.member is None:
                continue
            for target in place.statement.targets:
                if target.name not in {*kernels[place.kernel].outputs, *whole}:
                    found[target.name] = (place.kernel, place.member)
        return found

    # ---- work and traffic -----------------------------------------------------------------

    def statements(self) -> Table:
        """Operations, bytes, their ratio and the estimated time of every statement, and in all.

        Bytes are those that must move at least; what stays inside one kernel moves none.
        """
        costs = predicted_costs(self.executable, self.sizes)
        around = self._surroundings()
        rows: list[tuple[Cell, ...]] = []
        for position, cost in enumerate(costs):
            rows.append((cost.name, around[position], *_amounts([cost])))
        rows.append(("all", "", *_amounts(costs)))
        amounts = ("times", "FLOPs", "read", "written", "FLOPs/byte", "estimate")
        columns = ("statement", "inside", *amounts)
        numbers = tuple(range(2, len(columns)))
        return Table(f"work of {self.module.name}", columns, tuple(rows), numbers)

    def _surroundings(self) -> list[str]:
        """The kernel or scan around each statement that computes, in the order of the text."""
        return [
            _around(statement)
            for statement in self.module.body
            for inner in nested_statements([statement])
            if isinstance(inner, Einsum | Call)
        ]

    def size(self, extent: Expression) -> int:
        return size_of(extent, self.sizes)

    def bytes_of(self, type_: TensorType, extents: Sequence[Expression]) -> Quantity:
        """Bytes of the elements of a tensor of which only these ranks are kept."""
        from einloom.backends.cost import element_bits

        elements = prod(self.size(extent) for extent in extents)
        return Quantity(elements * element_bits(type_.dtype) / 8, "bytes")

    # ---- decisions and loops --------------------------------------------------------------

    def decisions(self) -> Table:
        """What passes decided, and why they declined to do more."""
        rows = tuple((n.pass_name, n.subject, n.text) for n in self.executable.notes)
        return Table("decisions of passes", ("pass", "about", "decision"), rows)

    def orders(self) -> Table:
        """The loops of every statement from the outermost in, and why they stand so."""
        rows: list[tuple[Cell, ...]] = []
        cut = {d.tensor for d in self.decided if d.cut is not None}
        for place in self.placed:
            if place.name in cut:
                rows.append((place.name, "in blocks", "it is cut: see below"))
                continue
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

    def cuts(self) -> Table:
        """How contractions and transpositions are packed and cut, or why they are not."""
        columns = ("statement", "rows x columns x terms", "cut", "packed", "read in place", "why")
        rows: list[tuple[Cell, ...]] = []
        for decision in self.decided:
            shape = "-" if decision.shape is None else " x ".join(map(str, decision.shape))
            packed = ", ".join(decision.packed) or "-"
            in_place = ", ".join(decision.in_place) or "-"
            why = f"not cut: {decision.reason}" if decision.cut is None else _why(decision)
            rows.append((decision.tensor, shape, _shown(decision), packed, in_place, why))
        return Table("contractions and transpositions", columns, tuple(rows))

    # ---- storage --------------------------------------------------------------------------

    def storage(self) -> Table:
        """Where every tensor lives, and the bytes that takes."""
        rows: list[tuple[Cell, ...]] = []
        stored = self._allocations()
        inputs = {item.name for item in self.module.inputs}
        constants = {s.name for s in self.module.body if isinstance(s, Constant)}
        for name, type_ in self.inference.tensors.items():
            size = self.bytes_of(type_, type_.extents)
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
                size = self.bytes_of(type_, kept)
                place = stored.get(name, "registers")
                where = f"{place}: one iteration of {kernel}"
            elif name in self.context.rings:
                kept_states = self.context.rings[name]
                size = self.bytes_of(type_, [Literal(kept_states), *type_.extents[1:]])
                where = f"its last {kept_states} states"
            else:
                where = "result" if name in self.module.outputs else "whole, between kernels"
            rows.append((name, str(type_), size, where))
        columns = ("tensor", "type", "bytes", "where")
        return Table("storage", columns, tuple(rows), numbers=(2,))

    def footprint(self) -> list[Table]:
        """What is needed beyond inputs and results; nothing of what has no native form."""
        if self.loops is None:
            return []
        return [footprint_table(needs(self.executable, self.sizes, self.loops))]

    def _allocations(self) -> dict[str, str]:
        """How kernels hold their buffers, by name: `stack` or `workspace`."""
        from einloom.ir.loops import Allocate

        if self.loops is None:
            return {}
        return {p.name: p.storage for p in postorder(self.loops) if isinstance(p, Allocate)}


def _native_loops(executable: Executable, sizes: Mapping[str, int]) -> LoopProgram | None:
    try:
        return loops_for(executable, sizes)
    except UnsupportedError:
        return None


def _shown(decision: Decision) -> str:
    """Register tiles and cache blocks, or the tiles of a transposition."""
    from einloom.passes.lowering.products.blocking import Blocking

    cut = decision.cut
    if cut is None:
        return "-"
    if isinstance(cut, Blocking):
        dots = f", dots of {cut.terms}" if cut.terms > 1 else ""
        return (
            f"tiles {cut.rows} x {cut.columns}, blocks up to {cut.block_rows} x "
            f"{cut.block_columns}, {cut.depth} terms{dots}"
        )
    return f"squares of {cut.lanes}, blocks {cut.written} x {cut.read}"


def _why(decision: Decision) -> str:
    if decision.shape is None:
        return "it reads one way and writes another"
    return f"{100 * decision.share:.0f} % of what its tiles compute is wanted"


def _around(statement: Statement) -> str:
    """The kernel or scan that a statement of a program is, `-` for one on its own."""
    if isinstance(statement, Kernel):
        return statement.name
    return f"scan {statement.index}" if isinstance(statement, Scan) else "-"


def _amounts(costs: Sequence[StatementCost]) -> tuple[Cell, ...]:
    """Executions, FLOPs, bytes read and written, intensity and time of statements together."""
    flops = sum(cost.flops for cost in costs)
    read = sum(cost.bytes_read for cost in costs)
    written = sum(cost.bytes_written for cost in costs)
    return (
        str(costs[0].times) if len(costs) == 1 else "",
        Quantity(flops),
        Quantity(read, "bytes"),
        Quantity(written, "bytes"),
        Quantity(flops / (read + written), "ratio") if read + written else "-",
        Quantity(sum(cost.seconds for cost in costs), "seconds"),
    )


def _program_context(module: Module, strict: bool) -> ProgramContext:
    """What the lowering decides loop orders in, for contiguous operands."""
    from einloom.passes.lowering.function import ProgramContext
    from einloom.passes.lowering.scans import rings

    inference = infer(module)
    kept = rings(module, inference)
    return ProgramContext(inference, {}, functions_of(module), monoids_of(module), kept, strict)
