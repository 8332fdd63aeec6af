"""What `einsum` takes as operands: array-likes, layouts, dtypes, other libraries."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import einloom as el

Array = np.ndarray[Any, Any]

BF16 = np.dtype(ml_dtypes.bfloat16)


class WithArray:
    """An object that only converts itself to an array."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.array


class WithDLPack:
    """An object that only hands out its memory; `device` is what it says about where that is."""

    def __init__(self, array: Array, device: tuple[int, int] = (1, 0)) -> None:
        self.array = array
        self.shape = array.shape
        self.place = device

    def __dlpack__(self, **keywords: Any) -> Any:
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.place


def as_subclass(array: Array) -> Array:
    return array.view(np.recarray)


@pytest.mark.parametrize(
    "wrap", [WithArray, WithDLPack, np.ndarray.tolist, memoryview, np.asfortranarray, as_subclass]
)
def test_array_likes(wrap: Any) -> None:
    """Anything that NumPy reads as an array."""
    a = np.arange(6.0).reshape(2, 3)
    result = el.einsum("ij,ij->i", wrap(a), a)
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result, [5, 50])


def test_numpy_scalars_keep_their_dtype() -> None:
    a = np.ones(3, np.float32)
    assert el.einsum("i,->i", a, np.float64(2)).dtype == np.float64
    assert el.einsum("i,->i", a, np.array(2)).dtype == np.float64


def test_the_dtype_does_not_depend_on_the_order_of_operands() -> None:
    """Pairs would promote u16 and i8 to i32 first, and with c64 to c128."""
    dtypes = ["u2", "i1", "c8"]
    for order in itertools.permutations(dtypes):
        assert el.einsum("i,i,i->i", *[np.ones(2, dtype) for dtype in order]).dtype == "c8"
    assert el.einsum("i,i,i->i", np.ones(2, "u2"), np.ones(2, "i1"), np.ones(2, BF16)).dtype == "f4"


def test_python_numbers_are_weak() -> None:
    """They take the dtype of the arrays they meet, raising only its kind, as in NumPy's ufuncs."""
    for array, number in [
        (np.ones(3, "f4"), 2), (np.ones(3, "f4"), 2.5), (np.ones(3, "i1"), 2),
        (np.ones(3, "i1"), 2.5), (np.ones(3, "f4"), 2j), (np.ones(3, "?"), 2),
        (np.ones(3, "f2"), 2),
    ]:  # fmt: skip
        result = el.einsum("i,->i", array, number)
        assert result.dtype == (array * number).dtype
        np.testing.assert_array_equal(result, array * number)
    assert el.einsum(",", 2, 3.5) == 7.0
    with pytest.raises(el.DTypeError) as caught:
        el.einsum("i,->i", np.ones(3, "i1"), 300)
    assert str(caught.value) == (
        "operand 1 is 300, which int8 does not hold\n"
        "  hint: pass it as an array of the dtype to compute in"
    )


def test_layouts_are_told_apart() -> None:
    """A plan for aligned arrays is not used for others of the same dtype, shape and strides."""
    memory = np.zeros(8 * 20 + 1, np.uint8)
    aligned, shifted = memory[:160].view(np.float64), memory[1:].view(np.float64)
    for operand in (aligned, shifted, aligned, shifted):
        operand[...] = np.arange(20.0)
        assert el.einsum("i,i->", operand, operand) == 2470
        out = np.empty(20)
        el.einsum("i,i->i", operand, operand, out=out)
        np.testing.assert_array_equal(out, np.arange(20.0) ** 2)
        el.einsum("i,i->i", out, out, out=operand)
        np.testing.assert_array_equal(operand, np.arange(20.0) ** 4)


def test_overlapping_operands() -> None:
    """Operands may be one array, and may overlap themselves."""
    x = np.arange(10.0)
    windows = np.lib.stride_tricks.sliding_window_view(x, 4)
    np.testing.assert_array_equal(el.einsum("ij,j->i", windows, x[:4]), windows @ x[:4])
    broadcast = np.broadcast_to(x[:3], (5, 3))
    np.testing.assert_array_equal(el.einsum("ij->j", broadcast), 5 * x[:3])


@pytest.mark.parametrize("spec", ["ij,jk->ik", "ij,ij->", "ij->j", "ij,jk,kl->il"])
def test_bf16(spec: str) -> None:
    """bf16 accumulates in f32 and rounds once."""
    source = np.random.default_rng(3)
    count = spec.count(",") + 1
    operands = [source.standard_normal((6, 6)).astype(BF16) for _ in range(count)]
    result = np.asarray(el.einsum(spec, *operands))
    exact = np.einsum(spec, *[x.astype(np.float64) for x in operands])
    size = np.einsum(spec, *[np.abs(x.astype(np.float64)) for x in operands])
    assert result.dtype == BF16
    assert (np.abs(result.astype(np.float64) - exact) <= 2.0**-8 * size).all()


def test_bf16_meets_other_dtypes() -> None:
    """By the promotion table: f32 with f16 and with wide integers."""
    a = np.ones(3, BF16)
    for dtype, expected in [("f2", "f4"), ("i4", "f4"), ("f8", "f8"), ("c8", "c8"), ("i1", BF16)]:
        assert el.einsum("i,i->i", a, np.ones(3, dtype)).dtype == np.dtype(expected)
    assert el.einsum("i->i", np.ones(3), dtype="bf16", casting="same_kind").dtype == BF16
    assert np.shares_memory(el.einsum("i->i", a), a)


