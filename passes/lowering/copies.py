"""Copies of tensors through registers: a square of vectors read along one rank, then transposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from einloom.ir.expressions import Access, Cast, Expression, Index, Local
from einloom.ir.loops import Load, LoopStatement, Transpose, Vector
from einloom.ir.record import record
from einloom.ir.types import COMPLEX, Scalar
from einloom.passes.lowering.function import FunctionBuilder, ProgramContext

MOST_LANES = 16
"""Lanes of a square, at most: its vectors fit the registers of a processor that has 32."""


@record
class Copy:
    """An access to a tensor at plain indices, converted to some dtypes one after the other."""

    access: Access
    casts: tuple[Scalar, ...]


def copy_of(body: Expression, context: ProgramContext) -> Copy | None:
    """The copy that an expression is, if registers hold vectors of all its dtypes."""
    casts: list[Scalar] = []
    while isinstance(body, Cast):
        if not isinstance(body.dtype, Scalar):
            return None
        casts.append(body.dtype)
        body = body.value
    if not isinstance(body, Access) or not is_direct(body, context):
        return None
    dtypes = [*casts, context.type_of(body.tensor).dtype]
    if any(isinstance(dtype, Scalar) and dtype.kind == COMPLEX for dtype in dtypes):
        return None
    return Copy(body, tuple(reversed(casts)))


def is_direct(site: Access, context: ProgramContext) -> bool:
    """Whether an access reads or writes numbers at indices as they are."""
    plain = not site.view and site.padding is None and site.tensor not in context.rings
    dtype = context.type_of(site.tensor).dtype
    return plain and isinstance(dtype, Scalar) and all(isinstance(e, Index) for e in site.indices)


def cell_of(
    indices: tuple[Expression, ...], variables: Mapping[str, Expression]
) -> tuple[Expression, ...]:
    """The cell of an access at plain indices."""
    return tuple(variables[e.name] for e in indices if isinstance(e, Index))


def transposed(
    builder: FunctionBuilder,
    copy: Copy,
    rows: Sequence[Mapping[str, Expression]],
    dtype: Scalar,
    out: list[LoopStatement],
) -> list[Expression]:
    """The columns of a square block in a dtype, as many vectors as there are rows.

    `rows`: the variables of each row's first cell; a row lies along the last rank of the tensor,
    whose stride is one element.
    """
    count = len(rows)
    buffer = builder.buffer(copy.access.tensor)
    loads = tuple(Load(buffer, cell_of(copy.access.indices, row), count) for row in rows)
    names = tuple(builder.fresh("lane") for _ in rows)
    out.append(Transpose(names, loads))
    columns: list[Expression] = []
    for name in names:
        value: Expression = Local(name)
        for cast in (*copy.casts, dtype):
            value = Cast(Vector(cast, count), value)
        columns.append(value)
    return columns
