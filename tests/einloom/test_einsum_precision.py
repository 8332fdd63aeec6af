"""Precision of f32 products, and products of narrow dtypes, through `el.einsum`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

import einloom as el
from einloom.backends.cpu.target import host_machine

Array = np.ndarray[Any, Any]

needs_bfloat_dots = pytest.mark.skipif(
    not host_machine().bfloat_dots, reason="this processor has no AVX512-BF16"
)


def operands(seed: int, size: int = 96) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal((size, size)).astype(np.float32) for _ in "ab")
    return a, b


def exact(a: Array, b: Array) -> Array:
    return a.astype(np.float64) @ b.astype(np.float64)


def error(found: Array, a: Array, b: Array) -> float:
    wanted = exact(a, b)
    return float(np.max(np.abs(found - wanted)) / np.max(np.abs(wanted)))


@pytest.mark.parametrize("precision", [None, "highest", "high"])
def test_levels_that_compute_in_f32(precision: str | None) -> None:
    a, b = operands(1)
    assert error(el.einsum("ij,jk->ik", a, b, precision=precision), a, b) < 2e-6


@needs_bfloat_dots
def test_medium_rounds_factors_of_f32() -> None:
    a, b = operands(2)
    found = el.einsum("ij,jk->ik", a, b, precision="medium")
    assert found.dtype == np.float32
    assert 2e-4 < error(found, a, b) < 6e-3
    rounded = [x.astype(bfloat16).astype(np.float32) for x in (a, b)]
    assert error(found, *rounded) < 2e-6


@needs_bfloat_dots
def test_levels_of_a_block_of_code() -> None:
    a, b = operands(3)
    high = el.einsum("ij,jk->ik", a, b)
    medium = el.einsum("ij,jk->ik", a, b, precision="medium")
    assert not np.array_equal(high, medium)
    for _ in range(12):  # calls that are known by then keep their level
        with el.options(precision="medium"):
            assert np.array_equal(el.einsum("ij,jk->ik", a, b), medium)
            assert np.array_equal(el.einsum("ij,jk->ik", a, b, precision="highest"), high)
        assert np.array_equal(el.einsum("ij,jk->ik", a, b), high)
        assert np.array_equal(el.einsum("ij,jk->ik", a, b, precision="medium"), medium)


def test_strict_code_rounds_nothing() -> None:
    a, b = operands(4)
    with el.options(strict=True):
        plain = el.einsum("ij,jk->ik", a, b)
        assert np.array_equal(el.einsum("ij,jk->ik", a, b, precision="medium"), plain)
    assert error(plain, a, b) < 2e-6


def test_medium_leaves_f64_and_integers() -> None:
    a, b = operands(5)
    for dtype in (np.float64, np.int32):
        x, y = (10 * a).astype(dtype), (10 * b).astype(dtype)
        medium = el.einsum("ij,jk->ik", x, y, precision="medium")
        assert np.array_equal(medium, el.einsum("ij,jk->ik", x, y))


@needs_bfloat_dots
def test_steps_of_many_operands_are_rounded() -> None:
    a, b = operands(6)
    many = [a] + [np.eye(96, dtype=np.float32)] * 60 + [b]
    arguments: list[Any] = []
    for k, array in enumerate(many):
        arguments += [array, [k, k + 1]]
    found = el.einsum(*arguments, [0, len(many)], precision="medium")
    assert 2e-4 < error(found, a, b) < 1e-2
    assert error(el.einsum(*arguments, [0, len(many)]), a, b) < 2e-6


@pytest.mark.parametrize("left,right", [("i1", "i1"), ("u1", "i1"), ("i1", "u1"), ("u1", "u1")])
@pytest.mark.parametrize("spec", ["ij,jk->ik", "ij,kj->ik", "ji,jk->ki"])
def test_bytes_into_i32(spec: str, left: str, right: str) -> None:
    rng = np.random.default_rng(7)
    a, b = (
        rng.integers(np.iinfo(d).min, np.iinfo(d).max, (70, 70), d, endpoint=True)
        for d in (np.dtype(left), np.dtype(right))
    )
    found = el.einsum(spec, a, b, dtype="int32")
    np.testing.assert_array_equal(found, np.einsum(spec, a, b, dtype=np.int32))
    common = np.result_type(a, b)
    np.testing.assert_array_equal(el.einsum(spec, a, b), np.einsum(spec, a, b, dtype=common))
