"""One operation of the table applied to values: joins the dtypes and picks the emitter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from einloom.backends.cpu import (
    emit_arithmetic,
    emit_complex,
    emit_division,
    emit_logic,
    emit_math,
)
from einloom.backends.cpu.builder import FunctionBuilder, element_of, mangled
from einloom.backends.cpu.emit_arithmetic import EXACT, Emit, Flags, Parts, Site
from einloom.backends.cpu.emit_cast import convert, settled, truth, widened
from einloom.backends.cpu.values import Value, constant, is_complex, number, register_type
from einloom.ir.errors import UnsupportedError
from einloom.ir.ops import OPS
from einloom.ir.promotion import Typing, op_typing, promote_typings
from einloom.ir.types import BOOL, FLOAT, SIGNED, DType, Modular, Scalar, bool_, i64

LONGEST_PRODUCT = 64  # powers with a literal exponent up to this are spelled out as products
_AFFINE = ("add", "sub", "mul", "neg", "floordiv", "ceildiv", "mod", "max", "min")
_RULES_IN_RESULT = ("divide", "float", "real-float")  # operands are converted to the result


@cache
def _real_emitters() -> dict[str, Emit]:
    return {
        "add": emit_arithmetic.add,
        "sub": emit_arithmetic.sub,
        "mul": emit_arithmetic.mul,
        "div": emit_arithmetic.divide,
        "neg": emit_arithmetic.neg,
        "abs": emit_arithmetic.magnitude,
        "sign": emit_arithmetic.sign,
        "conj": emit_arithmetic.same,
        "real": emit_arithmetic.same,
        "imag": emit_arithmetic.zero,
        "max": emit_arithmetic.greatest,
        "min": emit_arithmetic.least,
        "floordiv": emit_division.floor_divide,
        "ceildiv": emit_division.ceiling_divide,
        "mod": emit_division.remainder,
        "pow": emit_division.power,
        **{name: emit_logic.comparison(name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
        "and": emit_logic.bitwise("and"),
        "or": emit_logic.bitwise("or"),
        "not": emit_logic.complement,
        "bitand": emit_logic.bitwise("and"),
        "bitor": emit_logic.bitwise("or"),
        "bitxor": emit_logic.bitwise("xor"),
        "bitnot": emit_logic.complement,
        "shl": emit_logic.shift_left,
        "shr": emit_logic.shift_right,
        **{name: emit_logic.rounding(f"llvm.{name}") for name in ("floor", "ceil", "trunc")},
        "round": emit_logic.rounding("llvm.rint"),
        **{name: emit_logic.float_class(name) for name in ("isnan", "isinf", "isfinite")},
        **emit_math.real_functions(),
    }


@cache
def _complex_emitters() -> dict[str, Emit]:
    return {
        "add": emit_complex.add,
        "sub": emit_complex.sub,
        "mul": emit_complex.mul,
        "div": emit_complex.divide,
        "neg": emit_complex.neg,
        "abs": emit_complex.magnitude,
        "sign": emit_complex.sign,
        "conj": emit_complex.conj,
        "real": emit_complex.real,
        "imag": emit_complex.imag,
        "pow": emit_complex.power,
        "eq": emit_logic.comparison("eq"),
        "ne": emit_logic.comparison("ne"),
        **{name: emit_logic.float_class(name) for name in ("isnan", "isinf", "isfinite")},
        **{
            name: emit_complex.library_function(name)
            for name in ("exp", "log", "sqrt", "sin", "cos")
        },
    }


def apply(
    builder: FunctionBuilder, op: str, arguments: Sequence[Value], flags: Flags = EXACT
) -> Value:
    """`op` of values of any dtypes and of equal lanes, scalars standing for every lane.

    Raises DTypeError where the operation does not take the dtypes, UnsupportedError where this
    backend has no code for it.
    """
    if op not in OPS or OPS[op].rule == "stored":  # the lowering resolves `stored`
        raise UnsupportedError(f"the CPU backend has no operation {op!r}")
    rule = OPS[op].rule
    lanes = max(value.lanes for value in arguments)
    operands = [widened(builder, value, lanes) for value in arguments]
    typing = op_typing(op, rule, [value.typing for value in operands])
    if rule == "select":
        return _select(builder, operands, typing)
    dtype = _operand_dtype(rule, operands, typing)
    site = Site(builder, dtype, lanes, flags)
    parts = _special(op, operands, site)
    if parts is None:
        parts = _emitted(op, [convert(builder, value, dtype).parts for value in operands], site)
    affine = op in _AFFINE and typing.dtype == i64 and all(value.affine for value in operands)
    return Value(typing.dtype, parts, lanes, weak=typing.weak, affine=affine)


def _emitted(op: str, operands: list[Parts], site: Site) -> Parts:
    emitters = _complex_emitters() if is_complex(site.dtype) else _real_emitters()
    emit = emitters.get(op)
    if emit is None:
        raise UnsupportedError(f"the CPU backend has no {op} of {site.kind} values")
    if OPS[op].arity is not None:
        return emit(site, *operands)
    result = operands[0]
    for operand in operands[1:]:
        result = emit(site, result, operand)
    return result


def _operand_dtype(rule: str, operands: list[Value], typing: Typing) -> DType:
    """The dtype that the operands are converted to."""
    if rule == "logical":
        return bool_
    if rule in _RULES_IN_RESULT:
        return typing.dtype
    joined = operands[0].typing
    for operand in operands[1:]:
        joined = promote_typings(joined, operand.typing)
    return joined.dtype


def _select(builder: FunctionBuilder, operands: list[Value], typing: Typing) -> Value:
    """`select(c, a, b)`: both are computed."""
    condition, a, b = operands
    chosen = truth(builder, settled(condition))
    yes, no = convert(builder, a, typing.dtype), convert(builder, b, typing.dtype)
    parts = tuple(
        builder.select(chosen, yes.machine_type, x, y)
        for x, y in zip(yes.parts, no.parts, strict=True)
    )
    return Value(typing.dtype, parts, yes.lanes, weak=typing.weak)


def _special(op: str, operands: list[Value], site: Site) -> Parts | None:
    """Powers with a literal exponent as products; integers compared without joining dtypes."""
    if op == "pow":
        exponent = operands[1].literal
        real = site.kind not in (BOOL, FLOAT, "complex") and not isinstance(site.dtype, Modular)
        if real and isinstance(exponent, int) and 0 <= exponent <= LONGEST_PRODUCT:
            if exponent == 0:
                return constant(site.dtype, 1, site.lanes).parts
            base = convert(site.builder, operands[0], site.dtype).parts
            return emit_division.constant_power(site, base, exponent)
        if site.kind == FLOAT and isinstance(exponent, int | float):
            base = convert(site.builder, operands[0], site.dtype).parts
            return emit_math.literal_power(site, base, exponent)
    elif OPS[op].rule in ("compare", "order") and all(map(_is_integer, operands)):
        return (emit_logic.integer_comparison(site.builder, op, *operands),)
    return None


def _is_integer(value: Value) -> bool:
    dtype = value.dtype
    return isinstance(dtype, Scalar) and (dtype.is_integer or dtype.kind == BOOL)


# ---- across lanes -------------------------------------------------------------------------

_REDUCTIONS = {
    # op: (bool, signed, unsigned, float)
    "add": ("or", "add", "add", "fadd"),
    "mul": ("and", "mul", "mul", "fmul"),
    "max": ("or", "smax", "umax", "fmaximum"),
    "min": ("and", "smin", "umin", "fminimum"),
    "and": ("and", None, None, None),
    "or": ("or", None, None, None),
    "bitand": ("and", "and", "and", None),
    "bitor": ("or", "or", "or", None),
    "bitxor": ("xor", "xor", "xor", None),
}


def across(builder: FunctionBuilder, op: str, value: Value, reassociate: bool) -> Value:
    """The lanes of a vector folded to a scalar; floats in order unless they may be reordered.

    Raises UnsupportedError for what LLVM has no reduction of.
    """
    if op in ("and", "or"):
        value = Value(bool_, (truth(builder, value),), value.lanes)
    kind = Site(builder, value.dtype).kind
    column = {BOOL: 0, SIGNED: 1, "unsigned": 2, FLOAT: 3}.get(kind)
    name = _REDUCTIONS[op][column] if op in _REDUCTIONS and column is not None else None
    if name is None or isinstance(value.dtype, Modular):
        raise UnsupportedError(f"the CPU backend does not fold {kind} vectors with {op!r}")
    if value.lanes == 1:
        return value
    t = value.machine_type
    element = element_of(t)
    full = f"llvm.vector.reduce.{name}.{mangled(t)}"
    if name in ("fadd", "fmul"):
        start = number(element, -0.0 if name == "fadd" else 1.0)
        builder.module.declare(full, element, [element, t], "")
        flags = "reassoc " if reassociate else ""
        call = f"call {flags}{element} @{full}({element} {start}, {t} {value.only})"
    else:
        builder.module.declare(full, element, [t], "")
        call = f"call {element} @{full}({t} {value.only})"
    return Value(value.dtype, (builder.value(call),))


def splat(builder: FunctionBuilder, value: Value, lanes: int) -> Value:
    """A scalar in every lane; raises UnsupportedError for complex dtypes."""
    scalar = settled(value)
    register_type(scalar.dtype, lanes)
    return widened(builder, scalar, lanes)
