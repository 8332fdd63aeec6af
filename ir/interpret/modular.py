"""Exact arithmetic modulo q on arrays of residues, stored as u64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NARROW = 2**32
"""Up to this modulus a product of two residues fits 64 bits."""


def add(modulus: int, a: Array, b: Array) -> Array:
    return np.asarray(np.mod(a + b, np.uint64(modulus)))  # below 2^64, as a modulus is below 2^63


def subtract(modulus: int, a: Array, b: Array) -> Array:
    return np.mod(a + (np.uint64(modulus) - b), np.uint64(modulus))


def negate(modulus: int, a: Array) -> Array:
    return np.mod(np.uint64(modulus) - a, np.uint64(modulus))


def multiply(modulus: int, a: Array, b: Array) -> Array:
    if modulus <= NARROW:
        return np.asarray(np.mod(a * b, np.uint64(modulus)))
    return np.asarray(_wide(a) * _wide(b) % modulus).astype(np.uint64)


def _wide(a: Array) -> Array:
    """Python integers: slow, exact."""
    return np.asarray(a, np.uint64).astype(object)


def sum_along(modulus: int, values: Array, axes: tuple[int, ...]) -> Array:
    """Sums along `axes`, which stay as axes of extent 1."""
    if modulus <= NARROW and values.size < NARROW:
        return np.mod(np.add.reduce(values, axes, keepdims=True), np.uint64(modulus))
    total = np.add.reduce(_wide(values), axes, keepdims=True, initial=0)
    return np.asarray(total % modulus).astype(np.uint64)


def product_along(modulus: int, values: Array, axes: tuple[int, ...]) -> Array:
    """Products along `axes`, which stay as axes of extent 1: halves multiplied, repeatedly."""
    for axis in axes:
        while values.shape[axis] > 1:
            half, odd = divmod(values.shape[axis], 2)
            pieces = np.split(values, [half, 2 * half], axis)
            values = multiply(modulus, pieces[0], pieces[1])
            if odd:
                values = np.concatenate([values, pieces[2]], axis)
        if values.shape[axis] == 0:
            shape = (*values.shape[:axis], 1, *values.shape[axis + 1 :])
            values = np.full(shape, 1 % modulus, np.uint64)
    return values


FUNCTIONS: dict[str, Callable[..., Array]] = {
    "add": add,
    "sub": subtract,
    "neg": negate,
    "mul": multiply,
    "conj": lambda modulus, a: a,
    "eq": lambda modulus, a, b: np.equal(a, b),
    "ne": lambda modulus, a, b: np.not_equal(a, b),
}
"""By operation: a function of the modulus and arrays of residues."""
