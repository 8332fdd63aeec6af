"""Statements that share loops: reads in other orders, values that no law holds for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.backends.cpu import compile as cpu
from einloom.backends.cpu.threads import ThreadPool
from einloom.ir.binding import bind
from einloom.ir.loops import For
from einloom.ir.node import postorder
from einloom.ir.program import Kernel
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import Scalar
from einloom.passes.lowering import lower
from einloom.passes.lowering.fold_loops import SUM_BLOCK
from einloom.passes.lowering.products.blocking import Running

Array = np.ndarray[Any, Any]


def run(text: str, arrays: dict[str, Array], **options: Any) -> dict[str, Array]:
    """The tensors that a program writes to memory, lowered with options."""
    bound = bind(el.parse(text), arrays)
    kernels = cpu.from_payload(cpu.compile_payload(lower(el.compile(text).module, **options)))
    assert kernels is not None
    given = {name: np.asarray(array) for name, array in bound.arrays.items()}
    prepared = kernels.prepare(given, bound.symbols)
    storages = prepared.allocate()
    operands = [given[name] for name in prepared.inputs]
    prepared.run([*operands, *storages], ThreadPool(), 2)
    return {s.name: a for s, a in zip(prepared.storages, storages, strict=True)}


# ---- which cell of a map is at hand -------------------------------------------------------

TWO_WAYS = """
program p(X: f32[i=I, j=J, k=J, l=L], Z: f32[i=I, j=J, k=J, l=L]) -> (A, B) {{
  N[i, j, k, l] = {body}
  D[i]          = sum[j, k, l] N[i, j, k, l]
  A[i, j, k, l] = Z[i, j, k, l] + {first} / D[i]
  B[i, j, k, l] = Z[i, j, k, l] * {second} / D[i]
}}"""
ALONG, ACROSS = "N[i, j, k, l]", "N[i, k, j, l]"


@pytest.mark.parametrize("body", ["X[i, j, k, l] * 2.0", "exp(X[i, j, k, l])"])
@pytest.mark.parametrize(("first", "second"), [(ALONG, ACROSS), (ACROSS, ALONG), (ACROSS, ACROSS)])
def test_a_map_that_one_sweep_reads_in_two_ways(first: str, second: str, body: str) -> None:
    text = TWO_WAYS.format(body=body, first=first, second=second)
    rng = np.random.default_rng(21)
    x, z = (rng.random((2, 5, 5, 6), dtype="f4") for _ in range(2))
    a, b = el.compile(text)(x, z)
    n = np.exp(x.astype("f8")) if "exp" in body else x.astype("f8") * 2
    cells = {ALONG: n, ACROSS: n.transpose(0, 2, 1, 3)}
    d = n.sum((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(a, z + cells[first] / d, rtol=1e-5)
    np.testing.assert_allclose(b, z * cells[second] / d, rtol=1e-5)


@pytest.mark.parametrize("blockings", [{}, {"E": Running()}])
def test_which_cells_of_a_value_at_hand_are_stored(blockings: dict[str, Running]) -> None:
    text = """
    program p(X: f32[i=I, j=J]) -> (D, E, F) {
      N: f32[i=I, j=J] (csr)[i, j] = X[i, j] * 2.0
      M: f32[i=I, j=J] (csr) fill nan[i, j] = X[i, j] + 1.0
      D[i] = sum[j] select(stored(N[i, j]), 1.0, 0.0)
      G[i] = max[j] N[i, j]
      E[i] = sum[j] exp(N[i, j] - G[i]) * select(stored(M[i, j]), 1.0, 0.5)
      F[i] = G[i] + select(stored(G[i]), 1.0, 0.0)
    }"""
    x = np.array([[1.0, 0, 2], [0, 0, -3], [2, np.nan, 3]], "f4")
    made = run(text, {"X": x}, blockings=blockings)
    with np.errstate(all="ignore"):
        n = x.astype("f8") * 2
        g = n.max(1)
        e = np.exp(n - g[:, None]) * np.where(np.isnan(x), 0.5, 1.0)
    np.testing.assert_array_equal(made["D"], (n != 0).sum(1))
    np.testing.assert_allclose(made["E"], e.sum(1), rtol=1e-6)
    np.testing.assert_array_equal(made["F"], (g + 1).astype("f4"))


def test_a_map_that_one_statement_reads_in_two_ways() -> None:
    text = """
    program p(X: f32[i=I, j=J, k=J, l=L]) -> (Y) {
      N[i, j, k, l] = exp(X[i, j, k, l])
      Y[i, j, k, l] = N[i, j, k, l] - 2.0 * N[i, k, j, l]
    }"""
    x = np.random.default_rng(22).random((2, 5, 5, 6), dtype="f4")
    n = np.exp(x.astype("f8"))
    np.testing.assert_allclose(
        el.compile(text)(x), n - 2 * n.transpose(0, 2, 1, 3), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("sizes", [(5, 9), (9, 5), (0, 4), (4, 0), (1, 1)])
def test_rows_of_other_lengths_have_loops_of_their_own(sizes: tuple[int, int]) -> None:
    text = """
    program p(X: f32[i=I, j=J], Z: f32[i=I, k=K], v: f32[i=I]) -> (A, B) {
      M[i] = v[i] + 1.0
      A[i] = sum[j] X[i, j] * M[i]
      B[i] = sum[k] Z[i, k] * M[i]
    }"""
    assert sum(isinstance(s, Kernel) for s in el.compile(text).module.body) == 1
    rng = np.random.default_rng(23)
    x, z = (rng.integers(-4, 5, (3, size)).astype("f4") for size in sizes)
    v = np.arange(3, dtype="f4")
    a, b = el.compile(text)(x, z, v)
    np.testing.assert_array_equal(a, x.sum(1) * (v + 1))
    np.testing.assert_array_equal(b, z.sum(1) * (v + 1))


@pytest.mark.parametrize("position", ["max[j] I[i, j]", "I[i, 0] + 1"])
def test_single_values_that_are_positions_are_kept_in_memory(position: str) -> None:
    text = f"""
    program p(I: i64[i=R, j=C], W: f32[v=V], X: f32[i=R, j=C]) -> (Y, S) {{
      P[i]    = {position}
      Y[i, j] = W[P[i]] * X[i, j]
      S[i]    = sum[j] Y[i, j]
    }}"""
    rng = np.random.default_rng(24)
    i, w = rng.integers(0, 8, (3, 5)), rng.integers(0, 9, 9).astype("f4")
    x = rng.integers(-4, 5, (3, 5)).astype("f4")
    at = i.max(1) if "max" in position else i[:, 0] + 1
    y, s = el.compile(text)(i, w, x)
    np.testing.assert_array_equal(y, w[at][:, None] * x)
    np.testing.assert_array_equal(s, (w[at][:, None] * x).sum(1))


@pytest.mark.parametrize("out", ["Y, S", "N, Y, S", "N, G, Y, S"])
def test_values_at_hand_are_those_that_would_be_stored(out: str) -> None:
    """Rounded to the dtype of the tensor, also where the tensor is nowhere in memory."""
    text = f"""
    program p(X: f64[i=I, j=J]) -> ({out}) {{
      N: f32[i=I, j=J][i, j] = X[i, j] * 0.1
      S[i] = sum[j] f64(N[i, j])
      G: f32[i=I][i] = sum[j] X[i, j]
      Y[i, j] = X[i, j] - f64(G[i])
    }}"""
    x = np.random.default_rng(25).integers(1, 100, (3, 7)) + 2.0**-40
    made = el.compile(text).run({"X": x})
    n = (x * 0.1).astype("f4").astype("f8")
    np.testing.assert_allclose(made["S"], n.sum(1), rtol=1e-14)
    assert (abs(made["S"] - (x * 0.1).sum(1)) > 1e-10).all()
    np.testing.assert_array_equal(made["Y"], x - x.sum(1).astype("f4")[:, None])


@pytest.mark.parametrize("order", ["jkl", "kjl", "lkj", "ljk"])
def test_strict_folds_in_the_order_of_each_statement(order: str) -> None:
    text = f"""
    program p(X: f32[i=I, j=J, k=K, l=L]) -> (A, B) {{
      A[i] = sum[j, k, l] X[i, j, k, l]
      B[i] = sum[{", ".join(order)}] X[i, j, k, l]
    }}"""
    x = np.random.default_rng(26).standard_normal((2, 3, 4, 5)).astype("f4")
    made = el.compile(text, strict=True, pipeline="fuse")(x)
    for found, wanted in zip(made, ("jkl", order), strict=True):
        expected = np.zeros(2, "f4")
        for term in np.moveaxis(np.einsum(f"ijkl->i{wanted}", x).reshape(2, -1), 1, 0):
            expected = expected + term
        np.testing.assert_array_equal(found, expected)


# ---- values that no law holds for ---------------------------------------------------------


@pytest.mark.parametrize(
    ("fold", "dtype"),
    [("sum:f32[i]", "f64"), ("sum:f16[i]", "f64"), ("sum:f64[i] sum:f32[j]", "f64")],
)
def test_terms_are_divided_before_a_narrower_fold_loses_them(fold: str, dtype: str) -> None:
    ranks, at = ("i=I, j=J", "i, j") if "[j]" in fold else ("i=I", "i")
    text = (
        f"program p(X: {dtype}[{ranks}], c: {dtype}[]) -> (Y) {{\n  Y[] = {fold} X[{at}] / c[]\n}}"
    )
    x = np.full((3, 2)[: len(ranks.split(", "))], 1e300)
    np.testing.assert_allclose(el.compile(text)(x, np.float64(1e299)), x.size * 10.0)


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32"])
def test_terms_are_not_rounded_before_they_are_divided(dtype: str) -> None:
    """f16 and bf16 are computed in f32: 300 * 300 is no infinity, where 900 is what is added."""
    text = (
        f"program p(X: {dtype}[i=I], Y: {dtype}[i=I], c: {dtype}[]) -> (Z) {{\n"
        "  Z: f32[] = sum:f32[i] X[i] * Y[i] / c[]\n}"
    )
    element = numpy_dtype(Scalar(dtype))
    x, y = np.full(7, 300, element), np.full(7, 301, element)
    c = np.array(64, element)
    expected = (x.astype("f8") * y.astype("f8") / 64).sum()
    np.testing.assert_array_equal(el.compile(text)(x, y, c), expected)


@pytest.mark.parametrize(
    ("dtype", "accumulator", "after"),
    [("f16", "f16", True), ("f16", "f64", True), ("f32", "f64", True), ("f32", "f16", True),
     ("f64", "f64", True), ("f64", "f32", False), ("f64", "f16", False), ("i32", "f64", True)],
)  # fmt: skip
def test_which_folds_are_divided_afterwards(dtype: str, accumulator: str, after: bool) -> None:
    text = f"program p(X: {dtype}[i=I]) -> (Y) {{\n  Y[] = sum:{accumulator}[i] X[i] / 3.0\n}}"
    loops = [p for p in postorder(lower(el.compile(text).module)) if isinstance(p, For)]
    assert ("/ 3.0" not in str(loops[-1])) == after


def test_no_correction_for_terms_that_use_the_reference_otherwise() -> None:
    text = """
    program p(X: f32[a=X0, b=X1]) -> (Y, Z, N, W) {
      G[i]    = max[j] X[i, j]
      Y[i]    = sum[j] exp(X[i, j] - G[i]) * G[i]
      Z[i]    = sum[j] exp(X[i, j] - G[i]) + X[i, j]
      N: f16[i=X0, j=X1][i, j] = exp(X[i, j] - G[i])
      W[i]    = sum[j] f32(N[i, j])
    }"""
    columns = 2 * SUM_BLOCK + 7
    x = np.sort(np.random.default_rng(27).uniform(0, 9, (2, columns)).astype("f4"))
    made = run(text, {"X": x}, blockings=dict.fromkeys("YZW", Running()))
    wide = x.astype("f8")
    g = wide.max(1, keepdims=True)
    n = np.exp(wide - g)
    np.testing.assert_allclose(made["Y"], (n * g).sum(1), rtol=1e-5)
    np.testing.assert_allclose(made["Z"], (n + wide).sum(1), rtol=1e-5)
    np.testing.assert_allclose(made["W"], made["N"].astype("f8").sum(1), rtol=1e-6)


@pytest.mark.parametrize("hidden", [np.nan, np.inf])
@pytest.mark.parametrize("rows", [1, 3])
def test_what_is_not_finite_beside_terms_of_minus_infinity_is_kept(
    hidden: float, rows: int
) -> None:
    """0 * inf and 0 * nan are nan, in the blocks before the first finite reference, too."""
    text = """
    program p(X: f32[a=X0, b=X1], V: f32[a=X0, b=X1]) -> (G, Y) {
      G[i] = max[j] X[i, j]
      Y[i] = sum[j] exp(X[i, j] - G[i]) * V[i, j]
    }"""
    columns = 2 * SUM_BLOCK + 7
    x = np.full((rows, columns), -np.inf, "f4")
    x[:, 2 * SUM_BLOCK :] = 1.0
    v = np.ones_like(x)
    v[0, 5] = hidden
    made = run(text, {"X": x, "V": v}, blockings={"Y": Running()})
    np.testing.assert_array_equal(made["Y"], [np.nan, *[7.0] * (rows - 1)])


# ---- what is read stays inside ------------------------------------------------------------


def test_padding_on_both_sides() -> None:
    text = """
    program p(X: f32[i=I, j=J]) -> (Y) {
      A[i, j] = X[i, j] * 2.0
      Y: f32[i=I, j=J][i, j] = A?(7.0)[i, j + 2] - A?(9.0)[i, j - 1]
    }"""
    x = np.random.default_rng(28).integers(-4, 5, (3, 5)).astype("f4")
    after = np.pad(2 * x, ((0, 0), (0, 2)), constant_values=7)[:, 2:]
    before = np.pad(2 * x, ((0, 0), (1, 0)), constant_values=9)[:, :-1]
    np.testing.assert_array_equal(el.compile(text)(x), after - before)


@pytest.mark.parametrize(("index", "most"), [("t", 4), ("t+1", 3), ("2*t", 2)])
def test_an_index_of_a_scan_is_checked(index: str, most: int) -> None:
    text = f"""
    program p(X: f32[n=N], T: extent) -> (Y) {{
      scan t < T from {{ S[0] = 0.0 }} {{ S[t+1] = S[t] + X[{index}] }}
      Y[] = final(S)
    }}"""
    x = np.ones(4, "f4")
    assert el.compile(text)(x, most) == most
    with pytest.raises(el.RangeError) as caught:
        el.compile(text)(x, most + 1)
    assert str(caught.value) == f"<text>:3:56: index {index} of X is 4, rank 0 has extent 4"
