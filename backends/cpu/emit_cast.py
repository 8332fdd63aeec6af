"""Conversions between dtypes, and between registers and memory.

The rules are those of `ir/casting.py`. Every number reaches f16 and bf16 with one rounding.
"""

from __future__ import annotations

from einloom.backends.cpu.builder import FunctionBuilder, bits_of, mangled, with_element
from einloom.backends.cpu.emit_half import (
    integer_to_odd,
    load_float16,
    narrow_to_odd,
    store_float16,
)
from einloom.backends.cpu.values import (
    Value,
    component,
    constant,
    kind_of,
    memory_type,
    number,
    register_type,
    scalar_register,
)
from einloom.ir.promotion import value_typing
from einloom.ir.types import (
    BOOL,
    COMPLEX,
    FLOAT,
    SIGNED,
    DType,
    Modular,
    bf16,
    bool_,
    f16,
    f32,
    f64,
    i64,
)


def settled(value: Value) -> Value:
    """A literal that met no dtype in the dtype of its kind: i64, f64, bool or c128."""
    if value.literal is None:
        return value
    return constant(value_typing(value.literal).dtype, value.literal, value.lanes)


def widened(builder: FunctionBuilder, value: Value, lanes: int) -> Value:
    """A scalar in every lane; a vector of that many lanes as it is."""
    if value.lanes == lanes:
        return value
    if value.literal is not None:
        return value.replace(lanes=lanes)
    machine_type = register_type(value.dtype, lanes)
    parts = tuple(builder.splat(machine_type, part) for part in value.parts)
    return value.replace(parts=parts, lanes=lanes, in_memory="")


def convert(builder: FunctionBuilder, value: Value, dtype: DType) -> Value:
    """`value` in another dtype. f16 and bf16 results keep what f32 registers hold of them."""
    if value.literal is not None:
        return constant(dtype, value.literal, value.lanes)
    if value.dtype == dtype:
        return value.replace(weak=False)
    source, destination = kind_of(value.dtype), kind_of(dtype)
    if destination == BOOL:
        return Value(dtype, (_truth(builder, value),), value.lanes)
    if destination == COMPLEX:
        real = component(dtype)
        if source == COMPLEX:
            parts = tuple(
                _convert_part(builder, component(value.dtype), real, part, value.lanes)
                for part in value.parts
            )
            return Value(dtype, parts, value.lanes)
        part = _convert_part(builder, value.dtype, real, value.only, value.lanes)
        zero = number(register_type(real, value.lanes), 0.0)
        return Value(dtype, (part, zero), value.lanes)
    source_dtype = component(value.dtype) if source == COMPLEX else value.dtype
    part = _convert_part(builder, source_dtype, dtype, value.parts[0], value.lanes)
    return Value(dtype, (part,), value.lanes, affine=value.affine and dtype == i64)


def truth(builder: FunctionBuilder, value: Value) -> str:
    """Whether a value is not zero, as an i1; NaN is."""
    return convert(builder, value, bool_).only


def _truth(builder: FunctionBuilder, value: Value) -> str:
    machine_type = value.machine_type
    if kind_of(value.dtype) in (FLOAT, COMPLEX):
        zero = number(machine_type, 0.0)
        tests = [builder.compare("fcmp une", machine_type, part, zero) for part in value.parts]
        truth_type = with_element(machine_type, "i1")
        return tests[0] if len(tests) == 1 else builder.op("or", truth_type, *tests)
    return builder.compare("icmp ne", machine_type, value.only, number(machine_type, 0))


def _convert_part(
    builder: FunctionBuilder, source: DType, destination: DType, part: str, lanes: int
) -> str:
    """One part from a real dtype to another real one that is not bool."""
    source_type, result_type = register_type(source, lanes), register_type(destination, lanes)
    kind, result_kind = kind_of(source), kind_of(destination)
    if isinstance(destination, Modular):
        return _residue(builder, source, destination, part, lanes)
    if kind == FLOAT and result_kind == FLOAT:
        wider = bits_of(result_type) > bits_of(source_type)
        return builder.convert("fpext" if wider else "fptrunc", source_type, part, result_type)
    if kind == FLOAT:
        return _float_to_integer(builder, source_type, result_type, result_kind, part)
    if result_kind == FLOAT:
        opcode = "sitofp" if kind == SIGNED else "uitofp"
        return builder.convert(opcode, source_type, part, result_type)
    if bits_of(result_type) < bits_of(source_type):
        return builder.convert("trunc", source_type, part, result_type)
    return builder.convert("sext" if kind == SIGNED else "zext", source_type, part, result_type)


