"""Operands of a call as NumPy arrays, and results in the operands' own type.

NumPy arrays pass as they are. Arrays of another library are read without a copy where it can be
done; when all operands come from one such library, the result goes back to it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from einloom.ir.errors import DTypeError, EinloomError, UnsupportedError
from einloom.ir.promotion import (
    Typing,
    from_numpy,
    numpy_dtype,
    promote_all,
    promote_typings,
    value_typing,
)
from einloom.ir.record import record
from einloom.ir.types import SCALARS, Scalar, bf16, bool_

Array = np.ndarray[Any, Any]

HOST_DEVICES = (1, 3, 11)
"""Device types of DLPack whose memory the CPU reads: its own, and memory pinned for CUDA, ROCm."""

PLAIN = (bool, int, float, complex)


class OutputError(EinloomError, ValueError):
    """An `out=` that cannot be written."""


@record
class Library:
    """Where foreign operands came from; `namespace` has `from_dlpack` and `asarray`."""

    name: str
    namespace: Any

    def wrap(self, result: Any) -> Any:
        """A NumPy array or scalar as an array of this library, without a copy where it can."""
        array = np.asarray(result)
        if not array.flags.writeable:
            array = array.copy()
        if array.dtype == numpy_dtype(bf16):
            if self.name != "torch":
                return self.namespace.asarray(array)
            whole = self.namespace.from_dlpack(array.view(np.int16))
            return whole.view(self.namespace.bfloat16)
        return self.namespace.from_dlpack(array)


@record
class Operands:
    """The operands of one call.

    `values`: NumPy arrays; what is a Python number, a list or anything that is no array stays as
    it came. `library`: where the result goes; None for NumPy.
    """

    values: tuple[Any, ...]
    library: Library | None


def read_operands(values: Sequence[Any]) -> Operands:
    """Operands as NumPy arrays of any dtype.

    Raises UnsupportedError for masked arrays, arrays on a device and tensors that require
    gradients; the message names the fix.
    """
    read: list[Any] = []
    libraries: dict[Library | None, None] = {}
    for position, value in enumerate(values):
        if type(value) is np.ndarray:
            read.append(value)
            libraries[None] = None
            continue
        if value is None or isinstance(value, (*PLAIN, list, tuple, str, bytes)):
            read.append(value)
            continue
        library = library_of(value)
        read.append(as_numpy(value, f"operand {position}", library))
        libraries[library] = None
    only = next(iter(libraries)) if len(libraries) == 1 else None
    return Operands(tuple(read), only)


def library_of(value: Any) -> Library | None:
    """The library of an array that is not NumPy's, or None."""
    if isinstance(value, np.ndarray | np.generic):
        return None
    name = type(value).__module__.partition(".")[0]
    if name == "torch" and hasattr(value, "requires_grad"):
        return Library("torch", sys.modules["torch"])
    if hasattr(value, "__array_namespace__"):
        return Library(name, value.__array_namespace__())
    return None


def as_numpy(value: Any, what: str, library: Library | None) -> Any:
    """An array-like as an exact `np.ndarray`; what has no array protocol is returned as it is."""
    if isinstance(value, np.ma.MaskedArray):
        raise UnsupportedError(
            f"{what} is a masked array, and a contraction has no rule for masked elements",
            suggestion="fill it first, .filled(0), or pass the mask as an operand of its own",
        )
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    check_device(value, what, library)
    if library is not None and library.name == "torch":
        return _from_torch(value, what, library.namespace)
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    return value


def check_device(value: Any, what: str, library: Library | None) -> None:
    """Raises UnsupportedError for an array whose memory the CPU cannot read."""
    if library is not None and library.name == "torch":
        here, fix = value.device.type == "cpu", ".cpu()"
    else:
        locate = getattr(value, "__dlpack_device__", None)
        here = locate is None or int(locate()[0]) in HOST_DEVICES
        fix = "numpy.asarray, or its library's own way"
    if not here:
        raise UnsupportedError(
            f"{what} is on {getattr(value, 'device', 'a device')}, and kernels run on the CPU",
            suggestion=f"copy it to host memory first: {fix}",
        )


