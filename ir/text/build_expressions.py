"""Grammar callbacks for expressions: what a bare name is, accesses, operations, casts."""

from __future__ import annotations

import re
from typing import Any

from einloom.ir.errors import Location, Source
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
from einloom.ir.node import Node, rebuild
from einloom.ir.ops import MONOIDS, OPS, apply
from einloom.ir.text.build_types import SCALAR_DTYPES, TypeBuilder, near
from einloom.ir.text.lexer import EXTENT, INDEX, SCALAR, Token
from einloom.ir.text.operators import Assembler, literal_of
from einloom.ir.text.spelling import SPECIAL_CALLS, VIEWS
from einloom.ir.types import DType

_NAMES = re.compile(r"\w+(\s*,\s*\w+)*")


class ExpressionBuilder(TypeBuilder):
    """Turns the pieces of an expression into nodes.

    `symbols`: the program's extents so far. `functions`: definitions so far, with the number
    of their parameters. `locals`: the parameters of the definition being read, or None.
    `tensors`: names of inputs and targets so far.
    `seen`: index variables met since the last statement boundary, with their first offset.
    `bare`: names read as rank-0 tensors without brackets since then.
    """

    def begin(self, source: Source) -> None:
        """Forget the last text."""
        self.source = source
        self.symbols: set[str] = set()
        self.functions: dict[str, int] = {}
        self.locals: frozenset[str] | None = None
        self.tensors: set[str] = set()
        self.seen: dict[str, int] = {}
        self.bare: set[str] = set()
        self.shared: dict[tuple[type[Expression], str], Expression] = {}
        self.assembler = Assembler(source, self.atom)

    # -- names and numbers

    def atom(self, token: Token) -> Expression:
        """What a bare name or a number stands for in its position."""
        text = token.text
        if token.type != "NAME":
            if token.type == "INTEGER" and len(text) > 2:
                # one that a narrow dtype may not hold knows where it stands
                location = Location(self.source, token.start, token.end)
                return literal_of(token, self.source).at(location)
            # one node serves all equal numbers
            literal = self.shared.get((Literal, text))
            if literal is None:
                literal = self.shared[Literal, text] = literal_of(token, self.source)
            return literal
        if token.position == EXTENT or (text in self.symbols and not self.is_local(text)):
            return self.share(Symbol, text)
        if token.position == INDEX:
            if self.seen.get(text, token.start) >= token.start:
                self.seen[text] = token.start
            return self.share(Index, text)
        location = Location(self.source, token.start, token.end)
        if self.locals is not None:
            if text not in self.locals:
                hint = near(text, self.locals) or "a definition reads its parameters only"
                self.fail_at(token, f"{text} is no parameter of this definition", hint)
            return Local(text, location=location)
        self.bare.add(text)
        return Access(text, location=location)

    def is_local(self, name: str) -> bool:
        return self.locals is not None and name in self.locals

    def share(self, kind: type[Symbol] | type[Index], name: str) -> Expression:
        """One node for all uses of a name: they are frequent and carry no location."""
        found = self.shared.get((kind, name))
        if found is None:
            found = self.shared[kind, name] = kind(name)
        return found

    def expression(self, children: list[Any]) -> Expression:
        if len(children) > 1:
            return self.assembler.assemble(children)
        (child,) = children
        if type(child) is not Token:
            return child  # type: ignore[no-any-return]
        if child.position == SCALAR:
            return self.located(self.atom(child), child.start, child.end)
        return self.atom(child)

    def located(self, expression: Expression, start: int, end: int) -> Expression:
        """The expression with these offsets, unless it knows its own."""
        if expression.location is not None:
            return expression
        return expression.at(Location(self.source, start, end))

    def resolved(self, child: Token | Expression) -> Expression:
        if isinstance(child, Token):
            return self.located(self.atom(child), child.start, child.end)
        return child

    # -- accesses

    def indices(self, children: list[Expression]) -> tuple[Expression, ...]:
        return tuple(children)

    def arguments(self, children: list[Expression]) -> tuple[Expression, ...]:
        return tuple(children)

    def padding(self, children: list[Any]) -> Literal:
        return self.literal_node(children[0])

    def access(self, children: list[Any]) -> Access:
        name = children[0]
        location = Location(self.source, name.start, children[-1].end)
        padding = children[1] if len(children) == 5 else None
        return Access(name.text, children[-2], padding, location=location)

    def view(self, children: list[Any]) -> Access:
        name, _, arguments, _, *rest = children
        if name.text not in VIEWS or self.is_quoted(name):
            hint = near(name.text, VIEWS) or "only tensors, final(...), codes(...) and scales(...)"
            if name.text in MONOIDS:
                hint = f"a reducer is written {name.text}[i] body"
            self.fail(f"{name.text}(...) cannot be indexed", name.start, rest[-1].end, hint)
        padding = rest[0] if len(rest) == 4 else None
        tensor = self.viewed(name, arguments)
        location = Location(self.source, name.start, rest[-1].end)
        return Access(tensor, rest[-2], padding, name.text, location=location)

    def viewed(self, name: Token, arguments: tuple[Expression, ...]) -> str:
        """The tensor that `final(X)` and its like are about."""
        if len(arguments) == 1:
            (value,) = arguments
            if isinstance(value, Symbol):
                return value.name
            if isinstance(value, Access) and not value.indices and not value.view:
                return value.tensor
        self.fail_at(name, f"{name.text} takes the name of a tensor", f"write {name.text}(X)[i, j]")

    # -- applications

    def is_quoted(self, name: Token) -> bool:
        return self.source.text[name.start] == "`"

    def application(self, children: list[Any]) -> Expression:
        name, _, arguments, closing = children
        location = Location(self.source, name.start, closing.end)
        word = name.text
        if word in self.functions and (word not in SPECIAL_CALLS or self.is_quoted(name)):
            self.arity(name, self.functions[word], len(arguments))
            return Apply(word, arguments, location=location)
        if self.is_quoted(name):
            return self.undefined(name, arguments, location)
        if word in OPS:
            return self.operation(name, arguments, location)
        if word in SCALAR_DTYPES:
            self.arity(name, 1, len(arguments))
            return Cast(SCALAR_DTYPES[word], arguments[0], location=location)
        if word == "iota":
            self.arity(name, 1, len(arguments))
            return self.located(arguments[0], name.start, closing.end)
        if word in VIEWS:
            return Access(self.viewed(name, arguments), view=word, location=location)
        if word == "complex":
            return self.complex(name, arguments, location)
        return self.undefined(name, arguments, location)

    def operation(
        self, name: Token, arguments: tuple[Expression, ...], location: Location
    ) -> Expression:
        word, count = name.text, len(arguments)
        arity = OPS[word].arity
        if arity is not None:
            self.arity(name, arity, count)
        elif count < 2:
            inside = self.source.text[name.end + 1 : location.end - 1].strip()
            listed = inside if _NAMES.fullmatch(inside) else "i"
            hint = f"a reducer takes square brackets: {word}[{listed}]" if word in MONOIDS else None
            self.fail_at(name, f"{word} takes two or more arguments, {count} given", hint)
        if word == "ceil" and name.position != SCALAR:
            (value,) = arguments
            if isinstance(value, Apply) and value.op == "div":
                return Apply("ceildiv", value.arguments, location=location)
        return apply(word, *arguments).at(location)

    def arity(self, name: Token, wanted: int, given: int) -> None:
        if wanted != given:
            plural = "" if wanted == 1 else "s"
            self.fail_at(name, f"{name.text} takes {wanted} argument{plural}, {given} given")

    def complex(
        self, name: Token, arguments: tuple[Expression, ...], location: Location
    ) -> Literal:
        self.arity(name, 2, len(arguments))
        parts: list[float] = []
        for argument in arguments:
            if not isinstance(argument, Literal) or isinstance(argument.value, complex | bool):
                self.fail_at(name, "complex takes two numbers", "for values write a + b * 1.0j")
            try:
                parts.append(float(argument.value))
            except OverflowError:
                self.fail_at(name, "this number is larger than any float")
        return Literal(complex(*parts), location=location)

    def undefined(
        self, name: Token, arguments: tuple[Expression, ...], location: Location
    ) -> Apply:
        """The application of a name that nothing defines so far.

        Inside a definition it may be a later one or the definition itself: the verifier, who
        knows them all, tells those apart.
        """
        word = name.text
        if word in MONOIDS:
            self.fail_at(name, f"{word} is a reducer, not an operation", f"write {word}[i] body")
        if self.locals is None:
            known = (*OPS, *self.functions, *SPECIAL_CALLS)
            hint = near(word, known) or f"define it before the program: fn {word}(x) = ..."
            if word in self.tensors:
                hint = f"a tensor takes square brackets: {word}[i, j]"
            self.fail_at(name, f"unknown operation {word}", hint)
        return Apply(word, arguments, location=location)

    def modular_cast(self, children: list[Any]) -> Cast:
        name, _, value, closing = children
        location = Location(self.source, name.start, closing.end)
        return Cast(self.modular([name]), value, location=location)

    def cast(self, children: list[Any]) -> Cast:
        word, _, dtype, _, _, value, closing = children
        assert isinstance(dtype, DType)
        return Cast(dtype, value, location=Location(self.source, word.start, closing.end))

    def parenthesised(self, children: list[Any]) -> Expression:
        opening, value, closing = children
        if value.location is None or isinstance(value, Apply):
            return value.at(Location(self.source, opening.start, closing.end))  # type: ignore[no-any-return]
        return value  # type: ignore[no-any-return]

    def pack(self, children: list[Any]) -> Pack:
        items = tuple(child for child in children if not isinstance(child, Token))
        return Pack(items, location=Location(self.source, children[0].start, children[-1].end))

    def projection(self, children: list[Any]) -> Project:
        first, token = children
        if isinstance(first, Token) and first.type != "NAME":
            self.fail_at(token, "a number has no components")
        value = self.resolved(first)
        start = value.location.start if value.location else token.start
        return Project(value, int(token.text[1:]), location=Location(self.source, start, token.end))

    # -- bare names that turn out to be indices

    def with_indices(self, condition: Expression, names: set[str]) -> Expression:
        """A condition in which bare `i` reads the index `i` of the statement around it."""
        wanted = names & self.bare
        if not wanted:
            return condition

        def change(current: Node) -> Node:
            if (
                isinstance(current, Access)
                and current.tensor in wanted
                and not (current.indices or current.view or current.padding)
                and current.location is not None
                and self.source.text[current.location.end - 1] != "]"
            ):
                return Index(current.tensor, location=current.location)
            return current

        return rebuild(condition, change)
