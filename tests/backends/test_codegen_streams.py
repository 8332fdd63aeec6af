"""Copies past the caches: every beginning and length, nothing written beyond."""

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
from einloom.ir.expressions import Literal, Symbol
from einloom.ir.loops import Buffer, Load, LoopFunction, LoopProgram, Stream
from einloom.ir.promotion import from_numpy
from einloom.ir.types import Scalar

Compile = Callable[..., Any]
ARM = Target("aarch64-unknown-linux-gnu", frozenset(("fp-armv8", "neon")))


def copier(dtype: Scalar, item: int, aligned: bool = True) -> LoopFunction:
    """T[1, at:at+n] = A[at2:at2+n]."""
    buffers = (
        Buffer("A", dtype, (item,), "in", aligned),
        Buffer("T", dtype, (None, item), "out", aligned),
    )
    source = Load("A", (Symbol("source"),))
    body = Stream("T", (Literal(1), Symbol("at")), source, Symbol("n"))
    return LoopFunction("k", buffers, ("at", "source", "n"), (body,))


@pytest.mark.parametrize("name", ["bool", "u1", "f2", "i4", "f8", "c8", "c16"])
@pytest.mark.parametrize("registers", ["widest", "256 bits", "baseline"])
def test_every_beginning_and_length(name: str, registers: str, compiled: Compile) -> None:
    dtype = np.dtype(name)
    kind = from_numpy(dtype)
    assert isinstance(kind, Scalar)
    wide = [x for x in host().features if x.startswith("avx512")]
    target = {
        "widest": host(), "256 bits": host().without(*wide), "baseline": baseline(host().triple),
    }[registers]  # fmt: skip
    kernels = compiled(copier(kind, dtype.itemsize), target=target)
    rng = np.random.default_rng(7)
    source = rng.integers(0, 2, 700).astype(dtype)
    line = 64 // dtype.itemsize
    lengths = (0, 1, line - 1, line, line + 1, 3 * line - 1, 500)
    for at in sorted({0, 1, 2, 3, line - 1, line, line + 1}):
        for length in lengths:
            first = int(rng.integers(0, 100))
            found = np.full((3, 700), 1, dtype)
            expected = found.copy()
            expected[1, at : at + length] = source[first : first + length]
            assert kernels("k", [source, found], [at, first, length]) == 0
            np.testing.assert_array_equal(found, expected)


def test_elements_across_the_borders_of_lines(compiled: Compile) -> None:
    """Where no element begins at a multiple of its size, no line begins with an element."""
    kernels = compiled(copier(Scalar("f64"), 8, aligned=False))
    for shift in range(1, 9):
        memory = np.zeros(8 * 300 + 16, np.uint8)
        found = np.ndarray((2, 140), np.float64, memory, shift)
        source = np.arange(140.0)
        assert kernels("k", [source, found], [3, 0, 130]) == 0
        np.testing.assert_array_equal(found[1, 3:133], source[:130])
        assert not found[0].any() and not found[1, :3].any() and not found[1, 133:].any()


@pytest.mark.parametrize(
    ("target", "store", "fence"),
    [
        (host(), r"v?movnt(?:ps|pd|dq|i)", "sfence"),
        (baseline("x86_64-unknown-linux-gnu"), r"movnt(?:ps|pd|dq|i)", "sfence"),
        (ARM, r"stnp", ""),
    ],
    ids=["host", "x86-64", "aarch64"],
)
def test_lines_bypass_the_caches_and_a_fence_ends_the_kernel(
    target: Target, store: str, fence: str
) -> None:
    if target.architecture != "aarch64" and host().architecture != "x86_64":
        pytest.skip("instructions of x86")
    text = jit.assembly(emit(LoopProgram((copier(Scalar("f32"), 4),)), target), target)
    assert re.search(rf"^\s+{store}\s", text, re.MULTILINE)
    assert len(re.findall(r"^\s+sfence", text, re.MULTILINE)) == bool(fence)


def test_a_strided_result_is_refused() -> None:
    buffers = (Buffer("A", Scalar("f32"), (4,)), Buffer("T", Scalar("f32"), (None,), "out"))
    body = Stream("T", (Literal(0),), Load("A", (Literal(0),)), Literal(4))
    program = LoopProgram((LoopFunction("k", buffers, (), (body,)),))
    with pytest.raises(BackendError, match="T is streamed, whose last dimension is not dense"):
        emit(program, host())
