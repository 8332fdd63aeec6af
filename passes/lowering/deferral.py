"""Operations that are the same for all terms of a fold: done once, after it."""

from __future__ import annotations

from collections.abc import Sequence

from einloom.ir import extents as ext
from einloom.ir.definitions import inline
from einloom.ir.expressions import Apply, Expression, Literal
from einloom.ir.infer import EinsumTyping
from einloom.ir.ops import MONOIDS, OPS, apply
from einloom.ir.program import Einsum
from einloom.ir.promotion import Typing, compute_dtype
from einloom.ir.record import record
from einloom.ir.types import FLOAT, DType, Scalar
from einloom.passes.lowering.function import ProgramContext


@record
class Deferral:
    """`sum[k] x / c` as `(sum[k] x) / c`: the terms, the operation and its second operand.

    `turns`: how many terms there are, an expression of symbols; of none the operation is not done,
    as the fold's identity is the result.
    """

    terms: Expression
    op: str
    operand: Expression
    turns: Expression

    def may_be_empty(self) -> bool:
        turns = ext.simplify(self.turns)
        return not isinstance(turns, Literal) or turns == Literal(0)


def deferral_of(
    statement: Einsum, typing: EinsumTyping, typings: Sequence[Typing], context: ProgramContext
) -> Deferral | None:
    """What the fold of a statement can leave for the end, by a law that holds on floats."""
    folds = {reduction.monoid for reduction in statement.reductions}
    if len(folds) != 1 or statement.condition is not None or context.strict:
        return None
    name = next(iter(folds))
    if name not in MONOIDS or MONOIDS[name].paired or len(typings) != 1:
        return None
    dtype = typings[0].dtype
    body = inline(statement.body, context.functions)
    if not isinstance(body, Apply) or not isinstance(dtype, Scalar) or dtype.kind != FLOAT:
        return None
    laws = OPS[body.op].laws if body.op in OPS else ()
    if not any(x.kind == "right-distributes" and x.operand == MONOIDS[name].op for x in laws):
        return None
    if any(_is_narrower(reduction.accumulator, dtype) for reduction in statement.reductions):
        return None
    terms, operand = body.arguments
    reduced = {index for reduction in statement.reductions for index in reduction.indices}
    if reduced & set(ext.indices_in(operand)):
        return None
    turns = apply("mul", *(typing.extents[index] for index in sorted(reduced)))
    return Deferral(terms, body.op, operand, turns)


def _is_narrower(accumulator: DType | None, dtype: Scalar) -> bool:
    """Whether numbers of a dtype may be too large for an accumulator, divided or not."""
    if accumulator is None:
        return False
    folded, computed = compute_dtype(accumulator), compute_dtype(dtype)
    assert isinstance(folded, Scalar) and isinstance(computed, Scalar)
    return folded.bits < computed.bits
