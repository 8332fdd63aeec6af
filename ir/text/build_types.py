"""Grammar callbacks for types: dtypes, ranks, level formats, and the literals inside them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NoReturn

from einloom.ir.errors import Location, ParseError, Source
from einloom.ir.expressions import Literal
from einloom.ir.formats import LEVEL_KINDS, SHORTHANDS
from einloom.ir.text.constants import Number
from einloom.ir.text.lexer import Token
from einloom.ir.text.operators import literal_of
from einloom.ir.types import (
    SCALARS,
    DType,
    Level,
    Modular,
    Quantized,
    Rank,
    Scalar,
    Scale,
    TensorType,
    Tuple,
)

_CODE = re.compile(r"[iu][1-9][0-9]*|e[0-9]+m[0-9]+|table")

SCALAR_DTYPES = {name: Scalar(name) for name in SCALARS}


def near(word: str, words: Iterable[str]) -> str | None:
    """The suggestion for a misspelt word."""
    match = get_close_matches(word, list(words), 1, 0.6)
    return f"did you mean {match[0]}?" if match else None


class TypeBuilder:
    """Turns the pieces of a type into nodes. Each method is the callback of a grammar rule."""

    source: Source

    def fail(self, message: str, start: int, end: int, suggestion: str | None = None) -> NoReturn:
        location = Location(self.source, start, end)
        raise ParseError(message, location=location, suggestion=suggestion)

    def fail_at(self, token: Token, message: str, suggestion: str | None = None) -> NoReturn:
        self.fail(message, token.start, token.end, suggestion)

    # -- literals

    def literal(self, children: list[Token]) -> Number:
        return Number(children[-1], len(children) == 2, children[0].start)

    def literal_node(self, number: Number) -> Literal:
        return literal_of(number.token, self.source, number.negative)

    def whole(self, number: Number) -> int:
        value = self.literal_node(number).value
        if type(value) is not int:
            self.fail("expected a whole number", number.start, number.end)
        return value

    # -- dtypes

    def named_dtype(self, children: list[Token]) -> DType:
        (token,) = children
        found = SCALAR_DTYPES.get(token.text)
        if found is None:
            words = {"q": "write q<code, ...>", "zq": "write zq<17>, with the modulus"}
            hint = words.get(token.text) or near(token.text, SCALARS)
            hint = hint or f"the dtypes are {', '.join(SCALARS)}, zq<17>, q<i4>, tuples"
            self.fail_at(token, f"unknown dtype {token.text}", hint)
        return found

    def modular(self, children: list[Token]) -> Modular:
        (token,) = children
        try:
            modulus = int(token.text.partition("<")[2][:-1])
        except ValueError:
            modulus = 0
        if not 2 <= modulus < 2**63:
            self.fail_at(token, "the modulus of zq lies between 2 and 2^63 - 1")
        return Modular(modulus)

    def tuple_dtype(self, children: list[DType]) -> Tuple:
        return Tuple(tuple(children))

    def code(self, children: list[Any]) -> tuple[Token, tuple[Literal, ...]]:
        return children[0], tuple(self.literal_node(x) for x in children[1:])

    def codes(self, children: list[Any]) -> dict[str, Any]:
        token = children[0][0]
        if token.text == "select" and len(children) == 1:
            return {"selector": ()}
        table: tuple[Literal, ...] = ()
        for token, values in children:
            if not _CODE.fullmatch(token.text):
                self.fail_at(
                    token, f"{token.text} is no code",
                    "codes are integers (i4, u3), floats (e4m3) and table(0.0, 1.0, ...)",
                )  # fmt: skip
            if token.text == "table":
                table += values
            elif values:
                self.fail_at(token, f"{token.text} has no values; table(...) has")
        return {"codes": tuple(token.text for token, _ in children), "table": table}

    def scale(self, children: list[Token]) -> dict[str, Any]:
        role, dtype, *block = children
        if role.text not in ("scale", "offset"):
            hint = "write scale=f16@1x32, offset=i8 or select@1x32"
            self.fail_at(role, f"{role.text} is no part of a quantized dtype", hint)
        scalar = self.named_dtype([dtype])
        assert isinstance(scalar, Scalar)
        return {role.text: Scale(scalar, self.block_of(block[0].text[1:]) if block else ())}

    def selector(self, children: list[Token]) -> dict[str, Any]:
        """`select@1x32`; `select=1x32` reads the same."""
        token, block = children
        if token.text != "select":
            self.fail_at(token, f"only select has a block here, {token.text} has not")
        return {"selector": self.block_of(block.text.removeprefix("@"))}

    def block_of(self, text: str) -> tuple[int, ...]:
        """The extents of `1x32`; `*` stands for a whole rank and is kept as 0."""
        return tuple(0 if part == "*" else int(part) for part in text.split("x"))

    def quantized(self, children: list[Any]) -> Quantized:
        name, *parts = children
        if name.text != "q":
            hint = "the parametric dtypes are zq<17> and q<i4, scale=f16>"
            self.fail_at(name, f"unknown dtype {name.text}<...>", hint)
        codes: tuple[str, ...] = ()
        fields: dict[str, Any] = {}
        scales: list[Scale] = []
        for part in parts:
            if "scale" in part:
                scales.append(part["scale"])
            elif fields.keys() & part.keys():
                self.fail_at(name, *_given_twice(part))
            else:
                fields.update(part)
        codes = fields.get("codes", ())
        if not codes:
            self.fail_at(name, "a quantized dtype names its code first", "for example q<i4, ...>")
        return Quantized(
            codes, fields.get("table", ()), tuple(scales), fields.get("offset"),
            fields.get("selector"),
        )  # fmt: skip

    # -- tensor types

    def rank(self, children: list[Any]) -> Rank:
        return Rank(children[0].text, children[1])

    def ranks(self, children: list[Rank]) -> list[Rank]:
        return children

    def level_parameters(self, children: list[Token]) -> list[int]:
        if children[0].type == "DIMENSIONS":
            return [int(part) for part in children[0].text.split("x")]
        return [self.whole(Number(token, False, token.start)) for token in children]

    def level(self, children: list[Any]) -> tuple[Token, tuple[int, ...]]:
        return children[0], tuple(children[1]) if len(children) == 2 else ()

    def level_list(self, children: list[Any]) -> list[tuple[Token, tuple[int, ...]]]:
        return children

    def attribute(self, children: list[Any]) -> tuple[Token, Number | None]:
        return children[0], children[1] if len(children) == 2 else None

    def tensor_type(self, children: list[Any]) -> TensorType:
        dtype, ranks, levels, *attributes = children
        fill: Literal | None = None
        encrypted = False
        for token, number in attributes:
            if token.text == "fill" and number is not None and fill is None:
                fill = self.literal_node(number)
            elif token.text == "enc" and number is None and not encrypted:
                encrypted = True
            else:
                hint = near(token.text, ("fill", "enc"))
                self.fail_at(
                    token, f"unexpected {token.text} behind a type",
                    hint or "a type may end with fill and a number, and with enc",
                )  # fmt: skip
        format_ = self.levels(levels, len(ranks))
        return TensorType(dtype, tuple(ranks), format_, fill, encrypted)

    def levels(self, levels: list[tuple[Token, tuple[int, ...]]], rank: int) -> tuple[Level, ...]:
        """The level list, shorthands spelled out for a tensor of `rank` ranks."""
        if len(levels) == 1 and levels[0][0].text in (*SHORTHANDS, "csc"):
            return self.shorthand(*levels[0], rank)
        for token, _ in levels:
            if token.text in (*SHORTHANDS, "csc"):
                self.fail_at(token, f"{token.text} stands for a whole format, not for one level")
            if token.text not in LEVEL_KINDS:
                hint = near(token.text, (*LEVEL_KINDS, *SHORTHANDS))
                hint = hint or f"the levels are {', '.join(LEVEL_KINDS)}"
                self.fail_at(token, f"unknown level {token.text}", hint)
        return tuple(Level(token.text, parameters) for token, parameters in levels)

    def shorthand(self, token: Token, parameters: tuple[int, ...], rank: int) -> tuple[Level, ...]:
        word = token.text
        if word == "csc":
            self.fail_at(
                token, "csc stores the second rank first, and a format keeps the order of ranks",
                "declare the ranks in the other order, with (csr)",
            )  # fmt: skip
        if (word == "bcsr") != (len(parameters) == 2):
            message = "bcsr is written bcsr<4x1>" if word == "bcsr" else f"{word} has no parameters"
            self.fail_at(token, message)
        if rank != 2 and word in ("csr", "dcsr", "bcsr"):
            self.fail_at(token, f"{word} is a format of two ranks, the type has {rank}")
        if rank < 1:
            self.fail_at(token, f"{word} is a format of one rank or more, the type has none")
        return SHORTHANDS[word](rank, parameters)

    # -- shared by all rules

    def names(self, children: list[Token]) -> tuple[str, ...]:
        return tuple(token.text for token in children)


def _given_twice(part: dict[str, Any]) -> tuple[str, str | None]:
    if "codes" in part:
        message = "the code of this quantized dtype is given twice"
        return message, "codes to choose from are written i4|e2m1"
    return f"the {next(iter(part))} of this quantized dtype is given twice", None
