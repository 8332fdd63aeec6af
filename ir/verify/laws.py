"""The laws that a monoid of the text declares, tested on samples.

The verifier refuses a law that a sample contradicts, so that passes may use those that are
declared. Samples of floats are small dyadic numbers. Infinities and NaN are left out, among the
results too, as for every law marked `float-ok`. Results are compared up to rounding: few samples
may lose digits by cancellation, so that only gross or frequent differences count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einloom.ir.definitions import combine
from einloom.ir.errors import Diagnostic, ParseError
from einloom.ir.expressions import Access, Expression, Index, Symbol
from einloom.ir.program import Einsum, Function, Input, Module, Monoid, Target
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import BOOL, COMPLEX, FLOAT, DType, Modular, Rank, Scalar, TensorType, Tuple
from einloom.ir.verify.complaints import Complaint
from einloom.ir.verify.definitions import monoid_problems
from einloom.ir.verify.parts import Parts

Array = NDArray[Any]
Flags = NDArray[np.bool_]

# the gap between 1 and the next number
_UNITS = {"f16": 2.0**-10, "bf16": 2.0**-7, "f32": 2.0**-23, "f64": 2.0**-52}
_UNITS |= {"c64": _UNITS["f32"], "c128": _UNITS["f64"]}

ROUNDING = 64  # units in the last place that most samples may differ by
SIMPLE = (1, 2, 0, -1, 3)
GROSS = 2.0**-8  # a relative difference that is no rounding


def check_laws(
    monoid: Monoid, functions: Iterable[Function] = (), samples: int = 64, seed: int = 0
) -> list[Diagnostic]:
    """Complaints about the declared laws of a monoid, each with a counterexample.

    `functions` are the definitions that the monoid uses. An empty result says that `samples`
    random samples agree, which is no proof.
    """
    where = monoid.laws_location or monoid.location
    return [
        Diagnostic(message, where, f"take {law} out of its laws, or correct combine")
        for law, message in _broken(monoid, tuple(functions), samples, seed)
    ]


@lru_cache(maxsize=256)
def _broken(
    monoid: Monoid, functions: tuple[Function, ...], samples: int, seed: int
) -> tuple[tuple[str, str], ...]:
    """The laws that do not hold, each with a counterexample. Kept, because every pass is followed
    by the verifier."""
    random = np.random.default_rng(seed)
    values = {name: _samples(monoid.dtype, samples, k, random) for k, name in enumerate("abc")}
    laws = [law for law in dict.fromkeys(monoid.laws) if law in _SIDES]
    sides = _evaluated(monoid, laws, functions, values)
    found = ((law, _counterexample(monoid, law, sides[law], values)) for law in laws)
    return tuple((law, message) for law, message in found if message is not None)


def declared_laws_hold(parts: Parts) -> Iterator[Complaint]:
    """No sample contradicts a law that a monoid declares."""
    functions = tuple(parts.functions.values())
    for monoid in parts.monoids.values():
        if monoid.laws and not any(monoid_problems(monoid, parts)):
            for diagnostic in check_laws(monoid, functions):
                yield ParseError, diagnostic


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


def _evaluated(
    monoid: Monoid, laws: Sequence[str], functions: tuple[Function, ...], values: dict[str, Array]
) -> dict[str, list[Array]]:
    """The sides of each law on the samples, by a program that computes them all."""
    from einloom.ir.interpret import interpret

    index, ranks = Index("n"), (Rank("n", Symbol("N")),)
    type_ = TensorType(monoid.dtype, ranks)
    reads = [Access(name, (index,)) for name in values]
    body, names = [], {}
    for law in laws:
        names[law] = [f"{law}{k}" for k in range(len(_SIDES[law][0]))]
        sides = _SIDES[law][1](monoid, *reads)
        body += [
            Einsum((Target(name, type_),), (index,), side)
            for name, side in zip(names[law], sides, strict=True)
        ]
    outputs = tuple(name for law in laws for name in names[law])
    inputs = tuple(Input(name, type_) for name in values)
    results = interpret(Module("laws", inputs, outputs, tuple(body), functions), values)
    return {law: [np.asarray(results[name]) for name in names[law]] for law in laws}


def _counterexample(
    monoid: Monoid, law: str, sides: list[Array], values: dict[str, Array]
) -> str | None:
    """A sample on which the sides of a law differ, in words."""
    shown, name = _SIDES[law][0], monoid.name
    first, *others = sides
    for text, other in zip(shown[1:], others, strict=True):
        k = _difference(monoid.dtype, first, other)
        if k is not None:
            used = [variable for variable in values if any(variable in side for side in shown)]
            where = ", ".join(f"{variable} = {_text(values[variable][k])}" for variable in used)
            left, right = (side.replace("m(", f"{name}(") for side in (shown[0], text))
            is_none = law == "identity"
            claim = f"the identity of {name} is none" if is_none else f"{name} is not {law}"
            return f"{claim}: {left} is {_text(first[k])}, {right} is {_text(other[k])} for {where}"
    return None


def _text(value: Any) -> str:
    if getattr(value, "dtype", None) is not None and value.dtype.names:
        return f"({', '.join(_text(value[name]) for name in value.dtype.names)})"
    return str(value)


def _samples(
    dtype: DType, count: int, variable: int, random: np.random.Generator, is_small: bool = False
) -> Array:
    """Values of one variable: simple ones first, which make readable counterexamples, then random
    ones. `is_small`: integers are small; they count what floats beside them are about."""
    if isinstance(dtype, Tuple):
        result = np.empty(count, numpy_dtype(dtype))
        floats = any(isinstance(x, Scalar) and x.kind in (FLOAT, COMPLEX) for x in dtype.items)
        for k, item in enumerate(dtype.items):
            # components differ, as variables do
            part = _samples(item, count, variable + k, random, is_small or floats)
            result[f"f{k}"] = part
        return result
    if isinstance(dtype, Modular):
        values = random.integers(0, dtype.modulus, count, np.uint64)
    else:
        assert isinstance(dtype, Scalar)
        values = _random(dtype, count, random, is_small)
    known = min(len(SIMPLE) ** 2, count)
    first, second = np.divmod(np.arange(known), len(SIMPLE))
    turn = (second, first, 2 * second + first + 1)[variable % 3] % len(SIMPLE)
    signed = values.dtype.kind != "u" and values.dtype.kind != "b"
    simple = np.array(SIMPLE if signed else [abs(x) for x in SIMPLE])
    values[:known] = (simple % 2 if values.dtype.kind == "b" else simple)[turn]
    if isinstance(dtype, Modular):
        values %= np.uint64(dtype.modulus)
    return values


def _random(dtype: Scalar, count: int, random: np.random.Generator, is_small: bool) -> Array:
    stored = numpy_dtype(dtype)
    if dtype.kind == BOOL:
        return random.integers(0, 2, count).astype(stored)
    if dtype.is_integer:
        # small values meet ties, large ones wrap
        limits = np.iinfo(stored)
        wide = random.integers(limits.min, limits.max, count, stored, endpoint=True)
        small = random.integers(max(-4, int(limits.min)), 5, count).astype(stored)
        return small if is_small else np.where(random.integers(0, 2, count) == 1, wide, small)
    values = random.integers(-16, 17, count) / 8
    if dtype.kind == COMPLEX:
        return (values + 1j * random.integers(-16, 17, count) / 8).astype(stored)
    return values.astype(stored)


def _difference(dtype: DType, left: Array, right: Array) -> int | None:
    """The first sample where two sides of a law differ by more than rounding explains."""
    gross, fine, defined = _compared(dtype, left, right)
    wrong = gross & defined
    if not wrong.any() and 2 * np.count_nonzero(fine & defined) > np.count_nonzero(defined):
        wrong = fine & defined
    return int(np.argmax(wrong)) if wrong.any() else None


def _compared(dtype: DType, left: Array, right: Array) -> tuple[Flags, Flags, Flags]:
    """Per sample: a gross difference, one beyond rounding, and whether both sides are finite."""
    if isinstance(dtype, Tuple):
        gross, fine = np.zeros(left.shape, bool), np.zeros(left.shape, bool)
        defined = np.ones(left.shape, bool)
        for k, item in enumerate(dtype.items):
            found = _compared(item, left[f"f{k}"], right[f"f{k}"])
            gross, fine, defined = gross | found[0], fine | found[1], defined & found[2]
        return gross, fine, defined
    if not (isinstance(dtype, Scalar) and dtype.kind in (FLOAT, COMPLEX)):
        differ = np.asarray(left != right, bool)
        return differ, differ, np.ones(left.shape, bool)
    wide = np.complex128 if dtype.kind == COMPLEX else np.float64
    a, b = left.astype(wide), right.astype(wide)
    defined = np.isfinite(a) & np.isfinite(b)
    a, b = np.where(defined, a, 0), np.where(defined, b, 0)
    distance = np.abs(a - b) / np.maximum(np.maximum(np.abs(a), np.abs(b)), 1)
    unit = ROUNDING * _UNITS[dtype.name]
    return distance > max(GROSS, unit), distance > unit, defined
