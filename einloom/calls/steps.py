"""Contractions of very many operands: run step by step, each step by a plan that steps share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from einloom.calls.build import Operand, kernel_plan, writing_to
from einloom.calls.plan import MISALIGNED, KernelPlan, Writing, inverse
from einloom.calls.request import Request
from einloom.calls.variants import chosen, recognized
from einloom.frontend.einsum.program import RESULT, symbol_names, to_module
from einloom.frontend.einsum.spec import Binding, Form, Label, Spec
from einloom.ir.infer import infer
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import Scalar

Array = np.ndarray[Any, Any]
StepKey = tuple[tuple[tuple[int, ...], ...], tuple[int, ...], tuple[Operand, ...]]


@dataclass(frozen=True)
class Step:
    """Run `plan` on nodes: operands 0 to n-1, and step k makes node n+k."""

    plan: KernelPlan
    nodes: tuple[int, ...]


class StepsPlan:
    """Pairwise steps in order; intermediates are freed as soon as their step has run."""

    def __init__(
        self,
        steps: Sequence[Step],
        order: tuple[int, ...],
        dtype: np.dtype[Any],
        writing: Writing | None,
    ) -> None:
        self.steps = tuple(steps)
        self.back = None if order == tuple(range(len(order))) else inverse(order)
        self.dtype = dtype
        self.writing = writing

    def run(self, arrays: Sequence[Array], out: Array | None) -> Any:
        nodes: list[Array | None] = list(arrays)
        for step in self.steps:
            operands: list[Any] = [nodes[node] for node in step.nodes]
            for node in step.nodes:
                nodes[node] = None
            made = step.plan.run(operands, None)
            if made is MISALIGNED:
                return MISALIGNED
            nodes.append(np.asarray(made))
        result = nodes[-1]
        assert result is not None
        result = result.astype(self.dtype, copy=False)
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
    module = to_module(binding.spec, dtypes, semiring=request.semiring, dtype=common, order=order)
    contraction = recognized(module, request)
    if contraction is None or not isinstance(contraction.dtype, Scalar):
        return None
    names = symbol_names(binding.spec)
    sizes = {names[label]: extent for label, extent in binding.extents.items()}
    choice = chosen(contraction, sizes, request)
    if choice.plan.sliced:
        return None
    numbers = {name: number for number, name in enumerate(contraction.names)}
    inputs = [tuple(numbers[label.name] for label in labels) for labels in binding.spec.inputs]
    output = tuple(numbers[binding.spec.output[k].name] for k in order)
    extents = {numbers[label.name]: extent for label, extent in binding.extents.items()}
    builder = _Builder(extents, contraction.dtype, request)
    for node in range(len(operands)):
        builder.add(inputs[node], operands[node], dtypes[node])
    tree = choice.plan.tree
    for position, step in enumerate(tree.steps):
        last = position == len(tree.steps) - 1
        builder.step(step.operands, output if last else step.kept)
    dtype = numpy_dtype(infer(module).tensors[RESULT].dtype)
    writing = None if out is None else writing_to(out, dtype, order, request, len(operands))
    return StepsPlan(builder.steps, order, dtype, writing)


class _Builder:
    """Finds a plan for each step; steps that look alike share one."""

    def __init__(self, extents: dict[int, int], dtype: Scalar, request: Request) -> None:
        self.extents = extents
        self.dtype = dtype
        self.request = request
        self.nodes: list[tuple[tuple[int, ...], Operand, Scalar]] = []
        self.plans: dict[StepKey, KernelPlan] = {}
        self.steps: list[Step] = []

    def add(self, indices: tuple[int, ...], operand: Operand, dtype: Scalar) -> None:
        self.nodes.append((indices, operand, dtype))

    def step(self, nodes: tuple[int, ...], kept: tuple[int, ...]) -> None:
        renamed: dict[int, int] = {}
        given = [self.nodes[node] for node in nodes]
        terms = tuple(
            tuple(renamed.setdefault(index, len(renamed)) for index in indices)
            for indices, _, _ in given
        )
        output = tuple(renamed[index] for index in kept)
        operands = tuple(operand for _, operand, _ in given)
        key = (terms, output, operands)
        plan = self.plans.get(key)
        if plan is None:
            extents = {renamed[index]: self.extents[index] for index in renamed}
            dtypes = [dtype for _, _, dtype in given]
            plan = self.plans[key] = self.planned(terms, output, operands, dtypes, extents)
        self.steps.append(Step(plan, nodes))
        self.add(kept, Operand.contiguous(plan.dtype, plan.shape), self.dtype)

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
        request = Request(semiring=self.request.semiring, strict=self.request.strict)
        return kernel_plan(binding, operands, dtypes, self.dtype, order, request, None)
