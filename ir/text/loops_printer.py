"""Every node of the loops level as canonical text: `parse_loops(show(program)) == program`."""

from __future__ import annotations

from collections.abc import Iterable

from einloom.ir.errors import UnsupportedError
from einloom.ir.expressions import Access, Apply, Expression, Index, Pack, Project
from einloom.ir.loops import (
    Across,
    Allocate,
    Append,
    AtomicAdd,
    Buffer,
    CallKernel,
    Carried,
    Check,
    Dot,
    FaultSite,
    For,
    HashInsert,
    HashLookup,
    If,
    Launch,
    Let,
    Load,
    LoopFunction,
    LoopProgram,
    LoopStatement,
    PackPanel,
    Prefetch,
    Search,
    Splat,
    Storage,
    Store,
    Stream,
    TileMultiply,
    Transpose,
    Vector,
    While,
)
from einloom.ir.node import Node
from einloom.ir.ops import OPS, is_flat
from einloom.ir.text.expression_text import EXTENT, INDEX, ExpressionPrinter, Piece, separated
from einloom.ir.text.operators import LEVELS, SUM
from einloom.ir.text.spelling import LOOP_RESERVED, spell_name, spell_string
from einloom.ir.text.type_text import dtype_text
from einloom.ir.types import DType, Scalar

INDENT = "  "

Line = tuple[str, LoopStatement | str]
"""Indentation, and a line or a statement of one or more lines."""


def show_loops(node: Node) -> str:
    """The canonical text of a node of the loops level.

    The text of a program ends with a newline; every other text has none at its end. Raises
    UnsupportedError for a node that does not belong there.
    """
    return LoopPrinter().show(node)


class ValuePrinter(ExpressionPrinter):
    """Prints the expressions of a kernel, in which operations stay nested as they are."""

    def pieces(self, expression: Expression, level: int, position: int) -> str | list[Piece]:
        match expression:
            case Load():
                head = self.spell(expression.buffer)
                if expression.lanes != 1:
                    head += f"<{expression.lanes}>"
                return [head + "[", *separated(expression.indices, INDEX), "]"]
            case Splat():
                return [f"splat<{expression.lanes}>(", (expression.value, 0, position), ")"]
            case Dot():
                parts = (expression.sums, expression.left, expression.right)
                return [f"dot<{expression.terms}>(", *separated(parts, position), ")"]
            case Across():
                return [f"across {expression.op}(", (expression.value, 0, position), ")"]
            case Search():
                head = f"search({self.spell(expression.buffer)}, "
                bounds = (expression.lower, expression.upper, expression.key)
                return [head, *separated(bounds, position), ")"]
            case HashLookup():
                head = f"hash lookup({self.spell(expression.buffer)}, "
                return [head, *separated((expression.key, expression.default), position), ")"]
            case Access() | Index() | Pack() | Project():
                raise UnsupportedError(f"{type(expression).__name__} does not belong in loops")
        return super().pieces(expression, level, position)

    def dtype_name(self, dtype: DType) -> str | None:
        """The text of a dtype that may stand in front of what is cast to it."""
        plain = isinstance(dtype, Vector) and isinstance(dtype.element, Scalar)
        return dtype_text(dtype) if plain else super().dtype_name(dtype)

    def application(self, apply: Apply, level: int, position: int) -> list[Piece]:
        if apply.op == "ceildiv" and position == INDEX:
            return ["ceildiv(", *separated(apply.arguments, position), ")"]
        return super().application(apply, level, position)

    def infix(self, apply: Apply, position: int) -> list[Piece]:
        pieces = super().infix(apply, position)
        first = apply.arguments[0]
        if is_flat(apply.op) and isinstance(first, Apply) and first.op == apply.op:
            symbol = OPS[apply.op].symbol
            assert symbol is not None
            pieces[0] = (first, LEVELS[symbol] + 1, position)
        return pieces

    def index_sum(self, apply: Apply, position: int) -> list[Piece]:
        first, *rest = apply.arguments
        pieces: list[Piece] = [(first, SUM, position)]
        for term in rest:
            pieces += (f" {OPS[apply.op].symbol} ", (term, SUM + 1, position))
        return pieces


