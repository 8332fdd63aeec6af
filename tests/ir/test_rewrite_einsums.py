"""Rewriting of statements: nesting, folds, domains, scans, extents that stay."""

from __future__ import annotations

import numpy as np

from einloom.ir.interpret import interpret
from einloom.ir.rewrite import rewrite
from einloom.ir.rules import (
    DENEST_RULES,
    EINSUM_RULES,
    NEST_RULES,
)
from tests.ir.rewriting import SIMPLIFYING, program, rewritten

# ---- einsum algebra -----------------------------------------------------------------------

CHAIN = """program p(A: f64[i=4, k=5], B: f64[k=5, j=6], C: f64[j=6, l=7]) -> (U) {
  T[i, j] = sum[k] A[i, k] * B[k, j]
  U[i, l] = sum[j] T[i, j] * C[j, l]
}"""


def test_nesting_and_back() -> None:
    nested = rewrite(program(CHAIN), NEST_RULES).module
    assert [str(s) for s in nested.body] == ["U[i, l] = sum[j, k] A[i, k] * B[k, j] * C[j, l]"]
    back = rewrite(nested, DENEST_RULES).module
    # Two products cost the same in either order here, 4 * 5 * 6 and 5 * 6 * 7; the first is less.
    assert [str(s) for s in back.body] == [
        "U_part[i, j] = sum[k] A[i, k] * B[k, j]",
        "U[i, l] = sum[j] U_part[i, j] * C[j, l]",
    ]


def test_nesting_renames_a_captured_index() -> None:
    text = """program p(A: f64[i=4, k=5], C: f64[j=4, k=6]) -> (U) {
      T[i] = sum[k] A[i, k]
      U[j] = sum[k] T[j] * C[j, k]
    }"""
    assert rewritten(text, NEST_RULES) == "U[j] = sum[k, k_1] A[j, k_1] * C[j, k]"


def test_nesting_on_a_diagonal_identifies_labels() -> None:
    text = """program p(A: f64[i=4, k=5], B: f64[k=5, j=4]) -> (U) {
      T[i, j] = sum[k] A[i, k] * B[k, j]
      U = sum[i] T[i, i]
    }"""
    assert rewritten(text, NEST_RULES) == "U[] = sum[i, k] A[i, k] * B[k, i]"


def test_no_nesting_under_another_fold_than_the_product_distributes_over() -> None:
    text = """program p(A: f64[i=4, k=5], C: f64[i=4]) -> (U) {
  T[i] = max[k] A[i, k]
  U = sum[i] T[i] * C[i]
}"""
    assert rewrite(program(text), NEST_RULES).firings == 0


def test_no_nesting_of_a_result_or_of_what_two_read() -> None:
    assert rewrite(program(CHAIN.replace("-> (U)", "-> (T, U)")), NEST_RULES).firings == 0
    twice = CHAIN.replace("C[j, l]\n", "C[j, l] * T[j, i]\n").replace("j=6", "j=4")
    assert rewrite(program(twice), NEST_RULES).firings == 0


def test_a_scattered_diagonal_is_no_copy() -> None:
    text = """program p(A: f64[i=4, j=4]) -> (T) {
      P: f64[p=4, q=4][i, i] = A[i, i]
      T[i, j] = P[i, j]
    }"""
    assert "P[i, j]" in rewritten(text)


def test_extents_stay_where_an_access_was_the_only_one_to_tell() -> None:
    text = """program p(A: f64[i=N, j=M]) -> (T) {
      T[i] = sum[j] A[i, j] * 0.0
    }"""
    assert rewritten(text) == "T[i] = f64(0.0) where i < N"


def test_sum_over_an_unused_index_multiplies_by_its_symbol() -> None:
    text = "program p(A: i8[i=4], K: extent) -> (T) {\n  T[i] = sum[k] A[i] where k < K\n}"
    assert rewritten(text) == "T[i] = A[i] * K"
    module = rewrite(program(text), EINSUM_RULES).module
    values = np.array([1, -2, 3, 127], np.int8)
    found = interpret(module, {"A": values, "K": 300})["T"]
    assert np.array_equal(found, np.sum([values] * 300, axis=0, dtype=np.int8))


