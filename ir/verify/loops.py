"""The verifier of the loops level: names, buffers, loops, yields, conditions, launches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from einloom.ir.errors import Diagnostic
from einloom.ir.expressions import Expression, Literal
from einloom.ir.loops import (
    Allocate,
    Append,
    AtomicAdd,
    CallKernel,
    Carried,
    Check,
    For,
    HashInsert,
    If,
    Let,
    LoopFunction,
    LoopProgram,
    LoopStatement,
    PackPanel,
    Prefetch,
    Store,
    Stream,
    TileMultiply,
    Transpose,
    While,
)
from einloom.ir.names import counted
from einloom.ir.node import Node
from einloom.ir.promotion import Typing
from einloom.ir.record import record
from einloom.ir.types import DType, i64
from einloom.ir.verify.complaints import Complaint, complaint, in_order, near, raise_collected
from einloom.ir.verify.launches import buffers_are_sound, launches_fit, names_are_unique
from einloom.ir.verify.loop_values import (
    BlockScope,
    ValueTyping,
    check_buffer,
    check_condition,
    check_integers,
    known_scalar,
    split,
    type_value,
)

LOOP_KINDS = ("serial", "parallel", "vector", "unroll")
STORAGES = ("stack", "workspace", "growable")
TRANSPOSED = (2, 4, 8, 16, 32)


@record
class Block:
    """Statements in a row, and what they yield to the loop or the branch around them."""

    body: tuple[LoopStatement, ...]
    carried: tuple[Carried, ...]
    yields: tuple[Expression, ...]
    owner: Node


Steps = Iterator[Block]


def loop_complaints(program: LoopProgram) -> list[Complaint]:
    found: list[Complaint] = []
    for rule in PROGRAM_RULES:
        found += rule(program)
    for function in program.functions:
        found += _Function(program, function).run()
    return in_order(found)


PROGRAM_RULES = (names_are_unique, buffers_are_sound, launches_fit)


def loop_problems(program: LoopProgram) -> list[Diagnostic]:
    """Everything wrong with a loop program; empty for a valid one."""
    return [diagnostic for _, diagnostic in loop_complaints(program)]


def verify_loops(program: LoopProgram) -> None:
    """Raise one error with all complaints about a loop program, of the class of the first."""
    raise_collected(loop_complaints(program))


@dataclass
class _Function:
    """Walks one function in order. Nesting is a stack of generators: each statement yields the
    blocks that it holds and goes on once they are done."""

    program: LoopProgram
    function: LoopFunction
    found: list[Complaint] = field(default_factory=list)
    defined: set[str] = field(default_factory=set)
    depth: int = 0

    def __post_init__(self) -> None:
        buffers = {b.name: (b.dtype, len(b.strides)) for b in self.function.buffers}
        self.scope = BlockScope(set(self.function.scalars), buffers)
        self.roles = {b.name: b.role for b in self.function.buffers}
        self.defined |= self.scope.scalars

    def run(self) -> list[Complaint]:
        stack = [self.block(Block(self.function.body, (), (), self.function))]
        while stack:
            inner = next(stack[-1], None)
            if inner is None:
                stack.pop()
                self.depth -= 1
            else:
                stack.append(self.block(inner))
        return self.found

    def complain(self, message: str, *where: Node, hint: str | None = None) -> None:
        self.found.append(complaint(message, *where, self.function, hint=hint))

    def value(self, expression: Expression, owner: Node) -> ValueTyping:
        return type_value(expression, self.scope, owner, self.found)

    def integer(self, expression: Expression, what: str, owner: Node) -> None:
        value = self.value(expression, owner)
        check_integers((expression,), [value], what, owner, self.found)

    def define(self, name: str, value: ValueTyping, owner: Node) -> None:
        if name in self.defined:
            self.complain(f"{name} is defined twice in {self.function.name}", owner)
        self.defined.add(name)
        self.scope.values[name] = value

    # -- statements

    def block(self, block: Block) -> Steps:
        self.depth += 1
        values, buffers = set(self.scope.values), set(self.scope.buffers)
        for statement in block.body:
            match statement:
                case For():
                    yield from self.for_(statement, len(block.body))
                case While():
                    yield from self.while_(statement)
                case If():
                    yield from self.if_(statement)
                case _:
                    self.plain(statement)
        self.yields(block)
        for name in [name for name in self.scope.values if name not in values]:
            del self.scope.values[name]
        for name in [name for name in self.scope.buffers if name not in buffers]:
            del self.scope.buffers[name]

    def carried(self, items: tuple[Carried, ...], owner: Node) -> None:
        """Type the initial values, then make the carried names known."""
        initial = [self.value(item.initial, owner) for item in items]
        for item, value in zip(items, initial, strict=True):
            element, lanes = split(item.dtype)
            if not known_scalar(item.dtype):
                self.complain(f"unknown dtype {element}", item, owner)
            if value.lanes not in (1, lanes):
                message = (
                    f"{item.name} has {counted(lanes, 'lane')}, its first value has {value.lanes}"
                )
                self.complain(message, item, owner)
            self.define(item.name, ValueTyping(Typing(element), lanes), item)

    def yields(self, block: Block) -> None:
        items, yielded = block.carried, block.yields
        if len(items) != len(yielded):
            are = "is" if len(items) == 1 else "are"
            yields = "is" if len(yielded) == 1 else "are"
            carried = f"{counted(len(items), 'value')} {are} carried"
            message = f"{carried} and {len(yielded)} {yields} yielded"
            self.complain(message, block.owner)
        for item, expression in zip(items, yielded, strict=False):
            lanes = split(item.dtype)[1]
            value = self.value(expression, block.owner)
            if value.typing is not None and value.lanes not in (1, lanes):
                message = (
                    f"{item.name} has {counted(lanes, 'lane')}, what is yielded has {value.lanes}"
                )
                self.complain(message, expression, block.owner)

    def for_(self, loop: For, siblings: int) -> Steps:
        self.integer(loop.lower, f"the lower bound of {loop.index}", loop)
        self.integer(loop.upper, f"the upper bound of {loop.index}", loop)
        if loop.kind not in LOOP_KINDS:
            hint = f"kinds are {', '.join(LOOP_KINDS)}"
            self.complain(f"unknown kind of loop {loop.kind}", loop, hint=hint)
        if loop.step == 0:
            self.complain(f"the step of the loop over {loop.index} is 0", loop)
        if loop.kind == "parallel":
            plain = loop.step == 1 and not loop.carried and loop.lower == Literal(0)
            if self.depth != 1 or siblings != 1:
                message = f"the parallel loop over {loop.index} is not alone in its function"
                hint = "it is the only top-level statement; its slice comes from the launcher"
                self.complain(message, loop, hint=hint)
            elif not plain:
                message = f"the parallel loop over {loop.index} is not plain"
                self.complain(message, loop, hint="from 0, step 1, nothing carried")
        self.carried(loop.carried, loop)
        self.define(loop.index, ValueTyping(Typing(i64)), loop)
        yield Block(loop.body, loop.carried, loop.yields, loop)
        del self.scope.values[loop.index]

    def while_(self, loop: While) -> Steps:
        self.carried(loop.carried, loop)
        value = self.value(loop.condition, loop)
        check_condition(loop.condition, value, loop, self.found)
        yield Block(loop.body, loop.carried, loop.yields, loop)

    def if_(self, statement: If) -> Steps:
        value = self.value(statement.condition, statement)
        check_condition(statement.condition, value, statement, self.found)
        self.carried(statement.carried, statement)
        yield Block(statement.then, statement.carried, statement.then_yields, statement)
        if statement.otherwise or statement.otherwise_yields:
            yield Block(
                statement.otherwise, statement.carried, statement.otherwise_yields, statement
            )

    def plain(self, statement: LoopStatement) -> None:
        match statement:
            case Let():
                value = self.value(statement.value, statement)
                if value.typing is not None:
                    value = ValueTyping(Typing(value.typing.dtype), value.lanes)
                self.define(statement.name, value, statement)
            case Transpose():
                self.transpose(statement)
            case Store():
                self.write(statement.buffer, statement.indices, statement)
                self.value(statement.value, statement)
            case Stream():
                self.stream(statement)
            case Prefetch():
                count = len(statement.indices)
                check_buffer(
                    statement.buffer, count, self.scope, statement, self.function, self.found
                )
                for index in statement.indices:
                    self.integer(index, f"an index of {statement.buffer}", statement)
            case AtomicAdd():
                self.write(statement.buffer, statement.indices, statement)
                self.value(statement.value, statement)
            case Allocate():
                self.allocate(statement)
            case Check():
                value = self.value(statement.condition, statement)
                check_condition(statement.condition, value, statement, self.found)
                self.integer(statement.value, "the value that a check reports", statement)
                self.integer(statement.limit, "the limit that a check reports", statement)
                if statement.fault < 1:
                    self.complain("faults are numbered from 1", statement)
            case CallKernel():
                self.call(statement)
            case Append() | HashInsert():
                self.write(statement.buffer, None, statement)
                self.value(statement.value, statement)
            case TileMultiply():
                self.write(statement.result.buffer, None, statement)
                for part in (statement.result, statement.left, statement.right):
                    self.value(part, statement)
            case PackPanel():
                self.write(statement.destination, None, statement)
                self.value(statement.source, statement)

    def write(self, name: str, indices: tuple[Expression, ...] | None, owner: Node) -> None:
        count = None if indices is None else len(indices)
        check_buffer(name, count, self.scope, owner, self.function, self.found)
        if self.roles.get(name) == "in":
            self.complain(f"the buffer {name} is an input, it is not written", owner)
        for index in indices or ():
            self.integer(index, f"an index of {name}", owner)

    def stream(self, statement: Stream) -> None:
        """Single elements of one dtype, told apart from what they are copied to by name."""
        source = statement.source
        self.write(statement.buffer, statement.indices, statement)
        value = self.value(source, statement)
        self.integer(statement.count, "the count of a stream", statement)
        if source.lanes != 1:
            self.complain(f"a stream starts at one element, not at {source.lanes}", statement)
        if source.buffer == statement.buffer:
            self.complain(f"{source.buffer} is streamed to itself", statement)
        dtype, _ = self.scope.buffers.get(statement.buffer, (None, 0))
        if dtype is not None and value.typing is not None and value.typing.dtype != dtype:
            self.complain(f"{value.typing.dtype} is streamed to {dtype}", statement)

    def transpose(self, statement: Transpose) -> None:
        """As many values as names, of one dtype, each with as many groups of lanes as values."""
        names, count = statement.names, len(statement.values)
        given = f"{counted(count, 'value')} {'is' if count == 1 else 'are'}"
        if len(names) != count:
            self.complain(f"{given} transposed to {counted(len(names), 'name')}", statement)
        if count not in TRANSPOSED:
            hint = f"squares have {', '.join(map(str, TRANSPOSED))} vectors of as many lanes"
            self.complain(f"{given} no side of a square", statement, hint=hint)
        dtypes: list[DType] = []
        lanes = 0
        for expression in statement.values:
            value = self.value(expression, statement)
            if value.typing is None:
                continue
            if not lanes and value.lanes % count == 0:
                lanes = value.lanes
            if value.lanes != (lanes or count):
                message = f"one of {count} transposed values has {counted(value.lanes, 'lane')}"
                self.complain(message, expression, statement)
            if dtypes and value.typing.dtype != dtypes[0]:
                message = f"{dtypes[0]} and {value.typing.dtype} are transposed together"
                self.complain(message, expression, statement)
            dtypes.append(value.typing.dtype)
        for name in names:
            typing = Typing(dtypes[0]) if dtypes else None
            self.define(name, ValueTyping(typing, count), statement)

    def allocate(self, statement: Allocate) -> None:
        name = statement.name
        if statement.storage not in STORAGES:
            hint = f"storages are {', '.join(STORAGES)}"
            self.complain(f"unknown storage {statement.storage}", statement, hint=hint)
        if not known_scalar(statement.dtype):
            self.complain(f"unknown dtype {statement.dtype}", statement)
        if name in self.scope.buffers:
            self.complain(f"there is a buffer {name} already", statement)
        for extent in statement.extents:
            self.integer(extent, f"an extent of {name}", statement)
            if statement.storage == "stack" and not isinstance(extent, Literal):
                message = f"{name} is on the stack, its extents must be constant"
                self.complain(message, extent, statement, hint="allocate it as workspace")
        self.scope.buffers[name] = (statement.dtype, len(statement.extents))

    def call(self, statement: CallKernel) -> None:
        called = next((f for f in self.program.functions if f.name == statement.kernel), None)
        if called is None:
            hint = near(statement.kernel, [f.name for f in self.program.functions])
            self.complain(f"there is no kernel {statement.kernel}", statement, hint=hint)
            return
        if called is self.function:
            self.complain(f"kernel {called.name} calls itself", statement)
        for what, given, wanted in (
            ("buffer", len(statement.buffers), len(called.buffers)),
            ("scalar", len(statement.scalars), len(called.scalars)),
        ):
            if given != wanted:
                message = f"kernel {called.name} takes {counted(wanted, what)}, it is given {given}"
                self.complain(message, statement)
        for name, buffer in zip(statement.buffers, called.buffers, strict=False):
            dtype = check_buffer(name, len(buffer.strides), self.scope, statement,
                                 self.function, self.found)  # fmt: skip
            if dtype is not None and dtype != buffer.dtype:
                message = f"{name} is {dtype}, kernel {called.name} takes {buffer.dtype} there"
                self.complain(message, statement)
        for scalar in statement.scalars:
            self.integer(scalar, f"a scalar of {called.name}", statement)
