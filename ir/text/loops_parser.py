"""Text to loops: the way in for kernels, their storage and their launches."""

from __future__ import annotations

import re
from functools import cache
from typing import NoReturn

from einloom.ir.errors import Source
from einloom.ir.loops import LoopProgram
from einloom.ir.text.lexer import Lexer, token_pattern
from einloom.ir.text.loops_build import LoopBuilder
from einloom.ir.text.loops_complaints import STATEMENT_WORDS, TOP_WORDS, slip
from einloom.ir.text.machine import Machine, borrowed
from einloom.ir.text.parser import decoded, run
from einloom.ir.text.spelling import LOOP_RESERVED

GRAMMARS = ("program.lark", "loops.lark")

_AN_INDEX_FOLLOWS = re.compile(r"[ \t]*\[")
_A_BLOCK_FOLLOWS = re.compile(r"[ \t]*\{")
_A_LOOKUP_FOLLOWS = re.compile(r"[ \t]+lookup[ \t]*\(")

# `<16>` in front of anything but > and = is no comparison: those do not chain
_MORE_TOKENS = r"""
      (?P<RANGE>\.\.)
    | (?P<LANES><[ ]*[0-9]{1,18}[ ]*>(?![>=]))
    |
"""


def parse_loops(text: str | bytes, name: str = "<text>") -> LoopProgram:
    """The loop program that a text describes; `str(program)` writes such texts.

    `name` is what errors and locations call the text. Bytes are read as UTF-8. Names that a
    kernel declares as scalars read as symbols, all other bare names as values. Raises
    ParseError, with a caret under the place, for malformed text; whether names, dtypes and
    lanes fit together is for `verify_loops` to say.
    """
    source = Source(name, decoded(text, name))
    with borrowed(_idle_machines(), _loop_machine) as machine:
        machine.builder.begin(source)
        result = run(machine, "loop_program", LoopLexer(source), slip)
    assert isinstance(result, LoopProgram)
    return result


def _loop_machine() -> Machine[LoopBuilder]:
    return Machine(LoopBuilder(), GRAMMARS, ("loop_program",))


@cache
def _idle_machines() -> list[Machine[LoopBuilder]]:
    return []


class LoopLexer(Lexer):
    """The tokens of a text of the loops level."""

    pattern = token_pattern(_MORE_TOKENS)

    def word(self, word: str, start: int, end: int) -> str:
        if word in LOOP_RESERVED:
            return word.upper()
        kind = super().word(word, start, end)
        if word == "hash" and _A_LOOKUP_FOLLOWS.match(self.source.text, end):
            return "HASH"
        # no reducers and no tensor types here
        return "NAME" if kind in ("REDUCER", "EXTENT") else kind

    def opening_word(self, word: str, end: int) -> str:
        """The type of a word at the beginning of a statement, or behind a block."""
        text = self.source.text
        if word == "else" and self.before == "RBRACE" and _A_BLOCK_FOLLOWS.match(text, end):
            return "ELSE"
        if not self.bracket:
            return word.upper() if word in TOP_WORDS else "NAME"
        if word in STATEMENT_WORDS and not _AN_INDEX_FOLLOWS.match(text, end):
            return word.upper()
        return "NAME"

    def separates(self, kind: str) -> bool:
        if kind == "IF":  # a statement of its own, not the end of one
            return self.before not in ("_SEPARATOR", "LBRACE")
        return kind != "ELSE" and super().separates(kind)

    def complain_of_character(self, character: str, at: int) -> NoReturn:
        if character == ".":
            hint = "a range has two dots, as in 0 .. N; a number begins with a digit, as in 0.5"
            self.complain("unexpected character . (U+002E)", at, at + 1, hint)
        super().complain_of_character(character, at)
