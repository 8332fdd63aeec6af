"""Calls that the entry is to know, and what it gives for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import einloom as el
from einloom.calls.native import RUNS, native_calls, usual_options

Array = np.ndarray[Any, Any]
USUAL = usual_options(el.einsum)


def at_once(spec: str, *operands: Array, out: Array | None = None) -> Any:
    """What the entry gives, or `MISSED`."""
    return native_calls().einsum((spec, *operands), out, *USUAL)


def learned(spec: str, *operands: Array, out: Array | None = None) -> Any:
    """Call often enough for the entry to know the call. Returns the first result, by Python."""
    first = el.einsum(spec, *operands, out=out)
    kept = first if out is None else out.copy()
    for _ in range(RUNS):
        el.einsum(spec, *operands, out=out)
    return kept


def same(one: Any, other: Any) -> bool:
    """Type, dtype, shape, strides and bits."""
    if type(one) is not type(other) or one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool(one.strides == other.strides and one.tobytes() == other.tobytes())


def known_results(exe: el.Executable, *operands: Any, out: Any = None) -> Any:
    """What the entry gives for a call of an executable, or `MISSED`."""
    return native_calls().executable(exe._repeated.table, operands, out)


def outcome(call: Callable[[], Any]) -> tuple[Any, ...]:
    """What a call gives, in a form that compares."""
    try:
        result = call()
    except Exception as error:
        return type(error), str(error)
    array = np.asarray(result)
    return type(result), array.dtype, array.shape, array.tobytes()
