"""From expressions to plans, without recursion; n-ary operations are folded as they come."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import numpy as np

from einloom.ir.casting import literal_array
from einloom.ir.definitions import inline
from einloom.ir.errors import DTypeError
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
from einloom.ir.interpret import operations
from einloom.ir.interpret.plan import Plan, Run, Step
from einloom.ir.interpret.reading import read
from einloom.ir.interpret.storage import Frame
from einloom.ir.interpret.values import (
    Array,
    Value,
    array_of,
    components,
    converted,
    item_size,
    loaded,
    mapped,
    rounded,
)
from einloom.ir.ops import OPS, is_flat
from einloom.ir.promotion import Typing, compute_dtype, value_typing
from einloom.ir.types import BOOL, DType, Quantized, Scalar, TensorType, i64
from einloom.ir.typing import Lookup, component_dtype, literal_fits, typings_of

Key: TypeAlias = tuple[int | str, bool]
"""A node's id (an index: its name), and whether it stands in an index expression."""


def plan(
    expression: Expression,
    lookup: Lookup,
    moving: Collection[str],
    parameters: Mapping[str, TensorType] | None = None,
    as_index: bool = False,
) -> Plan:
    """Compile an expression whose names `lookup` resolves.

    `moving`: the indices that may be axes; all others stand still. `parameters`: names that
    are read from `Frame.locals`. `as_index`: compute as index expressions do, in i64.
    Raises DTypeError, for a literal that does not fit and for an index that is no integer.
    """
    root = inline(expression, lookup.functions)
    tensors = {**lookup.tensors, **parameters} if parameters else lookup.tensors
    compiler = _Compiler(replace(lookup, tensors=tensors), frozenset(moving), parameters or {})
    compiler.typings = typings_of(root, compiler.lookup)
    compiler.build(root, as_index)
    result = compiler.registers[compiler.key(root, as_index)]
    if as_index and not _is_integer(compiler.typing(root, True).dtype):
        raise DTypeError("an index must be an integer", location=root.location)
    return Plan(compiler.finished(result), result, compiler.typing(root, as_index))


def _is_integer(dtype: DType) -> bool:
    return isinstance(dtype, Scalar) and dtype.is_integer


