"""Contractions of very many operands: run step by step, each step by a plan that steps share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from einloom.api import new_context
from einloom.cache import plan_cache
from einloom.calls.build import Operand, kernel_plan, writing_to
from einloom.calls.matrices import RESULT as MATRIX_RESULT
from einloom.calls.matrices import TERMS, MatrixProduct, matrix_product
from einloom.calls.network import network_of, result_dtype
from einloom.calls.plan import MISALIGNED, KernelPlan, Writing, inverse
from einloom.calls.request import Request
from einloom.frontend.einsum.semiring import SUM_PRODUCT
from einloom.frontend.einsum.spec import Binding, Form, Label, Spec
from einloom.ir.ops import is_flat
from einloom.ir.promotion import compute_dtype, numpy_dtype
from einloom.ir.record import record
from einloom.ir.types import COMPLEX, FLOAT, Scalar
from einloom.passes.contraction.cost import Plan
from einloom.passes.contraction.network import Network

Array = np.ndarray[Any, Any]
StepKey = tuple[tuple[tuple[int, ...], ...], tuple[int, ...], tuple[Operand, ...]]
Node = tuple[tuple[int, ...], Operand | None, Scalar]


@record
class Step:
    """Run `plan` on nodes: operands 0 to n-1, and step k makes node n+k.

    `product`: how two operands become the matrices that the plan takes.
    """

    plan: KernelPlan
    nodes: tuple[int, ...]
    product: MatrixProduct | None = None

    def run(self, operands: list[Any]) -> Any:
        """The node that it makes, or MISALIGNED."""
        product = self.product
        if product is None:
            return self.plan.run(operands, None)
        pairs = zip(product.operands, operands, strict=True)
        made = self.plan.run([arrangement.of(array) for arrangement, array in pairs], None)
        return made if made is MISALIGNED else made.reshape(product.shape)


class StepsPlan:
    """Pairwise steps in order; intermediates are freed as soon as their step has run.

    `last`: the order of the last node's ranks that makes them those of the kernels' result.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        last: tuple[int, ...],
        order: tuple[int, ...],
        dtype: np.dtype[Any],
        writing: Writing | None,
    ) -> None:
        self.steps = tuple(steps)
        self.last = last
        self.back = None if order == tuple(range(len(order))) else inverse(order)
        self.dtype = dtype
        self.writing = writing

    def run(self, arrays: Sequence[Array], out: Array | None) -> Any:
        nodes: list[Array | None] = list(arrays)
        for step in self.steps:
            operands: list[Any] = [nodes[node] for node in step.nodes]
            for node in step.nodes:
                nodes[node] = None
            made = step.run(operands)
            if made is MISALIGNED:
                return MISALIGNED
            nodes.append(np.asarray(made))
        result = nodes[-1]
        assert result is not None
        result = result.astype(self.dtype, copy=False)
        if result.ndim:
            result = np.ascontiguousarray(result.transpose(self.last))
        if self.back is not None:
            result = result.transpose(self.back)
        if out is None:
            return result if result.ndim else result[()]
        assert self.writing is not None
        self.writing.copy(result, out)
        return out


def steps_plan(
    binding: Binding,
    operands: Sequence[Operand],
    dtypes: Sequence[Scalar],
    common: Scalar,
    order: tuple[int, ...],
    request: Request,
    out: Array | None,
) -> StepsPlan | None:
    """The plan for a canonical spec; None where no law lets its operands meet one by one."""
    spec = binding.spec
    dtype = numpy_dtype(result_dtype(spec, dtypes, common, request))
    found = contracted(binding, dtypes, common, request, order)
    if found is None:
        found = multiplied(binding, common, request)
    if found is None or found.plan.sliced:
        return None
    numbers = {label: number for number, label in enumerate(found.labels)}
    number = numbers.__getitem__
    sizes = found.plan.network.sizes
    builder = _Builder({k: sizes[k] for k in numbers.values()}, found.dtype, request)
    for node, labels in enumerate(spec.inputs):
        builder.add(tuple(map(number, labels)), operands[node], dtypes[node])
    steps = found.plan.tree.steps
    output = tuple(number(spec.output[k]) for k in order)
    for position, step in enumerate(steps):
        builder.step(step.operands, output if position == len(steps) - 1 else step.kept)
    made = builder.nodes[-1][0]
    last = tuple(range(len(output))) if made == output else tuple(map(made.index, output))
    writing = None if out is None else writing_to(out, dtype, order, request, len(operands))
    return StepsPlan(builder.steps, last, order, dtype, writing)


@record
class Found:
    """A plan for many operands: index k of it is `labels[k]`, `dtype` is what steps compute in."""

    plan: Plan
    labels: tuple[Label, ...]
    dtype: Scalar


def contracted(
    binding: Binding,
    dtypes: Sequence[Scalar],
    common: Scalar,
    request: Request,
    order: tuple[int, ...],
) -> Found | None:
    """The plan of the pass `contract`; None where it has no law for one, or nothing is folded."""
    network = network_of(binding, dtypes, common, request, order)
    if network is None or not isinstance(network.dtype, Scalar):
        return None
    return Found(network.choice(request).plan, network.labels, network.dtype)


