"""Distributivity, used in the direction that costs less: generated from the op table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from einloom.ir.expressions import Apply, Expression
from einloom.ir.ops import OPS, is_flat
from einloom.ir.rewrite.laws import validity
from einloom.ir.rewrite.patterns import MOST_PAIRED_ARGUMENTS, Found, Match
from einloom.ir.rewrite.rule import ExpressionRule
from einloom.ir.rewrite.scope import Scope
from einloom.ir.types import Scalar

MOST_TERMS = 8


def pairs() -> Iterator[tuple[str, str]]:
    """(product, sum) such that the first distributes over the second, both flat."""
    for op in OPS.values():
        for law in op.laws:
            if law.kind == "distributes":
                assert isinstance(law.operand, str)
                if is_flat(op.name) and is_flat(law.operand):
                    yield op.name, law.operand


def costs_less(match: Match, scope: Scope) -> bool:
    """The other side of the equation is cheaper, by the cost model."""
    return scope.cost(match["new"]) < scope.cost(match["root"])


# ---- a * b + a * c = a * (b + c) ----------------------------------------------------------


def factoring_rules() -> Iterator[ExpressionRule]:
    """A factor that terms share is taken out."""
    for product, total in pairs():
        yield ExpressionRule(
            f"common_{product}_is_taken_out_of_{total}",
            f"{total}({product}(a, b), {product}(a, c)) = {product}(a, {total}(b, c))",
            (total,),
            pattern=Found(_with_common(product)),
            replacement=lambda match, scope: match["new"],
            validity=validity(product, "distributes", total),
            conditions=(terms_are_computed_alike, costs_less),
        )


def _with_common(product: str) -> Callable[[Expression, Scope], Match | None]:
    def find(expression: Expression, scope: Scope) -> Match | None:
        assert isinstance(expression, Apply)
        if len(expression.arguments) > MOST_PAIRED_ARGUMENTS:
            return None
        terms = [x for x in expression.arguments if isinstance(x, Apply) and x.op == product]
        if len(terms) < 2:
            return None
        counts = Counter(factor for term in terms for factor in dict.fromkeys(term.arguments))
        factor, times = max(counts.items(), key=lambda item: item[1])
        if times < 2:
            return None
        return _taken_out(expression, product, factor, scope)

    return find


def _taken_out(expression: Apply, product: str, factor: Expression, scope: Scope) -> Match | None:
    def has(x: Expression) -> bool:
        return isinstance(x, Apply) and x.op == product and factor in x.arguments

    left = []
    for term in filter(has, expression.arguments):
        assert isinstance(term, Apply)
        place = term.arguments.index(factor)
        rest = scope.flat(product, *term.arguments[:place], *term.arguments[place + 1 :])
        if rest is None:
            return None
        left.append(rest)
    inner = scope.flat(expression.op, *left)
    outer = None if inner is None else scope.flat(product, factor, inner)
    if inner is None or outer is None:
        return None
    first = next(k for k, x in enumerate(expression.arguments) if has(x))
    before = [x for x in expression.arguments[:first] if not has(x)]
    after = [x for x in expression.arguments[first:] if not has(x)]
    new = scope.flat(expression.op, *before, outer, *after)
    # What a term was computed in must stay: the term itself, what is left of it, the whole.
    parts = (*filter(has, expression.arguments), outer, *(x for x in left if isinstance(x, Apply)))
    return None if new is None else {"new": new, "parts": parts, "inner": inner}


def terms_are_computed_alike(match: Match, scope: Scope) -> bool:
    """All parts are computed in the dtype of the whole; narrower ones would wrap differently.

    A sum of literals is weak: it takes the dtype of what it meets, which a sum survives (integers
    wrap) and an order does not.
    """
    whole = scope.dtype(match["root"])
    if whole is None or any(scope.dtype(x) != whole for x in match["parts"]):
        return False
    inner = scope.typing(match["inner"])
    if inner is None:
        return False
    ring = match["root"].op == "add" and isinstance(inner.dtype, Scalar)
    return inner.dtype == whole and not inner.weak if not inner.weak else ring


# ---- a * (b + c) = a * b + a * c ----------------------------------------------------------


def expanding_rules() -> Iterator[ExpressionRule]:
    """A factor is multiplied into a sum."""
    for product, total in pairs():
        yield ExpressionRule(
            f"{product}_is_spread_over_{total}",
            f"{product}(a, {total}(b, c)) = {total}({product}(a, b), {product}(a, c))",
            (product,),
            pattern=Found(_with_sum(total)),
            replacement=lambda match, scope: match["new"],
            validity=validity(product, "distributes", total),
            conditions=(spread_terms_are_computed_alike, costs_less),
        )


def _with_sum(total: str) -> Callable[[Expression, Scope], Match | None]:
    def find(expression: Expression, scope: Scope) -> Match | None:
        assert isinstance(expression, Apply)
        if len(expression.arguments) > MOST_TERMS:
            return None
        places = [
            k for k, x in enumerate(expression.arguments) if isinstance(x, Apply) and x.op == total
        ]
        if not places:
            return None
        inner = expression.arguments[places[0]]
        assert isinstance(inner, Apply)
        if len(inner.arguments) > MOST_TERMS:
            return None
        others = [x for k, x in enumerate(expression.arguments) if k != places[0]]
        terms = [scope.flat(expression.op, *others, x) for x in inner.arguments]
        known = [term for term in terms if term is not None]
        new = scope.flat(total, *known) if len(known) == len(terms) else None
        return None if new is None else {"new": new, "terms": tuple(known), "inner": inner}

    return find


def spread_terms_are_computed_alike(match: Match, scope: Scope) -> bool:
    """The sum and all new terms are computed in the dtype of the whole."""
    whole = scope.dtype(match["root"])
    parts = (match["inner"], *match["terms"])
    return whole is not None and all(scope.dtype(x) == whole for x in parts)


DISTRIBUTIVITY = (*factoring_rules(), *expanding_rules())
