"""Constant folding, with NumPy in the dtype of the typing, so that no result bit changes."""

from __future__ import annotations

from collections.abc import Iterator

from einloom.ir.expressions import Apply, Cast, Expression, Literal, Pack, Project
from einloom.ir.ops import OPS, is_flat
from einloom.ir.promotion import Typing
from einloom.ir.rewrite.laws import validity
from einloom.ir.rewrite.patterns import AllOf, Found, Match, Number, constant_value
from einloom.ir.rewrite.rule import ExpressionRule
from einloom.ir.rewrite.scope import Scope
from einloom.ir.rewrite.values import constant, folded, literal_of


def _all_constant(expression: Expression, scope: Scope) -> Match | None:
    assert isinstance(expression, Apply)
    values = []
    for argument in expression.arguments:
        value = constant_value(argument)
        if value is None:
            return None
        values.append(value)
    return {"values": values}


def _value(match: Match, scope: Scope) -> Expression | None:
    root: Apply = match["root"]
    typing = scope.typing(root)
    typings = [scope.typing(argument) for argument in root.arguments]
    if typing is None:
        return None
    known = [t for t in typings if t is not None]
    value = folded(root.op, match["values"], known, typing, scope.strict)
    return None if value is None else constant(value, typing)


def partial_rules() -> Iterator[ExpressionRule]:
    """Constants among the arguments of a flat operation are combined."""
    for op in OPS:
        if is_flat(op):
            yield ExpressionRule(
                f"constants_of_{op}_are_combined",
                f"{op}(x, a, b) = {op}(x, c) for constants a and b with {op}(a, b) = c",
                (op,),
                pattern=AllOf(op, Number(), least=2),
                replacement=_combined,
                validity=validity(op, "associative"),
            )


def _combined(match: Match, scope: Scope) -> Expression | None:
    root: Apply = match["root"]
    taken: tuple[Expression, ...] = match["taken"]
    dtype, result = scope.operand_dtype(root), scope.typing(root)
    if not match["rest"] or dtype is None or result is None:
        return None
    values = [v for argument in taken if (v := constant_value(argument)) is not None]
    value = folded(root.op, values, [Typing(dtype)] * len(values), Typing(result.dtype), False)
    literal = None if value is None else literal_of(value, result.dtype)
    if literal is None:
        return None
    strong = any(not isinstance(argument, Literal) for argument in taken)
    number = Cast(result.dtype, literal) if strong else literal
    place = root.arguments.index(taken[0])
    constants = set(taken)
    before = [x for x in root.arguments[:place] if x not in constants]
    after = [x for x in root.arguments[place:] if x not in constants]
    return scope.flat(root.op, *before, number, *after)


CONSTANTS = (
    ExpressionRule(
        "operation_on_constants_is_its_value",
        "op(a, b) is a constant for constants a and b",
        tuple(OPS),
        source="NumPy, in the dtype that the typing rules give",
        pattern=Found(_all_constant),
        replacement=_value,
    ),
    *partial_rules(),
    ExpressionRule(
        "component_of_a_written_tuple",
        "(a, b).0 = a",
        ("Project",),
        source="the language reference, tuples",
        pattern=Found(
            lambda e, scope: (
                {"items": e.value.items, "item": e.item}
                if isinstance(e, Project) and isinstance(e.value, Pack)
                else None
            )
        ),
        replacement=lambda match, scope: match["items"][match["item"]],
    ),
)