class LoopPrinter:
    """Prints nodes of the loops level."""

    def __init__(self) -> None:
        self.spelled: dict[str, str] = {}
        self.values = ValuePrinter(self.spell)

    def spell(self, name: str) -> str:
        found = self.spelled.get(name)
        if found is None:
            found = self.spelled[name] = spell_name(name, LOOP_RESERVED)
        return found

    def value(self, expression: Expression) -> str:
        return self.values.text(expression)

    def place(self, expression: Expression) -> str:
        """A bound, an index or an extent."""
        return self.values.text(expression, INDEX)

    def listed(self, expressions: Iterable[Expression]) -> str:
        return ", ".join(map(self.value, expressions))

    def places(self, expressions: Iterable[Expression]) -> str:
        return ", ".join(map(self.place, expressions))

    def extent(self, expression: Expression) -> str:
        """An expression over the symbols of the program."""
        return self.values.text(expression, EXTENT)

    def extents(self, expressions: Iterable[Expression]) -> str:
        return ", ".join(map(self.extent, expressions))

    def show(self, node: Node) -> str:
        match node:
            case LoopProgram():
                return self.program(node)
            case LoopFunction():
                return "\n".join(self.function(node))
            case LoopStatement():
                return "\n".join(self.lines((node,), ()))
            case Expression():
                return self.value(node)
            case Carried():
                return self.carried(node)
            case Buffer():
                return self.buffer(node)
            case Storage():
                extents = self.extents(node.extents)
                return f"storage {self.spell(node.name)}: {dtype_text(node.dtype)}[{extents}]"
            case Launch():
                return self.launch(node)
            case FaultSite():
                message = spell_string(node.message)
                return f"fault {self.spell(node.function)} {node.number} {message}"
        raise UnsupportedError(f"{type(node).__name__} has no text form")

    # -- program

    def program(self, program: LoopProgram) -> str:
        parts = ["\n".join(self.function(function)) for function in program.functions]
        for group in (program.storages, program.launches, program.faults):
            if group:
                parts.append("\n".join(map(self.show, group)))
        return "\n\n".join(parts) + "\n" if parts else ""

    def function(self, function: LoopFunction) -> list[str]:
        parameters = ", ".join(map(self.buffer, function.buffers))
        if function.scalars:
            parameters += "; " + ", ".join(map(self.spell, function.scalars))
        strict = "" if function.reassociate else " strict"
        head = f"kernel {self.spell(function.name)}({parameters}){strict} {{"
        return [head, *self.lines(function.body, (), INDENT), "}"]

    def buffer(self, buffer: Buffer) -> str:
        strides = ", ".join("?" if stride is None else str(stride) for stride in buffer.strides)
        text = f"{buffer.role} {self.spell(buffer.name)}: {dtype_text(buffer.dtype)}[{strides}]"
        return text if buffer.aligned else text + " unaligned"

    def launch(self, launch: Launch) -> str:
        text = f"launch {self.spell(launch.function)}({self.extents(launch.scalars)})"
        if launch.slices is not None:
            text += f" slices {self.extent(launch.slices)}"
        return f"{text} work {self.extent(launch.work)}"

    # -- statements

    def lines(
        self, body: tuple[LoopStatement, ...], yields: tuple[Expression, ...], indent: str = ""
    ) -> list[str]:
        """The lines of a block; blocks inside it do not recurse."""
        found: list[str] = []
        pending = self.block(body, yields, indent)[::-1]
        while pending:
            indent, item = pending.pop()
            if isinstance(item, str):
                found.append(indent + item)
            elif isinstance(item, For | While | If):
                pending.extend(reversed(self.nested(item, indent)))
            else:
                found.append(indent + self.plain(item))
        return found

    def block(
        self, body: tuple[LoopStatement, ...], yields: tuple[Expression, ...], indent: str
    ) -> list[Line]:
        lines: list[Line] = [(indent, statement) for statement in body]
        if yields:
            lines.append((indent, f"yield {self.listed(yields)}"))
        return lines

    def nested(self, statement: For | While | If, indent: str) -> list[Line]:
        """The lines and inner statements of a statement that holds blocks."""
        inner = indent + INDENT
        carry = self.carry(statement.carried)
        match statement:
            case For():
                head = f"{self.loop_head(statement)}{carry} {{"
            case While() | If():
                word = "while" if isinstance(statement, While) else "if"
                head = f"{word} {self.value(statement.condition)}{carry} {{"
        if not isinstance(statement, If):
            inside = self.block(statement.body, statement.yields, inner)
            return [(indent, head), *inside, (indent, "}")]
        then = self.block(statement.then, statement.then_yields, inner)
        other = self.block(statement.otherwise, statement.otherwise_yields, inner)
        between: list[Line] = [(indent, "} else {"), *other] if other else []
        return [(indent, head), *then, *between, (indent, "}")]

    def loop_head(self, loop: For) -> str:
        kind = "" if loop.kind == "serial" else f"{loop.kind} "
        bounds = f"{self.place(loop.lower)} .. {self.place(loop.upper)}"
        step = "" if loop.step == 1 else f" step {loop.step}"
        return f"for {kind}{self.spell(loop.index)} in {bounds}{step}"

    def carried(self, item: Carried) -> str:
        return f"{self.spell(item.name)}: {dtype_text(item.dtype)} = {self.value(item.initial)}"

    def carry(self, items: tuple[Carried, ...]) -> str:
        return f" carry ({', '.join(map(self.carried, items))})" if items else ""

    def plain(self, statement: LoopStatement) -> str:
        match statement:
            case Let():
                return f"let {self.spell(statement.name)} = {self.value(statement.value)}"
            case Transpose():
                names = ", ".join(map(self.spell, statement.names))
                return f"transpose ({names}) = ({self.listed(statement.values)})"
            case Store():
                return f"{self.cell(statement)} = {self.value(statement.value)}"
            case Stream():
                source, count = self.value(statement.source), self.value(statement.count)
                return f"stream {self.cell(statement)} = {source}, {count}"
            case Prefetch():
                role = " out" if statement.role == "out" else ""
                return f"prefetch {self.cell(statement)}{role}"
            case AtomicAdd():
                return f"atomic {self.cell(statement)} += {self.value(statement.value)}"
            case Allocate():
                extents = self.places(statement.extents)
                head = f"alloc {self.spell(statement.name)}: {dtype_text(statement.dtype)}"
                return f"{head}[{extents}] {statement.storage}"
            case Check():
                reported = self.listed((statement.value, statement.limit))
                condition = self.value(statement.condition)
                return f"check {condition}, fault {statement.fault} ({reported})"
            case CallKernel():
                buffers = ", ".join(map(self.spell, statement.buffers))
                scalars = f"; {self.listed(statement.scalars)}" if statement.scalars else ""
                return f"call kernel {self.spell(statement.kernel)}({buffers}{scalars})"
        return self.sparse_or_tile(statement)

    def cell(self, statement: Store | Stream | Prefetch | AtomicAdd) -> str:
        return f"{self.spell(statement.buffer)}[{self.places(statement.indices)}]"

    def sparse_or_tile(self, statement: LoopStatement) -> str:
        match statement:
            case Append():
                return f"append {self.spell(statement.buffer)}, {self.value(statement.value)}"
            case HashInsert():
                cell = f"{self.spell(statement.buffer)}[{self.place(statement.key)}]"
                return f"hash insert {cell} {statement.op}= {self.value(statement.value)}"
            case TileMultiply():
                dtypes = ",".join(map(dtype_text, statement.dtypes))
                parameters = f"{','.join(map(str, statement.shape))},{dtypes}"
                result, left, right = map(
                    self.value, (statement.result, statement.left, statement.right)
                )
                return f"mma<{parameters}> {result} += {left} * {right}"
            case PackPanel():
                head = f"pack {self.spell(statement.destination)} = {self.value(statement.source)}"
                block = self.listed((statement.rows, statement.columns))
                return f"{head} block ({block}) panel<{statement.width}>"
        raise UnsupportedError(f"{type(statement).__name__} has no text form")
