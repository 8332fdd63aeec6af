"""Declared laws of monoids, tested on samples: true ones pass, wrong ones name a counterexample."""

from __future__ import annotations

from typing import Any

import pytest

import einloom as el
from einloom.ir.definitions import functions_of, monoids_of
from einloom.ir.errors import Diagnostic, ParseError
from einloom.ir.program import Monoid
from einloom.ir.text import parse
from einloom.ir.verify import check_laws, verify

PROGRAM = "\nprogram p(A: f32[i=N]) -> (B) { B[i] = A[i] }"


def complaints(definitions: str, samples: int = 64, seed: int = 0) -> list[Diagnostic]:
    module = parse(definitions + PROGRAM)
    (monoid,) = monoids_of(module).values()
    return check_laws(monoid, functions_of(module).values(), samples, seed)


ALL = "laws associative, commutative, idempotent, identity"
TRUE = {
    "max of floats": f"monoid m: f32 {{ identity -inf; combine(a, b) = max(a, b); {ALL} }}",
    "min of integers": f"monoid m: i8 {{ identity 127; combine(a, b) = min(a, b); {ALL} }}",
    "or": f"monoid m: bool {{ identity False; combine(a, b) = a or b; {ALL} }}",
    "sum of floats": "monoid m: f64 { identity 0.0; combine(a, b) = a + b; "
    "laws associative, commutative, identity }",
    "sum of bf16": "monoid m: bf16 { identity 0.0; combine(a, b) = a + b; laws commutative }",
    "product that wraps": "monoid m: u16 { identity 1; combine(a, b) = a * b; "
    "laws associative, commutative, identity }",
    "product of residues": "monoid m: zq<2305843009213693951> { identity 1; combine(a, b) = a * b; "
    "laws associative, commutative, identity }",
    "complex product": "monoid m: c64 { identity 1; combine(a, b) = a * b; "
    "laws associative, commutative, identity }",
    "running softmax": "fn scaled(d: f32, m: f32, top: f32) = d * exp(m - top)\n"
    "monoid two_pass: (f32, f32) { identity (-inf, 0.0); "
    "combine(a, b) = (max(a.0, b.0), scaled(a.1, a.0, max(a.0, b.0)) + "
    "scaled(b.1, b.0, max(a.0, b.0))); laws associative, commutative, identity }",
    # Counts of samples may add up to 0, where the mean is NaN, or nearly, where digits are lost.
    "mean and variance": "monoid m: (f32, f32, f32) { identity (0.0, 0.0, 0.0); "
    "combine(a, b) = (a.0 + b.0, a.1 + (b.1 - a.1) * b.0 / (a.0 + b.0), "
    "a.2 + b.2 + (b.1 - a.1) ** 2 * a.0 * b.0 / (a.0 + b.0)); laws associative, commutative }",
    "mean of a count": "monoid m: (i64, f64) { identity (0, 0.0); "
    "combine(a, b) = (a.0 + b.0, a.1 + (b.1 - a.1) * b.0 / (a.0 + b.0)); "
    "laws associative, commutative }",
    "no laws": "monoid m: f32 { identity 0.0; combine(a, b) = a - b }",
}


@pytest.mark.parametrize("name", TRUE)
def test_true_laws_pass(name: str) -> None:
    for seed in range(3):
        assert complaints(TRUE[name], seed=seed) == []
    verify(parse(TRUE[name] + PROGRAM))


