"""Reads the arguments of a call to `einsum`: a spec string and operands, or operands with lists.

    einsum("ij,jk->ik", a, b)
    einsum(a, [0, 1], b, [1, 2], [0, 2])
    einsum(a, ["row", "inner"], b, ["inner", "col"])
    einsum(a, [..., 0, 1], b, [..., 1, 2], [..., 0, 2])

In the list form any hashable object is a label, and objects that are equal are one label, as in
a dict (so `1` and `True` are). Without an output list the output holds the ellipsis, then the
labels that stand once: sorted when they can be compared with each other, as integers and strings
can, else in order of first appearance.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from reprlib import Repr
from typing import Any

import numpy as np

from einloom.frontend.einsum.parse import (
    LabelTable,
    SubscriptTypeError,
    implied_output,
    integer_of,
    parse_spec,
    unknown_output_label,
)
from einloom.frontend.einsum.spec import Form, Label, Spec, count
from einloom.frontend.einsum.tokens import ELLIPSIS_TEXT, Span
from einloom.ir.errors import Location, ParseError, ShapeError, Source

_PLAIN_INTEGER = 10**12
_FAR_TOO_LONG = 1000


def parse_operands(arguments: Sequence[Any]) -> tuple[Spec, list[Any]]:
    """The spec and the operands of a call `einsum(*arguments)`.

    Operands that have a `shape` are returned as they came; others (numbers, nested lists, objects
    with `__array__`) as NumPy arrays. No ellipsis is left in the spec. Raises ParseError for
    malformed labels, SubscriptTypeError for labels of a wrong type, ShapeError where the number of
    operands or of their ranks does not fit.

    >>> spec, operands = parse_operands(([[1, 2], [3, 4]], ["row", "col"], ["col"]))
    >>> spec.text, [str(label) for label in spec.output]
    ("['row', 'col'] -> ['col']", ["'col'"])
    """
    if not arguments:
        raise ParseError(
            "einsum needs a spec and operands, but was called with nothing",
            suggestion="for example einsum('ij,jk->ik', a, b)",
        )
    first = arguments[0]
    if isinstance(first, str | bytes):
        operands = [_operand(value, i) for i, value in enumerate(arguments[1:])]
        return parse_spec(_decoded(first), [_rank(operand) for operand in operands]), operands
    if len(arguments) == 1:
        raise ParseError(
            "einsum was called with one operand and no labels",
            suggestion="put a spec first, einsum('ij->ji', a), or labels after the operand, "
            "einsum(a, [0, 1], [1, 0])",
        )
    pairs = len(arguments) // 2
    operands = [_operand(value, i) for i, value in enumerate(arguments[0 : 2 * pairs : 2])]
    ranks = [_rank(operand) for operand in operands]
    lists = [*arguments[1 : 2 * pairs : 2], *arguments[2 * pairs :]]
    return _parse_lists(lists, ranks).expand(ranks), operands


def _decoded(spec: str | bytes) -> str:
    if isinstance(spec, str):
        return str(spec)
    try:
        return spec.decode("ascii")
    except UnicodeDecodeError as error:
        shown = spec.decode("ascii", "replace")
        raise ParseError(
            f"byte 0x{spec[error.start]:02x} in a spec that is bytes",
            location=Location(Source("einsum", shown), error.start, error.start + 1),
            suggestion="bytes are read as ASCII; pass labels beyond it in a str",
        ) from None


def _operand(value: Any, index: int) -> Any:
    if isinstance(getattr(value, "shape", None), tuple):
        return value
    try:
        return np.asanyarray(value)
    except (ValueError, TypeError) as error:
        raise ShapeError(
            f"operand {index} is not an array: {error}",
            suggestion="the rows of a nested list must all have one length",
        ) from error


def _rank(operand: Any) -> int:
    return len(operand.shape)


def _parse_lists(lists: Sequence[object], ranks: Sequence[int]) -> Spec:
    """A spec, ellipses not spelled out, from one label list per operand and perhaps an output."""
    table = LabelTable(Ellipsis, _shown)
    writer = _ListWriter()
    typed: list[list[Hashable]] = []
    terms: list[tuple[Label, ...]] = []
    for index, labels in enumerate(lists):
        if index == len(ranks):
            whose, most, known = "the output", None, table.keys()
        else:
            whose, most, known = f"operand {index}", ranks[index], None
        if index:
            writer.write(" -> " if known is not None else ", ")
        entries = writer.write_list(labels, whose, most, known)
        typed.append(entries)
        terms.append(tuple(map(table.__getitem__, entries)))
    explicit = len(lists) > len(ranks)
    inputs = tuple(terms[: len(ranks)])
    return Spec(
        inputs,
        terms[-1] if explicit else implied_output(typed, table, in_order=True),
        "".join(writer.parts),
        Form.LISTS,
        explicit,
        tuple(writer.lists[: len(ranks)]),
        writer.lists[-1] if explicit else None,
        tuple(writer.entries),
    )


class _ListWriter:
    """Checks label lists, and writes them as text so that errors have something to point at."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.length = 0
        self.lists: list[Span] = []
        self.entries: list[tuple[Span, ...]] = []

    def write(self, text: str) -> Span:
        self.parts.append(text)
        self.length += len(text)
        return self.length - len(text), self.length

    def write_list(
        self, labels: object, whose: str, most: int | None, known: Collection[Hashable] | None
    ) -> list[Hashable]:
        """The entries of one list of `most` labels, besides an ellipsis, all of them `known`."""
        if not _is_list(labels):
            raise self._not_a_list(labels, whose)
        size = len(labels)  # type: ignore[arg-type]
        if most is not None and size > most + _FAR_TOO_LONG:  # a range may be endless to write
            raise ShapeError(
                f"{whose} has {count(most, 'rank')}, but its list has {count(size, 'label')}",
                location=self._location(self.write(_shown(labels))),
                suggestion="write one label for each rank",
            )
        start = self.write("[")[0]
        entries: list[Hashable] = []
        spans: list[Span] = []
        dots = False
        for entry in labels:  # type: ignore[attr-defined]
            if spans:
                self.write(", ")
            spans.append(self.write(_shown(entry)))
            self._check_entry(entry, spans[-1], whose, dots, known)
            dots = dots or entry is Ellipsis
            entries.append(entry)
        self.lists.append((start, self.write("]")[1]))
        self.entries.append(tuple(spans))
        return entries

    def _check_entry(
        self, entry: Any, span: Span, whose: str, dots: bool, known: Collection[Hashable] | None
    ) -> None:
        try:
            hash(entry)
        except TypeError:
            raise SubscriptTypeError(
                f"{_shown(entry)} in the labels of {whose} is not hashable",
                location=self._location(span),
                suggestion="labels are integers, strings or other hashable objects, in one flat "
                "list per operand",
            ) from None
        if entry is Ellipsis:
            if dots:
                raise ParseError(
                    f"a second '...' in the labels of {whose}",
                    location=self._location(span),
                    suggestion="one ellipsis stands for all the ranks that have no label",
                )
        elif known is not None and entry not in known:
            seen = [_shown(label) for label in known if label is not Ellipsis]
            raise unknown_output_label(_shown(entry), seen, self._location(span), str)

    def _not_a_list(self, labels: object, whose: str) -> ParseError:
        kind = type(labels).__name__
        if isinstance(labels, str | bytes):
            suggestion = "a spec string goes first, einsum('ij->ji', a); a list has one entry "
            suggestion += "for each rank, ['i', 'j']"
        else:
            suggestion = "after each operand goes the list of its labels, einsum(a, [0, 1], "
            suggestion += "b, [1, 2], [0, 2]); a spec string goes first"
        return SubscriptTypeError(
            f"the labels of {whose} are not a list, but of type {kind}",
            location=self._location(self.write(_shown(labels))),
            suggestion=suggestion,
        )

    def _location(self, span: Span) -> Location:
        return Location(Source("einsum", "".join(self.parts)), *span)


def _is_list(labels: object) -> bool:
    if isinstance(labels, Sequence):
        return not isinstance(labels, str | bytes | bytearray | memoryview)
    return isinstance(labels, np.ndarray) and labels.ndim == 1


def _shown(entry: object) -> str:
    """How a label, or what was passed for a list of them, is printed: on one line, and short."""
    if entry is Ellipsis:
        return ELLIPSIS_TEXT
    number = None if isinstance(entry, bool) else integer_of(entry)
    if number is not None:
        entry = number
        if -_PLAIN_INTEGER < number < _PLAIN_INTEGER:
            return str(number)
    try:
        text = _SHORT.repr(entry)
    except ValueError:  # Python refuses to print an integer of thousands of digits
        text = f"<{type(entry).__name__}>"
    return " ".join(text.split())


def _short_repr() -> Repr:
    short = Repr()
    short.maxstring = short.maxother = short.maxlong = 40
    return short


_SHORT = _short_repr()
