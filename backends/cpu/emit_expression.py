"""Expressions of the loops level to values, iteratively, each distinct one once per statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from einloom.backends.cpu.builder import FunctionBuilder
from einloom.backends.cpu.emit_apply import across, apply, splat
from einloom.backends.cpu.emit_arithmetic import EXACT, Flags
from einloom.backends.cpu.emit_cast import convert, rounded, settled
from einloom.backends.cpu.emit_dot import dot
from einloom.backends.cpu.emit_memory import BufferHandle, load
from einloom.backends.cpu.values import Value
from einloom.ir.errors import BackendError, EinloomError, UnsupportedError
from einloom.ir.expressions import Apply, Cast, Expression, Literal, Local, Symbol
from einloom.ir.loops import Across, Dot, HashLookup, Load, Search, Splat, Vector
from einloom.ir.types import Scalar, i64

Memo = dict[tuple[bytes, bool], Value]
_REFUSED: dict[type[Expression], str] = {Search: "search", HashLookup: "hash lookup"}


@dataclass
class Scope:
    """What an expression of one function may refer to, at the point that is being emitted."""

    builder: FunctionBuilder
    reassociate: bool
    symbols: dict[str, Value] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    buffers: dict[str, BufferHandle] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    # Flags of operations, by digest: those that update an accumulator.
    accumulations: dict[bytes, Flags] = field(default_factory=dict)

    def buffer(self, name: str) -> BufferHandle:
        if name not in self.buffers:
            raise BackendError(f"internal: the kernel has no buffer {name}")
        return self.buffers[name]


def evaluate(root: Expression, scope: Scope, memo: Memo, index: bool = False) -> Value:
    """Emit `root` and all that it needs; equal subexpressions are emitted once per memo.

    A memo must not outlive a store or the block that it was filled in. An index is computed in
    i64, and sums and products of loop indices and extents in it are taken not to overflow.
    """
    stack: list[tuple[Expression, bool, bool]] = [(root, index, False)]
    while stack:
        node, inside, expanded = stack.pop()
        key = (node.digest, inside)
        if key in memo:
            continue
        if expanded:
            try:
                value = _emit(node, inside, scope, memo)
                memo[key] = _as_index(value, scope) if inside else value
            except EinloomError as error:
                raise _located(error, node) from None
            continue
        stack.append((node, inside, True))
        deeper = inside or isinstance(node, Load)
        if isinstance(node, Cast | Splat | Across | Dot):
            deeper = False
        stack.extend((child, deeper, False) for child in reversed(_operands(node)))
    return memo[root.digest, index]


def evaluate_index(root: Expression, scope: Scope, memo: Memo) -> Value:
    """An index, bound or extent as an i64 value; an integer literal stays one."""
    value = evaluate(root, scope, memo, index=True)
    if isinstance(value.literal, int):
        return value.replace(literal=int(value.literal))
    return convert(scope.builder, settled(value), i64)


def _operands(node: Expression) -> tuple[Expression, ...]:
    match node:
        case Apply():
            return node.arguments
        case Load():
            return node.indices
        case Cast() | Splat() | Across():
            return (node.value,)
        case Dot():
            return (node.sums, node.left, node.right)
    return ()


def _emit(node: Expression, index: bool, scope: Scope, memo: Memo) -> Value:
    builder = scope.builder
    match node:
        case Literal():
            kind = settled(Value(i64, (), literal=node.value)).dtype
            return Value(kind, (), weak=True, literal=node.value, affine=True)
        case Symbol():
            if node.name not in scope.symbols:
                raise BackendError(f"internal: the kernel has no scalar {node.name}")
            return scope.symbols[node.name]
        case Local():
            if node.name not in scope.values:
                raise BackendError(f"internal: the kernel has no value {node.name} here")
            return scope.values[node.name]
        case Apply():
            arguments = [memo[child.digest, index] for child in node.arguments]
            return apply(builder, node.op, arguments, _flags(node, index, arguments, scope))
        case Cast():
            dtype = node.dtype.element if isinstance(node.dtype, Vector) else node.dtype
            return rounded(builder, memo[node.value.digest, False], dtype)
        case Load():
            indices = [
                evaluate_index(child, scope, memo) for child in node.indices
            ]  # found in the memo
            buffer = scope.buffer(node.buffer)
            return load(builder, buffer, indices, node.lanes, scope.aliases)
        case Splat():
            return splat(builder, memo[node.value.digest, False], node.lanes)
        case Dot():
            parts = (memo[x.digest, False] for x in (node.sums, node.left, node.right))
            return dot(builder, node.terms, *map(settled, parts))
        case Across():
            value = settled(memo[node.value.digest, False])
            return across(builder, node.op, value, scope.reassociate)
    if type(node) in _REFUSED:
        raise UnsupportedError(
            f"the CPU backend does not have {_REFUSED[type(node)]!r} ({type(node).__name__})"
        )
    raise BackendError(f"internal: {type(node).__name__} does not belong in a loop program")


def _as_index(value: Value, scope: Scope) -> Value:
    """Index expressions are computed in i64 throughout, but for truth values."""
    integer = isinstance(value.dtype, Scalar) and value.dtype.is_integer
    if value.literal is not None or not integer or value.dtype == i64:
        return value
    return convert(scope.builder, value, i64)


def _flags(node: Apply, index: bool, arguments: list[Value], scope: Scope) -> Flags:
    if index:
        affine = all(value.affine for value in arguments)
        return Flags(integer="nsw") if affine else EXACT
    return scope.accumulations.get(node.digest, EXACT)


def _located(error: EinloomError, node: Expression) -> EinloomError:
    """The same error pointing at the expression, where it does not point anywhere yet."""
    if node.location is None or error.diagnostics[0].location is not None:
        return error
    first = error.diagnostics[0]
    return type(error)(first.message, location=node.location, suggestion=first.suggestion)
