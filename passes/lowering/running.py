"""Folds whose terms refer to another fold of the same data, run along with it.

The sum of a softmax, `sum[k] exp(x[k] - max[k] x[k])`, needs the maximum before its first term.
Where a row is longer than the cache, reading it again costs more than correcting the sum whenever
the maximum of what was read so far changes: `exp(a - new) = exp(a - old) * exp(old - new)`. So a
block of the row is read, folded into the maximum, and read from the cache for the sum.

Source: M. Milakov, N. Gimelshein, Online normalizer calculation for softmax, arXiv:1805.02867;
M. Dukhan, A. Ablavatski, The Two-Pass Softmax Algorithm, arXiv:2001.04438, which reaches the same
count of reads by exponents kept apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from einloom.ir.expressions import Access, Apply, Expression, Index, Literal
from einloom.ir.node import Node, postorder, rebuild
from einloom.ir.ops import MONOIDS, OPS
from einloom.ir.record import record
from einloom.ir.types import f32, f64
from einloom.passes.lowering.folds import identity_literal

if TYPE_CHECKING:
    from einloom.passes.lowering.sweeps import Step

DEEPEST = 8
"""Maps of maps that are looked through."""


@record
class Correction:
    """How a fold follows its base: terms are `function(x `undo` base) `product` rest`.

    When the base moves from `old` to `new`, what was folded so far is multiplied, in the sense of
    `product`, by `function(old undo new)`. `base` is the tensor of the other fold.
    """

    base: str
    function: str
    undo: str
    product: str

    def factor(self, old: Expression, new: Expression) -> Expression:
        return Apply(self.function, (Apply(self.undo, (old, new)),))


def inlined(step: Step, makers: Mapping[str, Step]) -> Expression:
    """The terms of a step with the bodies of maps in place of reads of their cells."""

    def change(current: Node) -> Node:
        if not isinstance(current, Access) or current.view or current.padding is not None:
            return current
        maker = makers.get(current.tensor)
        if maker is None or not maker.is_map or not maker.space or not _is_float(maker):
            return current
        names = {
            own.name: given
            for own, given in zip(maker.nest.statement.indices, current.indices, strict=True)
            if isinstance(own, Index)
        }
        return rebuild(maker.body, lambda n: names[n.name] if isinstance(n, Index) else n)

    body = step.body
    for _ in range(DEEPEST):
        found = rebuild(body, change)
        if found == body:
            break
        body = found
    return body


def _is_float(step: Step) -> bool:
    """Whether a result is a plain float that its body computes without rounding to another."""
    (stored,) = step.nest.component_dtypes()
    return stored in (f32, f64) and [t.dtype for t in step.nest.typings] == [stored]


def correction_of(
    step: Step, term: Expression, base: Step, term_of_base: Expression, same: Mapping[Index, Index]
) -> Correction | None:
    """How the fold of `term` may run along with that of a base; None where it may not.

    `same`: by index of the base's terms, the step's index that runs in the same loop.
    """
    if not (_is_float(step) and _is_float(base)) or step.nest.deferral or base.nest.deferral:
        return None
    names = [step.nest.statement.reductions[0].monoid, base.nest.statement.reductions[0].monoid]
    if any(name not in MONOIDS or MONOIDS[name].paired for name in names):
        return None
    fold, lattice = (MONOIDS[name] for name in names)
    body = rebuild(term_of_base, lambda n: same.get(n, n) if isinstance(n, Index) else n)
    factors = term.arguments if isinstance(term, Apply) and OPS[term.op].arity is None else (term,)
    for factor in factors:
        found = _correction(factor, base.tensor, body)
        if found is None:
            continue
        others = [x for x in factors if x is not factor]
        joined = len(factors) == 1 or (isinstance(term, Apply) and term.op == found.product)
        lawful = (
            joined
            and OPS[found.product].distributes_over(fold.op) is not None
            and OPS[lattice.op].law("idempotent") is not None
            and _shift(found.undo) is not None
            and OPS[str(_shift(found.undo))].distributes_over(lattice.op) is not None
            and not any(_reads(x, base.tensor) for x in others)
        )
        return found if lawful and _vanishes(found.function, lattice.name, fold.name) else None
    return None


def _correction(factor: Expression, base: str, body: Expression) -> Correction | None:
    """The correction where a factor is a function that turns sums, of the base's terms less it."""
    if not isinstance(factor, Apply) or factor.op not in OPS:
        return None
    turns = OPS[factor.op].law("turns-sums")
    (inner, *more) = factor.arguments
    if turns is None or more or not isinstance(inner, Apply) or len(inner.arguments) != 2:
        return None
    value, reference = inner.arguments
    exact = isinstance(reference, Access) and reference.tensor == base and value == body
    return Correction(base, factor.op, inner.op, str(turns.operand)) if exact else None


def _shift(undo: str) -> str | None:
    law = OPS[undo].law("undoes") if undo in OPS else None
    return None if law is None else str(law.operand)


@np.errstate(all="ignore")
def _vanishes(function: str, lattice: str, fold: str) -> bool:
    """Whether terms that leave the base at its identity leave the fold at its own."""
    start, nothing = (
        identity_literal(MONOIDS[name].identity, f64).value.real for name in (lattice, fold)
    )
    return bool(OPS[function].numpy(np.float64(start)) == nothing)


def _reads(expression: Expression, tensor: str) -> bool:
    return any(isinstance(p, Access) and p.tensor == tensor for p in postorder(expression))


def is_finite(value: Expression) -> Expression:
    return Apply("isfinite", (value,))


def or_zero(value: Expression) -> Expression:
    """A reference that is safe to subtract: what it gives where it is not finite is made anew."""
    return Apply("select", (is_finite(value), value, Literal(0.0)))
