"""Typed SSA values: how dtypes are held in registers and in memory, and how constants print."""

from __future__ import annotations

import struct
from dataclasses import replace as replaced
from functools import cache

import numpy as np

from einloom.backends.cpu.builder import lanes_of
from einloom.ir.errors import UnsupportedError
from einloom.ir.expressions import Value as LiteralValue
from einloom.ir.promotion import Typing
from einloom.ir.record import record
from einloom.ir.types import (
    BOOL,
    COMPLEX,
    FLOAT,
    SIGNED,
    DType,
    Modular,
    Scalar,
    bf16,
    c64,
    f16,
    f32,
    f64,
    i64,
)


@record
class Value:
    """A value in registers: one part, or two (real, imaginary) for a complex dtype.

    `dtype` is the element's. `weak`: see `promotion.Typing`. `literal` is set, and `parts` is
    empty, for a literal that has not met a dtype yet. `affine`: made of loop indices, extents
    and literals only, so that 64-bit arithmetic on it does not overflow. `in_memory`: what memory
    holds of an f16 or bf16 value that was read from there, which is then copied as it is.
    """

    dtype: DType
    parts: tuple[str, ...]
    lanes: int = 1
    weak: bool = False
    literal: LiteralValue | None = None
    affine: bool = False
    in_memory: str = ""

    @property
    def typing(self) -> Typing:
        return Typing(self.dtype, self.weak)

    @property
    def only(self) -> str:
        """The one part of a value that is not complex."""
        (part,) = self.parts
        return part

    @property
    def machine_type(self) -> str:
        return register_type(self.dtype, self.lanes)

    def replace(self, **changes: object) -> Value:
        return replaced(self, **changes)  # type: ignore[arg-type]


def kind_of(dtype: DType) -> str:
    """bool, signed, unsigned, float or complex; a modular dtype is held as an unsigned one."""
    return dtype.kind if isinstance(dtype, Scalar) else "unsigned"


def is_complex(dtype: DType) -> bool:
    return kind_of(dtype) == COMPLEX


@cache
def component(dtype: DType) -> Scalar:
    """The real dtype of the parts of a complex one."""
    return f32 if dtype == c64 else f64


@cache
def scalar_register(dtype: DType) -> str:
    """The LLVM type that holds one part of a value: f16 and bf16 live in f32 registers.

    Raises UnsupportedError for a dtype that has none, such as a tuple.
    """
    if isinstance(dtype, Modular):
        return "i64"
    if not isinstance(dtype, Scalar):
        raise UnsupportedError(f"the CPU backend does not compute in {type(dtype).__name__} dtypes")
    if dtype.kind == BOOL:
        return "i1"
    if dtype.kind == FLOAT:
        return "double" if dtype == f64 else "float"
    if dtype.kind == COMPLEX:
        return scalar_register(component(dtype))
    return f"i{dtype.bits}"


@cache
def register_type(dtype: DType, lanes: int = 1) -> str:
    """`scalar_register`, or a vector of it."""
    scalar = scalar_register(dtype)
    return f"<{lanes} x {scalar}>" if lanes > 1 else scalar


@cache
def memory_type(dtype: DType) -> str:
    """The LLVM type that stores one part of an element."""
    if dtype in (f16, bf16):
        return "i16"
    return "i8" if kind_of(dtype) == BOOL else scalar_register(dtype)


@cache
def item_size(dtype: DType) -> int:
    """Bytes of one element in memory."""
    scalar_register(dtype)  # refuses what has no size
    return dtype.bits // 8 if isinstance(dtype, Scalar) else 8


def integer_range(dtype: DType) -> tuple[int, int]:
    """Least and greatest value of an integer dtype, in the registers that hold it."""
    bits = int(scalar_register(dtype)[1:])
    if kind_of(dtype) == SIGNED:
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def number(machine_type: str, value: float | int) -> str:
    """A constant operand of a scalar or vector type, as LLVM prints it; integers wrap."""
    lanes = lanes_of(machine_type)
    element = machine_type.split(" x ")[1][:-1] if lanes > 1 else machine_type
    if element == "float":
        text = f"0x{_float_pattern(float(value)):016X}"
    elif element == "double":
        text = f"0x{struct.unpack('<Q', struct.pack('<d', float(value)))[0]:016X}"
    else:
        bits = int(element[1:])
        wrapped = int(value) & ((1 << bits) - 1)
        text = str(wrapped - (1 << bits) if bits > 1 and wrapped >> (bits - 1) else wrapped)
    return f"splat ({element} {text})" if lanes > 1 else text


def _float_pattern(value: float) -> int:
    """The bits of the double that a float constant is spelled as: rounded to f32 first."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    if value != value:
        return int(bits) & ~((1 << 29) - 1) | 1 << 51
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:  # what rounds beyond the largest f32 is infinite
        rounded = float("inf") if value > 0 else float("-inf")
    return int(struct.unpack("<Q", struct.pack("<d", rounded))[0])


def constant(dtype: DType, value: LiteralValue, lanes: int = 1) -> Value:
    """A literal in a dtype: integers wrap, a modular one is reduced, bool is "not zero"."""
    machine_type = register_type(dtype, lanes)
    kind = kind_of(dtype)
    if kind == COMPLEX:
        parts = (
            number(machine_type, _as_float(value.real, dtype)),
            number(machine_type, _as_float(value.imag, dtype)),
        )
        return Value(dtype, parts, lanes)
    if kind == BOOL:
        return Value(dtype, (number(machine_type, int(bool(value))),), lanes)
    real = value.real if isinstance(value, complex) else value
    if kind == FLOAT:
        return Value(dtype, (number(machine_type, _as_float(real, dtype)),), lanes)
    whole = real if isinstance(real, int) else _saturated(real, dtype)
    if isinstance(dtype, Modular):
        whole %= dtype.modulus
    return Value(dtype, (number(machine_type, whole),), lanes)


def _as_float(value: float | int, dtype: DType) -> float:
    """A number in the register that holds `dtype` or a part of it, rounded once."""
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        kind = np.float32 if scalar_register(dtype) == "float" else np.float64
        return float(np.int64(value).astype(kind))
    try:
        return float(value)
    except OverflowError:  # an integer beyond the range of f64
        return float("inf") if value > 0 else float("-inf")


def _saturated(value: float, dtype: DType) -> int:
    """What a cast of a float to an integer dtype gives: NaN is 0, the range saturates.

    A modular dtype takes the residue of the integer, which may be negative.
    """
    low, high = integer_range(i64 if isinstance(dtype, Modular) else dtype)
    if value != value:
        return 0
    if abs(value) >= 2.0**64:
        return high if value > 0 else low
    return min(max(int(value), low), high)
