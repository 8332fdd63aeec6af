"""Text to loops: the way in for kernels, their storage and their launches."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache

from einloom.ir.errors import Source
from einloom.ir.loops import LoopProgram
from einloom.ir.text.complaints import slip_at_any_level
from einloom.ir.text.lexer import Lexer, Token, token_pattern
from einloom.ir.text.loops_build import LoopBuilder
from einloom.ir.text.machine import Machine, borrowed
from einloom.ir.text.parser import decoded, run
from einloom.ir.text.spelling import LOOP_RESERVED

GRAMMARS = ("program.lark", "loops.lark")

_TOP_WORDS = ("kernel", "storage", "launch", "fault")
_STATEMENT_WORDS = (
    "for", "while", "let", "alloc", "check", "call", "append", "hash", "atomic", "mma", "pack",
    "yield",
)  # fmt: skip

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
            return word.upper() if word in _TOP_WORDS else "NAME"
        if word in _STATEMENT_WORDS and not _AN_INDEX_FOLLOWS.match(text, end):
            return word.upper()
        return "NAME"

    def separates(self, kind: str) -> bool:
        if kind == "IF":  # a statement of its own, not the end of one
            return self.before not in ("_SEPARATOR", "LBRACE")
        return kind != "ELSE" and super().separates(kind)


def slip(token: Token | None, accepted: set[str], lexer: Lexer) -> str | None:
    """What the person probably meant who wrote a token that does not fit."""
    if token is None:
        return None
    text, kind = token.text, token.type
    if "STORAGE" in accepted and lexer.before == "_SEPARATOR" and kind == "NAME":
        if text == "program":
            return "this is a program; einloom.parse reads those"
        return "statements stand in a kernel: kernel name(in A: f32[4]; N) { ... }"
    if kind == "LANES":
        return "lanes stand behind a buffer or splat: A<16>[i], splat<16>(x)"
    if kind.lower() == text and text in LOOP_RESERVED and "NAME" in accepted:
        return f"{text} is a reserved word; to name something so, write `{text}`"
    words = [word.lower() for word in accepted if word.isalpha() and kind == "NAME"]
    if meant := get_close_matches(text, words, 1, 0.7):
        return f"did you mean {meant[0]}?"
    if "RANGE" in accepted:
        return "bounds are written for i in 0 .. N"
    if "WORK" in accepted:
        return "a launch ends with its work: launch k(N) slices N work N*N"
    if "INFIX" in accepted and kind in ("NAME", "INTEGER", "NUMBER", "LPAR"):
        return "an operator is missing between them"
    return slip_at_any_level(token, accepted, lexer)
