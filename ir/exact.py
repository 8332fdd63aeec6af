"""A program of floats read over the integers modulo a prime, where + and * are exact.

Two programs that agree as formulas over the reals agree there, too, whatever the order of
their sums and products; two that differ almost surely do not (Schwartz 1980, Zippel 1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from einloom.ir import extents as ext
from einloom.ir.casting import cast
from einloom.ir.constants import constant_array
from einloom.ir.definitions import functions_of, inline, monoids_of
from einloom.ir.expressions import (
    Access,
    Apply,
    Cast,
    Expression,
    Index,
    Literal,
    Pack,
    Project,
    Symbol,
)
from einloom.ir.infer import Inference, infer
from einloom.ir.node import Node, postorder, with_children
from einloom.ir.program import (
    Call,
    Constant,
    Einsum,
    Input,
    Kernel,
    Module,
    Reduction,
    Scan,
    Statement,
    Target,
)
from einloom.ir.promotion import Typing
from einloom.ir.types import COMPLEX, FLOAT, DType, Modular, Quantized, Scalar, TensorType, Tuple
from einloom.ir.typing import Lookup, body_typings, fold_dtypes, typings_of

PRIME = 2**61 - 1
FIELD = Modular(PRIME)
_RING_OPS = ("add", "sub", "neg", "mul", "div", "select")


class Inexact(Exception):
    """The program does something to floats that has no counterpart modulo a prime."""


def over_field(module: Module, sizes: Mapping[str, int]) -> Module:
    """`module` with every float read as an element of the field, for symbols of given sizes.

    Integers, booleans and residues stay what they are. Raises Inexact where a float is
    compared, rounded, divided by something not known, or handed to another function.
    """
    return _Reading(module, infer(module), sizes).run()


def residue(value: float | int) -> int:
    """The field element that a finite number stands for: floats are fractions of powers of 2."""
    if isinstance(value, int):
        return value % PRIME
    if not math.isfinite(value):
        raise Inexact
    numerator, denominator = value.as_integer_ratio()
    return numerator * pow(denominator, -1, PRIME) % PRIME


def is_real(dtype: DType) -> bool:
    """Whether values of the dtype are read over the field; complex ones have no square root
    of -1 there."""
    return isinstance(dtype, Scalar) and dtype.kind == FLOAT


@dataclass
class _Reading:
    module: Module
    inference: Inference
    sizes: Mapping[str, int]

    def __post_init__(self) -> None:
        self.functions = functions_of(self.module)
        self.monoids = monoids_of(self.module)
        self.lookup = Lookup(self.inference.tensors, set(), self.functions, self.monoids)
        for monoid in self.monoids.values():
            if self.dtype(monoid.dtype) != monoid.dtype:
                raise Inexact

    def run(self) -> Module:
        inputs = tuple(
            item if item.type is None else Input(item.name, self.type(item.type))
            for item in self.module.inputs
        )
        return replace(
            self.module,
            inputs=inputs,
            body=tuple(self.statement(statement) for statement in self.module.body),
            definitions=tuple(self.monoids.values()),
            mappings=(),
            layouts=(),
        )

    # -- types

    def dtype(self, dtype: DType) -> DType:
        if isinstance(dtype, Tuple):
            return Tuple(tuple(self.dtype(item) for item in dtype.items))
        if isinstance(dtype, Quantized) or (isinstance(dtype, Scalar) and dtype.kind == COMPLEX):
            raise Inexact
        return FIELD if is_real(dtype) else dtype

    def type(self, type_: TensorType) -> TensorType:
        fill = type_.fill
        if fill is not None and is_real(type_.dtype):
            fill = Literal(residue(_real(fill)))
        return TensorType(self.dtype(type_.dtype), type_.ranks, (), fill)

    # -- statements

    def statement(self, statement: Statement) -> Statement:
        match statement:
            case Einsum():
                return self.einsum(statement)
            case Scan():
                until = statement.until
                return replace(
                    statement,
                    initial=tuple(self.einsum(first) for first in statement.initial),
                    body=tuple(self.statement(part) for part in statement.body),
                    until=None if until is None else self.expression(until),
                )
            case Kernel():
                body = tuple(self.statement(part) for part in statement.body)
                return replace(statement, body=body)
            case Constant():
                return self.constant(statement)
            case Call():
                raise Inexact
        raise Inexact

    def constant(self, statement: Constant) -> Constant:
        if self.dtype(statement.type.dtype) == statement.type.dtype:
            return statement
        if statement.path is not None or not is_real(statement.type.dtype):
            raise Inexact
        shape = tuple(ext.evaluate(extent, self.sizes) for extent in statement.type.extents)
        values = cast(constant_array(statement, shape), Scalar("f64"))
        data = b"".join(residue(float(x)).to_bytes(8, "little") for x in values.ravel())
        return Constant(statement.name, self.type(statement.type), data)

    def einsum(self, statement: Einsum) -> Einsum:
        lookup = self.lookup
        typings = body_typings(statement, lookup)
        reductions = []
        for reduction in reversed(statement.reductions):
            reductions.append(self.reduction(reduction, typings))
            typings = fold_dtypes(reduction, typings, self.monoids)
        body = self.expression(statement.body)
        stored = tuple(self.inference.tensors[target.name].dtype for target in statement.targets)
        if len(stored) == 1 and isinstance(stored[0], Tuple):
            stored = stored[0].items
        for typing, dtype in zip(typings, stored, strict=True):
            if is_real(dtype) != is_real(typing.dtype):
                # stored by conversion: modulo the prime, only of an integer and before a fold
                if not is_real(dtype) or statement.reductions or isinstance(body, Pack):
                    raise Inexact
                body = Cast(FIELD, body)
        targets = tuple(
            Target(t.name, None if t.type is None else self.type(t.type)) for t in statement.targets
        )
        return replace(
            statement,
            targets=targets,
            indices=tuple(self.expression(index) for index in statement.indices),
            body=body,
            reductions=tuple(reversed(reductions)),
            condition=None if statement.condition is None else self.expression(statement.condition),
        )

    def reduction(self, reduction: Reduction, typings: list[Typing]) -> Reduction:
        if reduction.monoid in self.monoids:
            return reduction
        real = [is_real(typing.dtype) for typing in typings]
        accumulator = reduction.accumulator
        if any(real) and reduction.monoid not in ("sum", "prod"):
            raise Inexact
        if accumulator is None:
            return reduction
        if is_real(accumulator) != real[0]:
            raise Inexact
        return replace(reduction, accumulator=self.dtype(accumulator))

    # -- expressions

    def expression(self, root: Expression) -> Expression:
        root = inline(root, self.functions)
        typings = typings_of(root, self.lookup)
        done: dict[int, Expression] = {}
        for current in postorder(root):
            if isinstance(current, Expression):
                done[id(current)] = self.read(current, typings, done)
            else:
                done[id(current)] = current  # type: ignore[assignment]
        return done[id(root)]

    def read(
        self, current: Expression, typings: Mapping[int, Typing], done: dict[int, Expression]
    ) -> Expression:
        """One node, its children being read already."""
        typing = typings[id(current)]
        if isinstance(typing.dtype, Scalar) and typing.dtype.kind == COMPLEX:
            raise Inexact
        match current:
            case Literal() if is_real(typing.dtype):
                return Cast(FIELD, Literal(residue(_real(current))))
            case Literal() | Index() | Symbol():
                return current
            case Access():
                padding = current.padding
                if current.view in ("codes", "scales"):
                    raise Inexact
                if padding is not None and is_real(typing.dtype):
                    padding = Literal(residue(_real(padding)))
                indices = tuple(done[id(index)] for index in current.indices)
                return replace(current, indices=indices, padding=padding)
            case Cast():
                return self.conversion(current, typings, done)
            case Apply():
                return self.application(current, typings, done)
            case Pack() | Project():

                def change(child: Node) -> Node:
                    return done[id(child)]

                return with_children(current, change)
        raise Inexact

    def conversion(
        self, current: Cast, typings: Mapping[int, Typing], done: dict[int, Expression]
    ) -> Expression:
        value, source = done[id(current.value)], typings[id(current.value)].dtype
        if not is_real(source):
            return Cast(self.dtype(current.dtype), value)
        if not is_real(current.dtype):
            raise Inexact
        return value  # from one float dtype to another: the same number

    def application(
        self, current: Apply, typings: Mapping[int, Typing], done: dict[int, Expression]
    ) -> Expression:
        arguments = [done[id(argument)] for argument in current.arguments]
        known = [typings[id(argument)] for argument in current.arguments]
        result = is_real(typings[id(current)].dtype)
        if not result and not any(is_real(typing.dtype) for typing in known):
            return Apply(current.op, tuple(arguments))
        if not result or current.op not in _RING_OPS:
            raise Inexact
        if current.op == "div":
            divisor = Literal(pow(self.number(current.arguments[1]), -1, PRIME))
            arguments, known = [arguments[0]], known[:1]
        elements = [
            argument if is_real(typing.dtype) else Cast(FIELD, argument)
            for argument, typing in zip(arguments, known, strict=True)
        ]
        if current.op == "div":
            return Apply("mul", (elements[0], Cast(FIELD, divisor)))
        if current.op == "select":
            elements[0] = arguments[0]
            if is_real(known[0].dtype):
                raise Inexact
        return Apply(current.op, tuple(elements))

    def number(self, divisor: Expression) -> int:
        """The divisor, where it is a number or an extent."""
        if isinstance(divisor, Cast) and is_real(divisor.dtype):
            divisor = divisor.value
        if isinstance(divisor, Literal):
            value = residue(_real(divisor))
        elif all(isinstance(p, Literal | Symbol | Apply) for p in postorder(divisor)):
            value = self.extent(divisor) % PRIME
        else:
            raise Inexact
        if value == 0:
            raise Inexact
        return value

    def extent(self, divisor: Expression) -> int:
        for part in postorder(divisor):
            wrong = isinstance(part, Literal) and type(part.value) is not int
            if wrong or (isinstance(part, Apply) and part.op not in ("add", "sub", "mul")):
                raise Inexact
        return ext.evaluate(divisor, self.sizes)


def _real(literal: Literal) -> float | int:
    value = literal.value
    if isinstance(value, complex):
        raise Inexact
    return int(value) if isinstance(value, bool) else value
