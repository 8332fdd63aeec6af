"""Conversions: every dtype into every other, and the 16-bit floats over all their values."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from einloom.backends.cpu.target import host
from einloom.ir.expressions import Apply, Cast, Expression, Literal, Local, Symbol
from einloom.ir.loops import Buffer, For, Load, LoopFunction, Store
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import (
    DType,
    Modular,
    Scalar,
    bf16,
    bool_,
    c64,
    c128,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    u8,
    u16,
    u32,
    u64,
)

Compile = Callable[..., Any]
Array = np.ndarray[Any, Any]

INTEGERS = (i8, i16, i32, i64, u8, u16, u32, u64)
ALL = (bool_, *INTEGERS, f16, bf16, f32, f64, c64, c128)
SAMPLES = 1 << 18
# With and without instructions for f16: without them it is integer code on any x86-64.
HALVES = ["native", "portable"]


def copy(name: str, value: Expression, source: DType, result: DType) -> LoopFunction:
    """`for i < n: R[i] = value`, on dense arrays, so that the loop is vectorised."""
    size = numpy_dtype(source).itemsize, numpy_dtype(result).itemsize
    loop = For("i", Literal(0), Symbol("n"), (Store("R", (Local("i"),), value),))
    buffers = (Buffer("A", source, size[:1]), Buffer("R", result, size[1:], "out"))
    return LoopFunction(name, buffers, ("n",), (loop,))


ELEMENT = Load("A", (Local("i"),))


def values_of(dtype: Scalar) -> Array:
    kind = numpy_dtype(dtype)
    random = np.random.default_rng(1)
    if dtype == bool_:
        return np.array([False, True])
    if dtype.is_integer:
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
        return np.concatenate(
            [
                np.array([low, 0, 1, high, high - 1], kind),
                random.integers(low, high, 200, dtype=kind, endpoint=True),
                random.integers(0, 127, 50).astype(kind),
            ]
        )
    edges = [0.0, -0.0, 0.4, -0.6, 1.5, -1.5, 127.9, 128, 255.5, -129, 3e9, -3e9, 1e19, -1e19]
    edges += [np.inf, -np.inf, np.nan, 65504, 65520, 1e-6, 2.0**31, 2.0**63, 2.0**64, 1e300]
    values = np.concatenate([edges, random.normal(size=100) * 100, random.normal(size=50) * 1e9])
    with np.errstate(all="ignore"):
        if dtype.kind == "complex":
            return np.asarray(values + 1j * np.roll(values, 7), kind)
        return np.asarray(values.astype(kind))


# The finite bf16 values from -2^128 to 2^128, both of which stand for infinity, in order.
BRAINS = [k * 2.0**-133 for k in range(128)]  # the subnormals' steps of 2^-133, up to 2^-126
BRAINS += [(128 + m) * 2.0 ** (e - 7) for e in range(-126, 128) for m in range(128)] + [2.0**128]
BRAINS = [-x for x in reversed(BRAINS[1:])] + BRAINS


def nearest_bf16(array: Array) -> Array:
    """The nearest bf16 of each number, compared exactly: ml_dtypes goes through f32."""
    answers = []
    for x in array.tolist():
        above = bisect_left(BRAINS, x)
        if not abs(x) < 2.0**128:  # infinite, NaN, or out of range
            answers.append(x * np.inf)
            continue
        pair = BRAINS[above - 1], BRAINS[above]
        gaps = Fraction(x) - Fraction(pair[0]), Fraction(pair[1]) - Fraction(x)
        # Neighbours have positions of different parity, and zero, the middle one, is even.
        even = (above - len(BRAINS) // 2) % 2 == 0
        nearest = pair[1] if gaps[1] < gaps[0] or (gaps[0] == gaps[1] and even) else pair[0]
        answers.append(np.inf * nearest if abs(nearest) == 2.0**128 else nearest)
    signs = np.signbit(array.astype(np.float64))
    signed = np.copysign(np.abs(np.array(answers)), np.where(signs, -1, 1))
    return np.asarray(signed.astype(numpy_dtype(bf16)))


def converted(array: Array, source: Scalar, result: Scalar) -> Array:
    """What a conversion gives: NumPy's, saturating where NumPy leaves it to the processor."""
    if source.kind == "complex" and result.kind != "complex":
        if result == bool_:
            return np.asarray(array != 0)
        array = array.real
        source = f32 if source == c64 else f64
    if source.kind == "float" and result.is_integer:
        low, high = np.iinfo(numpy_dtype(result)).min, np.iinfo(numpy_dtype(result)).max
        whole = []
        for x in array.astype(np.float64).tolist():
            if np.isnan(x):
                whole.append(0)
            else:
                whole.append(int(min(max(x, low), high)) if abs(x) < 1e20 else (low, high)[x > 0])
        return np.array([min(x, high) for x in whole], numpy_dtype(result))
    if result == bf16 and source not in (f32, bf16):
        return nearest_bf16(array)
    return array.astype(numpy_dtype(result))


