"""Folds: identities, combination of components, and what an accumulator holds."""

from __future__ import annotations

import math

from einloom.ir.definitions import combine as combine_definition
from einloom.ir.definitions import inline
from einloom.ir.errors import DTypeError
from einloom.ir.expressions import Apply, Cast, Expression, Literal, Local, Pack
from einloom.ir.loops import LoopStatement
from einloom.ir.ops import MONOIDS
from einloom.ir.program import Reduction
from einloom.ir.promotion import Typing, compute_dtype
from einloom.ir.types import BOOL, COMPLEX, FLOAT, SIGNED, DType, Modular, Scalar, bool_
from einloom.ir.typing import fold_dtypes
from einloom.passes.lowering.function import FunctionBuilder, Place
from einloom.passes.lowering.values import Values, lower_value


def identity_literal(value: bool | int | float | complex | str, dtype: DType) -> Literal:
    """A monoid's identity as a literal of `dtype`; "lowest" and "highest" are resolved."""
    if not isinstance(value, str):
        return Literal(value)
    if isinstance(dtype, Modular) or not isinstance(dtype, Scalar):
        raise DTypeError(f"{dtype} has no {value} value")
    low = value == "lowest"
    if dtype.kind == FLOAT:
        return Literal(-math.inf if low else math.inf)
    if dtype.kind == BOOL:
        return Literal(not low)
    if dtype.kind == SIGNED:
        return Literal(-(2 ** (dtype.bits - 1)) if low else 2 ** (dtype.bits - 1) - 1)
    return Literal(0 if low else 2**dtype.bits - 1)


class Fold:
    """One reduction, on components: accumulators' dtypes, initial values, one step.

    A paired fold (argmax) carries a third component: whether anything was folded yet.
    """

    def __init__(
        self, builder: FunctionBuilder, reduction: Reduction, typings: list[Typing]
    ) -> None:
        self.builder = builder
        self.name = reduction.monoid
        self.typings = fold_dtypes(reduction, typings, builder.context.monoids)
        self.definition = builder.context.monoids.get(self.name)
        self.paired = self.definition is None and MONOIDS[self.name].paired
        self.dtypes = [compute_dtype(typing.dtype) for typing in self.typings]
        if self.paired:
            self.dtypes.append(bool_)

    @property
    def is_simple(self) -> bool:
        """Whether one builtin operation folds one component, in any order."""
        return self.definition is None and not self.paired

    @property
    def rounds(self) -> bool:
        """Whether it is a sum of floats, whose rounding error grows with every step."""
        if self.definition is not None or self.name != "sum":
            return False
        (dtype,) = self.dtypes
        return isinstance(dtype, Scalar) and dtype.kind in (FLOAT, COMPLEX)

    def initial(self) -> Values:
        if self.definition is not None:
            scratch: list[LoopStatement] = []
            values = lower_value(self.builder, self.definition.identity, Place({}, {}), scratch)
            return tuple(Cast(d, v) for d, v in zip(self.dtypes, values, strict=True))
        first = identity_literal(MONOIDS[self.name].identity, self.dtypes[0])
        values = (Cast(self.dtypes[0], first),)
        return (
            (*values, Cast(self.dtypes[1], Literal(0)), Literal(False)) if self.paired else values
        )

    def results(self, accumulators: Values) -> Values:
        return accumulators[:2] if self.paired else accumulators

    def step(self, accumulators: Values, values: Values, out: list[LoopStatement]) -> Values:
        """The accumulators after folding in one value."""
        dtypes = self.dtypes[:2] if self.paired else self.dtypes
        values = tuple(Cast(d, v) for d, v in zip(dtypes, values, strict=True))
        if self.definition is not None:
            return self.defined_step(accumulators, values, out)
        if self.paired:
            return self.paired_step(accumulators, values, out)
        return (Apply(MONOIDS[self.name].op, (accumulators[0], values[0])),)

    def defined_step(
        self, accumulators: Values, values: Values, out: list[LoopStatement]
    ) -> Values:
        assert self.definition is not None
        named = tuple(self.builder.bind(value, "item", out) for value in values)
        left, right = (
            items[0] if len(items) == 1 else Pack(items) for items in (accumulators, named)
        )
        body = combine_definition(self.definition, left, right)
        body = inline(body, self.builder.context.functions)
        items = body.items if isinstance(body, Pack) else (body,)
        return tuple(Cast(d, item) for d, item in zip(self.dtypes, items, strict=True))

    def paired_step(self, accumulators: Values, values: Values, out: list[LoopStatement]) -> Values:
        """The first largest (smallest) value wins; the first NaN wins over all numbers."""
        best, position, seen = accumulators
        value = self.builder.bind(values[0], "item", out)
        compare = "gt" if MONOIDS[self.name].op == "max" else "lt"
        better: Expression = Apply(compare, (value, best))
        dtype = self.dtypes[0]
        if isinstance(dtype, Scalar) and dtype.kind == FLOAT:
            is_first_nan = Apply(
                "and", (Apply("isnan", (value,)), Apply("not", (Apply("isnan", (best,)),)))
            )
            better = Apply("or", (better, is_first_nan))
        better = Apply("or", (better, Apply("not", (seen,))))
        wins = self.builder.bind(better, "wins", out)
        assert isinstance(wins, Local)
        return (
            Apply("select", (wins, value, best)),
            Apply("select", (wins, values[1], position)),
            Literal(True),
        )
