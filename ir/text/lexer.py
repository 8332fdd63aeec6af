"""Characters to tokens: what lark cannot know of a text is decided here, in one pass.

Newlines count only between statements; a word is a keyword only where it opens a statement
or section; a reducer's name is told from a tensor's by the bracket behind it; and each name
carries the position it stands in (scalar, index, extent), which decides what a bare name is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

from einloom.ir.errors import Location, ParseError, Source
from einloom.ir.ops import MONOIDS
from einloom.ir.text.spelling import RESERVED, VIEWS, read_quoted_name

SCALAR, INDEX, EXTENT = 0, 1, 2
"""Positions of a name: a value, inside the brackets of an access, inside an extent."""

MAXIMUM_DEPTH = 100_000


class Token:
    """One token; `start` and `end` are character offsets, `position` as above."""

    __slots__ = ("end", "position", "start", "text", "type")

    # lark copies these from the last token to its end marker
    line = column = end_line = end_column = start_pos = end_pos = None

    def __init__(self, type: str, text: str, start: int, end: int, position: int = SCALAR) -> None:
        self.type = type
        self.text = text
        self.start = start
        self.end = end
        self.position = position

    def __repr__(self) -> str:
        return f"<{self.type} {self.text}>"


_ALTERNATIVES = r"""
      (?P<NUMBER>nan\(0[xX][0-9a-fA-F]+\)j?
        |(?:[0-9]+\.(?!\.)[0-9]*(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)j?(?!\w)
        |[0-9]+j(?!\w))
    | (?P<MODULAR>zq[ ]*<[ ]*[0-9]+[ ]*>)
    | (?P<NAME>[A-Za-z_\x80-\U0010ffff][^\x00-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f\s]*)
    | (?P<DIMENSIONS>[1-9][0-9]{0,17}(?:x[0-9]{1,18})++(?!\w))
    | (?P<INTEGER>(?:0[xX][0-9a-fA-F]+|[0-9]+)(?!\w))
    | (?P<OPERATOR>\*\*|//|<<|>>|<=|>=|==|!=|->|[-+*/%|^&~<>=()\[\]{},:?])
    | (?P<SEMICOLON>;+)
    | (?P<NEWLINE>[\r\n]+)
    | (?P<QUOTED>`(?:[^`\\\r\n]|\\[^\r\n])*+`)
    | (?P<AT>@(?:[0-9]{1,18}|\*)(?:x(?:[0-9]{1,18}|\*))*+(?!\w))
    | (?P<PROJECT>\.[0-9]{1,18}(?!\w))
    | (?P<STRING>"(?:[^"\\\r\n]|\\[^\r\n])*+")
    | (?P<COMMENT>\#[^\r\n]*)
    | (?P<END>\Z)
    | (?P<OTHER>(?s:.))
"""


def token_pattern(more: str = "") -> re.Pattern[str]:
    """Blanks and the token behind them; `more` are alternatives that are tried first."""
    return re.compile(rf"[ \t\f]*(?:{more}{_ALTERNATIVES})", re.VERBOSE)


_OPERATORS = {
    "(": "LPAR", ")": "RPAR", "[": "LSQB", "]": "RSQB", "{": "LBRACE", "}": "RBRACE",
    ",": "COMMA", ":": "COLON", "=": "EQUAL", "?": "QMARK", "->": "ARROW",
    "<": "LESSTHAN", ">": "MORETHAN", "|": "VBAR", "-": "MINUS", "~": "PREFIX",
    **dict.fromkeys(
        ("**", "//", "<<", ">>", "<=", ">=", "==", "!=", "+", "*", "/", "%", "^", "&"), "INFIX"
    ),
}  # fmt: skip

_WORDS = {
    "and": "INFIX", "or": "INFIX", "not": "PREFIX",
    "True": "NUMBER", "False": "NUMBER", "inf": "NUMBER", "nan": "NUMBER", "infj": "NUMBER",
    "nanj": "NUMBER",
    "where": "WHERE", "if": "IF", "until": "UNTIL", "from": "FROM", "cast": "CAST",
}  # fmt: skip
assert set(_WORDS) == RESERVED

_TOP_WORDS = ("program", "fn", "monoid", "mapping", "layout")
_BLOCK_WORDS = ("scan", "kernel", "const")
_SECTION_WORDS = {
    "monoid": ("identity", "combine", "laws"),
    "mapping": ("loops", "tile", "spatial", "place", "interleave"),
    "layout": ("strides", "order", "alias", "donate"),
}

# After these a newline does not end a statement, and before those it does not either.
_OPEN_ENDED = frozenset(
    ("INFIX", "PREFIX", "MINUS", "LESSTHAN", "MORETHAN", "VBAR", "EQUAL", "COMMA", "COLON",
     "ARROW", "QMARK", "LBRACE", "_SEPARATOR", "WHERE", "IF", "UNTIL", "FROM"),
)  # fmt: skip
_CONTINUES = frozenset(
    ("INFIX", "MINUS", "LESSTHAN", "MORETHAN", "VBAR", "EQUAL", "COMMA", "COLON", "ARROW", "QMARK",
     "LBRACE", "RBRACE", "RPAR", "RSQB", "WHERE", "IF", "UNTIL", "FROM"),
)  # fmt: skip

# These change which brackets are open or which position names stand in.
_TURNS = frozenset(
    ("LPAR", "LSQB", "LBRACE", "RPAR", "RSQB", "RBRACE", "EQUAL", "COMMA", "WHERE", "SCAN", "IF",
     "FROM", "UNTIL", "MONOID", "MAPPING", "LAYOUT"),
)  # fmt: skip

_CLOSES = {")": "(", "]": "[", "}": "{"}

_A_NAME_FOLLOWS = re.compile(r"[ \t]+(?:[^\W\d]|[^\x00-\x7f]|`)")
_A_VERSION_FOLLOWS = re.compile(r"[ \t]+(?:\w+|`[^`\r\n]*`)[ \t]*@")
_A_BRACKET_FOLLOWS = re.compile(r"[ \t]*[\[:]")
_DIGEST = re.compile(r"sha256:([0-9a-zA-Z]*)")


