"""What an einsum spec says once it is parsed: labels, the spec itself, and its sizes.

`parse.py` makes a `Spec` from text, `operands.py` from whatever a person passed to `einsum`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property

from einloom.frontend.einsum.tokens import (
    ELLIPSIS_TEXT,
    LETTER,
    LOOKALIKES,
    NAME,
    Span,
    shorten,
    trimmed,
)
from einloom.ir.errors import Location, ShapeError, Source
from einloom.ir.record import record


class Form(Enum):
    """How the labels of a spec were written."""

    LETTERS = "letters"
    NAMES = "names"
    LISTS = "lists"

    @property
    def noun(self) -> str:
        """What one of the labels is called in messages."""
        return "name" if self is Form.NAMES else "label"


@dataclass(frozen=True, slots=True)
class Label:
    """A rank of the iteration space.

    `name` is an ASCII identifier, unique in its spec; `text` is what the person typed (for a
    label list, how the label prints); `ellipsis` marks a rank that a `...` stands for.
    """

    name: str
    text: str = field(compare=False)
    ellipsis: bool = False

    def __hash__(self) -> int:
        return hash(self.name)  # a string keeps its hash; large specs look labels up often

    def __str__(self) -> str:
        return self.text


ELLIPSIS = Label(ELLIPSIS_TEXT, ELLIPSIS_TEXT, ellipsis=True)
"""Stands for all the ranks of a `...` until `Spec.expand` knows how many they are."""


@record
class Spec:
    """A parsed spec. Two specs are equal when their labels are, however they were written.

    `explicit` tells whether the output was written. Spans are offsets into `text`; for label
    lists, `text` is the lists as Python would print them.
    """

    inputs: tuple[tuple[Label, ...], ...]
    output: tuple[Label, ...]
    text: str = field(compare=False)
    form: Form = field(compare=False)
    explicit: bool = field(compare=False)
    input_spans: tuple[Span, ...] = field(compare=False, repr=False)
    output_span: Span | None = field(compare=False, repr=False)
    list_spans: tuple[tuple[Span, ...], ...] | None = field(default=None, compare=False, repr=False)

    @cached_property
    def source(self) -> Source:
        return Source("einsum", self.text)

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """Every label once, in order of first appearance in the inputs."""
        return tuple(dict.fromkeys(label for labels in self.inputs for label in labels))

    @cached_property
    def expanded(self) -> bool:
        """Whether every ellipsis has been replaced by labels."""
        return not any(
            label.ellipsis and label == ELLIPSIS for label in (*self.labels, *self.output)
        )

    @property
    def repeats_output(self) -> bool:
        """Whether a label stands twice in the output, which NumPy does not take."""
        return len(set(self.output)) < len(self.output)

    def location(self, operand: int | None, position: int | None = None) -> Location:
        """Where a term stands (operand None: the output), or the label at a position of it."""
        if operand is None:
            labels, term = self.output, self.output_span or (0, len(self.text))
        else:
            labels, term = self.inputs[operand], self.input_spans[operand]
        if position is None or (operand is None and self.output_span is None):
            return Location(self.source, *trimmed(self.text, term))
        tokens = self._tokens(operand, term)
        hidden = len(labels) - len(tokens)  # an ellipsis is one token and any number of labels
        dots = next((i for i, span in enumerate(tokens) if self._is_ellipsis(span)), len(tokens))
        if position >= dots:
            position = max(dots, position - hidden)
        return Location(self.source, *tokens[position])

    def expand(self, ranks: Sequence[int]) -> Spec:
        """The spec for operands of these rank counts, with every ellipsis spelled out.

        Ellipses align from the right, as in NumPy; the output's holds as many ranks as the
        longest. Raises ShapeError when the number of operands or a rank count does not fit, and,
        as `numpy.einsum` does, when a written output drops ranks that an ellipsis holds.
        """
        if len(ranks) != len(self.inputs):
            raise wrong_operand_count(self.source, self.input_spans, len(ranks))
        depths = []
        for operand, (labels, rank) in enumerate(zip(self.inputs, ranks, strict=True)):
            depth = rank - len(labels)
            if depth and (depth < -1 or ELLIPSIS not in labels):
                raise self._wrong_rank(operand, rank)
            depths.append(depth + 1)
        if self.expanded:
            return self
        held = [d for labels, d in zip(self.inputs, depths, strict=True) if ELLIPSIS in labels]
        ellipsis = self._ellipsis_labels(max(held, default=0))
        if ellipsis and ELLIPSIS not in self.output:
            raise ShapeError(
                f"the output has no '...', but that of the inputs holds "
                f"{count(len(ellipsis), 'rank')}",
                location=self.location(None),
                suggestion=f"write '...' after '->' to keep {_them(ellipsis)}, "
                f"or give {_them(ellipsis)} a label to sum over {_them(ellipsis)}",
            )
        inputs = tuple(
            _replaced(labels, ellipsis[len(ellipsis) - depth :])
            for labels, depth in zip(self.inputs, depths, strict=True)
        )
        return replace(self, inputs=inputs, output=_replaced(self.output, ellipsis))

    def bind(self, shapes: Sequence[Sequence[int]]) -> Binding:
        """The extent of every label for operands of these shapes.

        A size of 1 is stretched to any other, 0 included, between operands. Within one operand
        a repeated label is a diagonal and its sizes must be equal: both as in `numpy.einsum`.
        Raises ShapeError naming the label, the two sizes and the operands.
        """
        sizes = tuple(tuple(shape) for shape in shapes)
        spec = self.expand([len(shape) for shape in sizes])
        extents: dict[Label, int] = {}
        for operand, (labels, shape) in enumerate(zip(spec.inputs, sizes, strict=True)):
            if len(set(labels)) < len(labels):
                spec._check_diagonals(operand, shape)
            for position, (label, extent) in enumerate(zip(labels, shape, strict=True)):
                known = extents.get(label)
                if known is None or (known == 1 and extent != 1):
                    extents[label] = extent
                elif extent != known and extent != 1:
                    raise ShapeError(
                        f"rank {_quoted(spec.form, label)} is {extent} in operand {operand}, "
                        f"but {known} in operand {spec._origin(label, known, sizes)}",
                        location=spec.location(operand, position),
                        suggestion="sizes under one label are equal, or 1 where an operand is "
                        "to be repeated along it",
                    )
        return Binding(spec, sizes, extents)

    def _origin(self, label: Label, extent: int, shapes: Sequence[Sequence[int]]) -> int:
        """The first operand that gives a label this extent."""
        operands = enumerate(zip(self.inputs, shapes, strict=True))
        return next(
            operand
            for operand, (labels, shape) in operands
            if (label, extent) in zip(labels, shape, strict=True)
        )

    def _check_diagonals(self, operand: int, shape: Sequence[int]) -> None:
        sizes: dict[Label, int] = {}
        for position, (label, extent) in enumerate(zip(self.inputs[operand], shape, strict=True)):
            known = sizes.setdefault(label, extent)
            if known != extent:
                raise ShapeError(
                    f"rank {_quoted(self.form, label)} is both {known} and {extent} "
                    f"in operand {operand}",
                    location=self.location(operand, position),
                    suggestion="a label repeated in one operand reads its diagonal, so the "
                    "sizes must be equal; size 1 is not stretched there",
                )

    def _wrong_rank(self, operand: int, rank: int) -> ShapeError:
        labels = self.inputs[operand]
        term = self.location(operand)
        typed = self.text[term.start : term.end]
        written = len(labels) - (ELLIPSIS in labels)
        noun = self.form.noun
        has = f"operand {operand} has {count(rank, 'rank')}"
        if ELLIPSIS in labels:
            message = f"{has}, too few for the {count(written, noun)} of {shorten(typed)}"
            suggestion = "'...' may stand for no rank at all, but every label needs one"
        else:
            message = f"{has}, but {shorten(typed)} has {count(written, noun)}"
            suggestion = f"write one {noun} for each rank"
            if written < rank:
                suggestion += ", or '...' for those to be carried along"
        words = typed.split()
        if self.form is Form.LETTERS and len(words) == rank and len(max(words, default="")) > 2:
            suggestion += f"; for ranks named by words, pass lists: einsum(a, [{words[0]!r}, ...])"
        lookalike = next((c for c in typed if c in LOOKALIKES), None)
        if lookalike and self.form is not Form.LISTS:
            suggestion = (
                f"'{lookalike}' (U+{ord(lookalike):04X}) was read as a label; "
                f"was '{LOOKALIKES[lookalike]}' meant?"
            )
        return ShapeError(message, location=term, suggestion=suggestion)

    def _ellipsis_labels(self, depth: int) -> tuple[Label, ...]:
        taken = {label.name for label in self.labels}
        prefix = "e"
        while any(name.startswith(prefix) and name[len(prefix) :].isdigit() for name in taken):
            prefix += "_"
        return tuple(
            Label(f"{prefix}{i}", f"...[{i - depth}]", ellipsis=True) for i in range(depth)
        )

    def _tokens(self, operand: int | None, term: Span) -> Sequence[Span]:
        if self.list_spans is not None:
            return self.list_spans[len(self.inputs) if operand is None else operand]
        token = LETTER if self.form is Form.LETTERS else NAME
        return [match.span() for match in token.finditer(self.text, *term)]

    def _is_ellipsis(self, span: Span) -> bool:
        return self.text[span[0] : span[1]] == ELLIPSIS_TEXT


@record
class Binding:
    """A spec together with the shapes of its operands.

    `spec` has no ellipsis left; `extents` gives the size of every label.
    """

    spec: Spec
    shapes: tuple[tuple[int, ...], ...]
    extents: dict[Label, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the output."""
        return tuple(self.extents[label] for label in self.spec.output)

    def stretched(self, operand: int) -> tuple[bool, ...]:
        """For each rank of an operand, whether its size is 1 where the label's is not."""
        labels, shape = self.spec.inputs[operand], self.shapes[operand]
        return tuple(self.extents[k] != extent for k, extent in zip(labels, shape, strict=True))


