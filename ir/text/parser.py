"""Text to modules: the way in for programs, expressions and types."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any

from einloom.ir.errors import EinloomError, ParseError, Source
from einloom.ir.expressions import Expression
from einloom.ir.program import Definition, Function, Module
from einloom.ir.text.complaints import Slip, misplaced, slip
from einloom.ir.text.lexer import EXTENT, INDEX, SCALAR, Lexer
from einloom.ir.text.machine import (
    Machine,
    Misplaced,
    borrowed,
    idle_machines,
    program_machine,
)
from einloom.ir.types import TensorType

POSITIONS = {"scalar": SCALAR, "index": INDEX, "extent": EXTENT}


def parse(text: str | bytes, name: str = "<text>") -> Module:
    """The module that a text describes.

    `name` is what errors and locations call the text. Bytes are read as UTF-8. Raises
    ParseError, with a caret under the place, for malformed text. Whether tensors, extents
    and dtypes fit together is the verifier's business.
    """
    module = _run("module", Source(name, decoded(text, name)), SCALAR)
    assert isinstance(module, Module)
    return module


def load(path: str | PathLike[str]) -> Module:
    """The module that a UTF-8 file describes; EinloomError when the file cannot be read."""
    name = fspath(path)
    try:
        with open(name, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EinloomError(f"cannot read {name}: {reason}") from None
    return parse(data, name)


def parse_expression(
    text: str | bytes,
    name: str = "<expression>",
    *,
    symbols: Iterable[str] = (),
    parameters: Iterable[str] | None = None,
    functions: Iterable[Function] = (),
    position: str = "scalar",
) -> Expression:
    """One expression.

    `symbols`: names that are extents. `parameters`: names that are parameters of a
    definition (None: the expression stands outside definitions). `functions`: definitions it
    may apply. `position`: "scalar", "index" (a bare name is an index) or "extent" (a bare
    name is a symbol). Raises ParseError.
    """
    result = _run(
        "expression", Source(name, decoded(text, name)), POSITIONS[position], symbols, parameters,
        functions,
    )  # fmt: skip
    assert isinstance(result, Expression)
    return result


def parse_type(text: str | bytes, name: str = "<type>") -> TensorType:
    """One tensor type, `f32[i=N, j=8] (dense, compressed)`; `f32` alone has rank 0."""
    result = _run("tensor_type", Source(name, decoded(text, name)), SCALAR)
    assert isinstance(result, TensorType)
    return result


def parse_definitions(text: str | bytes, name: str = "<definitions>") -> tuple[Definition, ...]:
    """The `fn` and `monoid` definitions of a text that holds nothing else. Raises ParseError."""
    result = _run("definitions", Source(name, decoded(text, name)), SCALAR)
    assert isinstance(result, tuple)
    return result


def decoded(text: str | bytes, name: str) -> str:
    """Bytes as UTF-8 text; ParseError names the first byte that is none."""
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ParseError(
            f"{name} is not UTF-8: byte 0x{text[error.start]:02x} at offset {error.start}, "
            f"line {line}",
            suggestion="save the file as UTF-8",
        ) from None


def _run(
    start: str,
    source: Source,
    position: int,
    symbols: Iterable[str] = (),
    parameters: Iterable[str] | None = None,
    functions: Iterable[Function] = (),
) -> Any:
    with borrowed(idle_machines(), program_machine) as machine:
        builder = machine.builder
        builder.begin(source)
        builder.symbols.update(symbols)
        builder.locals = None if parameters is None else frozenset(parameters)
        builder.functions.update((f.name, len(f.parameters)) for f in functions)
        return run(machine, start, Lexer(source, position), slip)


def run(machine: Machine[Any], start: str, lexer: Lexer, slip: Slip) -> Any:
    """The value of a start rule for the tokens of a text.

    `slip` guesses what was meant where a token does not fit; that raises ParseError.
    """
    tokens = iter(lexer)
    try:
        with collector_paused():
            return machine.run(start, tokens)
    except Misplaced as error:
        token = error.token
        text = lexer.source.text
        if token is not None and token.type == "_SEPARATOR" and text[token.start] == "}":
            token = next(tokens, None)  # a block ends a statement: what follows is misplaced
        complaint = misplaced(token, error.accepted, lexer, slip)
    raise complaint


@contextmanager
def collector_paused() -> Iterator[None]:
    """Nodes hold no cycles, and looking for some among millions takes a quarter of the time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
