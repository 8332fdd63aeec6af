"""Identities, annihilators and involutions: generated from the laws in the op table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from einloom.ir.expressions import Expression, Value
from einloom.ir.ops import OPS
from einloom.ir.promotion import Typing
from einloom.ir.rewrite.laws import EXACT, validity
from einloom.ir.rewrite.patterns import (
    AllOf,
    Applied,
    Match,
    Number,
    Variable,
    is_negative_zero,
)
from einloom.ir.rewrite.rule import ExpressionRule
from einloom.ir.rewrite.scope import Scope
from einloom.ir.rewrite.values import constant


def identity_rules() -> Iterator[ExpressionRule]:
    """`x op e = x` for every operation with an identity e."""
    for op in OPS.values():
        law = op.law("identity")
        if law is None:
            continue
        assert not isinstance(law.operand, str) and law.operand is not None
        yield ExpressionRule(
            f"{op.name}_with_its_identity_is_dropped",
            f"{op.name}(x, {law.operand}) = x",
            (op.name,),
            pattern=AllOf(op.name, Number(law.operand)),
            replacement=_the_rest,
            validity=validity(op.name, "identity"),
        )
    yield ExpressionRule(
        "add_of_negative_zero_is_dropped",
        "x + -0.0 = x bit for bit on floats, which x + 0.0 = x is not",
        ("add",),
        source="IEEE 754-2019, 6.3",
        pattern=AllOf("add", Number(0, test=is_negative_zero)),
        replacement=_the_rest,
    )


def _the_rest(match: Match, scope: Scope) -> Expression | None:
    rest = match["rest"]
    return scope.flat(match["root"].op, *rest)


def annihilator_rules() -> Iterator[ExpressionRule]:
    """`x op z = z` for every operation with an annihilator z."""
    for op in OPS.values():
        law = op.law("annihilator")
        if law is None:
            continue
        assert not isinstance(law.operand, str) and law.operand is not None
        yield ExpressionRule(
            f"{op.name}_with_its_annihilator_is_it",
            f"{op.name}(x, {law.operand}) = {law.operand}",
            (op.name,),
            pattern=AllOf(op.name, Number(law.operand)),
            replacement=_constant_of_root(law.operand),
            validity=validity(op.name, "annihilator"),
        )


def _constant_of_root(value: Value) -> Callable[[Match, Scope], Expression | None]:
    def replacement(match: Match, scope: Scope) -> Expression | None:
        typing: Typing | None = scope.typing(match["root"])
        return None if typing is None else constant(value, typing)

    return replacement


def involution_rules() -> Iterator[ExpressionRule]:
    """`f(f(x)) = x` for every operation that is its own inverse."""
    for op in OPS.values():
        if op.law("involution") is None:
            continue
        yield ExpressionRule(
            f"{op.name}_of_{op.name}_is_the_value",
            f"{op.name}({op.name}(x)) = x",
            (op.name,),
            pattern=Applied(op.name, (Applied(op.name, (Variable("x"),)),)),
            replacement=lambda match, scope: match["x"],
            validity=EXACT,
        )


NEUTRAL = (*identity_rules(), *annihilator_rules(), *involution_rules())