def _from_torch(tensor: Any, what: str, torch: Any) -> Array:
    if tensor.requires_grad:
        raise UnsupportedError(
            f"{what} requires gradients, and Einloom does not differentiate",
            suggestion="pass it without its history: .detach()",
        )
    if tensor.layout != torch.strided:
        raise UnsupportedError(
            f"{what} is a tensor of layout {tensor.layout}",
            suggestion="make it dense first: .to_dense()",
        )
    tensor = tensor.resolve_conj().resolve_neg()
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.view(torch.int16).numpy().view(numpy_dtype(bf16)))
    return np.asarray(tensor.numpy())


def ir_dtype(dtype: np.dtype[Any], what: str) -> Scalar:
    """The IR's dtype of an operand. Raises DTypeError, naming the fix, for one outside the IR."""
    try:
        found = from_numpy(dtype)
    except DTypeError:
        found = None
    if isinstance(found, Scalar):
        return found
    wider = {"f": "float64", "c": "complex128"}.get(dtype.kind)
    raise DTypeError(
        f"{what} has dtype {dtype}, which kernels do not compute with",
        suggestion=f"convert it: .astype('{wider}')"
        if wider
        else f"convert it to a dtype among {', '.join(SCALARS)}",
    )


def typed_operands(
    values: Sequence[Any], weak: Sequence[bool], dtype: np.dtype[Any] | None, casting: str
) -> tuple[Array, ...]:
    """Operands as arrays of dtypes of the IR, in any byte order.

    `weak` marks Python numbers, which take the dtype of the arrays that they meet. With `dtype`,
    arrays of any dtype that `casting` converts to it are taken. Raises DTypeError.
    """
    arrays: list[Any] = []
    for position, (value, is_weak) in enumerate(zip(values, weak, strict=True)):
        array = value if type(value) is np.ndarray else np.asarray(value)
        if not is_weak:
            array = _of_the_ir(array, f"operand {position}", dtype, casting)
        arrays.append(array)
    if not any(weak):
        return tuple(arrays)
    strong = [from_numpy(a.dtype) for a, w in zip(arrays, weak, strict=True) if not w]
    joined = Typing(promote_all(strong)) if strong else Typing(bool_, weak=True)
    for array, is_weak in zip(arrays, weak, strict=True):
        if is_weak:
            joined = promote_typings(joined, value_typing(array.item()))
    wanted = numpy_dtype(joined.dtype) if dtype is None else dtype
    for position, is_weak in enumerate(weak):
        if is_weak:
            arrays[position] = _number(arrays[position].item(), wanted, f"operand {position}")
    return tuple(arrays)


def _of_the_ir(array: Array, what: str, dtype: np.dtype[Any] | None, casting: str) -> Array:
    try:
        ir_dtype(array.dtype, what)
    except DTypeError:
        if dtype is None or not np.can_cast(array.dtype, dtype, casting):  # type: ignore[arg-type]
            raise
        try:
            return array.astype(dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise DTypeError(f"{what} does not convert to {dtype}: {error}") from None
    return array


def in_native_order(array: Array) -> Array:
    """The array itself, or a copy in the byte order of the machine."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _number(value: Any, dtype: np.dtype[Any], what: str) -> Array:
    """A Python number as an array of a dtype. Raises DTypeError where it does not fit."""
    try:
        return np.array(value, dtype)
    except (OverflowError, TypeError, ValueError):
        raise DTypeError(
            f"{what} is {value}, which {dtype} does not hold",
            suggestion="pass it as an array of the dtype to compute in",
        ) from None


def output_array(out: Any) -> Array:
    """The memory of `out` as an exact `np.ndarray`.

    Raises DTypeError unless it is an array of NumPy or torch, OutputError where it is read-only.
    """
    library = library_of(out)
    if not isinstance(out, np.ndarray) and (library is None or library.name != "torch"):
        raise DTypeError(
            f"out is of type {type(out).__name__}, not an array",
            suggestion="pass a NumPy array of the result's shape",
        )
    found: Array = as_numpy(out, "out", library)
    if not found.flags.writeable:
        raise OutputError("out is read-only", suggestion="pass a writeable array")
    return found
