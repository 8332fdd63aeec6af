"""Options of passes as text: `fuse{max_ops=8}` read with carets in errors, checked and spelled.

pipeline := [pass ("," pass)*]
pass     := name ["{" [option ("," option)*] "}"]
option   := name "=" (number | word | "quoted text")
"""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from einloom.ir.errors import Location, PassError, Source
from einloom.ir.record import record
from einloom.passes.base import Pass

Value = bool | int | float | str | None

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<number>[+-]?(?:\d+\.\d*(?:[eE][+-]?\d+)?|\.\d+|\d+[eE][+-]?\d+|\d+)(?![\w.]))
    | (?P<word>[A-Za-z_][\w.+/-]*)
    | (?P<quoted>"(?:[^"\\]|\\.)*")
    | (?P<sign>[{},=])""",
    re.VERBOSE | re.ASCII,
)


@record
class Token:
    """A piece of a pipeline's text; `kind` is number, word, quoted, sign or end."""

    kind: str
    text: str
    location: Location


def parse_passes(text: str, known: Sequence[type[Pass]]) -> tuple[Pass, ...]:
    """The passes that a pipeline's text names. Raises PassError with a caret."""
    reader = _Reader(text, known)
    passes: list[Pass] = []
    if reader.here.kind == "end":
        return ()
    while True:
        passes.append(reader.one_pass())
        if reader.here.kind == "end":
            return tuple(passes)
        reader.expect(",", "a comma between passes")


class _Reader:
    """Reads tokens from the left, one ahead."""

    def __init__(self, text: str, known: Sequence[type[Pass]]) -> None:
        self.source = Source("<pipeline>", text)
        self.known = {cls.name: cls for cls in known}
        self.tokens = self._tokens(text)
        self.here = next(self.tokens)

    def _tokens(self, text: str) -> Iterator[Token]:
        position = 0
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                where = Location(self.source, position, position + 1)
                raise PassError(
                    f"unexpected character {text[position]!r} in a pipeline",
                    location=where,
                    suggestion="write name{option=value}, name, ...; other text goes in quotes",
                )
            if found.lastgroup != "space":
                where = Location(self.source, found.start(), found.end())
                yield Token(found.lastgroup or "", found.group(), where)
            position = found.end()
        while True:
            yield Token("end", "the end", Location(self.source, len(text), len(text) + 1))

    def take(self) -> Token:
        token, self.here = self.here, next(self.tokens)
        return token

    def expect(self, sign: str, wanted: str) -> None:
        if self.here.text != sign or self.here.kind != "sign":
            raise PassError(
                f"expected {wanted}, found {self.here.text}", location=self.here.location
            )
        self.take()

    def word(self, wanted: str) -> Token:
        if self.here.kind != "word":
            raise PassError(
                f"expected {wanted}, found {self.here.text}", location=self.here.location
            )
        return self.take()

    def one_pass(self) -> Pass:
        name = self.word("the name of a pass")
        if name.text not in self.known:
            raise unknown_pass(name.text, list(self.known), name.location)
        cls = self.known[name.text]
        given: dict[str, Value] = {}
        if self.here.text == "{" and self.here.kind == "sign":
            self.take()
            while self.here.text != "}":
                self.option(cls, given)
                if self.here.text != "}":
                    self.expect(",", "a comma or } after an option")
            self.take()
        try:
            return cls(**given)
        except PassError as error:
            raise PassError(
                error.message,
                location=error.diagnostics[0].location or name.location,
                suggestion=error.diagnostics[0].suggestion,
            ) from None

    def option(self, cls: type[Pass], given: dict[str, Value]) -> None:
        key = self.word("the name of an option")
        legal = option_types(cls)
        if key.text not in legal:
            raise unknown_option(cls, key.text, key.location)
        if key.text in given:
            raise PassError(
                f"option {key.text} of {cls.name} is given twice", location=key.location
            )
        self.expect("=", f"= and a value for {key.text}")
        token = self.take()
        if token.kind not in ("number", "word", "quoted"):
            raise PassError(
                f"expected a value for {key.text}, found {token.text}", location=token.location
            )
        value = _value_of(token)
        # A bare word or number is a text where a text is wanted: `mode=none`, `isa=1`.
        readings = [value] if token.kind == "quoted" else [value, token.text]
        faults = [complaint(cls, key.text, reading) for reading in readings]
        fitting = [r for r, fault in zip(readings, faults, strict=True) if fault is None]
        if faults[0] is not None and not fitting:
            message, hint = faults[0]
            raise PassError(message, location=token.location, suggestion=hint)
        value = fitting[0]
        given[key.text] = value


