"""`semiring=`: by name, by its two operations, and defined by the user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.frontend.einsum.semiring import NAMED

Array = np.ndarray[Any, Any]

SOURCE = np.random.default_rng(9)
A = SOURCE.integers(-9, 9, (4, 5)).astype(np.float64)
B = SOURCE.integers(-9, 9, (5, 3)).astype(np.float64)

OPERATIONS: dict[str, tuple[np.ufunc, np.ufunc, str]] = {
    "sum-product": (np.add, np.multiply, "f8"),
    "plus-times": (np.add, np.multiply, "i4"),
    "max-plus": (np.maximum, np.add, "f8"),
    "min-plus": (np.minimum, np.add, "i2"),
    "max-times": (np.maximum, np.multiply, "f4"),
    "min-times": (np.minimum, np.multiply, "i8"),
    "max-min": (np.maximum, np.minimum, "i4"),
    "min-max": (np.minimum, np.maximum, "f8"),
    "or-and": (np.logical_or, np.logical_and, "?"),
    "xor-and": (np.bitwise_xor, np.bitwise_and, "u2"),
}


def direct(fold: np.ufunc, product: np.ufunc, *operands: Array) -> Array:
    """The chain `ij,jk,kl->il` (or its first two factors) by ufuncs over the whole space."""
    a, b, *rest = operands
    whole = product(a[:, :, None], b[None])
    if not rest:
        return np.asarray(fold.reduce(whole, 1))
    whole = product(whole[..., None], rest[0][None, None])
    return np.asarray(fold.reduce(fold.reduce(whole, 2), 1))


@pytest.mark.parametrize("name", NAMED)
def test_named_semirings(name: str) -> None:
    """Two and three operands, against ufuncs; integers wrap alike."""
    fold, product, dtype = OPERATIONS[name]
    a, b, c = A.astype(dtype), B.astype(dtype), A.T[:3].astype(dtype)
    two = el.einsum("ij,jk->ik", a, b, semiring=name)
    np.testing.assert_array_equal(two, direct(fold, product, a, b))
    assert two.dtype == np.dtype(dtype)
    three = el.einsum("ij,jk,kl->il", a, b, c, semiring=name)
    np.testing.assert_array_equal(three, direct(fold, product, a, b, c))


def test_a_pair_of_operations() -> None:
    expected = direct(np.minimum, np.add, A, B)
    for text in ("min,+", "min, add", " min ,+"):
        np.testing.assert_array_equal(el.einsum("ij,jk->ik", A, B, semiring=text), expected)
    chosen = el.define_semiring("min", "+")
    np.testing.assert_array_equal(el.einsum("ij,jk->ik", A, B, semiring=chosen), expected)


def test_truth_of_numbers() -> None:
    """or-and takes any dtype and gives bool."""
    result = el.einsum("ij,jk->ik", A, B, semiring="or-and")
    assert result.dtype == np.bool_
    np.testing.assert_array_equal(result, (A != 0) @ (B != 0))


def test_a_user_defined_monoid() -> None:
    """A log-sum-exp semiring, defined in the program language, is as exact as NumPy's."""
    smooth = el.define_semiring(
        "lse",
        "+",
        "fn shifted(x, m) = select(x == -inf, 0.0, exp(x - m))\n"
        "monoid lse: f64 {\n"
        "  identity -inf\n"
        "  combine(a, b) = select(max(a, b) == -inf, -inf,"
        " max(a, b) + log(shifted(a, max(a, b)) + shifted(b, max(a, b))))\n"
        "}",
    )
    assert hash(smooth) == hash(smooth)
    expected = np.logaddexp.reduce(A[:, :, None] + B[None], 1)
    for _ in range(2):
        result = el.einsum("ij,jk->ik", A, B, semiring=smooth)
        np.testing.assert_allclose(result, expected, rtol=1e-13)
    empty = el.einsum("ij,jk->ik", A[:, :0], B[:0], semiring=smooth)
    np.testing.assert_array_equal(empty, np.full((4, 3), -np.inf))


def test_a_user_defined_product_folds_from_the_left() -> None:
    distance = el.define_semiring("sum", "distance", "fn distance(a, b) = (a - b) * (a - b)")
    expected = ((A[:, :, None] - B[None]) ** 2).sum(1)
    np.testing.assert_array_equal(el.einsum("ij,jk->ik", A, B, semiring=distance), expected)
    x, y, z = A[0], A[1], A[2]
    three = el.einsum("i,i,i->i", x, y, z, semiring=distance)
    np.testing.assert_array_equal(three, ((x - y) ** 2 - z) ** 2)
    np.testing.assert_array_equal(el.einsum("ij->i", A, semiring=distance), A.sum(1))


def test_nothing_folded_is_the_identity() -> None:
    """An empty sum holds the reducer's identity, and so do cells off a diagonal."""
    result = el.einsum("ij,jk->ik", A[:, :0], B[:0], semiring="min-plus")
    np.testing.assert_array_equal(result, np.full((4, 3), np.inf))
    expected = np.full((3, 3), -np.inf)
    np.fill_diagonal(expected, A[0, :3])
    np.testing.assert_array_equal(el.einsum("i->ii", A[0, :3], semiring="max-plus"), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: el.einsum("i->", A[0], semiring="min-plsu"),
         "unknown semiring 'min-plsu'\n  hint: did you mean 'min-plus'?"),
        (lambda: el.einsum("i->", A[0], semiring="tropical"),
         "unknown semiring 'tropical'\n  hint: known: sum-product, plus-times, max-plus, min-plus, "
         "max-times, min-times, max-min, min-max, or-and, xor-and; or \"reducer,operation\" such "
         "as \"min,+\""),
        (lambda: el.define_semiring("minn", "+"),
         "unknown reducer 'minn' in a semiring\n  hint: did you mean 'min'?"),
    ],
)  # fmt: skip
def test_unknown_semirings(call: Callable[[], object], message: str) -> None:
    with pytest.raises(el.ParseError) as caught:
        call()
    assert str(caught.value) == message


def test_a_semiring_of_the_wrong_dtype() -> None:
    with pytest.raises(el.DTypeError, match="bitand does not take f64"):
        el.einsum("ij,jk->ik", A, B, semiring="xor-and")
