"""The interpreter on statements of every form, against NumPy and plain loops."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from einloom.ir.errors import UnsupportedError
from einloom.ir.expressions import Access, Apply, Index, Literal
from einloom.ir.interpret import interpret
from einloom.ir.program import Einsum, Input, Module, Reduction, Target
from einloom.ir.text import parse
from einloom.ir.types import Rank, TensorType, f32, f64

Array = Any

TINY = 30_000
"""A memory cap in bytes that forces the statements of these tests into many boxes."""

caps = pytest.mark.parametrize("cap", [2**30, TINY], ids=["whole", "chunked"])


def run(text: str, cap: int = 2**30, **arrays: object) -> dict[str, Array]:
    return interpret(parse(text), arrays, memory_cap=cap)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


# ---- products, maps, reductions -----------------------------------------------------------


@caps
def test_matrix_product(cap: int) -> None:
    a, b = normal(30, 40), normal(40, 20, seed=1)
    text = "program p(A: f64[i=N, j=M], B: f64[j=M, k=K]) -> (C) { C[i, k] = A[i, j] * B[j, k] }"
    np.testing.assert_allclose(run(text, cap, A=a, B=b)["C"], a @ b)


@caps
def test_attention(cap: int) -> None:
    q, k, v = normal(2, 15, 3), normal(2, 17, 3, seed=1), normal(2, 17, 4, seed=2)
    text = """program attention(Q: f64[h=H, p=P, e=E], K: f64[h=H, m=M, e=E],
                         V: f64[h=H, m=M, f=F]) -> (AV) {
      QK[h, p, m] = Q[h, p, e] * K[h, m, e]
      GM[h, p]    = max[m] QK[h, p, m]
      SN[h, p, m] = exp(QK[h, p, m] - GM[h, p])
      SD[h, p]    = sum[m] SN[h, p, m]
      AV[h, p, f] = SN[h, p, m] / SD[h, p] * V[h, m, f]
    }"""  # fmt: skip
    weights = np.exp(np.einsum("hpe,hme->hpm", q, k))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("hpm,hmf->hpf", weights, v)
    np.testing.assert_allclose(run(text, cap, Q=q, K=k, V=v)["AV"], expected)


@caps
def test_convolution_with_padding_and_stride(cap: int) -> None:
    x, f = normal(3, 2, 21), normal(4, 2, 5, seed=1)
    text = """program conv(X: f64[b=B, c=C, w=W], F: f64[k=K, c=C, r=R]) -> (Y) {
      Y: f64[b=B, k=K, p=(W + 1) // 2][b, k, p] = sum[c, r] X?(0)[b, c, 2*p + r - 2] * F[k, c, r]
    }"""
    expected = np.zeros((3, 4, 11))
    for b, k, p in np.ndindex(expected.shape):
        for c, r in np.ndindex(2, 5):
            if 0 <= 2 * p + r - 2 < 21:
                expected[b, k, p] += x[b, c, 2 * p + r - 2] * f[k, c, r]
    np.testing.assert_allclose(run(text, cap, X=x, F=f)["Y"], expected)


@caps
def test_min_plus(cap: int) -> None:
    a, b = normal(20, 30), normal(30, 10, seed=1)
    text = """program p(A: f64[i=N, j=M], B: f64[j=M, k=K]) -> (C) {
      C[i, k] = min[j] A[i, j] + B[j, k]
    }"""
    expected = (a[:, :, None] + b[None]).min(1)
    np.testing.assert_array_equal(run(text, cap, A=a, B=b)["C"], expected)


@caps
def test_reductions_nest(cap: int) -> None:
    x = normal(6, 25, 33)
    text = """program p(X: f64[a=A, b=B, c=C]) -> (Y, Z, W) {
      Y[a] = max[b] sum[c] X[a, b, c]
      Z = min[a] max[b] sum[c] X[a, b, c]
      W = sum[a] sum[b] prod[c] X[a, b, c]
    }"""
    got = run(text, cap, X=x)
    np.testing.assert_allclose(got["Y"], x.sum(2).max(1))
    np.testing.assert_allclose(got["Z"], x.sum(2).max(1).min())
    np.testing.assert_allclose(got["W"], x.prod(2).sum())


def test_an_index_that_the_body_does_not_name_counts() -> None:
    text = """program p(X: f64[i=N], M: extent) -> (Y, C) {
      Y = sum[i, j] X[i] where j < M
      C = sum[i, j] 1 where i < 3, j < M
    }"""
    got = run(text, X=np.arange(4.0), M=5)
    assert got["Y"] == 30 and got["C"] == 15 and got["C"].dtype == np.int64


@pytest.mark.parametrize(
    ("dtype", "numpy"),
    [("bool", "bool"), ("i8", "i1"), ("u16", "u2"), ("i64", "i8"), ("f16", "f2"), ("f32", "f4"),
     ("f64", "f8"), ("c64", "c8"), ("c128", "c16")],
)  # fmt: skip
def test_sums_and_products_stay_in_their_dtype(dtype: str, numpy: str) -> None:
    x = (normal(4, 50) * 40).astype(numpy)
    text = f"program p(X: {dtype}[i=N, j=M]) -> (S, P) {{ S[i] = sum[j] X[i, j]  P[i] = prod[j] X[i, j] }}"  # fmt: skip  # noqa: E501
    text = text.replace("  P[i]", "\n P[i]")
    got = run(text, X=x)
    assert got["S"].dtype == got["P"].dtype == x.dtype
    if dtype == "bool":
        np.testing.assert_array_equal(got["S"], x.any(1))
        np.testing.assert_array_equal(got["P"], x.all(1))
    elif dtype == "f16":  # accumulates in f32
        np.testing.assert_array_equal(got["S"], x.astype("f4").sum(1).astype("f2"))
    else:
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(got["S"], x.sum(1, dtype=x.dtype), rtol=1e-4)
            np.testing.assert_allclose(got["P"], x.prod(1, dtype=x.dtype), rtol=1e-4)


def test_accumulator_dtype() -> None:
    x = np.full((2, 100), 100, np.int8)
    text = """program p(X: i8[i=N, j=M]) -> (A, B, C) {
      A[i] = sum[j] X[i, j]
      B[i] = sum:i32[j] X[i, j]
      C[i] = max[k] sum:f64[j] X[i, j] where k < 2
    }"""
    got = run(text, X=x)
    assert got["A"].tolist() == [16, 16] and got["A"].dtype == np.int8
    assert got["B"].tolist() == [10000, 10000] and got["B"].dtype == np.int32
    assert got["C"].tolist() == [10000.0, 10000.0] and got["C"].dtype == np.float64


def test_any_all_xor() -> None:
    x = np.array([[0, 3, 0], [5, 6, 3], [0, 0, 0]], np.int16)
    text = """program p(X: i16[i=N, j=M]) -> (A, B, C) {
      A[i] = any[j] X[i, j]
      B[i] = all[j] X[i, j]
      C[i] = xor[j] X[i, j]
    }"""
    got = run(text, X=x)
    assert got["A"].tolist() == [True, True, False] and got["A"].dtype == np.bool_
    assert got["B"].tolist() == [False, True, False]
    assert got["C"].tolist() == [3, 0, 0] and got["C"].dtype == np.int16


# ---- argmax -------------------------------------------------------------------------------

ARG = """program p(X: {0}[p=P, m=M]) -> (V, I, W, J) {{
  (V, I)[p] = argmax[m] (X[p, m], iota(m))
  (W, J)[p] = argmin[m] (X[p, m], iota(m))
}}"""


@caps
@pytest.mark.parametrize("dtype", ["f64", "f16", "i8", "bool"])
def test_argmax_and_argmin_take_the_first(dtype: str, cap: int) -> None:
    numpy = {"f64": "f8", "f16": "f2", "i8": "i1", "bool": "?"}[dtype]
    x = np.random.default_rng(3).integers(0, 5, (40, 30)).astype(numpy)
    if dtype[0] == "f":
        x[3, 7] = x[3, 20] = x[4, 0] = x[5, 29] = np.nan
        x[6] = np.nan
        x[7], x[8] = -np.inf, np.inf
    got = run(ARG.format(dtype), cap, X=x)
    np.testing.assert_array_equal(got["I"], x.argmax(1))
    np.testing.assert_array_equal(got["J"], x.argmin(1))
    np.testing.assert_array_equal(got["V"], x.max(1))
    np.testing.assert_array_equal(got["W"], x.min(1))
    assert got["V"].dtype == x.dtype and got["I"].dtype == np.int64


def test_argmax_over_two_ranks_and_a_condition() -> None:
    x = np.random.default_rng(4).integers(0, 3, (5, 6, 7))
    text = """program p(X: i64[b=B, i=N, j=M]) -> (V, I) {
      (V, I)[b] = argmax[i, j] (X[b, i, j], 100*iota(i) + iota(j)) if (i + j) % 2 == 1 and b < 4
    }"""
    got = run(text, X=x)
    for b in range(5):
        best, where = np.iinfo(np.int64).min, 0
        for i, j in np.ndindex(6, 7):
            if (i + j) % 2 == 1 and b < 4 and x[b, i, j] > best:
                best, where = int(x[b, i, j]), 100 * i + j
        assert (got["V"][b], got["I"][b]) == (best, where)


def test_argmax_takes_the_first_across_boxes() -> None:
    x = np.random.default_rng(7).integers(0, 3, (3, 30_000)).astype(np.float32)
    x[1, [7, 20_000]] = np.nan
    got = run(ARG.format("f32"), TINY, X=x)
    np.testing.assert_array_equal(got["I"], x.argmax(1))
    np.testing.assert_array_equal(got["J"], x.argmin(1))


def test_argmax_of_nothing_and_of_the_lowest_value() -> None:
    got = run(ARG.format("f32"), X=np.zeros((2, 0), np.float32))
    assert got["V"].tolist() == [-np.inf] * 2 and got["I"].tolist() == [0, 0]
    assert got["W"].tolist() == [np.inf] * 2 and got["J"].tolist() == [0, 0]
    text = "program p(X: f32[m=M]) -> (V, I) { (V, I)[] = argmax[m] (X[m], iota(m)) if m > 1 }"
    got = run(text, X=np.full(4, -np.inf, np.float32))
    assert got["V"] == -np.inf and got["I"] == 2


# ---- tuples and definitions ---------------------------------------------------------------


def test_tuples_are_structured_arrays() -> None:
    text = """program p(X: (f32, i64)[i=N], Y: f16[i=N]) -> (T, U, S) {
      T[i] = (X[i].1, (Y[i] * 2, X[i].0))
      U[i] = T[i].1.0 + 1
      S[i] = select(iota(i) > 0, X[i], (7, 8))
    }"""
    x = np.array([(1.5, 2), (2.5, -3)], [("f0", "f4"), ("f1", "i8")])
    y = np.array([0.1, 70.0], np.float16)
    got = run(text, X=x, Y=y)
    assert got["T"].dtype == np.dtype([("f0", "i8"), ("f1", [("f0", "f2"), ("f1", "f4")])])
    np.testing.assert_array_equal(got["T"]["f0"], x["f1"])
    np.testing.assert_array_equal(got["T"]["f1"]["f0"], y * 2)
    np.testing.assert_array_equal(got["U"], y * 2 + 1)
    assert got["S"].tolist() == [(7.0, 8), (2.5, -3)]


def test_a_program_may_pass_a_tuple_through_a_condition() -> None:
    text = """program p(X: (f32, i64)[i=N]) -> (T) { T[i] = X[i] if i % 2 == 0 }"""
    x = np.array([(1.5, 2), (2.5, -3), (4.5, 5)], [("f0", "f4"), ("f1", "i8")])
    assert run(text, X=x)["T"].tolist() == [(1.5, 2), (0.0, 0), (4.5, 5)]


@caps
def test_a_user_monoid_for_logsumexp(cap: int) -> None:
    text = """
    fn scaled(value, top, by) = select(value == -inf, 0.0, exp(value - top) * by)
    monoid lse: (f64, f64) {
      identity (-inf, 0.0)
      combine(a, b) = (max(a.0, b.0),
        scaled(a.0, max(a.0, b.0), a.1) + scaled(b.0, max(a.0, b.0), b.1))
    }
    program p(X: f64[i=N, j=M]) -> (L, P) {
      (T, S)[i] = lse[j] (X[i, j], 1.0)
      L[i] = T[i] + log(S[i])
      P[i] = lse[j] (X[i, j], 1.0) if j > 40
    }"""  # fmt: skip
    x = normal(30, 50) * 300
    x[0], x[1, :49] = -np.inf, -np.inf
    got = run(text, cap, X=x)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(got["L"], np.logaddexp.reduce(x, axis=1))
    np.testing.assert_allclose(got["P"]["f0"], x[:, 41:].max(1))


def test_a_user_monoid_folds_in_index_order_from_the_identity() -> None:
    text = """
    monoid digits: i64 { identity 7
      combine(a, b) = 10*a + b }
    program p(X: i64[i=N, j=M]) -> (A, B, C) {
      A = digits[i, j] X[i, j]
      C = digits[i] digits[j] X[i, j]
      B[j] = digits[i] X[i, j] if X[i, j] != 5
    }"""
    got = run(text, cap=1000, X=np.array([[1, 2, 3], [4, 5, 6]]))
    assert got["A"] == 7123456
    assert got["B"].tolist() == [714, 72, 736]
    assert got["C"] == 10 * (10 * 7 + 7123) + 7456


# ---- size ---------------------------------------------------------------------------------


def test_memory_stays_near_the_cap() -> None:
    a = np.ones((400, 400), np.float32)
    module = parse(
        "program p(A: f32[i=N, j=M], B: f32[j=M, k=K]) -> (C) { C[i, k] = A[i, j] * B[j, k] }"
    )
    interpret(module, {"A": a[:2, :2], "B": a[:2, :2]})
    cap = 8 * 2**20
    tracemalloc.start()
    result = interpret(module, {"A": a, "B": a}, memory_cap=cap)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (result["C"] == 400).all()
    assert peak < 1.5 * cap


def test_a_result_beyond_the_cap_is_refused() -> None:
    text = "program p(A: f64[i=N], B: f64[j=M]) -> (C) { C[i, j] = A[i] * B[j] }"
    with pytest.raises(UnsupportedError) as raised:
        run(text, 2**20, A=np.zeros(1024), B=np.zeros(1024))
    assert raised.value.message == "C takes 8.0 MiB, the memory cap is 1.0 MiB"


def test_a_hundred_indices() -> None:
    names = [f"i{k}" for k in range(100)]
    a = normal(*([1] * 50 + [2] * 4))
    b = normal(*([2] * 4 + [1] * 46), seed=1)
    ranks_a = ", ".join(f"{n}={s}" for n, s in zip(names[:54], a.shape, strict=True))
    ranks_b = ", ".join(f"{n}={s}" for n, s in zip(names[50:], b.shape, strict=True))
    read_a, read_b = ", ".join(names[:54]), ", ".join(names[50:])
    kept = ", ".join(names[:50])
    text = f"program p(A: f64[{ranks_a}], B: f64[{ranks_b}]) -> (C) {{ C[{kept}] = A[{read_a}] * B[{read_b}] }}"  # fmt: skip  # noqa: E501
    got = run(text, A=a, B=b)["C"]
    assert got.shape == (1,) * 50
    np.testing.assert_allclose(got.ravel()[0], (a.ravel() * b.ravel()).sum())


def test_seventy_indices_of_which_all_are_long() -> None:
    """More axes than NumPy has; the condition would be hopeless to enumerate, so one is empty."""
    names = ", ".join(f"i{k}" for k in range(70))
    bounds = ", ".join(f"i{k} < {2 if k else 0}" for k in range(70))
    text = f"program p(X: f64) -> (C, D) {{\n C = sum[{names}] X where {bounds}\n D = X + C }}"
    assert run(text, X=np.array(3.0))["D"] == 3


def build(body: Any) -> Module:
    vector = TensorType(f64, (Rank("i", Literal(3)),))
    statement = Einsum((Target("Y"),), (Index("i"),), body)
    return Module("p", (Input("X", vector),), ("Y",), (statement,))


def test_a_product_of_100_000_factors() -> None:
    factors = tuple(Access("X", (Index("i"),)) for _ in range(100)) * 1000
    got = interpret(build(Apply("mul", factors)), {"X": np.array([1.0, -1.0, 0.5])})["Y"]
    assert got.tolist() == [1.0, 1.0, 0.0]


def test_an_expression_5_000_deep() -> None:
    body: Any = Access("X", (Index("i"),))
    for _ in range(5_000):
        body = Apply("sub", (Literal(1), body))
    got = interpret(build(body), {"X": np.array([1.0, -1.0, 0.5])})["Y"]
    assert got.tolist() == [1.0, -1.0, 0.5]


def test_inputs_and_results_share_no_memory() -> None:
    text = "program p(X: f64[i=N]) -> (X, Y, Z) { Y[i] = X[i]\n Z[i] = Y[i] }"
    x = np.arange(4.0)
    before = x.copy()
    x.flags.writeable = False
    got = run(text, X=x)
    assert list(got) == ["X", "Y", "Z"]
    results = list(got.values())
    for k, result in enumerate(results):
        assert result.flags.writeable and not np.shares_memory(result, x)
        assert not any(np.shares_memory(result, other) for other in results[:k])
        result += 1
    np.testing.assert_array_equal(x, before)


def test_encryption_and_formats_change_no_value() -> None:
    text = """program p(A: f64[i=N, j=M] (dense, compressed), B: f64[j=M] enc) -> (C) {
      C: f64[i=N] (compressed) enc [i] = A[i, j] * B[j]
    }"""
    a, b = normal(4, 5), normal(5, seed=1)
    np.testing.assert_allclose(run(text, A=a, B=b)["C"], a @ b)


def test_kernels_mean_nothing() -> None:
    text = """program p(A: f32[i=N]) -> (C, B) {
      kernel first { B[i] = A[i] + 1
        C = sum[i] B[i] } -> (B, C)
    }"""
    got = run(text, A=np.ones(3, np.float32))
    assert got["C"] == 6 and got["B"].tolist() == [2, 2, 2]


def test_accumulation_of_f16_is_rounded_once() -> None:
    reduction = Reduction("sum", ("i",))
    type_ = TensorType(f32, (Rank("i", Literal(3)),))
    statement = Einsum((Target("Y"),), (), Access("X", (Index("i"),)), (reduction,))
    module = Module("p", (Input("X", type_),), ("Y",), (statement,))
    assert interpret(module, {"X": np.ones(3, np.float32)})["Y"] == 3
    x = np.full(5000, 1.0, np.float16)
    assert run("program p(X: f16[i=N]) -> (Y) { Y = sum[i] X[i] }", X=x)["Y"] == 5000
