"""From a loop program to the text of an LLVM module."""

from __future__ import annotations

from collections.abc import Iterator

from einloom.backends.cpu.builder import FunctionBuilder, ModuleBuilder, global_name
from einloom.backends.cpu.emit_expression import Scope
from einloom.backends.cpu.emit_memory import BufferHandle, alias_metadata
from einloom.backends.cpu.emit_statement import StatementEmitter
from einloom.backends.cpu.library import entry_symbol
from einloom.backends.cpu.target import Target
from einloom.backends.cpu.values import Value, register_type
from einloom.ir.errors import BackendError, UnsupportedError
from einloom.ir.loops import (
    Allocate,
    Buffer,
    For,
    If,
    LoopFunction,
    LoopProgram,
    LoopStatement,
    While,
)
from einloom.ir.types import i64


def emit(program: LoopProgram, target: Target) -> str:
    """The LLVM module of a program: one entry per function, with the convention of LoopFunction.

    An entry returns 0, the number of the fault that a `check` names, or -1 where memory for a
    workspace ran out. The text depends on nothing but the arguments; the target's features decide
    how f16 is converted.

    Raises UnsupportedError for what this backend does not build, naming the node.
    """
    module = ModuleBuilder(target)
    functions = {function.name: function for function in program.functions}
    if len(functions) != len(program.functions):
        raise BackendError("internal: two functions of a loop program have one name")
    for function in program.functions:
        module.add(_function(module, function, functions))
    return module.text()


def _function(
    module: ModuleBuilder, function: LoopFunction, functions: dict[str, LoopFunction]
) -> str:
    builder = FunctionBuilder(module)
    scope = Scope(builder, function.reassociate)
    _bind_parameters(builder, function, scope)
    workspaces = [x.name for x in _statements(function.body) if isinstance(x, Allocate)]
    inputs = [buffer.name for buffer in function.buffers if buffer.role == "in"]
    outputs = [buffer.name for buffer in function.buffers if buffer.role != "in"]
    scope.aliases = alias_metadata(builder, inputs, outputs + workspaces)
    emitter = StatementEmitter(builder, scope, functions)
    emitter.run(function.body)
    if emitter.streams:
        from einloom.backends.cpu.emit_stream import fence

        fence(builder)
    builder.line("ret i32 0")
    parameters = (
        "ptr noalias readonly %bases, ptr noalias readonly %parameters, "
        "i64 %begin, i64 %end, ptr noalias %fault"
    )
    name = global_name(entry_symbol(function.name))
    lines = ["entry:", *emitter.entry_lines, *builder.lines]
    return "\n".join([f"define i32 {name}({parameters}) nounwind {{", *lines, "}"])


def _bind_parameters(builder: FunctionBuilder, function: LoopFunction, scope: Scope) -> None:
    """Load scalars, runtime strides and base addresses, once."""
    position = 0
    for symbol in function.scalars:
        text = _parameter(builder, position)
        scope.symbols[symbol] = Value(i64, (text,), weak=True, affine=True)
        position += 1
    for number, buffer in enumerate(function.buffers):
        if buffer.name in scope.buffers:
            raise BackendError(f"internal: kernel {function.name} has two buffers {buffer.name}")
        _refuse(buffer)
        strides: list[int | str] = []
        for stride in buffer.strides:
            strides.append(_parameter(builder, position) if stride is None else stride)
            position += 1
        place = _element_pointer(builder, "%bases", number)
        pointer = builder.value(f"load ptr, ptr {place}, align 8")
        scope.buffers[buffer.name] = BufferHandle(
            buffer.name, buffer.dtype, pointer, tuple(strides), buffer.aligned
        )


def _refuse(buffer: Buffer) -> None:
    try:
        register_type(buffer.dtype)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{error.message} (buffer {buffer.name})", location=buffer.location
        ) from None


def _parameter(builder: FunctionBuilder, position: int) -> str:
    place = _element_pointer(builder, "%parameters", position)
    return builder.value(f"load i64, ptr {place}, align 8")


def _element_pointer(builder: FunctionBuilder, array: str, position: int) -> str:
    if position == 0:
        return array
    return builder.value(f"getelementptr inbounds i8, ptr {array}, i64 {8 * position}")


def _statements(body: tuple[LoopStatement, ...]) -> Iterator[LoopStatement]:
    """Every statement at any depth, in order."""
    stack = list(reversed(body))
    while stack:
        statement = stack.pop()
        yield statement
        match statement:
            case For() | While():
                stack.extend(reversed(statement.body))
            case If():
                stack.extend(reversed((*statement.then, *statement.otherwise)))
