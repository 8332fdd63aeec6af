"""The elements of a constant: nested lists of numbers to bytes and back, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from einloom.ir.promotion import numpy_dtype
from einloom.ir.text.lexer import Token
from einloom.ir.text.spelling import nan_bits, read_number
from einloom.ir.types import BOOL, COMPLEX, FLOAT, DType, Modular, Scalar, TensorType, Tuple

Array = Any
Complain = Callable[[str, int, int], NoReturn]
"""Raises the complaint about the characters between two offsets."""

MAXIMUM_TUPLE_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Number:
    """A number token with its sign."""

    token: Token
    negative: bool
    start: int

    @property
    def end(self) -> int:
        return self.token.end


@dataclass(frozen=True, slots=True)
class Element:
    """One element as written: `1`, `-1.0`, or `1.0 - 2.0j` with its imaginary part apart."""

    number: Number
    imaginary: Number | None = None

    @property
    def start(self) -> int:
        return self.number.start

    @property
    def end(self) -> int:
        return (self.imaginary or self.number).end


@dataclass(frozen=True, slots=True)
class Record:
    """An element of a tuple dtype, `(1.0, 2)`."""

    items: list[Element | Record | Rows]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rows:
    """A bracketed list of elements or lists."""

    items: list[Element | Record | Rows]
    start: int
    end: int


Data = Element | Record | Rows

# bits of a float -> (dtype that views them, bits of its NaN); the sign is the highest bit
_NANS = {"f16": (16, 0x7E00), "bf16": (16, 0x7FC0), "f32": (32, 0x7FC00000)}


def _nan_of(name: str) -> tuple[int, int]:
    return _NANS.get(name, (64, 0x7FF8000000000000))


# ---- reading ------------------------------------------------------------------------------


def shape_of(type_: TensorType) -> tuple[int, ...] | None:
    """The extents of a type whose elements can be written out, else None."""
    shape = []
    for extent in type_.extents:
        value = getattr(extent, "value", None)
        if type(value) is not int or value < 0:
            return None
        shape.append(value)
    return tuple(shape)


def is_written_out(dtype: DType) -> bool:
    """Whether elements of `dtype` have a text; quantized codes and deep tuples have not."""
    pending = [(dtype, 0)]
    while pending:
        current, depth = pending.pop()
        if isinstance(current, Tuple) and depth < MAXIMUM_TUPLE_DEPTH:
            pending.extend((item, depth + 1) for item in current.items)
        elif not isinstance(current, Scalar | Modular):
            return False
    return True


def encode(type_: TensorType, shape: tuple[int, ...], data: Data, complain: Complain) -> bytes:
    """The bytes of a constant, little-endian in C order, or a complaint."""
    level: list[Data] = [data]
    for rank, size in zip(type_.ranks, shape, strict=True):
        deeper: list[Data] = []
        for item in level:
            if not isinstance(item, Rows):
                complain(f"expected a list of {size} along {rank.name}", item.start, item.end)
            if len(item.items) != size:
                complain(
                    f"{len(item.items)} items where {rank.name} has extent {size}",
                    item.start, item.end,
                )  # fmt: skip
            deeper.extend(item.items)
        level = deeper
    column = _column(type_.dtype, level, complain)
    return bytes(_little_endian(column).tobytes())


def _little_endian(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _column(dtype: DType, items: list[Data], complain: Complain) -> Array:
    if isinstance(dtype, Tuple):
        return _records(dtype, items, complain)
    elements: list[Element] = []
    for item in items:
        if not isinstance(item, Element):
            what = "a list" if isinstance(item, Rows) else "a tuple"
            complain(f"{what} where one {dtype} is expected", item.start, item.end)
        elements.append(item)
    if isinstance(dtype, Scalar) and dtype.kind == FLOAT:
        return _floats(dtype.name, [_real(x, dtype, complain) for x in elements], complain)
    if isinstance(dtype, Scalar) and dtype.kind == COMPLEX:
        parts = [part for x in elements for part in _components(x)]
        component = "f32" if dtype.name == "c64" else "f64"
        return _floats(component, parts, complain).view(numpy_dtype(dtype))
    return _exact(dtype, elements, complain)


def _records(dtype: Tuple, items: list[Data], complain: Complain) -> Array:
    result = np.zeros(len(items), numpy_dtype(dtype))
    rows: list[list[Data]] = []
    for item in items:
        if not isinstance(item, Record) or len(item.items) != len(dtype.items):
            complain(f"expected a tuple of {len(dtype.items)}", item.start, item.end)
        rows.append(item.items)
    for k, part in enumerate(dtype.items):
        result[f"f{k}"] = _column(part, [row[k] for row in rows], complain)
    return result


def _exact(dtype: DType, elements: list[Element], complain: Complain) -> Array:
    """Booleans, integers and integers modulo q."""
    storage = numpy_dtype(dtype)
    is_bool = isinstance(dtype, Scalar) and dtype.kind == BOOL
    if isinstance(dtype, Modular):
        low, high = 0, dtype.modulus - 1
    elif not is_bool:
        low, high = int(np.iinfo(storage).min), int(np.iinfo(storage).max)
    values: list[int] = []
    for element in elements:
        value = _value(element.number, complain)
        wanted = bool if is_bool else int
        if type(value) is not wanted or element.imaginary is not None:
            complain(f"expected an element of {dtype}", element.start, element.end)
        assert isinstance(value, int)
        if not is_bool and not low <= value <= high:
            complain(f"{value} does not fit {dtype}", element.start, element.end)
        values.append(value)
    return np.array(values, storage)


def _value(number: Number, complain: Complain) -> bool | int | float | complex:
    try:
        value = read_number(number.token.text)
    except ValueError as error:
        complain(str(error), number.start, number.end)
    if number.negative:
        return value if isinstance(value, bool) else -value
    return value


def _real(element: Element, dtype: DType, complain: Complain) -> Number:
    number = element.number
    text = number.token.text
    if element.imaginary is not None or text.endswith("j") or text in ("True", "False"):
        complain(f"expected an element of {dtype}", element.start, element.end)
    return number


def _components(element: Element) -> tuple[Number | None, Number | None]:
    """Real and imaginary part as written; None is zero."""
    if element.imaginary is not None:
        return element.number, element.imaginary
    if element.number.token.text.endswith("j"):
        return None, element.number
    return element.number, None


def _floats(name: str, numbers: list[Number] | list[Number | None], complain: Complain) -> Array:
    bits, nan = _nan_of(name)
    storage = numpy_dtype(Scalar(name))
    values = np.zeros(len(numbers), np.float64)
    nans: list[tuple[int, int]] = []
    for k, number in enumerate(numbers):
        if number is None:
            continue
        text = number.token.text.removesuffix("j")
        if text.startswith("nan"):
            pattern = nan if text == "nan" else nan_bits(text)
            nans.append((k, pattern ^ (1 << bits - 1) if number.negative else pattern))
            continue
        try:
            value = read_number(text)
            assert not isinstance(value, complex)
            values[k] = -float(value) if number.negative else float(value)
        except (ValueError, OverflowError):
            complain(f"{text[:40]} does not fit {name}", number.start, number.end)
    with np.errstate(all="ignore"):
        result = values.astype(storage)
    for overflow in np.flatnonzero(np.isinf(result) & np.isfinite(values)):
        number = numbers[int(overflow)]
        assert number is not None
        complain(f"{number.token.text} does not fit {name}", number.start, number.end)
    patterns = result.view(np.dtype(f"u{bits // 8}"))
    for k, pattern in nans:
        if pattern >> bits:
            number = numbers[k]
            assert number is not None
            complain(f"a NaN of {name} has {bits} bits", number.start, number.end)
        patterns[k] = pattern
    with np.errstate(all="ignore"):  # some bit patterns of NaN signal
        wrong = next((k for k, _ in nans if not np.isnan(result[k])), None)
    if wrong is not None:
        number = numbers[wrong]
        assert number is not None
        complain("these are not the bits of a NaN", number.start, number.end)
    return result


# ---- writing ------------------------------------------------------------------------------


def decode(type_: TensorType, shape: tuple[int, ...], data: bytes) -> str | None:
    """The text of a constant's elements; None where the bytes are not those of the type."""
    if not is_written_out(type_.dtype):
        return None
    storage = numpy_dtype(type_.dtype)
    count = math.prod(shape)
    if storage.itemsize * count != len(data):
        return None
    array = np.frombuffer(data, storage.newbyteorder("<"), count).astype(storage)
    texts = _texts(type_.dtype, array)
    if texts is None:
        return None
    for rank in reversed(range(len(shape))):
        size, groups = shape[rank], math.prod(shape[:rank])
        texts = ["[" + ", ".join(texts[g * size : (g + 1) * size]) + "]" for g in range(groups)]
    return texts[0]


