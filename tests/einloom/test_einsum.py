"""What `einsum` returns: values, types, views and memory order."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import einloom as el

Array = np.ndarray[Any, Any]


@pytest.fixture
def source() -> np.random.Generator:
    return np.random.default_rng(11)


def test_matrix_product(source: np.random.Generator) -> None:
    """The most usual contraction, in both forms of the call."""
    a, b = source.standard_normal((5, 6)), source.standard_normal((6, 7))
    np.testing.assert_allclose(el.einsum("ij,jk->ik", a, b), a @ b, rtol=1e-13)
    np.testing.assert_allclose(el.einsum(a, [0, 1], b, [1, 2], [0, 2]), a @ b, rtol=1e-13)
    named = el.einsum("row inner, inner col -> row col", a, b)
    np.testing.assert_allclose(named, a @ b, rtol=1e-13)


def test_a_scalar_result_is_a_numpy_scalar() -> None:
    """As in NumPy, a result of no ranks is no array, unless it is written into one."""
    a = np.arange(3.0, dtype=np.float32)
    result = el.einsum("i,i->", a, a)
    assert type(result) is np.float32
    assert result == 5
    assert type(el.einsum("", np.array(3))) is np.int64
    assert type(el.einsum(",", 2, 3)) is np.int64


@pytest.mark.parametrize(
    ("spec", "shape"),
    [("ii->i", (3, 3)), ("ij->ji", (3, 4)), ("...ii->i...", (2, 3, 3)), ("iijj->ji", (2, 2, 3, 3)),
     ("iii->i", (3, 3, 3)), ("ij", (2, 3)), ("ba", (2, 3))],
)  # fmt: skip
def test_rearranged_operands_are_views(spec: str, shape: tuple[int, ...]) -> None:
    """Where nothing is computed the result is the operand's memory, and can be written."""
    a = np.arange(float(np.prod(shape))).reshape(shape)
    view, expected = el.einsum(spec, a), np.einsum(spec, a)
    np.testing.assert_array_equal(view, expected)
    assert view.strides == expected.strides
    assert np.shares_memory(view, a)
    view[...] = -1.0
    np.testing.assert_array_equal(np.einsum(spec, a), -1.0)
    a.flags.writeable = False
    assert not el.einsum(spec, a).flags.writeable


def test_a_view_keeps_the_byte_order() -> None:
    """Nothing is computed, so nothing has to be converted."""
    a = np.arange(6, dtype=">i4").reshape(2, 3)
    assert el.einsum("ij->ji", a).dtype == np.dtype(">i4")
    assert np.shares_memory(el.einsum("ij->ji", a), a)


def test_no_view_where_something_else_is_asked_for() -> None:
    """A dtype, an order that the view has not, or a semiring makes a new array."""
    a = np.arange(6.0).reshape(2, 3)
    assert not np.shares_memory(el.einsum("ij->ji", a, dtype="c16"), a)
    ordered = el.einsum("ij->ji", a, order="C")
    assert ordered.flags.c_contiguous
    assert not np.shares_memory(ordered, a)
    assert np.shares_memory(el.einsum("ij->ji", a, order="F"), a)
    assert not np.shares_memory(el.einsum("ij->ji", a, semiring="min-plus"), a)


def test_repeated_labels_in_the_output() -> None:
    """The result is zero off the diagonal."""
    x, y = np.arange(1.0, 4.0), np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(el.einsum("i->ii", x), np.diag(x))
    expected = np.zeros((2, 2, 3))
    expected[[0, 1], [0, 1]] = y
    np.testing.assert_array_equal(el.einsum("ij->iij", y), expected)
    np.testing.assert_array_equal(el.einsum("ij->ii", y), np.diag(y.sum(1)))


def test_size_one_is_stretched(source: np.random.Generator) -> None:
    """A named label of size 1 repeats, as in NumPy, 0 included."""
    a, b = source.standard_normal((4, 1)), source.standard_normal((5, 3))
    np.testing.assert_allclose(el.einsum("ij,jk->ik", a, b), a * b.sum(0), rtol=1e-13)
    np.testing.assert_array_equal(el.einsum("ij,jk->ik", a, b[:0]), np.zeros((4, 3)))


def test_labels_beyond_numpys(source: np.random.Generator) -> None:
    """More than 52 labels, negative integers, words and tuples."""
    a, b = source.standard_normal((2, 3)), source.standard_normal((3, 4))
    for i, j, k in [(0, 52, 99), (-1, -2, -3), ("r", "s", "t"), ((0, 1), (1, 2), (2, 3))]:
        np.testing.assert_allclose(el.einsum(a, [i, j], b, [j, k], [i, k]), a @ b, rtol=1e-13)
    many = np.ones((1,) * 60)
    spec = "".join(chr(0x100 + k) for k in range(60))
    assert el.einsum(f"{spec},{spec}->", many, many) == 1


