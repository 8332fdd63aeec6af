"""Reads the text of an einsum spec, in its character form or its named form.

`"ij,jk->ik"` is the character form: each character is a label and whitespace means nothing.
`"batch row inner, batch inner col -> batch row col"` is the named form: each word is a label.

A spec can be read in the named form only if every word is an identifier and, in some term,
whitespace stands between two neighbouring words of which one has two or more characters. The
character form is always tried first, and a spec that NumPy takes for the operands' rank counts
keeps NumPy's meaning:

1. the character reading, if it fits the operands and repeats no label of the output;
2. else the named reading, if it is possible and fits;
3. else the character reading, if it fits (`"ij -> iij"`).

If none fits, the error tells about both. When the operands are not known, the character reading
is taken unless it is impossible; if both are possible, that is an error.

Without `->`, the output holds the ellipsis, then the labels that stand once: in the character
form sorted by character, as in NumPy; in the named form in order of first appearance.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from itertools import chain
from numbers import Integral

from einloom.frontend.einsum.spec import ELLIPSIS, Form, Label, Spec, wrong_operand_count
from einloom.frontend.einsum.tokens import (
    ELLIPSIS_TEXT,
    LETTER,
    NAME,
    Terms,
    names_are_possible,
    shorten,
    split_terms,
)
from einloom.ir.errors import EinloomError, Location, ParseError, ShapeError, Source

_DIGIT = re.compile(r"[0-9_]")
_PRINTED_INTEGER = 10**9
_SHOWN_LABELS = 12
_COMPARED_LABELS = 200
_COMPARED_LENGTH = 60


class SubscriptTypeError(ParseError, TypeError):
    """Labels that are neither a string nor lists of hashable objects."""


class LabelTable(dict[Hashable, Label]):
    """Gives each distinct thing that was typed as a label one `Label`, named apart from others."""

    def __init__(self, ellipsis: Hashable, show: Callable[[Hashable], str]) -> None:
        super().__init__({ellipsis: ELLIPSIS})
        self._show = show
        self._names: set[str] = set()

    def __missing__(self, typed: Hashable) -> Label:
        index = len(self)
        name = _identifier(typed, index)
        if name in self._names:
            name = f"{name}_{index}"
        while name in self._names:
            name += "_"
        self._names.add(name)
        label = self[typed] = Label(name, self._show(typed))
        return label


def parse_spec(spec: str, ranks: Sequence[int] | None = None) -> Spec:
    """The spec that a text means for operands of these rank counts (None: not known yet).

    With `ranks`, every ellipsis is spelled out as labels. Raises ParseError for malformed text
    and for output labels that no input has, ShapeError where rank counts do not fit.

    >>> [[str(label) for label in labels] for labels in parse_spec("ij,jk->ik", (2, 2)).inputs]
    [['i', 'j'], ['j', 'k']]
    >>> [str(label) for label in parse_spec("row inner, inner col", (2, 2)).output]
    ['row', 'col']
    """
    if not isinstance(spec, str):
        raise SubscriptTypeError(f"an einsum spec is a str, not of type {type(spec).__name__}")
    terms = split_terms(Source("einsum", spec))
    if ranks is not None and len(ranks) != len(terms.inputs):
        raise wrong_operand_count(terms.source, terms.inputs, len(ranks))
    if not names_are_possible(spec):
        return _read(terms, Form.LETTERS, ranks)
    letters = _attempt(terms, Form.LETTERS, ranks)
    if ranks is not None and isinstance(letters, Spec) and not letters.repeats_output:
        return letters
    names = _attempt(terms, Form.NAMES, ranks)
    if ranks is None and isinstance(letters, Spec) and isinstance(names, Spec):
        if letters.repeats_output:
            return names
        raise ParseError(
            "this spec can be read letter by letter or as names",
            location=names.location(0),
            suggestion="tell the operands' rank counts, or remove the spaces inside terms if "
            "letters are meant",
        )
    if isinstance(names, Spec):
        return names
    if isinstance(letters, Spec):
        return letters
    raise _neither(terms, letters, names, ranks)


def implied_output(
    typed: Sequence[Sequence[Hashable]], table: LabelTable, *, in_order: bool
) -> tuple[Label, ...]:
    """The output that was not written: the ellipsis, then the labels that stand exactly once.

    `in_order` sorts them by what was typed, unless that cannot be compared with each other.
    """
    counts = Counter(chain.from_iterable(typed))
    once = [label for label, count in counts.items() if count == 1]
    once = [label for label in once if table[label] is not ELLIPSIS]
    if in_order:
        with suppress(TypeError):
            once = sorted(once)  # type: ignore[type-var]
    dots = (ELLIPSIS,) if any(table[label] is ELLIPSIS for label in counts) else ()
    return (*dots, *map(table.__getitem__, once))


def unknown_output_label(
    label: str, known: Sequence[str], location: Location, quote: Callable[[str], str]
) -> ParseError:
    """The error for an output label that no input has, with the nearest label that one has."""
    compared = [text for text in known[:_COMPARED_LABELS] if len(text) <= _COMPARED_LENGTH]
    folded = {text.casefold(): text for text in compared}
    near = folded.get(label.casefold())
    if near is None and 1 < len(label) <= _COMPARED_LENGTH:
        near = next(iter(get_close_matches(label, compared, n=1)), None)
    if near is not None:
        suggestion = f"did you mean {quote(near)}?"
    elif known:
        more = ", ..." if len(known) > _SHOWN_LABELS else ""
        suggestion = f"the inputs have {', '.join(map(quote, known[:_SHOWN_LABELS]))}{more}"
    else:
        suggestion = "the inputs have no labels"
    return ParseError(
        f"output label {quote(label)} is in no input", location=location, suggestion=suggestion
    )


def _read(terms: Terms, form: Form, ranks: Sequence[int] | None) -> Spec:
    source, text = terms.source, terms.source.text
    if form is Form.LETTERS:
        digit = _DIGIT.search(text)
        if digit:
            raise ParseError(
                f"{shorten(digit.group())} cannot be used as a label",
                location=Location(source, *digit.span()),
                suggestion="each label is one letter; names such as 'x1' take whitespace "
                "between them: 'x1 y, y z -> x1 z'",
            )
    token = LETTER if form is Form.LETTERS else NAME
    table = LabelTable(ELLIPSIS_TEXT, str)
    label = table.__getitem__
    typed = [token.findall(text, *term) for term in terms.inputs]
    inputs = tuple(tuple(map(label, term)) for term in typed)
    if terms.output is None:
        output = implied_output(typed, table, in_order=form is Form.LETTERS)
    else:
        for match in token.finditer(text, *terms.output):
            if match.group() not in table:
                known = [str(label) for label in table.values() if label is not ELLIPSIS]
                place = Location(source, *match.span())
                raise unknown_output_label(match.group(), known, place, shorten)
        output = tuple(map(label, token.findall(text, *terms.output)))
    spec = Spec(inputs, output, text, form, terms.output is not None, terms.inputs, terms.output)
    return spec if ranks is None else spec.expand(ranks)


def _attempt(terms: Terms, form: Form, ranks: Sequence[int] | None) -> Spec | EinloomError:
    try:
        return _read(terms, form, ranks)
    except (ParseError, ShapeError) as error:
        return error


def _neither(
    terms: Terms, letters: EinloomError, names: EinloomError, ranks: Sequence[int] | None
) -> EinloomError:
    """The error of the reading that is nearer to the operands, with a word about the other."""
    if ranks is None or _DIGIT.search(terms.source.text):
        return names
    meant, other, how = names, letters, "letter by letter"
    if _misfit(terms, LETTER, ranks) <= _misfit(terms, NAME, ranks):
        meant, other, how = letters, names, "as names"
    first = meant.diagnostics[0]
    return type(meant)(
        first.message,
        location=first.location,
        suggestion=f"{first.suggestion} (read {how}: {other.message})",
    )


def _misfit(terms: Terms, token: re.Pattern[str], ranks: Sequence[int]) -> int:
    """By how many labels in all a reading misses the operands' rank counts."""
    text = terms.source.text
    return sum(
        abs(len(token.findall(text, *term)) - rank)
        for term, rank in zip(terms.inputs, ranks, strict=True)
    )


def _identifier(typed: Hashable, index: int) -> str:
    """An ASCII identifier for a label, close to what was typed; not always unique."""
    if isinstance(typed, str):
        if typed.isascii() and typed.isidentifier():
            return typed
        if len(typed) == 1:
            return f"u{ord(typed):x}"
    number = integer_of(typed)
    if number is not None and abs(number) < _PRINTED_INTEGER:
        return f"i{number}" if number >= 0 else f"i_{-number}"
    return f"label{index}"


def integer_of(typed: object) -> int | None:
    """The integer that a label is, or None; NumPy's time differences only claim to be integers."""
    if not isinstance(typed, Integral):
        return None
    try:
        return operator.index(typed)
    except TypeError:
        return None