@pytest.mark.parametrize("source", ALL, ids=lambda dtype: dtype.name)
def test_every_dtype_converts_to_every_other(source: Scalar, compiled: Compile) -> None:
    functions = []
    for result in ALL:
        functions.append(copy(f"store.{result.name}", ELEMENT, source, result))
        functions.append(copy(f"cast.{result.name}", Cast(result, ELEMENT), source, result))
    kernels = compiled(*functions)
    array = values_of(source)
    for result in ALL:
        with np.errstate(all="ignore"):
            expected = converted(array, source, result)
        if result == bf16:  # NumPy's comparison does not know that its NaNs are NaNs
            expected = expected.astype(np.float32)
        for how in ("store", "cast"):
            found = np.zeros(array.size, numpy_dtype(result))
            assert kernels(f"{how}.{result.name}", [array, found], [array.size]) == 0
            message = f"{how} of {source.name} in {result.name}"
            np.testing.assert_array_equal(found.astype(expected.dtype), expected, err_msg=message)


def half_kernels(compiled: Compile, how: str, *functions: LoopFunction) -> Any:
    portable = host().without("f16c", "avx512fp16", *_NEEDS_F16C)
    target = host() if how == "native" else portable
    kernels = compiled(*functions, target=target)
    native = "half" in kernels.text
    if how == "native" and not native:
        pytest.skip("this processor has no instructions for f16")
    assert native == (how == "native")
    return kernels


# LLVM switches f16c on again for features that imply it.
_NEEDS_F16C = tuple(name for name in host().features if name.startswith("avx512"))


@pytest.mark.parametrize("how", HALVES)
def test_all_halves_widen(how: str, compiled: Compile) -> None:
    functions = copy("f32", ELEMENT, f16, f32), copy("f64", ELEMENT, f16, f64)
    kernels = half_kernels(compiled, how, *functions)
    array = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for name, kind in (("f32", np.float32), ("f64", np.float64)):
        found = np.zeros(array.size, kind)
        assert kernels(name, [array, found], [array.size]) == 0
        np.testing.assert_array_equal(found, array.astype(kind))
        np.testing.assert_array_equal(np.signbit(found), np.signbit(array))


@pytest.mark.parametrize("how", HALVES)
def test_all_halves_survive_a_copy(how: str, compiled: Compile) -> None:
    kernels = half_kernels(compiled, how, copy("copy", Cast(f16, ELEMENT), f16, f16))
    array = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    found = np.zeros(array.size, np.float16)
    assert kernels("copy", [array, found], [array.size]) == 0
    numbers = ~np.isnan(array)
    np.testing.assert_array_equal(found.view(np.uint16)[numbers], array.view(np.uint16)[numbers])
    assert np.isnan(found[~numbers]).all()


