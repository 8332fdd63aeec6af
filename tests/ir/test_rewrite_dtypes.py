"""Rewriting and dtypes: weak literals, wrapping, rounding, signed zeros, and strict."""

from __future__ import annotations

import pytest

from einloom.ir.rewrite.laws import NEVER, absorbs, distributes, validity
from einloom.ir.types import bool_, f64, i32
from tests.ir.rewriting import rewritten

# ---- dtypes and exactness -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "before", "after"),
    [
        ("A: i32[i=4]", "A[i] * 1", "A[i]"),
        ("A: i32[i=4]", "A[i] * 1.0", "A[i] * 1.0"),  # 1.0 makes the product f64
        ("A: bool[i=4]", "A[i] * 1", "A[i] * 1"),  # 1 makes it i64
        ("A: f32[i=4]", "A[i] ** 1", "A[i]"),
        ("A: i32[i=4]", "A[i] / 1", "A[i] / 1"),  # integers divide to f64
        ("A: f32[i=4]", "A[i] + 100000000 + 1", "A[i] + 100000000.0"),  # 100000001 in f32
        ("A: i8[i=4]", "A[i] + 100 + 100", "A[i] + -56"),  # wraps, as at run time
        ("A: f32[i=4]", "f32(A[i])", "A[i]"),
        ("A: f16[i=4]", "f16(A[i] * A[i]) * A[i]", "f16(A[i] * A[i]) * A[i]"),  # it rounds
        ("A: f16[i=4]", "f16(A[i]) * A[i]", "A[i] * A[i]"),
        ("A: i8[i=4]", "i8(i32(A[i]))", "A[i]"),
        ("A: i64[i=4]", "i8(i32(A[i]))", "i8(A[i])"),
        ("A: i32[i=4]", "i8(f64(A[i]))", "i8(f64(A[i]))"),  # a float saturates, it does not wrap
        ("A: i64[i=4]", "f32(f64(A[i]))", "f32(f64(A[i]))"),  # f64 rounds some i64
        ("A: u8[i=4]", "abs(-A[i])", "-A[i]"),
        ("A: i64[i=4], B: u8[i=4]", "A[i] - (-B[i])", "A[i] - -B[i]"),  # -B wraps in u8
        ("A: i64[i=4], B: i64[i=4]", "A[i] - (-B[i])", "A[i] + B[i]"),
        ("A: i32[i=4]", "max(A[i] + 1, A[i] + 2)", "max(A[i] + 1, A[i] + 2)"),  # sums wrap
        ("A: i32[i=4], B: i32[i=4], C: i32[i=4]", "A[i]*B[i] + A[i]*C[i]", "A[i] * (B[i] + C[i])"),
        ("A: f32[i=4]", "select(True, A[i], 0.0)", "A[i]"),
        ("A: i32[i=4]", "A[i] // 0 + 1 // 0", "A[i] // 0 + 1 // 0"),  # left to run time
        ("A: f32[i=4]", "A[i] / 4", "A[i] * 0.25"),
        ("A: f32[i=4]", "A[i] / 3", "A[i] / 3"),
        ("A: c64[i=4]", "conj(A[i])", "conj(A[i])"),
        ("A: i8[i=4]", "A[i] + select(True, 300, 5)", "A[i] + select(True, 300, 5)"),  # wraps
        ("A: i8[i=4]", "A[i] - (200 - 100)", "A[i] - 100"),
        ("A: f32[i=4]", "not (A[i] == 1.0)", "A[i] != 1.0"),
    ],
)
def test_dtypes_decide(inputs: str, before: str, after: str) -> None:
    text = f"program p({inputs}) -> (T) {{\n  T[i] = {before}\n}}"
    assert rewritten(text) == f"T[i] = {after}"


@pytest.mark.parametrize(
    ("before", "strict"),
    [
        ("A[i] + 0.0", "A[i] + 0.0"),
        ("A[i] + -0.0", "A[i]"),
        ("A[i] - 0.0", "A[i]"),
        ("A[i] * 1.0", "A[i]"),
        ("A[i] * 0.0", "A[i] * 0.0"),
        ("A[i] - A[i]", "A[i] - A[i]"),
        ("A[i] * 2.0 * 3.0", "A[i] * 2.0 * 3.0"),
        ("2.0 * 3.0 * A[i]", "2.0 * 3.0 * A[i]"),
        ("exp(1.0) * A[i]", "exp(1.0) * A[i]"),
        ("sqrt(4.0) * A[i]", "2.0 * A[i]"),
        ("max(A[i], -inf)", "A[i]"),
        ("max(A[i], inf)", "max(A[i], inf)"),
        ("not (A[i] < 1.0)", "not A[i] < 1.0"),
        ("max(A[i], A[i])", "A[i]"),
    ],
)
def test_strict_keeps_what_is_only_nearly_a_law(before: str, strict: str) -> None:
    text = f"program p(A: f64[i=4]) -> (T) {{\n  T[i] = {before}\n}}"
    assert rewritten(text, strict=True) == f"T[i] = {strict}"
    if before != strict:
        return
    assert rewritten(text) != f"T[i] = {before}"


def test_integers_distribute_over_max_where_nothing_overflows() -> None:
    text = """program p(A: i32[i=4], B: i32[i=4], C: i32[i=4]) -> (T) {
      T[i] = max(A[i] + B[i], A[i] + C[i])
    }"""
    assert rewritten(text, assume_no_overflow=True) == "T[i] = A[i] + max(B[i], C[i])"


def test_the_law_table_is_made_precise() -> None:
    assert validity("add", "identity").floats == "ok"
    assert validity("mul", "identity").complexes == "ok"
    assert validity("add", "distributes", "max").integers == "ok"
    assert validity("sub", "commutative") == NEVER
    assert distributes("mul", "sum", f64) == "ok"
    assert distributes("mul", "sum", i32) == "exact"
    assert distributes("mul", "max", f64) == "no"
    assert distributes("and", "any", bool_) == "exact"
    assert absorbs("add", "max", f64) == "ok"
    assert absorbs("add", "max", i32) == "no"
    assert absorbs("min", "max", i32) == "exact"
