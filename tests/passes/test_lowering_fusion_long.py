"""Long folds: in parts that threads share, in wide rows, and along with what they refer to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.backends.cpu import compile as cpu
from einloom.backends.cpu.launcher import Kernels
from einloom.backends.cpu.threads import ThreadPool
from einloom.ir.loops import For, If, LoopProgram
from einloom.ir.machine import Machine
from einloom.ir.node import postorder
from einloom.passes.lowering import OperandLayout, lower
from einloom.passes.lowering.fold_loops import SUM_BLOCK
from einloom.passes.lowering.parts import PARTS
from einloom.passes.lowering.products.blocking import Parts, Running, Streaming
from einloom.passes.lowering.products.plan import blockings_of

Array = np.ndarray[Any, Any]


def compiled(program: LoopProgram) -> Kernels:
    kernels = cpu.from_payload(cpu.compile_payload(program))
    assert kernels is not None
    return kernels


def run(kernels: Kernels, arrays: dict[str, Array]) -> dict[str, Array]:
    """What kernels make of inputs; the extents of X are the symbols X0, X1, ..."""
    symbols = {f"X{k}": extent for k, extent in enumerate(arrays["X"].shape)}
    prepared = kernels.prepare(arrays, symbols)
    storages = prepared.allocate()
    prepared.run([*(arrays[n] for n in prepared.inputs), *storages], ThreadPool(), 2)
    return {s.name: a for s, a in zip(prepared.storages, storages, strict=True)}


# ---- in parts -----------------------------------------------------------------------------

REDUCTIONS = [
    ("Y[] = sum[i, j] X[i, j]", "ij", lambda x: x.sum()),
    ("Y[] = sum[i, j] X[i, j] / X1", "ij", lambda x: x.sum() / max(1, x.shape[1])),
    ("Y[] = max[i, j] X[i, j]", "ij", lambda x: x.max(initial=-np.inf)),
    ("Y[] = max[i] sum[j] X[i, j]", "i", lambda x: x.sum(1).max(initial=-np.inf)),
    ("Y[j] = sum[i] X[i, j]", "i", lambda x: x.sum(0)),
    ("Y[j] = min[i] X[i, j]", "i", lambda x: x.min(0, initial=np.inf)),
    ("Y[i] = sum[j] X[i, j] * X[i, j]", "j", lambda x: (x * x).sum(1)),
]
CASES = [(s, i, f, d) for s, indices, f in REDUCTIONS for i in indices
         for d in ("f32", "f64", "i32") if "/" not in s or d != "i32"]  # fmt: skip
SHAPES = [(0, 0), (0, 3), (3, 0), (1, 1), (31, 5), (32, 4), (33, 3), (65, 4097), (3, 9001)]


@pytest.mark.parametrize(("statement", "index", "reference", "dtype"), CASES)
def test_reductions_in_parts(statement: str, index: str, reference: Any, dtype: str) -> None:
    """Along each index that may be cut, whatever the decision would be."""
    text = f"program p(X: {dtype}[a=X0, b=X1]) -> (Y) {{\n  {statement}\n}}"
    element = {"i32": "i4", "f32": "f4", "f64": "f8"}[dtype]
    module = el.compile(text).module
    rng = np.random.default_rng(11)
    wholes = [rng.integers(-9, 9, (2 * r, 2 * c)).astype(element) for r, c in SHAPES]
    for layouts in ({}, {"X": OperandLayout((None, None))}):
        program = lower(module, layouts, blockings={"Y": Parts(index)})
        assert len(program.functions) == 2
        kernels = compiled(program)
        for whole in wholes:
            x = whole[::2, ::2] if layouts else np.ascontiguousarray(whole[::2, ::2])
            made = run(kernels, {"X": x})["Y"]
            expected = reference(x.astype("f8"))
            if dtype == "i32":  # the identities of max and min
                limits = np.iinfo("i4")
                expected = np.clip(expected, limits.min, limits.max).astype("i4")
            np.testing.assert_allclose(made, expected, rtol=1e-5, err_msg=str(x.shape))


@pytest.mark.parametrize(
    ("statement", "sizes", "expected"),
    [
        ("Y[] = sum[i, j] X[i, j]", (4096, 4096), Parts("i")),
        ("Y[] = sum[i, j] X[i, j]", (4, 1 << 20), Parts("j")),
        ("Y[] = sum[i, j] X[i, j]", (64, 64), None),
        ("Y[j] = sum[i] X[i, j]", (4096, 4096), Parts("i")),
        ("Y[j] = sum[i] X[i, j]", (16, 1 << 20), None),
        ("Y[i] = sum[j] X[i, j]", (2, 1 << 20), Parts("j")),
        ("Y[i] = sum[j] X[i, j]", (512, 1 << 12), None),
        ("Y[] = max[i] sum[j] X[i, j]", (2, 1 << 20), None),  # the order of folds stays
        ("Y[] = max[i] sum[j] X[i, j]", (1 << 10, 1 << 10), Parts("i")),
        ("Y[] = sum[i, j] X[i, j] if X[i, j] > 0.0", (4096, 4096), None),
    ],
)
def test_which_reductions_are_in_parts(
    statement: str, sizes: tuple[int, int], expected: Parts | None
) -> None:
    module = el.parse(f"program p(X: f32[a=A, b=B]) -> (Y) {{\n  {statement}\n}}")
    found = blockings_of(module, {}, dict(zip("AB", sizes, strict=True)), Machine(64, 32))
    assert found.get("Y") == expected or (expected is None and found["Y"] == Streaming())


@pytest.mark.parametrize("spec", ["ij->", "ij->j", "i,ij->j", "ij,ij->", "ji->i"])
def test_threads_do_not_change_bits(spec: str) -> None:
    rng = np.random.default_rng(12)
    x = rng.standard_normal((1100, 600)).astype("f4")
    operands = [x if len(part) == 2 else x[:, 0] for part in spec.split("->")[0].split(",")]
    found = []
    for threads in (1, 2, 3):
        with el.options(threads=threads):
            found.append(el.einsum(spec, *operands))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
    wide = np.einsum(spec, *(a.astype("f8") for a in operands))
    np.testing.assert_allclose(found[0], wide, rtol=1e-4, atol=1e-3)


def test_parts_are_few_and_cover_all() -> None:
    x = np.ones((1 << 20), "i4")
    module = el.parse("program p(X: i32[a=X0]) -> (Y) {\n  Y[] = sum[i] X[i]\n}")
    kernels = compiled(lower(module, blockings={"Y": Parts("i")}))
    for count in (1, PARTS - 1, PARTS, PARTS + 1, 3 * PARTS - 1, 1 << 20):
        made = run(kernels, {"X": x[:count]})
        assert made["Y"] == count
        assert 1 <= made["Y_parts"].size <= PARTS


# ---- rows of accumulators -----------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 5, 11])
@pytest.mark.parametrize("columns", [1, 511, 513, 4097, 9000])
def test_columns_are_folded_several_rows_at_once(rows: int, columns: int) -> None:
    x = np.random.default_rng(13).integers(-9, 9, (rows, columns)).astype("f4")
    np.testing.assert_array_equal(el.einsum("ij->j", x), x.sum(0))
    text = "program p(X: f32[i=N, j=M]) -> (Y, Z) {\n  Y[j] = max[i] X[i, j]\n  Z[j] = sum[i] X[i, j] if X[i, j] > 0.0\n}"  # noqa: E501
    y, z = el.compile(text)(x)
    np.testing.assert_array_equal(y, x.max(0, initial=-np.inf))
    np.testing.assert_array_equal(z, np.where(x > 0, x, 0).sum(0))


def test_strict_folds_columns_in_their_order() -> None:
    x = np.array([[1e8], [1.0], [-1e8], [1.0], [1.0]], "f4").repeat(9, axis=1)
    with el.options(strict=True):
        made = el.einsum("ij->j", x)
    expected = np.zeros(9, "f4")
    for row in x:
        expected += row
    np.testing.assert_array_equal(made, expected)


# ---- along with another fold --------------------------------------------------------------

SOFTMAX = """
program p(X: {d}[a=X0, b=X1], V: {d}[b=X1]) -> ({out}) {{
  S[i, j] = X[i, j] * 0.5
  G[i]    = {lattice}[j] S[i, j]
  N[i, j] = {function}(S[i, j] - G[i])
  D[k]    = sum[l] N[k, l] * V[l]
  Y[i, j] = N[i, j] / D[i]
}}"""


def softmax_text(d: str = "f32", out: str = "D, Y", **changes: str) -> str:
    return SOFTMAX.format(d=d, out=out, **{"lattice": "max", "function": "exp", **changes})


def mends(program: LoopProgram) -> int:
    """Folds that are made anew where what they ran along with is not finite."""
    return sum(isinstance(part, If) and bool(part.carried) for part in postorder(program))


def reads_of_long_rows(program: LoopProgram) -> int:
    """Loops over whole rows, outside branches that mend."""
    (function,) = program.functions
    (parallel,) = function.body
    assert isinstance(parallel, For)
    return sum(isinstance(statement, For) for statement in parallel.body)


@pytest.mark.parametrize("out", ["Y", "D, Y", "N, Y", "G, D"])
def test_softmax_in_two_sweeps(out: str) -> None:
    text = softmax_text(out=out)
    program = lower(el.compile(text).module, blockings={"D": Running()})
    assert mends(program) == 1
    assert reads_of_long_rows(program) == (1 if out == "G, D" else 2)
    assert mends(lower(el.compile(text).module)) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"lattice": "min"},  # exp(x - min) does not vanish where the minimum is still infinite
        {"lattice": "sum"},
        {"function": "tanh"},  # no law says what it makes of sums
        {"function": "log"},
        {"d": "f16"},  # rounds between the map and the sum
    ],
)
def test_what_has_no_correction_is_folded_later(changes: dict[str, str]) -> None:
    module = el.compile(softmax_text(**changes)).module
    assert mends(lower(module, blockings={"D": Running()})) == 0


def test_strict_folds_later() -> None:
    module = el.compile(softmax_text()).module
    assert mends(lower(module, blockings={"D": Running()}, strict=True)) == 0


def test_terms_of_another_row_are_folded_later() -> None:
    text = softmax_text().replace("N[k, l] * V[l]", "exp(X[k, l] - G[k])")
    assert mends(lower(el.compile(text).module, blockings={"D": Running()})) == 0


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("function", ["exp", "exp2"])
def test_running_sums(function: str, dtype: str) -> None:
    """Rows of hostile values, on both sides of the ends of blocks, of no cells at all."""
    text = softmax_text(dtype, "G, D, Y, N", function=function)
    element = dtype.replace("f", "float")
    program = lower(el.compile(text).module, blockings={"D": Running()})
    assert mends(program) == 1
    kernels = compiled(program)
    rng = np.random.default_rng(14)
    for columns in (0, 1, SUM_BLOCK - 1, SUM_BLOCK, SUM_BLOCK + 1, 3 * SUM_BLOCK + 5):
        x = (rng.standard_normal((12, columns)) * 20).astype(element)
        v = rng.uniform(0.5, 1, columns).astype(element)
        x[1] = -np.inf  # no finite cell
        x[2, : columns - 1] = -np.inf  # none in the first blocks
        x[3, columns // 2 :] = -np.inf
        x[4, columns // 2 : columns // 2 + 1] = np.nan
        x[5, :1] = np.nan
        x[6, columns - 1 :] = np.inf
        x[7, :1] = np.inf
        x[8] = np.sort(x[8])  # every block has a larger maximum
        x[9] = np.finfo(element).max
        x[10] = np.sort(x[10])[::-1]
        x[11] = np.finfo(element).min
        made = run(kernels, {"X": x, "V": v})
        with np.errstate(all="ignore"):
            s = x.astype("f8") * 0.5
            g = s.max(1, initial=-np.inf)
            n = getattr(np, function)(s - g[:, None])
            d = (n * v.astype("f8")).sum(1)
            y = n / d[:, None]
        tolerance = 1e-5 if dtype == "f32" else 1e-12
        np.testing.assert_allclose(made["G"], g, rtol=tolerance, err_msg=str(columns))
        np.testing.assert_allclose(made["D"], d, rtol=tolerance, err_msg=str(columns))
        for name, expected in (("N", n), ("Y", y)):
            np.testing.assert_allclose(made[name], expected, rtol=tolerance, atol=1e-30)


@pytest.mark.parametrize(("columns", "expected"), [(1 << 12, False), (1 << 23, True)])
def test_which_folds_run_along(columns: int, expected: bool) -> None:
    module = el.compile(softmax_text()).module
    machine = Machine(64, 32, 32 << 10, 1 << 20)
    found = blockings_of(module, {}, {"X0": 8, "X1": columns}, machine)
    assert isinstance(found.get("D"), Running) == expected
