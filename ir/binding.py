"""Entry into a program: arrays checked against its inputs, symbols bound to their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einloom.ir import extents as ext
from einloom.ir.casting import cast
from einloom.ir.errors import DTypeError, EinloomError, Location, RangeError, ShapeError
from einloom.ir.expressions import Expression, Symbol
from einloom.ir.infer import Inference, infer
from einloom.ir.names import counted
from einloom.ir.program import Input, Module
from einloom.ir.promotion import from_numpy, numpy_dtype
from einloom.ir.quantized import QuantizedArray, check_quantized
from einloom.ir.record import record
from einloom.ir.types import DType, Modular, Quantized, Scalar, TensorType, Tuple

Array = NDArray[Any]


@record
class Bound:
    """What one call of a program runs on.

    `symbols`: the size of every symbol. `arrays`: the tensor inputs in the order of the
    program, each of the NumPy dtype that stores its declared dtype, in native byte order;
    an array that was passed with that dtype is the very object.
    """

    symbols: dict[str, int]
    arrays: dict[str, Array | QuantizedArray]


def bind(module: Module, arrays: Mapping[str, object]) -> Bound:
    """Check `arrays` against the inputs of `module` and bind its symbols.

    A symbol takes its size from an `extent` input or from a rank that it is the whole extent
    of; every other extent is then checked, those that inference left open included. Arrays
    must have the declared dtype; Python numbers and lists are converted where their values
    fit (floats round). Raises ShapeError, DTypeError or RangeError.
    """
    _check_names(module, arrays)
    inference = infer(module)
    values: dict[str, Array | QuantizedArray] = {}
    sizes: dict[str, tuple[int, str]] = {}
    for item in module.inputs:
        if item.type is None:
            sizes[item.name] = _size(item, arrays[item.name]), f"the input {item.name}"
        else:
            values[item.name] = _tensor(item, item.type, arrays[item.name])
    tensors = [(item, item.type) for item in module.inputs if item.type is not None]
    for item, type_ in tensors:
        _bind_symbols(item, type_, values[item.name].shape, sizes)
    for name in inference.symbols:
        if name not in sizes:
            raise ShapeError(
                f"the size of {name} does not follow from the inputs",
                suggestion=f"add an input: {name}: extent",
            )
    symbols = {name: size for name, (size, _) in sizes.items()}
    for item, type_ in tensors:
        _check_extents(item, type_, values[item.name].shape, symbols, sizes)
    check_sizes(inference, symbols)
    return Bound(symbols, values)


def _check_names(module: Module, arrays: Mapping[str, object]) -> None:
    names = [item.name for item in module.inputs]
    if not isinstance(arrays, Mapping):
        named = ", ".join(f"{name!r}: {name}" for name in names)
        raise DTypeError(
            f"inputs are given by name, not as a value of type {type(arrays).__name__}",
            suggestion=f"pass a dictionary: {{{named}}}",
        )
    takes = f"the program takes {', '.join(names)}" if names else "the program takes no inputs"
    for name in arrays:
        if name not in names:
            near = get_close_matches(str(name), [x for x in names if x not in arrays], 1)
            hint = f"did you mean {near[0]}?" if near else takes
            raise ShapeError(f"the program has no input {name}", suggestion=hint)
    for item in module.inputs:
        if item.name not in arrays:
            raise ShapeError(
                f"the input {item.name} is missing", location=item.location, suggestion=takes
            )


def _size(item: Input, value: object) -> int:
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "iu":
        raise DTypeError(
            f"{item.name} is an extent, so it takes one integer", location=item.location
        )
    size = int(array)
    if size < 0:
        raise ShapeError(f"the extent {item.name} is {size}", location=item.location)
    return size


# ---- arrays -------------------------------------------------------------------------------


def _tensor(item: Input, type_: TensorType, value: object) -> Array | QuantizedArray:
    if isinstance(type_.dtype, Quantized):
        if not isinstance(value, QuantizedArray):
            raise DTypeError(
                f"{item.name} is declared {type_.dtype}, {type(value).__name__} is given",
                location=item.location,
                suggestion="pass a QuantizedArray of codes and scales",
            )
        _check_rank(item, type_, value.shape)
        check_quantized(item.name, type_.dtype, value)
        return value
    if isinstance(value, QuantizedArray):
        raise DTypeError(
            f"{item.name} is declared {type_.dtype}, a quantized array is given",
            location=item.location,
        )
    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(
            f"{item.name} is a masked array",
            location=item.location,
            suggestion="fill it first, .filled(0), and pass the mask as a tensor of bool",
        )
    typed = hasattr(value, "dtype") or hasattr(value, "__array__") or hasattr(value, "__dlpack__")
    array = _own_dtype(item, type_.dtype, value) if typed else _python(item, type_.dtype, value)
    _check_rank(item, type_, array.shape)
    if isinstance(type_.dtype, Modular) and (array >= np.uint64(type_.dtype.modulus)).any():
        raise RangeError(
            f"{item.name} holds {array.max()}, its dtype {type_.dtype} ends before "
            f"{type_.dtype.modulus}",
            location=item.location,
        )
    return array


def _own_dtype(item: Input, dtype: DType, value: Any) -> Array:
    """An array that brings its dtype, which must be the declared one."""
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        array = np.from_dlpack(value)
    else:
        array = np.asarray(value)
    wanted = numpy_dtype(dtype)
    if array.dtype == wanted:
        return array
    native = array.dtype.newbyteorder("=")
    if native == wanted or (array.dtype.names and from_numpy(array.dtype) == dtype):
        return array.astype(wanted)
    raise DTypeError(
        f"{item.name} is declared {spelled(dtype)}, the array is {array.dtype}",
        location=item.location,
        suggestion=f"convert it: {item.name}.astype({wanted.name!r})"
        if wanted.names is None
        else f"its NumPy dtype is {wanted}",
    )


def _python(item: Input, dtype: DType, value: Any) -> Array:
    """Python numbers and lists of them: converted where the values fit."""
    wanted = numpy_dtype(dtype)
    try:
        if isinstance(dtype, Tuple):
            return np.array(value, wanted)
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ShapeError(
            f"{item.name} is no rectangular array of {spelled(dtype)}: {error}",
            location=item.location,
        ) from None
    if array.size == 0:
        return np.empty(array.shape, wanted)
    if isinstance(dtype, Modular):
        # left to the check that values are below the modulus
        fits = array.dtype.kind in "biu" and bool((array >= 0).all())
        converted = array.astype(np.uint64) if fits else array
    else:
        converted, fits = _converted(array, dtype)
    if not fits:
        raise DTypeError(
            f"{item.name} is declared {spelled(dtype)}, which does not hold the values given",
            location=item.location,
            suggestion="pass a NumPy array of the declared dtype",
        )
    return converted


def _converted(array: Array, dtype: DType) -> tuple[Array, bool]:
    kinds = ["b", "iu", "f", "c"]
    order = {letter: k for k, letters in enumerate(kinds) for letter in letters}
    assert isinstance(dtype, Scalar)
    # bfloat16 is of no kind that NumPy knows
    target = order.get(numpy_dtype(dtype).kind, order["f"])
    if order.get(array.dtype.kind, len(kinds)) > target:
        return array, False
    converted = cast(array, dtype)
    if target == order["i"]:
        return converted, bool((converted == array).all())
    if target >= order["f"] and array.dtype.kind in "fc":
        wide = converted.astype(np.complex128)
        return converted, bool((np.isfinite(wide) == np.isfinite(array)).all())
    return converted, True


def spelled(dtype: DType) -> str:
    return dtype.name if isinstance(dtype, Scalar) else str(dtype)


# ---- sizes --------------------------------------------------------------------------------


def _check_rank(item: Input, type_: TensorType, shape: tuple[int, ...]) -> None:
    if len(shape) != len(type_.ranks):
        wanted = ", ".join(rank.name for rank in type_.ranks)
        raise ShapeError(
            f"{item.name} takes {counted(len(type_.ranks), 'rank')} [{wanted}], "
            f"the array has {len(shape)}: shape {shape}",
            location=item.location,
        )


def _bind_symbols(
    item: Input,
    type_: TensorType,
    shape: tuple[int, ...],
    sizes: dict[str, tuple[int, str]],
) -> None:
    for rank, size in zip(type_.ranks, shape, strict=True):
        if not isinstance(rank.extent, Symbol):
            continue
        name, origin = rank.extent.name, f"rank {rank.name} of {item.name}"
        known, first = sizes.setdefault(name, (size, origin))
        if known != size:
            raise ShapeError(
                f"{name} is {known} in {first}, but {size} in {origin}", location=item.location
            )


def _check_extents(
    item: Input,
    type_: TensorType,
    shape: tuple[int, ...],
    symbols: dict[str, int],
    sizes: dict[str, tuple[int, str]],
) -> None:
    for rank, size in zip(type_.ranks, shape, strict=True):
        wanted = size_of(rank.extent, symbols, rank.location or item.location)
        if wanted != size:
            names = sorted(ext.symbols_in(rank.extent))
            because = ", ".join(f"{n} is {sizes[n][0]} in {sizes[n][1]}" for n in names)
            raise ShapeError(
                f"rank {rank.name} of {item.name} must have extent {wanted}, it has {size}"
                + (f" ({because})" if because else ""),
                location=item.location,
            )


def check_sizes(inference: Inference, symbols: Mapping[str, int]) -> None:
    """The checks that inference left for entry, and that no extent is negative.

    Raises ShapeError with the message and the place that inference recorded.
    """
    for check in inference.checks:
        left = size_of(check.left, symbols, check.location)
        right = size_of(check.right, symbols, check.location)
        if left != right:
            raise ShapeError(f"{check.message}: {left} and {right}", location=check.location)
    for name, type_ in inference.tensors.items():
        for rank in type_.ranks:
            size = size_of(rank.extent, symbols, rank.location)
            if size < 0:
                raise ShapeError(
                    f"rank {rank.name} of {name} has extent {size}", location=rank.location
                )
    for statement, typing in inference.einsums.items():
        for index, extent in typing.extents.items():
            size = size_of(extent, symbols, statement.location)
            if size < 0:
                raise ShapeError(
                    f"index {index} has extent {size}",
                    location=extent.location or statement.location,
                )


def size_of(
    extent: Expression, symbols: Mapping[str, int], location: Location | None = None
) -> int:
    """The size that an extent stands for. Raises ShapeError, also for a division by zero."""
    try:
        return ext.evaluate(extent, symbols)
    except ShapeError:
        raise
    except EinloomError as error:
        where = error.diagnostics[0].location or location
        raise ShapeError(error.message, location=where) from None
