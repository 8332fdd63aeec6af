"""The laws that a monoid of the text declares, tested on samples.

A pass may use a declared law only after `check_laws` has found no counterexample. Samples of
floats are small dyadic numbers, so that sums and products of a few are exact, and results are
compared up to rounding; infinities and NaN are left out, as for every law marked `float-ok`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einloom.ir.definitions import combine
from einloom.ir.errors import Diagnostic
from einloom.ir.expressions import Access, Expression, Index, Symbol
from einloom.ir.program import Einsum, Function, Input, Module, Monoid, Target
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import BOOL, COMPLEX, FLOAT, DType, Modular, Rank, Scalar, TensorType, Tuple

Array = NDArray[Any]

# the gap between 1 and the next number
_UNITS = {"f16": 2.0**-10, "bf16": 2.0**-7, "f32": 2.0**-23, "f64": 2.0**-52}
_UNITS |= {"c64": _UNITS["f32"], "c128": _UNITS["f64"]}

ROUNDING = 64  # units in the last place that two sides of a law may differ by


def check_laws(
    monoid: Monoid, functions: Iterable[Function] = (), samples: int = 64, seed: int = 0
) -> list[Diagnostic]:
    """Complaints about the declared laws of a monoid, each with a counterexample.

    `functions` are the definitions that the monoid uses. An empty result says that `samples`
    random samples agree, which is no proof.
    """
    random = np.random.default_rng(seed)
    values = {name: _sample(monoid.dtype, samples, random) for name in "abc"}
    return [
        found
        for law in dict.fromkeys(monoid.laws)
        if law in _SIDES and (found := _check(monoid, law, tuple(functions), values)) is not None
    ]


def _associative(m: Monoid, a: Expression, b: Expression, c: Expression) -> tuple[Expression, ...]:
    return combine(m, combine(m, a, b), c), combine(m, a, combine(m, b, c))


def _commutative(m: Monoid, a: Expression, b: Expression, c: Expression) -> tuple[Expression, ...]:
    return combine(m, a, b), combine(m, b, a)


def _idempotent(m: Monoid, a: Expression, b: Expression, c: Expression) -> tuple[Expression, ...]:
    return combine(m, a, a), a


def _identity(m: Monoid, a: Expression, b: Expression, c: Expression) -> tuple[Expression, ...]:
    return combine(m, m.identity, a), combine(m, a, m.identity), a


_SIDES = {
    # the sides that must agree: what they read like, and the expressions
    "associative": (("m(m(a, b), c)", "m(a, m(b, c))"), _associative),
    "commutative": (("m(a, b)", "m(b, a)"), _commutative),
    "idempotent": (("m(a, a)", "a"), _idempotent),
    "identity": (("m(identity, a)", "m(a, identity)", "a"), _identity),
}


def _check(
    monoid: Monoid, law: str, functions: tuple[Function, ...], values: dict[str, Array]
) -> Diagnostic | None:
    from einloom.ir.interpret import interpret

    shown, sides = _SIDES[law]
    index, count = Index("n"), Symbol("N")
    ranks = (Rank("n", count),)
    reads = [Access(name, (index,)) for name in values]
    targets = [f"side{k}" for k in range(len(shown))]
    body = tuple(
        Einsum((Target(name, TensorType(monoid.dtype, ranks)),), (index,), side)
        for name, side in zip(targets, sides(monoid, *reads), strict=True)
    )
    inputs = tuple(Input(name, TensorType(monoid.dtype, ranks)) for name in values)
    module = Module("laws", inputs, tuple(targets), body, functions)
    results = interpret(module, values)
    first, *others = (np.asarray(results[name]) for name in targets)
    for text, other in zip(shown[1:], others, strict=True):
        wrong = ~_agree(monoid.dtype, first, other)
        if wrong.any():
            k = int(np.argmax(wrong))
            used = [name for name in values if any(name in side for side in shown)]
            where = ", ".join(f"{name} = {_text(values[name][k])}" for name in used)
            left, right = (side.replace("m(", f"{monoid.name}(") for side in (shown[0], text))
            name = monoid.name
            claim = (
                f"the identity of {name} is none" if law == "identity" else f"{name} is not {law}"
            )
            return Diagnostic(
                f"{claim}: {left} is {_text(first[k])}, {right} is {_text(other[k])} for {where}",
                monoid.location,
                f"take {law} out of its laws, or correct combine",
            )
    return None


def _text(value: Any) -> str:
    if getattr(value, "dtype", None) is not None and value.dtype.names:
        return f"({', '.join(_text(value[name]) for name in value.dtype.names)})"
    return str(value)


def _sample(dtype: DType, samples: int, random: np.random.Generator) -> Array:
    if isinstance(dtype, Tuple):
        result = np.empty(samples, numpy_dtype(dtype))
        for k, item in enumerate(dtype.items):
            result[f"f{k}"] = _sample(item, samples, random)
        return result
    if isinstance(dtype, Modular):
        return random.integers(0, dtype.modulus, samples, np.uint64)
    assert isinstance(dtype, Scalar)
    stored = numpy_dtype(dtype)
    if dtype.kind == BOOL:
        return random.integers(0, 2, samples).astype(stored)
    if dtype.is_integer:
        # small values meet ties, large ones wrap
        limits = np.iinfo(stored)
        wide = random.integers(limits.min, limits.max, samples, stored, endpoint=True)
        small = random.integers(max(-4, int(limits.min)), 5, samples).astype(stored)
        return np.where(random.integers(0, 2, samples) == 1, wide, small)
    values = random.integers(-16, 17, samples) / 8
    if dtype.kind == COMPLEX:
        return (values + 1j * random.integers(-16, 17, samples) / 8).astype(stored)
    return values.astype(stored)


def _agree(dtype: DType, left: Array, right: Array) -> NDArray[np.bool_]:
    if isinstance(dtype, Tuple):
        agree = np.ones(left.shape, bool)
        for k, item in enumerate(dtype.items):
            agree &= _agree(item, left[f"f{k}"], right[f"f{k}"])
        return agree
    if not (isinstance(dtype, Scalar) and dtype.kind in (FLOAT, COMPLEX)):
        return np.asarray(left == right, bool)
    unit = _UNITS[dtype.name]
    wide = np.complex128 if dtype.kind == COMPLEX else np.float64
    a, b = left.astype(wide), right.astype(wide)
    scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), 1)
    close = np.abs(a - b) <= ROUNDING * unit * scale
    return np.asarray(close | (a == b) | (np.isnan(a) & np.isnan(b)), bool)
