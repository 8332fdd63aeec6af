"""Values while they are computed: NumPy arrays, f16 and bf16 widened to f32, tuples as tuples."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from einloom.ir.casting import cast
from einloom.ir.errors import DTypeError
from einloom.ir.promotion import compute_dtype, numpy_dtype
from einloom.ir.types import DType, Modular, Tuple

Array: TypeAlias = NDArray[Any]
Value: TypeAlias = "Array | tuple[Value, ...]"


def loaded(stored: Array, dtype: DType) -> Value:
    """What a read of `stored`, an array that stores `dtype`, computes with."""
    if isinstance(dtype, Tuple):
        return tuple(loaded(stored[f"f{k}"], item) for k, item in enumerate(dtype.items))
    return cast(stored, compute_dtype(dtype))


def converted(value: Value, dtype: DType) -> Value:
    """`value` in the form that computes with `dtype`; nothing is rounded to f16 or bf16."""
    if isinstance(dtype, Tuple):
        return tuple(
            converted(part, item) for part, item in zip(components(value), dtype.items, strict=True)
        )
    return cast(array_of(value), computing(dtype))


def rounded(value: Value, dtype: DType) -> Value:
    """`value` after a cast to `dtype`, in the form that computes with it."""
    if isinstance(dtype, Tuple):
        return tuple(
            rounded(part, item) for part, item in zip(components(value), dtype.items, strict=True)
        )
    return cast(cast(array_of(value), dtype), compute_dtype(dtype))


def stored(value: Value, dtype: DType) -> Array:
    """The array that stores `value` as `dtype`; a tuple becomes a structured array."""
    if not isinstance(dtype, Tuple):
        return cast(array_of(value), dtype)
    parts = [stored(p, i) for p, i in zip(components(value), dtype.items, strict=True)]
    result = np.empty(np.broadcast_shapes(*(part.shape for part in parts)), numpy_dtype(dtype))
    for k, part in enumerate(parts):
        result[f"f{k}"] = part
    return result


@cache
def computing(dtype: DType) -> DType:
    """The dtype that values of `dtype` are computed in."""
    return compute_dtype(dtype)


def components(value: Value) -> tuple[Value, ...]:
    if not isinstance(value, tuple):
        raise DTypeError("a tuple is needed here")
    return value


def array_of(value: Value) -> Array:
    if isinstance(value, tuple):
        raise DTypeError("a tuple stands where one number is needed")
    return value


def mapped(function: Callable[..., Array], *values: Value) -> Value:
    """`function` of the arrays of one value, or of corresponding arrays of several."""
    if any(isinstance(value, tuple) for value in values):
        return tuple(
            mapped(function, *parts)
            for parts in zip(*(components(value) for value in values), strict=True)
        )
    return np.asarray(function(*values))


@cache
def item_size(dtype: DType) -> int:
    """Bytes per element while a value of `dtype` is computed."""
    if isinstance(dtype, Tuple):
        return sum(item_size(item) for item in dtype.items)
    if isinstance(dtype, Modular) and dtype.modulus > 2**32:
        return 96  # products run through Python integers
    return numpy_dtype(compute_dtype(dtype)).itemsize


def binary_size(size: int) -> str:
    """A number of bytes for people: `1.5 GiB`."""
    amount = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if amount < 1024 or unit == "PiB":
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError
