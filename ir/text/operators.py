"""What binds tighter than what: the one table of infix and prefix operators, and its parser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from einloom.ir.errors import Location, ParseError, Source
from einloom.ir.expressions import Apply, Expression, Literal
from einloom.ir.ops import INFIX, OPS, apply, is_flat
from einloom.ir.text.lexer import Token
from einloom.ir.text.spelling import read_number

NOT, COMPARISON, SUM, PRODUCT, UNARY, POWER, PRIMARY = 3, 4, 9, 10, 11, 12, 13

LEVELS: dict[str, int] = {
    "or": 1,
    "and": 2,
    # prefix `not` stands here
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), COMPARISON),
    "|": 5,
    "^": 6,
    "&": 7,
    **dict.fromkeys(("<<", ">>"), 8),
    **dict.fromkeys(("+", "-"), SUM),
    **dict.fromkeys(("*", "/", "//", "%"), PRODUCT),
    # prefix `-` and `~` stand here
    "**": POWER,
}
"""Infix symbols from the loosest to the tightest: comparisons do not chain, `**` groups from
the right, all others from the left."""

PREFIX_LEVELS = {"not": NOT, "-": UNARY, "~": UNARY}

PREFIX: dict[str, str] = {
    op.symbol: op.name for op in OPS.values() if op.symbol is not None and op.arity == 1
}
"""Operations of the prefix symbols."""

OPERATIONS: dict[str, str] = {symbol: op.name for symbol, op in INFIX.items()}
"""Operations of the infix symbols."""

assert set(LEVELS) == set(OPERATIONS) and set(PREFIX_LEVELS) == set(PREFIX)

Operand = Expression | Token


@dataclass(slots=True)
class _Waiting:
    """An operator that waits for its right side; `count` operators of one flat operation."""

    level: int
    op: str
    token: Token
    prefix: bool
    count: int = 1


class Assembler:
    """Builds the expression that a flat list of operands and operators stands for.

    `atom` resolves a name or number token. A minus directly before a number belongs to the
    number, so that `-1.0` is a literal and `-(1.0)` a negation. `(a + b) + c` is `a + b + c`,
    unless `nested`: then parentheses stay.
    """

    def __init__(
        self, source: Source, atom: Callable[[Token], Expression], nested: bool = False
    ) -> None:
        self.source = source
        self.atom = atom
        self.nested = nested

    def assemble(self, items: list[Operand]) -> Expression:
        """The expression of `operand (infix operand)*`, prefixes before any operand.

        Raises ParseError for chained comparisons and for `not` inside a tighter operator.
        """
        values: list[Operand] = []
        waiting: list[_Waiting] = []
        operand_next = True
        for item in items:
            if not isinstance(item, Token) or item.type in _ATOMS:
                values.append(item)
                operand_next = False
            elif operand_next:
                level = PREFIX_LEVELS[item.text]
                if level == NOT and waiting and waiting[-1].level > NOT:
                    self.complain(
                        f"`not` behind `{waiting[-1].token.text}` needs parentheses",
                        item, "write (not x)",
                    )  # fmt: skip
                waiting.append(_Waiting(level, PREFIX[item.text], item, True))
            else:
                self.infix(item, values, waiting)
                operand_next = True
        while waiting:
            self.reduce(values, waiting.pop())
        (result,) = values
        return self.atom(result) if isinstance(result, Token) else result

    def infix(self, token: Token, values: list[Operand], waiting: list[_Waiting]) -> None:
        level, op = LEVELS[token.text], OPERATIONS[token.text]
        while waiting and waiting[-1].level >= level:
            top = waiting[-1]
            if top.level == level:
                if level == COMPARISON:
                    self.complain(
                        "comparisons do not chain", token,
                        f"write a {top.token.text} b and b {token.text} c",
                    )  # fmt: skip
                if level == POWER:
                    break
                if top.op == op and is_flat(op):
                    top.count += 1
                    return
            self.reduce(values, waiting.pop())
        waiting.append(_Waiting(level, op, token, False))

    def reduce(self, values: list[Operand], operator: _Waiting) -> None:
        if operator.prefix:
            operand = values.pop()
            start, end = operator.token.start, _end(operand)
            if isinstance(operand, Token) and operator.op == "neg" and _is_signless(operand):
                values.append(self.negative(operand, Location(self.source, start, end)))
                return
            arguments = [operand]
        else:
            count = operator.count + 1
            arguments = values[-count:]
            del values[-count:]
            start, end = _start(arguments[0]), _end(arguments[-1])
        nodes = tuple(self.atom(x) if isinstance(x, Token) else x for x in arguments)
        location = Location(self.source, start, end)
        op = operator.op
        if (
            not self.nested
            and is_flat(op)
            and any(isinstance(x, Apply) and x.op == op for x in nodes)
        ):
            values.append(apply(op, *nodes).at(location))
        else:
            values.append(Apply(op, nodes, location=location))

    def negative(self, token: Token, location: Location) -> Literal:
        try:
            return Literal(-read_number(token.text), location=location)
        except ValueError as error:
            raise ParseError(_number_complaint(error), location=location) from None

    def complain(self, message: str, token: Token, suggestion: str) -> NoReturn:
        location = Location(self.source, token.start, token.end)
        raise ParseError(message, location=location, suggestion=suggestion)


_ATOMS = frozenset(("NAME", "INTEGER", "NUMBER"))


def _is_signless(token: Token) -> bool:
    return token.type != "NAME" and token.text not in ("True", "False")


def _start(operand: Operand) -> int:
    if isinstance(operand, Token):
        return operand.start
    return operand.location.start if operand.location else 0


def _end(operand: Operand) -> int:
    if isinstance(operand, Token):
        return operand.end
    return operand.location.end if operand.location else 0


def _number_complaint(error: ValueError) -> str:
    """What is wrong with a number; Python's words about too many digits are not ours."""
    text = str(error)
    return "this integer has too many digits" if "digits" in text else text


def literal_of(token: Token, source: Source, negative: bool = False) -> Literal:
    """The literal of a number token, without location; ParseError where it has no value."""
    try:
        value = read_number(token.text)
    except ValueError as error:
        location = Location(source, token.start, token.end)
        raise ParseError(_number_complaint(error), location=location) from None
    return Literal(-value if negative else value)
