"""`einsum_path`: how a contraction of several operands would be split, and what that costs."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from einloom.api import TensorSpec
from einloom.calls.build import common_dtype
from einloom.calls.einsum import Call, read_call
from einloom.calls.network import network_of
from einloom.calls.operands import ir_dtype
from einloom.calls.request import Path, Request, check_path, read_request
from einloom.frontend.einsum.spec import Binding, Form, Label, Spec
from einloom.frontend.einsum.tokens import ELLIPSIS_TEXT
from einloom.ir.record import record
from einloom.options import current

if TYPE_CHECKING:
    from einloom.passes.contraction.choose import Choice
    from einloom.passes.contraction.network import Step

MOST_SHOWN = 50
"""Steps that a report lists, and labels that it writes in a row."""


def einsum_path(
    *arguments: Any,
    optimize: Any = "auto",
    memory_limit: int | str | None = None,
    semiring: Any = None,
    dtype: Any = None,
) -> tuple[list[Any], str]:
    """The contraction path that `einsum` takes for these operands, and a report on it.

    The path is as NumPy writes it: `["einsum_path", (0, 1), (0, 1)]`, each group naming positions
    among the operands that are left, the result of a group going to the end. It can be passed as
    `optimize=`. Operands are arrays or `TensorSpec`s. Raises what `einsum` raises.

    >>> square, row = TensorSpec((300, 300)), TensorSpec((300,))
    >>> path, report = einsum_path("ij,jk,k->i", square, square, row)
    >>> path
    ['einsum_path', (1, 2), (0, 1)]
    """
    request = read_request(
        dtype=dtype,
        order="K",
        casting="unsafe",
        precision=None,
        semiring=semiring,
        optimize=optimize,
        memory_limit=memory_limit,
        target="cpu",
        strict=current().strict,
    )
    call = read_call([_stand_in(value) for value in arguments], request)
    binding = call.spec.bind([array.shape for array in call.arrays])
    if request.path is not None:
        check_path(request.path, len(call.arrays))
    found = _choice(call, binding, request)
    operands = len(call.arrays)
    path: Path
    if request.path is not None:
        path = request.path
    elif found is None:
        path = (tuple(range(operands)),)
    else:
        path = positions(found.choice.plan.tree.steps, operands)
    return ["einsum_path", *path], _report(binding, found)


def _stand_in(value: Any) -> Any:
    """A TensorSpec as an array of its shape, without the memory."""
    if isinstance(value, TensorSpec):
        return np.broadcast_to(np.empty((), value.dtype), value.shape)
    return value


@record
class Found:
    """A plan, and the labels that its network numbers."""

    choice: Choice
    labels: tuple[Label, ...]


def _choice(call: Call, binding: Binding, request: Request) -> Found | None:
    """The plan of the pass `contract`; None where all operands meet in one loop nest anyway."""
    dtypes = [ir_dtype(array.dtype, f"operand {k}") for k, array in enumerate(call.arrays)]
    common = common_dtype(dtypes, [array.dtype for array in call.arrays], request)
    found = network_of(binding, dtypes, common, request)
    return None if found is None else Found(found.choice(request), found.labels)


def positions(steps: Sequence[Step], operands: int) -> Path:
    """Steps over numbered nodes as groups of positions among what is left.

    Steps of one operand, which fold what it alone has, leave it in its place.
    """
    left = list(range(operands))  # always increasing
    place_of: dict[int, int] = {}
    found: list[tuple[int, ...]] = []
    for position, step in enumerate(steps):
        nodes = [place_of.get(node, node) for node in step.operands]
        made = operands + position
        if len(nodes) == 1 and len(left) > 1:
            place_of[made] = nodes[0]
            continue
        places = sorted(bisect_left(left, node) for node in nodes)
        for place in reversed(places):
            del left[place]
        left.append(made)
        found.append(tuple(places))
    return tuple(found)


# ---- the report -----------------------------------------------------------------------------


def _report(binding: Binding, found: Found | None) -> str:
    spec = binding.spec
    whole = math.prod(binding.extents.values())
    factors = len(spec.inputs)
    naive = whole * max(1, factors - 1 + (len(set(spec.output)) < len(spec.labels)))
    lines = [
        ("Complete contraction", _written(spec, spec.inputs, spec.output)),
        ("Naive scaling", str(len(spec.labels))),
        ("Naive operations", _count(naive)),
    ]
    if found is None:
        lines.append(("Steps", "all operands meet in one loop nest"))
        return "\n".join(f"{name:>22}:  {value}" for name, value in lines)
    plan, cost = found.choice.plan, found.choice.cost
    steps = plan.tree.steps
    lines += [
        ("Optimized scaling", str(max(len(step.space) for step in steps))),
        ("Optimized operations", _count(cost.operations)),
        ("Fewer by a factor of", f"{naive / max(1, cost.operations):.3g}"),
        ("Largest intermediate", f"{_count(cost.largest)} elements"),
        ("Estimated time", f"{cost.seconds:.3g} s"),
        ("Path found by", plan.finder),
    ]
    if plan.sliced:
        sliced = ", ".join(found.labels[index].text for index in plan.sliced)
        lines.append(("Sliced over", sliced))
    table = [f"{name:>22}:  {value}" for name, value in lines]
    table += ["", f"{'operations':>22}  {'elements':>10}  step"]
    costs: Mapping[int, Any] = dict(enumerate(cost.steps))
    for position, step in enumerate(steps[:MOST_SHOWN]):
        inputs = [
            spec.inputs[n] if n < factors else [found.labels[i] for i in plan.tree.indices(n)]
            for n in step.operands
        ]
        made = spec.output if position == len(steps) - 1 else [found.labels[i] for i in step.kept]
        row = f"{_count(costs[position].operations):>22}  {_count(costs[position].elements):>10}"
        table.append(f"{row}  {_written(spec, inputs, made)}")
    if len(steps) > MOST_SHOWN:
        table.append(f"{'':>22}  {'':>10}  and {len(steps) - MOST_SHOWN} more steps")
    return "\n".join(table)


def _written(spec: Spec, inputs: Sequence[Sequence[Label]], output: Sequence[Label]) -> str:
    """A spec of these terms, in the form that was typed; long ones are cut."""
    if len(inputs) > MOST_SHOWN:
        return f"{len(inputs)} operands -> {_term(spec, output)}"
    arrow = "->" if spec.form is Form.LETTERS else " -> "
    comma = "," if spec.form is Form.LETTERS else ", "
    return comma.join(_term(spec, term) for term in inputs) + arrow + _term(spec, output)


def _term(spec: Spec, labels: Sequence[Label]) -> str:
    if len(labels) > MOST_SHOWN:
        return f"({len(labels)} labels)"
    texts = [label.text for label in labels if not label.ellipsis]
    dots = next((k for k, label in enumerate(labels) if label.ellipsis), None)
    if dots is not None:
        texts.insert(dots, ELLIPSIS_TEXT)
    if spec.form is Form.LISTS:
        return f"[{', '.join(texts)}]"
    if spec.form is Form.LETTERS and all(len(text) in (1, 3) for text in texts):
        return "".join(texts)
    return " ".join(texts)


def _count(number: int) -> str:
    return str(number) if number < 10**7 else f"{float(min(number, 10**300)):.3e}"
