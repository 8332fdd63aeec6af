"""Malformed texts of loops: exact messages, and nothing but errors of ours whatever the input."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from einloom.ir.errors import EinloomError, ParseError
from einloom.ir.text import parse, parse_loops, show
from tests.ir.generate_loops import random_loops

ERRORS = Path(__file__).parent / "texts" / "loops_errors.txt"
CASE, ANSWER = "\n=====\n", "\n---\n"

FRAGMENTS = (
    "(", ")", "[", "]", "{", "}", "<", ">", ",", ";", ":", "=", "==", "..", ".", "?", ".0", "-",
    "+", "*", "**", "//", "~", "not", "and", "if", "else", "for", "while", "in", "step", "carry",
    "let", "yield", "alloc", "check", "fault", "call", "kernel", "hash", "lookup", "insert", "mma",
    "pack", "panel", "append", "atomic", "+=", "across", "splat", "<16>", "<16", "search(", "f32",
    "f32x8", "zq<17>", "x8", "cast[", "nan(0x1)", "1", "1.5", "0x", "`", "`a b`", '"', "\n", "\r",
    "#", "\\", "\x00", "é", "\u2212", "storage", "launch", "slices", "work", "strict", "unaligned",
    "dot", "inout", "stack", "1e999", "complex(", "ceil(", "max(", "sum[i]",
)  # fmt: skip


def message_of(text: str | bytes) -> str:
    with pytest.raises(ParseError) as caught:
        parse_loops(text)
    return str(caught.value)


def test_messages(update_golden: bool) -> None:
    """Each case of loops_errors.txt: a text, and the whole message with its caret."""
    cases = ERRORS.read_text("utf-8").removesuffix("\n").split(CASE)
    pairs = [case.split(ANSWER) for case in cases]
    found = [[text, message_of(text)] for text, _ in pairs]
    if update_golden:
        ERRORS.write_text(CASE.join(ANSWER.join(pair) for pair in found) + "\n", "utf-8")
    assert len(pairs) > 100
    for pair, right in zip(found, pairs, strict=True):
        assert pair == right


def test_a_text_that_is_not_utf8() -> None:
    assert message_of(b"kernel k() {\n\xff") == (
        "<text> is not UTF-8: byte 0xff at offset 13, line 2\n  hint: save the file as UTF-8"
    )


def test_loops_are_no_program() -> None:
    with pytest.raises(ParseError) as caught:
        parse("kernel k(in A: f32[4]) {\n}")
    assert str(caught.value).startswith("<text>:1:1: expected `program`, `fn` or `monoid`")


def mutated(rng: Random, text: str) -> str:
    """The text with a few pieces lost, doubled, moved or replaced."""
    for _ in range(rng.randint(1, 4)):
        start, other = rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice((0, 1, 1, 2, 5, 40)))
        fragment = rng.choice(FRAGMENTS)
        piece = rng.choice(("", fragment, f" {fragment} ", text[other : other + 9]))
        text = text[:start] + piece + text[end:]
    return text


def survives(text: str) -> bool:
    """Whether a text is accepted; anything but an error of ours propagates."""
    try:
        program = parse_loops(text)
    except EinloomError as error:
        assert str(error)
        return False
    assert parse_loops(show(program)) == program, text
    return True


def fuzz(seed: int, count: int) -> None:
    rng = Random(seed)
    accepted = 0
    for _ in range(count):
        text = show(random_loops(rng, 2)) or "storage A: f32[]"
        accepted += sum(survives(mutated(rng, text)) for _ in range(10))
        survives("".join(rng.choice((*FRAGMENTS, " ")) for _ in range(rng.randint(0, 60))))
    assert 0 < accepted < 10 * count  # some mutations are harmless, most are not


def test_damaged_texts_raise_our_errors_only() -> None:
    fuzz(1, 60)


@pytest.mark.deep
def test_many_damaged_texts_raise_our_errors_only() -> None:
    fuzz(2, 3000)


@pytest.mark.parametrize("piece", ["(", "{", "9", "9.", "..", "<", "<1", "`", "for ", "if x {",
                                   "A<16>", ";", "hash lookup", "- "])  # fmt: skip
def test_long_lines(piece: str) -> None:
    text = "kernel k() {\n  let x = " + piece * (1_000_000 // len(piece)) + "\n}\n"
    assert len(message_of(text)) < 1000