def _value_of(token: Token) -> Value:
    if token.kind == "quoted":
        try:
            return str(json.loads(token.text))
        except ValueError:
            raise PassError("unreadable quoted text", location=token.location) from None
    if token.kind == "number":
        if re.fullmatch(r"[+-]?\d+", token.text):
            if len(token.text) > 100:
                raise PassError("a number of more than 100 digits", location=token.location)
            return int(token.text)
        return float(token.text)
    return {"true": True, "false": False, "none": None}.get(token.text, token.text)


def unknown_pass(name: str, known: Sequence[str], where: Location | None = None) -> PassError:
    """The error for a name that is no pass, with the nearest one or the list of all."""
    near = get_close_matches(name, known, 1)
    return PassError(
        f"unknown pass {name!r}",
        location=where,
        suggestion=f"did you mean {near[0]}?" if near else f"the passes are: {', '.join(known)}",
    )


def unknown_option(cls: type[Pass], name: str, where: Location | None = None) -> PassError:
    """The error for an option that a pass does not have."""
    legal = list(option_types(cls))
    near = get_close_matches(name, legal, 1)
    options = f"its options are: {', '.join(legal)}" if legal else "it has no options"
    return PassError(
        f"{cls.name} has no option {name!r}",
        location=where,
        suggestion=f"did you mean {near[0]}? {options}" if near else options,
    )


# ---- the types of options -----------------------------------------------------------------


def option_types(cls: type[Pass]) -> dict[str, Any]:
    """The options of a pass and their declared types, in order."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def check(instance: Pass) -> None:
    """Refuse an option of the wrong type or outside its choices. Raises PassError."""
    for name in option_types(type(instance)):
        fault = complaint(type(instance), name, getattr(instance, name))
        if fault is not None:
            raise PassError(fault[0], suggestion=fault[1])


def complaint(cls: type[Pass], name: str, value: object) -> tuple[str, str | None] | None:
    """What is wrong with the value of an option, and what would be right; None: nothing."""
    hint = option_types(cls)[name]
    if any(_fits(value, part) for part in _alternatives(hint)):
        return None
    choices = [
        c for part in _alternatives(hint) if get_origin(part) is Literal for c in get_args(part)
    ]
    near = get_close_matches(str(value), [str(c) for c in choices], 1)
    return (
        f"option {name} of {cls.name} is {_spelled_value(value)}; it takes {described(hint)}",
        f"did you mean {near[0]}?" if near else None,
    )


def described(hint: Any) -> str:
    """The values that an option of this type takes, in words."""
    words = []
    for part in _alternatives(hint):
        if get_origin(part) is Literal:
            words += [str(choice) for choice in get_args(part)]
        else:
            words.append(_WORDS[part])
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    types.NoneType: "none",
}


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(hint))
    if hint is float:
        return type(value) in (int, float) and not math.isnan(float(value))  # type: ignore[arg-type]
    return type(value) is hint


# ---- spelling -----------------------------------------------------------------------------


def spelled(instance: Pass) -> str:
    """The text of a pass with the options that differ from their defaults; parses back."""
    parts = []
    for field in fields(instance):
        value = getattr(instance, field.name)
        if not _is_default(field, value):
            parts.append(f"{field.name}={_spelled_value(value)}")
    return f"{instance.name}{{{', '.join(parts)}}}" if parts else instance.name


def _is_default(field: Field[Any], value: object) -> bool:
    if field.default is MISSING:
        return False
    return type(field.default) is type(value) and field.default == value


def _spelled_value(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        found = _TOKEN.fullmatch(value)
        bare = found is not None and found.lastgroup == "word"
        return (
            value
            if bare and value not in ("true", "false", "none")
            else json.dumps(value, ensure_ascii=False)
        )
    return repr(value)
