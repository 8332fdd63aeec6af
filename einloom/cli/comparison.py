"""Whether results agree with the interpreter's: exactly for exact dtypes, else by tolerance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from einloom.ir.record import record
from einloom.report import Cell, Table

if TYPE_CHECKING:
    from einloom.ir.program import Module

Array = np.ndarray[Any, Any]

ROUNDINGS = 4
"""Units in the last place that one operation may add: reordering, fused multiply-add, and a
mathematical function that is not correctly rounded."""


@record
class Difference:
    """One result against its reference; `tolerance` 0 asks for equality."""

    name: str
    error: float
    tolerance: float
    place: tuple[int, ...] | None

    @property
    def agrees(self) -> bool:
        return self.error <= self.tolerance

    def __str__(self) -> str:
        where = f" at {list(self.place)}" if self.place else ""
        return f"{self.name} differs by {self.error:.3g}{where}; tolerance {self.tolerance:.3g}"


@record
class Roundings:
    """How many rounded operations may lie behind one number of a program's results."""

    steps: int
    statements: int
    coarsest: float

    def relative(self, epsilon: float) -> float:
        """Relative tolerance for a result whose dtype has this machine epsilon.

        Sums of f16 and bf16 run in f32, so that only storing them rounds coarsely.
        """
        fine = min(epsilon, float(np.finfo(np.float32).eps))
        return ROUNDINGS * (self.steps * fine + self.statements * max(self.coarsest, epsilon))


def roundings(module: Module, sizes: Mapping[str, int]) -> Roundings:
    """Count the reductions and the iterations of scans; what is reduced in a row adds up."""
    from einloom.ir.binding import size_of
    from einloom.ir.infer import infer
    from einloom.ir.promotion import numpy_dtype
    from einloom.ir.types import Quantized, Tuple

    inference = infer(module)
    steps = 1
    for statement, typing in inference.einsums.items():
        reduced = [name for r in statement.reductions for name in r.indices]
        names = [*reduced, *typing.scans]
        steps += prod(max(1, size_of(typing.extents[name], sizes)) for name in names)
    coarsest = 0.0
    for type_ in inference.tensors.values():
        dtypes = type_.dtype.items if isinstance(type_.dtype, Tuple) else (type_.dtype,)
        for dtype in dtypes:
            if not isinstance(dtype, Quantized):
                coarsest = max(coarsest, _epsilon(numpy_dtype(dtype)))
    return Roundings(steps, len(inference.einsums), coarsest)


def compare(
    results: Mapping[str, Array],
    references: Mapping[str, Array],
    counted: Roundings,
    scale_of_inputs: float = 1.0,
) -> list[Difference]:
    """Each result against its reference.

    A float may be off by the tolerance relative to the largest number of its tensor; where all
    of them cancel, relative to the inputs, but to no more than 1.
    """
    found = []
    for name, result in results.items():
        parts = zip(_components(name, result), _components(name, references[name]), strict=True)
        for (label, ours), (_, theirs) in parts:
            found.append(_difference(label, ours, theirs, counted, min(1.0, scale_of_inputs)))
    return found


def largest(arrays: Mapping[str, Any]) -> float:
    """The largest finite magnitude in arrays of floats; 1 where there are none."""
    found = [0.0]
    for array in arrays.values():
        for _, part in _components("", np.asarray(array) if np.isscalar(array) else array):
            if isinstance(part, np.ndarray) and _epsilon(part.dtype) and part.size:
                found.append(_magnitude(_wide(part)))
    return max(found) or 1.0


def _difference(
    name: str, ours: Array, theirs: Array, counted: Roundings, floor: float
) -> Difference:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return Difference(name, float("inf"), 0.0, None)
    if not ours.size:
        return Difference(name, 0.0, 0.0, None)
    epsilon = _epsilon(ours.dtype)
    if epsilon:
        a, b = _wide(ours), _wide(theirs)
        with np.errstate(all="ignore"):
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            errors = np.where(same, 0.0, np.abs(a - b))
        # infinite against finite, or NaN against a number
        errors = np.where(np.isfinite(errors), errors, np.inf)
        tolerance = counted.relative(epsilon) * max(_magnitude(b), floor)
    else:
        unequal = ours != theirs
        distance = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
        errors = np.where(unequal, np.maximum(distance, 1.0), 0.0)
        tolerance = 0.0
    place = tuple(int(k) for k in np.unravel_index(int(np.argmax(errors)), errors.shape))
    return Difference(name, float(errors[place]), tolerance, place)


def _components(name: str, array: Any) -> Iterator[tuple[str, Any]]:
    """An array, or the fields of a structured one: `V.0`, `V.1`."""
    names = getattr(getattr(array, "dtype", None), "names", None)
    if not names:
        yield name, array
        return
    for k, field in enumerate(names):
        yield from _components(f"{name}.{k}", array[field])


def _epsilon(dtype: np.dtype[Any]) -> float:
    """Machine epsilon of a float or complex dtype, 0 for an exact one."""
    if dtype.kind in "fc":
        return float(np.finfo(dtype).eps)
    if dtype.name == "bfloat16":
        return 2.0**-7
    return 0.0


def _wide(array: Array) -> Array:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _magnitude(array: Array) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0


def comparison_table(differences: list[Difference]) -> Table:
    """One row per result."""
    rows: list[tuple[Cell, ...]] = [
        (
            d.name,
            f"{d.error:.3g}",
            f"{d.tolerance:.3g}",
            "yes" if d.agrees else f"NO, at {list(d.place or ())}",
        )
        for d in differences
    ]
    columns = ("result", "max error", "tolerance", "agrees")
    return Table("compared with the interpreter", columns, tuple(rows), numbers=(1, 2))
