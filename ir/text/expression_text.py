"""The text of expressions, without recursion and with no parentheses that say nothing."""

from __future__ import annotations

from collections.abc import Callable

from einloom.ir.errors import UnsupportedError
from einloom.ir.expressions import (
    Access,
    Apply,
    Cast,
    Expression,
    Index,
    Literal,
    Local,
    Pack,
    Project,
    Symbol,
)
from einloom.ir.ops import OPS
from einloom.ir.text.lexer import EXTENT, INDEX, SCALAR
from einloom.ir.text.operators import (
    COMPARISON,
    LEVELS,
    OPERATIONS,
    POWER,
    PREFIX,
    PREFIX_LEVELS,
    PRIMARY,
    PRODUCT,
    SUM,
    UNARY,
)
from einloom.ir.text.spelling import SPECIAL_CALLS, quoted, spell_value
from einloom.ir.text.type_text import dtype_text
from einloom.ir.types import DType, Modular, Scalar

Piece = str | tuple[Expression, int, int]
"""Text, or an expression with the level that surrounds it and its position."""

_INFIX_OF = {op: (symbol, LEVELS[symbol]) for symbol, op in OPERATIONS.items()}
_SUMS = ("add", "sub")
_PREFIX_OF = {op: (symbol, PREFIX_LEVELS[symbol]) for symbol, op in PREFIX.items()}


class ExpressionPrinter:
    """Prints expressions. `spell` gives the text of a name.

    `indices`: in a scalar position these index variables print bare (in the condition of a
    statement that has them), all others as `iota(i)`.
    """

    def __init__(self, spell: Callable[[str], str], indices: frozenset[str] = frozenset()) -> None:
        self.spell = spell
        self.indices = indices

    def text(self, expression: Expression, position: int = SCALAR) -> str:
        out: list[str] = []
        pending: list[Piece] = [(expression, 0, position)]
        while pending:
            piece = pending.pop()
            if isinstance(piece, str):
                out.append(piece)
            else:
                pieces = self.pieces(*piece)
                if isinstance(pieces, str):
                    out.append(pieces)
                else:
                    pieces.reverse()
                    pending += pieces
        return "".join(out)

    def pieces(self, expression: Expression, level: int, position: int) -> str | list[Piece]:
        """The parts of an expression that stands where `level` or tighter is needed."""
        match expression:
            case Index():
                name = self.spell(expression.name)
                bare = position == INDEX or (position == SCALAR and expression.name in self.indices)
                return name if bare else f"iota({name})"
            case Access():
                return self.access(expression, position)
            case Apply():
                return self.application(expression, level, position)
            case Literal():
                text, signed = spell_value(expression.value)
                return f"({text})" if signed and level > UNARY else text
            case Symbol() | Local():
                return self.spell(expression.name)
            case Cast():
                return self.cast(expression, position)
            case Pack():
                comma = ",)" if len(expression.items) == 1 else ")"
                return ["(", *separated(expression.items, position), comma]
            case Project():
                return self.projection(expression, position)
        raise UnsupportedError(f"{type(expression).__name__} has no text form in a program")

    def access(self, access: Access, position: int) -> str | list[Piece]:
        name = self.spell(access.tensor)
        if access.view:
            name = f"{access.view}({name})"
        if access.padding is not None:
            name += f"?({spell_value(access.padding.value)[0]})"
        if not access.indices:
            return name + "[]"
        return [name + "[", *separated(access.indices, INDEX), "]"]

    def cast(self, cast: Cast, position: int) -> list[Piece]:
        name = self.dtype_name(cast.dtype) or f"cast[{dtype_text(cast.dtype)}]"
        return [f"{name}(", (cast.value, 0, position), ")"]

    def dtype_name(self, dtype: DType) -> str | None:
        """The text of a dtype that may stand in front of what is cast to it."""
        return dtype_text(dtype) if isinstance(dtype, Scalar | Modular) else None

    def projection(self, project: Project, position: int) -> list[Piece]:
        if isinstance(project.value, Literal):  # the digits would run together
            return ["(", (project.value, 0, position), f").{project.item}"]
        return [(project.value, PRIMARY, position), f".{project.item}"]

    def application(self, apply: Apply, level: int, position: int) -> list[Piece]:
        op, arguments = apply.op, apply.arguments
        if op in _INFIX_OF and len(arguments) > 1:
            own = _INFIX_OF[op][1]
            pieces = self.infix(apply, position)
        elif op in _PREFIX_OF and len(arguments) == 1:
            own = _PREFIX_OF[op][1]
            pieces = self.prefix(apply, position)
        elif op == "ceildiv" and position != SCALAR and len(arguments) == 2:
            first, second = ((x, PRODUCT + k, position) for k, x in enumerate(arguments))
            return ["ceil(", first, "/", second, ")"]
        else:
            name = op if op in OPS else self.function_name(op)
            return [f"{name}(", *separated(arguments, position), ")"]
        return ["(", *pieces, ")"] if own < level else pieces

    def function_name(self, name: str) -> str:
        """The name of a definition where it is defined or applied."""
        return quoted(name) if name in SPECIAL_CALLS else self.spell(name)

    def prefix(self, apply: Apply, position: int) -> list[Piece]:
        symbol, own = _PREFIX_OF[apply.op]
        (operand,) = apply.arguments
        if apply.op == "neg" and isinstance(operand, Literal):
            text, signed = spell_value(operand.value)
            if not signed and type(operand.value) is not bool:
                return [f"-({text})"]  # `-1.0` is a literal
        return [symbol + " " if symbol.isalpha() else symbol, (operand, own, position)]

    def infix(self, apply: Apply, position: int) -> list[Piece]:
        symbol, own = _INFIX_OF[apply.op]
        if own == SUM and position != SCALAR:
            return self.index_sum(apply, position)
        between = symbol if own == PRODUCT and position != SCALAR else f" {symbol} "
        first, *rest = apply.arguments
        if own == POWER:
            left, right = PRIMARY, UNARY
        else:
            left, right = own + (own == COMPARISON), own + 1
        pieces: list[Piece] = [(first, left, position)]
        for argument in rest:
            pieces += (between, (argument, right, position))
        return pieces

    def index_sum(self, apply: Apply, position: int) -> list[Piece]:
        """A sum in an index: `t+1` where all terms are names and numbers, else `2*p + r - 1`."""
        chain = [apply]
        while True:
            first = chain[-1].arguments[0]
            if not (isinstance(first, Apply) and first.op in _SUMS and len(first.arguments) > 1):
                break
            chain.append(first)
        terms: list[tuple[str, Expression]] = [
            (_INFIX_OF[each.op][0], argument)
            for each in reversed(chain)
            for argument in each.arguments[1:]
        ]
        tight = all(isinstance(x, Index | Symbol | Literal) for _, x in (("", first), *terms))
        pieces: list[Piece] = [(first, SUM, position)]
        for symbol, term in terms:
            pieces += (symbol if tight else f" {symbol} ", (term, SUM + 1, position))
        return pieces


def separated(items: tuple[Expression, ...], position: int) -> list[Piece]:
    """The items with commas between them."""
    pieces: list[Piece] = []
    for item in items:
        pieces += (", ", (item, 0, position))
    return pieces[1:]


__all__ = ["EXTENT", "INDEX", "SCALAR", "ExpressionPrinter"]
