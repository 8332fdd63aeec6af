"""Every operation of the table on edge values of every dtype, against NumPy called directly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from einloom.ir.errors import DTypeError
from einloom.ir.interpret import interpret
from einloom.ir.ops import OPS, Op
from einloom.ir.promotion import Typing, numpy_dtype, op_typing
from einloom.ir.text import parse
from einloom.ir.types import BOOL, COMPLEX, SCALARS, Scalar

Array = Any

DTYPES = [Scalar(name) for name in SCALARS]


def edge_values(dtype: Scalar) -> Array:
    wanted = numpy_dtype(dtype)
    if dtype.kind == BOOL:
        return np.array([False, True])
    if dtype.is_integer:
        limits = np.iinfo(wanted)
        inside = [x for x in (-7, -2, -1, 0, 1, 2, 3, 7, 9) if x >= limits.min]
        return np.array([int(limits.min), *inside, int(limits.max)], wanted)
    real = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, 2.5, -2.5, 3.7, -0.3, 1e-4, 60000.0]
    special = [math.inf, -math.inf, math.nan]
    if dtype.kind == COMPLEX:
        return np.array([1 + 2j, 0j, -1.5j, 3.0, -2 - 0.25j, 0.5 + 0.5j], wanted)
    return np.array([*real, *special]).astype(wanted)


def same(got: Array, want: Array) -> None:
    """Equal, NaN where NaN; NumPy does not know that bfloat16 has NaN, so both are widened."""
    if got.dtype == ml_dtypes.bfloat16:
        got, want = got.astype(np.float32), np.asarray(want).astype(np.float32)
    np.testing.assert_array_equal(got, want)


def spelling(op: Op) -> str:
    if op.symbol is not None and op.arity != 1:
        return f"X[i] {op.symbol} Y[i]"
    arguments = ["X[i]", "Y[i]", "Z[i]"][: op.arity or 2]
    return f"{op.name}({', '.join(arguments)})"


def python_power(a: int, b: int) -> int:
    if b >= 0:
        return pow(a, b, 2**64)
    return {1: 1, -1: -1 if b % 2 else 1}.get(a, 0)


INTEGER_ONLY: dict[str, Callable[[int, int], int]] = {
    "pow": python_power,
    "ceildiv": lambda a, b: -(-a // b) if b else 0,
    "floordiv": lambda a, b: a // b if b else 0,
    "mod": lambda a, b: a % b if b else 0,
}


def expected(op: Op, dtype: Scalar, arguments: list[Array], result: Scalar) -> Array:
    """The operation by NumPy: f16 and bf16 in f32 rounded once, integers by Python's."""
    store = numpy_dtype(result)
    if dtype.is_integer and op.name in INTEGER_ONLY:
        exact = [INTEGER_ONLY[op.name](int(a), int(b)) for a, b in zip(*arguments[:2], strict=True)]
        return np.array([x % 2**dtype.bits for x in exact], np.uint64).astype(store)
    if op.rule == "rounding" and dtype.kind != "float":
        return arguments[0]
    narrow = dtype.name in ("f16", "bf16")
    wide = [a.astype(np.float32) if narrow else a for a in arguments]
    if op.rule in ("float", "real-float") and dtype.kind not in ("float", "complex"):
        wide = [a.astype(np.float32 if dtype.bits <= 16 else np.float64) for a in wide]
    if op.rule == "logical":
        wide = [a != 0 for a in wide]
    return np.asarray(op.numpy(*wide)).astype(store)


