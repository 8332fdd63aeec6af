"""Results that the caches cannot hold: computed some thousand bytes at a time, copied past them.

A store to a line that is in no cache reads the line first; a `stream` of whole lines does not,
and leaves the caches to what is read again. The cells pass through a small buffer, since a
stream needs whole lines, wherever the result begins.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from einloom.ir.expressions import Apply, Cast, Expression, Literal, Local, Symbol
from einloom.ir.loops import Allocate, Buffer, For, Let, Load, LoopStatement, Store, Stream
from einloom.ir.node import postorder
from einloom.ir.ops import apply
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import DType

if TYPE_CHECKING:
    from einloom.passes.lowering.function import FunctionBuilder

Indices = tuple[Expression, ...]

CHUNK_BYTES = 8192
"""Of all buffers of one loop: a part of the first cache, and many lines."""
MOST_STAGES = 32 << 10
"""Bytes of buffers of one function, whose thread may have a stack of 128 KiB."""
LEAST_CELLS = 256
"""Of a chunk: with fewer, more lines would be broken than it pays for."""
DEEPEST = 200
"""Loops within one another, beyond which stores stay as they are."""


def with_streams(
    body: list[LoopStatement], buffers: Collection[Buffer], builder: FunctionBuilder
) -> list[LoopStatement]:
    """The statements, with the stores of maps to `buffers` that lie side by side streamed.

    Buffers that the statements read, too, are left alone.
    """
    read = {part.buffer for s in body for part in postorder(s) if isinstance(part, Load)}
    wanted = {b.name: b for b in buffers if _is_dense(b) and b.name not in read}
    return _Streams(wanted, builder).block(tuple(body), 0) if wanted else body


class _Streams:
    def __init__(self, buffers: dict[str, Buffer], builder: FunctionBuilder) -> None:
        self.buffers = buffers
        self.builder = builder
        self.workspaces: dict[str, DType] = {}
        self.staged = 0

    def block(self, body: tuple[LoopStatement, ...], depth: int) -> list[LoopStatement]:
        made: list[LoopStatement] = []
        for statement in body:
            if isinstance(statement, Allocate):
                self.workspaces[statement.name] = statement.dtype
            if isinstance(statement, For) and depth < DEEPEST:
                made.extend(self.loop(statement, depth))
            else:
                made.append(statement)
        return made

    def loop(self, loop: For, depth: int) -> list[LoopStatement]:
        stores = [s for s in loop.body if isinstance(s, Store) and s.buffer in self.buffers]
        straight = all(isinstance(s, Let | Store) for s in loop.body)
        once = len({store.buffer for store in stores}) == len(stores)
        plain = loop.kind != "unroll" and loop.step == 1 and not loop.carried and once
        if not (stores and straight and plain):
            return [_with_body(loop, tuple(self.block(loop.body, depth + 1)))]
        return self.copied(loop) or self.in_chunks(loop, stores) or [loop]

    def copied(self, loop: For) -> list[LoopStatement] | None:
        """One stream for a loop that only copies cells that lie side by side in a workspace."""
        if len(loop.body) != 1 or not isinstance(loop.body[0], Store):
            return None
        store = loop.body[0]
        dtype, value = self.buffers[store.buffer].dtype, store.value
        if isinstance(value, Cast) and value.dtype == dtype:
            value = value.value
        if not isinstance(value, Load) or self.workspaces.get(value.buffer) != dtype:
            return None
        source = _start(value.indices, loop, loop.lower)
        target = _start(store.indices, loop, loop.lower)
        if source is None or target is None:
            return None
        count = apply("max", Apply("sub", (loop.upper, loop.lower)), Literal(0))
        return [Stream(store.buffer, target, Load(value.buffer, source), count)]

    def in_chunks(self, loop: For, stores: list[Store]) -> list[LoopStatement] | None:
        """The loop over a part of its range at a time, whose results are then streamed."""
        cell = sum(self.item(store.buffer) for store in stores)
        cells = CHUNK_BYTES // cell
        if cells < LEAST_CELLS or self.staged + cells * cell > MOST_STAGES:
            return None
        fresh = self.builder.fresh
        chunk, end = fresh("chunk"), fresh("end")
        upper = apply("min", apply("add", Local(chunk), Literal(cells)), loop.upper)
        before: list[LoopStatement] = [Let(end, upper)]
        inside = list(loop.body)
        after: list[LoopStatement] = []
        for store in stores:
            target = _start(store.indices, loop, Local(chunk))
            if target is None:
                return None
            stage, here = fresh("stage"), Apply("sub", (Local(loop.index), Local(chunk)))
            before.append(
                Allocate(stage, self.buffers[store.buffer].dtype, (Literal(cells),), "stack")
            )
            inside[inside.index(store)] = Store(stage, (here,), store.value)
            count = Apply("sub", (Local(end), Local(chunk)))
            after.append(Stream(store.buffer, target, Load(stage, (Literal(0),)), count))
        self.staged += cells * cell
        if loop.kind != "parallel":
            part = For(loop.index, Local(chunk), Local(end), tuple(inside), loop.kind)
            return [For(chunk, loop.lower, loop.upper, (*before, part, *after), step=cells)]
        # A slice for each chunk: a parallel loop goes in steps of one.
        part = For(loop.index, Local(chunk), Local(end), tuple(inside), "vector")
        number = fresh("number")
        first = Let(chunk, Apply("mul", (Local(number), Literal(cells))))
        slices = self.builder.scalar(Apply("ceildiv", (self.extent(loop.upper), Literal(cells))))
        return [For(number, Literal(0), slices, (first, *before, part, *after), "parallel")]

    def extent(self, bound: Expression) -> Expression:
        """What the launcher computes for the bound of a parallel loop."""
        for extent, name in self.builder.scalars.items():
            if bound == Symbol(name):
                return extent
        return bound

    def item(self, name: str) -> int:
        return int(numpy_dtype(self.buffers[name].dtype).itemsize)


def _with_body(loop: For, body: tuple[LoopStatement, ...]) -> For:
    return For(
        loop.index, loop.lower, loop.upper, body, loop.kind, loop.step, loop.carried, loop.yields
    )


def _is_dense(buffer: Buffer) -> bool:
    return bool(buffer.strides) and buffer.strides[-1] == numpy_dtype(buffer.dtype).itemsize


def _start(indices: tuple[Expression, ...], loop: For, first: Expression) -> Indices | None:
    """Indices of the first turn's cell, where each turn's is the one next to the last turn's."""
    inside = {loop.index, *(s.name for s in loop.body if isinstance(s, Let))}
    *outer, last = indices
    terms = _terms(last)
    kept = [term for term in terms if not _mentions(term, inside)]
    changing = [term for term in terms if _mentions(term, inside)]
    if changing != [Local(loop.index)] or any(_mentions(index, inside) for index in outer):
        return None
    return (*outer, apply("add", *kept, first))


def _terms(index: Expression) -> list[Expression]:
    found, stack = [], [index]
    while stack:
        term = stack.pop()
        if isinstance(term, Apply) and term.op == "add":
            stack.extend(reversed(term.arguments))
        else:
            found.append(term)
    return found


def _mentions(index: Expression, names: set[str]) -> bool:
    return any(isinstance(part, Local) and part.name in names for part in postorder(index))
