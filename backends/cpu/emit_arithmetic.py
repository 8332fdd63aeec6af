"""Arithmetic on real, integer, bool and modular values; division and powers stand beside it.

Every function takes the site (builder, dtype and lanes of the operands, flags) and the parts of
each operand, and returns the parts of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from einloom.backends.cpu.builder import FunctionBuilder, bits_of, lanes_of, with_element
from einloom.backends.cpu.values import kind_of, number, register_type
from einloom.ir.record import record
from einloom.ir.types import BOOL, FLOAT, SIGNED, DType, Modular

Parts = tuple[str, ...]


@record
class Flags:
    """What the optimiser may assume: fast-math flags on floats, `nsw` on 64-bit indices."""

    real: str = ""
    integer: str = ""

    def on(self, opcode: str, kind: str) -> str:
        """`fadd reassoc contract`, `add nsw`."""
        flags = self.real if kind == FLOAT else self.integer
        return f"{opcode} {flags}" if flags else opcode


EXACT = Flags()


@record
class Site:
    """Where an operation is emitted, and the dtype and lanes of its operands."""

    builder: FunctionBuilder
    dtype: DType
    lanes: int = 1
    flags: Flags = EXACT

    @property
    def type(self) -> str:
        """The LLVM type of one part of an operand."""
        return register_type(self.dtype, self.lanes)

    @property
    def kind(self) -> str:
        return kind_of(self.dtype)

    @property
    def truth(self) -> str:
        """The LLVM type of a comparison's result."""
        return with_element(self.type, "i1")

    @property
    def bits(self) -> int:
        """Bits of one part of an operand."""
        return bits_of(self.type)

    def number(self, value: float) -> str:
        """A constant of the operands' type."""
        return number(self.type, value)


Emit = Callable[..., Parts]


def add(site: Site, *operands: Parts) -> Parts:
    """Sum; on bool "or"."""
    (a,), (b,) = operands
    builder, dtype, t, kind = site.builder, site.dtype, site.type, site.kind
    if kind == BOOL:
        return (builder.op("or", t, a, b),)
    if isinstance(dtype, Modular):
        return (_reduced_once(builder, t, builder.op("add", t, a, b), dtype.modulus),)
    return (builder.op(site.flags.on("fadd" if kind == FLOAT else "add", kind), t, a, b),)


def sub(site: Site, *operands: Parts) -> Parts:
    (a,), (b,) = operands
    builder, dtype, t, kind = site.builder, site.dtype, site.type, site.kind
    if isinstance(dtype, Modular):
        difference = builder.op("sub", t, a, b)
        borrowed = builder.compare("icmp ult", t, a, b)
        raised = builder.op("add", t, difference, number(t, dtype.modulus))
        return (builder.select(borrowed, t, raised, difference),)
    return (builder.op(site.flags.on("fsub" if kind == FLOAT else "sub", kind), t, a, b),)


def mul(site: Site, *operands: Parts) -> Parts:
    """Product; on bool "and"."""
    (a,), (b,) = operands
    builder, dtype, t, kind = site.builder, site.dtype, site.type, site.kind
    if kind == BOOL:
        return (builder.op("and", t, a, b),)
    if isinstance(dtype, Modular):
        return (_modular_product(builder, t, a, b, dtype.modulus),)
    return (builder.op(site.flags.on("fmul" if kind == FLOAT else "mul", kind), t, a, b),)


def neg(site: Site, *operands: Parts) -> Parts:
    ((a,),) = operands
    builder, dtype, t, kind = site.builder, site.dtype, site.type, site.kind
    if kind == FLOAT:
        return (builder.op("fneg", t, a),)
    if isinstance(dtype, Modular):
        zero = builder.compare("icmp eq", t, a, number(t, 0))
        rest = builder.op("sub", t, number(t, dtype.modulus), a)
        return (builder.select(zero, t, number(t, 0), rest),)
    return (builder.op(site.flags.on("sub", kind), t, number(t, 0), a),)


def magnitude(site: Site, *operands: Parts) -> Parts:
    """Absolute value; the least integer wraps to itself."""
    ((a,),) = operands
    builder, t, kind = site.builder, site.type, site.kind
    if kind == FLOAT:
        return (builder.intrinsic("llvm.fabs", t, a),)
    if kind != SIGNED:
        return (a,)
    negative = builder.compare("icmp slt", t, a, number(t, 0))
    return (builder.select(negative, t, builder.op("sub", t, number(t, 0), a), a),)


