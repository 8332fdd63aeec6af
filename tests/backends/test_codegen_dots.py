"""Dot products in lanes: instructions and the portable form against NumPy, over the full range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

from einloom.backends.cpu import jit
from einloom.backends.cpu.codegen import emit
from einloom.backends.cpu.target import Target, baseline, bfloat_dots, byte_dots, host
from einloom.ir.errors import BackendError
from einloom.ir.expressions import Literal
from einloom.ir.loops import Buffer, Dot, Load, LoopFunction, LoopProgram, Store
from einloom.ir.types import Scalar, f32, i32

Compile = Callable[..., Any]
LINUX = "x86_64-unknown-linux-gnu"
SHORT = frozenset(("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512bf16"))
AVX2 = frozenset(("sse", "sse2", "ssse3", "sse4.1", "sse4.2", "avx", "avx2", "avxvnni"))
LANES = (1, 2, 4, 8, 16, 24)


def dotted(name: str, terms: int, left: str, right: str, sums: Scalar, lanes: int) -> LoopFunction:
    """Y[0, :] = Y[0, :] + dot products of L[0, :] and pieces of R[0, :]."""
    zero = (Literal(0), Literal(0))
    buffers = [
        Buffer(buffer, dtype, (None, int(dtype.bits) // 8), role)
        for buffer, dtype, role in (
            ("L", Scalar(left), "in"), ("R", Scalar(right), "in"), ("Y", sums, "inout")
        )
    ]  # fmt: skip
    value = Dot(
        terms, Load("Y", zero, lanes), Load("L", zero, terms), Load("R", zero, terms * lanes)
    )
    return LoopFunction(name, tuple(buffers), (), (Store("Y", zero, value),))


def targets() -> dict[str, Target]:
    long = [name for name in host().features if name.startswith("avx512")]
    return {
        "this machine": host(),
        "no dots": host().without("avx512vnni", "avxvnni", "avx512bf16"),
        "256 bits": host().without(*long),
        "baseline": baseline(host().triple),
    }


@pytest.mark.parametrize("kind", ["this machine", "no dots", "256 bits", "baseline"])
@pytest.mark.parametrize(
    ("left", "right"), [("u8", "i8"), ("i8", "u8"), ("i8", "i8"), ("u8", "u8")]
)
def test_bytes_of_the_full_range(left: str, right: str, kind: str, compiled: Compile) -> None:
    cases = [(terms, lanes) for terms in (2, 4) for lanes in LANES]
    functions = [dotted(f"d{t}_{n}", t, left, right, i32, n) for t, n in cases]
    kernels = compiled(*functions, target=targets()[kind])
    rng = np.random.default_rng(1)
    for terms, lanes in cases:
        ranges = [np.iinfo({"i8": np.int8, "u8": np.uint8}[x]) for x in (left, right)]
        for turn in range(40):
            a, b = (
                rng.integers(r.min, r.max, (1, n), r.dtype, endpoint=True)
                for r, n in zip(ranges, (terms, terms * lanes), strict=True)
            )
            if turn < 4:  # every pair of extremes in all lanes
                a[:] = (ranges[0].min, ranges[0].max)[turn & 1]
                b[:] = (ranges[1].min, ranges[1].max)[turn >> 1]
            sums = rng.integers(-(2**31), 2**31, (1, lanes)).astype(np.int32)
            wide = b.astype(np.int64).reshape(lanes, terms) @ a[0].astype(np.int64)
            expected = (sums + wide).astype(np.int32)
            assert kernels(f"d{terms}_{lanes}", [a, b, sums]) == 0
            np.testing.assert_array_equal(sums, expected)


@pytest.mark.parametrize("kind", ["this machine", "no dots", "256 bits", "baseline"])
def test_bfloat_pairs(kind: str, compiled: Compile) -> None:
    cases = [(terms, lanes) for terms in (2, 4) for lanes in LANES]
    functions = [dotted(f"d{t}_{n}", t, "bf16", "bf16", f32, n) for t, n in cases]
    kernels = compiled(*functions, target=targets()[kind])
    rng = np.random.default_rng(2)
    for terms, lanes in cases:
        for _ in range(20):
            a, b = (rng.standard_normal((1, n)).astype(bfloat16) for n in (terms, terms * lanes))
            sums = rng.standard_normal((1, lanes)).astype(np.float32)
            products = b.astype(np.float64).reshape(lanes, terms) * a[0].astype(np.float64)
            expected = sums + products.sum(axis=1)
            scale = np.abs(sums) + np.abs(products).sum(axis=1)
            assert kernels(f"d{terms}_{lanes}", [a, b, sums]) == 0
            assert np.max(np.abs(sums - expected) / scale) < terms * 2**-23


@pytest.mark.parametrize("kind", ["this machine", "no dots"])
def test_what_is_no_number_stays_in_its_lane(kind: str, compiled: Compile) -> None:
    kernels = compiled(dotted("d", 2, "bf16", "bf16", f32, 16), target=targets()[kind])
    a, b = np.ones((1, 2), bfloat16), np.ones((1, 32), bfloat16)
    sums = np.zeros((1, 16), np.float32)
    b[0, 5], b[0, 8], b[0, 13], b[0, 12] = np.nan, np.inf, np.inf, -np.inf
    assert kernels("d", [a, b, sums]) == 0
    expected = np.full((1, 16), 2.0)
    expected[0, [2, 4, 6]] = np.nan, np.inf, np.nan
    np.testing.assert_array_equal(sums, expected)


@pytest.mark.parametrize(
    ("features", "left", "right", "lanes", "instruction"),
    [
        (SHORT, "u8", "i8", 16, "vpdpbusd"),
        (SHORT, "i8", "u8", 16, "vpdpbusd"),
        (SHORT, "u8", "i8", 8, "vpdpbusd"),
        (SHORT, "u8", "i8", 4, "vpdpbusd"),
        (AVX2, "u8", "i8", 8, "vpdpbusd"),
        (SHORT, "bf16", "bf16", 16, "vdpbf16ps"),
        (SHORT, "bf16", "bf16", 8, "vdpbf16ps"),
    ],
)
def test_one_instruction_and_a_broadcast(
    features: frozenset[str], left: str, right: str, lanes: int, instruction: str
) -> None:
    terms, sums = (2, f32) if left == "bf16" else (4, i32)
    program = LoopProgram((dotted("k", terms, left, right, sums, lanes),))
    target = Target(LINUX, features)
    text = jit.assembly(emit(program, target), target)
    text = text.replace("{vex}", "\t")  # marks the encoding of AVX-VNNI
    found = [line.split()[0] for line in text.splitlines() if line.strip().startswith("v")]
    assert found.count(instruction) == 1
    moves = ("vmov", "vpbroadcast", "vbroadcast", "vzeroupper", instruction)
    assert all(name.startswith(moves) for name in found), found


def test_which_features_have_dots() -> None:
    assert [byte_dots(SHORT, bits) for bits in (64, 128, 256, 512)] == [False, True, True, True]
    assert [byte_dots(AVX2, bits) for bits in (128, 256, 512)] == [True, True, False]
    assert [byte_dots({"avx512vnni"}, bits) for bits in (256, 512)] == [False, True]
    assert [bfloat_dots(SHORT, bits) for bits in (128, 256, 512)] == [True, True, True]
    assert [bfloat_dots({"avx512bf16"}, bits) for bits in (256, 512)] == [False, True]
    assert not bfloat_dots(AVX2, 256)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BackendError, match=r"dot<4> of i8 x 4 and f32 x 16 does not fit"):
        emit(LoopProgram((dotted("k", 4, "i8", "f32", i32, 4),)), host())
