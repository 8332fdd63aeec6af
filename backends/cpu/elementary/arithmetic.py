"""Arithmetic on one float type, scalar or vector: what the elementary functions are written in.

Nothing here branches or calls a library, and every instruction has a vector form on every target,
so LLVM's vectoriser takes loops over it. In particular rounding to a whole number and conversion
between floats and integers are done by adding constants, since SSE2 has no rounding and AVX2 no
conversions of 64-bit integers.
"""

from __future__ import annotations

from collections.abc import Sequence

from einloom.backends.cpu.builder import (
    FunctionBuilder,
    bits_of,
    element_of,
    mangled,
    with_element,
)
from einloom.backends.cpu.target import Target
from einloom.backends.cpu.values import number

INFINITY = float("inf")
NOT_A_NUMBER = float("nan")
_MANTISSA_BITS = {"float": 23, "double": 52}


def has_fused_multiply(target: Target) -> bool:
    """Whether `a * b + c` with one rounding is an instruction, not a call of the C library."""
    if target.architecture == "x86_64":
        return "fma" in target.features
    return target.architecture == "aarch64"


def has_scaling(target: Target) -> bool:
    """Whether `x * 2^n`, for any n and rounded once, is an instruction for vectors of any width."""
    return target.architecture == "x86_64" and {"avx512f", "avx512vl"} <= target.features


