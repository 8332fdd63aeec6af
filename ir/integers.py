"""Operations of extents on Python integers. It imports little: launching kernels needs it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from einloom.ir.errors import ShapeError, UnsupportedError

INTEGER_OPS: dict[str, Callable[..., int]] = {
    "floordiv": lambda a, b: a // b,
    "ceildiv": lambda a, b: -(-a // b),
    "mod": lambda a, b: a % b,
    "max": max,
    "min": min,
}


def integer_op(op: str, values: Sequence[int]) -> int:
    """An operation of extents on integers. Raises ShapeError on a division by zero."""
    match op:
        case "add":
            return sum(values)
        case "sub":
            return values[0] - values[1]
        case "neg":
            return -values[0]
        case "mul":
            return math.prod(values)
    if op not in INTEGER_OPS:
        raise UnsupportedError(f"an extent cannot use {op}")
    if op in ("floordiv", "ceildiv", "mod") and values[1] == 0:
        raise ShapeError("an extent divides by zero")
    return INTEGER_OPS[op](*values)