def _replaced(labels: tuple[Label, ...], ellipsis: tuple[Label, ...]) -> tuple[Label, ...]:
    if ELLIPSIS not in labels:
        return labels
    at = labels.index(ELLIPSIS)
    return labels[:at] + ellipsis + labels[at + 1 :]


def _quoted(form: Form, label: Label) -> str:
    return label.text if form is Form.LISTS else shorten(label.text)


def count(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _was(number: int) -> str:
    return "was given" if number == 1 else "were given"


def _them(ranks: Sequence[Label]) -> str:
    return "it" if len(ranks) == 1 else "them"


def wrong_operand_count(source: Source, terms: Sequence[Span], given: int) -> ShapeError:
    """The error for too few or too many operands.

    Its caret stands under the first term without an operand, or under the last term.
    """
    expected = len(terms)
    if given < expected:
        suggestion = "each term between commas needs its operand"
        if given == 1:
            suggestion += "; a list of operands has to be unpacked: einsum(spec, *operands)"
    else:
        suggestion = "each operand needs its term, after a ','"
    return ShapeError(
        f"the spec describes {count(expected, 'operand')}, but {given} {_was(given)}",
        location=Location(source, *trimmed(source.text, terms[min(given, expected - 1)])),
        suggestion=suggestion,
    )
