"""log, log2, log10 and log1p.

x = 2^k m with m from sqrt(1/2) to sqrt(2), so that k is 0 around 1 and nothing cancels there;
log x = k ln 2 + log(1 + f), f = m - 1 being exact.

Source: P. Tang, "Table-driven implementation of the logarithm function" (1990), for the error of
the sum; FreeBSD's e_log.c for the form log(1 + f) = f - f^2/2 + s (f^2/2 + R), s = f / (2 + f).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from einloom.backends.cpu.elementary import coefficients as c
from einloom.backends.cpu.elementary.arithmetic import INFINITY, NOT_A_NUMBER, Arithmetic


def log(a: Arithmetic, x: str) -> str:
    """Natural logarithm."""
    # Subnormal numbers have no leading one: they are scaled up, and the exponent corrected.
    lift = a.mantissa_bits + 2
    small = a.compare("olt", x, 2.0 ** (1 - a.bias))
    lifted = a.multiply(x, a.number(2.0**lift))
    exponent, mantissa = a.separated(a.select(small, lifted, x))
    correction = a.select(small, a.number(float(lift)), a.number(0.0))
    exponent = a.subtract(exponent, correction)
    body = _single_body if a.bits == 32 else _double_body
    result = body(a, exponent, a.subtract(mantissa, a.number(1.0)))
    return at_special(a, x, result)


def _single_body(a: Arithmetic, exponent: str, f: str) -> str:
    """k ln 2 + (f - (f^2 / 2 - (f^3 P(f) + k ln 2's low part)))."""
    square = a.multiply(f, f)
    tail = a.polynomial(f, c.LOG_SINGLE)
    low = a.multiply(exponent, a.number(c.LN2_LOW_SINGLE))
    rest = a.multiply_add(a.multiply(square, f), tail, low)
    rest = a.multiply_add(square, a.number(-0.5), rest)
    total = a.add(f, rest)
    return a.multiply_add(exponent, a.number(c.LN2_HIGH_SINGLE), total)


def _double_body(a: Arithmetic, exponent: str, f: str) -> str:
    """k ln 2 + (f - (f^2 / 2 - (s (f^2 / 2 + R) + k ln 2's low part)))."""
    s = a.divide(f, a.add(f, a.number(2.0)))
    z = a.multiply(s, s)
    r = a.multiply(z, a.polynomial(z, c.LOG_DOUBLE))
    half_square = a.multiply(a.multiply(f, f), a.number(0.5))
    low = a.multiply(exponent, a.number(c.LN2_LOW_DOUBLE))
    rest = a.multiply_add(s, a.add(half_square, r), low)
    total = a.subtract(f, a.subtract(half_square, rest))
    return a.multiply_add(exponent, a.number(c.LN2_HIGH_DOUBLE), total)


def at_special(a: Arithmetic, x: str, result: str) -> str:
    """Logarithms of what is not a positive finite number: -inf of 0, NaN of less."""
    result = a.select(a.compare("olt", x, INFINITY), result, x)
    result = a.select(a.compare("olt", x, 0.0), a.number(NOT_A_NUMBER), result)
    return a.select(a.compare("oeq", x, 0.0), a.number(-INFINITY), result)


# ---- f32 by way of f64 --------------------------------------------------------------------


def wide_log(wide: Arithmetic, x: str, scale: float, tail: Sequence[float] = c.LOG_WIDE) -> str:
    """log(x) * scale of an f64 that is normal, to the accuracy that an f32 result needs."""
    exponent, mantissa = wide.separated(x)
    f = wide.subtract(mantissa, wide.number(1.0))
    body = wide.multiply(f, wide.polynomial(f, [scale * k for k in tail]))
    return wide.multiply_add(exponent, wide.number(scale * math.log(2)), body)


def log2_single(a: Arithmetic, x: str) -> str:
    result = wide_log(a.wider(), a.widened(x), 1 / math.log(2))
    return at_special(a, x, a.narrowed(result))


def log10_single(a: Arithmetic, x: str) -> str:
    result = wide_log(a.wider(), a.widened(x), 1 / math.log(10))
    return at_special(a, x, a.narrowed(result))


def log1p_single(a: Arithmetic, x: str) -> str:
    """log(1 + x) in f64, where the sum is all but exact; near 0 from the start of the series."""
    wide = a.wider()
    value = a.widened(x)
    total = wide.add(value, wide.number(1.0))
    far = at_special(wide, total, wide_log(wide, total, 1.0))
    near = wide.multiply_add(wide.multiply(value, value), wide.number(-0.5), value)
    small = wide.compare("olt", wide.magnitude(value), 2.0**-18)
    # -0.0 - 0.0 * 0.0 / 2 is -0.0, so the sign of zero is kept
    return a.narrowed(wide.select(small, near, far))
