"""Domains: conditions that always hold, that fix an index (δ), or that a factor stands for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from einloom.ir import extents as ext
from einloom.ir.expressions import Apply, Cast, Expression, Index, Literal, Symbol
from einloom.ir.node import postorder
from einloom.ir.ops import MONOIDS, OPS, apply
from einloom.ir.program import Einsum, Statement
from einloom.ir.ranges import conjuncts, is_below, is_inside
from einloom.ir.rewrite.indices import reduced_indices, substitute_statement
from einloom.ir.rewrite.laws import absorbs, keeps_single, weakest
from einloom.ir.rewrite.patterns import Match, constant_value, is_negative_zero
from einloom.ir.rewrite.rule import Edit, StatementRule
from einloom.ir.rewrite.scope import Scope
from einloom.ir.rewrite.values import converted, highest, lowest
from einloom.ir.rules.folds import (
    has_no_accumulator_of_its_own,
    keeps_one_value,
    left_side_does_not_use_it,
    reduction_of,
    unreached_cells_stay,
)
from einloom.ir.types import Scalar

SEMANTICS = "Blacher et al., The Syntax and Semantics of einsum, arXiv 2509.20020"


def joined(parts: list[Expression]) -> Expression | None:
    """The condition that holds where all parts do; None where there is no part."""
    return apply("and", *parts) if parts else None


def is_structural(expression: Expression) -> bool:
    """Whether an expression is made of indices, extents and whole numbers only."""
    return all(
        isinstance(part, Apply | Index | Symbol)
        or (isinstance(part, Literal) and type(part.value) is int)
        for part in postorder(expression)
    )


# ---- conditions that always hold ----------------------------------------------------------


def _idle_conditions(statement: Statement, scope: Scope) -> Iterator[Match]:
    if isinstance(statement, Einsum) and statement.condition is not None:
        parts = conjuncts(statement.condition)
        left = [part for part in parts if not _always_holds(part, scope)]
        if len(left) < len(parts):
            yield {"statement": statement, "left": left}


def _always_holds(part: Expression, scope: Scope) -> bool:
    if constant_value(part) is True:
        return True
    if not isinstance(part, Apply) or not is_structural(part):
        return False
    if any(
        isinstance(x, Apply) and x.op not in ("add", "sub", "mul", "neg") for x in part.arguments
    ):
        return False
    extents = scope.extents
    match part.op, part.arguments:
        case "lt", (a, b):
            return is_below(a, b, extents)
        case "le", (a, b):
            return is_below(a, apply("add", b, Literal(1)), extents)
        case "gt", (a, b):
            return is_below(b, a, extents)
        case "ge", (a, b):
            return is_below(b, apply("add", a, Literal(1)), extents)
    return False


# ---- δ: an index that the domain fixes ----------------------------------------------------


def _fixed_index(statement: Statement, scope: Scope) -> Iterator[Match]:
    if not isinstance(statement, Einsum) or statement.condition is None:
        return
    reduced = reduced_indices(statement)
    parts = conjuncts(statement.condition)
    for place, part in enumerate(parts):
        if isinstance(part, Apply) and part.op == "eq":
            for index, value in (part.arguments, part.arguments[::-1]):
                if isinstance(index, Index) and index.name in reduced and is_structural(value):
                    rest = joined(parts[:place] + parts[place + 1 :])
                    yield {
                        "statement": statement,
                        "index": index.name,
                        "value": value,
                        "condition": rest,
                    }


def value_stands_outside(match: Match, scope: Scope) -> bool:
    """The value uses no index that is folded inside the fold of the fixed one."""
    statement: Einsum = match["statement"]
    place = statement.reductions.index(reduction_of(statement, match["index"]))
    inner = {name for r in statement.reductions[place + 1 :] for name in r.indices}
    used = set(ext.indices_in(match["value"]))
    return match["index"] not in used and used.isdisjoint(inner)


def value_is_in_range(match: Match, scope: Scope) -> bool:
    """The value lies in the range of the index, so that exactly one iteration is left.

    A plain index must have the same extent: it will stand where the fixed one stood.
    """
    value, extent = match["value"], scope.extents[match["index"]]
    if isinstance(value, Index):
        return ext.equal(scope.extents[value.name], extent) is True
    return is_inside(value, extent, scope.extents)


def _with_fixed_index(match: Match, scope: Scope) -> Edit:
    statement: Einsum = replace(match["statement"], condition=match["condition"])
    return Edit((substitute_statement(statement, {match["index"]: match["value"]}),))


# ---- a factor that is one or zero is a domain ---------------------------------------------


def _one_monoid(statement: Einsum) -> str | None:
    monoids = {r.monoid for r in statement.reductions}
    name = next(iter(monoids), "")
    if len(monoids) != 1 or name not in MONOIDS or MONOIDS[name].paired:
        return None
    return name if all(r.accumulator is None for r in statement.reductions) else None


def _chosen_identity(statement: Statement, scope: Scope) -> Iterator[Match]:
    if not isinstance(statement, Einsum) or not isinstance(statement.body, Apply):
        return
    monoid = _one_monoid(statement)
    body = statement.body
    if monoid is None or body.op != "select" or not is_structural_truth(body.arguments[0]):
        return
    if _is_identity(body.arguments[2], monoid, statement, scope):
        yield {
            "statement": statement,
            "monoid": monoid,
            "body": body.arguments[1],
            "condition": body.arguments[0],
        }


def is_structural_truth(expression: Expression) -> bool:
    """Whether an expression is a comparison of indices, or such ones combined."""
    return (
        isinstance(expression, Apply)
        and expression.op in ("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not")
        and is_structural(expression)
    )


def _is_identity(expression: Expression, monoid: str, statement: Einsum, scope: Scope) -> bool:
    """Whether an expression is the constant that a fold starts from."""
    dtype = scope.dtype(statement.body)
    value = constant_value(expression)
    if value is None or not isinstance(dtype, Scalar) or is_negative_zero(value):
        return False
    identity = MONOIDS[monoid].identity
    if identity == "lowest":
        return bool(converted(value, dtype) == lowest(dtype))
    if identity == "highest":
        return bool(converted(value, dtype) == highest(dtype))
    return bool(converted(value, dtype) == identity)


def fold_ignores_its_identity(match: Match, scope: Scope) -> bool:
    """Leaving the identity out of a fold changes nothing."""
    dtype = scope.dtype(match["statement"].body)
    return dtype is not None and scope.allows(keeps_single(match["monoid"], dtype), dtype)


def body_keeps_its_dtype(match: Match, scope: Scope) -> bool:
    """What is left of the body is computed as the whole was."""
    return scope.same_typing(match["statement"].body, match["body"])


def _restricted(match: Match, scope: Scope) -> Edit:
    statement: Einsum = match["statement"]
    parts = [*conjuncts(statement.condition), *conjuncts(match["condition"])]
    return Edit((replace(statement, body=match["body"], condition=joined(parts)),))


def _indicator_factor(statement: Statement, scope: Scope) -> Iterator[Match]:
    if not isinstance(statement, Einsum) or not isinstance(statement.body, Apply):
        return
    monoid, body = _one_monoid(statement), statement.body
    law = OPS[body.op].law("identity") if body.op in OPS else None
    if monoid is None or law is None:
        return
    for place, factor in enumerate(body.arguments):
        condition = _indicated(factor, body, monoid, statement, scope)
        if condition is not None:
            rest = scope.flat(body.op, *body.arguments[:place], *body.arguments[place + 1 :])
            if rest is not None:
                yield {
                    "statement": statement,
                    "monoid": monoid,
                    "body": rest,
                    "condition": condition,
                }


def _indicated(
    factor: Expression, body: Apply, monoid: str, statement: Einsum, scope: Scope
) -> Expression | None:
    """The condition under which a factor is the one of the product; else it is the zero."""
    law = OPS[body.op].law("identity")
    assert law is not None
    if isinstance(factor, Apply) and factor.op == "select":
        condition, one, zero = factor.arguments
        if is_structural_truth(condition) and constant_value(one) == law.operand:
            return condition if _is_identity(zero, monoid, statement, scope) else None
    if body.op == "mul" and monoid == "sum" and isinstance(factor, Cast):
        return factor.value if is_structural_truth(factor.value) else None
    if body.op == "and" and monoid == "any" and is_structural_truth(factor):
        return factor
    return None


def zero_absorbs(match: Match, scope: Scope) -> bool:
    """The identity of the fold absorbs whatever it is multiplied with."""
    statement: Einsum = match["statement"]
    assert isinstance(statement.body, Apply)
    dtype = scope.dtype(statement.body)
    if dtype is None:
        return False
    status = weakest(
        absorbs(statement.body.op, match["monoid"], dtype), keeps_single(match["monoid"], dtype)
    )
    return scope.allows(status, dtype)


def rules() -> Iterator[StatementRule]:
    """The rules of this topic."""
    yield StatementRule(
        "condition_that_always_holds_is_dropped",
        "T[i] = f(i) if i < N is T[i] = f(i) where i runs below N",
        ("Einsum",),
        source="the extents of the statement's indices",
        pattern=_idle_conditions,
        replacement=lambda match, scope: Edit(
            (replace(match["statement"], condition=joined(match["left"])),)
        ),
    )
    yield StatementRule(
        "index_that_the_domain_fixes_is_substituted",
        "sum[i, j] f(i, j) if j == i is sum[i] f(i, i): δ identifies two labels",
        ("Einsum",),
        source=f"{SEMANTICS}, δ operands",
        pattern=_fixed_index,
        conditions=(
            value_stands_outside,
            value_is_in_range,
            left_side_does_not_use_it,
            has_no_accumulator_of_its_own,
            keeps_one_value,
            unreached_cells_stay,
        ),
        replacement=_with_fixed_index,
    )
    yield StatementRule(
        "choice_of_the_identity_is_a_domain",
        "sum[i] select(c, f, 0) = sum[i] f if c",
        ("Einsum",),
        source="the identity law of the fold",
        pattern=_chosen_identity,
        conditions=(fold_ignores_its_identity, body_keeps_its_dtype),
        replacement=_restricted,
    )
    yield StatementRule(
        "factor_of_one_or_zero_is_a_domain",
        "sum[i] select(c, 1, 0) * f = sum[i] f if c: a δ operand is a condition",
        ("Einsum",),
        source=f"{SEMANTICS}, δ operands",
        pattern=_indicator_factor,
        conditions=(zero_absorbs, body_keeps_its_dtype),
        replacement=_restricted,
    )


DOMAINS = tuple(rules())