class _Compiler:
    """Walks an expression from the leaves up with a stack of its own.

    A flat operation is folded argument by argument, so that 100,000 of them hold two values.
    """

    def __init__(
        self, lookup: Lookup, moving: frozenset[str], parameters: Mapping[str, TensorType]
    ) -> None:
        self.lookup, self.moving, self.parameters = lookup, moving, parameters
        self.steps: list[Step] = []
        self.registers: dict[Key, int] = {}
        self.partial: dict[Key, tuple[operations.Evaluator, DType | None, int]] = {}
        self.typings: dict[int, Typing] = {}

    # -- the walk

    def key(self, node: Expression, as_index: bool) -> Key:
        return (node.name if isinstance(node, Index) else id(node)), as_index

    def build(self, root: Expression, as_index: bool) -> None:
        stack: list[tuple[Expression, bool, int]] = [(root, as_index, 0)]
        while stack:
            node, in_index, position = stack.pop()
            if self.key(node, in_index) in self.registers:
                continue
            flat = isinstance(node, Apply) and is_flat(node.op)
            if flat and position:
                self.fold(node, in_index, position - 1)  # type: ignore[arg-type]
            child = self.child(node, in_index, position)
            if child is not None:
                stack.append((node, in_index, position + 1))
                if not (isinstance(node, Apply) and isinstance(child[0], Literal)):
                    stack.append((*child, 0))
            elif flat:
                self.registers[self.key(node, in_index)] = self.partial.pop((id(node), in_index))[2]
            else:
                self.registers[self.key(node, in_index)] = self.leaf(node, in_index)

    def child(
        self, node: Expression, as_index: bool, position: int
    ) -> tuple[Expression, bool] | None:
        """Child number `position`, and whether it stands in an index expression."""
        match node:
            case Access():
                return (node.indices[position], True) if position < len(node.indices) else None
            case Apply():
                if position < len(node.arguments):
                    return node.arguments[position], as_index
                return None
            case Pack():
                return (node.items[position], False) if position < len(node.items) else None
            case Cast() | Project():
                return (node.value, False) if position == 0 else None
        return None

    def typing(self, node: Expression, as_index: bool) -> Typing:
        """Index expressions compute in i64 throughout, but for truth values."""
        typing = self.typings[id(node)]
        if not as_index or (isinstance(typing.dtype, Scalar) and typing.dtype.kind == BOOL):
            return typing
        if _is_integer(typing.dtype):
            return Typing(i64)
        raise DTypeError(
            f"an index must be an integer, this is {typing.dtype}",
            location=node.location,
            suggestion="cast it: i64(...)",
        )

    # -- steps

    def emit(self, run: Run, arguments: tuple[int, ...], dtype: DType, *indices: str) -> int:
        varies = frozenset(indices)
        for argument in arguments:
            more = self.steps[argument].indices
            if not more <= varies:
                varies |= more
        self.steps.append(Step(run, arguments, varies, item_size(dtype)))
        return len(self.steps) - 1

    def constant(self, value: Value, dtype: DType) -> int:
        return self.emit(lambda frame, arguments: value, (), dtype)

    def literal(self, literal: Literal, dtype: DType | None) -> int:
        """A literal in the dtype that it takes from what it meets."""
        own = value_typing(literal.value).dtype
        if dtype is None:
            dtype = own
        if not literal_fits(literal.value, dtype):
            raise DTypeError(
                f"the literal {literal.value} does not fit {dtype}",
                location=literal.location,
                suggestion="cast what it meets to a wider dtype, for example i64(x)",
            )
        return self.constant(literal_array(literal.value, compute_dtype(dtype)), dtype)

    def argument(self, node: Expression, as_index: bool, dtype: DType | None) -> int:
        if isinstance(node, Literal):
            return self.literal(node, dtype)
        return self.registers[self.key(node, as_index)]

    def argument_typings(self, node: Apply, as_index: bool) -> list[Typing]:
        return [
            value_typing(x.value) if isinstance(x, Literal) else self.typing(x, as_index)
            for x in node.arguments
        ]

    def fold(self, node: Apply, as_index: bool, position: int) -> None:
        """Fold argument number `position` of a flat operation into what it has come to."""
        key = (id(node), as_index)
        if position == 0:
            op, typings = OPS[node.op], self.argument_typings(node, as_index)
            dtype = operations.argument_dtype(op, typings)
            self.partial[key] = operations.evaluator(op, typings), dtype, -1
        evaluate, dtype, so_far = self.partial[key]
        register = self.argument(node.arguments[position], as_index, dtype)
        if position:
            held = self.typing(node, as_index).dtype
            register = self.emit(_spread(evaluate), (so_far, register), held)
        self.partial[key] = evaluate, dtype, register

    def leaf(self, node: Expression, as_index: bool) -> int:
        """The step of a node whose children are done."""
        dtype = self.typing(node, as_index).dtype
        match node:
            case Literal():
                return self.literal(node, i64 if as_index else None)
            case Symbol():
                name = node.name
                return self.emit(lambda frame, _: np.asarray(frame.symbols[name]), (), i64)
            case Index():
                moving = (node.name,) if node.name in self.moving else ()
                return self.emit(lambda frame, _: frame.index(node.name), (), i64, *moving)
            case Access():
                return self.access(node, as_index)
            case Cast():
                value = self.registers[self.key(node.value, False)]
                to, final = node.dtype, dtype
                return self.emit(
                    lambda frame, arguments: converted(rounded(arguments[0], to), final),
                    (value,), dtype,
                )  # fmt: skip
            case Pack():
                items = tuple(self.registers[self.key(item, False)] for item in node.items)
                return self.emit(lambda frame, arguments: tuple(arguments), items, dtype)
            case Project():
                value, item = self.registers[self.key(node.value, False)], node.item
                return self.emit(
                    lambda frame, arguments: converted(components(arguments[0])[item], dtype),
                    (value,), dtype,
                )  # fmt: skip
            case Apply():
                return self.apply(node, as_index)
        raise DTypeError(f"{node} is no value here", location=node.location)

    def apply(self, node: Apply, as_index: bool) -> int:
        op, typings = OPS[node.op], self.argument_typings(node, as_index)
        result = self.typing(node, as_index).dtype
        if op.rule == "stored":
            return self.stored(node, as_index)
        dtype = operations.argument_dtype(op, typings)
        wanted = [dtype] * len(typings)
        if op.rule == "select":
            joined = operations.joined_typing(typings[1:]).dtype
            wanted = [typings[0].dtype, joined, joined]
        registers = tuple(
            self.argument(x, as_index, to) for x, to in zip(node.arguments, wanted, strict=True)
        )
        return self.emit(_spread(operations.evaluator(op, typings)), registers, result)

    def stored(self, node: Apply, as_index: bool) -> int:
        """Whether a cell differs from the fill of a tensor that leaves cells out."""
        access = node.arguments[0]
        if not isinstance(access, Access) or access.tensor in self.parameters:
            raise DTypeError(
                "stored takes the read of a tensor", location=node.location,
                suggestion="stored(S[i, j])",
            )  # fmt: skip
        type_ = self.lookup.tensors[access.tensor]
        register = self.registers[self.key(access, as_index)]
        dtype = self.typings[id(access)].dtype
        sparse = any(level.kind != "dense" for level in type_.format)
        value = type_.fill.value if type_.fill is not None else 0
        fill = loaded(literal_array(value, dtype), dtype)
        return self.emit(partial(_stored, sparse=sparse, fill=fill), (register,), dtype)

    def access(self, node: Access, as_index: bool) -> int:
        if node.tensor in self.parameters:
            name = node.tensor
            return self.emit(lambda frame, _: frame.locals[name], (), self.typings[id(node)].dtype)
        type_ = self.lookup.tensors[node.tensor]
        dtype = self.typings[id(node)].dtype  # what the read yields: f32 of a quantized tensor
        if isinstance(type_.dtype, Quantized) and node.view:
            dtype = component_dtype(type_.dtype, node.view)
        padding = None
        if node.padding is not None:
            padding = loaded(literal_array(node.padding.value, dtype), dtype)
        indices = tuple(self.registers[self.key(index, True)] for index in node.indices)
        final = i64 if as_index and self.typing(node, True).dtype == i64 else dtype

        def run(frame: Frame, arguments: list[Value]) -> Value:
            value = read(frame, node, dtype, padding, [array_of(x) for x in arguments])
            return converted(value, final)

        return self.emit(run, indices, dtype)

    def finished(self, result: int) -> tuple[Step, ...]:
        """The steps, each with the registers that nothing after it uses."""
        last: dict[int, int] = {}
        for number, step in enumerate(self.steps):
            last[number] = number
            for argument in step.arguments:
                last[argument] = number
        drops: dict[int, list[int]] = {}
        for register, number in last.items():
            if register != result:
                drops.setdefault(number, []).append(register)
        return tuple(
            replace(step, drops=tuple(drops.get(number, ())))
            for number, step in enumerate(self.steps)
        )


def _spread(evaluate: operations.Evaluator) -> Run:
    return lambda frame, arguments: evaluate(*arguments)


def _stored(frame: Frame, arguments: list[Value], sparse: bool, fill: Value) -> Value:
    if not sparse:
        return np.asarray(True)

    def differs(value: Array, empty: Array) -> Array:
        return np.asarray(np.where(empty != empty, value == value, value != empty))

    return mapped(differs, arguments[0], fill)
