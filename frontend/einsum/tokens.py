"""Cuts the text of an einsum spec into terms, and refuses what no form of the dialect takes.

What may stand in a spec:

- labels: ASCII letters, and every character from U+00A1 on but the soft hyphen and surrogates
  (opt_einsum numbers its symbols through that whole range, so none of them can be reserved);
- ASCII digits and `_`, inside the names of the named form only;
- `,` between terms, one `->` before the output, `...` at most once in a term;
- whitespace, anywhere but inside `->` and `...`.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise

from einloom.ir.errors import Location, ParseError, Source
from einloom.ir.record import record

Span = tuple[int, int]

SPACE = " \t\n\r\f\v\u00a0"
ELLIPSIS_TEXT = "..."
LETTER = re.compile(rf"\.\.\.|[^{SPACE}]")
"""Tokens of a term in the character form: every character is a label."""
NAME = re.compile(rf"\.\.\.|[^{SPACE}.]+")
"""Tokens of a term in the named form: every word is a label."""

_LEGAL = rf"A-Za-z0-9_{SPACE},.>\-"
_ILLEGAL_ASCII = re.compile(f"[^{_LEGAL}]")
_DOTS = re.compile(r"\.+")
_DASH_OR_ANGLE = re.compile(r"[->]")
_WORD_CHARACTER = rf"[^{SPACE},.>\-]"
_WORD = re.compile(_WORD_CHARACTER + "+")
# Two neighbouring words with whitespace between them, one of two or more characters; an
# ellipsis may stand between them too.
_NAMES_APART = re.compile(
    "{w}{{2}}{gap}{w}|{w}{gap}{w}{{2}}".format(
        w=_WORD_CHARACTER, gap=rf"(?:[{SPACE}]+(?:\.\.\.[{SPACE}]*)?|\.\.\.[{SPACE}]+)"
    )
)


@cache
def _illegal() -> re.Pattern[str]:
    """Compiled when a spec first needs it, because the large ranges take 5 ms."""
    return re.compile(rf"[^{_LEGAL}\u00a1-\u00ac\u00ae-\ud7ff\ue000-\U0010ffff]")


_INSTEAD = {
    "=": "the output is written after '->'",
    "*": "terms are separated by ','",
    ";": "terms are separated by ','",
    "+": "a spec is one product; write sums of products as a program",
    "(": "labels take no brackets",
    ")": "labels take no brackets",
    "[": "labels take no brackets",
    "]": "labels take no brackets",
}
LOOKALIKES = {
    "→": "->",
    "⟶": "->",
    "⇒": "->",
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "‥": "...",
    "，": ",",
    "、": ",",
}
"""Characters that are labels by the rules, but were seldom meant as such."""


@record
class Terms:
    """The terms of a spec: the characters `[start, end)` of each."""

    source: Source
    inputs: tuple[Span, ...]
    output: Span | None

    def text(self, span: Span) -> str:
        return self.source.text[span[0] : span[1]]


def split_terms(source: Source) -> Terms:
    """The terms of a spec.

    Raises ParseError at the first character, arrow or dot that has no place in any spec.
    """
    text = source.text
    illegal = (_ILLEGAL_ASCII if text.isascii() else _illegal()).search(text)
    if illegal:
        character = illegal.group()
        raise _error(
            source,
            illegal.span(),
            f"{show_character(character)} cannot be used as a label",
            _INSTEAD.get(character, "labels are letters; '->', ',' and '...' are the only signs"),
        )
    arrow = _find_arrow(source)
    inputs_end = len(text) if arrow is None else arrow
    inputs = []
    start = 0
    for term in text[:inputs_end].split(","):
        inputs.append((start, start + len(term)))
        start += len(term) + 1
    output = None if arrow is None else (arrow + 2, len(text))
    if output is not None:
        comma = text.find(",", output[0])
        if comma >= 0:
            raise _error(
                source,
                (comma, comma + 1),
                "the output is one term, without ','",
                "an einsum has one result; use one call for each",
            )
    if "." in text:
        _check_dots(source)
    return Terms(source, tuple(inputs), output)


def names_are_possible(text: str) -> bool:
    """Whether a spec can be read in the named form, whatever the operands.

    It can when every word is an identifier and, in some term, whitespace stands between two
    neighbouring words of which at least one has two or more characters.
    """
    if not _NAMES_APART.search(text):
        return False
    return all(word.group().isidentifier() for word in _WORD.finditer(text))


def show_character(character: str) -> str:
    """A character in quotes, or its code point where it would not be seen."""
    if character.isprintable() and not character.isspace():
        return f"'{character}'"
    return f"U+{ord(character):04X}"


def shorten(text: str, limit: int = 40) -> str:
    """Text in quotes for a message, cut in the middle when it is long; never an odd character."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}...{text[-limit // 4 :]}"
    return f"'{''.join(c if c.isprintable() else chr(0xFFFD) for c in text)}'"


def trimmed(text: str, span: Span) -> Span:
    """A span without the whitespace at its ends."""
    typed = text[span[0] : span[1]]
    start = span[0] + len(typed) - len(typed.lstrip(SPACE))
    return start, start + len(typed.strip(SPACE))


def _find_arrow(source: Source) -> int | None:
    text = source.text
    sign = _DASH_OR_ANGLE.search(text)
    if sign is None:
        return None
    arrow = sign.start()
    if not text.startswith("->", arrow):
        raise _stray(source, arrow)
    second = _DASH_OR_ANGLE.search(text, arrow + 2)
    if second is None:
        return arrow
    if text.startswith("->", second.start()):
        raise _error(
            source,
            (second.start(), second.start() + 2),
            "a spec has one '->', and this is the second",
            "chain contractions as several inputs, or as several calls",
        )
    raise _stray(source, second.start())


def _stray(source: Source, position: int) -> ParseError:
    return _error(
        source,
        (position, position + 1),
        f"stray '{source.text[position]}'",
        "the output is written after '->', without a space inside the arrow",
    )


def _check_dots(source: Source) -> None:
    runs = [run.span() for run in _DOTS.finditer(source.text)]
    for start, end in runs:
        if end - start != 3:
            raise _error(
                source,
                (start, end),
                f"{shorten('.' * (end - start))} is not an ellipsis",
                "an ellipsis is three dots, '...', without spaces, once in a term",
            )
    for (_, end), (start, stop) in pairwise(runs):
        # Two ellipses stand in one term unless a ',' or the '->' separates them.
        if not _has_separator(source.text, end, start):
            raise _error(
                source,
                (start, stop),
                "a second '...' in one term",
                "one ellipsis stands for all the ranks that have no label",
            )


def _has_separator(text: str, start: int, end: int) -> bool:
    return text.find(",", start, end) >= 0 or text.find("-", start, end) >= 0


def _error(source: Source, span: Span, message: str, suggestion: str) -> ParseError:
    return ParseError(message, location=Location(source, *span), suggestion=suggestion)
