"""`einsum`: a spec and operands in, native code run on them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

import numpy as np

from einloom.backends.cpu.addresses import address_of
from einloom.backends.cpu.entry.known import MISSED
from einloom.cache import plan_cache
from einloom.calls.build import build_plan
from einloom.calls.native import Remembered, native_calls, usual_options
from einloom.calls.operands import (
    PLAIN,
    Library,
    in_native_order,
    output_array,
    read_operands,
    typed_operands,
)
from einloom.calls.plan import MISALIGNED, DiagonalPlan, Plan, ViewPlan
from einloom.calls.request import Request, read_request
from einloom.frontend.einsum.operands import parse_operands
from einloom.frontend.einsum.spec import Spec
from einloom.ir.record import record
from einloom.options import current

Array = np.ndarray[Any, Any]
_ndarray = np.ndarray
_plans = plan_cache()
_native = native_calls()


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
    may have, or `"max_input"`. `precision`: `"medium"` lets factors of f32 be rounded to bf16,
    `"highest"` and `"high"` compute in f32. Python numbers take the dtype of the arrays that they
    meet.

    Returns a NumPy array (a scalar for no ranks; a view where nothing is computed), or an array of
    the operands' own library when they share one. Raises ParseError and ShapeError (ValueErrors),
    DTypeError (a TypeError), UnsupportedError.

    >>> einsum("ij,jk->ik", np.ones((2, 3)), np.ones((3, 2)))
    array([[3., 3.],
           [3., 3.]])
    """
    known = _native.einsum(
        arguments, out, dtype, order, casting, precision, semiring, optimize, memory_limit, target
    )
    if known is not MISSED:
        return known
    if type(optimize) is list:  # a path, as `einsum_path` returns it; a tuple can be part of a key
        optimize = tuple(optimize)
    options = (
        dtype, order, casting, precision, semiring, optimize, memory_limit, target,
        current().strict, current().precision, out is None,
    )  # fmt: skip
    quick = _quick(arguments, out, options)
    if quick is not None:
        key, arrays = quick
        try:
            remembered: Remembered | None = _plans.get(key)
        except TypeError:  # an option or a label that does not hash
            quick = remembered = None
        if remembered is not None:
            result = remembered.plan.run(arrays, out)
            if result is not MISALIGNED:
                remembered.ran(arrays, out)
                return result
    request = read_request(
        dtype=dtype,
        order=order,
        casting=casting,
        precision=current().precision if precision is None else precision,
        semiring=semiring,
        optimize=optimize,
        memory_limit=memory_limit,
        target=target,
        strict=current().strict,
    )
    call = read_call(arguments, request)
    plan, result = call.run(out, request)
    if quick is not None and all(map(is_, quick[1], call.arrays)):
        usual = type(arguments[0]) is str and all(map(is_, options, _USUAL))
        spec = arguments[0] if usual else None
        _plans.get_or_build(quick[0], lambda: Remembered(plan, spec))
    return result


_USUAL = usual_options(einsum)


def _quick(
    arguments: Sequence[Any], out: Any, options: tuple[Any, ...]
) -> tuple[tuple[Any, ...], Sequence[Array]] | None:
    """The key under which a call of plain arrays is known, and the arrays; None for other calls."""
    if out is not None and (type(out) is not _ndarray or not out.flags.writeable):
        return None
    arrays: Sequence[Any]
    if arguments and type(arguments[0]) is str:
        key = [*options, arguments[0]]
        arrays = arguments[1:]
    else:
        pairs = len(arguments) // 2
        arrays = arguments[0 : 2 * pairs : 2]
        lists = (*arguments[1 : 2 * pairs : 2], *arguments[2 * pairs :])
        if not all(type(labels) is list or type(labels) is tuple for labels in lists):
            return None
        key = [*options, *map(tuple, lists)]
    for array in arrays:
        if type(array) is not _ndarray:
            return None
        key += (array.dtype, array.shape, array.strides)
    if out is not None:
        key += (out.dtype, out.shape, out.strides)
    return tuple(key), arrays


@record
class Call:
    """What was called.

    `arrays`: the operands as exact NumPy arrays of dtypes of the IR, in native byte order.
    `given`: the same before their byte order was changed.
    """

    spec: Spec
    given: tuple[Array, ...]
    arrays: tuple[Array, ...]
    library: Library | None

    def run(self, out: Any, request: Request) -> tuple[Plan, Any]:
        """The plan, and what it gives for these operands."""
        memory = None if out is None else output_array(out)
        parts: list[Any] = ["call", request, self.spec, memory is None]
        for array in (*self.arrays, memory):
            if array is not None:
                aligned = not address_of(array) & (array.dtype.alignment - 1)
                parts += (array.dtype, array.shape, array.strides, aligned)
        plan: Plan = _plans.get_or_build(
            tuple(parts), lambda: build_plan(self.spec, self.arrays, memory, request)
        )
        arrays = self.arrays
        if isinstance(plan, ViewPlan | DiagonalPlan):
            arrays = self.given  # a view keeps the byte order
        result = plan.run(arrays, memory)
        assert result is not MISALIGNED, "the key tells aligned arrays apart"
        if out is not None:
            return plan, out
        return plan, result if self.library is None else self.library.wrap(result)


def read_call(arguments: Sequence[Any], request: Request) -> Call:
    """The spec and the operands of a call, in either form, operands converted where they must be.

    Raises ParseError, ShapeError, DTypeError or UnsupportedError.
    """
    places = range(1, len(arguments))
    if not arguments or not isinstance(arguments[0], str | bytes):
        places = range(0, len(arguments) // 2 * 2, 2)
    given = [arguments[place] for place in places]
    read = read_operands(given)
    changed = list(arguments)
    for place, value in zip(places, read.values, strict=True):
        changed[place] = value
    spec, values = parse_operands(changed)
    weak = [type(value) in PLAIN for value in given]
    typed = typed_operands(values, weak, request.dtype, request.casting)
    native = tuple(map(in_native_order, typed))
    return Call(spec, typed, native, read.library)
