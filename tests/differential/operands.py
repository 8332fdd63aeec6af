"""Operands for generated cases: sizes, values and memory layouts that break things."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import Scalar
from tests.differential.templates import Template

Array = np.ndarray[Any, Any]

SIZES: dict[str, tuple[int, ...]] = {
    "empty": (0, 3, 2, 1, 4),
    "one": (1, 1, 1, 1, 1),
    "small": (3, 2, 4, 5, 2),
    "odd": (7, 13, 5, 3, 2),
    "inner 0": (4, 0, 3, 2, 1),
    "long": (2, 517, 3, 2, 2),
    "tall": (530, 3, 2, 2, 1),
}
"""Extents of the symbols A, B, C, D, E. 517 and 530 leave a remainder after a full block."""


def contiguous(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(array.shape)


def fortran(array: Array) -> Array:
    return np.asfortranarray(array).reshape(array.shape)


def reversed_(array: Array) -> Array:
    """The same values with every stride negative."""
    flip = (slice(None, None, -1),) * array.ndim
    return np.ascontiguousarray(array[flip]).reshape(array.shape)[flip]


def sliced(array: Array) -> Array:
    """The same values as every second element of a larger array."""
    larger = np.zeros(tuple(2 * n + 1 for n in array.shape), array.dtype)
    picked: tuple[Any, ...] = (..., *(slice(0, 2 * n, 2) for n in array.shape))
    view: Array = larger[picked]
    view[...] = array
    return view


def unaligned(array: Array) -> Array:
    """The same values at addresses that are no multiples of the element's size."""
    record = np.zeros(array.shape, np.dtype([("pad", "i1"), ("value", array.dtype)]))
    record["value"] = array
    return record["value"]


def stretched(array: Array) -> Array:
    """The first slice along the first rank, repeated with stride 0."""
    if not array.ndim or not array.shape[0]:
        return array
    return np.broadcast_to(array[:1], array.shape)


def shared(array: Array) -> Array:
    """A view into the middle of a buffer, of which other operands see other parts."""
    buffer = np.zeros(array.size + 16, array.dtype)
    buffer[8 : 8 + array.size] = array.ravel()
    return buffer[8 : 8 + array.size].reshape(array.shape)


STRIDES: dict[str, Callable[[Array], Array]] = {
    "contiguous": contiguous,
    "fortran": fortran,
    "negative": reversed_,
    "sliced": sliced,
    "unaligned": unaligned,
    "stride 0": stretched,
    "inside": shared,
}


def values(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: str, limit: int | None
) -> Array:
    """Random values: small integers that sums wrap for, floats with exact halves, any bool."""
    to = numpy_dtype(Scalar(dtype))
    if limit is not None:
        return rng.integers(0, max(limit, 1), shape).astype(to)
    if dtype == "bool":
        return np.asarray(rng.integers(0, 2, shape), dtype=bool)
    if dtype[0] in "iu":
        info = np.iinfo(to)
        return np.asarray(rng.integers(info.min, info.max, shape, to, endpoint=True))
    real = rng.standard_normal(shape)
    if dtype[0] == "c":
        return np.asarray(real + 1j * rng.standard_normal(shape), dtype=to)
    return np.asarray(real, dtype=to)


def operands(
    template: Template, dtype: str, size: str, stride: str, seed: int
) -> dict[str, Array] | None:
    """Arrays for a case, None where the template needs an extent that is 0 here."""
    sizes = dict(zip("ABCDE", SIZES[size], strict=True))
    if any(sizes[symbol] == 0 for symbol in template.nonempty):
        return None
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for name, (symbols, declared) in template.inputs.items():
        bound = (template.bounds or {}).get(name)
        limit = None if bound is None else sizes[bound] if bound in sizes else int(bound)
        array = values(
            rng, tuple(sizes[s] for s in symbols), dtype if declared == "{T}" else declared, limit
        )
        found[name] = STRIDES[stride](array)
    return found
