"""Conditions, index expressions, scatters and empty ranks, against NumPy and plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from einloom.ir.errors import RangeError
from einloom.ir.interpret import interpret
from einloom.ir.text import parse

Array = Any

TINY = 30_000
"""A memory cap in bytes that forces the statements of these tests into many boxes."""

caps = pytest.mark.parametrize("cap", [2**30, TINY], ids=["whole", "chunked"])


def run(text: str, cap: int = 2**30, **arrays: object) -> dict[str, Array]:
    return interpret(parse(text), arrays, memory_cap=cap)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


# ---- conditions ---------------------------------------------------------------------------


@caps
def test_unreached_cells_hold_the_identity_or_the_fill(cap: int) -> None:
    x = normal(40, 50)
    text = """program p(X: f64[i=N, j=M], L: i64[i=N]) -> (S, T, A, B) {
      S[i] = sum[j] X[i, j] if j < L[i]
      T[i] = max[j] X[i, j] if j < L[i]
      A[i, j] = X[i, j] if j < L[i]
      B: f64[i=N, j=M] fill 7.5 [i, j] = X[i, j] if j < L[i] and i % 2 == 0
    }"""
    lengths = np.arange(40) % 7
    got = run(text, cap, X=x, L=lengths)
    reached = np.arange(50) < lengths[:, None]
    np.testing.assert_allclose(got["S"], np.where(reached, x, 0).sum(1))
    np.testing.assert_array_equal(got["T"], np.where(reached, x, -np.inf).max(1))
    np.testing.assert_array_equal(got["A"], np.where(reached, x, 0))
    even = (np.arange(40) % 2 == 0)[:, None]
    np.testing.assert_array_equal(got["B"], np.where(reached & even, x, 7.5))


@caps
def test_a_condition_removes_points_from_outer_reductions_too(cap: int) -> None:
    x = -np.abs(normal(30, 40)) - 1
    text = """program p(X: f64[i=N, j=M], K: extent) -> (Y, Z) {
      Y = max[i] sum[j] X[i, j] if i < K
      Z = max[i] sum[j] X[i, j] if i >= 3 and j < i
    }"""
    got = run(text, cap, X=x, K=11)
    np.testing.assert_allclose(got["Y"], x[:11].sum(1).max())
    np.testing.assert_allclose(got["Z"], max(x[i, :i].sum() for i in range(3, 30)))


def test_reads_are_not_made_where_the_condition_does_not_hold() -> None:
    text = """program p(X: f64[w=W], M0: extent) -> (Y) {
      Y: f64[m1=ceildiv(W, M0), m0=M0][m1, m0] = X[m1*M0 + m0] if m1*M0 + m0 < W
    }"""
    got = run(text, X=np.arange(10.0), M0=4)["Y"]
    np.testing.assert_array_equal(got.ravel()[:10], np.arange(10))
    np.testing.assert_array_equal(got.ravel()[10:], 0)
    # a later part of the condition is guarded by the parts before it
    text = """program p(X: f64[w=W]) -> (Y) {
      Y: f64[i=W][i] = 1.0 if i + 1 < W and X[i+1] > 4
    }"""
    assert run(text, X=np.arange(7.0))["Y"].tolist() == [0, 0, 0, 0, 1, 1, 0]


def test_stored_is_the_structure_of_a_format() -> None:
    text = """program p(A: f64[i=N] (compressed), B: f64[i=N] (compressed) fill nan,
                        C: f64[i=N], D: i32[i=N] (compressed) fill 3) -> (SA, SB, SC, SD, Y) {
      SA[i] = stored(A[i])
      SB[i] = stored(B[i])
      SC[i] = stored(C[i])
      SD[i] = stored(D[i])
      Y = sum[i] 1 if stored(A[i])
    }"""
    a = np.array([0.0, -0.0, np.nan, 1.0])
    got = run(text, A=a, B=a, C=a, D=np.array([3, 0, 3, 1], np.int32))
    assert got["SA"].tolist() == [False, False, True, True] and got["Y"] == 2
    assert got["SB"].tolist() == [True, True, False, True]
    assert got["SC"].tolist() == [True] * 4
    assert got["SD"].tolist() == [False, True, False, True]


# ---- index expressions, left sides --------------------------------------------------------


def test_gathers_diagonals_and_symbols_as_scalars() -> None:
    w, a = normal(9, 4), normal(6, 6, seed=1)
    index = np.array([8, 0, 3, 3, 255 % 9], np.uint8)
    text = """program p(W: f64[t=T, d=D], idx: u8[b=B], A: f64[n=N, n2=N]) -> (Y, Z, G, M) {
      Y[b, d] = W[idx[b], d]
      Z[b] = W[(idx[b] + 250) % T, idx[b] // 3]
      G[n] = A[n, n] / N
      M[n] = A[N - 1 - n, n % 2] where n < N
    }"""
    got = run(text, W=w, idx=index, A=a)
    np.testing.assert_array_equal(got["Y"], w[index])
    wide = index.astype(int)
    np.testing.assert_array_equal(got["Z"], w[(wide + 250) % 9, wide // 3])
    np.testing.assert_array_equal(got["G"], np.diag(a) / 6)
    np.testing.assert_array_equal(got["M"], [a[5 - n, n % 2] for n in range(6)])


@caps
def test_scatters_combine_through_the_reducer(cap: int) -> None:
    random = np.random.default_rng(5)
    x, index = normal(300, 4), random.integers(0, 7, 300)
    text = """program p(X: f64[t=T, d=D], idx: i64[t=T]) -> (S, M, A, C) {
      S: f64[v=9, d=D][idx[t], d] = sum[t] X[t, d]
      M: f64[v=9, d=D][idx[t], d] = max[t] X[t, d] if t % 3 == 0
      (A: f64[v=9], C: i64[v=9])[idx[t]] = argmax[t] (X[t, 0], iota(t))
    }"""
    got = run(text, cap, X=x, idx=index)
    total, top = np.zeros((9, 4)), np.full((9, 4), -np.inf)
    best, where = np.full(9, -np.inf), np.zeros(9, int)
    for t in range(300):
        total[index[t]] += x[t]
        if t % 3 == 0:
            top[index[t]] = np.maximum(top[index[t]], x[t])
        if x[t, 0] > best[index[t]]:
            best[index[t]], where[index[t]] = x[t, 0], t
    np.testing.assert_allclose(got["S"], total)
    np.testing.assert_array_equal(got["M"], top)
    np.testing.assert_array_equal(got["A"], best)
    np.testing.assert_array_equal(got["C"], where)


@caps
def test_scatters_of_nested_reductions(cap: int) -> None:
    random = np.random.default_rng(6)
    x, index = normal(6, 20, 3), random.integers(0, 4, (6, 20))
    text = """program p(X: f64[i=N, j=M, k=K], idx: i64[i=N, j=M]) -> (Y, Z) {
      Y: f64[v=5][idx[i, j]] = max[i] sum[j] min[k] X[i, j, k]
      Z: f64[v=5][idx[i, j]] = max[i, j] sum[k] X[i, j, k]
    }"""
    got = run(text, cap, X=x, idx=index)
    outer, flat = np.full(5, -np.inf), np.full(5, -np.inf)
    for i in range(6):
        inner = np.zeros(5)
        for j in range(20):
            inner[index[i, j]] += x[i, j].min()
            flat[index[i, j]] = max(flat[index[i, j]], x[i, j].sum())
        for v in set(index[i].tolist()):
            outer[v] = max(outer[v], inner[v])
    np.testing.assert_allclose(got["Y"], outer)
    np.testing.assert_allclose(got["Z"], flat)


@caps
def test_left_sides_that_are_affine(cap: int) -> None:
    x, f = normal(4, 50), normal(5, seed=1)
    text = """program p(X: f64[c=C, p=P], F: f64[r=R]) -> (D, T, U, O) {
      D: f64[a=P, b=P][p, p] = X[1, p]
      T: f64[c=C, w=2*P + R - 2][c, 2*p + r] = sum[p, r] X[c, p] * F[r]
      U: f64[c=C, w=2*P] fill 9 [c, 2*p + 1] = X[c, p] if p > 3
      O: f64[c=C, w=3][c, 1] = sum[p] X[c, p]
    }"""
    got = run(text, cap, X=x, F=f)
    diagonal, transposed, odd = np.zeros((50, 50)), np.zeros((4, 103)), np.full((4, 100), 9.0)
    for c, p in np.ndindex(4, 50):
        diagonal[p, p] = x[1, p]
        if p > 3:
            odd[c, 2 * p + 1] = x[c, p]
        for r in range(5):
            transposed[c, 2 * p + r] += x[c, p] * f[r]
    np.testing.assert_array_equal(got["D"], diagonal)
    np.testing.assert_allclose(got["T"], transposed)
    np.testing.assert_array_equal(got["U"], odd)
    np.testing.assert_allclose(got["O"], np.stack([0 * x[:, 0], x.sum(1), 0 * x[:, 0]], 1))


def test_a_scatter_with_a_user_monoid_and_residues() -> None:
    text = """
    monoid digits: i64 { identity 0
      combine(a, b) = 10*a + b }
    program p(X: i64[t=T], idx: i64[t=T], Q: zq<97>[t=T]) -> (D, S) {
      D: i64[v=3][idx[t]] = digits[t] X[t]
      S: zq<97>[v=3][idx[t]] = prod[t] Q[t]
    }"""
    index = np.array([0, 2, 0, 2, 2, 0])
    q = np.array([50, 60, 70, 80, 90, 96], np.uint64)
    got = run(text, X=np.array([1, 2, 3, 4, 5, 6]), idx=index, Q=q)
    assert got["D"].tolist() == [136, 0, 245]
    assert got["S"].tolist() == [50 * 70 * 96 % 97, 1, 60 * 80 * 90 % 97]


def test_a_scatter_folds_each_cell_in_iteration_order() -> None:
    text = """
    monoid last: i64 { identity -1
      combine(a, b) = b }
    program p(idx: i64[t=T]) -> (L) { L: i64[v=7][idx[t]] = last[t] iota(t) }"""
    index = np.random.default_rng(8).integers(0, 6, 3000)
    expected = [-1] * 7
    for t, cell in enumerate(index.tolist()):
        expected[cell] = t
    assert run(text, idx=index)["L"].tolist() == expected


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("Y[b] = X[idx[b]]", "index 9 is outside rank i of X, its extent is 5 (at b=1)"),
        ("Y[b] = X[idx[b] - 3] if b > 1", "index -2 is outside rank i of X, its extent is 5 (at b=2)"),  # noqa: E501
        ("Y: f32[v=4][idx[b]] = sum[b] 1.0",
         "index 9 is outside rank v of Y, its extent is 4 (at b=1)"),
    ],
)  # fmt: skip
def test_out_of_range(statement: str, message: str) -> None:
    text = f"program p(X: f32[i=N], idx: i64[b=B]) -> (Y) {{\n  {statement}\n}}"
    with pytest.raises(RangeError) as raised:
        run(text, X=np.zeros(5, np.float32), idx=np.array([3, 9, 1]))
    assert raised.value.message == message
    where = raised.value.diagnostics[0].location
    assert where is not None and where.source.line_and_column(where.start)[0] == 2


def test_padding_takes_the_dtype_of_the_tensor() -> None:
    text = """program p(X: f16[i=N], Z: f32[i=0]) -> (Y, E) {
      Y: f16[i=N+2][i] = X?(-inf)[i - 1]
      E: f32[i=2][i] = Z?(4)[i]
    }"""
    got = run(text, X=np.array([1, 2], np.float16), Z=np.zeros(0, np.float32))
    assert got["Y"].dtype == np.float16 and got["Y"].tolist() == [-np.inf, 1, 2, -np.inf]
    assert got["E"].tolist() == [4.0, 4.0]


# ---- empty --------------------------------------------------------------------------------


def test_empty_ranks() -> None:
    text = """program p(A: f64[i=N, j=M], B: i8[i=N, j=M]) -> (C, S, P, X, L, H, G, N2) {
      C[i, j] = A[i, j] + 1
      S[i] = sum[j] A[i, j]
      P[i] = prod[j] A[i, j]
      X[i] = max[j] A[i, j]
      L[i] = max[j] B[i, j]
      H[i] = min[j] B[i, j]
      G: f64[v=3][B[i, j]] = sum[i, j] A[i, j]
      N2 = max[i] sum[j] A[i, j]
    }"""
    got = run(text, A=np.zeros((2, 0)), B=np.zeros((2, 0), np.int8))
    assert got["C"].shape == (2, 0)
    assert got["S"].tolist() == [0, 0] and got["P"].tolist() == [1, 1]
    assert got["X"].tolist() == [-np.inf] * 2
    assert got["L"].tolist() == [-128] * 2 and got["H"].tolist() == [127] * 2
    assert got["G"].tolist() == [0, 0, 0] and got["N2"] == 0
    got = run(text, A=np.zeros((0, 3)), B=np.zeros((0, 3), np.int8))
    assert got["S"].shape == (0,) and got["C"].shape == (0, 3)
    assert got["G"].tolist() == [0, 0, 0] and got["N2"] == -np.inf
