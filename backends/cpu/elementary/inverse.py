"""atan, atan2, asin and acos of f32, all through the angle of a point (x, y) in f64.

The smaller coordinate over the larger is at most 1, where one odd polynomial gives the angle; the
octants are told apart afterwards. asin and acos are angles of (sqrt(1 - x^2), x) and
(x, sqrt(1 - x^2)), whose lengths are 1.

Source: J.-M. Muller, Elementary Functions (2016), section 10.1, for the identities.
"""

from __future__ import annotations

import math

from einloom.backends.cpu.elementary import coefficients as c
from einloom.backends.cpu.elementary.arithmetic import INFINITY, NOT_A_NUMBER, Arithmetic


def _angle(a: Arithmetic, y: str, x: str) -> str:
    """The angle of the point (x, y), from 0 to pi; the sign of y does not count."""
    height, width = a.magnitude(y), a.magnitude(x)
    steep = a.builder.compare("fcmp ogt", a.type, height, width)
    above = a.select(steep, width, height)
    below = a.select(steep, height, width)
    # 0 / 0 and inf / inf stand for 0 and 1; NaN does not meet the conditions.
    ratio = a.divide(above, below)
    ratio = a.select(a.compare("oeq", below, 0.0), a.number(0.0), ratio)
    ratio = a.select(a.compare("oeq", above, INFINITY), a.number(1.0), ratio)
    square = a.multiply(ratio, ratio)
    cube = a.multiply(square, ratio)
    angle = a.multiply_add(cube, a.polynomial(square, c.ATAN_WIDE), ratio)
    angle = a.select(steep, a.subtract(a.number(math.pi / 2), angle), angle)
    left = a.builder.compare("icmp slt", a.integer, a.bits_of(x), a.whole(0))
    return a.select(left, a.subtract(a.number(math.pi), angle), angle)


def atan2_single(a: Arithmetic, y: str, x: str) -> str:
    wide = a.wider()
    upper, right = a.widened(y), a.widened(x)
    angle = a.with_sign(a.narrowed(_angle(wide, upper, right)), y)
    # A NaN beside a larger number or a zero has to win.
    unordered = a.builder.compare("fcmp uno", a.type, y, x)
    return a.select(unordered, a.number(NOT_A_NUMBER), angle)


def atan_single(a: Arithmetic, x: str) -> str:
    wide = a.wider()
    value = a.widened(x)
    angle = a.with_sign(a.narrowed(_angle(wide, value, wide.number(1.0))), x)
    return a.select(a.builder.compare("fcmp uno", a.type, x, x), x, angle)


def asin_single(a: Arithmetic, x: str) -> str:
    wide = a.wider()
    value = a.widened(x)
    angle = _angle(wide, value, _other_side(wide, value))
    return _within_one(a, x, a.with_sign(a.narrowed(angle), x))


def acos_single(a: Arithmetic, x: str) -> str:
    wide = a.wider()
    value = a.widened(x)
    return _within_one(a, x, a.narrowed(_angle(wide, _other_side(wide, value), value)))


def _other_side(wide: Arithmetic, x: str) -> str:
    """sqrt(1 - x^2), both factors of which are exact near 1; 0 beyond."""
    one = wide.number(1.0)
    product = wide.multiply(wide.subtract(one, x), wide.add(one, x))
    return wide.root(wide.at_least(product, 0.0))


def _within_one(a: Arithmetic, x: str, result: str) -> str:
    """NaN for arguments beyond 1 in size, and for NaN."""
    inside = a.compare("ole", a.magnitude(x), 1.0)
    return a.select(inside, result, a.number(NOT_A_NUMBER))