class Lexer:
    """The tokens of one source, by iterating once.

    While a token is with the parser, `before` and `before_text` are those of the token in
    front of it and `open_brackets` is the stack of what is open: (bracket around it, its
    offset, position to return to, section word to return to).
    """

    pattern = token_pattern()

    def __init__(self, source: Source, position: int = SCALAR) -> None:
        self.source = source
        self.first_position = position
        self.position = position
        self.open_brackets: list[tuple[str, int, int, str]] = []
        self.bracket = ""
        self.section = ""
        self.before, self.before_text = "_SEPARATOR", ""
        self.pending, self.pending_at = "", 0  # the newline or semicolon that may be needed
        self.monoids: set[str] = set()

    def __iter__(self) -> Iterator[Token]:
        text = self.source.text
        match = self.pattern.match
        at = 1 if text.startswith("\ufeff") else 0
        while True:
            found = match(text, at)
            assert found is not None and found.lastgroup is not None
            kind = found.lastgroup
            start, at = found.span(kind)
            spelled = text[start:at]
            if kind == "NAME":
                kind = self.word(spelled, start, at)
                if kind == "DIGEST":
                    found = _DIGEST.match(text, start)
                    assert found is not None
                    spelled, at = found.group(1), found.end()
            elif kind == "OPERATOR":
                kind = _OPERATORS[spelled]
            elif kind == "SEMICOLON":
                if self.bracket in ("", "{"):
                    self.pending, self.pending_at = ";", start
                    continue
            elif kind == "NEWLINE":
                if (
                    not self.pending
                    and self.bracket in ("", "{")
                    and self.before not in _OPEN_ENDED
                ):
                    self.pending, self.pending_at = "\n", start
                continue
            elif kind == "COMMENT":
                continue
            elif kind == "QUOTED":
                kind, spelled = "NAME", self.quoted(spelled, start, at)
            elif kind == "END":
                if self.open_brackets:
                    self.complain_of_unclosed()
                return
            elif kind == "OTHER":
                self.complain_of_character(spelled, start)

            if self.pending:
                if self.separates(kind):
                    yield Token("_SEPARATOR", self.pending, self.pending_at, self.pending_at + 1)
                    self.position = SCALAR if self.open_brackets else self.first_position
                self.pending = ""
            token = Token(kind, spelled, start, at, self.position)
            if kind in _TURNS:
                self.turn(kind, spelled, start)
            yield token
            self.before, self.before_text = kind, text[start:at]  # backquotes included

    def word(self, word: str, start: int, end: int) -> str:
        """The type of the token that a word is here."""
        if not word.isascii() and not word.isidentifier():
            self.complain_of_identifier(word, start)
        if word in _WORDS:
            return _WORDS[word]
        text, before = self.source.text, self.before
        if word in MONOIDS or word in self.monoids:
            return "REDUCER" if _A_BRACKET_FOLLOWS.match(text, end) else "NAME"
        if before == "MONOID":
            self.monoids.add(word)
        elif self.pending or before in ("_SEPARATOR", "LBRACE"):
            return self.opening_word(word, end)
        elif before == "EQUAL":
            if word == "call" and _A_VERSION_FOLLOWS.match(text, end):
                return "CALL"
        elif before == "COLON":
            if word == "extent":
                return "EXTENT"
        elif before == "STRING":
            if _DIGEST.match(text, start):
                return "DIGEST"
        elif self.section == "mapping" and before == "NAME" and word == "on":
            return "ON"
        return "NAME"

    def opening_word(self, word: str, end: int) -> str:
        """The type of a word at the beginning of a statement or section."""
        if self.bracket == "{" and self.section:
            return word.upper() if word in _SECTION_WORDS[self.section] else "NAME"
        words = _BLOCK_WORDS if self.bracket else _TOP_WORDS
        if word in words and _A_NAME_FOLLOWS.match(self.source.text, end):
            return word.upper()
        return "NAME"

    def quoted(self, spelled: str, start: int, end: int) -> str:
        try:
            return read_quoted_name(spelled)
        except ValueError as error:
            self.complain(str(error), start, end)

    def end_line(self, at: int) -> None:
        if not self.pending and self.bracket in ("", "{") and self.before not in _OPEN_ENDED:
            self.pending, self.pending_at = "\n", at

    def separates(self, kind: str) -> bool:
        """Whether the pending newline or semicolon separates what is before from `kind`."""
        if kind == "RBRACE" or self.before in ("_SEPARATOR", "LBRACE"):
            return False
        return self.pending == ";" or kind not in _CONTINUES

    def turn(self, kind: str, spelled: str, start: int) -> None:
        """Keep the brackets and the position of names, after a token that changes them."""
        if kind in ("LPAR", "LSQB", "LBRACE"):
            self.open_brackets.append((self.bracket, start, self.position, self.section))
            if len(self.open_brackets) > MAXIMUM_DEPTH:
                message = f"brackets are nested more than {MAXIMUM_DEPTH} deep"
                self.complain(message, start, start + 1)
            self.bracket = spelled
            if kind == "LSQB":
                self.position = INDEX
            elif kind == "LBRACE":
                self.position = SCALAR
            elif self.before == "NAME" and self.before_text == "iota":
                self.position = INDEX
            elif self.before == "NAME" and self.before_text in VIEWS:
                self.position = SCALAR
        elif kind in ("RPAR", "RSQB", "RBRACE"):
            if self.bracket != _CLOSES[spelled]:
                self.complain_of_closing(spelled, start)
            self.bracket, _, self.position, self.section = self.open_brackets.pop()
            if kind == "RBRACE":
                self.pending, self.pending_at = "\n", start
                self.position = SCALAR
                self.section = self.section if self.bracket else ""
        elif kind in ("EQUAL", "COMMA"):
            if self.bracket == "[":
                self.position = EXTENT if kind == "EQUAL" else INDEX
        elif kind in ("WHERE", "SCAN"):
            self.position = EXTENT
        elif kind in ("IF", "FROM", "UNTIL"):
            self.position = SCALAR
        else:
            self.section = spelled

    # -- complaints

    def complain(
        self, message: str, start: int, end: int, suggestion: str | None = None
    ) -> NoReturn:
        location = Location(self.source, start, end)
        raise ParseError(message, location=location, suggestion=suggestion)

    def complain_of_identifier(self, word: str, start: int) -> NoReturn:
        valid = next(k for k in range(len(word)) if not word[: k + 1].isidentifier())
        self.complain_of_character(word[valid], start + valid)

    def complain_of_character(self, character: str, at: int) -> NoReturn:
        if character == "`":
            self.complain(
                "this name is never closed", at, at + 1, "end it with a backquote on the same line"
            )
        if character == '"':
            self.complain(
                "this string is never closed", at, at + 1, "end it with a quote on the same line"
            )
        if character.isdigit() and character.isascii():
            end = at + 1
            text = self.source.text
            while end < len(text) and end - at < 40 and (text[end].isalnum() or text[end] in "._"):
                end += 1
            self.complain(
                f"{text[at:end]} is not a number", at, end,
                "numbers are written 1, 1.0, 1e-30, 2.0j, 0xff; names begin with a letter",
            )  # fmt: skip
        shown = f"{character} " if character.isprintable() else ""
        suggestion = _LOOKALIKES.get(character)
        if suggestion is None and not character.isprintable():
            suggestion = "remove it; a program is plain text"
        if suggestion is None and not character.isascii():
            suggestion = "a name with such a character stands in backquotes"
        self.complain(
            f"unexpected character {shown}(U+{ord(character):04X})", at, at + 1, suggestion
        )

    def complain_of_closing(self, closing: str, at: int) -> NoReturn:
        bracket = self.bracket
        if not bracket or (bracket == "{" and closing != "}"):
            self.complain(f"this {closing} closes nothing", at, at + 1)
        start = self.open_brackets[-1][1]
        line, column = self.source.line_and_column(start)
        self.complain(
            f"{closing} does not close the {bracket} of line {line}, column {column}",
            at, at + 1, f"close that one first with {_OPENS[bracket]}",
        )  # fmt: skip

    def complain_of_unclosed(self) -> NoReturn:
        """Point at the innermost bracket that is open."""
        start = self.open_brackets[-1][1]
        bracket = self.source.text[start]
        self.complain(
            f"this {bracket} is never closed", start, start + 1, f"close it with {_OPENS[bracket]}"
        )


