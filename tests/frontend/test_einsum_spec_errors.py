"""What a malformed einsum spec tells the person who typed it."""

from __future__ import annotations

import itertools
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einloom.frontend.einsum.operands import parse_operands
from einloom.frontend.einsum.parse import SubscriptTypeError, parse_spec
from einloom.ir.errors import EinloomError, ParseError, ShapeError

MATRIX, VECTOR, CUBE = np.ones((2, 3)), np.ones(2), np.ones((2, 2, 2))


def message(*arguments: Any) -> str:
    """The error of a call, as a person sees it."""
    with pytest.raises(EinloomError) as caught:
        spec, operands = parse_operands(arguments)
        spec.bind([np.shape(operand) for operand in operands])
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return f"{type(caught.value).__name__}\n{caught.value}"


# Each block is a call, the class of its error, and all that the error prints.
MESSAGES = Path(__file__).with_name("einsum_spec_messages.txt")


def cases() -> list[Any]:
    blocks = [
        block.split("\n", 1) for block in MESSAGES.read_text("utf-8").strip("\n").split("\n\n")
    ]
    return [pytest.param(call, expected, id=call) for call, expected in blocks]


@pytest.mark.parametrize(("call", "expected"), cases())
def test_message(call: str, expected: str) -> None:
    assert eval(call, {**globals(), "einsum": message}) == expected


def test_message_about_an_empty_spec() -> None:
    assert message("") == (
        "ShapeError\n"
        "einsum:1:1: the spec describes 1 operand, but 0 were given\n"
        "  \n"
        "  ^\n"
        "  hint: each term between commas needs its operand"
    )


def test_message_about_a_ragged_operand() -> None:
    lines = message([[1], [1, 2]], [0, 1]).split("\n")
    assert lines[0] == "ShapeError"
    assert lines[1].startswith("operand 0 is not an array: ")
    assert lines[2:] == ["  hint: the rows of a nested list must all have one length"]


def test_message_about_a_spec_with_two_readings() -> None:
    with pytest.raises(ParseError) as caught:
        parse_spec("row col, col k -> row k")
    assert str(caught.value) == (
        "einsum:1:1: this spec can be read letter by letter or as names\n"
        "  row col, col k -> row k\n"
        "  ^^^^^^^\n"
        "  hint: tell the operands' rank counts, or remove the spaces inside terms if letters are "
        "meant"
    )


@pytest.mark.parametrize("spec", [None, 3, b"ij", ["ij"]])
def test_a_spec_that_is_no_text(spec: Any) -> None:
    with pytest.raises(SubscriptTypeError, match="an einsum spec is a str, not of type"):
        parse_spec(spec)


def test_classes() -> None:
    """NumPy raises ValueError for malformed specs and TypeError for labels of a wrong type."""
    assert issubclass(ParseError, ValueError) and issubclass(ShapeError, ValueError)
    assert issubclass(SubscriptTypeError, ParseError) and issubclass(SubscriptTypeError, TypeError)
    with pytest.raises(TypeError):
        parse_operands((None,) * 63)


@pytest.mark.parametrize(
    "spec",
    [
        "a" * 10_000_000,
        " " * 10_000_000 + "%",
        "." * 10_000_000,
        "->" * 5_000_000,
        ("x" * 49 + " ") * 200_000,
        "i" + "," * 1_000_000,
        "a.. " * 2_500_000,
    ],
    ids=["letters", "spaces", "dots", "arrows", "names", "commas", "terms"],
)
def test_ten_megabytes_give_a_short_message(spec: str) -> None:
    with pytest.raises(EinloomError) as caught:
        parse_spec(spec, [2])
    assert len(str(caught.value)) < 600


def garbage(random_source: random.Random) -> str:
    """A string that is close to a spec, or far from it."""
    alphabet = random_source.choice(
        ["ij,->.", "ij ,->... ", "ab cd,->...", "iJ1_%\0 \t\n", "αé→…\ud800\u00a0\u200bi,->", None]
    )
    length = random_source.randrange(14)
    if alphabet is None:
        return "".join(chr(random_source.randrange(0x11000)) for _ in range(length))
    return "".join(random_source.choice(alphabet) for _ in range(length))


def test_garbage_strings_raise_nothing_but_our_errors() -> None:
    random_source = random.Random(20)
    accepted = 0
    for _ in range(5000):
        text = garbage(random_source)
        shapes = [
            tuple(random_source.choice((0, 1, 2)) for _ in range(random_source.randrange(4)))
            for _ in range(random_source.choice((text.count(",") + 1, random_source.randrange(4))))
        ]
        for ranks in None, [len(shape) for shape in shapes]:
            try:
                parse_spec(text, ranks).bind(shapes)
                accepted += 1
            except EinloomError as error:
                str(error).encode()  # printable whatever was typed
    assert 100 < accepted < 9000


def test_garbage_calls_raise_nothing_but_our_errors() -> None:
    random_source = random.Random(21)
    things: list[Any] = [0, 1, -1, 52, "i", "ij", None, 1.5, ..., [], [0], [0, 1], [..., 0], (1, 0)]
    things += [
        MATRIX,
        VECTOR,
        range(2),
        [[0]],
        {},
        {1},
        b"i",
        "i,j->ij",
        "...",
        True,
    ]
    things += [itertools.count(), object(), [object(), {}], 10**5000, [10**5000, "x"], float("nan")]
    for _ in range(5000):
        arguments = [random_source.choice(things) for _ in range(random_source.randrange(6))]
        try:
            spec, operands = parse_operands(arguments)
            spec.bind([np.shape(operand) for operand in operands])
        except EinloomError as error:
            str(error).encode()
