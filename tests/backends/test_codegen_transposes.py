"""Squares of vectors transposed in registers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from einloom.backends.cpu import jit
from einloom.backends.cpu.codegen import emit
from einloom.backends.cpu.target import Target, baseline, host
from einloom.ir.errors import BackendError
from einloom.ir.expressions import Literal, Local
from einloom.ir.loops import (
    Buffer,
    Load,
    LoopFunction,
    LoopProgram,
    LoopStatement,
    Splat,
    Store,
    Transpose,
)
from einloom.ir.promotion import from_numpy
from einloom.ir.types import Scalar, f32, i32

Compile = Callable[..., Any]
LINUX = "x86_64-unknown-linux-gnu"
AVX2 = frozenset(("sse", "sse2", "ssse3", "sse4.1", "sse4.2", "avx", "avx2", "f16c", "fma"))
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}


def square(name: str, dtype: Scalar, item: int, lanes: int, group: int = 1) -> LoopFunction:
    """T = transpose of A, both `lanes` by `lanes` groups of neighbours."""
    zero = Literal(0)
    loads = tuple(Load("A", (Literal(k), zero), lanes * group) for k in range(lanes))
    names = tuple(f"t{k}" for k in range(lanes))
    stores = tuple(Store("T", (Literal(k), zero), Local(x)) for k, x in enumerate(names))
    buffers = (Buffer("A", dtype, (None, item)), Buffer("T", dtype, (None, item), "out"))
    return LoopFunction(name, buffers, (), (Transpose(names, loads), *stores))


@pytest.mark.parametrize("name", ["bool", "i1", "u2", "i4", "u8", "f2", "f4", "f8"])
@pytest.mark.parametrize("registers", ["widest", "256 bits", "baseline"])
def test_squares_of_every_width(name: str, registers: str, compiled: Compile) -> None:
    dtype = np.dtype(name)
    kind = from_numpy(dtype)
    assert isinstance(kind, Scalar)
    wide = [x for x in host().features if x.startswith("avx512")]
    targets = {
        "widest": host(), "256 bits": host().without(*wide), "baseline": baseline(host().triple),
    }  # fmt: skip
    sides = (2, 4, 8, 16, 32)
    functions = [square(f"s{lanes}", kind, dtype.itemsize, lanes) for lanes in sides]
    kernels = compiled(*functions, target=targets[registers])
    rng = np.random.default_rng(3)
    for lanes in sides:
        whole = rng.integers(0, 100, (lanes, lanes + 3)).astype(dtype)
        source, found = whole[:, 1:-2], np.zeros((lanes, lanes + 5), dtype)
        target = found[:, 2:-3]
        assert kernels(f"s{lanes}", [source, target]) == 0
        np.testing.assert_array_equal(target, source.T)
        assert not found[:, :2].any() and not found[:, -3:].any()


@pytest.mark.parametrize("dtype,item,group", [("i8", 1, 4), ("i8", 1, 2), ("u16", 2, 2)])
@pytest.mark.parametrize("registers", ["widest", "baseline"])
def test_groups_of_lanes_stay_together(
    dtype: str, item: int, group: int, registers: str, compiled: Compile
) -> None:
    sides = (2, 4, 8, 16)
    functions = [square(f"s{n}", Scalar(dtype), item, n, group) for n in sides]
    target = host() if registers == "widest" else baseline(host().triple)
    kernels = compiled(*functions, target=target)
    for count in sides:
        shape = (count, count * group)
        source = np.arange(count * count * group).reshape(shape).astype(f"u{item}")
        found = np.zeros(shape, source.dtype)
        assert kernels(f"s{count}", [source, found]) == 0
        parts = source.reshape(count, count, group).transpose(1, 0, 2)
        np.testing.assert_array_equal(found, parts.reshape(shape))


@pytest.mark.parametrize(
    ("features", "dtype", "item", "lanes"),
    [
        (AVX512, "f32", 4, 16), (AVX512, "f64", 8, 8), (AVX512, "i16", 2, 16),
        (AVX512, "i8", 1, 16), (AVX2, "f32", 4, 8), (AVX2, "f64", 8, 4), (AVX2, "i8", 1, 16),
    ],
)  # fmt: skip
def test_one_shuffle_for_each_vector_and_stage(
    features: frozenset[str], dtype: str, item: int, lanes: int
) -> None:
    """Without spills, gathers or scalar code."""
    program = LoopProgram((square("k", Scalar(dtype), item, lanes),))
    target = Target(LINUX, features)
    text = jit.assembly(emit(program, target), target)
    shuffles = re.findall(r"^\s+v(?:p?unpck|movlhp|shuf|perm|insert)\w*\s", text, re.MULTILINE)
    assert len(shuffles) == lanes * (lanes.bit_length() - 1)
    assert not re.search(r"gather|pextr|extractps|blend", text)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (Transpose(("t", "u"), (Splat(Literal(0.5), 3), Splat(Literal(0.5), 3))), "a square"),
        (Transpose(("t", "u"), (Splat(Literal(0.5), 4), Splat(Literal(0.5), 2))), "a square"),
        (
            Transpose(("t", "u"), (Load("A", (Literal(0),), 2), Load("B", (Literal(0),), 2))),
            "a square",
        ),
        (
            Transpose(("t", "u", "v"), (Load("A", (Literal(0),), 3),) * 3),
            "3 vectors are transposed, which is no power of two",
        ),
    ],
)
def test_what_is_no_square(body: LoopStatement, message: str) -> None:
    buffers = (Buffer("A", f32, (4,)), Buffer("B", i32, (4,)))
    with pytest.raises(BackendError, match=message):
        emit(LoopProgram((LoopFunction("k", buffers, (), (body,)),)), host())
