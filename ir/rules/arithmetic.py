"""Subtraction, division, powers, signs and rounding: the laws that the op table does not list."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from einloom.ir.expressions import Expression, Literal, Value
from einloom.ir.rewrite.laws import EXACT, UP_TO_ROUNDING, Validity
from einloom.ir.rewrite.patterns import AllOf, Applied, Match, Number, Pattern, Variable
from einloom.ir.rewrite.rule import Condition, ExpressionRule
from einloom.ir.rewrite.scope import Scope
from einloom.ir.rewrite.values import constant
from einloom.ir.rules.conditions import (
    FLOAT,
    INTEGERS,
    computed_like_root,
    has_kind,
    is_real,
    not_negative_zero,
)

X, Y = Variable("x"), Variable("y")
REALS_ONLY = Validity(complexes="ok")
INTEGERS_ONLY = Validity(floats="no", booleans="no")
ROUNDINGS = ("floor", "ceil", "trunc", "round")

Replacement = Callable[[Match, Scope], Expression | None]


def value_of(name: str) -> Replacement:
    """The replacement is what a variable stands for."""
    return lambda match, scope: match[name]


def number(value: Value) -> Replacement:
    """The replacement is a constant of the typing of the whole."""

    def replacement(match: Match, scope: Scope) -> Expression | None:
        typing = scope.typing(match["root"])
        return None if typing is None else constant(value, typing)

    return replacement


def applied(op: str, *names: str) -> Replacement:
    """The replacement is an operation on variables."""
    return lambda match, scope: scope.flat(op, *(match[name] for name in names))


def _rule(
    name: str,
    law: str,
    pattern: Applied,
    replacement: Replacement,
    validity: Validity = EXACT,
    conditions: tuple[Condition, ...] = (),
    source: str = "elementary algebra; IEEE 754-2019 for the signs of zero",
) -> ExpressionRule:
    return ExpressionRule(
        name,
        law,
        (pattern.op,),
        source=source,
        pattern=pattern,
        replacement=replacement,
        validity=validity,
        conditions=conditions,
    )


def _neg(inner: Pattern) -> Applied:
    return Applied("neg", (inner,))


def _is_power_of_two(match: Match, scope: Scope) -> bool:
    value = match["by"]
    if not isinstance(value, int | float) or value == 0 or not math.isfinite(value):
        return False
    mantissa, exponent = math.frexp(value)
    # Far from the ends of f32's range, so that the reciprocal is a normal number there too.
    return abs(mantissa) == 0.5 and abs(exponent) < 100


def _times_reciprocal(match: Match, scope: Scope) -> Expression | None:
    return scope.flat("mul", match["x"], Literal(1.0 / match["by"]))


def _squared(match: Match, scope: Scope) -> Expression | None:
    return scope.flat("mul", match["x"], match["x"])


def _without_signs(match: Match, scope: Scope) -> Expression | None:
    taken = [x.arguments[0] for x in match["taken"]]
    odd = len(taken) % 2
    # An odd one out keeps its sign.
    kept = [match["taken"][-1]] if odd else []
    return scope.flat("mul", *(taken[:-1] if odd else taken), *kept, *match["rest"])


def _all_like_root(match: Match, scope: Scope) -> bool:
    whole = scope.dtype(match["root"])
    return all(scope.dtype(x) == whole for x in match["taken"])


DIFFERENCES = (
    _rule(
        "subtracting_zero_changes_nothing",
        "x - 0 = x; x - -0.0 is not x for x = -0.0",
        Applied("sub", (X, Number(0, "zero"))),
        value_of("x"),
        conditions=(not_negative_zero("zero"),),
    ),
    _rule(
        "difference_of_equal_values_is_zero",
        "x - x = 0 for finite x",
        Applied("sub", (X, X)),
        number(0),
        UP_TO_ROUNDING,
    ),
    _rule(
        "zero_minus_a_value_is_its_negation",
        "0 - x = -x, up to the sign of zero",
        Applied("sub", (Number(0), X)),
        applied("neg", "x"),
        UP_TO_ROUNDING,
    ),
    _rule(
        "subtracting_a_negation_adds",
        "x - (-y) = x + y",
        Applied("sub", (X, Applied("neg", (Y,)))),
        applied("add", "x", "y"),
        conditions=(computed_like_root("y"),),
    ),
    _rule(
        "adding_a_negation_subtracts",
        "x + (-y) = x - y",
        Applied("add", (X, _neg(Y))),
        applied("sub", "x", "y"),
        conditions=(computed_like_root("y"),),
    ),
    _rule(
        "negated_difference_is_the_opposite_difference",
        "-(x - y) = y - x, up to the sign of zero",
        _neg(Applied("sub", (X, Y))),
        applied("sub", "y", "x"),
        UP_TO_ROUNDING,
    ),
)

PRODUCTS = (
    _rule(
        "product_with_minus_one_is_a_negation",
        "-1 * x = -x",
        Applied("mul", (Number(-1), X)),
        applied("neg", "x"),
        REALS_ONLY,
    ),
    ExpressionRule(
        "signs_in_a_product_cancel_in_pairs",
        "(-x) * (-y) = x * y",
        ("mul",),
        source="elementary algebra",
        pattern=AllOf("mul", _neg(X), least=2),
        replacement=_without_signs,
        conditions=(_all_like_root,),
    ),
    _rule(
        "dividing_by_one_changes_nothing",
        "x / 1 = x",
        Applied("div", (X, Number(1))),
        value_of("x"),
        REALS_ONLY,
    ),
    _rule(
        "signs_in_a_quotient_cancel",
        "(-x) / (-y) = x / y",
        Applied("div", (_neg(X), _neg(Y))),
        applied("div", "x", "y"),
        conditions=(computed_like_root("x", "y"),),
    ),
    _rule(
        "dividing_by_a_power_of_two_multiplies",
        "x / 2**k = x * 2**-k, exact in binary floating point",
        Applied("div", (X, Number(name="by"))),
        _times_reciprocal,
        conditions=(has_kind("x", FLOAT), _is_power_of_two),
        source="IEEE 754-2019, 4.3: both are the correctly rounded same real number",
    ),
    _rule(
        "whole_quotient_by_one_changes_nothing",
        "x // 1 = x for integers",
        Applied("floordiv", (X, Number(1))),
        value_of("x"),
        INTEGERS_ONLY,
    ),
    _rule(
        "remainder_by_one_is_zero",
        "x % 1 = 0 for integers",
        Applied("mod", (X, Number(1))),
        number(0),
        INTEGERS_ONLY,
    ),
    _rule(
        "reciprocal_of_a_square_root",
        "1 / sqrt(x) = rsqrt(x), rounded once more or less",
        Applied("div", (Number(1), Applied("sqrt", (X,)))),
        applied("rsqrt", "x"),
        Validity(floats="ok", complexes="no"),
        conditions=(has_kind("x", FLOAT), computed_like_root("x")),
    ),
)

POWERS = (
    _rule(
        "first_power_is_the_value",
        "x ** 1 = x",
        Applied("pow", (X, Number(1))),
        value_of("x"),
        REALS_ONLY,
    ),
    _rule(
        "power_zero_is_one",
        "x ** 0 = 1, for NaN too",
        Applied("pow", (X, Number(0))),
        number(1),
        REALS_ONLY,
        source="IEEE 754-2019, 9.2.1",
    ),
    _rule(
        "second_power_is_a_product",
        "x ** 2 = x * x",
        Applied("pow", (X, Number(2))),
        _squared,
        UP_TO_ROUNDING,
    ),
    _rule(
        "power_one_half_is_a_square_root",
        "x ** 0.5 = sqrt(x), but for -0.0 and -inf",
        Applied("pow", (X, Number(0.5))),
        applied("sqrt", "x"),
        Validity(floats="ok", complexes="no"),
        conditions=(has_kind("x", FLOAT),),
        source="IEEE 754-2019, 9.2.1",
    ),
)

MAGNITUDES = (
    _rule(
        "magnitude_of_a_magnitude",
        "abs(abs(x)) = abs(x)",
        Applied("abs", (Applied("abs", (X,)),)),
        applied("abs", "x"),
    ),
    _rule(
        "magnitude_ignores_the_sign",
        "abs(-x) = abs(x), but for unsigned x",
        Applied("abs", (_neg(X),)),
        applied("abs", "x"),
        conditions=(has_kind("x", "signed", FLOAT, "complex"),),
    ),
    _rule(
        "unsigned_value_is_its_magnitude",
        "abs(x) = x for unsigned x",
        Applied("abs", (X,)),
        value_of("x"),
        conditions=(has_kind("x", "unsigned", "bool"),),
    ),
    _rule(
        "real_value_is_its_conjugate",
        "conj(x) = x for real x",
        Applied("conj", (X,)),
        value_of("x"),
        conditions=(is_real("x"),),
    ),
    _rule(
        "real_value_is_its_real_part",
        "real(x) = x for real x",
        Applied("real", (X,)),
        value_of("x"),
        conditions=(is_real("x"),),
    ),
    _rule(
        "imaginary_part_of_a_real_value_is_zero",
        "imag(x) = 0 for real x",
        Applied("imag", (X,)),
        number(0),
        conditions=(is_real("x"),),
    ),
)


def rounding_rules() -> Iterator[ExpressionRule]:
    """Rounding a whole number changes nothing."""
    for outer in ROUNDINGS:
        yield _rule(
            f"{outer}_of_an_integer_is_it",
            f"{outer}(x) = x for integers",
            Applied(outer, (X,)),
            value_of("x"),
            conditions=(has_kind("x", *INTEGERS),),
        )
        for inner in ROUNDINGS:
            yield _rule(
                f"{outer}_after_{inner}_changes_nothing",
                f"{outer}({inner}(x)) = {inner}(x)",
                Applied(outer, (Applied(inner, (X,)),)),
                applied(inner, "x"),
            )


ARITHMETIC = (*DIFFERENCES, *PRODUCTS, *POWERS, *MAGNITUDES, *rounding_rules())
