"""Dot products of a few neighbouring elements in every lane, by instructions where there are some.

The instructions take a register's worth of products at a time: VNNI multiplies unsigned by signed
bytes, four for each 32-bit lane, and AVX512-BF16 pairs of bf16. Any other combination, and any
target without them, gets multiplications and additions, which compute the same but for rounding:
VDPBF16PS takes subnormal numbers for zeros, whatever the processor is set to.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, VPDPBUSD and VDPBF16PS.
"""

from __future__ import annotations

from einloom.backends.cpu.builder import FunctionBuilder, with_element
from einloom.backends.cpu.target import bfloat_dots, byte_dots
from einloom.backends.cpu.values import Value, number, register_type, scalar_register
from einloom.ir.errors import BackendError
from einloom.ir.types import DType, Scalar, bf16, f32, i8, i32, u8

SUMS = {i8: i32, u8: i32, bf16: f32}
"""The dtype in which products of a dtype are added up."""

_BYTES = (4, {16: "512", 8: "256", 4: "128"})
_PAIRS = (2, {16: "512", 8: "256", 4: "128"})


def dot(builder: FunctionBuilder, terms: int, sums: Value, left: Value, right: Value) -> Value:
    """`sums` with `terms` products added to each lane; see `loops.Dot`."""
    shapes = (left.lanes, right.lanes) == (terms, terms * sums.lanes)
    kinds = [SUMS.get(x.dtype) == sums.dtype for x in (left, right) if isinstance(x.dtype, Scalar)]
    if not shapes or kinds != [True, True] or (left.dtype == bf16) != (right.dtype == bf16):
        raise BackendError(
            f"internal: dot<{terms}> of {left.dtype} x {left.lanes} and {right.dtype} x "
            f"{right.lanes} does not fit sums of {sums.dtype} x {sums.lanes}"
        )
    if left.dtype == bf16:
        found = _pairs(builder, terms, sums, left, right)
    else:
        found = _bytes(builder, terms, sums, left, right)
    part = _portable(builder, terms, sums, left, right) if found is None else found
    return Value(sums.dtype, (part,), sums.lanes)


# ---- instructions -------------------------------------------------------------------------


def _bytes(
    builder: FunctionBuilder, terms: int, sums: Value, left: Value, right: Value
) -> str | None:
    """VPDPBUSD, whose first factor is unsigned and whose second is signed."""
    features = builder.module.target.features
    wanted, sizes = _BYTES
    fits = terms == wanted and sums.lanes in sizes and left.dtype != right.dtype
    if not fits or not byte_dots(features, sums.lanes * 32):
        return None
    everywhere = _everywhere(builder, "i8", left.only, terms, sums.lanes)
    factors = [everywhere, right.only] if left.dtype == u8 else [right.only, everywhere]
    name = f"llvm.x86.avx512.vpdpbusd.{sizes[sums.lanes]}"
    return _call(builder, name, sums, right.machine_type, factors)


def _pairs(
    builder: FunctionBuilder, terms: int, sums: Value, left: Value, right: Value
) -> str | None:
    """VDPBF16PS."""
    features = builder.module.target.features
    wanted, sizes = _PAIRS
    fits = terms == wanted and sums.lanes in sizes
    if not fits or not bfloat_dots(features, sums.lanes * 32):
        return None
    bits = [_bfloat_bits(builder, value) for value in (left, right)]
    everywhere = _everywhere(builder, "i16", bits[0], terms, sums.lanes)
    source, kind = (
        with_element(right.machine_type, "i16"),
        with_element(right.machine_type, "bfloat"),
    )
    factors = [builder.convert("bitcast", source, x, kind) for x in (everywhere, bits[1])]
    name = f"llvm.x86.avx512bf16.dpbf16ps.{sizes[sums.lanes]}"
    return _call(builder, name, sums, kind, factors)


def _call(
    builder: FunctionBuilder, name: str, sums: Value, factor_type: str, factors: list[str]
) -> str:
    result = sums.machine_type
    builder.module.declare(name, result, [result, factor_type, factor_type], "")
    given = ", ".join(f"{factor_type} {factor}" for factor in factors)
    return builder.value(f"call {result} @{name}({result} {sums.only}, {given})")


def _everywhere(builder: FunctionBuilder, element: str, factor: str, terms: int, lanes: int) -> str:
    """A few elements repeated for every lane: a broadcast of what they are as one integer."""
    whole = f"i{terms * int(element[1:])}"
    together = builder.convert("bitcast", f"<{terms} x {element}>", factor, whole)
    repeated = builder.splat(f"<{lanes} x {whole}>", together)
    wide = f"<{terms * lanes} x {element}>"
    return builder.convert("bitcast", f"<{lanes} x {whole}>", repeated, wide)


def _bfloat_bits(builder: FunctionBuilder, value: Value) -> str:
    """What memory holds of bf16 numbers: the upper halves of the registers that they are in."""
    if value.in_memory:
        return value.in_memory
    wide, narrow = (with_element(value.machine_type, t) for t in ("i32", "i16"))
    bits = builder.convert("bitcast", value.machine_type, value.only, wide)
    shifted = builder.op("lshr", wide, bits, number(wide, 16))
    return builder.convert("trunc", wide, shifted, narrow)


# ---- multiplications and additions --------------------------------------------------------


def _portable(builder: FunctionBuilder, terms: int, sums: Value, left: Value, right: Value) -> str:
    total = sums.only
    flags = ("fmul contract", "fadd contract") if sums.dtype == f32 else ("mul", "add")
    for term in range(terms):
        factor = builder.value(f"extractelement {left.machine_type} {left.only}, i64 {term}")
        factor = _extended(builder, left.dtype, factor, 1)
        factor = builder.splat(sums.machine_type, factor)
        cells = _every(builder, right, term, terms)
        cells = _extended(builder, right.dtype, cells, sums.lanes)
        product = builder.op(flags[0], sums.machine_type, factor, cells)
        total = builder.op(flags[1], sums.machine_type, total, product)
    return total


def _every(builder: FunctionBuilder, value: Value, first: int, step: int) -> str:
    """The lanes of a value from `first` on in steps; one lane as a scalar."""
    count = value.lanes // step
    if count == 1:
        return builder.value(f"extractelement {value.machine_type} {value.only}, i64 {first}")
    lanes = ", ".join(f"i32 {first + step * lane}" for lane in range(count))
    kind = value.machine_type
    mask = f"<{count} x i32> <{lanes}>"
    return builder.value(f"shufflevector {kind} {value.only}, {kind} poison, {mask}")


def _extended(builder: FunctionBuilder, dtype: DType, part: str, lanes: int) -> str:
    """Elements in the dtype of the sums; bf16 numbers are in f32 registers already."""
    source, result = register_type(dtype, lanes), register_type(SUMS[dtype], lanes)  # type: ignore[index]
    if scalar_register(dtype) == "float":
        return part
    return builder.convert("sext" if dtype == i8 else "zext", source, part, result)
