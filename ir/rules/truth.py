"""Comparisons, negation and classes of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from einloom.ir.expressions import Apply, Expression
from einloom.ir.rewrite.laws import EXACT, UP_TO_ROUNDING
from einloom.ir.rewrite.patterns import Applied, Found, Match, Variable
from einloom.ir.rewrite.rule import ExpressionRule
from einloom.ir.rewrite.scope import Scope
from einloom.ir.rules.arithmetic import Replacement, applied, number, value_of
from einloom.ir.rules.conditions import INTEGERS, has_kind, is_real, valid_on

X, Y = Variable("x"), Variable("y")
OPPOSITES = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}
REFLEXIVE = {"eq": True, "le": True, "ge": True, "ne": False, "lt": False, "gt": False}
DUALS = {"and": "or", "or": "and"}


def opposite_rules() -> Iterator[ExpressionRule]:
    """`not (x < y)` is `x >= y`, unless one is NaN."""
    for op, opposite in OPPOSITES.items():
        exact = op in ("eq", "ne")
        yield ExpressionRule(
            f"not_{op}_is_{opposite}",
            f"not {op}(x, y) = {opposite}(x, y)" + ("" if exact else ", unless one is NaN"),
            ("not",),
            source="total orders; IEEE 754-2019, 5.11 for NaN",
            pattern=Applied("not", (Found(_named(op)),)),
            replacement=_with_op(opposite),
            conditions=(valid_on("inner", EXACT if exact else UP_TO_ROUNDING),),
        )


def _named(op: str) -> Callable[[Expression, Scope], Match | None]:
    def find(expression: Expression, scope: Scope) -> Match | None:
        found = isinstance(expression, Apply) and expression.op == op
        return {"inner": expression} if found else None

    return find


def _with_op(op: str) -> Replacement:
    return lambda match, scope: Apply(op, match["inner"].arguments)


def reflexive_rules() -> Iterator[ExpressionRule]:
    """A value compared with itself."""
    for op, result in REFLEXIVE.items():
        # Nothing is less than itself, NaN included; NaN is not equal to itself.
        exact = op in ("lt", "gt")
        yield ExpressionRule(
            f"{op}_of_a_value_and_itself_is_{str(result).lower()}",
            f"{op}(x, x) = {result}" + ("" if exact else ", unless x is NaN"),
            (op,),
            source="total orders; IEEE 754-2019, 5.11 for NaN",
            pattern=Applied(op, (X, X)),
            replacement=number(result),
            validity=EXACT if exact else UP_TO_ROUNDING,
        )


def de_morgan_rules() -> Iterator[ExpressionRule]:
    """`not (not x and not y)` is `x or y`."""
    for op, dual in DUALS.items():
        yield ExpressionRule(
            f"de_morgan_for_{op}",
            f"not ((not x) {op} (not y)) = x {dual} y",
            ("not",),
            source="De Morgan's laws",
            pattern=Applied("not", (Found(_all_negated(op)),)),
            replacement=_dual(dual),
        )


def _all_negated(op: str) -> Callable[[Expression, Scope], Match | None]:
    def find(expression: Expression, scope: Scope) -> Match | None:
        if not isinstance(expression, Apply) or expression.op != op:
            return None
        negated = all(isinstance(x, Apply) and x.op == "not" for x in expression.arguments)
        return {"inner": expression} if negated else None

    return find


def _dual(op: str) -> Replacement:
    return lambda match, scope: scope.flat(
        op, *(negated.arguments[0] for negated in match["inner"].arguments)
    )


def excluded_middle_rules() -> Iterator[ExpressionRule]:
    """`x and not x` is false, `x or not x` is true."""
    for op, result in (("and", False), ("or", True)):
        yield ExpressionRule(
            f"{op}_of_a_value_and_its_negation_is_{str(result).lower()}",
            f"x {op} not x = {result}",
            (op,),
            source="Boolean algebra",
            pattern=Found(_complementary),
            replacement=number(result),
        )


def _complementary(expression: Expression, scope: Scope) -> Match | None:
    assert isinstance(expression, Apply)
    negated = {
        x.arguments[0] for x in expression.arguments if isinstance(x, Apply) and x.op == "not"
    }
    return {} if any(x in negated for x in expression.arguments) else None


def class_rules() -> Iterator[ExpressionRule]:
    """Integers are finite; a sign does not change the class of a number."""
    for op, result in (("isnan", False), ("isinf", False), ("isfinite", True)):
        yield ExpressionRule(
            f"{op}_of_an_integer_is_{str(result).lower()}",
            f"{op}(x) = {result} for integers and booleans",
            (op,),
            source="the dtypes of the language reference",
            pattern=Applied(op, (X,)),
            replacement=number(result),
            conditions=(has_kind("x", "bool", *INTEGERS),),
        )
        for inner in ("neg", "abs"):
            yield ExpressionRule(
                f"{op}_ignores_{inner}",
                f"{op}({inner}(x)) = {op}(x) for real x",
                (op,),
                source="IEEE 754-2019, 5.5.1",
                pattern=Applied(op, (Applied(inner, (X,)),)),
                replacement=applied(op, "x"),
                conditions=(is_real("x"),),
            )


TRUTH = (
    ExpressionRule(
        "not_of_not_is_the_truth",
        "not not x = x for a boolean x",
        ("not",),
        source="Boolean algebra",
        pattern=Applied("not", (Applied("not", (X,)),)),
        replacement=value_of("x"),
        conditions=(has_kind("x", "bool"),),
    ),
    *opposite_rules(),
    *reflexive_rules(),
    *de_morgan_rules(),
    *excluded_middle_rules(),
    *class_rules(),
)
