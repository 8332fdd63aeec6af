"""Grammar callbacks for the statements of the loops level, for kernels and launches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from einloom.ir.expressions import Expression
from einloom.ir.loops import (
    Allocate,
    Append,
    AtomicAdd,
    Buffer,
    CallKernel,
    Carried,
    Check,
    FaultSite,
    For,
    HashInsert,
    If,
    Launch,
    Let,
    LoopFunction,
    LoopProgram,
    LoopStatement,
    PackPanel,
    Prefetch,
    Storage,
    Store,
    Stream,
    TileMultiply,
    Transpose,
    While,
)
from einloom.ir.text.build_types import near
from einloom.ir.text.constants import Number
from einloom.ir.text.lexer import Token
from einloom.ir.text.loops_values import ValueBuilder
from einloom.ir.text.spelling import read_string

LOOP_KINDS = ("serial", "parallel", "vector", "unroll")
ROLES = ("in", "out", "inout")
STORAGES = ("stack", "workspace", "growable")


@dataclass(slots=True)
class Yielded:
    """`yield a, b`, the end of a block."""

    word: Token
    values: tuple[Expression, ...]


@dataclass(slots=True)
class Block:
    """Statements in braces, and what they yield (None: nothing)."""

    body: tuple[LoopStatement, ...]
    yielded: Yielded | None

    @property
    def yields(self) -> tuple[Expression, ...]:
        return () if self.yielded is None else self.yielded.values


class LoopBuilder(ValueBuilder):
    """Turns a whole text of the loops level into a program."""

    def one_of(self, token: Token, words: tuple[str, ...], what: str) -> str:
        """The word of a token that must be one of a few."""
        if token.text not in words:
            hint = near(token.text, words) or f"write {', '.join(words[:-1])} or {words[-1]}"
            self.fail_at(token, f"{token.text} is no {what}", hint)
        return token.text

    def expect(self, token: Token, word: str, example: str) -> None:
        if token.text != word:
            self.fail_at(token, f"expected `{word}`, found `{token.text}`", f"write {example}")

    # -- program

    def loop_program(self, children: list[Any]) -> LoopProgram:
        return LoopProgram(
            tuple(x for x in children if isinstance(x, LoopFunction)),
            tuple(x for x in children if isinstance(x, Storage)),
            tuple(x for x in children if isinstance(x, Launch)),
            tuple(x for x in children if isinstance(x, FaultSite)),
        )

    def unknown_stride(self, children: list[Token]) -> None:
        return None

    def buffer_strides(self, children: list[Number | None]) -> tuple[int | None, ...]:
        return tuple(None if number is None else self.whole(number) for number in children)

    def buffer(self, children: list[Any]) -> Buffer:
        role, name, dtype, strides, *unaligned = children
        for token in unaligned:
            self.one_of(token, ("unaligned",), "property of a buffer")
        role_name = self.one_of(role, ROLES, "role of a buffer")
        location = self.span(role, name)
        return Buffer(name.text, dtype, strides, role_name, not unaligned, location=location)

    def buffers(self, children: list[Buffer]) -> tuple[Buffer, ...]:
        return tuple(children)

    def scalar_names(self, children: list[Token]) -> tuple[str, ...]:
        self.scalars = frozenset(token.text for token in children[1:])
        return self.names(children[1:])

    def loop_function_head(self, children: list[Any]) -> tuple[Any, ...]:
        word, name, buffers, scalars, *strict = children
        for token in strict:
            self.one_of(token, ("strict",), "property of a kernel")
        return name.text, buffers, scalars, not strict, self.span(word, name)

    def loop_function(self, children: list[Any]) -> LoopFunction:
        (name, buffers, scalars, reassociate, location), block = children
        self.scalars = None
        if block.yielded is not None:
            hint = "store the result in a buffer"
            self.fail_at(block.yielded.word, "a kernel yields nothing", hint)
        return LoopFunction(name, buffers, scalars, block.body, reassociate, location=location)

    def storage(self, children: list[Any]) -> Storage:
        word, name, dtype, extents = children
        return Storage(name.text, dtype, extents, location=self.span(word, name))

    def slices(self, children: list[Any]) -> Expression | None:
        return children[1] if children else None

    def launch(self, children: list[Any]) -> Launch:
        word, name, scalars, slices, _, work = children
        return Launch(name.text, scalars, slices, work, location=self.span(word, name))

    def fault_site(self, children: list[Any]) -> FaultSite:
        word, name, number, string = children
        try:
            message = read_string(string.text)
        except ValueError as error:
            self.fail_at(string, str(error))
        location = self.span(word, string)
        return FaultSite(name.text, self.whole(number), message, location=location)

    # -- statements that hold blocks

    def loop_block(self, children: list[Any]) -> Block:
        yielded = None
        for item in children:
            if yielded is not None:
                hint = "nothing stands behind it; several values go into one: yield a, b"
                self.fail_at(yielded.word, "yield ends its block", hint)
            if isinstance(item, Yielded):
                yielded = item
        body = children if yielded is None else children[:-1]
        return Block(tuple(body), yielded)

    def yielded(self, children: list[Any]) -> Yielded:
        return Yielded(children[0], tuple(children[1:]))

    def carried(self, children: list[Any]) -> Carried:
        name, dtype, initial = children
        return Carried(name.text, dtype, initial, location=self.span(name, name))

    def carry(self, children: list[Any]) -> tuple[Carried, ...]:
        return tuple(children[1:])

    def step(self, children: list[Any]) -> int:
        return self.whole(children[1]) if children else 1

    def for_loop(self, children: list[Any]) -> For:
        word, *names, _, lower, _, upper, step, carried, block = children
        kind = self.one_of(names[0], LOOP_KINDS, "kind of loop") if len(names) == 2 else "serial"
        location = self.span(word, names[-1])
        return For(
            names[-1].text, lower, upper, block.body, kind, step, carried, block.yields,
            location=location,
        )  # fmt: skip

    def while_loop(self, children: list[Any]) -> While:
        word, condition, carried, block = children
        location = self.span(word, word)
        return While(condition, carried, block.body, block.yields, location=location)

    def branch(self, children: list[Any]) -> If:
        word, condition, carried, then, *otherwise = children
        other = otherwise[1] if otherwise else Block((), None)
        return If(
            condition, then.body, other.body, carried, then.yields, other.yields,
            location=self.span(word, word),
        )  # fmt: skip

    # -- plain statements

    def let(self, children: list[Any]) -> Let:
        word, name, value = children
        return Let(name.text, value, location=self.span(word, name))

    def transpose(self, children: list[Any]) -> Transpose:
        word, names, values = children
        return Transpose(names, values, location=self.span(word, word))

    def store(self, children: list[Any]) -> Store:
        name, indices, value = children
        return Store(name.text, indices, value, location=self.span(name, name))

    def stream(self, children: list[Any]) -> Stream:
        word, name, indices, source, count = children
        return Stream(name.text, indices, source, count, location=self.span(word, name))

    def prefetch(self, children: list[Any]) -> Prefetch:
        word, name, indices, *role = children
        if role:
            self.expect(role[0], "out", f"prefetch {name.text}[i] out")
        found = "out" if role else "in"
        return Prefetch(name.text, indices, found, location=self.span(word, name))

    def allocate(self, children: list[Any]) -> Allocate:
        word, name, dtype, extents, storage = children
        self.one_of(storage, STORAGES, "storage")
        return Allocate(name.text, dtype, extents, storage.text, location=self.span(word, name))

    def check(self, children: list[Any]) -> Check:
        word, condition, fault, number, value, limit = children
        self.expect(fault, "fault", "check i < N, fault 1 (i, N)")
        location = self.span(word, word)
        return Check(condition, self.whole(number), value, limit, location=location)

    def call_scalars(self, children: list[Any]) -> tuple[Expression, ...]:
        return tuple(children[1:])

    def call_kernel(self, children: list[Any]) -> CallKernel:
        word, kernel, name, buffers, scalars = children
        self.expect(kernel, "kernel", f"call kernel {name.text}(A, B; N)")
        return CallKernel(name.text, buffers, scalars, location=self.span(word, name))

    def append(self, children: list[Any]) -> Append:
        word, name, value = children
        return Append(name.text, value, location=self.span(word, name))

    def hash_insert(self, children: list[Any]) -> HashInsert:
        word, insert, name, key, op, value = children
        self.expect(insert, "insert", f"hash insert {name.text}[key] add= value")
        location = self.span(word, name)
        return HashInsert(name.text, key, value, self.op_name(op), location=location)

    def atomic_add(self, children: list[Any]) -> AtomicAdd:
        word, name, indices, plus, value = children
        self.expect(plus, "+", "+=, which alone is atomic")
        return AtomicAdd(name.text, indices, value, location=self.span(word, name))

    def tile_multiply(self, children: list[Any]) -> TileMultiply:
        word, m, n, k, *dtypes, result, plus, left, times, right = children
        example = "mma<M,N,K,f32,f32,f32> C[i, j] += A[i, k] * B[k, j]"
        self.expect(plus, "+", example)
        self.expect(times, "*", example)
        rows, columns, depth = (self.whole(Number(x, False, x.start)) for x in (m, n, k))
        first, second, third = dtypes
        return TileMultiply(
            (rows, columns, depth), (first, second, third), result, left, right,
            location=self.span(word, word),
        )  # fmt: skip

    def pack_panel(self, children: list[Any]) -> PackPanel:
        word, name, source, block, rows, columns, panel, lanes = children
        example = f"pack {name.text} = {source.buffer}[i, j] block (rows, columns) panel<16>"
        self.expect(block, "block", example)
        self.expect(panel, "panel", example)
        width = self.lane_count(lanes)
        location = self.span(word, name)
        return PackPanel(name.text, source, rows, columns, width, location=location)