WRONG = {
    "off by little everywhere": (
        "monoid m: f64 { identity 0.0; combine(a, b) = a + b * 1.0001; laws commutative }",
        ["m is not commutative: m(a, b) is {0}, m(b, a) is {1} for a = "],
    ),
    "subtraction": (
        "monoid m: i32 { identity 0; combine(a, b) = a - b; laws associative, commutative }",
        [
            "m is not associative: m(m(a, b), c) is {0}, m(a, m(b, c)) is {1} for a = ",
            "m is not commutative: m(a, b) is {0}, m(b, a) is {1} for a = ",
        ],
    ),
    "an idempotent sum": (
        "monoid m: i32 { identity 0; combine(a, b) = a + b; laws idempotent }",
        ["m is not idempotent: m(a, a) is {0}, a is {1} for a = "],
    ),
    "the wrong identity": (
        "monoid m: f32 { identity 1.0; combine(a, b) = a + b; laws identity }",
        ["the identity of m is none: m(identity, a) is {0}, a is {1} for a = "],
    ),
    "an identity on one side": (
        "monoid m: f32 { identity 0.0; combine(a, b) = b - a; laws identity }",
        ["the identity of m is none: m(identity, a) is {0}, m(a, identity) is {1} for a = "],
    ),
    "the mean": (
        "monoid m: f64 { identity 0.0; combine(a, b) = (a + b) / 2.0; laws associative }",
        ["m is not associative: m(m(a, b), c) is {0}, m(a, m(b, c)) is {1} for a = "],
    ),
    "ties to the left": (
        "monoid m: (i32, i32) { identity (-2147483648, 0); "
        "combine(a, b) = (max(a.0, b.0), select(a.0 >= b.0, a.1, b.1)); laws commutative }",
        ["m is not commutative: m(a, b) is ({0}), m(b, a) is ({1}) for a = ("],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_laws_are_named_with_a_counterexample(name: str) -> None:
    text, expected = WRONG[name]
    found = complaints(text)
    assert len(found) == len(expected)
    for diagnostic, pattern in zip(found, expected, strict=True):
        head, middle, tail = pattern.replace("{0}", "{}").replace("{1}", "{}").split("{}")
        message = diagnostic.message
        assert message.startswith(head) and middle in message and tail in message
        assert diagnostic.location is not None
        assert diagnostic.suggestion is not None


def test_a_counterexample_is_one() -> None:
    """The numbers of the message, put into the monoid by hand, differ as it says."""
    (found,) = complaints("monoid m: i64 { identity 0; combine(a, b) = a - 2*b; laws commutative }")
    words = found.message.replace(",", " ").split()
    a, b = int(words[words.index("a", words.index("for")) + 2]), int(words[-1])
    one, other = int(words[words.index("is", 4) + 1]), int(words[words.index("is", 9) + 1])

    def wrapped(x: int) -> int:
        return (x + 2**63) % 2**64 - 2**63

    assert (one, other) == (wrapped(a - 2 * b), wrapped(b - 2 * a))
    assert found.suggestion == "take commutative out of its laws, or correct combine"


def test_samples_are_simple_at_first_and_then_follow_the_seed() -> None:
    simple = "monoid m: i32 { identity 0; combine(a, b) = a - b; laws commutative }"
    assert complaints(simple, seed=1) == complaints(simple, seed=2)
    rare = simple.replace("a - b", "a + b + select(a > 1000, 1, 0)")
    assert complaints(rare, samples=25) == []
    assert complaints(rare, seed=1) == complaints(rare, seed=1)
    assert complaints(rare, seed=1) != complaints(rare, seed=2)


def test_the_verifier_points_at_the_laws() -> None:
    text = (
        """monoid m: i32 {
  identity 0
  combine(a, b) = a - b
  laws identity, commutative
}"""
        + PROGRAM
    )
    with pytest.raises(ParseError) as caught:
        verify(parse(text))
    assert [str(d).splitlines()[0] for d in caught.value.diagnostics] == [
        "<text>:4:3: the identity of m is none: m(identity, a) is -1, m(a, identity) is 1 "
        "for a = 1",
        "<text>:4:3: m is not commutative: m(a, b) is 1, m(b, a) is -1 for a = 2, b = 1",
    ]
    assert str(caught.value.diagnostics[0]).splitlines()[1:] == [
        "    laws identity, commutative",
        "    ^^^^^^^^^^^^^^^^^^^^^^^^^^",
        "  hint: take identity out of its laws, or correct combine",
    ]


def test_equal_monoids_are_tested_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they stand elsewhere in the text; then the place is that of each."""
    from einloom.ir.verify import laws

    runs: list[str] = []
    original = laws._evaluated

    def counted(monoid: Monoid, *rest: Any) -> Any:
        runs.append(monoid.name)
        return original(monoid, *rest)

    monkeypatch.setattr(laws, "_evaluated", counted)
    text = "monoid once: i16 { identity 3; combine(a, b) = a + b - 5; laws identity }"
    lines = []
    for before in ("", "\n", "\n\n"):
        with pytest.raises(ParseError) as caught:
            verify(parse(before + text + PROGRAM))
        location = caught.value.diagnostics[0].location
        assert location is not None
        lines.append(str(location))
    assert runs == ["once"]
    assert lines == ["<text>:1:59", "<text>:2:59", "<text>:3:59"]


def test_a_semiring_is_tested_too() -> None:
    with pytest.raises(ParseError) as caught:
        el.define_semiring(
            "m", "*", "monoid m: f64 { identity 0.0; combine(a, b) = a - b; laws associative }"
        )
    assert caught.value.message.startswith("m is not associative: m(m(a, b), c) is ")
