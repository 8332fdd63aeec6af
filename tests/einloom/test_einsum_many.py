"""Contractions of very many operands."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.calls import build

Array = np.ndarray[Any, Any]

MANY = build.MOST_FACTORS + 1


def chain(count: int) -> list[Array]:
    source = np.random.default_rng(count)
    return [source.standard_normal((2, 2)) / 1.5 for _ in range(count)]


def lists_of(matrices: list[Array]) -> list[Any]:
    arguments: list[Any] = []
    for position, matrix in enumerate(matrices):
        arguments += [matrix, [position, position + 1]]
    return arguments


@pytest.mark.parametrize("count", [MANY - 2, MANY - 1, MANY, MANY + 1, 500])
def test_a_chain(count: int) -> None:
    """On both sides of the number beyond which steps run one by one."""
    matrices = chain(count)
    result = el.einsum(*lists_of(matrices), [0, count])
    expected = reduce(np.matmul, matrices)
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())
    transposed = el.einsum(*lists_of(matrices), [count, 0], order="C")
    assert transposed.flags.c_contiguous
    np.testing.assert_allclose(transposed, result.T, rtol=1e-12)


def test_twenty_thousand_operands() -> None:
    """No recursion on their number, and time linear in it."""
    count = 20_000
    ones = [np.ones(1)] * count
    half = [np.full((2, 2), 0.5)] * count
    np.testing.assert_array_equal(el.einsum(",".join(["i"] * count) + "->i", *ones), [1.0])
    np.testing.assert_array_equal(el.einsum(*lists_of(half), [0, count]), np.full((2, 2), 0.5))
    assert el.einsum("," * (count - 1), *[1.0] * count) == 1.0


def test_dtypes_and_layouts_of_many_operands() -> None:
    """All are converted to the common dtype, whatever the path; strides and alignment may vary."""
    source = np.random.default_rng(8)
    dtypes = ["i1", "i4", "u2", "f4", "?"]
    operands: list[Array] = []
    for position in range(MANY):
        record = np.zeros(3, [("pad", "u1"), ("value", dtypes[position % 5])])
        record["value"] = source.integers(0, 2, 3)
        operands.append(record["value"] if position % 2 else np.ascontiguousarray(record["value"]))
    operands = [np.ones_like(x) if k % 7 else x for k, x in enumerate(operands)]
    spec = ",".join(["i"] * MANY)
    expected = reduce(np.multiply, operands)
    for output in ("i", ""):
        result = el.einsum(f"{spec}->{output}", *operands)
        assert result.dtype == np.float64
        np.testing.assert_array_equal(result, expected if output else expected.sum())
    halves = [np.full(2, 1.5, np.float16)] * (MANY - 5)
    rounded = el.einsum(f"{spec}->i", *halves, *[np.ones(2, np.float16)] * 5)
    assert rounded.dtype == np.float16
    np.testing.assert_array_equal(rounded, np.full(2, 1.5 ** (MANY - 5)).astype(np.float16))


def test_out_semirings_and_diagonals_of_many_operands() -> None:
    matrices = chain(MANY)
    expected = reduce(np.matmul, matrices)
    out = np.zeros((2, 2), np.complex128)
    assert el.einsum(*lists_of(matrices), [0, MANY], out=out) is out
    np.testing.assert_allclose(out, expected, rtol=1e-9, atol=1e-12)
    whole = [np.round(8 * matrix) for matrix in matrices]
    shortest = reduce(lambda a, b: (a[:, :, None] + b[None]).min(1), whole)
    result = el.einsum(*lists_of(whole), [0, MANY], semiring="min-plus")
    np.testing.assert_array_equal(result, shortest)
    spec = ",".join(["ii"] * MANY) + "->i"
    diagonal = el.einsum(spec, *matrices)
    np.testing.assert_allclose(diagonal, reduce(np.multiply, map(np.diagonal, matrices)))
    spread = el.einsum(",".join(["i"] * MANY) + "->ii", *[np.ones(2)] * MANY)
    np.testing.assert_array_equal(spread, np.eye(2))


def test_outer_products_and_stretched_ranks_of_many_operands() -> None:
    vectors = [np.arange(1.0, 3.0) if k < 4 else np.ones(1) for k in range(MANY)]
    outer = el.einsum(*[x for k, v in enumerate(vectors) for x in (v, [k])], [3, 2, 1, 0])
    a = np.arange(1.0, 3.0)
    np.testing.assert_array_equal(outer, np.einsum("i,j,k,l->lkji", a, a, a, a))
    stretched = el.einsum(
        ",".join(["i"] * MANY) + "->i", np.arange(4.0), *[np.ones(1)] * (MANY - 1)
    )
    np.testing.assert_array_equal(stretched, np.arange(4.0))


def test_where_no_law_lets_operands_meet_one_by_one() -> None:
    """min-times on floats has none, because a negative factor turns the order around."""
    source = np.random.default_rng(2)
    operands = [source.choice([-1.0, 1.0, 2.0], 3) for _ in range(MANY)]
    result = el.einsum(",".join(["i"] * MANY) + "->", *operands, semiring="min-times")
    assert result == reduce(np.multiply, operands).min()


def test_many_operands_of_which_some_are_not_aligned() -> None:
    rng = np.random.default_rng(3)
    buffer = np.zeros(9 * 8 + 1, np.uint8)
    odd = buffer[1:].view(np.float64).reshape(3, 3)
    odd[...] = rng.random((3, 3))
    assert not odd.flags.aligned
    operands = [odd if k % 5 == 2 else rng.random((3, 3)) for k in range(18)]
    spec = ",".join(f"{chr(97 + k)}{chr(98 + k)}" for k in range(18)) + "->as"
    expected = np.linalg.multi_dot(operands)
    np.testing.assert_allclose(el.einsum(spec, *operands), expected, rtol=1e-12)
