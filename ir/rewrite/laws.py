"""Which laws hold on which dtypes: the op table's answer, made precise for machine numbers.

Statuses: "exact" (bit for bit), "ok" (up to rounding, or assuming finite values or integer sums
that do not overflow) and "no".
"""

from __future__ import annotations

from functools import cache
from typing import Literal

from einloom.ir.expressions import Value
from einloom.ir.ops import MONOIDS, OPS
from einloom.ir.record import record
from einloom.ir.types import BOOL, COMPLEX, FLOAT, DType, Modular, Scalar

Status = Literal["exact", "ok", "no"]


@record
class Validity:
    """The status of one law by the kind of the values it is used on.

    `complexes` None: as floats. `integers` covers the signed, the unsigned and the modular ones.
    """

    floats: Status = "exact"
    complexes: Status | None = None
    integers: Status = "exact"
    booleans: Status = "exact"

    def on(self, dtype: DType) -> Status:
        """The status on values of `dtype`; tuples take the weakest."""
        if isinstance(dtype, Scalar):
            match dtype.kind:
                case "float":
                    return self.floats
                case "complex":
                    return self.floats if self.complexes is None else self.complexes
                case "bool":
                    return self.booleans
                case _:
                    return self.integers
        if isinstance(dtype, Modular):
            return self.integers
        return weakest(self.floats, self.integers, self.booleans)


EXACT = Validity()
UP_TO_ROUNDING = Validity(floats="ok")
NEVER = Validity("no", "no", "no", "no")


def weakest(*statuses: Status) -> Status:
    """The status of a conclusion drawn from laws of these statuses."""
    order: tuple[Status, ...] = ("exact", "ok", "no")
    return max(statuses, key=order.index, default="exact")


@cache
def validity(op: str, kind: str, operand: Value | str | None = None) -> Validity:
    """The status of a law of an operation; NEVER where the table does not list it.

    The table speaks of floats as a whole. Corrections, each with its counterexample:
    `(inf + 0j) * (1 + 0j)` has a NaN part; on i8 `127 + max(1, 0)` is -128 but
    `max(127 + 1, 127 + 0)` is 127.
    """
    law = next(
        (
            law
            for law in (OPS[op].laws if op in OPS else ())
            if law.kind == kind and (operand is None or law.operand == operand)
        ),
        None,
    )
    if law is None:
        return NEVER
    floats: Status = "exact" if law.floats == "exact" else "ok" if law.floats == "ok" else "no"
    complexes = floats
    integers: Status = "exact"
    if kind == "identity":
        complexes = "ok"
    if kind == "distributes" and op == "add":
        integers = "ok"
    return Validity(floats, complexes, integers)


def status(op: str, kind: str, dtype: DType, operand: Value | str | None = None) -> Status:
    """The status of a law of an operation on values of `dtype`."""
    return validity(op, kind, operand).on(dtype)


def distributes(combine: str, monoid: str, dtype: DType) -> Status:
    """Whether `combine` may be moved into a fold: `c ⊗ ⊕[k] x = ⊕[k] (c ⊗ x)` for k not in c."""
    if monoid not in MONOIDS or MONOIDS[monoid].paired:
        return "no"
    fold = MONOIDS[monoid].op
    return weakest(
        status(combine, "distributes", dtype, fold),
        status(combine, "commutative", dtype),
        status(combine, "associative", dtype),
    )


def absorbs(combine: str, monoid: str, dtype: DType) -> Status:
    """Whether the identity of the fold absorbs: `c ⊗ identity = identity` for every c.

    It is what makes distributivity hold over an empty rank. In (max, +) the identity is -inf,
    which absorbs all floats but inf; the lowest integer does not absorb.
    """
    if monoid not in MONOIDS:
        return "no"
    if monoid in ("max", "min"):
        if combine in ("max", "min"):
            # The lowest value absorbs under min, which is what distributes over max.
            return "exact" if combine != monoid else "no"
        if combine == "add" and isinstance(dtype, Scalar):
            return {FLOAT: "ok", COMPLEX: "no", BOOL: "no"}.get(dtype.kind, "no")  # type: ignore[return-value]
        return "no"
    return status(combine, "annihilator", dtype, MONOIDS[monoid].identity)


def merges(monoid: str, dtype: DType) -> Status:
    """Whether two adjacent folds with this monoid are one: it is associative and commutative."""
    if monoid not in MONOIDS or MONOIDS[monoid].paired:
        return "no"
    fold = MONOIDS[monoid].op
    return weakest(status(fold, "associative", dtype), status(fold, "commutative", dtype))


def ignores_repeats(monoid: str, dtype: DType) -> bool:
    """Whether folding equal values gives that value: max, min, any, all; a sum of booleans."""
    if monoid not in MONOIDS or MONOIDS[monoid].paired:
        return False
    fold = MONOIDS[monoid].op
    if isinstance(dtype, Scalar) and dtype.kind == BOOL and fold in ("add", "mul"):
        return True
    return status(fold, "idempotent", dtype) == "exact"


def keeps_single(monoid: str, dtype: DType) -> Status:
    """Whether folding one value from the identity gives that value, bit for bit."""
    if monoid not in MONOIDS or MONOIDS[monoid].paired:
        return "no"
    if monoid in ("max", "min"):
        return "exact"
    fold = MONOIDS[monoid].op
    return status(fold, "identity", dtype, MONOIDS[monoid].identity)
