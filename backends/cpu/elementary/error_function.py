"""erf: x + x P(x^2) below 1, and 1 - exp(Q(|x| - 1)) above, Q approximating log(1 - erf).

Source: the split is that of W. Cody, "Rational Chebyshev approximations for the error function"
(1969); the polynomials are ours.
"""

from __future__ import annotations

from einloom.backends.cpu.elementary import coefficients as c
from einloom.backends.cpu.elementary.arithmetic import Arithmetic
from einloom.backends.cpu.elementary.exponential import plain_exp

# From here on erf rounds to 1, and Q is not fitted further.
_END = {32: 4.0, 64: 6.0}


def erf(a: Arithmetic, x: str) -> str:
    near, far = (
        (c.ERF_NEAR_SINGLE, c.ERF_FAR_SINGLE)
        if a.bits == 32
        else (c.ERF_NEAR_DOUBLE, c.ERF_FAR_DOUBLE)
    )
    end = _END[a.bits]
    inner = a.multiply_add(x, a.polynomial(a.multiply(x, x), near), x)
    size = a.magnitude(x)
    place = a.subtract(a.at_most(size, end), a.number(1.0))
    complement = plain_exp(a, a.polynomial(place, far))
    outer = a.with_sign(a.subtract(a.number(1.0), complement), x)
    return a.select(a.compare("olt", size, 1.0), inner, outer)
