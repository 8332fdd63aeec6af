"""Where commands print: rich tables and colours for a person, plain text for a pipe."""

from __future__ import annotations

import re
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from einloom.ir.errors import shortened

if TYPE_CHECKING:
    from rich.console import Console

    from einloom.report import Report, Table

PATIENCE_SECONDS = 2.0
"""Work that takes longer shows that it goes on."""

CODE_INDENT = 4
_LABEL = re.compile(r"\w+:(\s|$)")  # `level: program`, `Source: ...` begin lines of their own
_PROGRAM_STYLES = (
    (r"#[^\n]*", "bright_black"),
    (r"\b(program|fn|monoid|kernel|mapping|layout|scan|from|until|down|call|const|where|if|else)\b",
     "bold magenta"),
    (r"\b(for|while|let|alloc|check|launch|storage|parallel|serial|vector|unroll|carry|yield)\b",
     "bold magenta"),
    (r"\b(sum|prod|max|min|all|any|xor|argmax|argmin)(?=[:\[])", "bold blue"),
    (r"\b(bool|[iu](8|16|32|64)|b?f16|f32|f64|c64|c128|zq(?=<))\b", "cyan"),
    (r"(?<![\w.])-?\d+(\.\d+)?([eE][+-]?\d+)?\b", "green"),
)  # fmt: skip


class Terminal:
    """The standard streams of this process, looked at once."""

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            # A name that the encoding lacks is escaped: it must not stop a command half way.
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None and getattr(stream, "errors", "") == "strict":
                reconfigure(errors="backslashreplace")
        self.for_people = sys.stdout.isatty()
        self.errors_for_people = sys.stderr.isatty()

    def line(self, text: str = "") -> None:
        """Plain text on standard output."""
        sys.stdout.write(f"{text}\n")

    def binary(self, data: bytes) -> None:
        """Bytes on standard output."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def note(self, text: str) -> None:
        """A remark beside the output, on standard error."""
        self._say("note: ", "cyan", text)

    def error(self, text: str) -> None:
        """What went wrong, on standard error."""
        self._say("error: ", "bold red", shortened(text))

    def _say(self, mark: str, style: str, text: str) -> None:
        sys.stdout.flush()  # so that both streams of one terminal keep their order
        if self.errors_for_people:
            from rich.text import Text

            _console(sys.stderr).print(Text(mark, style) + Text(text, "default"), soft_wrap=True)
        else:
            sys.stderr.write(f"{mark}{text}\n")
        sys.stderr.flush()

    def report(self, report: Report | Table, *, errors: bool = False) -> None:
        """Tables: drawn for a person, tab-separated for a pipe."""
        from einloom.report import Report

        whole = report if isinstance(report, Report) else Report((report,))
        stream = sys.stderr if errors else sys.stdout
        if not (self.errors_for_people if errors else self.for_people):
            stream.write(whole.plain())
            return
        console = _console(stream)
        for table in whole.tables:
            console.print(_drawn(table))

    def prose(self, text: str) -> None:
        """Sentences: for a person, paragraphs are filled to the width of the terminal."""
        self.line(_filled(text, _console(sys.stdout).width) if self.for_people else text)

    def code(self, text: str, language: str) -> None:
        """IR (`language` "ein") or what LLVM prints ("llvm", "gas"), coloured for a person."""
        text = text.rstrip("\n")
        if not self.for_people:
            self.line(text)
            return
        console = _console(sys.stdout)
        if language == "ein":
            from rich.text import Text

            styled = Text(text)
            # Later styles lie on top, so comments go last.
            for pattern, style in reversed(_PROGRAM_STYLES):
                styled.highlight_regex(pattern, style)
            console.print(styled, soft_wrap=True)
        else:
            from rich.syntax import Syntax

            console.print(Syntax(text, language, theme="ansi_dark", background_color="default"))

    @contextmanager
    def progress(self, doing: str) -> Iterator[None]:
        """Show that work goes on, once it has taken two seconds, to a person only."""
        if not self.errors_for_people:
            yield
            return
        from rich.status import Status

        status = Status(doing, console=_console(sys.stderr))
        lock = threading.Lock()
        done = False

        def show() -> None:
            with lock:
                if not done:
                    status.start()

        timer = threading.Timer(PATIENCE_SECONDS, show)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with lock:
                done = True
                status.stop()


def _filled(text: str, width: int) -> str:
    """Text with the lines of each paragraph joined and broken anew, indented as they were.

    A line that is indented unlike the one before it begins a paragraph of its own, and one that is
    indented by four is code and stays as it is.
    """
    paragraphs: list[tuple[str, str]] = []
    for line in text.split("\n"):
        words = line.strip()
        indent = line[: len(line) - len(line.lstrip())]
        joins = words and paragraphs and paragraphs[-1][1] and paragraphs[-1][0] == indent
        if joins and len(indent) < CODE_INDENT and not _LABEL.match(words):
            paragraphs[-1] = (indent, f"{paragraphs[-1][1]} {words}")
        else:
            paragraphs.append((indent, words))
    return "\n".join(
        indent + words
        if len(indent) >= CODE_INDENT
        else textwrap.fill(
            words,
            max(width, 40),
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for indent, words in paragraphs
    )


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    # highlight would colour numbers and paths inside messages at random
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def _drawn(table: Table) -> Any:
    """A table for people: quantities with units, numbers to the right."""
    from rich import box
    from rich.table import Table as RichTable

    drawn = RichTable(
        title=table.title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        # two columns between cells: eighty hold what a command has to say
        padding=(0, 1, 0, 0),
        show_header=table.header,
    )
    for position, name in enumerate(table.columns):
        right = position in table.numbers
        drawn.add_column(
            name,
            justify="right" if right else "left",
            no_wrap=right,
            min_width=len(name) if table.header else None,
            overflow="fold",
        )
    for row in table.rows:
        from rich.text import Text

        drawn.add_row(*(Text(str(cell)) for cell in row))
    return drawn
