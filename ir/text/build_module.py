"""Grammar callbacks for what stands around statements: definitions, program, sections."""

from __future__ import annotations

from typing import Any

from einloom.ir.errors import Source
from einloom.ir.expressions import Expression, Literal, Symbol
from einloom.ir.node import postorder
from einloom.ir.ops import MONOIDS, OPS
from einloom.ir.program import (
    Definition,
    Function,
    Input,
    Interleave,
    Layout,
    Mapping,
    Module,
    Monoid,
    Parameter,
    Placement,
    Tile,
)
from einloom.ir.text.build import StatementBuilder
from einloom.ir.text.constants import Number
from einloom.ir.text.lexer import Token
from einloom.ir.text.spelling import SPECIAL_CALLS

Entry = tuple[Token, dict[str, Any]]
"""One line of a definition or section: the word it begins with, and the fields it sets."""


class ModuleBuilder(StatementBuilder):
    """Turns a whole text into a module."""

    def begin(self, source: Source) -> None:
        super().begin(source)
        self.inputs_seen: set[str] = set()
        self.definitions_seen: set[str] = set()

    # -- definitions

    def define(self, name: Token) -> None:
        word = name.text
        special = word in SPECIAL_CALLS and not self.is_quoted(name)
        if word in OPS or word in MONOIDS or special:
            self.fail_at(name, f"{word} is built in", "give the definition another name")
        if word in self.definitions_seen:
            self.fail_at(name, f"{word} is defined twice", "give one of them another name")
        self.definitions_seen.add(word)

    def parameter(self, children: list[Any]) -> tuple[Token, Parameter]:
        name = children[0]
        dtype = children[1] if len(children) == 2 else None
        return name, Parameter(name.text, dtype, location=self.span(name, name))

    def with_locals(self, names: list[Token]) -> None:
        known: set[str] = set()
        for name in names:
            if name.text in known:
                self.fail_at(name, f"the parameter {name.text} appears twice")
            known.add(name.text)
        self.locals = frozenset(known)

    def function_head(self, children: list[Any]) -> tuple[Any, ...]:
        word, name, *parameters = children
        self.define(name)
        self.with_locals([token for token, _ in parameters])
        return word, name, tuple(parameter for _, parameter in parameters)

    def function(self, children: list[Any]) -> Function:
        (word, name, parameters), body = children
        self.end_definition()
        self.functions[name.text] = len(parameters)
        return Function(name.text, parameters, body, location=self.span(word, name))

    def end_definition(self) -> None:
        self.locals = None
        self.seen, self.bare = {}, set()

    def monoid_head(self, children: list[Any]) -> tuple[Any, ...]:
        word, name, dtype = children
        self.define(name)
        if self.is_quoted(name):
            self.fail_at(name, "the name of a monoid stands without backquotes")
        self.locals = frozenset()
        return word, name, dtype

    def identity(self, children: list[Any]) -> Entry:
        return children[0], {"identity": children[1]}

    def combine_head(self, children: list[Token]) -> tuple[Token, str, str]:
        word, left, right = children
        self.with_locals([left, right])
        return word, left.text, right.text

    def combine(self, children: list[Any]) -> Entry:
        (word, left, right), body = children
        self.locals = frozenset()
        return word, {"left": left, "right": right, "combine": body}

    def laws(self, children: list[Token]) -> Entry:
        names = tuple(token.text for token in children[1:])
        location = self.span(children[0], children[-1])
        return children[0], {"laws": names, "laws_location": location}

    def monoid(self, children: list[Any]) -> Monoid:
        (word, name, dtype), *entries = children
        self.end_definition()
        fields = self.merged(entries)
        for field, example in (("identity", "identity 0"), ("combine", "combine(a, b) = a + b")):
            if field not in fields:
                self.fail_at(name, f"the monoid {name.text} has no {field}", f"add: {example}")
        return Monoid(name.text, dtype, **fields, location=self.span(word, name))

    def merged(self, entries: list[Entry], *repeatable: str) -> dict[str, Any]:
        """The fields that the entries set; those named `repeatable` may be set in parts."""
        fields: dict[str, Any] = {}
        for word, entry in entries:
            for field, value in entry.items():
                if field in repeatable:
                    fields[field] = (*fields.get(field, ()), *value)
                elif field in fields:
                    self.fail_at(word, f"{word.text} is given twice")
                else:
                    fields[field] = value
        return fields

    def definitions(self, children: list[Definition]) -> tuple[Definition, ...]:
        return tuple(children)

    # -- program

    def input_name(self, name: Token) -> str:
        if name.text in self.inputs_seen:
            self.fail_at(name, f"the input {name.text} appears twice")
        self.inputs_seen.add(name.text)
        self.tensors.add(name.text)
        return name.text

    def tensor_input(self, children: list[Any]) -> Input:
        name, type_ = children
        for rank in type_.ranks:
            self.symbols.update(symbols_of(rank.extent))
        return Input(self.input_name(name), type_, location=self.span(name, name))

    def extent_input(self, children: list[Token]) -> Input:
        name = children[0]
        self.symbols.add(name.text)
        return Input(self.input_name(name), None, location=self.span(name, name))

    def inputs(self, children: list[Input]) -> tuple[Input, ...]:
        return tuple(children)

    def program(self, children: list[Any]) -> tuple[Any, ...]:
        word, name, inputs, _, outputs, body = children
        return name.text, inputs, outputs, body, self.span(word, name)

    def module(self, children: list[Any]) -> Module:
        definitions = tuple(x for x in children if isinstance(x, Definition))
        mappings = tuple(x for x in children if isinstance(x, Mapping))
        layouts = tuple(x for x in children if isinstance(x, Layout))
        name, inputs, outputs, body, location = children[len(definitions)]
        return Module(
            name, inputs, outputs, body, definitions, mappings, layouts, location=location
        )  # fmt: skip

    # -- sections

    def loops(self, children: list[Token]) -> Entry:
        return children[0], {"loops": self.names(children[1:])}

    def tile(self, children: list[Token]) -> Tile:
        name, size = children
        number = self.whole(Number(size, False, size.start))
        return Tile(name.text, number, location=self.span(name, size))

    def tiles(self, children: list[Any]) -> Entry:
        return children[0], {"tiles": tuple(children[1:])}

    def spatial(self, children: list[Token]) -> Entry:
        return children[0], {"spatial": self.names(children[1:])}

    def place(self, children: list[Any]) -> Entry:
        word, names, _, unit = children
        location = self.span(word, unit)
        placements = tuple(Placement(name, unit.text, location=location) for name in names)
        return word, {"placements": placements}

    def interleave(self, children: list[Any]) -> Entry:
        word, names, scope = children
        node = Interleave(names, scope.text, location=self.span(word, scope))
        return word, {"interleavings": (node,)}

    def mapping(self, children: list[Any]) -> Mapping:
        word, name, *entries = children
        fields = self.merged(entries, "tiles", "placements", "interleavings")
        return Mapping(name.text, **fields, location=self.span(word, name))

    def strides(self, children: list[Any]) -> Entry:
        return children[0], {"strides": tuple(self.whole(x) for x in children[1:])}

    def order(self, children: list[Token]) -> Entry:
        return children[0], {"order": self.names(children[1:])}

    def alias(self, children: list[Token]) -> Entry:
        return children[0], {"alias": children[1].text}

    def donate(self, children: list[Token]) -> Entry:
        return children[0], {"donate": True}

    def layout(self, children: list[Any]) -> Layout:
        word, name, *entries = children
        return Layout(name.text, **self.merged(entries), location=self.span(word, name))


def symbols_of(extent: Expression) -> list[str]:
    """The symbols in an extent, which an input binds."""
    if isinstance(extent, Symbol):
        return [extent.name]
    if isinstance(extent, Literal):
        return []
    return [part.name for part in postorder(extent) if isinstance(part, Symbol)]
