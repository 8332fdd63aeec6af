"""Nesting and denesting of einsums: a producer into its consumer, and back.

Source: Blacher, Staudt, Klaus, Wenig, Merk, Breuer, Engel, Laue, Giesen: The Syntax and Semantics
of einsum, arXiv 2509.20020. An inner einsum may be written into an outer one when the indices that
it folds away occur nowhere outside, its result is read through indices that correspond one to one
to its own or are identified (δ), and the product distributes over its fold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from einloom.ir import extents as ext
from einloom.ir.expressions import Access, Apply, Expression, Index
from einloom.ir.ops import MONOIDS, OPS, is_flat
from einloom.ir.program import Einsum, Reduction, Statement, Target
from einloom.ir.promotion import compute_dtype
from einloom.ir.rewrite.graph import Slot
from einloom.ir.rewrite.indices import (
    fresh_index,
    indices_used,
    plain_left,
    reduced_indices,
    rename,
    substitute,
    without_reduced,
)
from einloom.ir.rewrite.laws import absorbs, distributes, merges, weakest
from einloom.ir.rewrite.parts import parts_of
from einloom.ir.rewrite.patterns import Match
from einloom.ir.rewrite.rule import Edit, StatementRule
from einloom.ir.rewrite.scope import Scope
from einloom.ir.rules.folds import fold_dtype, reaches_all_cells

SOURCE = "arXiv 2509.20020, nesting and denesting of einsum expressions"


# ---- nesting ------------------------------------------------------------------------------


def _single_reads(statement: Statement, scope: Scope) -> Iterator[Match]:
    """Factors of a body (or the body itself) that read an einsum defined earlier."""
    if not isinstance(statement, Einsum):
        return
    body = statement.body
    factors = body.arguments if isinstance(body, Apply) and is_flat(body.op) else (body,)
    for place, factor in enumerate(factors):
        if not isinstance(factor, Access) or factor.view or factor.padding is not None:
            continue
        slot = scope.graph.visible(factor.tensor, scope.slot)
        if slot is None or not isinstance(slot.statement, Einsum):
            continue
        yield {
            "statement": statement,
            "access": factor,
            "place": place,
            "combine": None if factor is body else body.op,  # type: ignore[attr-defined]
            "slot": slot,
            "inner": slot.statement,
        }


def inner_has_one_reader(match: Match, scope: Scope) -> bool:
    """Nobody else reads the inner result, and it is read at one place."""
    name = match["access"].tensor
    if name in scope.graph.outputs or len(scope.graph.readers_of(name)) != 1:
        return False
    statement: Einsum = match["statement"]
    roots = [statement.body, *statement.indices]
    if statement.condition is not None:
        roots.append(statement.condition)
    places = [
        access for root in roots for access in parts_of(root).accesses if access.tensor == name
    ]
    same = isinstance(statement.body, Apply) and statement.body.arguments.count(match["access"]) > 1
    return len(places) == 1 and not same


def inner_is_a_plain_fold(match: Match, scope: Scope) -> bool:
    """The inner einsum has one target, plain distinct indices, no domain, and builtin folds."""
    inner: Einsum = match["inner"]
    return (
        len(inner.targets) == 1
        and plain_left(inner) is not None
        and inner.condition is None
        and len(inner.reductions) <= 1
        and all(
            r.monoid in MONOIDS and not MONOIDS[r.monoid].paired and r.accumulator is None
            for r in inner.reductions
        )
    )


def interface_is_plain(match: Match, scope: Scope) -> bool:
    """The inner result is read at indices: one to one, or identified where one is repeated."""
    return all(isinstance(e, Index) for e in match["access"].indices)


def inner_is_stored_as_computed(match: Match, scope: Scope) -> bool:
    """No conversion takes place between the inner einsum and its reader.

    f16 and bf16 are stored rounded, but computed in f32: leaving out that rounding is no exact law.
    """
    inner: Einsum = match["inner"]
    typing = scope.typing(inner.body)
    stored = scope.graph.types[inner.targets[0].name]
    if typing is None or typing.weak or typing.dtype != stored.dtype or stored.encrypted:
        return False
    if any(r.monoid in ("any", "all") for r in inner.reductions) and str(typing.dtype) != "bool":
        return False
    if compute_dtype(stored.dtype) != stored.dtype and scope.strict:
        return False
    return match["combine"] is None or scope.dtype(match["statement"].body) == stored.dtype


def product_distributes_over_the_fold(match: Match, scope: Scope) -> bool:
    """`c ⊗ ⊕[k] x = ⊕[k] c ⊗ x`, also where k has no iteration."""
    inner: Einsum = match["inner"]
    dtype = scope.dtype(inner.body)
    if dtype is None:
        return False
    if match["combine"] is None or not inner.reductions:
        return True
    monoid = inner.reductions[0].monoid
    if not scope.allows(distributes(match["combine"], monoid, dtype), dtype):
        return False
    if scope.allows(absorbs(match["combine"], monoid, dtype), dtype):
        return True
    extents = match["slot"].extents
    indices = inner.reductions[0].indices
    return all(ext.at_most(ext.constant(1), extents[name]) for name in indices)


def outer_domain_allows_it(match: Match, scope: Scope) -> bool:
    """What the outer domain leaves out holds the identity of the outer fold, not of the inner."""
    statement, inner = match["statement"], match["inner"]
    if reaches_all_cells(statement) or not inner.reductions:
        return True
    monoids = {r.monoid for r in (*statement.reductions, *inner.reductions)}
    return bool(statement.reductions) and len(monoids) == 1


def _nested(match: Match, scope: Scope) -> Edit | None:
    statement: Einsum = match["statement"]
    slot: Slot = match["slot"]
    inner, names = _apart(match["inner"], statement, scope)
    values: dict[str, Expression] = {
        e.name: value
        for e, value in zip(inner.indices, match["access"].indices, strict=True)
        if isinstance(e, Index)
    }
    part = substitute(inner.body, values)
    if match["combine"] is None:
        body: Expression | None = part
    else:
        factors = list(statement.body.arguments)  # type: ignore[attr-defined]
        factors[match["place"]] = part
        body = scope.flat(match["combine"], *factors)
    if body is None:
        return None
    new = replace(
        statement, body=body, reductions=_reductions(statement.reductions, inner, scope, match)
    )
    extents = {names[name]: slot.extents[name] for name in reduced_indices(match["inner"])}
    return Edit((new,), extents, dropped=(slot,))


def _apart(inner: Einsum, outer: Einsum, scope: Scope) -> tuple[Einsum, dict[str, str]]:
    """The inner einsum with its folded indices renamed, so that none occurs outside."""
    taken = {*indices_used(outer), *scope.extents, *indices_used(inner)}
    names: dict[str, str] = {}
    outside = {*indices_used(outer), *scope.extents}
    for name in reduced_indices(inner):
        names[name] = name if name not in outside else fresh_index(name, taken)
        taken.add(names[name])
    changed = {old: new for old, new in names.items() if old != new}
    return (rename(inner, changed) if changed else inner), names


def _reductions(
    outer: tuple[Reduction, ...], inner: Einsum, scope: Scope, match: Match
) -> tuple[Reduction, ...]:
    if not outer or not inner.reductions:
        return (*outer, *inner.reductions)
    last, first = outer[-1], inner.reductions[0]
    dtype = scope.dtype(inner.body)
    same = last.monoid == first.monoid and last.accumulator == first.accumulator
    if same and dtype is not None and scope.allows(merges(last.monoid, dtype), dtype):
        return (*outer[:-1], replace(last, indices=(*last.indices, *first.indices)))
    return (*outer, first)


# ---- denesting ----------------------------------------------------------------------------


def _separable(statement: Statement, scope: Scope) -> Iterator[Match]:
    """Splits of a product: the factors that use some innermost folded index, and the others."""
    if not isinstance(statement, Einsum) or not statement.reductions:
        return
    body, fold = statement.body, statement.reductions[-1]
    if not isinstance(body, Apply) or not is_flat(body.op) or len(statement.targets) != 1:
        return
    uses = [set(parts_of(factor).indices) for factor in body.arguments]
    seen: set[tuple[int, ...]] = set()
    found: list[tuple[float, int, Match]] = []
    for name in fold.indices:
        inside = tuple(k for k, used in enumerate(uses) if name in used)
        if not inside or len(inside) == len(uses) or inside in seen:
            continue
        seen.add(inside)
        rest = [k for k in range(len(uses)) if k not in inside]
        outside = set().union(*(uses[k] for k in rest))
        folded = tuple(
            n for n in fold.indices if n not in outside and any(n in uses[k] for k in inside)
        )
        split: Match = {
            "statement": statement,
            "fold": fold,
            "folded": folded,
            "inner": [body.arguments[k] for k in inside],
            "outer": [body.arguments[k] for k in rest],
            "place": inside[0],
        }
        found.append((_split_cost(split, scope), len(found), split))
    for _, _, best in sorted(found, key=lambda item: item[:2]):
        yield best


def _volume(indices: set[str], scope: Scope) -> float:
    product = 1.0
    for name in indices:
        product *= scope.size(scope.extents[name])
    return product


def _cost_of(factors: list[Expression], op: str, more: int, scope: Scope) -> float:
    """Cost per iteration of a product of factors, folded, with `more` factors that are reads."""

    own = sum(scope.cost(factor) for factor in factors)
    return own + OPS[op].cost * (len(factors) + more)


def _split_cost(split: Match, scope: Scope) -> float:
    op = split["statement"].body.op
    inner = {n for factor in split["inner"] for n in parts_of(factor).indices}
    outer = _all_indices(split["statement"]) - set(split["folded"])
    return _volume(inner, scope) * _cost_of(split["inner"], op, 0, scope) + _volume(
        outer, scope
    ) * _cost_of(split["outer"], op, 1, scope)


def _all_indices(statement: Einsum) -> set[str]:
    return set(indices_used(statement))


def folded_indices_are_absent_outside(match: Match, scope: Scope) -> bool:
    """The inner fold absorbs only indices that no other part of the statement uses."""
    statement: Einsum = match["statement"]
    folded = set(match["folded"])
    others = [*match["outer"], *statement.indices]
    used = {name for part in others for name in parts_of(part).indices}
    return bool(folded) and folded.isdisjoint(used)


def statement_has_no_domain(match: Match, scope: Scope) -> bool:
    """A condition could be what keeps the reads of the inner factors in range.

    Without one, cells are left out only by the left side: they hold the identity of a fold.
    """
    statement: Einsum = match["statement"]
    if statement.condition is not None:
        return False
    folded = set(reduced_indices(statement)) - set(match["folded"])
    return reaches_all_cells(statement) or bool(folded)


def split_distributes(match: Match, scope: Scope) -> bool:
    """The product distributes over the fold, and the identity absorbs or there are iterations."""
    statement: Einsum = match["statement"]
    fold: Reduction = match["fold"]
    dtype = fold_dtype(statement, fold, scope)
    if dtype is None or fold.accumulator is not None or scope.dtype(statement.body) != dtype:
        return False
    combine = statement.body.op  # type: ignore[attr-defined]
    status = weakest(distributes(combine, fold.monoid, dtype), merges(fold.monoid, dtype))
    if not scope.allows(status, dtype):
        return False
    if scope.allows(absorbs(combine, fold.monoid, dtype), dtype):
        return True
    return all(ext.at_most(ext.constant(1), scope.extents[n]) for n in match["folded"])


def inner_is_computed_alike(match: Match, scope: Scope) -> bool:
    """The inner product has the dtype of the whole, and storing it rounds nothing."""
    statement: Einsum = match["statement"]
    whole = scope.dtype(statement.body)
    part = scope.flat(statement.body.op, *match["inner"])  # type: ignore[attr-defined]
    if part is None or whole is None:
        return False
    typing = scope.typing(part)
    return (
        typing is not None
        and typing.dtype == whole
        and not typing.weak
        and compute_dtype(whole) == whole
    )


def split_costs_less(match: Match, scope: Scope) -> bool:
    """Two statements are cheaper than one, by the cost model and the likely extents."""
    statement: Einsum = match["statement"]
    body: Apply = statement.body  # type: ignore[assignment]
    whole = _volume(_all_indices(statement), scope)
    return _split_cost(match, scope) < whole * _cost_of(list(body.arguments), body.op, 0, scope)


def _denested(match: Match, scope: Scope) -> Edit | None:
    statement: Einsum = match["statement"]
    body: Apply = statement.body  # type: ignore[assignment]
    scans = set(scope.slot.region.scans)
    folded = match["folded"]
    interface = [
        name
        for name in dict.fromkeys(n for factor in match["inner"] for n in parts_of(factor).indices)
        if name not in folded and name not in scans
    ]
    part = scope.flat(body.op, *match["inner"])
    name = scope.graph.fresh(f"{statement.targets[0].name}_part")
    plain = tuple(Index(n) for n in interface)
    if part is None:
        return None
    first = Einsum(
        (Target(name),),
        plain,
        part,
        (replace(match["fold"], indices=tuple(folded)),),
        location=statement.location,
    )
    outer = list(match["outer"])
    outer.insert(min(match["place"], len(outer)), Access(name, plain))
    new_body = scope.flat(body.op, *outer)
    reductions = statement.reductions
    for index in folded:
        reductions = without_reduced(replace(statement, reductions=reductions), index)
    if new_body is None:
        return None
    return Edit((first, replace(statement, body=new_body, reductions=reductions)))


NESTING = (
    StatementRule(
        "einsum_with_one_reader_is_nested_into_it",
        "T = sum[k] a*b; U = sum[j] T*c becomes U = sum[j, k] a*b*c",
        ("Einsum",),
        source=SOURCE,
        pattern=_single_reads,
        conditions=(
            inner_has_one_reader,
            inner_is_a_plain_fold,
            interface_is_plain,
            inner_is_stored_as_computed,
            product_distributes_over_the_fold,
            outer_domain_allows_it,
        ),
        replacement=_nested,
    ),
)

DENESTING = (
    StatementRule(
        "product_under_a_fold_is_denested",
        "U = sum[j, k] a*b*c becomes T = sum[k] a*b; U = sum[j] T*c where c does not use k",
        ("Einsum",),
        source=SOURCE,
        pattern=_separable,
        conditions=(
            folded_indices_are_absent_outside,
            statement_has_no_domain,
            split_distributes,
            inner_is_computed_alike,
            split_costs_less,
        ),
        replacement=_denested,
    ),
)
