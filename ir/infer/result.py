"""What inference finds: types of tensors, extents of indices, equalities to check at entry."""

from __future__ import annotations

from collections.abc import Mapping

from einloom.ir.errors import Location
from einloom.ir.expressions import Expression, Symbol
from einloom.ir.program import Einsum, Scan
from einloom.ir.record import record
from einloom.ir.types import DType, TensorType

UNKNOWN = Symbol("?")  # the extent of a scan state that is not settled yet


@record
class Equality:
    """Two extents that must agree at entry, and what to say when they do not."""

    left: Expression
    right: Expression
    message: str
    location: Location | None


@record
class EinsumTyping:
    """What is known of one einsum statement.

    `extents`: of its own indices and of the enclosing scans' indices. `scans`: the latter's
    names. `dtypes`: what its targets store. `computed`: the dtypes of the fold (per nested
    reduction from the innermost out, the first being the body's).
    """

    extents: Mapping[str, Expression]
    scans: tuple[str, ...]
    dtypes: tuple[DType, ...]

    def own_indices(self) -> list[str]:
        return [name for name in self.extents if name not in self.scans]


@record
class Inference:
    """Types of all tensors, typings of all einsum statements, checks for entry."""

    tensors: Mapping[str, TensorType]
    einsums: Mapping[Einsum, EinsumTyping]
    checks: tuple[Equality, ...]
    states: Mapping[str, Scan]
    symbols: tuple[str, ...]


class Unresolved(Exception):
    """A statement could not be typed; its complaint is recorded already."""
