"""Conversions between dtypes, against Python integers and fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from einloom.ir.casting import cast, highest, literal_array, lowest
from einloom.ir.errors import DTypeError
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import (
    SCALARS,
    Modular,
    Quantized,
    Scalar,
    Tuple,
    bf16,
    bool_,
    c64,
    f16,
    f32,
    f64,
    i8,
    i64,
    u64,
)

INTEGERS = [Scalar(name) for name in SCALARS if Scalar(name).is_integer]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def wrapped(value: int, dtype: Scalar) -> int:
    limits = np.iinfo(numpy_dtype(dtype))
    low = int(limits.min)
    return int((value - low) % 2**dtype.bits) + low


@pytest.mark.parametrize("source", INTEGERS, ids=str)
@pytest.mark.parametrize("target", INTEGERS, ids=str)
def test_integers_wrap(source: Scalar, target: Scalar) -> None:
    limits = np.iinfo(numpy_dtype(source))
    values = [int(limits.min), 0, 1, 77, int(limits.max)]
    result = cast(np.array(values, numpy_dtype(source)), target)
    assert result.dtype == numpy_dtype(target)
    assert result.tolist() == [wrapped(value, target) for value in values]


@pytest.mark.parametrize("source", [f16, bf16, f32, f64], ids=str)
@pytest.mark.parametrize("target", INTEGERS, ids=str)
def test_floats_to_integers_truncate_and_saturate(source: Scalar, target: Scalar) -> None:
    numbers = [0.5, -0.5, 1.75, -1.75, 127.5, 255.0, 256.0, -129.0, 3e4, 2.0**31, -(2.0**31)]
    numbers += [2.0**63, -(2.0**63), 2.0**64, 1e30, -1e30, math.inf, -math.inf, math.nan]
    with np.errstate(over="ignore"):
        array = np.array(numbers, np.float64).astype(numpy_dtype(source))
    limits = np.iinfo(numpy_dtype(target))
    expected = []
    for number in array.astype(np.float64).tolist():
        if math.isnan(number):
            expected.append(0)
        elif math.isinf(number):
            expected.append(int(limits.max if number > 0 else limits.min))
        else:
            expected.append(max(int(limits.min), min(int(limits.max), int(number))))
    assert cast(array, target).tolist() == expected


def nearest_bf16(value: Fraction) -> float:
    """The bf16 nearest to a positive normal number, ties to even, by exact arithmetic."""
    exponent = 0
    while value >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while value < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (exponent - 7)
    whole, rest = divmod(value, unit)
    up = rest > unit / 2 or (rest == unit / 2 and whole % 2 == 1)
    return float((whole + up) * unit)


def test_bf16_is_rounded_once() -> None:
    half = 2.0**-8
    numbers = [1 + half, 1 + half + 2.0**-40, 1 + 3 * half - 2.0**-40, 1 + 3 * half, math.pi]
    result = cast(np.array(numbers), bf16).astype(np.float64).tolist()
    assert result == [nearest_bf16(Fraction(number)) for number in numbers]
    tie = 2**62 + 2**54  # half way between two bf16 values
    for dtype in (np.int64, np.uint64):
        whole = [tie - 1, tie, tie + 1, tie + 2**55 - 1, tie + 2**55, 3, 2**53 + 1]
        result = cast(np.array(whole, dtype), bf16).astype(np.float64).tolist()
        assert result == [nearest_bf16(Fraction(number)) for number in whole]
    assert cast(np.array([-tie - 1]), bf16).astype(float)[0] == -nearest_bf16(Fraction(tie + 1))


def test_bf16_keeps_special_values() -> None:
    numbers = np.array([0.0, -0.0, math.inf, -math.inf, math.nan, 1e300, -1e300, 1e-300, 3.4e38])
    result = cast(numbers, bf16)
    assert result.dtype == BFLOAT16
    np.testing.assert_array_equal(
        result.astype(float),
        [0, -0.0, math.inf, -math.inf, math.nan, math.inf, -math.inf, 0, math.inf],
    )
    assert np.signbit(result.astype(float))[1]


def test_truth_and_complex() -> None:
    assert cast([0.0, -0.0, math.nan, 0.5], bool_).tolist() == [False, False, True, True]
    assert cast([0j, 1j], bool_).tolist() == [False, True]
    assert cast([1.5 + 2j, -3.7j], f32).tolist() == [1.5, 0.0]
    assert cast([300.5 + 2j], i8).tolist() == [127]
    assert cast([True, False], c64).tolist() == [1, 0]
    assert cast([True, False], bf16).astype(float).tolist() == [1, 0]
    assert cast(np.array([1.5, 2.5], BFLOAT16), i8).tolist() == [1, 2]


def test_residues() -> None:
    q = Modular(2**61 - 1)
    values = [-1, 0, 2**61 - 1, 2**62, -(2**63)]
    assert cast(values, q).tolist() == [value % q.modulus for value in values]
    assert cast(np.array([2**64 - 1], np.uint64), q).tolist() == [(2**64 - 1) % q.modulus]
    assert cast([-2.5, 1e30], Modular(7)).tolist() == [5, (2**63 - 1) % 7]
    assert cast([True], Modular(7)).tolist() == [1]
    assert cast(np.array([6], np.uint64), i8).tolist() == [6]


def test_literals() -> None:
    assert literal_array(2**70 + 5, Modular(11)).tolist() == (2**70 + 5) % 11
    assert literal_array(-1, u64).tolist() == 2**64 - 1
    assert literal_array(2**64 - 1, i64).tolist() == -1
    assert literal_array(10**400, f32).tolist() == math.inf
    assert literal_array(2**63, f64).tolist() == 2.0**63
    assert literal_array(True, f16).tolist() == 1.0
    assert literal_array(0, Tuple((f32, i64))).tolist() == (0.0, 0)


def test_extremes() -> None:
    assert lowest(f16).tolist() == -math.inf and highest(f32).tolist() == math.inf
    assert lowest(i8).tolist() == -128 and highest(u64).tolist() == 2**64 - 1
    assert lowest(bool_).tolist() is False and highest(bool_).tolist() is True
    with pytest.raises(DTypeError, match="c64 has no order"):
        lowest(c64)


def test_tuples_convert_by_component() -> None:
    pair = np.array([(1.5, 2), (-1.5, 300)], [("a", "f8"), ("b", "i8")])
    result = cast(pair, Tuple((i8, Scalar("u8"))))
    assert result.tolist() == [(1, 2), (-1, 44)]
    with pytest.raises(DTypeError):
        cast(pair, f32)
    with pytest.raises(DTypeError):
        cast([1.0], Tuple((f32,)))
    with pytest.raises(DTypeError):
        cast([1.0], Quantized(("i4",)))


def test_nothing_is_copied_where_nothing_changes() -> None:
    array = np.arange(3.0)
    assert cast(array, f64) is array
