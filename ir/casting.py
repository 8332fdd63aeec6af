"""Conversions between dtypes: defined once, for the interpreter, entry binding and constants.

- to `bool`: whether the value differs from zero (NaN does);
- complex to real: the real part;
- float to integer: towards zero, saturating, NaN gives 0;
- integer to integer: wraps; to `zq<q>`: the residue in [0, q), of a float its integer first;
- anything to a float: one rounding, to nearest even.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from einloom.ir.errors import DTypeError
from einloom.ir.expressions import Value
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import BOOL, COMPLEX, FLOAT, DType, Modular, Scalar, Tuple, bf16

Array = NDArray[Any]


def cast(values: ArrayLike, dtype: DType) -> Array:
    """`values` converted to the NumPy dtype that stores `dtype`, by the rules above.

    Returns `values` itself where nothing changes. Raises DTypeError where there is no
    conversion: between tuples and scalars, and to a quantized dtype.

    >>> from einloom.ir.types import i8
    >>> cast([1.5, -1.5, 300.0, float("nan")], i8)
    array([  1,  -1, 127,   0], dtype=int8)
    """
    array = np.asarray(values)
    if isinstance(dtype, Scalar) and array.dtype == numpy_dtype(dtype):
        return array
    with np.errstate(all="ignore"):
        return _cast(array, dtype)


def _cast(array: Array, dtype: DType) -> Array:
    if isinstance(dtype, Tuple) or array.dtype.names:
        return _cast_tuple(array, dtype)
    if isinstance(dtype, Modular):
        return _to_modular(array, dtype.modulus)
    if not isinstance(dtype, Scalar):
        raise DTypeError(f"nothing is converted to {dtype}")
    target = numpy_dtype(dtype)
    if array.dtype == numpy_dtype(bf16):
        array = array.astype(np.float32)
    if dtype.kind == BOOL:
        return np.asarray(array != 0)
    if array.dtype.kind == "c" and dtype.kind != COMPLEX:
        array = array.real
    if dtype == bf16:
        return _to_bf16(array)
    if dtype.is_integer and array.dtype.kind == "f":
        return _float_to_integer(array, target)
    return array.astype(target)


def _cast_tuple(array: Array, dtype: DType) -> Array:
    names = array.dtype.names or ()
    if not isinstance(dtype, Tuple) or len(names) != len(dtype.items):
        raise DTypeError(f"{array.dtype} is not converted to {dtype}")
    result = np.empty(array.shape, numpy_dtype(dtype))
    for k, item in enumerate(dtype.items):
        result[f"f{k}"] = cast(array[names[k]], item)
    return result


def _to_modular(array: Array, modulus: int) -> Array:
    if array.dtype.kind == "O":  # Python integers of any size
        return (array % modulus).astype(np.uint64)
    if array.dtype.kind not in "bui":
        array = cast(array, Scalar("i64"))
    if array.dtype.kind == "i":
        return np.mod(array.astype(np.int64), np.int64(modulus)).astype(np.uint64)
    return np.mod(array.astype(np.uint64), np.uint64(modulus))


def _float_to_integer(array: Array, target: np.dtype[Any]) -> Array:
    # both ends are exact in f64: the lowest value, and the first value that is too high
    whole = np.trunc(array.astype(np.float64))
    limits = np.iinfo(target)
    low, too_high = float(limits.min), float(limits.max + 1)
    fits = (whole >= low) & (whole < too_high)
    result = np.where(fits, whole, 0).astype(target)
    result[whole < low] = limits.min
    result[whole >= too_high] = limits.max
    return result


def _to_bf16(array: Array) -> Array:
    """One rounding. The way through f32 alone would round twice, so it goes to odd first."""
    target = numpy_dtype(bf16)
    if array.dtype.kind == "f" and array.dtype.itemsize <= 4:
        return array.astype(target)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        # more bits than an f64 holds: fold the low ones into one sticky bit
        large = (array >= 2**52) | (array <= -(2**52)) if array.dtype.kind == "i" else (
            array >= np.uint64(2**52))  # fmt: skip
        sticky = (array & 0xFFF != 0).astype(array.dtype)
        array = np.where(large, ((array >> 12) | sticky) << 12, array)
    wide = array.astype(np.float64)
    narrow = np.asarray(wide.astype(np.float32))
    inexact = np.isfinite(wide) & (narrow.astype(np.float64) != wide)
    too_far = inexact & (np.abs(narrow.astype(np.float64)) > np.abs(wide))
    bits = narrow.view(np.uint32) - too_far.astype(np.uint32)
    odd = np.where(inexact, bits | np.uint32(1), bits).astype(np.uint32)
    return np.asarray(odd.view(np.float32).astype(target))


@np.errstate(all="ignore")
def literal_array(value: Value, dtype: DType) -> Array:
    """A literal as a 0-d array of `dtype`; an integer of any size wraps, as a cast does."""
    if isinstance(dtype, Tuple):
        result = np.zeros((), numpy_dtype(dtype))
        for k, item in enumerate(dtype.items):
            result[f"f{k}"] = literal_array(value, item)
        return result
    if isinstance(value, int) and not isinstance(value, bool):
        if isinstance(dtype, Modular):
            return np.asarray(value % dtype.modulus, np.uint64)
        if not isinstance(dtype, Scalar):
            raise DTypeError(f"{dtype} has no literals")
        if dtype.is_integer:
            return np.asarray(value % 2**64, np.uint64).astype(numpy_dtype(dtype))
        if -(2**63) <= value < 2**63:
            return cast(np.asarray(value, np.int64), dtype)
        try:
            return cast(np.asarray(float(value)), dtype)
        except OverflowError:
            return cast(np.asarray(np.inf if value > 0 else -np.inf), dtype)
    return cast(np.asarray(value), dtype)


def lowest(dtype: DType) -> Array:
    """The identity of max, 0-d: -inf, the lowest integer, False."""
    return _extreme(dtype, lowest_end=True)


def highest(dtype: DType) -> Array:
    """The identity of min, 0-d: inf, the highest integer, True."""
    return _extreme(dtype, lowest_end=False)


def _extreme(dtype: DType, lowest_end: bool) -> Array:
    if not isinstance(dtype, Scalar) or dtype.kind == COMPLEX:
        raise DTypeError(f"{dtype} has no order")
    if dtype.kind == FLOAT:
        return literal_array(-np.inf if lowest_end else np.inf, dtype)
    if dtype.kind == BOOL:
        return np.asarray(not lowest_end)
    limits = np.iinfo(numpy_dtype(dtype))
    return np.asarray(limits.min if lowest_end else limits.max, numpy_dtype(dtype))
