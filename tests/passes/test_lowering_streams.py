"""Results too large for the caches: which are written past them, and that they are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.backends.cpu.compile import compile_payload, from_payload
from einloom.backends.cpu.threads import shared_pool
from einloom.ir.loops import Allocate, LoopProgram, Stream
from einloom.ir.machine import Machine
from einloom.ir.node import postorder
from einloom.ir.text import parse, parse_loops, show
from einloom.ir.verify import verify_loops
from einloom.passes.lowering import OperandLayout, lower
from einloom.passes.lowering.products.plan import blockings_of

Array = np.ndarray[Any, Any]

TINY = Machine(64, 32, 1 << 10, 1 << 10)
"""A machine whose caches hold next to nothing: 16 KiB."""

MAP = "program p(X: f32[i=I, j=J]) -> (Y) {\n  Y[i, j] = X[i, j] * X[i, j]\n}\n"
FLAT = "program p(X: f32[i=I]) -> (Y) {\n  Y[i] = X[i] * X[i]\n}\n"
SOFTMAX = """
program softmax(X: f32[i=I, j=J]) -> (Y) {
  M[i] = max[j] X[i, j]
  E[i, j] = exp(X[i, j] - M[i])
  S[i] = sum[j] E[i, j]
  Y[i, j] = E[i, j] / S[i]
}
"""
TWO = """
program two(X: f32[i=I, j=J], Z: f64[i=I, j=J]) -> (Y, W) {
  Y[i, j] = X[i, j] + 1
  W[i, j] = Z[i, j] * X[i, j]
}
"""
PRODUCT = (
    "program p(X: f32[i=I, k=K], Z: f32[k=K, j=J]) -> (Y) {\n  Y[i, j] = X[i, k] * Z[k, j]\n}\n"
)
EPILOGUE = """
program p(X: f32[i=I, k=K], Z: f32[k=K, j=J], c: f32[j=J]) -> (Y) {
  H[i, j] = X[i, k] * Z[k, j]
  Y[i, j] = max(H[i, j] + c[j], 0.0)
}
"""


def lowered(
    text: str, sizes: dict[str, int], layouts: dict[str, OperandLayout] | None = None
) -> LoopProgram:
    module = el.compile(el.parse(text)).module
    cuts = blockings_of(module, layouts or {}, sizes, TINY)
    program = lower(module, layouts, blockings=cuts)
    verify_loops(program)
    assert parse_loops(show(program)) == program
    return program


def streams(program: LoopProgram) -> list[str]:
    return [part.buffer for part in postorder(program) if isinstance(part, Stream)]


def run(program: LoopProgram, arrays: dict[str, Array], sizes: dict[str, int]) -> dict[str, Array]:
    kernels = from_payload(compile_payload(program))
    assert kernels is not None
    found: dict[str, Array] = {}
    for threads in (1, 2):
        prepared = kernels.prepare(arrays, sizes)
        results = prepared.allocate()
        for result in results:
            result.view(np.uint8)[...] = 0x55
        prepared.run([*arrays.values(), *results], shared_pool(), threads)
        made = {s.name: a for s, a in zip(prepared.storages, results, strict=True)}
        for name, array in found.items():
            np.testing.assert_array_equal(array, made[name])
        found = made
    return found


def drawn(shape: tuple[int, ...], dtype: str = "f4") -> Array:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(dtype)


SIZES = [(1, 4096), (3, 2047), (2, 4097), (70, 100), (4096, 1), (300, 17)]


@pytest.mark.parametrize("shape", SIZES)
def test_maps(shape: tuple[int, int]) -> None:
    sizes = dict(zip("IJ", shape, strict=True))
    program = lowered(MAP, {"I": 64, "J": 4096})
    assert streams(program) == ["Y"]
    x = drawn(shape)
    np.testing.assert_array_equal(run(program, {"X": x}, sizes)["Y"], x * x)
    strided = drawn((shape[0], 2 * shape[1]))[:, ::2]
    program = lowered(MAP, {"I": 64, "J": 4096}, {"X": OperandLayout((None, None))})
    assert streams(program) == ["Y"]
    np.testing.assert_array_equal(run(program, {"X": strided}, sizes)["Y"], strided * strided)


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 2049, 100_000])
def test_maps_of_one_rank_are_shared_out_in_chunks(size: int) -> None:
    program = lowered(FLAT, {"I": 10_000})
    assert streams(program) == ["Y"]
    x = drawn((size,))
    np.testing.assert_array_equal(run(program, {"X": x}, {"I": size})["Y"], x * x)


@pytest.mark.parametrize("shape", SIZES)
def test_sweeps_of_a_softmax(shape: tuple[int, int]) -> None:
    sizes = dict(zip("IJ", shape, strict=True))
    program = lowered(SOFTMAX, {"I": 64, "J": 4096})
    assert streams(program) == ["Y"]
    x = drawn(shape)
    e = np.exp(x.astype("f8") - x.max(1, keepdims=True))
    expected = e / e.sum(1, keepdims=True)
    np.testing.assert_allclose(run(program, {"X": x}, sizes)["Y"], expected, rtol=2e-6)


def test_two_results_of_different_dtypes_in_one_loop() -> None:
    program = lowered(TWO, {"I": 64, "J": 4096})
    assert sorted(streams(program)) == ["W", "Y"]
    x, z = drawn((5, 3000)), drawn((5, 3000), "f8")
    found = run(program, {"X": x, "Z": z}, {"I": 5, "J": 3000})
    np.testing.assert_array_equal(found["Y"], x + 1)
    np.testing.assert_array_equal(found["W"], z * x)


@pytest.mark.parametrize("text", [PRODUCT, EPILOGUE], ids=["product", "epilogue"])
@pytest.mark.parametrize("likely", [2, 8, 40], ids=["two", "thin", "many"])
@pytest.mark.parametrize("shape", [(2, 4100, 2), (8, 5000, 3), (13, 4097, 40), (100, 130, 400)])
def test_products(text: str, likely: int, shape: tuple[int, int, int]) -> None:
    sizes = dict(zip("IJK", shape, strict=True))
    program = lowered(text, {"I": likely, "J": 4096, "K": 16})
    assert ("Z<16>[" in show(program)) == (likely <= 8)
    assert streams(program) == ["Y"]
    x, z, c = drawn((shape[0], shape[2])), drawn((shape[2], shape[1])), drawn((shape[1],))
    arrays = {"X": x, "Z": z}
    expected = x.astype("f8") @ z
    if text == EPILOGUE:
        arrays["c"] = c
        expected = np.maximum(expected + c, 0)
    found = run(program, arrays, sizes)["Y"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_results_that_are_strided_or_small_are_stored_as_ever() -> None:
    sizes = {"I": 64, "J": 4096}
    assert streams(lowered(MAP, sizes, {"Y": OperandLayout((None, None))})) == []
    assert streams(lowered(MAP, {"I": 64, "J": 63})) == []


@pytest.mark.parametrize("text", [MAP, PRODUCT])
def test_short_rows_have_too_few_whole_lines(text: str) -> None:
    assert streams(lowered(text, {"I": 40_000, "J": 16, "K": 16})) == []
    assert streams(lowered(text, {"I": 4000, "J": 512, "K": 16})) == ["Y"]


def test_buffers_of_one_function_fit_the_stack_of_a_small_thread() -> None:
    names = [f"Y{k}" for k in range(20)]
    lines = [f"  {name}[i, j] = X[i, j] + {k}" for k, name in enumerate(names)]
    head = f"program many(X: f32[i=I, j=J]) -> ({', '.join(names)}) {{\n"
    program = lowered(head + "\n".join(lines) + "\n}\n", {"I": 64, "J": 4096})
    assert streams(program)
    for function in program.functions:
        stages = [part for part in postorder(function) if isinstance(part, Allocate)]
        assert 8192 * len(stages) <= 32 << 10
    x = drawn((3, 3000))
    found = run(program, {"X": x}, {"I": 3, "J": 3000})
    for k, name in enumerate(names):
        np.testing.assert_array_equal(found[name], x + k)


def test_scatters_read_what_they_write() -> None:
    text = "program p(X: f32[i=I], w: f32[k=K]) -> (Y) {\n"
    text += "  Y: f32[n=I+K][i + k] = sum[i, k] X[i] * w[k]\n}\n"
    program = lowered(text, {"I": 50_000, "K": 3})
    assert streams(program) == []


def test_a_result_that_another_kernel_reads() -> None:
    text = "program p(X: f32[i=I, j=J]) -> (Y, Z) {\n  Y[i, j] = X[i, j] + 1\n"
    module = parse(text + "  Z[i] = max[j] Y[i, j]\n}\n")
    cuts = blockings_of(module, {}, {"I": 64, "J": 4096}, TINY)
    program = lower(module, blockings=cuts)
    assert streams(program) == ["Y"]
    x = drawn((9, 5000))
    found = run(program, {"X": x}, {"I": 9, "J": 5000})
    np.testing.assert_array_equal(found["Z"], (x + 1).max(1))


def test_written_backwards() -> None:
    backwards = MAP.replace("Y[i, j] =", "Y: f32[a=I, b=J][i, J - 1 - j] =")
    x = drawn((9, 5000))
    found = run(lowered(backwards, {"I": 64, "J": 4096}), {"X": x}, {"I": 9, "J": 5000})
    np.testing.assert_array_equal(found["Y"], (x * x)[:, ::-1])
