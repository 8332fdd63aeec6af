"""Dtypes of expressions: one total promotion table and the rules of the op table.

The table is NumPy's where NumPy defines one. bf16 with f16 or with an integer wider than
8 bits gives f32 (NumPy has no bf16). Literals and extents are weak: they only raise the kind.
f16 and bf16 expressions are *computed* in f32 and rounded where they are stored or cast.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, reduce
from typing import Any

import numpy as np

from einloom.ir.errors import DTypeError
from einloom.ir.record import record
from einloom.ir.types import (
    BOOL,
    COMPLEX,
    FLOAT,
    SCALARS,
    DType,
    Modular,
    Quantized,
    Scalar,
    Tuple,
    bf16,
    bool_,
    c64,
    c128,
    f16,
    f32,
    f64,
    i64,
    u64,
)

_NUMPY_NAMES = {
    "bool": "bool", "f16": "float16", "f32": "float32", "f64": "float64",
    "c64": "complex64", "c128": "complex128",
    **{f"i{b}": f"int{b}" for b in (8, 16, 32, 64)},
    **{f"u{b}": f"uint{b}" for b in (8, 16, 32, 64)},
}  # fmt: skip
_FROM_NUMPY = {np.dtype(numpy): name for name, numpy in _NUMPY_NAMES.items()}


@cache
def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """The NumPy dtype in which values of `dtype` are stored."""
    if isinstance(dtype, Modular):
        return np.dtype(np.uint64)
    if isinstance(dtype, Tuple):
        return np.dtype([(f"f{k}", numpy_dtype(item)) for k, item in enumerate(dtype.items)])
    if dtype == bf16:
        import ml_dtypes

        half: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return half
    if isinstance(dtype, Scalar):
        return np.dtype(_NUMPY_NAMES[dtype.name])
    raise DTypeError(f"{dtype} has no NumPy dtype")


@cache
def from_numpy(dtype: np.dtype[Any]) -> DType:
    """The Einloom dtype of a NumPy dtype; DTypeError for one outside the IR."""
    name = _FROM_NUMPY.get(dtype.newbyteorder("="))
    if name is not None:
        return Scalar(name)
    if dtype.name == "bfloat16":
        return bf16
    if dtype.names:
        return Tuple(tuple(from_numpy(dtype[name]) for name in dtype.names))
    if dtype.kind in "iufc":  # C aliases such as longlong
        for candidate, ours in _FROM_NUMPY.items():
            if candidate.kind == dtype.kind and candidate.itemsize == dtype.itemsize:
                return Scalar(ours)
    raise DTypeError(
        f"dtype {dtype} is not supported",
        suggestion=f"convert the operand to one of {', '.join(SCALARS)}",
    )


@record
class Typing:
    """The dtype of an expression, and whether it is weak (a literal or an extent)."""

    dtype: DType
    weak: bool = False


_KIND_ORDER = [BOOL, "integer", FLOAT, COMPLEX]


def _category(dtype: Scalar) -> int:
    return _KIND_ORDER.index("integer" if dtype.is_integer else dtype.kind)


@cache
def promote(a: DType, b: DType) -> DType:
    """The dtype that values of both `a` and `b` are computed in."""
    if a == b:
        return a
    if isinstance(a, Tuple) and isinstance(b, Tuple) and len(a.items) == len(b.items):
        return Tuple(tuple(promote(x, y) for x, y in zip(a.items, b.items, strict=True)))
    if not (isinstance(a, Scalar) and isinstance(b, Scalar)):
        raise DTypeError(
            f"{a} and {b} do not mix", suggestion=f"cast one of them, for example {b}(x)"
        )
    if bf16 not in (a, b):
        return from_numpy(np.result_type(numpy_dtype(a), numpy_dtype(b)))
    other = b if a == bf16 else a
    if other == f16 or (other.is_integer and other.bits > 8):
        return f32
    if other.is_integer or other.kind == BOOL:
        return bf16
    return other


def promote_all(dtypes: Iterable[DType]) -> DType:
    """The dtype that values of all of `dtypes` are computed in, whatever their order.

    Promotion by pairs depends on it: i8 and u16 meet in i32, and with c64 that gives c128, but all
    three fit c64.
    """
    distinct = list(dict.fromkeys(dtypes))
    plain = [d for d in distinct if isinstance(d, Scalar) and d != bf16]
    if len(plain) < 2:
        return reduce(promote, distinct)
    joined: DType = from_numpy(np.result_type(*(numpy_dtype(d) for d in plain)))
    return reduce(promote, [d for d in distinct if d not in plain], joined)


def promote_typings(a: Typing, b: Typing) -> Typing:
    """Promotion with weak values: a weak value raises the kind only, never the width."""
    if a.weak == b.weak:
        return Typing(promote(a.dtype, b.dtype), a.weak)
    strong, weak = (b.dtype, a.dtype) if a.weak else (a.dtype, b.dtype)
    if isinstance(strong, Modular) and isinstance(weak, Scalar) and weak.is_integer:
        return Typing(strong)
    if not (isinstance(strong, Scalar) and isinstance(weak, Scalar)):
        return Typing(promote(strong, weak))
    if _category(weak) <= _category(strong):
        return Typing(strong)
    if weak.kind == COMPLEX and strong.kind == FLOAT:
        return Typing(c128 if strong == f64 else c64)
    return Typing(promote(strong, weak) if strong.kind != BOOL else weak)


def compute_dtype(dtype: DType) -> DType:
    """The dtype that arithmetic on `dtype` runs in: f32 for f16 and bf16, else itself."""
    return f32 if dtype in (f16, bf16) else dtype


def float_of(dtype: DType) -> Scalar:
    """The floating dtype of a transcendental function of `dtype` (integers give NumPy's)."""
    if isinstance(dtype, Scalar):
        if dtype.kind in (FLOAT, COMPLEX):
            return dtype
        return f16 if dtype.bits <= 8 else f32 if dtype.bits == 16 else f64
    raise DTypeError(f"a floating function does not take {dtype}")


def value_typing(value: bool | int | float | complex) -> Typing:
    """The weak typing of a literal."""
    if isinstance(value, bool):
        return Typing(bool_, weak=True)
    if isinstance(value, int):
        return Typing(i64 if -(2**63) <= value < 2**63 else u64, weak=True)
    return Typing(f64 if isinstance(value, float) else c128, weak=True)


def op_typing(op: str, rule: str, arguments: list[Typing]) -> Typing:
    """The typing of an operation's result, by the rule that the op table names.

    Raises DTypeError where the operation does not take the dtypes.
    """
    if rule == "stored":
        return Typing(bool_)
    if rule == "select":
        return promote_typings(arguments[1], arguments[2])
    joined = arguments[0]
    for argument in arguments[1:]:
        joined = promote_typings(joined, argument)
    dtype = joined.dtype
    if isinstance(dtype, Tuple):
        raise DTypeError(f"{op} does not take a tuple", suggestion="take its components: x.0, x.1")
    if isinstance(dtype, Modular):
        if rule in ("arithmetic", "no-bool"):
            return joined
        if rule == "compare":
            return Typing(bool_)
        raise DTypeError(f"{op} does not take {dtype}")
    assert isinstance(dtype, Scalar), "quantized tensors are read as their real value"
    kind = dtype.kind
    if rule in _REFUSED and kind in _REFUSED[rule]:
        raise DTypeError(f"{op} does not take {dtype}")
    match rule:
        case "compare" | "order" | "logical" | "class":
            return Typing(bool_, joined.weak)
        case "divide" if kind not in (FLOAT, COMPLEX):
            return Typing(f64, joined.weak)
        case "float" | "real-float":
            return Typing(float_of(dtype), joined.weak)
        case "magnitude" | "component" if kind == COMPLEX:
            return Typing(f32 if dtype == c64 else f64, joined.weak)
    return joined


_REFUSED: dict[str, tuple[str, ...]] = {
    "no-bool": (BOOL,),
    "no-complex": (BOOL, COMPLEX),
    "power": (BOOL,),
    "ordered": (COMPLEX,),
    "order": (COMPLEX,),
    "real-float": (COMPLEX,),
    "rounding": (COMPLEX,),
    "bitwise": (FLOAT, COMPLEX),
    "shift": (BOOL, FLOAT, COMPLEX),
}


def value_dtype(dtype: DType) -> DType:
    """The dtype that a read of a tensor of `dtype` yields: f32 for a quantized one."""
    return f32 if isinstance(dtype, Quantized) else dtype
