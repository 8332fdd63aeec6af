"""How the ranks of a result lie in memory: NumPy's `order` argument.

`C` and `F` are what they say. `A` is F where every operand is contiguous in F order, else C. `K`
follows the operands: two ranks are ordered by their strides where an operand has both, and operands
that disagree leave them in C order. That is what NumPy's iterator does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from einloom.frontend.einsum.spec import Label, Spec
from einloom.ir.errors import ParseError

ORDERS = ("C", "F", "A", "K")

MOST_SORTED = 64
"""Beyond this many labels only those of the output are sorted: NumPy has no more ranks."""


Steps = Mapping[int, tuple[int, int]]
"""By operand: the stride, and the place of the rank, negated."""


def checked_order(order: object) -> str:
    """`order` as one of `ORDERS`; None is K. Raises ParseError."""
    if order is None:
        return "K"
    if isinstance(order, str) and order.upper() in ORDERS:
        return order.upper()
    raise ParseError(f"unknown order {order!r}", suggestion=f"one of {', '.join(ORDERS)}")


def result_order(
    order: str,
    spec: Spec,
    strides: Sequence[Sequence[int]],
    all_fortran: bool,
) -> tuple[int, ...]:
    """The ranks of the output from the outermost in memory to the innermost.

    `strides`: of each operand. `all_fortran`: whether every operand is contiguous in F order.
    Ranks of extent 1 count with the strides that they have, unlike in NumPy, so that the order
    depends on how operands lie in memory and not on their sizes.
    """
    rank = len(spec.output)
    plain = tuple(range(rank))
    if order == "C" or (order == "A" and not all_fortran):
        return plain
    return plain[::-1] if order in ("F", "A") else _kept_order(spec, strides)


def _kept_order(spec: Spec, strides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """An insertion sort, inner ranks first, in which ranks that cannot be compared pass by."""
    output = list(spec.output)
    labels = output + [label for label in spec.labels if label not in set(output)]
    if len(labels) > MOST_SORTED:
        labels = output
    steps = _steps(spec, set(labels), strides)
    inner_first: list[int] = []
    for position in reversed(range(len(labels))):
        place = len(inner_first)
        for earlier in reversed(range(len(inner_first))):
            smaller = _is_smaller(steps[labels[position]], steps[labels[inner_first[earlier]]])
            if smaller is False:
                break
            if smaller:
                place = earlier
        inner_first.insert(place, position)
    return tuple(k for k in reversed(inner_first) if k < len(output))


def _steps(spec: Spec, labels: set[Label], strides: Sequence[Sequence[int]]) -> dict[Label, Steps]:
    """For each label its stride in the operands that move with it; a diagonal moves by the sum.

    The place in the operand decides between equal strides, which ranks of extent 1 bring about.
    """
    steps: dict[Label, dict[int, tuple[int, int]]] = {label: {} for label in labels}
    for operand, (terms, own) in enumerate(zip(spec.inputs, strides, strict=True)):
        for position, (label, stride) in enumerate(zip(terms, own, strict=True)):
            if label in steps:
                moved, _ = steps[label].get(operand, (0, 0))
                steps[label][operand] = moved + stride, -position
    return {
        label: {k: (abs(stride), place) for k, (stride, place) in found.items() if stride}
        for label, found in steps.items()
    }


def _is_smaller(one: Steps, other: Steps) -> bool | None:
    """Whether each operand with both ranks has the smaller stride in `one`; None: none has both."""
    shared = [operand for operand in one if operand in other]
    if not shared:
        return None
    return all(one[operand] < other[operand] for operand in shared)
