"""Recognises a contraction of two factors, and which index belongs to which side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from einloom.ir import extents as ext
from einloom.ir.definitions import inline
from einloom.ir.expressions import Access, Apply, Cast, Expression, Index, Literal
from einloom.ir.node import Node, postorder, rebuild
from einloom.ir.ops import apply, is_flat
from einloom.ir.program import Einsum
from einloom.ir.promotion import compute_dtype, numpy_dtype
from einloom.ir.record import record
from einloom.ir.types import FLOAT, SIGNED, UNSIGNED, DType, Scalar
from einloom.ir.typing import Lookup, typing_of

if TYPE_CHECKING:
    from einloom.passes.lowering.nests import Nest

Run = tuple[str, ...]
"""Indices whose cells lie side by side in all tensors, so that one loop serves them all."""


@record
class Factor:
    """One side of a product. `dtype`: of its values when they are computed with."""

    value: Expression
    dtype: Scalar
    runs: tuple[Run, ...]


@record
class Product:
    """`fold[reduced] op(left, right)`: the rows are the left side's own, the columns the right's.

    `converts`: the product is computed in another dtype than that of the accumulators.

    `flipped`: the program has the right factor first. `dtype`: of the accumulators.
    `epilogues`: maps of its cells, computed along with it.
    """

    op: str
    left: Factor
    right: Factor
    flipped: bool
    batch: tuple[Run, ...]
    reduced: tuple[Run, ...]
    dtype: Scalar
    epilogues: tuple[Einsum, ...] = ()
    converts: bool = False

    @property
    def rows(self) -> tuple[Run, ...]:
        return self.left.runs

    @property
    def columns(self) -> tuple[Run, ...]:
        return self.right.runs

    def combined(self, left: Expression, right: Expression) -> Expression:
        """The product of two values, in the order of the program, as it is folded in."""
        product = Apply(self.op, (right, left) if self.flipped else (left, right))
        return Cast(self.dtype, product) if self.converts else product


def product_of(nest: Nest, epilogues: tuple[Einsum, ...] = ()) -> Product | None:
    """The contraction that a nest is, or None where it is something else."""
    found = product_or_reason(nest, epilogues)
    return found if isinstance(found, Product) else None


def product_or_reason(nest: Nest, epilogues: tuple[Einsum, ...] = ()) -> Product | str:
    """The contraction that a nest is, or why it is none that can be packed."""
    statement, context = nest.statement, nest.builder.context
    body = inline(statement.body, context.functions)
    if not _is_plain(nest):
        return "it is not one plain fold of one tensor"
    if not isinstance(body, Apply):
        return "it folds one factor alone"
    dtype = nest.folds()[0].dtypes[0]
    lookup = Lookup(context.inference.tensors, set(), context.functions, context.monoids)
    sides = _sides(nest, body, lookup)
    if sides is None:
        return "its factors do not fall into two sides"
    if not _in_vectors(dtype):
        return f"{dtype} is not computed in vectors"
    left, right = sides
    mapped = [e.name for e in statement.indices if isinstance(e, Index)]
    reduced = [name for r in statement.reductions for name in r.indices]
    in_left, in_right = set(ext.indices_in(left)), set(ext.indices_in(right))
    batch = [name for name in mapped if name in in_left and name in in_right]
    rows = [name for name in mapped if name in in_left and name not in in_right]
    columns = [name for name in mapped if name in in_right and name not in in_left]
    every = len(batch) + len(rows) + len(columns) == len(mapped)
    if not set(reduced) <= in_left & in_right:
        return "it folds an index that one of its sides lacks"
    if not (every and rows and columns):
        return "it has no rows, or no columns: an index of the result that one side alone has"
    flipped = mapped[-1] in rows
    if flipped:
        left, right, rows, columns = right, left, columns, rows
    dtypes = [compute_dtype(typing_of(side, lookup).dtype) for side in (left, right)]
    if not all(_in_vectors(d) for d in dtypes):
        return f"{' and '.join(map(str, dtypes))} are not computed in vectors"
    bodies: list[Expression] = [body]
    accesses = accesses_of(nest, statement, body)
    for epilogue in epilogues:
        bodies.append(inline(epilogue.body, context.functions))
        accesses += accesses_of(nest, epilogue, bodies[-1])
    groups = [runs_of(names, accesses, *bodies) for names in (batch, rows, columns, reduced)]
    left_factor = Factor(left, _scalar(dtypes[0]), groups[1])
    right_factor = Factor(right, _scalar(dtypes[1]), groups[2])
    return Product(
        body.op,
        left_factor,
        right_factor,
        flipped,
        groups[0],
        groups[3],
        _scalar(dtype),
        epilogues,
        compute_dtype(typing_of(body, lookup).dtype) != dtype,
    )


def _is_plain(nest: Nest) -> bool:
    """Whether each cell of one tensor is one fold, at the top of a function."""
    statement = nest.statement
    plain = (
        nest.sliced
        and not nest.place.inside
        and statement.condition is None
        and len(statement.targets) == 1
        and nest.may_block()
        and not nest.fills
    )
    return plain and all(isinstance(e, Index) for e in statement.indices)


def _in_vectors(dtype: DType) -> bool:
    return isinstance(dtype, Scalar) and dtype.kind in (FLOAT, SIGNED, UNSIGNED)


def _scalar(dtype: DType) -> Scalar:
    assert isinstance(dtype, Scalar)
    return dtype


def _sides(nest: Nest, body: Apply, lookup: Lookup) -> tuple[Expression, Expression] | None:
    """The two factors of a body: what shares an index of the result alone belongs together.

    Members of one factor meet in the dtype of the whole, as they do in the program.
    """
    if not is_flat(body.op):
        return (body.arguments[0], body.arguments[1]) if len(body.arguments) == 2 else None
    own = [set(ext.indices_in(argument)) for argument in body.arguments]
    mapped = {e.name for e in nest.statement.indices if isinstance(e, Index)}
    shared = set.intersection(*own)
    groups: list[tuple[set[str], list[Expression]]] = []
    for argument, names in zip(body.arguments, own, strict=True):
        tied = (names & mapped) - shared
        members = [argument]
        for group in [g for g in groups if g[0] & tied]:
            groups.remove(group)
            tied, members = tied | group[0], group[1] + members
        groups.append((tied, members))
    if len(groups) != 2:
        return None
    dtype = typing_of(body, lookup).dtype
    left, right = (_joined(body.op, members, dtype, lookup) for _, members in groups)
    return left, right


def _joined(op: str, members: list[Expression], dtype: DType, lookup: Lookup) -> Expression:
    if len(members) > 1 and typing_of(apply(op, *members), lookup).dtype != dtype:
        members = [Cast(dtype, member) for member in members]
    return apply(op, *members)


def accesses_of(
    nest: Nest, statement: Einsum, body: Expression
) -> list[tuple[Access, tuple[bool, ...]]]:
    """Every access of a statement, and which of its ranks lie in one with the next."""
    reads = [part for part in postorder(body) if isinstance(part, Access)]
    written = Access(statement.targets[0].name, statement.indices)
    return [(access, nest.builder.merged(access.tensor)) for access in (*reads, written)]


def runs_of(
    names: list[str], accesses: list[tuple[Access, tuple[bool, ...]]], *bodies: Expression
) -> tuple[Run, ...]:
    """Indices in order, those that can be one loop together: no body uses their values."""
    elsewhere = {n for body in bodies for n in ext.indices_in(rebuild(body, _without_access))}
    runs: list[Run] = []
    for name in names:
        previous = runs[-1][-1] if runs else None
        alone = previous is None or {name, previous} & elsewhere
        if not alone and all(_adjacent(previous, name, *site) for site in accesses):
            runs[-1] = (*runs[-1], name)
        else:
            runs.append((name,))
    return tuple(runs)


def _without_access(current: Node) -> Node:
    return Literal(0) if isinstance(current, Access) else current


def _adjacent(first: str | None, second: str, access: Access, merged: tuple[bool, ...]) -> bool:
    """Whether an access has both indices side by side in memory, or neither."""
    assert first is not None
    used = [set(ext.indices_in(e)) & {first, second} for e in access.indices]
    touched = [k for k, names in enumerate(used) if names]
    if not touched:
        return True
    if access.view or access.padding is not None or len(touched) != 2:
        return False
    k, following = touched
    expected = (Index(first), Index(second))
    return following == k + 1 and access.indices[k : k + 2] == expected and merged[k]


def element_bytes(dtypes: Iterable[Scalar]) -> int:
    """The widest of some dtypes, in bytes."""
    return max(int(numpy_dtype(dtype).itemsize) for dtype in dtypes)
