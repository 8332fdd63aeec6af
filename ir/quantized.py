"""Quantized tensors as values: codes, block scales, offset, selector, and what they decode to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einloom.ir.casting import cast, literal_array
from einloom.ir.errors import DTypeError, RangeError, ShapeError
from einloom.ir.names import unique_name, written_names
from einloom.ir.program import Module
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import Quantized, Scale, f32, i64

Array = NDArray[Any]

_INTEGER = re.compile(r"([iu])([1-9]\d*)")
_FLOAT = re.compile(r"e([1-9]\d*)m(\d+)")


@dataclass(frozen=True, eq=False)
class QuantizedArray:
    """The value of a tensor of a quantized dtype.

    `codes`: integers, one per element and unpacked; a float code is its bit pattern, a table
    code the position in the table. `scales`: one array per level of scales; rank r has
    ceil(extent / block) entries (1 for block 0), and a level with block `()` is 0-d. `offset`
    is laid out like a scale. `selector`: per block, which of the codes of the dtype it uses.
    """

    codes: Array
    scales: tuple[Array, ...] = ()
    offset: Array | None = None
    selector: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape


@np.errstate(all="ignore")
def decode(dtype: Quantized, array: QuantizedArray) -> Array:
    """The real values, f32: (decode(code) - offset) * scale * scale ..., in this order."""
    if len(dtype.codes) == 1:
        value = decode_codes(dtype, dtype.codes[0], array.codes)
    else:
        choices = [decode_codes(dtype, code, array.codes) for code in dtype.codes]
        assert array.selector is not None and dtype.selector is not None
        chosen = expand(array.selector, dtype.selector, array.shape)
        value = np.choose(chosen, choices) if len(choices) <= 32 else _pick(chosen, choices)
    if dtype.offset is not None:
        assert array.offset is not None
        value = value - expand(cast(array.offset, f32), dtype.offset.block, array.shape)
    for scale, values in zip(dtype.scales, array.scales, strict=True):
        value = value * expand(cast(values, f32), scale.block, array.shape)
    return np.asarray(value, np.float32)


def _pick(chosen: Array, choices: list[Array]) -> Array:
    return np.asarray(np.take_along_axis(np.stack(choices), chosen[None], 0)[0])


def component_name(module: Module, tensor: str, view: str) -> str:
    """The tensor that a program reads instead of `codes(W)` or `scales(W)` once W is unpacked:
    `W.codes`, with a suffix where the module has a tensor of that name."""
    if not view:
        return tensor
    taken = {item.name for item in module.inputs}
    taken.update(name for statement in module.body for name in written_names(statement))
    return unique_name(f"{tensor}.{view}", taken)


def codes_of(dtype: Quantized, array: QuantizedArray) -> Array:
    """What `codes(W)` reads: the codes, i64."""
    return array.codes.astype(np.int64)


def scales_of(dtype: Quantized, array: QuantizedArray) -> Array:
    """What `scales(W)` reads, per element: the scale, or the product of the levels in f32."""
    if len(dtype.scales) == 1:
        scale = dtype.scales[0]
        return expand(cast(array.scales[0], scale.dtype), scale.block, array.shape)
    product = np.ones(array.shape, np.float32)
    for scale, values in zip(dtype.scales, array.scales, strict=True):
        product = product * expand(cast(values, f32), scale.block, array.shape)
    return product


def expand(values: Array, block: Sequence[int], shape: tuple[int, ...]) -> Array:
    """Per-block values spread over the elements that each block covers."""
    values = np.asarray(values)
    if not block:
        return np.broadcast_to(values.reshape(()), shape)
    for axis, (size, extent) in enumerate(zip(block, shape, strict=True)):
        positions = np.arange(extent) // size if size else np.zeros(extent, np.intp)
        values = np.take(values, positions, axis)
    return values


def block_shape(block: Sequence[int], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the array that holds one value per block."""
    if not block:
        return ()
    if len(block) != len(shape):
        raise ShapeError(
            f"a block of {len(block)} extents does not fit a tensor of {len(shape)} ranks"
        )
    return tuple(
        -(-extent // size) if size else 1 for size, extent in zip(block, shape, strict=True)
    )


# ---- codes --------------------------------------------------------------------------------


def code_range(dtype: Quantized, code: str) -> tuple[int, int]:
    """Lowest and highest code that `code` can store."""
    if code == "table":
        return 0, len(dtype.table) - 1
    if match := _INTEGER.fullmatch(code):
        bits = int(match[2])
        return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if match[1] == "i" else (0, 2**bits - 1)
    if match := _FLOAT.fullmatch(code):
        return 0, 2 ** (1 + int(match[1]) + int(match[2])) - 1
    raise DTypeError(
        f"unknown code {code!r} in {dtype}", suggestion="write i4, u3, e4m3 or a table"
    )


def decode_codes(dtype: Quantized, code: str, codes: Array) -> Array:
    """The f32 values that codes stand for, before offset and scales; `table` codes are positions.

    A float `e<E>m<M>` has a sign bit, bias 2^(E-1)-1 and subnormals. At 6 bits and fewer every
    code is finite, and in e4m3 only the two codes of all ones are NaN (OCP MX and OFP8); all
    other formats keep the top exponent for infinities and NaN, as IEEE 754 does.
    """
    if code == "table":
        table = np.array([literal_array(item.value, f32) for item in dtype.table], np.float32)
        # with a selector, this code may not be the one that an element uses
        return np.asarray(table[np.clip(codes, 0, len(table) - 1)])
    if _INTEGER.fullmatch(code):
        return codes.astype(np.float32)
    match = _FLOAT.fullmatch(code)
    if match is None:
        raise DTypeError(f"unknown code {code!r} in {dtype}")
    return _decode_float(codes.astype(np.int64), int(match[1]), int(match[2]))


def _decode_float(codes: Array, exponent_bits: int, mantissa_bits: int) -> Array:
    ones = 2**exponent_bits - 1
    bias = 2 ** (exponent_bits - 1) - 1
    mantissa = codes & (2**mantissa_bits - 1)
    exponent = (codes >> mantissa_bits) & ones
    negative = (codes >> (exponent_bits + mantissa_bits)) & 1 == 1
    significand = np.where(exponent > 0, mantissa + 2**mantissa_bits, mantissa)
    power = np.maximum(exponent, 1) - bias - mantissa_bits
    value = np.ldexp(significand.astype(np.float64), power)
    if (exponent_bits, mantissa_bits) == (4, 3):
        value = np.where((exponent == ones) & (mantissa == 7), np.nan, value)
    elif 1 + exponent_bits + mantissa_bits > 6:
        special = np.where(mantissa == 0, np.inf, np.nan)
        value = np.where(exponent == ones, special, value)
    return np.asarray(np.where(negative, -value, value).astype(np.float32))


# ---- checks -------------------------------------------------------------------------------


def check_quantized(name: str, dtype: Quantized, array: QuantizedArray) -> None:
    """Refuse components that do not fit the dtype. Raises ShapeError, DTypeError, RangeError."""
    if array.codes.dtype.kind not in "iu":
        raise DTypeError(f"the codes of {name} are {array.codes.dtype}, not integers")
    if len(array.scales) != len(dtype.scales):
        raise ShapeError(
            f"{name} has {len(array.scales)} levels of scales, its dtype has {len(dtype.scales)}"
        )
    for level, (scale, values) in enumerate(zip(dtype.scales, array.scales, strict=True)):
        _check_part(f"scale {level} of {name}", scale, values, array.shape)
    if (dtype.offset is None) != (array.offset is None):
        has = "needs an offset" if array.offset is None else "takes no offset"
        raise ShapeError(f"{name} {has}")
    if dtype.offset is not None and array.offset is not None:
        _check_part(f"the offset of {name}", dtype.offset, array.offset, array.shape)
    _check_codes(name, dtype, array)


def _check_part(what: str, scale: Scale, values: Array, shape: tuple[int, ...]) -> None:
    wanted = block_shape(scale.block, shape)
    if values.shape != wanted:
        raise ShapeError(f"{what} has shape {values.shape}, it must be {wanted}")
    if values.dtype != numpy_dtype(scale.dtype):
        raise DTypeError(f"{what} is {values.dtype}, it must be {numpy_dtype(scale.dtype)}")


def _check_codes(name: str, dtype: Quantized, array: QuantizedArray) -> None:
    ranges = np.array([code_range(dtype, code) for code in dtype.codes], object)
    if dtype.selector is None:
        if array.selector is not None or len(dtype.codes) > 1:
            raise ShapeError(f"{name} has {len(dtype.codes)} codes and no selector in its dtype")
        low, high = ranges[0]
        outside = (array.codes < low) | (array.codes > high)
    else:
        wanted = block_shape(dtype.selector, array.shape)
        selector = array.selector
        if selector is None or selector.shape != wanted or selector.dtype.kind not in "iu":
            raise ShapeError(f"the selector of {name} must be integers of shape {wanted}")
        if ((selector < 0) | (selector >= len(dtype.codes))).any():
            raise RangeError(
                f"the selector of {name} goes beyond the {len(dtype.codes)} codes of its dtype"
            )
        chosen = expand(selector, dtype.selector, array.shape).astype(np.intp)
        limits = ranges.astype(np.int64)[chosen]
        codes = cast(array.codes, i64)
        outside = (codes < limits[..., 0]) | (codes > limits[..., 1])
    if outside.any():
        position = tuple(int(k) for k in np.argwhere(outside)[0])
        raise RangeError(
            f"code {array.codes[position]} of {name} at {list(position)} is outside {dtype}"
        )
