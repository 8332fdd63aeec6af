"""What a plan costs: operations, bytes, memory and estimated time, step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

from einloom.ir.machine import Machine
from einloom.ir.record import record
from einloom.ir.types import COMPLEX, DType, Scalar
from einloom.passes.contraction.network import Indices, Network, Step, Tree

STRIDED = 2.0
"""How much more a factor costs to read whose innermost rank is not an innermost loop."""

FEW_POINTS = 1 << 14
"""Points of a step's loops below which nobody asks whether it would be packed."""

INFEASIBLE = 1e300


class CostModel(Protocol):
    """What a machine takes for one kernel; `context.cost_model` of a pipeline is one."""

    def seconds(
        self,
        *,
        operations: float,
        bytes_moved: float,
        footprint: float,
        fresh_bytes: float,
        dtype: DType,
        launches: int,
        serial: bool,
        bytes_written: float = 0.0,
        packed: float = 0.0,
    ) -> float:
        """Seconds for a kernel.

        `operations`: scalar operations on `dtype`. `bytes_moved`: read and written, of which
        `bytes_written` are written. `footprint`: bytes touched, which decides the cache that they
        stay in. `fresh_bytes`: of those, the ones in memory allocated for it. `serial`: it runs
        on one thread. `packed`: above 0 where it runs as fast as packed contractions do.
        """


@record
class PlainCostModel:
    """A machine without caches, for contexts that give no cost model."""

    operations_per_second: float = 2e10
    bytes_per_second: float = 2e10
    fresh_bytes_per_second: float = 1e10
    launch_seconds: float = 3e-6

    def seconds(
        self,
        *,
        operations: float,
        bytes_moved: float,
        footprint: float,
        fresh_bytes: float,
        dtype: DType,
        launches: int,
        serial: bool,
        bytes_written: float = 0.0,
        packed: float = 0.0,
    ) -> float:
        """The larger of computing and moving, with the fixed costs added."""
        weight = 4.0 if isinstance(dtype, Scalar) and dtype.kind == COMPLEX else 1.0
        computing = weight * operations / self.operations_per_second
        moving = bytes_moved / self.bytes_per_second
        fixed = launches * self.launch_seconds + fresh_bytes / self.fresh_bytes_per_second
        return max(computing, moving) + fixed


@record
class Plan:
    """A tree, perhaps run once per slice.

    `sliced`: reduced indices of `network` that a surrounding scan runs over; `tree` is that of
    one slice. Steps that no sliced factor reaches run once, before the scan.
    """

    network: Network
    tree: Tree
    finder: str
    sliced: Indices = ()

    @property
    def slices(self) -> int:
        return self.network.size(self.sliced)

    def varying(self) -> list[bool]:
        """For each step whether it differs between slices."""
        fixed = set(self.sliced)
        nodes = [not fixed.isdisjoint(term) for term in self.network.terms]
        for step in self.tree.steps:
            nodes.append(any(nodes[operand] for operand in step.operands))
        varying = nodes[len(self.network.terms) :]
        if self.sliced:
            varying[-1] = True  # the last step is what the slices add up
        return varying


@record
class StepCost:
    """One step, once: scalar operations, elements of its result, bytes read and written.

    `packed`: whether it is a contraction of rows and columns that is large enough to be packed.
    """

    operations: int
    elements: int
    bytes_read: float
    bytes_written: float
    packed: bool = False


@record
class PlanCost:
    """A whole plan, all slices included.

    `largest`: elements of the largest intermediate. `peak`: elements of the intermediates that
    are alive at one time, at most. `steps`: each step, once.
    """

    operations: int
    bytes_read: float
    bytes_written: float
    largest: int
    peak: int
    seconds: float
    steps: tuple[StepCost, ...]


def step_operations(network: Network, step: Step) -> int:
    """Scalar operations of a step: per point of its loops the product and the fold."""
    per_point = len(step.operands) - 1 + bool(step.reduced)
    return network.size(step.space) * max(1, per_point)


def operations(tree: Tree) -> int:
    """Scalar operations of a tree."""
    return sum(step_operations(tree.network, step) for step in tree.steps)


def direct_operations(network: Network) -> int:
    """Scalar operations of all factors in one loop nest."""
    per_point = len(network.terms) - 1 + bool(network.reduced)
    return network.size(network.output + network.reduced) * max(1, per_point)


def step_costs(tree: Tree) -> Iterator[StepCost]:
    """The cost of each step, once."""
    network = tree.network
    count = len(network.terms)
    widths, terms, sizes = network.factor_bytes, network.term_sizes, tree.elements
    for step, elements in zip(tree.steps, sizes, strict=True):
        read = 0.0
        for operand in step.operands:
            if operand >= count:
                read += finite(sizes[operand - count]) * network.element_bytes
            else:
                width = widths[operand]
                width *= STRIDED if _is_strided(network.terms[operand], step, network) else 1.0
                read += finite(terms[operand]) * width
        written = finite(elements) * network.element_bytes
        points = elements * network.size(step.reduced)
        yield StepCost(
            points * max(1, len(step.operands) - 1 + bool(step.reduced)),
            elements,
            read,
            written,
            points >= FEW_POINTS and _is_packed(tree, step),
        )


