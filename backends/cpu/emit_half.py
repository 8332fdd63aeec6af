"""The 16-bit floats: f16 and bf16 between their memory form (i16) and f32 registers.

Rounding is to nearest even and NaN stays NaN. bf16 always goes through integer code, f16 where
the target has no instructions for it; both are free of branches, so that loops vectorise.

Source: IEEE 754-2008 binary16; the magic-number method of F. Giesen, "Half to float done
quick" (2012), for the subnormal ranges.
"""

from __future__ import annotations

from einloom.backends.cpu.builder import FunctionBuilder, with_element
from einloom.backends.cpu.values import number
from einloom.ir.types import DType, bf16

_SIGN = 0x80000000
_INFINITY = 0x7F800000
# Difference of the exponent biases (127 and 15), in the exponent field of an f32.
_REBIAS = (127 - 15) << 23
# 2^-14, the least normal f16, and 2^16, the first power of two above the f16 range.
_LEAST_NORMAL = (127 - 14) << 23
_BEYOND = (127 + 16) << 23
# Added to a number below 2^-14 as a float, this moves the f16 subnormal's bits to the end.
_SUBNORMAL_MAGIC = (127 - 14 + 23 - 10) << 23


def load_float16(builder: FunctionBuilder, dtype: DType, machine_type: str, bits: str) -> str:
    """The f32 value of stored bits; `machine_type` is float, or a vector of it."""
    stored = with_element(machine_type, "i16")
    if dtype != bf16 and builder.module.native_half:
        half = with_element(machine_type, "half")
        as_half = builder.convert("bitcast", stored, bits, half)
        return builder.convert("fpext", half, as_half, machine_type)
    wide = with_element(machine_type, "i32")
    extended = builder.convert("zext", stored, bits, wide)
    if dtype == bf16:
        shifted = builder.op("shl", wide, extended, number(wide, 16))
        return builder.convert("bitcast", wide, shifted, machine_type)
    return _half_bits_to_float(builder, machine_type, extended)


def _half_bits_to_float(builder: FunctionBuilder, machine_type: str, bits: str) -> str:
    wide = with_element(machine_type, "i32")

    def n(value: int) -> str:
        return number(wide, value)

    magnitude = builder.op("and", wide, bits, n(0x7FFF))
    moved = builder.op("shl", wide, magnitude, n(13))
    normal = builder.op("add", wide, moved, n(_REBIAS))
    # Infinity and NaN: the exponent field becomes all ones.
    special = builder.compare("icmp uge", wide, magnitude, n(0x7C00))
    normal = builder.select(special, wide, builder.op("or", wide, normal, n(_INFINITY)), normal)
    # Subnormals: as if the number had an implicit leading one, which is then subtracted.
    based = builder.op("add", wide, moved, n(_LEAST_NORMAL))
    based_float = builder.convert("bitcast", wide, based, machine_type)
    least = builder.convert("bitcast", wide, n(_LEAST_NORMAL), machine_type)
    subnormal = builder.convert(
        "bitcast", machine_type, builder.op("fsub", machine_type, based_float, least), wide
    )
    small = builder.compare("icmp ult", wide, magnitude, n(0x0400))
    unsigned = builder.select(small, wide, subnormal, normal)
    sign = builder.op("shl", wide, builder.op("and", wide, bits, n(0x8000)), n(16))
    return builder.convert("bitcast", wide, builder.op("or", wide, unsigned, sign), machine_type)


def store_float16(builder: FunctionBuilder, dtype: DType, machine_type: str, value: str) -> str:
    """The bits to store for an f32 value; `machine_type` is float, or a vector of it."""
    stored = with_element(machine_type, "i16")
    if dtype != bf16 and builder.module.native_half:
        half = with_element(machine_type, "half")
        rounded = builder.convert("fptrunc", machine_type, value, half)
        return builder.convert("bitcast", half, rounded, stored)
    wide = with_element(machine_type, "i32")
    bits = builder.convert("bitcast", machine_type, value, wide)
    make = _float_bits_to_brain if dtype == bf16 else _float_bits_to_half
    return builder.convert("trunc", wide, make(builder, machine_type, bits), stored)


def _float_bits_to_brain(builder: FunctionBuilder, machine_type: str, bits: str) -> str:
    wide = with_element(machine_type, "i32")

    def n(value: int) -> str:
        return number(wide, value)

    upper = builder.op("lshr", wide, bits, n(16))
    odd = builder.op("and", wide, upper, n(1))
    bias = builder.op("add", wide, odd, n(0x7FFF))
    rounded = builder.op("lshr", wide, builder.op("add", wide, bits, bias), n(16))
    magnitude = builder.op("and", wide, bits, n(0x7FFFFFFF))
    is_nan = builder.compare("icmp ugt", wide, magnitude, n(_INFINITY))
    # The quiet bit keeps a NaN whose payload is in the dropped half from becoming infinite.
    return builder.select(is_nan, wide, builder.op("or", wide, upper, n(0x40)), rounded)


