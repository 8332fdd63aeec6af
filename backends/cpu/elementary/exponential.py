"""exp and what is made of it: exp2, expm1, tanh, sigmoid, sinh and cosh.

x = n ln 2 + r with a whole n and |r| <= ln 2 / 2, ln 2 being held in two parts whose first times n
is exact; exp(r) - 1 = r + r^2 P(r), and 2^n goes into the exponent.

Source: W. Cody, W. Waite, Software Manual for the Elementary Functions (1980), chapter 6;
J.-M. Muller, Elementary Functions (2016), section 11.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from einloom.backends.cpu.elementary import coefficients as c
from einloom.backends.cpu.elementary.arithmetic import Arithmetic
from einloom.ir.record import record


@record
class Range:
    """What differs between f32 and f64.

    Beyond `lowest` and `highest` exp is 0 and infinite whatever the argument; 1 - tanh(`flat`)
    and exp(-2 `flat`) are below half a unit in the last place of 1.
    """

    tail: Sequence[float]
    log2_high: float
    log2_low: float
    lowest: float
    highest: float
    flat: float


SINGLE = Range(c.EXP_SINGLE, c.LN2_HIGH_SINGLE, c.LN2_LOW_SINGLE, -104.0, 89.0, 10.0)
DOUBLE = Range(c.EXP_DOUBLE, c.LN2_HIGH_DOUBLE, c.LN2_LOW_DOUBLE, -746.0, 710.0, 20.0)


def range_of(a: Arithmetic) -> Range:
    return SINGLE if a.bits == 32 else DOUBLE


def reduced(a: Arithmetic, x: str) -> tuple[str, str, str]:
    """Two parts of exp(r) - 1, the larger of them exact, and n, for x = n ln 2 + r."""
    limits = range_of(a)
    count, exponent = a.nearest(x, 1 / math.log(2))
    high = a.multiply_add(count, a.number(-limits.log2_high), x)
    low = a.multiply(count, a.number(limits.log2_low))
    r = a.subtract(high, low)
    tail = a.polynomial(r, limits.tail)
    return high, a.multiply_add(a.multiply(r, r), tail, a.negative(low)), exponent


def beyond_one(a: Arithmetic, high: str, rest: str) -> str:
    """1 + high + rest, the rounding of the first sum being made good in the last."""
    total = a.add(high, a.number(1.0))
    lost = a.subtract(high, a.subtract(total, a.number(1.0)))
    return a.add(total, a.add(lost, rest))


def exp(a: Arithmetic, x: str) -> str:
    limits = range_of(a)
    clamped = a.at_least(a.at_most(x, limits.highest), limits.lowest)
    if a.fused:
        return a.scaled(*fused_exp(a, clamped))
    high, rest, exponent = reduced(a, clamped)
    return a.scaled(beyond_one(a, high, rest), exponent)


def fused_exp(a: Arithmetic, x: str) -> tuple[str, str]:
    """exp(r) within nine tenths of a unit in the last place, and n, for x = n ln 2 + r.

    With one rounding in each step of Horner's scheme no sum needs to be made good.
    """
    limits = range_of(a)
    count, exponent = a.nearest(x, 1 / math.log(2))
    high = a.multiply_add(count, a.number(-limits.log2_high), x)
    r = a.multiply_add(count, a.number(-limits.log2_low), high)
    return a.polynomial(r, (1.0, 1.0, *limits.tail)), exponent


def plain_exp(a: Arithmetic, x: str) -> str:
    """exp of what gives a normal number, and not more than half the largest one."""
    high, rest, exponent = reduced(a, x)
    return a.multiply(a.add(a.add(high, rest), a.number(1.0)), a.power_of_two(exponent))


def exp2(a: Arithmetic, x: str) -> str:
    """2^x; of f64 through exp(r ln 2)."""
    lowest, highest = (-151.0, 129.0) if a.bits == 32 else (-1076.0, 1025.0)
    clamped = a.at_least(a.at_most(x, highest), lowest)
    count, exponent = a.nearest(clamped, 1.0)
    r = a.subtract(clamped, count)
    if a.bits == 32:
        first, *others = c.EXP2_SINGLE
        single = float(np.float32(first))
        rest = a.multiply(r, a.polynomial(r, (first - single, *others)))
        return a.scaled(beyond_one(a, a.multiply(r, a.number(single)), rest), exponent)
    high = a.multiply(r, a.number(math.log(2)))
    tail = a.polynomial(high, c.EXP_DOUBLE)
    rest = a.multiply(a.multiply(high, high), tail)
    return a.scaled(beyond_one(a, high, rest), exponent)


def expm1(a: Arithmetic, x: str) -> str:
    """exp(x) - 1 as 2^n (exp(r) - 1) + (2^n - 1), halved so that 2^n does not overflow."""
    limits = range_of(a)
    clamped = a.at_least(a.at_most(x, limits.highest), -2 * limits.flat)
    high, rest, exponent = reduced(a, clamped)
    scale = a.power_of_two(a.on_bits("add", exponent, -1))
    result = a.multiply_add(scale, a.add(high, rest), a.subtract(scale, a.number(0.5)))
    # Below this exp(x) - 1 rounds to x, and the sign of zero would be lost.
    tiny = a.compare("olt", a.magnitude(x), 2.0 ** -(a.mantissa_bits + 2))
    return a.select(tiny, x, a.add(result, result))


def tanh(a: Arithmetic, x: str) -> str:
    """x + x^3 P(x^2) below 0.55, 1 - 2 e / (1 + e) with e = exp(-2 |x|) above."""
    square = a.multiply(x, x)
    tail = a.polynomial(square, c.TANH_SINGLE if a.bits == 32 else c.TANH_DOUBLE)
    inner = a.multiply_add(a.multiply(square, x), tail, x)
    size = a.magnitude(x)
    power = plain_exp(a, a.multiply(a.at_most(size, range_of(a).flat), a.number(-2.0)))
    quotient = a.divide(a.add(power, power), a.add(power, a.number(1.0)))
    outer = a.subtract(a.number(1.0), quotient)
    # the sign is put on both: of -0.0 the sum above is +0.0
    return a.with_sign(a.select(a.compare("olt", size, 0.55), inner, outer), x)


def sigmoid(a: Arithmetic, x: str) -> str:
    """1 / (1 + exp(-x)) without overflow: only exp of a number that is not positive is taken.

    With e = exp(-|x|) and q = e / (1 + e) it is 1 - q for positive x and q for negative, which is
    e - e q, too: there the error of the quotient counts less.
    """
    power = exp(a, a.negative(a.magnitude(x)))
    quotient = a.divide(power, a.add(power, a.number(1.0)))
    whole = a.select(a.compare("oge", x, 0.0), a.number(1.0), power)
    return a.multiply_add(whole, a.negative(quotient), whole)


# ---- f32 by way of f64 --------------------------------------------------------------------


def sinh_single(a: Arithmetic, x: str) -> str:
    """sinh of f32 from exp of f64; near 0 from the start of the series."""
    wide = a.wider()
    size = wide.at_most(a.widened(a.magnitude(x)), 128.0)
    power = plain_exp(wide, size)
    difference = wide.subtract(power, wide.divide(wide.number(1.0), power))
    cube = wide.multiply(wide.multiply(size, size), size)
    near = wide.multiply_add(cube, wide.number(1 / 6), size)
    far = wide.multiply(difference, wide.number(0.5))
    result = wide.select(wide.compare("olt", size, 2.0**-10), near, far)
    return a.with_sign(a.narrowed(result), x)


def cosh_single(a: Arithmetic, x: str) -> str:
    """cosh of f32 from exp of f64."""
    wide = a.wider()
    power = plain_exp(wide, wide.at_most(a.widened(a.magnitude(x)), 128.0))
    total = wide.add(power, wide.divide(wide.number(1.0), power))
    return a.narrowed(wide.multiply(total, wide.number(0.5)))
