"""Choosing the loop order of one einsum: which index runs innermost, and why."""

from __future__ import annotations

from einloom.ir import extents as ext
from einloom.ir.definitions import inline
from einloom.ir.expressions import Access, Expression, Index, Literal
from einloom.ir.infer import EinsumTyping
from einloom.ir.node import postorder
from einloom.ir.ops import MONOIDS
from einloom.ir.program import Einsum
from einloom.ir.promotion import numpy_dtype
from einloom.ir.record import record
from einloom.ir.types import Quantized, Tuple
from einloom.passes.lowering.function import ProgramContext


@record
class LoopOrder:
    """`outer` loops over result indices, `reduced` over reduced ones; `inner` is the last loop.

    `blocked`: the inner loop runs over a result index inside the reductions, so that a block
    of accumulators is kept. `reason` is for `explain`.
    """

    outer: tuple[str, ...]
    reduced: tuple[str, ...]
    inner: str | None
    blocked: bool
    reason: str


def plain_indices(statement: Einsum, typing: EinsumTyping) -> list[str]:
    """Own indices that stand alone on the left side, in order, without repetition."""
    own = set(typing.own_indices())
    names = [e.name for e in statement.indices if isinstance(e, Index) and e.name in own]
    return list(dict.fromkeys(names))


def mapped_indices(statement: Einsum, typing: EinsumTyping) -> list[str]:
    """Own indices that are not reduced: plain ones first, then those of scattered writes."""
    reduced = {name for r in statement.reductions for name in r.indices}
    plain = plain_indices(statement, typing)
    return plain + [n for n in typing.own_indices() if n not in reduced and n not in plain]


def choose_order(
    statement: Einsum, typing: EinsumTyping, context: ProgramContext, may_block: bool
) -> LoopOrder:
    """The loop order with the fewest strided accesses in the innermost loop.

    Ties go to a reduced index when it alone is contiguous everywhere, then to the last
    index of the result. `may_block` says whether accumulators for a block may be kept.
    """
    mapped = mapped_indices(statement, typing)
    reduced = [name for r in statement.reductions for name in r.indices]
    last = list(statement.reductions[-1].indices) if statement.reductions else []
    exchangeable = is_exchangeable(statement, context)
    candidates = list(reversed(mapped)) if may_block or not reduced else []
    candidates += list(reversed(reduced if exchangeable else last))
    if not candidates:
        return LoopOrder((), (), None, False, "a single value")
    strided = {name: _strided_accesses(name, statement, context) for name in candidates}
    constant = {name: _constant(typing.extents[name]) for name in candidates}
    inner = min(
        candidates,
        key=lambda name: (constant[name] == 1, strided[name], candidates.index(name)),
    )
    reason = f"{inner} is innermost: {strided[inner]} strided accesses" + (
        f" (others: {', '.join(f'{n} {c}' for n, c in strided.items() if n != inner)})"
        if len(candidates) > 1
        else ""
    )
    blocked = bool(reduced) and inner in mapped
    outer = tuple(name for name in mapped if not (name == inner and (blocked or not reduced)))
    if inner in reduced and exchangeable:
        reduced = [name for name in reduced if name != inner] + [inner]
    return LoopOrder(outer, tuple(reduced), inner, blocked, reason)


def is_exchangeable(statement: Einsum, context: ProgramContext) -> bool:
    """Whether the reductions fold with one monoid in one dtype, whose laws leave the order free.

    argmax takes the first of ties, and `strict` keeps the written order.
    """
    kinds = {(r.monoid, r.accumulator) for r in statement.reductions}
    if len(kinds) != 1 or context.strict:
        return False
    name = statement.reductions[0].monoid
    definition = context.monoids.get(name)
    if definition is not None:
        return {"associative", "commutative"} <= set(definition.laws)
    return not MONOIDS[name].paired


def _constant(extent: Expression) -> int | None:
    extent = ext.simplify(extent)
    return int(extent.value.real) if isinstance(extent, Literal) else None


def _strided_accesses(name: str, statement: Einsum, context: ProgramContext) -> int:
    """How many accesses, the result included, move by more than one element with an index."""
    count = 0
    body = inline(statement.body, context.functions)
    reads = {part for part in postorder(body) if isinstance(part, Access)}
    sites = [
        (a.tensor, a.indices if a.view != "final" else (Literal(0), *a.indices)) for a in reads
    ]
    sites += [(target.name, statement.indices) for target in statement.targets]
    for tensor, indices in sites:
        moving = any(name in ext.indices_in(e) for e in indices)
        if moving and not moves_by_one(tensor, indices, name, context):
            count += 1
    return count


def moves_by_one(
    tensor: str, indices: tuple[Expression, ...], name: str, context: ProgramContext
) -> bool:
    """Whether an access goes to the next element of memory when an index that it uses grows."""
    strides = _strides(tensor, context)
    moving = [k for k, e in enumerate(indices) if name in ext.indices_in(e)]
    if len(moving) != 1 or strides[moving[0]] != _element(tensor, context):
        return False
    return ext.polynomial(indices[moving[0]]).get((Index(name),)) == 1


def _element(tensor: str, context: ProgramContext) -> int:
    dtype = context.type_of(tensor).dtype
    if isinstance(dtype, Tuple | Quantized):
        return 0
    return int(numpy_dtype(dtype).itemsize)


def _strides(tensor: str, context: ProgramContext) -> tuple[int | None, ...]:
    known = context.layouts.get(tensor)
    if known is not None:
        return known.strides
    rank = len(context.type_of(tensor).ranks)
    return (None,) * (rank - 1) + (_element(tensor, context),) * (rank > 0)