def multiplied(binding: Binding, common: Scalar, request: Request) -> Found | None:
    """A plan for a product that nothing folds, whose factors may meet in any order."""
    from einloom.passes.contraction.choose import Wish, choose

    spec, semiring = binding.spec, request.semiring
    inexact = common.kind in (FLOAT, COMPLEX) and request.strict
    # Off a diagonal are cells that hold the identity of the reducer, which only `sum` leaves out.
    folds = len(set(spec.output)) < len(spec.labels)
    folds = folds or (spec.repeats_output and semiring.reducer != SUM_PRODUCT.reducer)
    if folds or not is_flat(semiring.product) or inexact:
        return None
    labels = spec.labels
    numbers = {label: number for number, label in enumerate(labels)}
    terms = [dict.fromkeys(map(numbers.__getitem__, term)) for term in spec.inputs]
    width = common.bits / 8
    network = Network(
        tuple(map(tuple, terms)),
        tuple(numbers.values()),
        (),
        {number: binding.extents[label] for label, number in numbers.items()},
        (width,) * len(terms),
        width,
    )
    dtype = compute_dtype(common)
    assert isinstance(dtype, Scalar)
    model = new_context(request.strict, {}).cost_model
    return Found(choose(network, Wish(), frozenset(), dtype, model).plan, labels, dtype)


class _Builder:
    """Finds a plan for each step; steps that look alike share one."""

    def __init__(self, extents: dict[int, int], dtype: Scalar, request: Request) -> None:
        self.extents = extents
        self.dtype = dtype
        self.request = Request(
            semiring=request.semiring, strict=request.strict, rounding=request.rounding
        )
        self.nodes: list[Node] = []
        self.products: dict[tuple[Any, ...], KernelPlan] = {}
        self.plans: dict[StepKey, KernelPlan] = {}
        self.steps: list[Step] = []

    def add(self, indices: tuple[int, ...], operand: Operand | None, dtype: Scalar) -> None:
        """Add a node; `operand`: what is given, None for what a step makes."""
        self.nodes.append((indices, operand, dtype))

    def operand(self, node: int) -> Operand:
        indices, operand, dtype = self.nodes[node]
        if operand is not None:
            return operand
        shape = tuple(self.extents[index] for index in indices)
        return Operand.contiguous(numpy_dtype(dtype), shape)

    def step(self, nodes: tuple[int, ...], kept: tuple[int, ...]) -> None:
        """Add a step that makes a node of the indices `kept`, in an order of its own choice."""
        if len(nodes) == 2:
            (left, _, one), (right, _, other) = (self.nodes[node] for node in nodes)
            product = matrix_product(left, right, kept, self.extents)
            if product is not None:
                plan = self.multiplication(product, one, other)
                self.steps.append(Step(plan, nodes, product))
                self.add(product.indices, None, self.dtype)
                return
        renamed: dict[int, int] = {}
        given = [self.nodes[node] for node in nodes]
        terms = tuple(
            tuple(renamed.setdefault(index, len(renamed)) for index in indices)
            for indices, _, _ in given
        )
        output = tuple(renamed[index] for index in kept)
        operands = tuple(map(self.operand, nodes))
        extents = {renamed[index]: self.extents[index] for index in renamed}
        dtypes = [dtype for _, _, dtype in given]
        plan = self.plan_of(terms, output, operands, dtypes, extents)
        self.steps.append(Step(plan, nodes))
        self.add(kept, None, self.dtype)

    def multiplication(self, product: MatrixProduct, one: Scalar, other: Scalar) -> KernelPlan:
        """The plan for the matrices of a product, which are contiguous."""
        key = (product.extents, one.name, other.name)
        plan = self.products.get(key)
        if plan is None:
            operands = tuple(
                Operand.contiguous(numpy_dtype(dtype), arrangement.shape)
                for dtype, arrangement in zip((one, other), product.operands, strict=True)
            )
            sizes = dict(enumerate(product.extents))
            plan = self.plan_of(TERMS, MATRIX_RESULT, operands, [one, other], sizes)
            self.products[key] = plan
        return plan

    def plan_of(
        self,
        terms: Sequence[tuple[int, ...]],
        output: tuple[int, ...],
        operands: tuple[Operand, ...],
        dtypes: Sequence[Scalar],
        extents: dict[int, int],
    ) -> KernelPlan:
        """The plan of a step; steps that look alike share one, those of other calls among them."""
        key = (tuple(terms), output, operands)
        plan = self.plans.get(key)
        if plan is None:
            wanted = ("step", *key, tuple(extents.items()), tuple(dtypes), self.dtype, self.request)
            plan = self.plans[key] = plan_cache().get_or_build(
                wanted, lambda: self.planned(terms, output, operands, dtypes, extents)
            )
        return plan

    def planned(
        self,
        terms: Sequence[tuple[int, ...]],
        output: tuple[int, ...],
        operands: Sequence[Operand],
        dtypes: Sequence[Scalar],
        extents: dict[int, int],
    ) -> KernelPlan:
        labels = {number: Label(f"i{number}", f"i{number}") for number in extents}
        spec = Spec(
            tuple(tuple(labels[number] for number in term) for term in terms),
            tuple(labels[number] for number in output),
            "",
            Form.LISTS,
            True,
            (),
            None,
        )
        binding = Binding(
            spec,
            tuple(operand.shape for operand in operands),
            {label: extents[number] for number, label in labels.items()},
        )
        order = tuple(range(len(output)))
        return kernel_plan(binding, operands, dtypes, self.dtype, order, self.request, None)
