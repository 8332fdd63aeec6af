"""Statements that share loops: sweeps of kernels, siblings, operations left for the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.ir.loops import Allocate, For, LoopProgram
from einloom.ir.node import postorder
from einloom.ir.program import Kernel
from einloom.passes.lowering import lower

Array = np.ndarray[Any, Any]

SOFTMAX = """
program p(X: {d}[i=R, j=C]) -> ({out}) {{
  G[i]    = max[j] X[i, j]
  N[i, j] = exp(X[i, j] - G[i])
  D[i]    = sum[j] N[i, j]
  Y[i, j] = N[i, j] / D[i]
}}"""

LAYERNORM = """
program p(X: {d}[i=R, j=C], g: {d}[j=C], b: {d}[j=C]) -> ({out}) {{
  M[i]    = sum[j] X[i, j] / C
  E[i, k] = X[i, k] - M[i]
  V[i]    = sum[j] E[i, j] * E[i, j] / C
  S[i]    = rsqrt(V[i] + 1e-5)
  Y[i, j] = E[i, j] * S[i] * g[j] + b[j]
}}"""

MOMENTS = """
program p(X: {d}[a=R, b=C]) -> ({out}) {{
  M[i] = sum[j] X[i, j]
  Q[k] = sum[l] X[k, l] * X[k, l]
  H[i] = max[j] X[i, j]
  L[i] = min[j] X[i, j]
  Y[i, j] = (X[i, j] - L[i]) / (H[i] - L[i] + 1.0) + M[i] * Q[i]
}}"""


def loops_of(text: str, strict: bool = False) -> LoopProgram:
    """The loops of a program after the default passes."""
    return lower(el.compile(text).module, strict=strict)


def innermost(program: LoopProgram) -> int:
    """How many loops have no loop inside, the parallel ones apart."""
    loops = [p for p in postorder(program) if isinstance(p, For) and p.kind != "parallel"]
    return sum(sum(isinstance(q, For) for q in postorder(loop)) == 1 for loop in loops)


def allocated(program: LoopProgram) -> list[str]:
    return [part.name for part in postorder(program) if isinstance(part, Allocate)]


# ---- what is merged -----------------------------------------------------------------------


def test_softmax_is_three_sweeps_with_one_row_kept() -> None:
    program = loops_of(SOFTMAX.format(d="f32", out="Y"))
    assert len(program.functions) == 1
    assert innermost(program) == 3
    assert allocated(program) == ["N"]
    assert [s.name for s in program.storages] == ["Y"]


def test_a_map_that_is_a_result_is_no_copy() -> None:
    program = loops_of(SOFTMAX.format(d="f32", out="Y, N"))
    assert innermost(program) == 3
    assert allocated(program) == []


def test_a_cheap_map_is_computed_where_it_is_read() -> None:
    program = loops_of(LAYERNORM.format(d="f32", out="Y"))
    assert innermost(program) == 3
    assert allocated(program) == []
    kept = loops_of(LAYERNORM.format(d="f32", out="Y, E"))
    assert [s.name for s in kept.storages] == ["E", "Y"]


def test_reductions_of_the_same_data_are_one_sweep() -> None:
    program = loops_of(MOMENTS.format(d="f32", out="M, Q, H, L"))
    assert len(program.functions) == 1
    assert innermost(program) == 1
    assert innermost(loops_of(MOMENTS.format(d="f32", out="Y"))) == 2


def test_strict_merges_what_keeps_the_order_of_terms() -> None:
    assert innermost(loops_of(MOMENTS.format(d="f32", out="M, Q, H, L"), strict=True)) == 1


def test_a_row_that_is_read_shifted_is_kept() -> None:
    text = """
    program p(X: f32[i=R, j=C]) -> (Y) {
      A[i, j] = X[i, j] * 2.0
      Y[i, j] = A[i, j] + A?(0)[i, j - 1]
    }"""
    exe = el.compile(text)
    x = np.arange(12.0, dtype="f4").reshape(3, 4)
    shifted = np.pad(2 * x, ((0, 0), (1, 0)))[:, :-1]
    np.testing.assert_array_equal(exe(x), 2 * x + shifted)


def test_a_row_that_is_read_in_other_loops_is_kept() -> None:
    text = """
    program p(X: f32[i=R, j=C]) -> (Y, B) {
      A[i, j] = exp(X[i, j])
      B[i]    = sum[j] A[i, j]
      Y[i, k] = max[j] A[i, j] * A[i, k]
    }"""
    exe = el.compile(text)
    x = np.random.default_rng(1).standard_normal((4, 5)).astype("f4")
    a = np.exp(x.astype("f8"))
    y, b = exe(x)
    np.testing.assert_allclose(b, a.sum(1), rtol=1e-6)
    np.testing.assert_allclose(y, (a[:, :, None] * a[:, None, :]).max(1), rtol=1e-6)


def test_gathered_rows_are_read_from_memory() -> None:
    text = """
    program p(I: i64[i=R, j=C], W: f32[v=V]) -> (Y) {
      A[i, j] = I[i, j] + 1
      S[i]    = sum[j] A[i, j]
      Y[i, j] = W[A[i, j]] + f32(S[i])
    }"""
    x = np.random.default_rng(2).integers(0, 8, (3, 5))
    w = np.arange(9.0, dtype="f4")
    expected = w[x + 1] + (x + 1).sum(1, keepdims=True).astype("f4")
    np.testing.assert_array_equal(el.compile(text)(x, w), expected)


# ---- siblings -----------------------------------------------------------------------------


def kernels(text: str) -> list[list[str]]:
    body = el.compile(text).module.body
    return [[s.targets[0].name for s in k.body] for k in body if isinstance(k, Kernel)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("second", "together"),
    [
        ("B[i] = max[j] X[i, j]", True),
        ("B[k] = max[l] X[k, l]", True),
        ("B[i] = sum[j] X[i, j] * W[j]", True),
        ("B[j] = max[i] X[i, j]", False),  # other loops outside
        ("B[i] = max[j] Z[i, j]", False),  # other data
        ("B[i, k] = sum[j] X[i, j] * Z[j, k]", False),  # more work than to read X
        ("B[] = max[i, j] X[i, j]", False),  # no loop to share
    ],
)
def test_which_statements_are_siblings(second: str, together: bool) -> None:
    text = f"""
    program p(X: f32[i=R, j=R], W: f32[j=R], Z: f32[i=R, j=R]) -> (A, B) {{
      A[i] = sum[j] X[i, j]
      {second}
    }}"""
    assert kernels(text) == ([["A", "B"]] if together else [])


def test_transposed_siblings_stay_apart() -> None:
    text = """
    program p(X: f32[i=R, j=C]) -> (A, B) {
      A[j, i] = X[i, j]
      B[j, i] = X[i, j] * 2.0
    }"""
    assert kernels(text) == []


# ---- left for the end ---------------------------------------------------------------------


def test_division_by_what_terms_share_comes_after_the_sum() -> None:
    text = "program p(X: f32[i=R, j=C], s: f32[i=R]) -> (Y) {\n  Y[i] = sum[j] X[i, j] / s[i]\n}"
    assert "/ s" not in str(next(iter(_carrying(loops_of(text)))))
    assert "/ s" in str(next(iter(_carrying(loops_of(text, strict=True)))))


def _carrying(program: LoopProgram) -> list[For]:
    return [part for part in postorder(program) if isinstance(part, For) and part.carried]


@pytest.mark.parametrize(
    ("fold", "divisor", "kept"),
    [("sum", "s[i]", True), ("sum", "s[j]", False), ("max", "s[i]", False)],
)
def test_which_divisions_are_left(fold: str, divisor: str, kept: bool) -> None:
    text = f"program p(X: f32[i=R, j=R], s: f32[i=R]) -> (Y) {{\n  Y[i] = {fold}[j] X[i, j] / {divisor}\n}}"  # noqa: E501
    inner = _carrying(loops_of(text))[0]
    assert ("/ s" not in str(inner)) == kept
    x = np.random.default_rng(3).standard_normal((5, 5)).astype("f4")
    s = np.linspace(1, 2, 5, dtype="f4")
    terms = x.astype("f8") / (s[:, None] if divisor == "s[i]" else s)
    expected = terms.sum(1) if fold == "sum" else terms.max(1)
    np.testing.assert_allclose(el.compile(text)(x, s), expected, rtol=1e-5)


def test_the_mean_of_nothing_is_the_identity() -> None:
    text = "program p(X: f32[i=R, j=C], s: f32[i=R]) -> (Y, Z) {\n  Y[i] = sum[j] X[i, j] / s[i]\n  Z[i] = sum[j] X[i, j] / C\n}"  # noqa: E501
    y, z = el.compile(text)(np.empty((2, 0), "f4"), np.zeros(2, "f4"))
    np.testing.assert_array_equal([y, z], np.zeros((2, 2)))


# ---- against NumPy ------------------------------------------------------------------------


def softmax(x: Array) -> dict[str, Array]:
    g = x.max(1, initial=-np.inf)
    n = np.exp(x - g[:, None])
    d = n.sum(1)
    return {"G": g, "N": n, "D": d, "Y": n / d[:, None]}


def layernorm(x: Array, g: Array, b: Array) -> dict[str, Array]:
    m = x.sum(1) / max(1, x.shape[1])
    e = x - m[:, None]
    v = (e * e).sum(1) / max(1, x.shape[1])
    s = 1 / np.sqrt(v + 1e-5)
    return {"M": m, "E": e, "V": v, "S": s, "Y": e * s[:, None] * g + b}


def moments(x: Array) -> dict[str, Array]:
    m, q = x.sum(1), (x * x).sum(1)
    h, low = x.max(1, initial=-np.inf), x.min(1, initial=np.inf)
    y = (x - low[:, None]) / (h - low + 1)[:, None] + (m * q)[:, None]
    return {"M": m, "Q": q, "H": h, "L": low, "Y": y}


HALF_SHAPES = [(1, 1), (3, 17), (2, 40)]  # sums of more do not fit f16
SHAPES = [(1, 1), (3, 17), (2, 4096), (2, 4097), (5, 9001), (0, 4), (3, 0), (0, 0)]
EPSILON = {"f16": 2.0**-10, "f32": 2.0**-22, "f64": 2.0**-51}


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16"])
@pytest.mark.parametrize(
    ("text", "out", "reference"),
    [
        (SOFTMAX, "Y", softmax),
        (SOFTMAX, "G, N, D, Y", softmax),
        (LAYERNORM, "Y", layernorm),
        (LAYERNORM, "Y, M, E, V, S", layernorm),
        (MOMENTS, "Y", moments),
        (MOMENTS, "M, Q, H, L, Y", moments),
    ],
)
def test_results(text: str, out: str, reference: Any, dtype: str) -> None:
    """On both sides of a block's end, of no rows and of empty ones, contiguous and not."""
    exe = el.compile(text.format(d=dtype, out=out))
    rng = np.random.default_rng(5)
    for rows, columns in HALF_SHAPES if dtype == "f16" else SHAPES:
        whole = rng.uniform(-1, 1, (2 * rows, 3 * columns)).astype(dtype.replace("f", "float"))
        for x in (np.ascontiguousarray(whole[::2, ::3]), whole[::2, :columns], whole[::2, ::3]):
            more = [rng.uniform(0, 1, columns).astype(x.dtype) for _ in exe.module.inputs[1:]]
            made = exe.run({"X": x, **dict(zip("gb", more, strict=False))})
            with np.errstate(all="ignore"):
                wide = reference(x.astype("f8"), *(m.astype("f8") for m in more))
            for name in out.split(", "):
                scale = max(1.0, float(np.abs(wide[name][np.isfinite(wide[name])]).max(initial=0)))
                np.testing.assert_allclose(
                    made[name].astype("f8"), wide[name], rtol=0, err_msg=name,
                    atol=EPSILON[dtype] * scale * (32 + np.sqrt(columns)),
                )  # fmt: skip


@pytest.mark.parametrize("strict", [False, True])
def test_rows_of_hostile_values(strict: bool) -> None:
    with el.options(strict=strict):
        exe = el.compile(SOFTMAX.format(d="f32", out="Y, G, D"))
        x = np.random.default_rng(6).standard_normal((7, 5000)).astype("f4")
        x[1] = -np.inf
        x[2, :4500] = -np.inf
        x[3, 4999] = np.nan
        x[4, 17] = np.inf
        x[5] = np.finfo("f4").max
        x[6, 0] = 88.0
        y, g, d = exe(x)
    with np.errstate(all="ignore"):
        expected = softmax(x.astype("f8"))
    np.testing.assert_array_equal(g, expected["G"].astype("f4"))
    np.testing.assert_allclose(d, expected["D"], rtol=1e-5)
    np.testing.assert_allclose(y, expected["Y"], rtol=1e-5, atol=1e-30)


def test_threads_do_not_change_bits() -> None:
    x = np.random.default_rng(7).standard_normal((301, 5000)).astype("f4")
    exe = el.compile(MOMENTS.format(d="f32", out="Y, M, Q"))
    found = []
    for threads in (1, 2, 3):
        with el.options(threads=threads):
            found.append(exe(x))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)
