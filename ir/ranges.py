"""Where index expressions reach: proofs that accesses stay inside and that writes differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from einloom.ir import extents as ext
from einloom.ir.errors import ShapeError
from einloom.ir.expressions import Access, Apply, Expression, Index, Symbol
from einloom.ir.node import Node, rebuild
from einloom.ir.ops import apply
from einloom.ir.program import Einsum
from einloom.ir.types import TensorType


def conjuncts(condition: Expression | None) -> list[Expression]:
    """The parts of a condition that all hold wherever the statement is evaluated."""
    if condition is None:
        return []
    if isinstance(condition, Apply) and condition.op == "and":
        return list(condition.arguments)
    return [condition]


def known_bounds(condition: Expression | None) -> list[tuple[Expression, Expression, int]]:
    """(smaller, larger, gap) with smaller + gap <= larger, read off a condition."""
    found = []
    for part in conjuncts(condition):
        if isinstance(part, Apply) and part.op in ("lt", "le", "gt", "ge"):
            left, right = part.arguments
            if part.op in ("gt", "ge"):
                left, right = right, left
            found.append((left, right, 1 if part.op in ("lt", "gt") else 0))
    return found


def is_below(
    expression: Expression,
    limit: Expression,
    extents: Mapping[str, Expression],
    condition: Expression | None = None,
) -> bool:
    """Whether expression < limit wherever the statement is evaluated."""
    bounds = ext.interval(expression, extents)
    if bounds is not None:
        top = ext.expression_of(bounds[1])
        if ext.at_most(apply("add", top, ext.constant(1)), limit):
            return True
    for smaller, larger, gap in known_bounds(condition):
        slack = apply("sub", larger, ext.constant(gap))
        if ext.equal(smaller, expression) and ext.at_most(
            slack, apply("sub", limit, ext.constant(1))
        ):
            return True
    return False


def is_nonnegative(
    expression: Expression,
    extents: Mapping[str, Expression],
    condition: Expression | None = None,
) -> bool:
    """Whether expression >= 0 wherever the statement is evaluated."""
    bounds = ext.interval(expression, extents)
    if bounds is not None and ext.nonnegative(bounds[0]):
        return True
    for smaller, larger, gap in known_bounds(condition):
        lowest = apply("add", smaller, ext.constant(gap))
        if ext.equal(larger, expression) and ext.nonnegative(ext.polynomial(lowest)):
            return True
    return False


def is_inside(
    expression: Expression,
    limit: Expression,
    extents: Mapping[str, Expression],
    condition: Expression | None = None,
) -> bool:
    """Whether 0 <= expression < limit is proved wherever the statement is evaluated."""
    return is_nonnegative(expression, extents, condition) and is_below(
        expression, limit, extents, condition
    )


def check_reach(
    statement: Einsum,
    accesses: Iterable[Access],
    extents: Mapping[str, Expression],
    dimensions: Callable[[Access], tuple[Expression, ...]],
    tensors: Mapping[str, TensorType],
) -> None:
    """Refuse a read or a write that certainly leaves its tensor: constant sizes and no
    condition.

    Raises ShapeError naming the index expression, the value it reaches and the extent.
    """
    if statement.condition is not None:
        return
    for access in accesses:
        if access.padding is None:
            hint = f"pad the read, {access.tensor}?(0)[...], or restrict it: if ..."
            _check_inside(access, dimensions(access), extents, hint)
    for target in statement.targets:
        write = Access(target.name, statement.indices, location=statement.location)
        hint = "restrict the statement: if ..."
        _check_inside(write, tensors[target.name].extents, extents, hint)


def _check_inside(
    access: Access, limits: tuple[Expression, ...], extents: Mapping[str, Expression], hint: str
) -> None:
    for expression, limit in zip(access.indices, limits, strict=True):
        # an index of the statement has the extent of what it reads; one of a scan may not
        plain = isinstance(expression, Index) and extents.get(expression.name) == limit
        if not plain:
            _refuse_outside(access, expression, limit, extents, hint)


def index_text(expression: Expression) -> str:
    """An index expression as it stands between brackets: `i+1`, where its own text is
    `iota(i) + 1`."""
    from einloom.ir.text.expression_text import INDEX, ExpressionPrinter
    from einloom.ir.text.spelling import spell_name

    return ExpressionPrinter(spell_name).text(expression, INDEX)


def _refuse_outside(
    access: Access,
    expression: Expression,
    limit: Expression,
    extents: Mapping[str, Expression],
    hint: str,
) -> None:
    size = ext.polynomial(limit)
    bounds = ext.interval(expression, extents)
    ranges = [ext.polynomial(extents[n]) for n in ext.indices_in(expression) if n in extents]
    if bounds is None or any(set(form) != {()} for form in ranges):
        return  # an extent that is a symbol, or 0: then nothing is read
    if not set(size) <= {()} or not set(bounds[0]) <= {()} or not set(bounds[1]) <= {()}:
        return
    lowest, highest, extent = (form.get((), 0) for form in (bounds[0], bounds[1], size))
    if lowest < 0 or highest >= extent:
        reach = lowest if lowest < 0 else highest
        raise ShapeError(
            f"index {index_text(expression)} of {access.tensor} reaches {reach}, "
            f"its extent is {extent}",
            location=access.location,
            suggestion=hint,
        )


def is_injective(
    indices: tuple[Expression, ...], mapped: list[str], extents: Mapping[str, Expression]
) -> bool:
    """Whether different values of the mapped indices certainly write different cells."""
    left = set(mapped)
    left -= {e.name for e in indices if isinstance(e, Index)}
    progress = True
    while left and progress:
        progress = False
        for expression in indices:
            found = left & set(ext.indices_in(expression))
            if found and _separates(expression, found, left, extents):
                left -= found
                progress = True
    return not left


def _separates(
    expression: Expression, names: set[str], unsettled: set[str], extents: Mapping[str, Expression]
) -> bool:
    """Whether an affine expression determines `names`, the other indices being known.

    True for mixed-radix forms: sorted by coefficient, each coefficient exceeds the span of
    all smaller terms.
    """
    terms: list[tuple[Expression, Expression]] = []
    for monomial, coefficient in ext.polynomial(expression).items():
        inside = [a for a in monomial if isinstance(a, Index) and a.name in names]
        others = tuple(a for a in monomial if a not in inside)
        hidden = {n for a in others for n in ext.indices_in(a)}
        if not inside:
            if hidden & unsettled or any(ext.reads_tensor(a) for a in others):
                return False
            continue
        if len(inside) > 1 or any(not ext.nonnegative({(a,): 1}) for a in others) or hidden:
            return False
        weight = ext.expression_of({others: abs(coefficient)})
        terms.append((inside[0], weight))
    found = [index.name for index, _ in terms if isinstance(index, Index)]
    if len(set(found)) != len(found) or set(found) != names:
        return False  # an index twice, or one that cancels out
    at_least_one = {e.name for e in extents.values() if isinstance(e, Symbol)}
    spans: list[Expression] = []
    while terms:
        smallest = _smallest(terms, at_least_one)
        if smallest is None:
            return False
        index, weight = smallest
        if spans:
            needed = apply("add", *spans, ext.constant(1))
            if not _at_most(needed, weight, at_least_one):
                return False
        elif not _at_most(ext.constant(1), weight, at_least_one):
            return False
        assert isinstance(index, Index)
        top = apply("sub", extents[index.name], ext.constant(1))
        spans.append(apply("mul", weight, top))
        terms.remove(smallest)
    return True


def _smallest(
    terms: list[tuple[Expression, Expression]], at_least_one: set[str]
) -> tuple[Expression, Expression] | None:
    """The term whose weight is provably at most every other one's."""
    for term in terms:
        others = (other for other in terms if other is not term)
        if all(_at_most(term[1], other[1], at_least_one) for other in others):
            return term
    return None


def _at_most(left: Expression, right: Expression, at_least_one: set[str]) -> bool:
    """Whether left <= right wherever a statement is evaluated: an extent of one of its indices
    that is a symbol is at least 1 there."""

    def change(part: Node) -> Node:
        if isinstance(part, Symbol) and part.name in at_least_one:
            return apply("add", part, ext.constant(1))
        return part

    return ext.at_most(rebuild(left, change), rebuild(right, change))
