"""Statements of the loops level to blocks of LLVM IR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from einloom.backends.cpu.accumulation import carried_updates, stored_updates
from einloom.backends.cpu.builder import FunctionBuilder, global_name, phi_text
from einloom.backends.cpu.emit_arithmetic import Flags
from einloom.backends.cpu.emit_carried import CarriedValues
from einloom.backends.cpu.emit_cast import convert, settled, truth
from einloom.backends.cpu.emit_expression import Memo, Scope, evaluate, evaluate_index
from einloom.backends.cpu.emit_memory import address, prefetch, store
from einloom.backends.cpu.emit_transpose import transposed
from einloom.backends.cpu.emit_workspace import Workspaces
from einloom.backends.cpu.library import entry_symbol
from einloom.backends.cpu.values import Value, item_size
from einloom.ir.errors import BackendError, UnsupportedError
from einloom.ir.expressions import Expression, Literal, Local
from einloom.ir.loops import (
    Allocate,
    CallKernel,
    Check,
    For,
    If,
    Let,
    LoopFunction,
    LoopStatement,
    Prefetch,
    Store,
    Stream,
    Transpose,
    While,
)
from einloom.ir.node import postorder
from einloom.ir.types import i64

# Compile time grows with every copy of a body, so `unroll` is a request: a loop of more turns,
# or within unrolled loops that make more copies, stays a loop, as does one of unknown extent.
MOST_TURNS = 64
MOST_COPIES = 256

# What a statement does to the emission: nothing more, or the block to emit next.
Steps = Iterator[Sequence[LoopStatement]]


class StatementEmitter:
    """Emits the statements of one function in order.

    Nesting is walked with a stack of generators: a statement yields each block that it holds and
    goes on when that block is emitted, so depth is not bounded by Python's.
    """

    def __init__(
        self,
        builder: FunctionBuilder,
        scope: Scope,
        functions: Mapping[str, LoopFunction],
    ) -> None:
        self.builder = builder
        self.scope = scope
        self.functions = functions
        self.workspaces = Workspaces(builder)
        self.streams = False  # whether anything is written past the caches
        self._depth = 0
        self._copies = 1  # of what is being emitted, by unrolled loops around it

    @property
    def entry_lines(self) -> list[str]:
        """Stack allocations, which belong at the start of the function."""
        return self.workspaces.entry_lines

    def run(self, body: Sequence[LoopStatement]) -> None:
        """Emit a function's body; execution goes on at its end."""
        stack = [self._block(body)]
        while stack:
            inner = next(stack[-1], None)
            if inner is None:
                stack.pop()
                self._depth -= 1
            else:
                stack.append(self._block(inner))

    def _block(self, body: Sequence[LoopStatement]) -> Steps:
        self._depth += 1
        mark = self.workspaces.mark()
        for statement in body:
            match statement:
                case For():
                    yield from self._for(statement, len(body))
                case While():
                    yield from self._while(statement)
                case If():
                    yield from self._if(statement)
                case Let():
                    value = settled(evaluate(statement.value, self.scope, {}))
                    # its dtype is the expression's, no longer a literal's
                    self.scope.values[statement.name] = value.replace(weak=False)
                case Transpose():
                    self._transpose(statement)
                case Store():
                    self._store(statement)
                case Prefetch():
                    memo = Memo()
                    indices = [evaluate_index(i, self.scope, memo) for i in statement.indices]
                    buffer = self.scope.buffer(statement.buffer)
                    prefetch(self.builder, buffer, indices, statement.role == "out")
                case Stream():
                    self._stream(statement)
                case Allocate():
                    self._allocate(statement)
                case Check():
                    self._check(statement)
                case CallKernel():
                    self._call(statement)
                case _:
                    raise UnsupportedError(
                        "the CPU backend does not have the statement "
                        f"{type(statement).__name__} of sparse and tiled loops",
                        location=statement.location,
                    )
        self.workspaces.release(mark)

    # ---- loops ----------------------------------------------------------------------------

    def _for(self, loop: For, siblings: int) -> Steps:
        """A rotated loop: the condition is tested once before it and then after each turn.

        `vector` asks LLVM for nothing: it vectorises every loop where that pays, and forcing it
        would reorder floating sums even in functions that forbid it.
        """
        turns = self._known_turns(loop)
        if turns is not None:
            yield from self._unrolled(loop, turns)
            return
        builder, memo = self.builder, Memo()
        lower, upper = self._bounds(loop, siblings, memo)
        body = self._allocated_once(loop) if loop.kind == "parallel" else loop.body
        carried = CarriedValues(loop.carried, self.scope, memo)
        label, done = builder.label("loop"), builder.label("done")
        before = builder.block
        # Upwards from lower below upper; downwards from upper - 1 to lower.
        start, bound, predicate = lower, upper, "icmp slt"
        if loop.step < 0:
            start = builder.op("add nsw", "i64", upper, "-1")
            bound, predicate = lower, "icmp sge"
        builder.branch(builder.compare("icmp slt", "i64", lower, upper), label, done)

        builder.start(label)
        position = builder.reserve()
        index = builder.name(loop.index)
        self.scope.values[loop.index] = Value(i64, (index,), affine=True)
        carried.enter()
        updates = self._mark_updates(loop)
        yield body
        final = carried.yielded(loop.yields)
        self._unmark(updates)
        following = builder.op("add nsw", "i64", index, str(loop.step))
        again = builder.compare(predicate, "i64", following, bound)
        latch = builder.block
        builder.branch(again, label, done)
        incoming = phi_text("i64", ((start, before), (following, latch)))
        builder.fill(position, f"{index} = phi {incoming}")
        carried.close(before, final, latch)
        builder.start(done)
        carried.leave(carried.initial, before, final, latch)

    def _allocated_once(self, loop: For) -> list[LoopStatement]:
        """The body of a parallel loop, its buffers allocated before it where no turn sizes them."""
        body: list[LoopStatement] = []
        for statement in loop.body:
            if isinstance(statement, Allocate) and not any(
                isinstance(node, Local) for part in statement.extents for node in postorder(part)
            ):
                self._allocate(statement)
            else:
                body.append(statement)
        return body

    def _bounds(self, loop: For, siblings: int, memo: Memo) -> tuple[str, str]:
        if loop.step == 0:
            raise BackendError(f"internal: the step of loop {loop.index} is 0")
        if loop.kind == "parallel":
            plain = loop.step == 1 and not loop.carried and _is_zero(loop.lower)
            if self._depth != 1 or siblings != 1 or not plain:
                raise BackendError(
                    f"internal: parallel loop {loop.index} is not alone at the top of its "
                    "function, from 0 in steps of 1, carrying nothing"
                )
            return "%begin", "%end"
        if loop.kind not in ("serial", "vector", "unroll"):
            raise BackendError(f"internal: there is no kind of loop {loop.kind!r}")
        return self._integer(loop.lower, memo), self._integer(loop.upper, memo)

    def _unrolled(self, loop: For, turns: range) -> Steps:
        """The body once for each turn, with the index as a literal."""
        carried = CarriedValues(loop.carried, self.scope, Memo())
        carried.bind(carried.initial)
        updates = self._mark_updates(loop)
        self._copies *= len(turns)
        for index in turns:
            self.scope.values[loop.index] = Value(i64, (), literal=index, affine=True)
            yield loop.body
            carried.bind(carried.yielded(loop.yields))
        self._copies //= len(turns)
        self._unmark(updates)

    def _known_turns(self, loop: For) -> range | None:
        """The indices of a loop that is to be unrolled and may be."""
        if loop.kind != "unroll" or loop.step == 0:
            return None
        if not (isinstance(loop.lower, Literal) and isinstance(loop.upper, Literal)):
            return None
        lower, upper = int(loop.lower.value.real), int(loop.upper.value.real)
        turns = range(lower, upper, loop.step)
        if loop.step < 0:
            turns = range(upper - 1, lower - 1, loop.step)
        few = len(turns) <= MOST_TURNS and len(turns) * self._copies <= MOST_COPIES
        return turns if turns and few else None

    def _while(self, loop: While) -> Steps:
        builder = self.builder
        carried = CarriedValues(loop.carried, self.scope, Memo())
        label, inside, done = (builder.label(x) for x in ("while", "body", "done"))
        before = builder.block
        builder.jump(label)
        builder.start(label)
        carried.enter()
        condition = evaluate(loop.condition, self.scope, Memo())
        builder.branch(truth(builder, settled(condition)), inside, done)
        entered = {item.name: self.scope.values[item.name] for item in loop.carried}
        builder.start(inside)
        yield loop.body
        final = carried.yielded(loop.yields)
        latch = builder.block
        builder.jump(label)
        carried.close(before, final, latch)
        builder.start(done)
        self.scope.values.update(entered)

    # ---- branches -------------------------------------------------------------------------

    def _if(self, statement: If) -> Steps:
        builder, memo = self.builder, Memo()
        carried = CarriedValues(statement.carried, self.scope, memo)
        condition = truth(builder, settled(evaluate(statement.condition, self.scope, memo)))
        yes, no, done = (builder.label(x) for x in ("then", "else", "end"))
        builder.branch(condition, yes, no)
        ends = []
        for label, body, yields in (
            (yes, statement.then, statement.then_yields),
            (no, statement.otherwise, statement.otherwise_yields),
        ):
            builder.start(label)
            carried.bind(carried.initial)
            yield body
            final = carried.yielded(yields) if yields else carried.initial
            ends.append((final, builder.block))
            builder.jump(done)
        builder.start(done)
        (first, first_block), (second, second_block) = ends
        carried.leave(first, first_block, second, second_block)

    # ---- accumulators -----------------------------------------------------------------------

    def _mark_updates(self, loop: For) -> dict[bytes, Flags] | None:
        """Note which operations of a loop update its accumulators; what was noted before."""
        if not self.scope.reassociate or not loop.carried:
            return None
        outer = self.scope.accumulations
        updates = carried_updates(loop.carried, loop.yields, loop.body)
        self.scope.accumulations = {**outer, **updates}
        return outer

    def _unmark(self, outer: dict[bytes, Flags] | None) -> None:
        if outer is not None:
            self.scope.accumulations = outer

    # ---- straight-line statements ---------------------------------------------------------

    def _store(self, statement: Store) -> None:
        scope, memo = self.scope, Memo()
        outer = scope.accumulations
        if scope.reassociate and (updates := stored_updates(statement)):
            scope.accumulations = {**outer, **updates}
        value = evaluate(statement.value, scope, memo)
        scope.accumulations = outer
        indices = [evaluate_index(index, scope, memo) for index in statement.indices]
        store(self.builder, scope.buffer(statement.buffer), indices, value, scope.aliases)

    def _stream(self, statement: Stream) -> None:
        """`emit_stream` is imported where it is needed: few programs have results so large."""
        from einloom.backends.cpu.emit_stream import stream

        scope, memo, source = self.scope, Memo(), statement.source
        places = []
        for name, wanted in (
            (statement.buffer, statement.indices),
            (source.buffer, source.indices),
        ):
            buffer = scope.buffer(name)
            if not buffer.strides or buffer.strides[-1] != item_size(buffer.dtype):
                raise BackendError(
                    f"internal: {name} is streamed, whose last dimension is not dense"
                )
            indices = [evaluate_index(index, scope, memo) for index in wanted]
            places.append(address(self.builder, buffer, indices))
        count = self._integer(statement.count, memo)
        stream(self.builder, places[0], places[1], count, item_size(buffer.dtype))
        self.streams = True

    def _transpose(self, statement: Transpose) -> None:
        memo = Memo()
        values = [settled(evaluate(value, self.scope, memo)) for value in statement.values]
        for name, value in zip(statement.names, transposed(self.builder, values), strict=True):
            self.scope.values[name] = value

    def _allocate(self, statement: Allocate) -> None:
        memo = Memo()
        extents: list[int | str] = []
        for extent in statement.extents:
            value = evaluate_index(extent, self.scope, memo)
            literal = value.literal
            extents.append(literal if isinstance(literal, int) else value.only)
        self.scope.buffers[statement.name] = self.workspaces.allocate(statement, extents)

    def _check(self, statement: Check) -> None:
        builder, memo = self.builder, Memo()
        if statement.fault < 1:
            raise BackendError(f"internal: fault {statement.fault} is not from 1 on")
        condition = truth(builder, settled(evaluate(statement.condition, self.scope, memo)))
        failed, passed = builder.label("fault"), builder.label("passed")
        builder.branch(condition, passed, failed, self.workspaces.unlikely)
        builder.start(failed)
        for place, expression in enumerate((statement.value, statement.limit)):
            # As a plain value: an index that failed its check may well have overflowed.
            value = convert(builder, settled(evaluate(expression, self.scope, memo)), i64).only
            pointer = f"getelementptr inbounds i8, ptr %fault, i64 {8 * place}"
            builder.line(f"store i64 {value}, ptr {builder.value(pointer)}, align 8")
        self.workspaces.leave(str(statement.fault))
        builder.start(passed)

    def _call(self, statement: CallKernel) -> None:
        """Run another function to its end; its fault is this one's."""
        callee = self.functions.get(statement.kernel)
        if callee is None:
            raise BackendError(f"internal: the program has no kernel {statement.kernel}")
        counts = (len(statement.buffers), len(statement.scalars))
        if counts != (len(callee.buffers), len(callee.scalars)):
            raise BackendError(f"internal: kernel {callee.name} is called with other arguments")
        builder, memo = self.builder, Memo()
        scalars = [self._integer(scalar, memo) for scalar in statement.scalars]
        handles = [self.scope.buffer(name) for name in statement.buffers]
        strides = [str(stride) for handle in handles for stride in handle.strides]
        bases = self.workspaces.array("ptr", [handle.pointer for handle in handles])
        parameters = self.workspaces.array("i64", [*scalars, *strides])
        end = self._slices(callee, scalars)
        result = builder.value(
            f"call i32 {global_name(entry_symbol(callee.name))}"
            f"(ptr {bases}, ptr {parameters}, i64 0, i64 {end}, ptr %fault)"
        )
        failed, passed = builder.label("fault"), builder.label("passed")
        fine = builder.compare("icmp eq", "i32", result, "0")
        builder.branch(fine, passed, failed, self.workspaces.unlikely)
        builder.start(failed)
        self.workspaces.leave(result)
        builder.start(passed)

    def _slices(self, callee: LoopFunction, scalars: list[str]) -> str:
        """The extent of a function's parallel loop, 0 where it has none."""
        first = callee.body[0] if len(callee.body) == 1 else None
        if not (isinstance(first, For) and first.kind == "parallel"):
            return "0"
        symbols = {
            name: Value(i64, (text,), weak=True, affine=True)
            for name, text in zip(callee.scalars, scalars, strict=True)
        }
        inside = Scope(self.builder, reassociate=False, symbols=symbols)
        value = evaluate_index(first.upper, inside, Memo())
        return value.only if value.literal is None else str(value.literal)

    # ---- values ---------------------------------------------------------------------------

    def _integer(self, expression: Expression, memo: Memo) -> str:
        value = evaluate_index(expression, self.scope, memo)
        return value.only if value.literal is None else str(value.literal)


def _is_zero(expression: Expression) -> bool:
    return isinstance(expression, Literal) and expression.value == 0