@pytest.mark.parametrize(
    ("operand", "message"),
    [
        (np.ones(2, object), "operand 1 has dtype object, which kernels do not compute with\n"
         "  hint: convert it to a dtype among bool, i8, i16, i32, i64, u8, u16, u32, u64, f16, "
         "bf16, f32, f64, c64, c128"),
        (np.ones(2, np.longdouble), f"operand 1 has dtype {np.dtype(np.longdouble)}, which kernels "
         "do not compute with\n  hint: convert it: .astype('float64')"),
        (np.ones(2, np.clongdouble), f"operand 1 has dtype {np.dtype(np.clongdouble)}, which "
         "kernels do not compute with\n  hint: convert it: .astype('complex128')"),
        (["a", "b"], "operand 1 has dtype <U1, which kernels do not compute with\n"
         "  hint: convert it to a dtype among bool, i8, i16, i32, i64, u8, u16, u32, u64, f16, "
         "bf16, f32, f64, c64, c128"),
    ],
)  # fmt: skip
def test_dtypes_outside_the_ir(operand: Any, message: str) -> None:
    """They are refused, naming the conversion; one that `dtype` and `casting` allow is made."""
    with pytest.raises(el.DTypeError) as caught:
        el.einsum("i,i->", np.ones(2), operand)
    assert str(caught.value) == message


def test_dtypes_outside_the_ir_are_converted_when_asked() -> None:
    numbers = np.arange(4, dtype=object)
    assert el.einsum("i->", numbers, dtype="f8", casting="unsafe") == 6
    assert el.einsum("i->", np.ones(4, np.longdouble), dtype="f8", casting="same_kind") == 4
    with pytest.raises(el.DTypeError, match="operand 0 does not convert to float64"):
        el.einsum("i->", np.array(["x", None], object), dtype="f8", casting="unsafe")


def test_masked_arrays_are_refused() -> None:
    with pytest.raises(el.UnsupportedError) as caught:
        el.einsum("i->", np.ma.masked_array([1.0, 2.0], [True, False]))
    assert str(caught.value) == (
        "operand 0 is a masked array, and a contraction has no rule for masked elements\n"
        "  hint: fill it first, .filled(0), or pass the mask as an operand of its own"
    )


def test_arrays_on_a_device_are_refused() -> None:
    with pytest.raises(el.UnsupportedError) as caught:
        el.einsum("i->", WithDLPack(np.ones(2), device=(2, 0)))
    assert str(caught.value) == (
        "operand 0 is on a device, and kernels run on the CPU\n"
        "  hint: copy it to host memory first: numpy.asarray, or its library's own way"
    )


def test_ragged_lists() -> None:
    with pytest.raises(ValueError, match="operand 0 is not an array"):
        el.einsum("ij->", [[1, 2], [3]])


# ---- other libraries ------------------------------------------------------------------------


def test_array_api_in_and_out() -> None:
    """Arrays of one namespace give a result of that namespace, mixed ones a NumPy array."""
    xp = pytest.importorskip("array_api_strict")
    a, b = xp.asarray([[1.0, 2.0], [3.0, 4.0]]), xp.asarray([1.0, -1.0])
    result = el.einsum("ij,j->i", a, b)
    assert type(result) is type(a)
    np.testing.assert_array_equal(np.asarray(result), [-1, -1])
    assert type(el.einsum("ij,->ij", a, 2.0)) is type(a)
    assert type(el.einsum("ij,j->i", a, np.asarray(b))) is np.ndarray
    assert type(el.einsum("ij->", a)) is type(a)


def test_torch_in_and_out() -> None:
    """CPU tensors of every dtype, bf16 included, and views of them."""
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.float64, torch.int64, torch.bool, torch.complex64,
                  torch.bfloat16, torch.float16, torch.uint8):  # fmt: skip
        a = torch.ones((3, 4)).to(dtype)
        b = torch.ones((4, 2)).to(dtype)
        result = el.einsum("ij,jk->ik", a, b)
        assert isinstance(result, torch.Tensor)
        assert result.dtype == dtype
        assert bool((result == (1 if dtype == torch.bool else 4)).all())
        assert el.einsum("ij->", a).shape == ()
    a = torch.arange(12.0).reshape(3, 4)
    view = el.einsum("ij->ji", a)
    view[0, 0] = 100.0
    assert a[0, 0] == 100.0
    assert type(el.einsum("ij,jk->ik", a, np.ones((4, 2)))) is np.ndarray
    out = torch.empty((4, 4))
    assert el.einsum("ij,ik->jk", a, a, out=out) is out
    assert torch.allclose(out, a.T @ a)
    conjugated = torch.ones(3, dtype=torch.complex64).mul(1j).conj()
    assert el.einsum("i->", conjugated).item() == -3j


def test_torch_tensors_that_are_refused() -> None:
    torch = pytest.importorskip("torch")
    a = torch.ones(3, requires_grad=True)
    with pytest.raises(el.UnsupportedError) as caught:
        el.einsum("i,i->", a, a)
    assert str(caught.value) == (
        "operand 0 requires gradients, and Einloom does not differentiate\n"
        "  hint: pass it without its history: .detach()"
    )
    with pytest.raises(el.UnsupportedError) as caught:
        el.einsum("ij->", torch.eye(3).to_sparse())
    assert str(caught.value) == (
        "operand 0 is a tensor of layout torch.sparse_coo\n  hint: make it dense first: .to_dense()"
    )
    with pytest.raises(el.UnsupportedError) as caught:
        el.einsum("i->", torch.empty(3, device="meta"))
    assert str(caught.value) == (
        "operand 0 is on meta, and kernels run on the CPU\n"
        "  hint: copy it to host memory first: .cpu()"
    )