_OPENS = {opening: closing for closing, opening in _CLOSES.items()}

_LOOKALIKES = {
    "\N{MINUS SIGN}": "write - for minus",
    "\N{EN DASH}": "write - for minus",
    "\N{MULTIPLICATION SIGN}": "write * for a product",
    "\N{MIDDLE DOT}": "write * for a product",
    "\N{DIVISION SIGN}": "write / for a quotient",
    "\N{LESS-THAN OR EQUAL TO}": "write <=",
    "\N{GREATER-THAN OR EQUAL TO}": "write >=",
    "\N{NOT EQUAL TO}": "write !=",
    "\N{RIGHTWARDS ARROW}": "write ->",
    "\N{N-ARY SUMMATION}": "write sum[k]",
    "\N{INFINITY}": "write inf",
    "\N{NO-BREAK SPACE}": "it looks like a space; write one",
    "\N{LEFT DOUBLE QUOTATION MARK}": 'write "',
    "\N{RIGHT DOUBLE QUOTATION MARK}": 'write "',
    ".": "x.0 takes a component of a tuple; a number begins with a digit, as in 0.5",
    "!": "write not x, or != for different",
    "'": "write names bare or in backquotes, file names in double quotes",
    "@": "@ stands in calls, as in sort@1; a product of matrices names its indices",
    "\\": "a statement goes on after an operator or a comma, and inside brackets",
}