def float_samples() -> Array:
    """f32 values: around every f16 and bf16 value and halfway between, and random patterns."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    finite = np.sort(halves[np.isfinite(halves)])
    middle = (finite[:-1].astype(np.float64) + finite[1:]) / 2
    around = middle.astype(np.float32)
    random = np.random.default_rng(2).integers(0, 1 << 32, SAMPLES, dtype=np.uint32)
    brains = np.arange(1 << 16, dtype=np.uint32) << 16
    patterns = np.concatenate([brains, brains | 0x8000, brains | 0x7FFF, brains | 0x8001, random])
    limits = np.array([65504, 65519.996, 65520, 65535, 65536, 2.0**-24, 2.0**-25, 2.0**-26])
    parts = [around, np.nextafter(around, np.float32(np.inf)), patterns.view(np.float32)]
    parts += [np.nextafter(around, np.float32(-np.inf)), limits.astype(np.float32)]
    return np.concatenate(parts)


@pytest.mark.parametrize("how", HALVES)
def test_floats_round_to_half(how: str, compiled: Compile) -> None:
    kernels = half_kernels(compiled, how, copy("round", ELEMENT, f32, f16))
    array = float_samples()
    found = np.zeros(array.size, np.float16)
    assert kernels("round", [array, found], [array.size]) == 0
    with np.errstate(all="ignore"):
        expected = array.astype(np.float16)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), ~numbers)
    np.testing.assert_array_equal(found.view(np.uint16)[numbers], expected.view(np.uint16)[numbers])


@pytest.mark.parametrize("how", HALVES)
def test_doubles_round_to_half_once(how: str, compiled: Compile) -> None:
    kernels = half_kernels(compiled, how, copy("round", ELEMENT, f64, f16))
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64)
    finite = np.sort(halves[np.isfinite(halves)])
    middle = (finite[:-1] + finite[1:]) / 2
    # A hair beyond halfway: going through f32 would drop the hair and then round to even.
    beyond = [middle * (1 + step) for step in (0, 2**-40, -(2**-40), 2**-52)]
    random = np.random.default_rng(3).normal(size=SAMPLES) * 300
    array = np.concatenate([*beyond, random, [1e300, -1e300, 5e-324, np.inf, np.nan, 1e-40]])
    found = np.zeros(array.size, np.float16)
    assert kernels("round", [array, found], [array.size]) == 0
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, array.astype(np.float16))


def test_bf16_widens_and_rounds(compiled: Compile) -> None:
    kernels = compiled(
        copy("widen", ELEMENT, bf16, f32),
        copy("round", ELEMENT, f32, bf16),
        copy("cast", Cast(bf16, ELEMENT), f32, f32),
    )
    brains = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16)
    widened = np.zeros(brains.size, np.float32)
    assert kernels("widen", [brains, widened], [brains.size]) == 0
    np.testing.assert_array_equal(widened, brains.astype(np.float32))

    array = float_samples()
    with np.errstate(all="ignore"):
        expected = array.astype(ml_dtypes.bfloat16)
    found = np.zeros(array.size, ml_dtypes.bfloat16)
    assert kernels("round", [array, found], [array.size]) == 0
    numbers = ~np.isnan(array)
    np.testing.assert_array_equal(found.view(np.uint16)[numbers], expected.view(np.uint16)[numbers])
    assert np.isnan(found.astype(np.float32)[~numbers]).all()
    rounded = np.zeros(array.size, np.float32)
    assert kernels("cast", [array, rounded], [array.size]) == 0
    np.testing.assert_array_equal(rounded, expected.astype(np.float32))


def test_sixteen_bit_floats_are_rounded_by_store_and_cast_only(compiled: Compile) -> None:
    """2048 + 1 + 1 in f16 is 2048 when each sum is rounded, 2050 when the last one is."""
    one = Literal(1)
    chain = Apply("add", (ELEMENT, one, one))
    stepwise = Apply("add", (Cast(f16, Apply("add", (ELEMENT, one))), one))
    kernels = compiled(copy("held", chain, f16, f16), copy("rounded", stepwise, f16, f16))
    array, found = np.array([2048], np.float16), np.zeros(1, np.float16)
    assert kernels("held", [array, found], [1]) == 0
    assert found[0] == 2050
    assert kernels("rounded", [array, found], [1]) == 0
    assert found[0] == 2048


def test_any_byte_that_is_not_zero_is_true(compiled: Compile) -> None:
    kernels = compiled(copy("copy", ELEMENT, bool_, bool_), copy("count", ELEMENT, bool_, i64))
    array = np.arange(256, dtype=np.uint8).view(np.bool_)
    found, counts = np.zeros(256, np.bool_), np.zeros(256, np.int64)
    assert kernels("copy", [array, found], [256]) == 0
    assert kernels("count", [array, counts], [256]) == 0
    expected = (np.arange(256) != 0).astype(np.uint8)
    np.testing.assert_array_equal(found.view(np.uint8), expected)
    np.testing.assert_array_equal(counts, expected)


def test_modular_values_convert_as_integers(compiled: Compile) -> None:
    ring = Modular(97)
    kernels = compiled(
        copy("out", Cast(f64, ELEMENT), ring, f64), copy("into", Cast(ring, ELEMENT), f32, ring)
    )
    array, found = np.array([0, 5, 96], np.uint64), np.zeros(3)
    assert kernels("out", [array, found], [3]) == 0
    np.testing.assert_array_equal(found, [0, 5, 96])
    floats, residues = np.array([-1.5, 98, 2.5], np.float32), np.zeros(3, np.uint64)
    assert kernels("into", [floats, residues], [3]) == 0
    np.testing.assert_array_equal(residues, [96, 1, 2])
