"""Conditions that several rules share, on what the variables of their patterns stand for."""

from __future__ import annotations

from einloom.ir.expressions import Access, Expression
from einloom.ir.rewrite.laws import Validity
from einloom.ir.rewrite.patterns import Match, is_negative_zero
from einloom.ir.rewrite.rule import Condition
from einloom.ir.rewrite.scope import Scope
from einloom.ir.types import BOOL, COMPLEX, FLOAT, SIGNED, UNSIGNED, Scalar

INTEGERS = (SIGNED, UNSIGNED)
REALS = (BOOL, SIGNED, UNSIGNED, FLOAT)


def has_kind(name: str, *kinds: str) -> Condition:
    """The dtype of a variable is a machine dtype of one of these kinds."""

    def condition(match: Match, scope: Scope) -> bool:
        dtype = scope.dtype(match[name])
        return isinstance(dtype, Scalar) and dtype.kind in kinds

    return condition


def is_real(name: str) -> Condition:
    """The dtype of a variable is a machine dtype, not a complex one."""
    return has_kind(name, *REALS)


def computed_like_root(*names: str) -> Condition:
    """These parts are computed in the dtype of the whole.

    A part that is narrower wraps or rounds before it is widened: `x - (-y)` is not `x + y` for
    an i32 x and a u8 y.
    """

    def condition(match: Match, scope: Scope) -> bool:
        whole = scope.dtype(match["root"])
        return whole is not None and all(scope.dtype(match[name]) == whole for name in names)

    return condition


def valid_on(name: str, validity: Validity) -> Condition:
    """A law of this validity may be used at the root of a variable."""

    def condition(match: Match, scope: Scope) -> bool:
        return scope.may_use(validity, match[name])

    return condition


def not_negative_zero(name: str) -> Condition:
    """A number is not -0.0."""

    def condition(match: Match, scope: Scope) -> bool:
        return not is_negative_zero(match[name])

    return condition


def is_rounded(expression: Expression, scope: Scope) -> bool:
    """Whether the value of an expression is already one of its dtype.

    Values of f16 and bf16 are computed in f32: only a read of a tensor is rounded.
    """
    dtype = scope.dtype(expression)
    narrow = isinstance(dtype, Scalar) and dtype.name in ("f16", "bf16")
    return not narrow or isinstance(expression, Access)


__all__ = [
    "COMPLEX",
    "FLOAT",
    "INTEGERS",
    "REALS",
    "computed_like_root",
    "has_kind",
    "is_real",
    "is_rounded",
    "not_negative_zero",
    "valid_on",
]
