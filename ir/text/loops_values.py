"""Grammar callbacks for the values of the loops level: symbols, SSA values, loads, lanes."""

from __future__ import annotations

from typing import Any

from einloom.ir.errors import Location, Source
from einloom.ir.expressions import Apply, Cast, Expression, Local, Symbol
from einloom.ir.loops import Across, Dot, HashLookup, Load, Search, Splat, Vector
from einloom.ir.ops import MONOIDS, OPS
from einloom.ir.text.build_expressions import ExpressionBuilder
from einloom.ir.text.build_types import SCALAR_DTYPES, near
from einloom.ir.text.lexer import Token
from einloom.ir.text.operators import Assembler
from einloom.ir.types import DType

CALLS = ("search", "complex")
"""What is called like an operation and is none, besides dtypes."""


class ValueBuilder(ExpressionBuilder):
    """Turns the pieces of an expression of a kernel, a storage or a launch into nodes.

    `scalars`: the scalars of the kernel being read, or None outside kernels, where every name
    is an extent of the program. Operations stay nested as they are written, because floats
    are folded in that order.
    """

    def begin(self, source: Source) -> None:
        super().begin(source)
        self.scalars: frozenset[str] | None = None
        self.assembler = Assembler(source, self.atom, nested=True)

    def span(self, first: Token, last: Token) -> Location:
        return Location(self.source, first.start, last.end)

    # -- names

    def atom(self, token: Token) -> Expression:
        """What a bare name or a number stands for."""
        if token.type != "NAME":
            return super().atom(token)
        kind = Symbol if self.scalars is None or token.text in self.scalars else Local
        found = self.shared.get((kind, token.text))
        if found is None:
            found = self.shared[kind, token.text] = kind(token.text)
        return found.at(self.span(token, token))

    # -- loads

    def load(self, children: list[Any]) -> Load:
        name, *lanes, _, indices, closing = children
        count = self.lane_count(lanes[0]) if lanes else 1
        return Load(name.text, indices, count, location=self.span(name, closing))

    def lane_count(self, token: Token) -> int:
        return int(token.text[1:-1])

    # -- applications

    def application(self, children: list[Any]) -> Expression:
        name, _, arguments, closing = children
        location = self.span(name, closing)
        if not self.is_quoted(name):
            if name.text in OPS:
                return self.operation(name, arguments, location)
            if name.text == "search":
                return self.search(name, arguments, location)
            if name.text == "complex":
                return self.complex(name, arguments, location)
            dtype = self.dtype_named(name.text)
            if dtype is not None:
                self.arity(name, 1, len(arguments))
                return Cast(dtype, arguments[0], location=location)
        hint = near(name.text, (*OPS, *CALLS, *SCALAR_DTYPES))
        if name.text == "splat":
            hint = "splat names its lanes: splat<16>(x)"
        elif name.text == "dot":
            hint = "dot names its terms: dot<4>(sums, left, right)"
        hint = hint or f"a buffer takes square brackets: {name.text}[i, j]"
        self.fail_at(name, f"unknown operation {name.text}", hint)

    def operation(
        self, name: Token, arguments: tuple[Expression, ...], location: Location
    ) -> Expression:
        arity, count = OPS[name.text].arity, len(arguments)
        if arity is not None:
            self.arity(name, arity, count)
        elif count < 2:
            self.fail_at(name, f"{name.text} takes two or more arguments, {count} given")
        first = arguments[0]
        extent = self.scalars is None and name.text == "ceil"
        if extent and isinstance(first, Apply) and first.op == "div":
            return Apply("ceildiv", first.arguments, location=location)
        return Apply(name.text, arguments, location=location)

    def search(self, name: Token, arguments: tuple[Expression, ...], location: Location) -> Search:
        self.arity(name, 4, len(arguments))
        buffer, lower, upper, key = arguments
        return Search(self.buffer_name(buffer, name), lower, upper, key, location=location)

    def hash_lookup(self, children: list[Any]) -> HashLookup:
        first, name, _, arguments, closing = children
        if name.text != "lookup":
            self.fail_at(name, f"unexpected {name.text}", "write hash lookup(A, key, default)")
        self.arity(name, 3, len(arguments))
        buffer, key, default = arguments
        location = self.span(first, closing)
        return HashLookup(self.buffer_name(buffer, name), key, default, location=location)

    def buffer_name(self, value: Expression, owner: Token) -> str:
        if isinstance(value, Local | Symbol):
            return value.name
        self.fail_at(owner, f"{owner.text} begins with the name of a buffer")

    # -- lanes

    def over_lanes(self, children: list[Any]) -> Splat | Dot:
        name, lanes, _, arguments, closing = children
        count, location = self.lane_count(lanes), self.span(name, closing)
        if name.text == "dot" and not self.is_quoted(name):
            self.arity(name, 3, len(arguments))
            sums, left, right = arguments
            return Dot(count, sums, left, right, location=location)
        if name.text != "splat" or self.is_quoted(name):
            hint = f"write splat<{count}>(x), or x < y and y > z for two tests"
            self.fail_at(name, f"{name.text} takes no lanes", hint)
        self.arity(name, 1, len(arguments))
        return Splat(arguments[0], count, location=location)

    def across(self, children: list[Any]) -> Across:
        word, op, _, value, closing = children
        return Across(self.op_name(op), value, location=self.span(word, closing))

    def op_name(self, token: Token) -> str:
        """The operation that a word names where it is not applied."""
        if token.text not in OPS:
            named = [op.name for op in OPS.values() if op.symbol == token.text]
            named += [MONOIDS[token.text].op] if token.text in MONOIDS else []
            hint = f"write {named[0]}" if named else near(token.text, OPS)
            self.fail_at(token, f"unknown operation {token.text}", hint)
        return token.text

    # -- dtypes

    def named_dtype(self, children: list[Token]) -> DType:
        found = self.dtype_named(children[0].text)
        return super().named_dtype(children) if found is None else found

    def dtype_named(self, text: str) -> DType | None:
        """`f32`, or `f32x16` with its lanes; None where the text is neither."""
        name, *lanes = text.split("x")
        if name not in SCALAR_DTYPES or not all(map(is_count, lanes)):
            return None
        return with_lanes(SCALAR_DTYPES[name], lanes)

    def modular_vector(self, children: list[Token]) -> DType:
        modulus, lanes = children
        if lanes.text[0] != "x" or not is_count(lanes.text[1:]):
            self.fail_at(lanes, f"unexpected {lanes.text}", "lanes are written zq<17>x8")
        return with_lanes(self.modular([modulus]), [lanes.text[1:]])


def is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def with_lanes(dtype: DType, lanes: list[str]) -> DType:
    for part in lanes:
        dtype = Vector(dtype, int(part))
    return dtype
