"""Idempotence, absorption and bounds of lattice operations: max and min, and and or, bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from einloom.ir.expressions import Apply, Expression
from einloom.ir.ops import OPS
from einloom.ir.rewrite.laws import Validity
from einloom.ir.rewrite.patterns import Found, Match, constant_value
from einloom.ir.rewrite.rule import ExpressionRule
from einloom.ir.rewrite.scope import Scope
from einloom.ir.rewrite.values import constant, converted, highest, lowest
from einloom.ir.types import DType, Scalar


def idempotent_rules() -> Iterator[ExpressionRule]:
    """`x op x = x`."""
    for op in OPS.values():
        if op.law("idempotent") is None:
            continue
        yield ExpressionRule(
            f"{op.name}_of_equal_values_is_one_of_them",
            f"{op.name}(x, x) = x",
            (op.name,),
            pattern=Found(_repeated),
            replacement=lambda match, scope: scope.flat(match["root"].op, *match["distinct"]),
        )


def _repeated(expression: Expression, scope: Scope) -> Match | None:
    assert isinstance(expression, Apply)
    distinct = tuple(dict.fromkeys(expression.arguments))
    return {"distinct": distinct} if len(distinct) < len(expression.arguments) else None


def lattice_pairs() -> Iterator[tuple[str, str]]:
    """Idempotent operations that distribute over each other: absorption follows."""
    for op in OPS.values():
        for other in OPS.values():
            both = op.distributes_over(other.name) and other.distributes_over(op.name)
            if both and op.law("idempotent") and other.law("idempotent"):
                yield op.name, other.name


def absorption_rules() -> Iterator[ExpressionRule]:
    """`x op (x other y) = x`; not where y is NaN."""
    for op, other in lattice_pairs():
        yield ExpressionRule(
            f"{op}_absorbs_{other}",
            f"{op}(x, {other}(x, y)) = x",
            (op,),
            source="Birkhoff, Lattice Theory, L4",
            pattern=Found(_absorbed(other)),
            replacement=lambda match, scope: scope.flat(match["root"].op, *match["left"]),
            validity=Validity(floats="ok"),
        )


def _absorbed(other: str) -> Callable[[Expression, Scope], Match | None]:
    def find(expression: Expression, scope: Scope) -> Match | None:
        assert isinstance(expression, Apply)
        arguments = expression.arguments
        inner = [x for x in arguments if isinstance(x, Apply) and x.op == other]
        if not inner:
            return None
        present = set(arguments)
        left = tuple(
            x
            for x in arguments
            if not (isinstance(x, Apply) and x.op == other and not present.isdisjoint(x.arguments))
        )
        return {"left": left} if len(left) < len(arguments) else None

    return find


Bound = Callable[[DType], object]
ENDS: tuple[tuple[str, str, Bound], ...] = (("max", "lowest", lowest), ("min", "highest", highest))


def bound_rules() -> Iterator[ExpressionRule]:
    """`max(x, lowest) = x` and `max(x, highest) = highest`, and the same for min."""
    for op, end, of in ENDS:
        yield ExpressionRule(
            f"{op}_with_the_{end}_value_is_dropped",
            f"{op}(x, {end}) = x, with the {end} value of the dtype; NaN stays",
            (op,),
            pattern=Found(_at_end(of)),
            replacement=lambda match, scope: scope.flat(match["root"].op, *match["rest"]),
        )
    for (op, _, _), (_, end, of) in zip(ENDS, reversed(ENDS), strict=True):
        yield ExpressionRule(
            f"{op}_with_the_{end}_value_is_it",
            f"{op}(x, {end}) = {end}, unless x is NaN",
            (op,),
            pattern=Found(_at_end(of)),
            replacement=_the_end,
            validity=Validity(floats="ok"),
        )


def _at_end(of: Bound) -> Callable[[Expression, Scope], Match | None]:
    def find(expression: Expression, scope: Scope) -> Match | None:
        assert isinstance(expression, Apply)
        values = [constant_value(argument) for argument in expression.arguments]
        if all(value is None for value in values):
            return None
        dtype = scope.operand_dtype(expression)
        end = None if dtype is None else of(dtype)
        if end is None or not isinstance(dtype, Scalar):
            return None
        rest = tuple(
            argument
            for argument, value in zip(expression.arguments, values, strict=True)
            if value is None or converted(value, dtype) != end
        )
        if len(rest) == len(expression.arguments):
            return None
        return {"rest": rest, "end": end}

    return find


def _the_end(match: Match, scope: Scope) -> Expression | None:
    typing = scope.typing(match["root"])
    return None if typing is None else constant(match["end"], typing)


LATTICES = (*idempotent_rules(), *absorption_rules(), *bound_rules())
