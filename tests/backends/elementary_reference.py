"""What the tests of the elementary functions share: kernels, references in float64, errors in ulp.

The references are NumPy's functions of float64, whose errors are below 2^-50 and so count for
nothing in f32, and the C library's erf of Python. For f64 they are NumPy's of long double.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from einloom.backends.cpu.target import Target, baseline, host
from einloom.ir.expressions import Apply, Literal, Local, Symbol
from einloom.ir.loops import Buffer, For, Load, LoopFunction, Store
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import Scalar

Array = np.ndarray[Any, Any]
Function = Callable[..., Array]

PI = np.longdouble("3.14159265358979323846264338327950288")


def targets() -> dict[str, Target]:
    """This machine, and what is left of it without some instructions."""
    here = host()
    if here.architecture != "x86_64":
        return {"host": here}
    long_vectors = [name for name in here.features if name.startswith(("avx512", "avx10"))]
    return {
        "host": here,
        "without AVX-512": here.without(*long_vectors),
        "without fused multiplication": here.without(*long_vectors, "fma", "fma4"),
        "SSE2": baseline(here.triple),
    }


def function_of(op: str, dtype: Scalar, arity: int = 1) -> LoopFunction:
    """`for i < n: R[i] = op(X0[i], ...)` over contiguous vectors."""
    size = numpy_dtype(dtype).itemsize
    buffers = [Buffer(f"X{k}", dtype, (size,)) for k in range(arity)]
    value = Apply(op, tuple(Load(f"X{k}", (Local("i"),)) for k in range(arity)))
    loop = For("i", Literal(0), Symbol("n"), (Store("R", (Local("i"),), value),))
    return LoopFunction(op, (*buffers, Buffer("R", dtype, (size,), "out")), ("n",), (loop,))


def evaluated(kernels: Any, op: str, *arrays: Array) -> Array:
    """What a kernel made by `function_of` gives."""
    result = np.empty_like(arrays[0])
    assert kernels(op, [*arrays, result], [result.size]) == 0
    return result


# ---- references ---------------------------------------------------------------------------


def erf_of_doubles(x: Array) -> Array:
    """math.erf where it bends, its series near 0, 1 beyond 6."""
    size = np.abs(x)
    result = np.where(size < 1, 2 / math.sqrt(math.pi) * (x - x**3 / 3 + x**5 / 10), np.sign(x))
    bent = (size > 2.0**-9) & (size < 6)
    result[bent] = np.fromiter(map(math.erf, x[bent].tolist()), np.float64)
    return np.asarray(np.copysign(np.where(np.isnan(x), x, result), x))


def erf_of_long_doubles(x: Array) -> Array:
    """Kummer's series, whose terms are all positive."""
    size = np.minimum(np.abs(x), 7)
    term = size.copy()
    total = size.copy()
    for k in range(220):
        term = term * (2 * size * size / (2 * k + 3))
        total += term
    return np.asarray(np.copysign(2 / np.sqrt(PI) * np.exp(-size * size) * total, x))


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


REFERENCES: dict[str, Function] = {
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "erf": erf_of_doubles,
    "sigmoid": sigmoid,
    "pow": np.power,
}


def reference(op: str, *arrays: Array) -> Array:
    """The result for f32 arguments, as float64."""
    with np.errstate(all="ignore"):
        return REFERENCES[op](*(array.astype(np.float64) for array in arrays))


def errors(found: Array, exact: Array) -> Array:
    """How far results are from exact ones, in units in the last place of the latter.

    Infinity counts as the power of two behind the largest number. A NaN against a number, and a
    zero of the wrong sign, are infinitely wrong.
    """
    traits = np.finfo(found.dtype)
    end = exact.dtype.type(2) ** traits.maxexp
    with np.errstate(over="ignore"):
        coarse = exact.astype(np.float64)
    # The power of two at or below a double is what its exponent bits alone stand for.
    power = (coarse.view(np.int64) & (0x7FF << 52)).view(np.float64)
    unit = np.clip(power, float(traits.smallest_normal), 2.0 ** (traits.maxexp - 1)) * traits.eps
    with np.errstate(all="ignore"):
        difference = np.clip(found.astype(exact.dtype), -end, end) - np.clip(exact, -end, end)
        result = np.abs(difference / unit.astype(exact.dtype)).astype(np.float64)
    wrong = np.isnan(found) != np.isnan(exact)
    wrong |= (coarse == 0) & (np.signbit(found) != np.signbit(exact))
    result[np.isnan(found) & np.isnan(exact)] = 0
    result[wrong] = np.inf
    return np.asarray(result)


def worst(op: str, arrays: tuple[Array, ...], found: Array, exact: Array) -> tuple[float, str]:
    """The largest error and a sentence that says where it is."""
    distances = errors(found, exact)
    place = int(np.argmax(distances))
    arguments = ", ".join(repr(array[place]) for array in arrays)
    error = float(distances[place])
    return error, f"{op}({arguments}) is {found[place]!r}, {error:.4f} ulp from {exact[place]!r}"


# ---- samples ------------------------------------------------------------------------------

# Where functions of f32 end, bend, or change their code's branch.
PLACES = (
    *(0.0, 1.0, 2.0**-126, 3.4028235e38, float("inf"), float("nan"), 0.5, 2.0, 4.0, 6.0),
    *(88.72284, 87.33655, 103.97208, 89.0, 104.0, 128.0, 126.0, 149.0, 150.0, 151.0),
    *(0.34657359, 17.32868, 20.0, 10.0, 0.55, 9.010913, 16.635532, 3.919206, 89.415985),
    *(2.0**-25, 2.0**-24, 2.0**-18, 2.0**-10, 0.70710678, 1.41421356, 10.0, 1000.0),
    *(math.pi / 4, math.pi / 2, math.pi, 2 * math.pi, 22 * math.pi / 7, 1e5, 2.0**23, 1e22),
)


def bit_patterns(count: int, start: int = 0, step: int = 1) -> Array:
    """f32 numbers whose bits are `start`, `start + step`, ..."""
    bits = np.arange(start, start + count * step, step, dtype=np.uint64)
    return bits.astype(np.uint32).view(np.float32)


def surroundings(reach: int = 300) -> Array:
    """All f32 near the places above, of both signs."""
    bits = np.array(PLACES, np.float32).view(np.uint32).astype(np.int64)
    near = (bits[:, None] + np.arange(-reach, reach + 1)).clip(0, 0x7FFFFFFF).ravel()
    return np.concatenate([near, near | 1 << 31]).astype(np.uint32).view(np.float32)
