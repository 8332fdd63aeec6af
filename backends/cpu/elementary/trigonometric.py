"""sin, cos and tan of f32, for arguments of every size.

The argument is M 2^E with a 24-bit whole M. Its product with 1 / (2 pi) is wanted modulo 1, so of
the binary digits of 1 / (2 pi) those before the E-th only give whole turns and are left out; with
the next 96 the fraction of a turn comes out to 64 bits, in whole arithmetic. Its first two bits
number the quarter, the rest is the angle, which is handed to polynomials in f64.

No f32 comes nearer to a multiple of pi / 2 than about 2^-29, and the angle is right to 2^-61, so
its first 32 bits are right in the worst case.

Source: M. Payne, R. Hanek, "Radian reduction for trigonometric functions" (1983);
J.-M. Muller, Elementary Functions (2016), sections 11.4 and 11.5.
"""

from __future__ import annotations

import math

from einloom.backends.cpu.elementary import coefficients as c
from einloom.backends.cpu.elementary.arithmetic import INFINITY, NOT_A_NUMBER, Arithmetic
from einloom.ir.record import record

# The first window into 1 / (2 pi) is that of arguments from 1 to 2, whose lowest bit counts 2^-23:
# it begins at the digit of 2^22, the first that does not give whole turns.
_ZEROS = 23
_WORD = 32


@record
class Angle:
    """|x| less a whole number of quarter turns: an f64, and the quarters modulo 4 as an i64."""

    rest: str
    quarters: str


def angle_of(a: Arithmetic, size: str) -> Angle:
    """Reduce f32 values that are not negative; of infinity and NaN anything comes out."""
    builder, wide = a.builder, a.wider()
    bits = a.bits_of(size)
    exponent = a.on_bits("lshr", bits, a.mantissa_bits)
    hidden = 1 << a.mantissa_bits
    whole = a.on_bits("or", a.on_bits("and", bits, hidden - 1), hidden)
    position = a.on_bits("sub", exponent, a.bias)
    position, factor = (
        builder.convert("zext", a.integer, x, wide.integer) for x in (position, whole)
    )
    fraction = _fraction_of_turn(wide, position, factor)
    # Rounded to quarters: an eighth is added, the quarters cut off, the eighth taken away.
    moved = wide.on_bits("add", fraction, 1 << 61)
    quarters = wide.on_bits("lshr", moved, 62)
    rest = wide.on_bits("and", moved, (1 << 62) - 1)
    upper = wide.from_unsigned(wide.on_bits("lshr", rest, _WORD), float(1 << 29))
    lower = wide.from_unsigned(wide.on_bits("and", rest, (1 << _WORD) - 1))
    signed = wide.multiply_add(upper, wide.number(2.0**_WORD), lower)
    reduced = wide.multiply(signed, wide.number(math.pi / 2 * 2.0**-62))
    # Below 1 the argument is the angle.
    value = a.widened(size)
    small = wide.compare("olt", value, 1.0)
    return Angle(wide.select(small, value, reduced), wide.select_bits(small, 0, quarters))


def _fraction_of_turn(wide: Arithmetic, position: str, factor: str) -> str:
    """64 bits behind the point of factor / (2 pi) 2^(position - 23), the factor below 2^24."""
    shift = wide.on_bits("and", position, _WORD - 1)
    second = wide.compare_bits("ne", wide.on_bits("and", position, _WORD), 0)
    third = wide.compare_bits("ne", wide.on_bits("and", position, 2 * _WORD), 0)
    pieces = []
    for word in range(3):
        # Two words, from which 32 bits are cut; which two is chosen by the position.
        pairs = [_digits((word + skipped) * _WORD) for skipped in range(4)]
        low = wide.select_bits(second, pairs[1], pairs[0])
        high = wide.select_bits(second, pairs[3], pairs[2])
        pair = wide.select_bits(third, high, low)
        pieces.append(wide.on_bits("lshr", wide.on_bits("shl", pair, shift), _WORD))
    first, middle, last = (wide.on_bits("mul", piece, factor) for piece in pieces)
    total = wide.on_bits("add", wide.on_bits("shl", first, _WORD), middle)
    return wide.on_bits("add", total, wide.on_bits("lshr", last, _WORD))


def _digits(start: int) -> int:
    """64 binary digits of 1 / (2 pi), behind `_ZEROS` zeros for what stands before the point."""
    return c.TURN >> (256 + _ZEROS - start - 64) & (1 << 64) - 1


def _sine(wide: Arithmetic, rest: str, square: str) -> str:
    return wide.multiply_add(wide.multiply(square, rest), wide.polynomial(square, c.SIN_WIDE), rest)


def _cosine(wide: Arithmetic, square: str) -> str:
    return wide.polynomial(square, (1.0, -0.5, *c.COS_WIDE))


def sin_single(a: Arithmetic, x: str) -> str:
    size = a.magnitude(x)
    result = _of_angle(a, angle_of(a, size), 0)
    # A zero of +0.0 or -0.0 keeps its sign, as does everything else that is odd.
    sign = a.on_bits("and", a.bits_of(x), 1 << (a.bits - 1))
    signed = a.from_bits(a.on_bits("xor", a.bits_of(result), sign))
    return _finite(a, size, signed)


def cos_single(a: Arithmetic, x: str) -> str:
    size = a.magnitude(x)
    return _finite(a, size, _of_angle(a, angle_of(a, size), 1))


def _of_angle(a: Arithmetic, angle: Angle, ahead: int) -> str:
    """The sine of an angle that is some quarters ahead, as an f32."""
    wide = a.wider()
    quarters = wide.on_bits("add", angle.quarters, ahead) if ahead else angle.quarters
    square = wide.multiply(angle.rest, angle.rest)
    sine, cosine = _sine(wide, angle.rest, square), _cosine(wide, square)
    odd = wide.compare_bits("ne", wide.on_bits("and", quarters, 1), 0)
    chosen = wide.select(odd, cosine, sine)
    sign = wide.on_bits("shl", wide.on_bits("and", quarters, 2), 62)
    return a.narrowed(wide.from_bits(wide.on_bits("xor", wide.bits_of(chosen), sign)))


def tan_single(a: Arithmetic, x: str) -> str:
    """sin / cos, or -cos / sin in odd quarters."""
    wide = a.wider()
    size = a.magnitude(x)
    angle = angle_of(a, size)
    square = wide.multiply(angle.rest, angle.rest)
    sine, cosine = _sine(wide, angle.rest, square), _cosine(wide, square)
    odd = wide.compare_bits("ne", wide.on_bits("and", angle.quarters, 1), 0)
    above = wide.select(odd, wide.negative(cosine), sine)
    below = wide.select(odd, sine, cosine)
    result = a.narrowed(wide.divide(above, below))
    sign = a.on_bits("and", a.bits_of(x), 1 << (a.bits - 1))
    return _finite(a, size, a.from_bits(a.on_bits("xor", a.bits_of(result), sign)))


def _finite(a: Arithmetic, size: str, result: str) -> str:
    """NaN where the argument is infinite or NaN."""
    return a.select(a.compare("olt", size, INFINITY), result, a.number(NOT_A_NUMBER))