def test_forty_ranks(source: np.random.Generator) -> None:
    """Operands may have more ranks than NumPy's einsum takes labels for comfortably."""
    shape = tuple(3 if k % 13 == 0 else 1 for k in range(40))
    a, b = source.standard_normal(shape), source.standard_normal(shape)
    labels = list(range(40))
    np.testing.assert_allclose(el.einsum(a, labels, b, labels, []), (a * b).sum(), rtol=1e-12)
    swapped = el.einsum(a, labels, b, labels, labels[::-1])
    np.testing.assert_allclose(swapped, (a * b).transpose(), rtol=1e-12)


@pytest.mark.parametrize("order", ["C", "F", "A", "K", "c", "f", "a", "k", None])
def test_order_is_numpys(order: Any, source: np.random.Generator) -> None:
    """The strides of results are NumPy's for operands in C and in F order."""
    for one, two in [("C", "C"), ("F", "F"), ("C", "F")]:
        a = np.asarray(source.standard_normal((2, 3, 5)), order=one)  # type: ignore[call-overload]
        b = np.asarray(source.standard_normal((4, 3)), order=two)  # type: ignore[call-overload]
        for spec in ("aft,mf->amt", "aft,mf->tma", "aft,mf->ta", "aft,mf->fmat"):
            ours = el.einsum(spec, a, b, order=order)
            theirs = np.einsum(spec, a, b, order=order)
            assert ours.strides == theirs.strides, (spec, one, two)
            np.testing.assert_allclose(ours, theirs, rtol=1e-13)


def test_long_sums_round_like_short_ones() -> None:
    """A million terms are added up in parts, whatever loops run over them.

    One running sum is off by 7,793 units in the last place.
    """
    unit = np.finfo(float).eps
    value = 1.0 + unit * 8196
    terms = np.broadcast_to(np.array(value), 10**6)
    for operand in (terms, terms.copy()):
        assert abs(el.einsum("i->", operand) / 10**6 - value) <= 6 * unit
    square = terms.reshape(1000, 1000)
    assert abs(el.einsum("ji->", square) / 10**6 - value) <= 100 * unit


def test_operands_are_not_modified(source: np.random.Generator) -> None:
    """Whatever is done with them."""
    a, b = source.standard_normal((3, 4)), source.standard_normal((4, 3))
    before = a.copy(), b.copy()
    el.einsum("ij,ji->", a, b)
    el.einsum("ij,jk->ik", a, b, dtype="c16")
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_array_equal(b, before[1])


def test_einsum_is_a_function_whatever_was_imported_first() -> None:
    """No module of the package takes the name of the function."""
    code = (
        "import einloom.calls.path, einloom.calls.einsum, einloom as el\n"
        "assert callable(el.einsum) and callable(el.einsum_path), el.einsum\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"order": "W"}, ValueError, "unknown order 'W'\n  hint: one of C, F, A, K"),
        ({"casting": "blah"}, ValueError,
         "unknown casting 'blah'\n  hint: one of no, equiv, safe, same_kind, unsafe"),
        ({"precision": "low"}, ValueError,
         "unknown precision 'low'\n  hint: one of highest, high, medium"),
        ({"target": "tpu"}, NotImplementedError, "unknown target 'tpu'\n  hint: targets: cpu"),
        ({"semiring": 3}, ValueError,
         "a semiring is a name or a Semiring, not of type int\n  hint: for example "
         "semiring='min,+', or einloom.define_semiring('min', '+')"),
        ({"memory_limit": "much"}, ValueError,
         "memory_limit is 'much'\n  hint: give the elements that an intermediate may have, or "
         "'max_input'"),
        ({"optimize": 1.5}, ValueError,
         "optimize is of type float\n  hint: give True, False, the name of a path finder, or a "
         "path"),
        ({"optimize": [(0, 1), (0, 1)]}, RuntimeError,
         "group (0, 1) of the path asks for position 1, but 1 operand is left\n  hint: positions "
         "count from 0, and each group's result goes to the end"),
    ],
)  # fmt: skip
def test_keyword_arguments(keywords: dict[str, Any], error: type, message: str) -> None:
    """Each one is checked, and the message says what would be right."""
    a = np.ones((2, 2))
    with pytest.raises(el.EinloomError) as caught:
        el.einsum("ij,jk->ik", a, a, **keywords)
    assert isinstance(caught.value, error)
    assert str(caught.value) == message


def test_an_unknown_keyword_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'optimise'"):
        el.einsum("ij->", np.ones((2, 2)), optimise=True)  # type: ignore[call-arg]


def test_a_call_with_an_operand_too_many_is_not_taken_for_one_with_out() -> None:
    """The key of a cached call tells `out` and operands apart."""
    a = np.arange(3.0)
    out = np.empty(3)
    for _ in range(2):
        el.einsum("i,i->i", a, a, out=out)
    with pytest.raises(el.ShapeError, match="the spec describes 2 operands, but 3 were given"):
        el.einsum("i,i->i", a, a, out)