class Arithmetic:
    """Emits instructions on values of one machine type: float, double, or a vector of either.

    Operands and results are names of LLVM values or constants; truth values are i1, or as many
    as there are lanes.
    """

    def __init__(self, builder: FunctionBuilder, machine_type: str) -> None:
        self.builder = builder
        self.type = machine_type
        self.bits = bits_of(machine_type)
        self.integer = with_element(machine_type, f"i{self.bits}")
        self.truth = with_element(machine_type, "i1")
        self.mantissa_bits = _MANTISSA_BITS[element_of(machine_type)]
        self.bias = (1 << (self.bits - self.mantissa_bits - 2)) - 1
        self.fused = has_fused_multiply(builder.module.target)
        self._scales = has_scaling(builder.module.target)

    # ---- floats ---------------------------------------------------------------------------

    def number(self, value: float) -> str:
        return number(self.type, value)

    def add(self, a: str, b: str) -> str:
        return self.builder.op("fadd", self.type, a, b)

    def subtract(self, a: str, b: str) -> str:
        return self.builder.op("fsub", self.type, a, b)

    def multiply(self, a: str, b: str) -> str:
        return self.builder.op("fmul", self.type, a, b)

    def divide(self, a: str, b: str) -> str:
        return self.builder.op("fdiv", self.type, a, b)

    def negative(self, a: str) -> str:
        return self.builder.op("fneg", self.type, a)

    def magnitude(self, a: str) -> str:
        return self.builder.intrinsic("llvm.fabs", self.type, a)

    def root(self, a: str) -> str:
        return self.builder.intrinsic("llvm.sqrt", self.type, a)

    def with_sign(self, size: str, sign: str) -> str:
        """`size` with the sign of `sign`, its own sign not counting."""
        return self.builder.intrinsic("llvm.copysign", self.type, size, sign)

    def multiply_add(self, a: str, b: str, c: str) -> str:
        """a * b + c, rounded once where the target can, twice elsewhere."""
        if self.fused:
            return self.builder.intrinsic("llvm.fma", self.type, a, b, c)
        return self.add(self.multiply(a, b), c)

    def polynomial(self, x: str, coefficients: Sequence[float]) -> str:
        """Horner's scheme, the lowest power first in `coefficients`."""
        total = self.number(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            total = self.multiply_add(total, x, self.number(coefficient))
        return total

    def compare(self, predicate: str, a: str, b: float) -> str:
        """`olt`, `ogt`, ... with a constant."""
        return self.builder.compare(f"fcmp {predicate}", self.type, a, self.number(b))

    def select(self, condition: str, a: str, b: str) -> str:
        return self.builder.select(condition, self.type, a, b)

    def at_most(self, x: str, bound: float) -> str:
        """The smaller of the two; NaN stays NaN."""
        return self.select(self.compare("ogt", x, bound), self.number(bound), x)

    def at_least(self, x: str, bound: float) -> str:
        """The larger of the two; NaN stays NaN."""
        return self.select(self.compare("olt", x, bound), self.number(bound), x)

    # ---- bits -----------------------------------------------------------------------------

    def whole(self, value: int) -> str:
        """A constant integer of the floats' width."""
        return number(self.integer, value)

    def bits_of(self, x: str) -> str:
        return self.builder.convert("bitcast", self.type, x, self.integer)

    def from_bits(self, bits: str) -> str:
        return self.builder.convert("bitcast", self.integer, bits, self.type)

    def on_bits(self, opcode: str, a: str, b: str | int) -> str:
        """`add`, `shl`, `lshr`, `and`, ... of integers of the floats' width."""
        return self.builder.op(opcode, self.integer, a, self.whole(b) if isinstance(b, int) else b)

    def select_bits(self, condition: str, a: str | int, b: str | int) -> str:
        """One of two integers."""
        left, right = (self.whole(x) if isinstance(x, int) else x for x in (a, b))
        return self.builder.select(condition, self.integer, left, right)

    def compare_bits(self, predicate: str, a: str, b: int) -> str:
        return self.builder.compare(f"icmp {predicate}", self.integer, a, self.whole(b))

    # ---- between floats and integers ------------------------------------------------------

    @property
    def _rounder(self) -> float:
        """Where floats are whole numbers one apart: adding this rounds to the nearest, even on
        ties, and leaves the whole number in the lowest bits."""
        return 1.5 * 2.0**self.mantissa_bits

    def nearest(self, x: str, factor: float) -> tuple[str, str]:
        """The whole number nearest to `x * factor`, as a float and as an integer.

        It must be below 2^21 in size for f32, 2^50 for f64.
        """
        shifted = self.multiply_add(x, self.number(factor), self.number(self._rounder))
        rounded = self.subtract(shifted, self.number(self._rounder))
        exponent = self.bias + self.mantissa_bits
        # the bits of the constant: its exponent, and a fraction of one half
        constant = exponent << self.mantissa_bits | 1 << (self.mantissa_bits - 1)
        return rounded, self.on_bits("sub", self.bits_of(shifted), constant)

    def from_unsigned(self, bits: str, offset: float = 0.0) -> str:
        """An integer that fits the mantissa, less an offset, as a float, exactly."""
        exponent = self.bias + self.mantissa_bits
        placed = self.from_bits(self.on_bits("or", bits, exponent << self.mantissa_bits))
        return self.subtract(placed, self.number(2.0**self.mantissa_bits + offset))

    def power_of_two(self, exponent: str) -> str:
        """2^exponent, in the range of normal numbers."""
        biased = self.on_bits("add", exponent, self.bias)
        return self.from_bits(self.on_bits("shl", biased, self.mantissa_bits))

    def scaled(self, x: str, exponent: str) -> str:
        """x * 2^exponent for x near 1, rounded once: the result may be subnormal or infinite.

        Where that is no instruction two factors are needed, as 2^exponent itself may be neither.
        """
        if self._scales:
            return self._with_exponent(x, exponent)
        half = self.on_bits("ashr", exponent, 1)
        rest = self.on_bits("sub", exponent, half)
        return self.multiply(self.multiply(x, self.power_of_two(half)), self.power_of_two(rest))

    def _with_exponent(self, x: str, exponent: str) -> str:
        narrow = with_element(self.type, "i32")
        power = self.builder.convert("trunc", self.integer, exponent, narrow)
        name = f"llvm.ldexp.{mangled(self.type)}.{mangled(narrow)}"
        self.builder.module.declare(name, self.type, [self.type, narrow], "")
        return self.builder.value(f"call {self.type} @{name}({self.type} {x}, {narrow} {power})")

    def separated(self, x: str) -> tuple[str, str]:
        """Exponent and mantissa of a positive normal number: the exponent is a float, the
        mantissa from sqrt(1/2) to sqrt(2)."""
        one = self.bias << self.mantissa_bits
        root_bits = {23: 0x3F3504F3, 52: 0x3FE6A09E667F3BCD}[self.mantissa_bits]
        bits = self.bits_of(x)
        raised = self.on_bits("add", bits, one - root_bits)
        exponent = self.on_bits("lshr", raised, self.mantissa_bits)
        # The exponent moves out of the number, and that of 1 in.
        moved = self.on_bits("shl", exponent, self.mantissa_bits)
        mantissa = self.on_bits("sub", self.on_bits("add", bits, one), moved)
        return self.from_unsigned(exponent, float(self.bias)), self.from_bits(mantissa)

    # ---- between widths -------------------------------------------------------------------

    def wider(self) -> Arithmetic:
        """The same lanes in f64."""
        return Arithmetic(self.builder, with_element(self.type, "double"))

    def widened(self, x: str) -> str:
        return self.builder.convert("fpext", self.type, x, with_element(self.type, "double"))

    def narrowed(self, x: str) -> str:
        """An f64 value of `wider()` in this width, rounded once."""
        return self.builder.convert("fptrunc", with_element(self.type, "double"), x, self.type)