def _float_bits_to_half(builder: FunctionBuilder, machine_type: str, bits: str) -> str:
    wide = with_element(machine_type, "i32")

    def n(value: int) -> str:
        return number(wide, value)

    magnitude = builder.op("and", wide, bits, n(_SIGN - 1))
    # Normal results: rebias, round to nearest even, drop 13 bits. A carry may reach infinity.
    odd = builder.op("and", wide, builder.op("lshr", wide, magnitude, n(13)), n(1))
    rebiased = builder.op("add", wide, magnitude, n(0xFFF - _REBIAS))
    normal = builder.op("lshr", wide, builder.op("add", wide, rebiased, odd), n(13))
    # Subnormal results: a float addition does the rounding.
    magic = builder.convert("bitcast", wide, n(_SUBNORMAL_MAGIC), machine_type)
    as_float = builder.convert("bitcast", wide, magnitude, machine_type)
    summed = builder.op("fadd", machine_type, as_float, magic)
    subnormal = builder.op(
        "sub", wide, builder.convert("bitcast", machine_type, summed, wide), n(_SUBNORMAL_MAGIC)
    )
    small = builder.compare("icmp ult", wide, magnitude, n(_LEAST_NORMAL))
    finite = builder.select(small, wide, subnormal, normal)
    is_nan = builder.compare("icmp ugt", wide, magnitude, n(_INFINITY))
    special = builder.select(is_nan, wide, n(0x7E00), n(0x7C00))
    large = builder.compare("icmp uge", wide, magnitude, n(_BEYOND))
    unsigned = builder.select(large, wide, special, finite)
    sign = builder.op("and", wide, builder.op("lshr", wide, bits, n(16)), n(0x8000))
    return builder.op("or", wide, unsigned, sign)


def narrow_to_odd(builder: FunctionBuilder, machine_type: str, value: str) -> str:
    """An f64 as an f32 rounded to odd, so that rounding it again to 16 bits rounds only once.

    `machine_type` is double, or a vector of it. Where the nearest f32 is inexact and even, its
    odd neighbour on the other side of the value is taken.

    Source: S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded sums: proved
    algorithms using rounding to odd" (2008), section 3.
    """
    single = with_element(machine_type, "float")
    wide = with_element(machine_type, "i32")
    nearest = builder.convert("fptrunc", machine_type, value, single)
    back = builder.convert("fpext", single, nearest, machine_type)
    bits = builder.convert("bitcast", single, nearest, wide)
    exact_size = builder.intrinsic("llvm.fabs", machine_type, value)
    nearest_size = builder.intrinsic("llvm.fabs", machine_type, back)
    below = builder.compare("fcmp olt", machine_type, nearest_size, exact_size)
    above = builder.compare("fcmp ogt", machine_type, nearest_size, exact_size)
    even = builder.compare(
        "icmp eq", wide, builder.op("and", wide, bits, number(wide, 1)), number(wide, 0)
    )
    up = builder.select(below, wide, number(wide, 1), number(wide, 0))
    step = builder.select(above, wide, number(wide, -1), up)
    step = builder.select(even, wide, step, number(wide, 0))
    return builder.convert("bitcast", wide, builder.op("add", wide, bits, step), single)


def integer_to_odd(
    builder: FunctionBuilder, machine_type: str, value: str, signed: bool
) -> tuple[str, str]:
    """An i64 as an f64 rounded to odd, and the f64 type: exact below 2^52, and above it the
    lowest 12 bits are folded into one that stands for "some were set"."""
    double = with_element(machine_type, "double")
    opcode = "sitofp" if signed else "uitofp"

    def n(constant: int) -> str:
        return number(machine_type, constant)

    size = value
    if signed:
        negative = builder.compare("icmp slt", machine_type, value, n(0))
        opposite = builder.op("sub", machine_type, n(0), value)
        size = builder.select(negative, machine_type, opposite, value)
    large = builder.compare("icmp uge", machine_type, size, n(1 << 52))
    low = builder.op("and", machine_type, value, n(0xFFF))
    some = builder.compare("icmp ne", machine_type, low, n(0))
    sticky = builder.select(some, machine_type, n(1 << 12), n(0))
    high = builder.op("and", machine_type, value, n(~0xFFF))
    folded = builder.op("or", machine_type, high, sticky)
    chosen = builder.select(large, machine_type, folded, value)
    return builder.convert(opcode, machine_type, chosen, double), double
