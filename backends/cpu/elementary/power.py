"""Powers of f32, in f64: 2^(y log2 |x|), with the special cases of C and NumPy.

The logarithm is good to 2^-41, so that y log2 |x|, which is below 151 in size where the result
is finite, is wrong by less than 2^-33 where it matters.

Source: ISO C23, F.10.5.4, for the special cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from einloom.backends.cpu.elementary import coefficients as c
from einloom.backends.cpu.elementary.arithmetic import INFINITY, NOT_A_NUMBER, Arithmetic
from einloom.backends.cpu.elementary.logarithm import at_special, wide_log

LONGEST_PRODUCT = 64
# Even, and beyond it every f32 is an even number.
_EVEN = 2.0**30


def power_single(a: Arithmetic, x: str, y: str) -> str:
    wide = a.wider()
    base, exponent = a.widened(x), a.widened(y)
    size = wide.magnitude(base)
    log2 = at_special(wide, size, wide_log(wide, size, 1 / math.log(2), c.LOG_POWER))
    product = wide.multiply(log2, exponent)
    # 1 to any power is 1, and so is -1 to an infinite one.
    one = wide.number(0.0)
    product = wide.select(wide.compare("oeq", log2, 0.0), one, product)
    result = _exp2(wide, product)

    whole, odd = _parity(wide, exponent)
    truth = wide.truth
    negative = wide.compare("olt", base, 0.0)
    finite = wide.compare("olt", size, INFINITY)
    not_whole = wide.builder.op("xor", truth, whole, _true(wide))
    undefined = wide.builder.op("and", truth, negative, not_whole)
    undefined = wide.builder.op("and", truth, undefined, finite)
    # The sign bit rather than `negative`: an odd power of -0.0 is -0.0 or -inf.
    sign = wide.on_bits("and", wide.bits_of(base), 1 << 63)
    sign = wide.select_bits(odd, sign, 0)
    signed = wide.from_bits(wide.on_bits("or", wide.bits_of(result), sign))
    result = wide.select(undefined, wide.number(NOT_A_NUMBER), signed)
    result = wide.select(wide.compare("oeq", exponent, 0.0), wide.number(1.0), result)
    return a.narrowed(result)


def _true(a: Arithmetic) -> str:
    return "true" if a.truth == "i1" else "splat (i1 true)"


def _exp2(wide: Arithmetic, x: str) -> str:
    """2^x to the accuracy that an f32 result needs; beyond the range of f32 it need not be right,
    but too large or too small."""
    x = wide.at_least(wide.at_most(x, 200.0), -200.0)
    count, exponent = wide.nearest(x, 1.0)
    r = wide.subtract(x, count)
    tail = wide.polynomial(r, c.EXP2_WIDE)
    return wide.multiply(wide.multiply_add(r, tail, wide.number(1.0)), wide.power_of_two(exponent))


def _parity(wide: Arithmetic, y: str) -> tuple[str, str]:
    """Whether a number is whole, and whether it is odd; infinities are even, NaN is neither."""
    size = wide.at_most(wide.magnitude(y), _EVEN)
    half = wide.multiply(size, wide.number(0.5))
    (nearest, _), (nearest_half, _) = wide.nearest(size, 1.0), wide.nearest(half, 1.0)
    whole = wide.builder.compare("fcmp oeq", wide.type, nearest, size)
    fraction = wide.builder.compare("fcmp une", wide.type, nearest_half, half)
    return whole, wide.builder.op("and", wide.truth, whole, fraction)


# ---- literal exponents --------------------------------------------------------------------


def literal_power(a: Arithmetic, exponent: float) -> Callable[[str], str] | None:
    """How to raise f32 values to a constant that has a shorter way than `power_single`.

    Squares, reciprocals and roots are rounded once; whole exponents up to `LONGEST_PRODUCT` in
    size are products in f64, rounded to f32 at the end.
    """
    if exponent == 2:
        return lambda x: a.multiply(x, x)
    if exponent == 1:
        return lambda x: x
    if exponent == 0.5:
        return lambda x: _root(a, x)
    if exponent == -1:
        return lambda x: a.divide(a.number(1.0), x)
    if 0 < abs(exponent) <= LONGEST_PRODUCT and exponent == int(exponent):
        return lambda x: _product(a, x, int(exponent))
    return None


def _root(a: Arithmetic, x: str) -> str:
    """x^0.5 is +0.0 for -0.0 and infinite for -inf, which square roots are not."""
    root = a.root(a.add(x, a.number(0.0)))
    return a.select(a.compare("oeq", x, -INFINITY), a.number(INFINITY), root)


def _product(a: Arithmetic, x: str, exponent: int) -> str:
    wide = a.wider()
    square, result = a.widened(x), ""
    left = abs(exponent)
    while left:
        if left & 1:
            result = wide.multiply(result, square) if result else square
        left >>= 1
        if left:
            square = wide.multiply(square, square)
    if exponent < 0:
        result = wide.divide(wide.number(1.0), result)
    return a.narrowed(result)
