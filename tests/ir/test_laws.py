"""Declared laws of monoids, tested on samples: true ones pass, wrong ones name a counterexample."""

from __future__ import annotations

import pytest

from einloom.ir.definitions import functions_of, monoids_of
from einloom.ir.errors import Diagnostic
from einloom.ir.text import parse
from einloom.ir.verify import check_laws, verify


def complaints(definitions: str, samples: int = 64, seed: int = 0) -> list[Diagnostic]:
    module = parse(definitions + "\nprogram p(A: f32[i=N]) -> (B) { B[i] = A[i] }")
    verify(module)
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
    "no laws": "monoid m: f32 { identity 0.0; combine(a, b) = a - b }",
}


@pytest.mark.parametrize("name", TRUE)
def test_true_laws_pass(name: str) -> None:
    for seed in range(3):
        assert complaints(TRUE[name], seed=seed) == []


WRONG = {
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


def test_samples_follow_the_seed() -> None:
    text = "monoid m: i32 { identity 0; combine(a, b) = a - b; laws commutative }"
    assert complaints(text, seed=1) == complaints(text, seed=1)
    assert complaints(text, seed=1) != complaints(text, seed=2)
