"""`einsum`: a spec and operands in, native code run on them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from einloom.cache import plan_cache
from einloom.einsum_build import build_plan
from einloom.einsum_plan import MISALIGNED
from einloom.einsum_request import Request, read_request
from einloom.frontend.einsum.operands import parse_operands
from einloom.ir.errors import DTypeError
from einloom.ir.promotion import Typing, numpy_dtype, promote, promote_typings, value_typing
from einloom.operands import PLAIN, ir_dtype, output_array, read_operands
from einloom.options import current

Array = np.ndarray[Any, Any]
_ndarray = np.ndarray
_plans = plan_cache()


def einsum(
    *arguments: Any,
    out: Any = None,
    dtype: Any = None,
    order: str | None = "K",
    casting: str = "safe",
    precision: str | None = None,
    semiring: Any = None,
    optimize: Any = "auto",
    memory_limit: int | str | None = None,
    target: str = "cpu",
) -> Any:
    """Einstein summation, compiled: `einsum(spec, *operands)` or `einsum(a, [0, 1], b, [1, 2])`.

    The spec is `numpy.einsum`'s, and more: labels repeated in the output (`"i->ii"`), any number
    of labels, names (`"batch row inner, inner col -> batch row col"`), size-1 broadcasting.

    `out`, `dtype`, `order`, `casting` mean what they mean in NumPy; `out` is written only when the
    call succeeds. `optimize`: True, False, a path finder's name, or a path from `einsum_path`.
    `semiring`: a name, `"min,+"`, or a `Semiring`. `memory_limit`: elements that an intermediate
    may have, or `"max_input"`. `precision`: all of `"highest"`, `"high"` and `"medium"` compute at
    highest. Python numbers take the dtype of the arrays that they meet.

    Returns a NumPy array (a scalar for no ranks; a view where nothing is computed), or an array of
    the operands' own library when they share one. Raises ParseError and ShapeError (ValueErrors),
    DTypeError (a TypeError), UnsupportedError.

    >>> einsum("ij,jk->ik", np.ones((2, 3)), np.ones((3, 2)))
    array([[3., 3.],
           [3., 3.]])
    """
    key: list[Any] = [
        dtype, order, casting, precision, semiring, optimize, memory_limit, target,
        current().strict,
    ]  # fmt: skip
    if arguments and type(arguments[0]) is str:
        call = [*key, arguments[0]]
        for value in arguments[1:]:
            if type(value) is not _ndarray:
                break
            call += (value.dtype, value.shape, value.strides)
        else:
            if out is not None and type(out) is _ndarray:
                call += (out.dtype, out.shape, out.strides)
            try:
                plan = _plans.get(tuple(call)) if out is None or type(out) is _ndarray else None
            except TypeError:  # an option that does not hash
                plan = None
            if plan is not None and (out is None or out.flags.writeable):
                result = plan.run(arguments[1:], out)
                if result is not MISALIGNED:
                    return result
    return _general(arguments, out, key)