@pytest.mark.parametrize("name", [n for n in OPS if n not in ("stored", "select")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operations_follow_numpy(name: str, dtype: Scalar) -> None:
    op = OPS[name]
    count = op.arity or 2
    text = f"""program p(X: {dtype}[i=N], Y: {dtype}[i=N]) -> (R) {{ R[i] = {spelling(op)} }}"""
    left, right = (part.ravel() for part in np.meshgrid(*[edge_values(dtype)] * 2))
    try:
        result = op_typing(name, op.rule, [Typing(dtype)] * count).dtype
    except DTypeError as error:
        with pytest.raises(DTypeError) as raised:
            interpret(parse(text), {"X": left, "Y": right})
        assert raised.value.message == error.message
        return
    assert isinstance(result, Scalar)
    if count == 1:
        text = text.replace(f", Y: {dtype}[i=N]", "")
        left = edge_values(dtype)
    arrays = {"X": left, "Y": right} if count == 2 else {"X": left}
    got = interpret(parse(text), arrays)["R"]
    with np.errstate(all="ignore"):
        want = expected(op, dtype, list(arrays.values()), result)
    assert got.dtype == numpy_dtype(result)
    same(got, want)


@pytest.mark.parametrize("left", DTYPES, ids=str)
@pytest.mark.parametrize("right", DTYPES, ids=str)
def test_mixed_dtypes_promote_before_they_compute(left: Scalar, right: Scalar) -> None:
    text = f"program p(X: {left}[i=N], Y: {right}[i=N]) -> (R) {{ R[i] = X[i] * Y[i] }}"
    x, y = (part.ravel() for part in np.meshgrid(edge_values(left), edge_values(right)))
    got = interpret(parse(text), {"X": x, "Y": y})["R"]
    with np.errstate(all="ignore"):
        if "bf16" not in (left.name, right.name):
            wide = np.result_type(x, y)
            compute = np.dtype(np.float32) if wide == np.float16 else wide
            want = (x.astype(compute) * y.astype(compute)).astype(wide)
            same(got, want)
            assert got.dtype == wide
            return
        other = right if left.name == "bf16" else left
        if other.name in ("bool", "i8", "u8", "bf16"):
            want = (x.astype(np.float32) * y.astype(np.float32)).astype(ml_dtypes.bfloat16)
        else:
            wide = np.dtype(np.float32) if other.is_integer or other.name == "f16" else (
                numpy_dtype(other))  # fmt: skip
            x, y = (a.astype(np.float32) if a.dtype == ml_dtypes.bfloat16 else a for a in (x, y))
            want = x.astype(wide) * y.astype(wide)
    assert got.dtype == want.dtype
    same(got, want)


def test_n_ary_operations_promote_all_before_they_compute() -> None:
    text = "program p(A: i8[i=N], B: i8[i=N], C: f64[i=N]) -> (R) { R[i] = A[i] + B[i] + C[i] }"
    a = np.array([127, -128], np.int8)
    got = interpret(parse(text), {"A": a, "B": a, "C": np.zeros(2)})["R"]
    assert got.tolist() == [254.0, -256.0]


def test_comparisons_of_integers_are_exact() -> None:
    text = """program p(A: u64[i=N], B: i64[i=N], C: u8[i=N]) -> (L, E, G) {
      L[i] = A[i] < B[i]
      E[i] = A[i] == B[i]
      G[i] = C[i] < 300 and C[i] > -1
    }"""
    a = np.array([2**63, 2**53 + 1, 5], np.uint64)
    b = np.array([-1, 2**53, 5], np.int64)
    got = interpret(parse(text), {"A": a, "B": b, "C": np.array([0, 44, 255], np.uint8)})
    assert got["L"].tolist() == [False, False, False]
    assert got["E"].tolist() == [False, False, True]
    assert got["G"].tolist() == [True, True, True]


def test_weak_literals_take_the_dtype_they_meet() -> None:
    text = """program p(A: f32[i=N], B: u8[i=N]) -> (R, S, T) {
      R[i] = A[i] * 0.1
      S[i] = B[i] + 250
      T[i] = B[i] * 0.5
    }"""
    a, b = np.array([3.0, 0.7], np.float32), np.array([3, 10], np.uint8)
    got = interpret(parse(text), {"A": a, "B": b})
    same(got["R"], a * np.float32(0.1))
    assert got["S"].dtype == np.uint8 and got["S"].tolist() == [253, 4]
    assert got["T"].dtype == np.float64 and got["T"].tolist() == [1.5, 5.0]


def test_a_literal_that_does_not_fit_is_refused() -> None:
    text = "program p(B: u8[i=N]) -> (S) { S[i] = B[i] + 256 }"
    with pytest.raises(DTypeError) as raised:
        interpret(parse(text), {"B": np.zeros(2, np.uint8)})
    assert raised.value.message == "the literal 256 does not fit u8"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_select_and_casts(dtype: Scalar) -> None:
    text = f"""program p(C: bool[i=N], X: {dtype}[i=N], Y: {dtype}[i=N]) -> (R, S) {{
      R[i] = select(C[i], X[i], Y[i])
      S[i] = select(X[i], 1, 2)
    }}"""
    x = edge_values(dtype)
    y = x[::-1]
    c = np.arange(len(x)) % 3 == 0
    got = interpret(parse(text), {"C": c, "X": x, "Y": y})
    same(got["R"], np.where(c, x, y))
    assert got["R"].dtype == x.dtype
    same(got["S"], np.where(x != 0, 1, 2))


def test_f16_rounds_where_it_is_stored_or_cast() -> None:
    text = """program p(X: f16[i=N]) -> (A, B) {
      A[i] = X[i] * X[i] - X[i] * X[i]
      B[i] = f16(X[i] * X[i]) - X[i] * X[i]
    }"""
    x = np.array([300.0, 0.1], np.float16)
    got = interpret(parse(text), {"X": x})
    wide = x.astype(np.float32) ** 2
    with np.errstate(over="ignore"):
        expected = (wide.astype(np.float16).astype(np.float32) - wide).astype(np.float16)
    assert got["A"].tolist() == [0.0, 0.0]
    assert math.isinf(got["B"][0]) and got["B"][1] == expected[1] != 0


@pytest.mark.parametrize("modulus", [2, 17, 2**32, 2**61 - 1, 2**63 - 25])
def test_residues_against_python_integers(modulus: int) -> None:
    text = f"""program p(A: zq<{modulus}>[i=N], B: zq<{modulus}>[i=N])
              -> (S, D, M, G, E, T, P, L, F) {{
      S[i] = A[i] + B[i] + 5
      D[i] = A[i] - B[i]
      M[i] = A[i] * B[i] * 3
      G[i] = -A[i]
      E[i] = A[i] == B[i]
      T = sum[i] A[i]
      P = prod[i] A[i]
      L[i] = A[i] * {10**30} - {10**25}
      F[i] = i64(A[i]) - 1
    }}"""
    random = np.random.default_rng(5)
    a = random.integers(0, modulus, 9, np.uint64)
    b = np.concatenate([random.integers(0, modulus, 7, np.uint64), a[7:]])
    got = {k: v.tolist() for k, v in interpret(parse(text), {"A": a, "B": b}).items()}
    x, y = a.tolist(), b.tolist()
    assert got["S"] == [(p + q + 5) % modulus for p, q in zip(x, y, strict=True)]
    assert got["D"] == [(p - q) % modulus for p, q in zip(x, y, strict=True)]
    assert got["M"] == [p * q * 3 % modulus for p, q in zip(x, y, strict=True)]
    assert got["G"] == [-p % modulus for p in x]
    assert got["E"] == [p == q for p, q in zip(x, y, strict=True)]
    assert got["T"] == sum(x) % modulus
    assert got["P"] == math.prod(x) % modulus
    assert got["L"] == [(p * 10**30 - 10**25) % modulus for p in x]
    assert got["F"] == [p - 1 for p in x]
