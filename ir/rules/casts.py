"""Conversions that change nothing, alone and in pairs."""

from __future__ import annotations

from einloom.ir.expressions import Cast, Expression
from einloom.ir.promotion import promote
from einloom.ir.rewrite.patterns import Found, Match
from einloom.ir.rewrite.rule import ExpressionRule
from einloom.ir.rewrite.scope import Scope
from einloom.ir.rules.conditions import is_rounded
from einloom.ir.types import BOOL, DType, Scalar, bf16, f16

SOURCE = "the conversion rules of ir/casting.py"
# Bits of the mantissa, the hidden one included: integers up to 2**n are exact.
MANTISSA = {"f16": 11, "bf16": 8, "f32": 24, "f64": 53, "c64": 24, "c128": 53}


def holds_all(wide: DType, narrow: DType) -> bool:
    """Whether every value of `narrow` is a value of `wide`."""
    if wide == narrow:
        return True
    if not isinstance(wide, Scalar) or not isinstance(narrow, Scalar):
        return False
    if narrow.kind == BOOL:
        return True
    if narrow.is_integer and wide.name in MANTISSA:
        bits = narrow.bits - (narrow.kind == "signed")
        return bits <= MANTISSA[wide.name]
    if {wide, narrow} == {f16, bf16}:
        return False
    return promote(wide, narrow) == wide


def _cast(expression: Expression, scope: Scope) -> Match | None:
    if not isinstance(expression, Cast):
        return None
    return {"x": expression.value, "to": expression.dtype}


def _cast_of_cast(expression: Expression, scope: Scope) -> Match | None:
    if not isinstance(expression, Cast) or not isinstance(expression.value, Cast):
        return None
    inner = expression.value
    return {"x": inner.value, "between": inner.dtype, "to": expression.dtype}


def _is_of_that_dtype(match: Match, scope: Scope) -> bool:
    typing = scope.typing(match["x"])
    return typing is not None and typing.dtype == match["to"] and not typing.weak


def _has_rounded(match: Match, scope: Scope) -> bool:
    return is_rounded(match["x"], scope)


def _passes_unchanged(match: Match, scope: Scope) -> bool:
    typing = scope.typing(match["x"])
    return typing is not None and not typing.weak and holds_all(match["between"], typing.dtype)


def _converts_alike(match: Match, scope: Scope) -> bool:
    """An integer wraps on its way to an integer dtype, but a float saturates."""
    dtype, between, to = scope.dtype(match["x"]), match["between"], match["to"]
    if not (is_whole(dtype) and not is_whole(between)):
        return True
    assert dtype is not None
    return not is_whole(to) or holds_all(to, dtype)


def is_whole(dtype: DType | None) -> bool:
    """Whether conversions from a dtype are those of integers."""
    return isinstance(dtype, Scalar) and (dtype.is_integer or dtype.kind == BOOL)


def _only_drops_bits(match: Match, scope: Scope) -> bool:
    dtype, between, to = scope.dtype(match["x"]), match["between"], match["to"]
    whole = all(isinstance(d, Scalar) and d.is_integer for d in (dtype, between, to))
    return whole and to.bits <= between.bits


CASTS = (
    ExpressionRule(
        "conversion_to_the_own_dtype_changes_nothing",
        "d(x) = x for x of dtype d, if x is rounded to d already",
        ("Cast",),
        source=SOURCE,
        pattern=Found(_cast),
        replacement=lambda match, scope: match["x"],
        conditions=(_is_of_that_dtype, _has_rounded),
    ),
    ExpressionRule(
        "conversion_through_a_wider_dtype_is_direct",
        "d(e(x)) = d(x) where e holds every value of x",
        ("Cast",),
        source=SOURCE,
        pattern=Found(_cast_of_cast),
        replacement=lambda match, scope: Cast(match["to"], match["x"]),
        conditions=(_passes_unchanged, _converts_alike, _has_rounded),
    ),
    ExpressionRule(
        "conversions_that_drop_bits_are_one",
        "d(e(x)) = d(x) for integers, where d is no wider than e",
        ("Cast",),
        source="two's complement",
        pattern=Found(_cast_of_cast),
        replacement=lambda match, scope: Cast(match["to"], match["x"]),
        conditions=(_only_drops_bits,),
    ),
)
