"""Statements that are computed on the block of a product while it is in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from einloom.ir.expressions import Access, Index
from einloom.ir.infer import EinsumTyping
from einloom.ir.node import Node, postorder, rebuild
from einloom.ir.program import Einsum, Statement
from einloom.ir.record import record
from einloom.ir.types import Tuple
from einloom.passes.lowering.function import ProgramContext
from einloom.passes.lowering.products.blocking import Blocking


@record
class Segment:
    """Statements of a kernel that run together.

    `is_product`: the first is a packed contraction, and the others are maps of its cells, whose
    indices have the names of the contraction's.
    """

    statements: tuple[Einsum, ...]
    is_product: bool

    @property
    def tensors(self) -> tuple[str, ...]:
        return tuple(target.name for s in self.statements for target in s.targets)


def segments_of(statements: Sequence[Einsum], context: ProgramContext) -> list[Segment]:
    """The statements of a kernel, cut before each packed contraction and after its maps."""
    found: list[Segment] = []
    for statement in statements:
        is_product = isinstance(context.blockings.get(statement.targets[0].name), Blocking)
        last = found[-1] if found else None
        if is_product or last is None:
            found.append(Segment((statement,), is_product))
            continue
        joined: Einsum | None = statement
        if last.is_product:
            joined = renamed_epilogue(last.statements, statement, context)
        if joined is None:
            found.append(Segment((statement,), False))
        else:
            found[-1] = Segment((*last.statements, joined), last.is_product)
    return found


def renamed_epilogue(
    product: Sequence[Einsum], statement: Einsum, context: ProgramContext
) -> Einsum | None:
    """A map of the cells of a product with the product's index names; None if it is not one."""
    plain = (
        not statement.reductions
        and statement.condition is None
        and len(statement.targets) == 1
        and not isinstance(context.type_of(statement.targets[0].name).dtype, Tuple)
        and all(isinstance(e, Index) for e in statement.indices)
        and len(set(statement.indices)) == len(statement.indices)
    )
    if not plain:
        return None
    known = {s.targets[0].name: s.indices for s in product}
    own = context.inference.einsums[statement].own_indices()
    names: dict[str, str] = {}
    for access in (part for part in postorder(statement.body) if isinstance(part, Access)):
        if access.tensor not in known:
            continue
        if access.view or access.padding is not None:
            return None
        for ours, theirs in zip(access.indices, known[access.tensor], strict=True):
            assert isinstance(theirs, Index)
            if (
                not isinstance(ours, Index)
                or names.setdefault(ours.name, theirs.name) != theirs.name
            ):
                return None
    whole = len(set(names.values())) == len(names) == len(product[0].indices)
    if not whole or set(own) != set(names):
        return None
    return rebuild(statement, lambda node: _renamed(node, names))


def _renamed(current: Node, names: dict[str, str]) -> Node:
    return Index(names[current.name]) if isinstance(current, Index) else current


def epilogue_typing(
    statement: Einsum, product: EinsumTyping, context: ProgramContext
) -> EinsumTyping:
    """The typing of a renamed map: its indices have the extents of the product's."""
    dtypes = tuple(context.type_of(target.name).dtype for target in statement.targets)
    extents = {e.name: product.extents[e.name] for e in statement.indices if isinstance(e, Index)}
    return replace(product, extents=extents, dtypes=dtypes)


def read_outside(
    segment: Segment, others: Sequence[Statement], outputs: Sequence[str]
) -> list[str]:
    """The tensors of a segment that something else needs."""
    reads = {p.tensor for s in others for p in postorder(s) if isinstance(p, Access)}
    return [name for name in segment.tensors if name in outputs or name in reads]
