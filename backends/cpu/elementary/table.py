"""Which functions are generated here, with the largest error that each is allowed.

Bounds are in units in the last place (ulp) of the exact result, the unit of subnormal results
being the smallest subnormal number; 0.5 would be correct rounding. The tests hold them for every
f32 argument of the functions of one argument, on targets with and without fused multiplication.
"""

from __future__ import annotations

from collections.abc import Callable

from einloom.backends.cpu.elementary import (
    error_function,
    exponential,
    inverse,
    logarithm,
    power,
    trigonometric,
)
from einloom.ir.record import record


@record
class Elementary:
    """A generated function: `emit(arithmetic, x)`, or `(arithmetic, x, y)`, gives the result."""

    emit: Callable[..., str]
    ulps: float


SINGLE: dict[str, Elementary] = {
    "exp": Elementary(exponential.exp, 1.0),
    "exp2": Elementary(exponential.exp2, 1.0),
    "expm1": Elementary(exponential.expm1, 2.0),
    "log": Elementary(logarithm.log, 1.0),
    "log2": Elementary(logarithm.log2_single, 0.6),
    "log10": Elementary(logarithm.log10_single, 0.6),
    "log1p": Elementary(logarithm.log1p_single, 0.6),
    "sin": Elementary(trigonometric.sin_single, 0.6),
    "cos": Elementary(trigonometric.cos_single, 0.6),
    "tan": Elementary(trigonometric.tan_single, 0.6),
    "asin": Elementary(inverse.asin_single, 0.6),
    "acos": Elementary(inverse.acos_single, 0.6),
    "atan": Elementary(inverse.atan_single, 0.6),
    "atan2": Elementary(inverse.atan2_single, 0.6),
    "sinh": Elementary(exponential.sinh_single, 0.6),
    "cosh": Elementary(exponential.cosh_single, 0.6),
    "tanh": Elementary(exponential.tanh, 2.0),
    "erf": Elementary(error_function.erf, 1.5),
    "sigmoid": Elementary(exponential.sigmoid, 2.0),
    "pow": Elementary(power.power_single, 0.6),
}
DOUBLE: dict[str, Elementary] = {
    "exp": Elementary(exponential.exp, 1.0),
    "exp2": Elementary(exponential.exp2, 1.0),
    "expm1": Elementary(exponential.expm1, 2.0),
    "log": Elementary(logarithm.log, 1.0),
    "tanh": Elementary(exponential.tanh, 2.0),
    "erf": Elementary(error_function.erf, 1.5),
    "sigmoid": Elementary(exponential.sigmoid, 2.0),
}


def of_bits(bits: int) -> dict[str, Elementary]:
    """The functions of a width of floats; f16 and bf16 are computed as f32."""
    return SINGLE if bits == 32 else DOUBLE