def _is_packed(tree: Tree, step: Step) -> bool:
    """Whether a step of many points is likely to be packed: what has rows, columns and terms."""
    if len(step.operands) != 2 or not step.reduced:
        return False
    network = tree.network
    from einloom.passes.lowering.products.blocking import blocking_for

    left, right = (set(tree.indices(operand)) for operand in step.operands)
    rows = network.size(i for i in step.kept if i in left and i not in right)
    columns = network.size(i for i in step.kept if i in right and i not in left)
    if rows == 1 or columns == 1:
        return False
    terms = network.size(step.reduced)
    element = int(network.element_bytes)
    return (
        blocking_for(Machine(), element, min(rows, columns), max(rows, columns), terms) is not None
    )


def _is_strided(indices: Indices, step: Step, network: Network) -> bool:
    """Whether a factor's contiguous rank is neither folded nor the last of the result."""
    last = next((index for index in reversed(indices) if network.sizes[index] > 1), None)
    return last is not None and last not in step.reduced and last != (step.kept or (-1,))[-1]


def measured(plan: Plan, dtype: DType, model: CostModel) -> PlanCost:
    """The cost of a plan whose tree is shaped already."""
    steps = tuple(step_costs(plan.tree))
    varying = plan.varying()
    slices = plan.slices
    real = not (isinstance(dtype, Scalar) and dtype.kind == COMPLEX)
    total_operations, read, written, seconds = 0, 0.0, 0.0, 0.0
    known: dict[tuple[float | bool, ...], float] = {}  # many steps of a network are alike
    for position, (cost, varies) in enumerate(zip(steps, varying, strict=True)):
        times = slices if varies else 1
        total_operations += times * cost.operations
        read += finite(times) * cost.bytes_read
        written += finite(times) * cost.bytes_written
        inside = bool(plan.sliced) and varies
        last = position == len(steps) - 1
        key = (cost.operations, cost.bytes_read, cost.bytes_written, cost.packed, inside, last)
        once = known.get(key)
        if once is None:
            moved = cost.bytes_read + cost.bytes_written
            once = known[key] = model.seconds(
                operations=finite(cost.operations),
                bytes_moved=moved,
                footprint=moved,
                fresh_bytes=0.0 if inside or last else cost.bytes_written,
                dtype=dtype,
                launches=0 if inside else 1,
                serial=inside,
                bytes_written=cost.bytes_written,
                packed=1.0 if cost.packed and not inside and real else 0.0,
            )
        seconds += finite(times) * once
    if plan.sliced:
        added = _adding_up(plan)
        total_operations += slices * added.elements
        read, written = read + added.bytes_read, written + added.bytes_written
        seconds += model.seconds(
            operations=finite(slices * added.elements),
            bytes_moved=added.bytes_read + added.bytes_written,
            footprint=3.0 * finite(added.elements) * plan.network.element_bytes,
            fresh_bytes=2.0 * finite(added.elements) * plan.network.element_bytes,
            dtype=dtype,
            launches=2,
            serial=True,
        )
    return PlanCost(
        total_operations,
        read,
        written,
        plan.tree.largest,
        peak_elements(plan.tree),
        min(seconds, INFEASIBLE),
        steps,
    )


def _adding_up(plan: Plan) -> StepCost:
    """What adding the slices to the running result moves, all slices together."""
    elements = plan.network.size(plan.network.output)
    width = finite(elements) * plan.network.element_bytes * finite(plan.slices)
    return StepCost(elements, elements, 2.0 * width, width)


def peak_elements(tree: Tree) -> int:
    """Elements of the intermediates alive at one time, at most; the result is not counted."""
    count = len(tree.network.terms)
    alive = peak = 0
    for position, step in enumerate(tree.steps):
        if position < len(tree.steps) - 1:
            alive += tree.elements[position]
            peak = max(peak, alive)
        for operand in step.operands:
            if operand >= count:
                alive -= tree.elements[operand - count]
    return peak


def finite(value: int | float) -> float:
    """A count as a float; what no float holds becomes the largest cost there is."""
    return float(value) if value < INFEASIBLE else INFEASIBLE


def counted(value: int) -> str:
    """A count for people: digits up to 99,999, then `1.23e+07`, whatever its size."""
    if value < 100_000:
        return str(value)
    if value < INFEASIBLE:
        return f"{value:.2e}"
    exponent = math.floor(math.log10(value))  # exact enough, and fast on 100,000 digits
    return f"{10 ** (math.log10(value) - exponent):.2f}e+{exponent}"
