"""`out=`, `dtype=` and `casting=`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einloom as el

Array = np.ndarray[Any, Any]

SOURCE = np.random.default_rng(5)
A = SOURCE.standard_normal((4, 5))
B = SOURCE.standard_normal((5, 3))

OUTS: dict[str, Callable[[], Array]] = {
    "contiguous": lambda: np.empty((4, 3)),
    "F order": lambda: np.empty((4, 3), order="F"),
    "strided": lambda: np.empty((8, 6))[::2, 1::2],
    "negative strides": lambda: np.empty((4, 3))[::-1, ::-1],
    "unaligned": lambda: np.zeros((4, 3), [("pad", "u1"), ("value", "f8")])["value"],
    "other byte order": lambda: np.empty((4, 3), np.dtype("f8").newbyteorder()),
    "wider": lambda: np.empty((4, 3), "c16"),
    "subclass": lambda: np.empty((4, 3)).view(np.recarray),
}


@pytest.mark.parametrize("kind", OUTS)
def test_out_receives_the_result(kind: str) -> None:
    """In whatever memory, the object that is returned is `out` itself."""
    for _ in range(2):  # the second call is a cached one
        out = OUTS[kind]()
        out[...] = np.nan
        assert el.einsum("ij,jk->ik", A, B, out=out) is out
        np.testing.assert_allclose(np.asarray(out), A @ B, rtol=1e-13)


def test_out_may_be_empty_or_have_no_ranks() -> None:
    empty = np.empty((0, 3))
    assert el.einsum("ij,jk->ik", A[:0], B, out=empty) is empty
    single = np.array(-1.0)
    assert el.einsum("ij,ij->", A, A, out=single) is single
    np.testing.assert_allclose(single, (A * A).sum(), rtol=1e-13)


def test_out_is_overwritten_not_added_to() -> None:
    out = np.full((4, 3), 100.0)
    el.einsum("ij,jk->ik", A, B, out=out)
    el.einsum("ij,jk->ik", A, B, out=out)
    np.testing.assert_allclose(out, A @ B, rtol=1e-13)
    diagonal = np.full((3, 3), 100.0)
    el.einsum("i->ii", A[0, :3], out=diagonal)
    np.testing.assert_array_equal(diagonal, np.diag(A[0, :3]))


def test_out_may_overlap_operands() -> None:
    """The result is what it would be without overlap."""
    a = SOURCE.standard_normal((6, 6))
    for view in (a, a.T, a[::-1], a[:, ::-1]):
        before = a.copy()
        expected = before @ before
        el.einsum("ij,jk->ik", a, a, out=view)
        np.testing.assert_allclose(view, expected, rtol=1e-12)
        a[...] = before
    x = SOURCE.standard_normal(100)
    before = x.copy()
    el.einsum("i,i->i", x[:-1], x[1:], out=x[1:])
    np.testing.assert_array_equal(x[1:], before[:-1] * before[1:])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda out: el.einsum("ij,jk->ik", A, B[:3], out=out), el.ShapeError,
         "rank 'j' is 3 in operand 1, but 5 in operand 0"),
        (lambda out: el.einsum("ij,jk->ki", A, B, out=out), el.ShapeError,
         "out has shape (4, 3), the result (3, 4)"),
        (lambda out: el.einsum("ij,jk->jk", A, B, out=out), el.ShapeError,
         "out has shape (4, 3), the result (5, 3)"),
        (lambda out: el.einsum("ij,jk->ik", A, B, out=out, dtype="c16"), el.DTypeError,
         "the result is complex128, which casting 'safe' does not convert to out's float64"),
        (lambda out: el.einsum("ij,jk->ik", A, B, out=out, dtype="f4"), el.DTypeError,
         "operand 0 is float64, which casting 'safe' does not convert to float32"),
        (lambda out: el.einsum("ij,jk->ik", A, B, out=out, optimize="fast"), el.ParseError,
         "unknown path finder 'fast'"),
    ],
)  # fmt: skip
def test_out_is_untouched_when_the_call_fails(
    call: Callable[[Array], object], error: type[el.EinloomError], message: str
) -> None:
    out = np.full((4, 3), 7.0)
    with pytest.raises(error) as caught:
        call(out)
    assert caught.value.message == message
    np.testing.assert_array_equal(out, 7.0)


def test_what_cannot_be_out() -> None:
    """A list or a string has no memory to write, and read-only memory is not written."""
    with pytest.raises(el.DTypeError, match="out is of type list, not an array"):
        el.einsum("ij,jk->ik", A, B, out=[[0.0]])
    with pytest.raises(TypeError, match="out is of type str, not an array"):
        el.einsum("ij,jk->ik", A, B, out="result")
    out = np.zeros((4, 3))
    el.einsum("ij,jk->ik", A, B, out=out)
    out[...] = 0
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        el.einsum("ij,jk->ik", A, B, out=out)
    assert not out.any()


@pytest.mark.parametrize("casting", ["no", "equiv", "safe", "same_kind", "unsafe"])
@pytest.mark.parametrize("target", ["?", "i2", "u8", "f4", "f8", "c8", "c16"])
@pytest.mark.parametrize("source", ["i4", "f8", "c8"])
def test_casting_is_numpys(source: str, target: str, casting: Any) -> None:
    """`dtype` is refused where NumPy refuses it, and so is `out`; else results are equal."""
    a = np.arange(8).astype(source)
    outcomes: list[Any] = []
    for einsum in (np.einsum, el.einsum):
        for keywords in ({"dtype": target}, {"out": np.zeros(8, target)}):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
                try:
                    outcomes.append(einsum("i,i->i", a, a, casting=casting, **keywords))
                except TypeError:
                    outcomes.append(None)
    numpy_dtype, numpy_out, our_dtype, our_out = outcomes
    for theirs, ours in ((numpy_dtype, our_dtype), (numpy_out, our_out)):
        assert (theirs is None) == (ours is None)
        if theirs is not None:
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


def test_optimised_calls_convert_exact_results() -> None:
    """With `optimize=True` NumPy fills an `out` of any dtype; ours does where values survive."""
    a = np.ones(7)
    out = np.array(0)
    el.einsum("i,i->", a, a, out=out, optimize="optimal")
    assert out == 7
    with pytest.raises(el.DTypeError) as caught:
        el.einsum("i,i->", a, a / 2, out=out, optimize="optimal")
    assert str(caught.value) == (
        "the result is float64 and does not fit out, which is int64\n"
        "  hint: pass casting='unsafe' to convert it nevertheless"
    )
    assert out == 7
    with pytest.raises(el.DTypeError):
        el.einsum("i,i->", a, a, out=out)


def test_dtype_names_are_numpys_before_they_are_ours() -> None:
    """`i8` has eight bytes, as in NumPy; a name that NumPy does not know is the IR's."""
    a = np.arange(3, dtype="i2")
    assert el.einsum("i->", a, dtype="i8").dtype == np.int64
    assert el.einsum("i->", a, dtype="f32").dtype == np.float32
    assert el.einsum("i->", a, dtype=np.float64).dtype == np.float64
    with pytest.raises(el.DTypeError, match="'bad_data_type' is no dtype"):
        el.einsum("i->", a, dtype="bad_data_type")
    with pytest.raises(el.DTypeError, match="dtype object is not supported"):
        el.einsum("i->", a, dtype=object)
