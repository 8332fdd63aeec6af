"""Malformed text: exact messages, and nothing but errors of ours whatever the input."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from einloom.ir.errors import EinloomError, ParseError
from einloom.ir.text import load, parse, parse_definitions, parse_expression, parse_type, show
from tests.ir.generate import random_module

ERRORS = Path(__file__).parent / "texts" / "errors.txt"
CASE, ANSWER = "\n=====\n", "\n---\n"


def message_of(text: str) -> str:
    with pytest.raises(ParseError) as caught:
        parse(text)
    return str(caught.value)


def test_messages(update_golden: bool) -> None:
    """Each case of errors.txt: a text, and the whole message with its caret."""
    cases = ERRORS.read_text("utf-8").removesuffix("\n").split(CASE)
    pairs = [case.split(ANSWER) for case in cases]
    found = [[text, message_of(text)] for text, _ in pairs]
    if update_golden:
        ERRORS.write_text(CASE.join(ANSWER.join(pair) for pair in found) + "\n", "utf-8")
    assert len(pairs) > 100
    for pair, right in zip(found, pairs, strict=True):
        assert pair == right


def test_message_for_an_empty_text() -> None:
    assert message_of("") == (
        "<text>:1:1: expected `program`, `fn` or `monoid`, found the end of the text\n"
        "  \n"
        "  ^\n"
        "  hint: a text holds one program: program name(inputs) -> (outputs) { ... }"
    )


def test_message_for_a_control_character() -> None:
    assert message_of("program p() -> () {\n  A = 1 \x00\n}") == (
        "<text>:2:9: unexpected character (U+0000)\n"
        "    A = 1 \N{REPLACEMENT CHARACTER}\n"
        "          ^\n"
        "  hint: remove it; a program is plain text"
    )


def test_message_in_a_long_line_shows_a_window() -> None:
    text = "program p() -> () {\n  A = " + "1 + " * 1000 + "expp(2)" + " + 1" * 1000 + "\n}"
    lines = message_of(text).splitlines()
    assert lines[0] == "<text>:2:4007: unknown operation expp"
    assert len(lines[1]) < 120 and lines[1].startswith("  ...")
    column = lines[2].index("^^^^")
    assert lines[1][column : column + 4] == "expp"


def test_the_class_of_the_error() -> None:
    with pytest.raises(ValueError):
        parse("program")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            lambda: parse_expression("a +"),
            "<expression>:1:4: expected an expression after `+`, found the end of the text\n"
            "  a +\n     ^",
        ),
        (
            lambda: parse_expression("b", parameters=("a",)),
            "<expression>:1:1: b is no parameter of this definition\n  b\n  ^\n"
            "  hint: a definition reads its parameters only",
        ),
        (
            lambda: parse_type("f32[i=3"),
            "<type>:1:4: this [ is never closed\n  f32[i=3\n     ^\n  hint: close it with ]",
        ),
        (
            lambda: parse_definitions("fn f(x) = x\nprogram p() -> () {}"),
            "<definitions>:2:1: expected `fn` or `monoid` after `x`, found `program`\n"
            "  program p() -> () {}\n  ^^^^^^^",
        ),
    ],
    ids=["expression", "parameter", "type", "definitions"],
)
def test_messages_of_parts(run: object, message: str) -> None:
    assert callable(run)
    with pytest.raises(ParseError) as caught:
        run()
    assert str(caught.value) == message


# ---- files --------------------------------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.ein"
    with pytest.raises(EinloomError) as caught:
        load(path)
    assert str(caught.value) == f"cannot read {path}: No such file or directory"
    assert caught.value.__cause__ is None


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(EinloomError, match=r"cannot read .*: Is a directory"):
        load(tmp_path)


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.ein"
    path.write_bytes("program p() -> () {\n  é = 1\n}".encode("latin-1"))
    with pytest.raises(ParseError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path} is not UTF-8: byte 0xe9 at offset 22, line 2\n  hint: save the file as UTF-8"
    )


def test_a_file_names_itself_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "bad.ein"
    path.write_text("program p() -> () {\n  A = 1 +\n}")
    with pytest.raises(ParseError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}:3:1: expected an expression after `+`")


# ---- whatever the input -------------------------------------------------------------------

FRAGMENTS = (
    "(", ")", "[", "]", "{", "}", "<", ">", ",", ";", ":", "=", "==", "->", "?", "@1", "@", ".0",
    "-", "+", "*", "**", "//", "|", "~", "not", "and", "where", "if", "until", "from", "scan",
    "call", "kernel", "const", "program", "fn", "monoid", "mapping", "layout", "sum[i]", "max:",
    "iota(", "final(", "codes(", "f32", "zq<17>", "q<", "nan", "nan(0x1)", "inf", "1", "1.5", "2j",
    "0x", "`", "`a b`", '"', '"w"', "\n", "\r", "\t", "#", "\\", "\x00", "é", "\u2212", "\ufeff",
    "4x1", "1e999", "down", "extent", "fill", "enc", "cast[", "complex(", "sha256:", "blob",
)  # fmt: skip


def mutated(rng: Random, text: str) -> str:
    """The text with a few pieces lost, doubled, moved or replaced."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice((0, 1, 1, 2, 5, 40)))
        other = rng.randrange(len(text) + 1)
        piece = rng.choice(
            ("", rng.choice(FRAGMENTS), f" {rng.choice(FRAGMENTS)} ", text[other : other + 9])
        )
        text = text[:start] + piece + text[end:]
    return text


def survives(text: str) -> bool:
    """Whether a text is accepted; anything but an error of ours propagates."""
    try:
        module = parse(text)
    except EinloomError as error:
        assert str(error)
        return False
    assert parse(show(module)) == module, text
    return True


def fuzz(seed: int, count: int) -> None:
    rng = Random(seed)
    accepted = 0
    for _ in range(count):
        text = show(random_module(rng, 2))
        accepted += sum(survives(mutated(rng, text)) for _ in range(10))
        survives("".join(rng.choice((*FRAGMENTS, " ")) for _ in range(rng.randint(0, 60))))
    assert 0 < accepted < 10 * count  # some mutations are harmless, most are not


def test_damaged_programs_raise_our_errors_only() -> None:
    fuzz(1, 100)


@pytest.mark.deep
def test_many_damaged_programs_raise_our_errors_only() -> None:
    fuzz(2, 5000)


@pytest.mark.parametrize(
    "piece",
    ["x", "(", "[", "{", ")", "9", "9.", "`", "`a", "\\", '"', "#", ";", "\n", "1 ", "1x", "@1x",
     "nan(", "zq ", " ", "é", "\u2212", ".0", "\ufeff", "'", "a\r"],
)  # fmt: skip
def test_ten_megabytes_in_a_line(piece: str) -> None:
    text = "program p() -> () {\n  A = " + piece * (10_000_000 // len(piece)) + "\n}\n"
    try:
        parse(text)
    except EinloomError as error:
        assert len(str(error)) < 1000


def test_brackets_nested_too_deep() -> None:
    text = "program p() -> () {\n  A = " + "(" * 200_000 + "\n}"
    assert "brackets are nested more than 100000 deep" in message_of(text)
