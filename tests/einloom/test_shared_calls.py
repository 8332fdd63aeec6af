"""Repeated calls of executables whose kernels threads share: found by their signatures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.calls.shared import SharedCall
from einloom.ir.errors import EinloomError

Array = np.ndarray[Any, Any]
SIDE = 200


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    el.set_num_threads(request.param)
    yield request.param
    el.set_num_threads(None)


@pytest.fixture
def square() -> Array:
    return np.random.default_rng(1).standard_normal((SIDE, SIDE)).astype(np.float32)


def warmed(executable: el.Executable, *arrays: Array, out: Array | None = None) -> el.Executable:
    for _ in range(40):
        executable(*arrays, out=out)
    (shared,) = executable._repeated._shared.values()
    assert isinstance(shared, SharedCall)
    return executable


def refuse(*_: Any) -> Any:
    raise AssertionError("the call was checked again")


@pytest.mark.usefixtures("threads")
def test_repeated_calls_skip_the_checks(square: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    product = warmed(el.compile("ij,jk->ik", square, square), square, square)
    monkeypatch.setattr(type(product), "tensors", refuse)
    other = square[::-1].copy()
    np.testing.assert_allclose(product(other, square), other @ square, rtol=2e-4, atol=2e-4)
    first, second = product(square, other), product(other, square)
    assert not np.shares_memory(first, second)


@pytest.mark.usefixtures("threads")
def test_results_go_to_out(square: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    out = np.empty_like(square)
    product = warmed(el.compile("ij,jk->ik", square, square), square, square, out=out)
    monkeypatch.setattr(type(product), "tensors", refuse)
    target = np.empty_like(square)
    assert product(square, square, out=target) is target
    np.testing.assert_allclose(target, square @ square, rtol=2e-4, atol=2e-4)


@pytest.mark.usefixtures("threads")
def test_what_these_arrays_need_beyond_their_signature(square: Array) -> None:
    out = np.empty_like(square)
    product = warmed(el.compile("ij,jk->ik", square, square), square, square, out=out)
    expected = square @ square
    overlapping = square.copy()
    product(overlapping, square, out=overlapping)
    np.testing.assert_allclose(overlapping, expected, rtol=2e-4, atol=2e-4)
    locked = np.zeros_like(square)
    locked.flags.writeable = False
    with pytest.raises(EinloomError, match="read-only"):
        product(square, square, out=locked)
    assert not locked.any()
    memory = np.zeros(square.nbytes + 1, np.uint8)
    shifted = memory[1:].view(np.float32).reshape(square.shape)
    shifted[...] = square
    np.testing.assert_allclose(product(shifted, square, out=out), expected, rtol=2e-4, atol=2e-4)
    product(square, square, out=shifted)
    np.testing.assert_allclose(shifted, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.usefixtures("threads")
def test_other_shapes_and_dtypes_are_other_calls(square: Array) -> None:
    product = warmed(el.compile("ij,jk->ik", square, square), square, square)
    with pytest.raises(EinloomError):
        product(square[:, :-1], square)
    with pytest.raises(EinloomError):
        product(square.astype(np.float64), square)
    half = square[::2]
    np.testing.assert_allclose(product(half, square), half @ square, rtol=2e-4, atol=2e-4)


def test_the_number_of_threads_is_that_of_the_call(square: Array) -> None:
    product = warmed(el.compile("ij,jk->ik", square, square), square, square)
    with el.options(threads=1):
        one = product(square, square)
    with el.options(threads=2):
        np.testing.assert_array_equal(product(square, square), one)


def test_constants_several_results_and_a_result_that_is_an_input(square: Array) -> None:
    text = f"""
program two(X: f32[i={SIDE}, k={SIDE}]) -> (Y, Z) {{
  const C: f32[c=2] = [1.5, 2.5]
  Y[i, j] = X[i, k] * X[k, j]
  Z[i, k] = exp(X[i, k]) * C[1]
}}
"""
    both = warmed(el.compile(el.parse(text)), square)
    y, z = both(square)
    np.testing.assert_allclose(y, square @ square, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(z, np.exp(square) * np.float32(2.5), rtol=1e-6)