def _float_to_integer(
    builder: FunctionBuilder, source_type: str, result_type: str, result_kind: str, part: str
) -> str:
    letter = "s" if result_kind == SIGNED else "u"
    name = f"llvm.fpto{letter}i.sat.{mangled(result_type)}.{mangled(source_type)}"
    builder.module.declare(name, result_type, [source_type], "")
    return builder.value(f"call {result_type} @{name}({source_type} {part})")


def _residue(
    builder: FunctionBuilder, source: DType, destination: Modular, part: str, lanes: int
) -> str:
    """A number modulo q, from 0 to q-1 also for negative ones."""
    wide = register_type(i64, lanes)
    modulus = number(wide, destination.modulus)
    signed = kind_of(source) in (SIGNED, FLOAT)
    whole = _convert_part(builder, source, i64, part, lanes) if source != i64 else part
    if not signed:
        return builder.op("urem", wide, whole, modulus)
    rest = builder.op("srem", wide, whole, modulus)
    negative = builder.compare("icmp slt", wide, rest, number(wide, 0))
    return builder.select(negative, wide, builder.op("add", wide, rest, modulus), rest)


def rounded(builder: FunctionBuilder, value: Value, dtype: DType) -> Value:
    """What `Cast` does: converts, and rounds f16 and bf16 to what memory would hold."""
    if dtype not in (f16, bf16):
        return convert(builder, value, dtype)
    if value.in_memory and value.dtype == dtype:
        return value.replace(weak=False)
    machine_type = register_type(f32, value.lanes)
    bits = _float16_bits(builder, value, dtype)
    part = load_float16(builder, dtype, machine_type, bits)
    return Value(dtype, (part,), value.lanes, in_memory=bits)


def _float16_bits(builder: FunctionBuilder, value: Value, dtype: DType) -> str:
    machine_type = register_type(f32, value.lanes)
    value = settled(value)
    if kind_of(value.dtype) == COMPLEX:
        value = Value(component(value.dtype), value.parts[:1], value.lanes)
    source, register = kind_of(value.dtype), scalar_register(value.dtype)
    if register == "double":
        single = narrow_to_odd(builder, value.machine_type, value.only)
    elif dtype == bf16 and register == "i64":
        signed = source == SIGNED
        double, wide = integer_to_odd(builder, value.machine_type, value.only, signed)
        single = narrow_to_odd(builder, wide, double)
    elif dtype == bf16 and register == "i32":  # exact in f64
        wide = register_type(f64, value.lanes)
        single = narrow_to_odd(builder, wide, convert(builder, value, f64).only)
    else:  # exact in f32, or beyond the range of f16
        single = convert(builder, value, f32).only
    return store_float16(builder, dtype, machine_type, single)


def from_memory(builder: FunctionBuilder, dtype: DType, lanes: int, bits: str) -> str:
    """One loaded part as registers hold it; any byte that is not zero is true."""
    stored = with_element(register_type(dtype, lanes), memory_type(dtype))
    if dtype in (f16, bf16):
        return load_float16(builder, dtype, register_type(dtype, lanes), bits)
    if kind_of(dtype) == BOOL:
        return builder.compare("icmp ne", stored, bits, number(stored, 0))
    return bits


def to_memory(builder: FunctionBuilder, value: Value, dtype: DType) -> tuple[str, ...]:
    """The parts to store for a value of any dtype in a buffer of `dtype`."""
    if dtype in (f16, bf16):
        if value.in_memory and value.dtype == dtype:
            return (value.in_memory,)
        return (_float16_bits(builder, value, dtype),)
    converted = convert(builder, value, dtype)
    if kind_of(dtype) == BOOL:
        stored = with_element(converted.machine_type, "i8")
        return (builder.convert("zext", converted.machine_type, converted.only, stored),)
    return converted.parts
