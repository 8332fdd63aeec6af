"""Errors and the source locations they point at."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import field
from functools import cached_property

from einloom.ir.record import record

WINDOW = 100  # columns of source shown around a caret
LONGEST_WORD = 400
"""Characters; a longer word of a message is shown without its middle."""
LONGEST_LINE = 1000
"""Characters; likewise for a line of a message."""
_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


def shortened(text: str) -> str:
    """A message without the middles of its longest words and lines: a name may have megabytes."""
    if len(text) <= LONGEST_WORD:
        return text
    text = _LONG_WORD.sub(lambda found: _without_middle(found.group(), LONGEST_WORD), text)
    return "\n".join(_without_middle(line, LONGEST_LINE) for line in text.split("\n"))


def _without_middle(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    half = (length - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


@record
class Source:
    """A text that somebody wrote: a file, a string passed to `parse`, or an einsum spec."""

    name: str
    text: str = field(repr=False)

    @cached_property
    def line_starts(self) -> list[int]:
        starts, position = [0], self.text.find("\n")
        while position >= 0:
            starts.append(position + 1)
            position = self.text.find("\n", position + 1)
        return starts

    def line_and_column(self, offset: int) -> tuple[int, int]:
        """Line and column of a character offset, both counted from 1."""
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def line_text(self, line: int) -> str:
        start = self.line_starts[line - 1]
        end = self.text.find("\n", start)
        return self.text[start:] if end < 0 else self.text[start:end]


@record
class Location:
    """Characters `[start, end)` of a source."""

    source: Source
    start: int
    end: int

    def __str__(self) -> str:
        line, column = self.source.line_and_column(self.start)
        return f"{self.source.name}:{line}:{column}"

    def snippet(self) -> str:
        """The source line with carets under the location, cut to a window when it is long."""
        line, column = self.source.line_and_column(self.start)
        text = self.source.line_text(line)
        width = max(1, min(self.end - self.start, len(text) - column + 1))
        begin = max(0, column - 1 - WINDOW // 2) if len(text) > WINDOW else 0
        shown = text[begin : begin + WINDOW]
        left = "..." if begin else ""
        right = "..." if begin + WINDOW < len(text) else ""
        offset = column - 1 - begin
        carets = "^" * max(1, min(width, len(shown) - offset))
        padding = "".join("\t" if c == "\t" else " " for c in shown[:offset])
        shown = "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in shown)
        return f"  {left}{shown}{right}\n  {' ' * len(left)}{padding}{carets}"


@record
class Diagnostic:
    """One complaint: what is wrong, where, and what would be right."""

    message: str
    location: Location | None = None
    suggestion: str | None = None

    def __str__(self) -> str:
        lines = [self.message]
        if self.location is not None:
            lines = [f"{self.location}: {self.message}", self.location.snippet()]
        if self.suggestion:
            lines.append(f"  hint: {self.suggestion}")
        return shortened("\n".join(lines))


class EinloomError(Exception):
    """Base of every error that Einloom raises for its user.

    `diagnostics` holds one or more complaints; `str(error)` prints them all, each with a
    caret under the source where a location is known.
    """

    def __init__(
        self,
        message: str,
        *,
        location: Location | None = None,
        suggestion: str | None = None,
        diagnostics: tuple[Diagnostic, ...] = (),
    ) -> None:
        self.diagnostics = diagnostics or (Diagnostic(message, location, suggestion),)
        super().__init__(message)

    @classmethod
    def collected(cls, diagnostics: list[Diagnostic]) -> EinloomError:
        """One error that carries several diagnostics."""
        return cls(diagnostics[0].message, diagnostics=tuple(diagnostics))

    @property
    def message(self) -> str:
        return self.diagnostics[0].message

    def __str__(self) -> str:
        return "\n".join(str(diagnostic) for diagnostic in self.diagnostics)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.diagnostics)


def _rebuild(cls: type[EinloomError], diagnostics: tuple[Diagnostic, ...]) -> EinloomError:
    return cls(diagnostics[0].message, diagnostics=diagnostics)


class ParseError(EinloomError, ValueError):
    """Malformed text: an einsum spec, a program, a pipeline."""


class ShapeError(EinloomError, ValueError):
    """Sizes or rank counts that do not fit together."""


class DTypeError(EinloomError, TypeError):
    """A dtype that an operation does not take."""


class UnsupportedError(EinloomError, NotImplementedError):
    """Something that is well formed but not built."""


class PassError(EinloomError):
    """A pass or a pipeline that cannot be run as asked."""


class BackendError(EinloomError):
    """Code generation or execution failed."""


class RangeError(ShapeError, IndexError):
    """An index, often one read from data, that lies outside its tensor."""
