"""Folds: merged, over unused indices, over ranks of extent one and of extent zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from einloom.ir import extents as ext
from einloom.ir.expressions import Apply, Cast, Expression, Literal, Symbol
from einloom.ir.ops import MONOIDS
from einloom.ir.program import Einsum, Statement
from einloom.ir.promotion import Typing
from einloom.ir.rewrite.indices import reduced_indices, roots_of, substitute_statement
from einloom.ir.rewrite.laws import ignores_repeats, merges, status
from einloom.ir.rewrite.parts import parts_of
from einloom.ir.rewrite.patterns import Match
from einloom.ir.rewrite.rule import Edit, StatementRule
from einloom.ir.rewrite.scope import Scope
from einloom.ir.rewrite.values import constant, converted, highest, lowest
from einloom.ir.rules.casts import is_whole
from einloom.ir.rules.folds import (
    fold_dtype,
    has_no_accumulator_of_its_own,
    keeps_one_value,
    left_side_does_not_use_it,
    reaches_all_cells,
    reduction_of,
    unreached_cells_stay,
    without_index,
)
from einloom.ir.types import BOOL, Scalar


def is_empty(extent: Expression) -> bool:
    """Whether an extent is zero for certain."""
    return ext.equal(extent, Literal(0)) is True


def is_nonempty(extent: Expression) -> bool:
    """Whether an extent is at least one for certain."""
    return ext.at_most(Literal(1), extent)


# ---- one monoid, one reduction ------------------------------------------------------------


def _adjacent(statement: Statement, scope: Scope) -> Iterator[Match]:
    if isinstance(statement, Einsum):
        for place in range(len(statement.reductions) - 1):
            outer, inner = statement.reductions[place : place + 2]
            if outer.monoid == inner.monoid and outer.accumulator == inner.accumulator:
                yield {"statement": statement, "place": place, "outer": outer, "inner": inner}


def monoid_reorders(match: Match, scope: Scope) -> bool:
    """The fold is associative and commutative on its dtype."""
    dtype = fold_dtype(match["statement"], match["inner"], scope)
    return dtype is not None and scope.allows(merges(match["inner"].monoid, dtype), dtype)


def _merged(match: Match, scope: Scope) -> Edit:
    statement: Einsum = match["statement"]
    outer, inner, place = match["outer"], match["inner"], match["place"]
    one = replace(outer, indices=(*outer.indices, *inner.indices))
    reductions = (*statement.reductions[:place], one, *statement.reductions[place + 2 :])
    return Edit((replace(statement, reductions=reductions),))


# ---- unused indices -----------------------------------------------------------------------


def _unused(statement: Statement, scope: Scope) -> list[str]:
    if not isinstance(statement, Einsum) or not statement.reductions:
        return []
    used = {name for root in roots_of(statement) for name in parts_of(root).indices}
    return [name for name in reduced_indices(statement) if name not in used]


def _unused_and_idempotent(statement: Statement, scope: Scope) -> Iterator[Match]:
    for name in _unused(statement, scope):
        assert isinstance(statement, Einsum)
        reduction = reduction_of(statement, name)
        dtype = fold_dtype(statement, reduction, scope)
        if dtype is not None and ignores_repeats(reduction.monoid, dtype):
            yield {"statement": statement, "index": name}


def index_has_iterations(match: Match, scope: Scope) -> bool:
    """The extent of the index is at least one: over nothing a fold gives its identity."""
    return is_nonempty(scope.extents[match["index"]])


def _unused_in(monoid: str) -> Callable[[Statement, Scope], Iterator[Match]]:
    def pattern(statement: Statement, scope: Scope) -> Iterator[Match]:
        for name in _unused(statement, scope):
            assert isinstance(statement, Einsum)
            dtype = scope.dtype(statement.body)
            innermost = statement.reductions[-1]
            number = isinstance(dtype, Scalar) and dtype.kind != BOOL
            if number and innermost.monoid == monoid and name in innermost.indices:
                yield {"statement": statement, "index": name}

    return pattern


def repeats_are_multiples(match: Match, scope: Scope) -> bool:
    """n equal values sum to n times the value: on floats up to rounding, and for finite ones."""
    statement: Einsum = match["statement"]
    dtype = fold_dtype(statement, reduction_of(statement, match["index"]), scope)
    op = MONOIDS[reduction_of(statement, match["index"]).monoid].op
    return dtype is not None and scope.allows(status(op, "associative", dtype), dtype)


def _times_extent(match: Match, scope: Scope) -> Edit | None:
    statement: Einsum = match["statement"]
    extent = ext.simplify(scope.extents[match["index"]])
    dtype = scope.dtype(statement.body)
    if isinstance(extent, Literal) and is_whole(dtype) and dtype is not None:
        # Sums wrap, so the number of terms counts modulo the range; a literal has to fit.
        number = converted(extent.value, dtype)
        if number is None:
            return None
        extent = Literal(number)
    elif is_whole(dtype) and dtype is not None and not isinstance(extent, Symbol):
        extent = Cast(dtype, extent)  # whole, so that the numbers in it need not fit
    body = scope.flat("mul", statement.body, extent)
    return None if body is None else _repeated(match, body, scope)


def exponent_is_exact(match: Match, scope: Scope) -> bool:
    """The extent is no other number in the dtype of the power, where integers would wrap."""
    statement: Einsum = match["statement"]
    extent = ext.simplify(scope.extents[match["index"]])
    dtype = scope.dtype(statement.body)
    if dtype is None or not is_whole(dtype):
        return True
    return isinstance(extent, Literal) and converted(extent.value, dtype) == extent.value


def _to_the_extent(match: Match, scope: Scope) -> Edit | None:
    statement: Einsum = match["statement"]
    extent = ext.simplify(scope.extents[match["index"]])
    return _repeated(match, Apply("pow", (statement.body, extent)), scope)


def _repeated(match: Match, body: Expression, scope: Scope) -> Edit | None:
    statement: Einsum = match["statement"]
    if not scope.same_typing(statement.body, body):
        return None
    return Edit((replace(without_index(statement, match["index"]), body=body),))


# ---- extents one and zero -----------------------------------------------------------------


def _of_extent_one(statement: Statement, scope: Scope) -> Iterator[Match]:
    if isinstance(statement, Einsum):
        for name in reduced_indices(statement):
            if ext.equal(scope.extents[name], Literal(1)) is True:
                yield {"statement": statement, "index": name}


def _at_zero(match: Match, scope: Scope) -> Edit:
    return Edit((substitute_statement(match["statement"], {match["index"]: Literal(0)}),))


def _over_nothing(statement: Statement, scope: Scope) -> Iterator[Match]:
    if not isinstance(statement, Einsum) or len({r.monoid for r in statement.reductions}) != 1:
        return
    empty = any(is_empty(scope.extents[name]) for name in reduced_indices(statement))
    reduction = statement.reductions[0]
    dtype = fold_dtype(statement, reduction, scope)
    if not empty or reduction.monoid not in MONOIDS or MONOIDS[reduction.monoid].paired:
        return
    ends = {"lowest": lowest, "highest": highest}
    identity = MONOIDS[reduction.monoid].identity
    if dtype is None:
        return
    value = ends[identity](dtype) if isinstance(identity, str) else identity
    typing = scope.typing(statement.body)
    weak = typing is not None and typing.weak and typing.dtype == dtype
    body = None if value is None else constant(value, Typing(dtype, weak))
    if body is not None:
        yield {"statement": statement, "body": body}


def all_cells_become_reached(match: Match, scope: Scope) -> bool:
    """The map of identities reaches every cell; what it left out would hold the fill value."""
    return reaches_all_cells(replace(match["statement"], condition=None))


def _identity(match: Match, scope: Scope) -> Edit:
    return Edit((replace(match["statement"], body=match["body"], reductions=(), condition=None),))


def rules() -> Iterator[StatementRule]:
    """The rules of this topic."""
    yield StatementRule(
        "fold_over_nothing_is_its_identity",
        "sum[k] f(k) = 0 where k has extent 0",
        ("Einsum",),
        source="the language reference, reductions",
        pattern=_over_nothing,
        conditions=(all_cells_become_reached,),
        replacement=_identity,
    )
    yield StatementRule(
        "adjacent_folds_with_one_monoid_merge",
        "sum[i] sum[j] f = sum[i, j] f",
        ("Einsum",),
        pattern=_adjacent,
        conditions=(monoid_reorders,),
        replacement=_merged,
    )
    yield StatementRule(
        "fold_over_one_value_is_that_value",
        "sum[k] f(k) = f(0) where k has extent 1",
        ("Einsum",),
        pattern=_of_extent_one,
        conditions=(
            has_no_accumulator_of_its_own,
            left_side_does_not_use_it,
            keeps_one_value,
            unreached_cells_stay,
        ),
        replacement=_at_zero,
    )
    yield StatementRule(
        "idempotent_fold_over_an_unused_index_is_dropped",
        "max[k] f = f where f does not use k and k has an iteration",
        ("Einsum",),
        pattern=_unused_and_idempotent,
        conditions=(index_has_iterations, has_no_accumulator_of_its_own, unreached_cells_stay),
        replacement=lambda match, scope: Edit((without_index(match["statement"], match["index"]),)),
    )
    yield StatementRule(
        "sum_over_an_unused_index_multiplies",
        "sum[k] f = f * N where f does not use k of extent N",
        ("Einsum",),
        pattern=_unused_in("sum"),
        conditions=(has_no_accumulator_of_its_own, repeats_are_multiples, unreached_cells_stay),
        replacement=_times_extent,
    )
    yield StatementRule(
        "product_over_an_unused_index_is_a_power",
        "prod[k] f = f ** N where f does not use k of extent N",
        ("Einsum",),
        pattern=_unused_in("prod"),
        conditions=(
            has_no_accumulator_of_its_own,
            repeats_are_multiples,
            unreached_cells_stay,
            exponent_is_exact,
        ),
        replacement=_to_the_extent,
    )


REDUCTIONS = tuple(rules())