def sign(site: Site, *operands: Parts) -> Parts:
    """-1, 0 or 1; NaN stays NaN and -0.0 gives 0.0."""
    ((a,),) = operands
    builder, t, kind = site.builder, site.type, site.kind
    zero, one = number(t, 0), number(t, 1)
    if kind == FLOAT:
        above = builder.compare("fcmp ogt", t, a, zero)
        below = builder.compare("fcmp olt", t, a, zero)
        level = builder.compare("fcmp oeq", t, a, zero)
        rest = builder.select(level, t, zero, a)
        rest = builder.select(below, t, number(t, -1), rest)
        return (builder.select(above, t, one, rest),)
    if kind != SIGNED:
        return (builder.select(builder.compare("icmp ne", t, a, zero), t, one, zero),)
    above = builder.compare("icmp sgt", t, a, zero)
    below = builder.compare("icmp slt", t, a, zero)
    rest = builder.select(below, t, number(t, -1), zero)
    return (builder.select(above, t, one, rest),)


def same(site: Site, operand: Parts) -> Parts:
    """The operand itself: `conj` and `real` of what is not complex, rounding of integers."""
    return operand


def zero(site: Site, operand: Parts) -> Parts:
    """`imag` of what is not complex."""
    return (site.number(0),)


def greatest(site: Site, *operands: Parts) -> Parts:
    """Maximum; NaN wins, and bool takes "or"."""
    return _extremum(site, operands, ("llvm.maximum", "smax", "umax", "or"))


def least(site: Site, *operands: Parts) -> Parts:
    """Minimum; NaN wins, and bool takes "and"."""
    return _extremum(site, operands, ("llvm.minimum", "smin", "umin", "and"))


def _extremum(site: Site, operands: Sequence[Parts], names: tuple[str, str, str, str]) -> Parts:
    (a,), (b,) = operands
    builder, t, kind = site.builder, site.type, site.kind
    real, signed, unsigned, truth = names
    if kind == BOOL:
        return (builder.op(truth, t, a, b),)
    if kind == FLOAT:
        # Where folds may be reordered, which of two zeros wins is open: that saves three of the
        # seven instructions that IEEE 754's maximum takes on x86.
        if site.flags.real and lanes_of(t) > 1 and "avx512f" in builder.module.target.features:
            return (_masked_extremum(builder, t, a, b, "ogt" if names[1] == "smax" else "olt"),)
        flags = "nsz " if site.flags.real else ""
        return (builder.intrinsic(real, t, a, b, flags=flags),)
    return (builder.intrinsic(f"llvm.{signed if kind == SIGNED else unsigned}", t, a, b),)


def _masked_extremum(builder: FunctionBuilder, t: str, a: str, b: str, predicate: str) -> str:
    """An extremum of explicit vectors, in the two instructions that masks make of it, not three.

    The comparison takes `b` where either is NaN, so that only a NaN of `a` has to be kept.
    """
    first = builder.compare(f"fcmp {predicate}", t, a, b)
    number_of_a = builder.compare("fcmp ord", t, a, a)
    return builder.select(number_of_a, t, builder.select(first, t, a, b), a)


def divide(site: Site, *operands: Parts) -> Parts:
    """True division of floats; integers were converted to f64 before."""
    (a,), (b,) = operands
    return (site.builder.op("fdiv", site.type, a, b),)


# ---- modulo q -----------------------------------------------------------------------------


def _reduced_once(builder: FunctionBuilder, t: str, value: str, modulus: int) -> str:
    """`value` less the modulus where it reaches it; the value is below twice the modulus."""
    over = builder.compare("icmp uge", t, value, number(t, modulus))
    lower = builder.op("sub", t, value, number(t, modulus))
    return builder.select(over, t, lower, value)


def _modular_product(builder: FunctionBuilder, t: str, a: str, b: str, modulus: int) -> str:
    """a * b mod q. Up to q = 2^32 the product fits 64 bits; above, it is Barrett's reduction.

    The 128-bit quotient by a constant would be a library call, so q is divided out by
    multiplying with floor(2^2n / q), n being its bits: the estimate of the quotient is too
    small by two at most.

    Source: A. Menezes et al., Handbook of Applied Cryptography (1996), algorithm 14.42.
    """
    if modulus <= 1 << 32:
        return builder.op("urem", t, builder.op("mul", t, a, b), number(t, modulus))
    wide = with_element(t, "i128")
    left, right = builder.convert("zext", t, a, wide), builder.convert("zext", t, b, wide)
    product = builder.op("mul", wide, left, right)
    if modulus & (modulus - 1) == 0:
        rest = builder.op("and", wide, product, number(wide, modulus - 1))
        return builder.convert("trunc", wide, rest, t)
    bits = modulus.bit_length()
    reciprocal = number(wide, (1 << 2 * bits) // modulus)
    upper = builder.op("lshr", wide, product, number(wide, bits - 1))
    scaled = builder.op("mul", wide, upper, reciprocal)
    quotient = builder.op("lshr", wide, scaled, number(wide, bits + 1))
    whole = builder.op("mul", wide, quotient, number(wide, modulus))
    rest = builder.op("sub", wide, product, whole)
    for _ in range(2):
        rest = _reduced_once(builder, wide, rest, modulus)
    return builder.convert("trunc", wide, rest, t)
