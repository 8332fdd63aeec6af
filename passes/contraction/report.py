"""What `contract` does with a statement and why, in numbers and in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from einloom.ir import extents as ext
from einloom.ir.errors import PassError
from einloom.ir.infer import infer
from einloom.ir.names import nested_statements
from einloom.ir.program import Einsum, Module
from einloom.ir.record import record
from einloom.ir.types import DType
from einloom.passes.base import Context
from einloom.passes.contraction.choose import list_positions
from einloom.passes.contraction.cost import (
    PlainCostModel,
    Plan,
    PlanCost,
    counted,
    direct_operations,
    measured,
)
from einloom.passes.contraction.network import Network, Tree, unsplit
from einloom.passes.contraction.recognize import Contraction, Recognizer, Refusal

if TYPE_CHECKING:
    from einloom.passes.contract import Contract


@record
class ReportedStep:
    """One statement: its indices as an einsum, its loops, and what it costs once."""

    equation: str
    loops: int
    operations: int
    elements: int


@record
class ContractionReport:
    """How one statement is contracted.

    `path`: positions in the list of what is left, as NumPy and opt_einsum write it.
    `operations` and `direct_operations`: scalar operations of the chosen tree and of one loop
    nest over all factors. `largest_intermediate` and `peak`: elements. `seconds` and
    `direct_seconds`: the cost model's estimates. `sliced`: names of the indices that a scan runs
    over, in `slices` slices. `assumed`: symbols whose sizes were not known. `refusal`: why the
    statement is not split, where a law or a setting forbids it.
    """

    statement: str
    equation: str
    finder: str
    compared: int
    path: tuple[tuple[int, ...], ...]
    steps: tuple[ReportedStep, ...]
    operations: int
    direct_operations: int
    largest_intermediate: int
    peak: int
    bytes_read: float
    bytes_written: float
    element_bytes: float
    seconds: float
    direct_seconds: float
    sliced: tuple[str, ...] = ()
    slices: int = 1
    assumed: tuple[str, ...] = ()
    refusal: str | None = None

    @property
    def speedup(self) -> float:
        """How many times fewer operations than in one loop nest."""
        return self.direct_operations / max(1, self.operations)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"contraction of {self.statement}: {self.equation}"
        if self.refusal is not None:
            yield f"  not split       {self.refusal}"
        path = ", ".join(str(group) for group in self.path)
        among = f", best of {self.compared} by estimated time" if self.compared > 1 else ""
        yield f"  path            {path or 'none'} (from {self.finder}{among})"
        if self.sliced:
            yield f"  slices          {counted(self.slices)} over {', '.join(self.sliced)}"
        times = f", {_ratio(self.direct_operations, self.operations)}" if self.steps[1:] else ""
        yield (
            f"  operations      {counted(self.operations)}, in one loop nest "
            f"{counted(self.direct_operations)}{times}"
        )
        size = _bytes(self.largest_intermediate * self.element_bytes)
        yield f"  intermediates   largest {counted(self.largest_intermediate)} elements ({size})"
        yield f"                  {counted(self.peak)} elements at one time"
        read, written = _bytes(self.bytes_read), _bytes(self.bytes_written)
        yield f"  memory traffic  {read} read, {written} written"
        yield (
            f"  estimated time  {_seconds(self.seconds)}, in one loop nest "
            f"{_seconds(self.direct_seconds)}"
        )
        if self.assumed:
            yield f"  assumed sizes   {', '.join(self.assumed)}"
        yield ""
        yield f"  {'step':>4}  {'operations':>10}  {'elements':>10}  {'loops':>5}  contraction"
        for number, step in enumerate(self.steps, start=1):
            numbers = f"{counted(step.operations):>10}  {counted(step.elements):>10}"
            yield f"  {number:>4}  {numbers}  {step.loops:>5}  {step.equation}"


def contraction_report(
    module: Module,
    options: Contract | None = None,
    context: Context | None = None,
    *,
    statement: str | None = None,
) -> ContractionReport:
    """How `contract` with these options treats one statement of a module.

    `statement`: the name of the tensor that it defines; by default the first one of several
    factors, else the first. Raises PassError where there is no such einsum.
    """
    einsums = [
        s for s in nested_statements(module.body) if isinstance(s, Einsum) and len(s.targets) == 1
    ]
    if statement is not None:
        einsums = [s for s in einsums if s.targets[0].name == statement]
    if not einsums:
        what = "no einsum" if statement is None else f"no einsum that defines {statement} alone"
        raise PassError(f"program {module.name} has {what}")
    reporter = _Reporter(module, options, context)
    found = next((s for s in einsums if reporter.recognizer.read(s) is not None), einsums[0])
    return reporter.report(found)


def contraction_reports(
    module: Module, options: Contract | None = None, context: Context | None = None
) -> tuple[ContractionReport, ...]:
    """The reports of all statements that are contractions, in the order of the program."""
    reporter = _Reporter(module, options, context)
    return tuple(
        reporter.report(statement)
        for statement in nested_statements(module.body)
        if isinstance(statement, Einsum) and reporter.recognizer.read(statement) is not None
    )


class _Reporter:
    def __init__(self, module: Module, options: Contract | None, context: Context | None) -> None:
        from einloom.passes.contract import Contract

        self.options = Contract() if options is None else options
        self.context = Context() if context is None else context
        self.inference = infer(module)
        self.recognizer = Recognizer(module, self.inference, self.context)

    def report(self, statement: Einsum) -> ContractionReport:
        found = self.recognizer.read(statement)
        names, network, dtype = self.recognizer.direct(statement)
        plan, compared = Plan(network, unsplit(network), "none"), 1
        if isinstance(found, Contraction):
            choice = self.options.choice(found, self.context)
            names, network, dtype = found.names, found.network, found.dtype
            plan, compared = choice.plan, choice.compared
        cost = self.measured(plan, dtype)
        direct = self.measured(Plan(network, unsplit(network), "none"), dtype)
        unknown = {
            symbol
            for extent in self.inference.einsums[statement].extents.values()
            for symbol in ext.symbols_in(extent)
            if symbol not in self.context.extents
        }
        return ContractionReport(
            statement.targets[0].name,
            _equation(network, range(len(network.terms)), network.output, unsplit(network), names),
            plan.finder,
            compared,
            _list_path(plan.tree),
            tuple(_steps(plan, cost, names)),
            cost.operations,
            direct_operations(network),
            cost.largest,
            cost.peak,
            cost.bytes_read,
            cost.bytes_written,
            network.element_bytes,
            cost.seconds,
            direct.seconds,
            tuple(names[index] for index in plan.sliced),
            plan.slices,
            tuple(sorted(unknown)),
            found.reason if isinstance(found, Refusal) else None,
        )

    def measured(self, plan: Plan, dtype: DType) -> PlanCost:
        return measured(plan, dtype, self.context.cost_model or PlainCostModel())


def _steps(plan: Plan, cost: PlanCost, names: Sequence[str]) -> Iterator[ReportedStep]:
    tree = plan.tree
    for step, found in zip(tree.steps, cost.steps, strict=True):
        equation = _equation(tree.network, step.operands, step.kept, tree, names)
        yield ReportedStep(equation, len(step.space), found.operations, found.elements)


def _list_path(tree: Tree) -> tuple[tuple[int, ...], ...]:
    """The tree's path without its steps of one operand, which meet nothing."""
    count = len(tree.network.terms)
    renamed = list(range(count))
    groups: list[tuple[int, ...]] = []
    for step in tree.steps:
        group = tuple(renamed[node] for node in step.operands)
        if len(group) == 1 and len(tree.steps) > 1:
            renamed.append(group[0])
        else:
            renamed.append(count + len(groups))
            groups.append(group)
    return tuple(list_positions(groups, count))


def _equation(
    network: Network,
    operands: Iterable[int],
    kept: Iterable[int],
    tree: Tree,
    names: Sequence[str],
) -> str:
    used = {index for operand in operands for index in tree.indices(operand)} | set(kept)
    short = all(len(names[index]) == 1 for index in used)

    def shown(indices: Iterable[int]) -> str:
        return ("" if short else " ").join(names[index] for index in indices)

    left = ("," if short else ", ").join(shown(tree.indices(operand)) for operand in operands)
    return f"{left}->{shown(kept)}" if short else f"{left} -> {shown(kept)}".rstrip()


def _ratio(before: int, after: int) -> str:
    if before < after:
        return "which are more, but take less time"
    ratio = before // max(1, after)
    return f"{counted(ratio)} times as many" if ratio > 1 else "about as many"


def _bytes(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def _seconds(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