def test_sum_over_an_unused_index_of_a_computed_extent() -> None:
    text = "program p(A: i8[i=4], K: extent) -> (T) {\n  T[i] = sum[k] A[i] where k < 1000*K\n}"
    module = rewrite(program(text), EINSUM_RULES).module
    assert str(module.body[0]) == "T[i] = A[i] * i8(1000 * K)"
    values = np.array([1, -2, 3, 127], np.int8)
    found = interpret(module, {"A": values, "K": 3})["T"]
    assert np.array_equal(found, np.sum([values] * 3000, axis=0, dtype=np.int8))


def test_idempotent_fold_needs_an_iteration() -> None:
    text = "program p(A: f64[i=4], K: extent) -> (T) {\n  T[i] = max[k] A[i] where k < K\n}"
    assert rewritten(text) == "T[i] = max[k] A[i] where k < K"
    assert rewritten(text.replace("k < K", "k < K + 1")) == "T[i] = A[i]"


def test_a_scan_loses_the_state_that_nobody_reads() -> None:
    text = """program p(A: f64[t=5, i=4]) -> (T) {
      scan t < 5 from {
        S[0, i] = 0.0 where i < 4
        D[0, i] = 0.0 where i < 4
      } {
        S[t+1, i] = S[t, i] + A[t, i]
        D[t+1, i] = D[t, i] + S[t, i]
      }
      T[i] = final(S)[i]
    }"""
    result = rewritten(text)
    assert "D[" not in result
    assert "S[t+1, i] = S[t, i] + A[t, i]" in result


def test_a_scan_that_nobody_reads_goes() -> None:
    text = """program p(A: f64[t=5, i=4]) -> (T) {
      scan t < 5 from { S[0, i] = 0.0 where i < 4 } { S[t+1, i] = S[t, i] + A[t, i] }
      U[i] = final(S)[i] * 0.0
      T[i] = A[0, i]
    }"""
    assert rewritten(text) == "T[i] = A[0, i]"


def test_the_condition_of_a_scan_is_simplified_too() -> None:
    text = """program p(A: f64[i=4]) -> (T) {
      scan t < 5 from {
        S[0] = 0.0
      } {
        S[t+1] = S[t] + A[0]
      } until S[t+1-1] * 1.0 > 2.0
      T = final(S)
    }"""
    assert "until S[t+1-1] > 2.0" in rewritten(text)


def test_residues_have_the_laws_of_a_ring() -> None:
    text = """program p(A: zq<97>[i=4, k=1], B: zq<97>[i=4]) -> (T) {
      P[i] = sum[k] A[i, k] * B[i] + B[i] * A[i, k]
      T[i] = P[i] * 1 + B[i] * 0
    }"""
    module = program(text)
    after = rewrite(module, SIMPLIFYING, strict=True).module
    assert len(str(after)) < len(str(module))
    arrays = {
        "A": np.array([[1], [96], [50], [0]], np.uint64),
        "B": np.array([5, 96, 60, 7], np.uint64),
    }
    found = interpret(after, arrays)["T"]
    assert np.array_equal(found, interpret(module, arrays)["T"])
    assert np.array_equal(found, 2 * arrays["A"][:, 0] * arrays["B"] % 97)


def test_equal_and_uniform_constants() -> None:
    text = """program p(A: f64[i=2]) -> (T) {
      const C: f64[i=2] = [1.0, 1.0]
      const D: f64[i=2] = [2.0, 3.0]
      const E: f64[i=2] = [2.0, 3.0]
      T[i] = A[i] * C[i] * D[i] + E[i]
    }"""
    assert rewritten(text).splitlines()[1:] == ["T[i] = A[i] * D[i] + D[i]"]