def _texts(dtype: DType, array: Array) -> list[str] | None:
    """The text of each element; None where a bit pattern has none."""
    if isinstance(dtype, Tuple):
        columns = []
        for k, part in enumerate(dtype.items):
            column = _texts(part, array[f"f{k}"].copy())
            if column is None:
                return None
            columns.append(column)
        if not columns:
            return None
        comma = "," if len(columns) == 1 else ""
        return [f"({', '.join(row)}{comma})" for row in zip(*columns, strict=True)]
    if isinstance(dtype, Modular):
        return [str(x) for x in array] if (array < dtype.modulus).all() else None
    assert isinstance(dtype, Scalar)
    if dtype.kind == BOOL:
        patterns = array.view(np.uint8)
        return [str(bool(x)) for x in patterns] if (patterns <= 1).all() else None
    if dtype.kind == FLOAT:
        return _float_texts(dtype.name, array)
    if dtype.kind == COMPLEX:
        name = "f32" if dtype.name == "c64" else "f64"
        parts = _float_texts(name, array.view(numpy_dtype(Scalar(name))))
        signed = [part if part[0] == "-" else "+" + part for part in parts[1::2]]
        return [f"{real}{imag}j" for real, imag in zip(parts[::2], signed, strict=True)]
    return [str(x) for x in array]


def _float_texts(name: str, array: Array) -> list[str]:
    bits, nan = _nan_of(name)
    patterns = array.view(np.dtype(f"u{bits // 8}"))
    with np.errstate(all="ignore"):  # some bit patterns of NaN signal, some candidates overflow
        return _each_float_text(name, array, patterns, bits, nan)


def _each_float_text(name: str, array: Array, patterns: Array, bits: int, nan: int) -> list[str]:
    return [
        _shortest(name, value)
        if value == value
        else ("nan" if pattern == nan else f"nan(0x{int(pattern):0{bits // 4}x})")
        for value, pattern in zip(array, patterns, strict=True)
    ]


def _shortest(name: str, value: Any) -> str:
    """The shortest decimal that rounds to `value` on the way that `_floats` takes."""
    exact = float(value)
    if name == "f64" or not math.isfinite(exact):
        return repr(exact)
    for digits in range(1, 10):
        candidate = float(f"{exact:.{digits}g}")
        if np.float64(candidate).astype(value.dtype) == value:
            return repr(candidate)
    return repr(exact)
