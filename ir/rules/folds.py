"""Conditions on statements that fold: when an index or a whole reduction may be taken away."""

from __future__ import annotations

from dataclasses import replace

from einloom.ir.ops import MONOIDS
from einloom.ir.program import Einsum, Reduction
from einloom.ir.rewrite.indices import plain_left, without_reduced
from einloom.ir.rewrite.laws import keeps_single
from einloom.ir.rewrite.parts import parts_of
from einloom.ir.rewrite.patterns import Match
from einloom.ir.rewrite.scope import Scope
from einloom.ir.types import BOOL, DType, Modular, Scalar


def reduction_of(statement: Einsum, index: str) -> Reduction:
    """The reduction that folds an index."""
    return next(r for r in statement.reductions if index in r.indices)


def fold_dtype(statement: Einsum, reduction: Reduction, scope: Scope) -> DType | None:
    """The dtype that a reduction folds, by the rules of the language; None for tuples."""
    dtype = scope.dtype(statement.body)
    for inner in reversed(statement.reductions):
        if inner.accumulator is not None:
            dtype = inner.accumulator
        elif inner.monoid in ("any", "all"):
            dtype = Scalar("bool")
        if inner is reduction:
            break
    return dtype if isinstance(dtype, Scalar | Modular) else None


def has_no_accumulator_of_its_own(match: Match, scope: Scope) -> bool:
    """The fold runs in the dtype of what it folds, so leaving it out converts nothing."""
    statement: Einsum = match["statement"]
    reduction = reduction_of(statement, match["index"])
    if reduction.monoid not in MONOIDS or MONOIDS[reduction.monoid].paired:
        return False
    dtype = scope.dtype(statement.body)
    if reduction.monoid in ("any", "all"):
        return isinstance(dtype, Scalar) and dtype.kind == BOOL
    return reduction.accumulator is None


def keeps_one_value(match: Match, scope: Scope) -> bool:
    """Folding a single value gives that value."""
    statement: Einsum = match["statement"]
    reduction = reduction_of(statement, match["index"])
    dtype = fold_dtype(statement, reduction, scope)
    return dtype is not None and scope.allows(keeps_single(reduction.monoid, dtype), dtype)


def reaches_all_cells(statement: Einsum) -> bool:
    """Whether every cell of the result certainly has an iteration of the outer indices.

    A condition may leave cells out, and so do left sides such as `T[i, i]` and `T[i + 1]`.
    """
    return statement.condition is None and plain_left(statement) is not None


def unreached_cells_stay(match: Match, scope: Scope) -> bool:
    """A cell that no iteration reaches holds the same identity as before.

    Without its last index a reduction is gone, and with it the identity that it puts into such
    cells: a map puts the fill value there.
    """
    statement: Einsum = match["statement"]
    after = replace(statement, condition=match.get("condition", statement.condition))
    if reaches_all_cells(after) or len(reduction_of(statement, match["index"]).indices) > 1:
        return True
    left = without_reduced(statement, match["index"])
    monoids = {r.monoid for r in statement.reductions}
    return bool(left) and len(monoids) == 1


def left_side_does_not_use_it(match: Match, scope: Scope) -> bool:
    """The index takes no part in choosing the cell that is written."""
    statement: Einsum = match["statement"]
    return all(match["index"] not in parts_of(e).indices for e in statement.indices)


def without_index(statement: Einsum, index: str) -> Einsum:
    """A statement that no longer folds an index it does not use."""
    return replace(statement, reductions=without_reduced(statement, index))
