"""A program as one LLVM module: kernels for every level, the entry, messages, constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from einloom.backends.cpu import jit
from einloom.backends.cpu.builder import ModuleBuilder
from einloom.backends.cpu.codegen import emit
from einloom.backends.cpu.export.dispatch import (
    entry_function,
    level_function,
    needs_dispatch,
)
from einloom.backends.cpu.export.entry import (
    Embedded,
    EntryEmitter,
    kernel_symbol,
    result_name,
)
from einloom.backends.cpu.export.header import header
from einloom.backends.cpu.export.interface import (
    Interface,
    Member,
    interface_of,
    refuse_quantized,
)
from einloom.backends.cpu.export.processors import Level, Processor
from einloom.backends.cpu.export.slices import LAUNCH_CALLS, LAUNCH_FUNCTION
from einloom.backends.cpu.library import entry_symbol
from einloom.backends.cpu.target import Target, host, llvm_for
from einloom.ir.errors import BackendError, UnsupportedError
from einloom.ir.expressions import Literal, Local, Symbol
from einloom.ir.loops import (
    Buffer,
    For,
    Launch,
    Load,
    LoopFunction,
    LoopProgram,
    LoopStatement,
    Store,
    buffer_name,
)
from einloom.ir.program import Constant, Module
from einloom.ir.record import record
from einloom.ir.types import Tuple

Array = np.ndarray[Any, Any]


@record
class Library:
    """A program for C: the text of its LLVM module and what it shows."""

    interface: Interface
    text: str

    @property
    def header(self) -> str:
        return header(self.interface)

    def optimized(self) -> str:
        """The LLVM module after LLVM's passes."""
        self._need_assembler()
        return jit.optimized(self.text, self.interface.processor.base)

    def assembly(self) -> str:
        self._need_assembler()
        return jit.assembly(self.text, self.interface.processor.base)

    def object_code(self) -> bytes:
        """A relocatable ELF file, position-independent."""
        self._need_assembler()
        return jit.compile_object(self.text, self.interface.processor.base)

    def _need_assembler(self) -> None:
        """LLVM's assembler reads the few instructions that find the level of the processor."""
        processor = self.interface.processor
        if not needs_dispatch(processor):
            return
        if host().architecture != processor.base.architecture:
            raise UnsupportedError(
                f"libraries for {processor.architecture} are made on such machines only",
                suggestion="--emit llvm works here, and LLVM's own tools take what it prints",
            )
        llvm_for(processor.base.architecture).initialize_native_asmparser()


def library_of(
    module: Module,
    lower: Callable[[Target], LoopProgram],
    constants: Mapping[str, Array],
    processor: Processor,
    name: str | None = None,
) -> Library:
    """A module as a library for C; `lower` makes its loops, `constants` are its arrays.

    Loops may rely on the last rank of inputs and results being contiguous, and on nothing else.
    `name` replaces the program's name as that of the entry. Raises UnsupportedError for what C
    cannot hand over and for what the backend does not build.
    """
    refuse_quantized(module)
    programs = [lower(processor.target(level)) for level in processor.levels]
    interface = interface_of(module, programs, processor, name)
    programs = [_with_copies(program, interface) for program in programs]
    kernels = [
        _kernels(program, processor, level)
        for program, level in zip(programs, processor.levels, strict=True)
    ]
    entry = _entry(module, interface, programs, constants)
    return Library(interface, _linked(processor, entry, kernels, programs))


# ---- results that no kernel computes --------------------------------------------------------


def _with_copies(program: LoopProgram, interface: Interface) -> LoopProgram:
    """The program with kernels that copy inputs and constants that are results, too."""
    stored = {storage.name: storage for storage in program.storages}
    functions, launches = list(program.functions), list(program.launches)
    for member in interface.outputs:
        if member.name in stored:
            if stored[member.name].extents != member.type.extents:
                raise BackendError(f"internal: only a part of the result {member.name} is stored")
            continue
        dtype = member.type.dtype
        for part, item in enumerate(dtype.items if isinstance(dtype, Tuple) else (dtype,)):
            component = part if isinstance(dtype, Tuple) else None
            copy = _copy(f"copy{len(functions)}", member, component, item)
            functions.append(copy)
            extents = member.type.extents
            launches.append(Launch(copy.name, extents, None, Literal(1)))
    return replace(program, functions=tuple(functions), launches=tuple(launches))


def _copy(name: str, member: Member, component: int | None, dtype: Any) -> LoopFunction:
    """A function that copies one component of a tensor."""
    aligned = component is None
    free = (None,) * member.rank
    source = Buffer(buffer_name(member.name, component), dtype, free, "in", aligned)
    target = buffer_name(result_name(member.name), component)
    destination = Buffer(target, dtype, free, "out", aligned)
    sizes = [f"size{rank}" for rank in range(member.rank)]
    indices = tuple(Local(f"at{rank}") for rank in range(member.rank))
    body: LoopStatement = Store(destination.name, indices, Load(source.name, indices))
    for rank in reversed(range(member.rank)):
        body = For(f"at{rank}", Literal(0), Symbol(sizes[rank]), (body,))
    return LoopFunction(name, (source, destination), tuple(sizes), (body,))


# ---- the parts of the module ----------------------------------------------------------------


def _kernels(program: LoopProgram, processor: Processor, level: Level) -> str:
    """The kernels of one level. Its features stand on every function."""
    target = processor.target(level)
    attribute = f'"target-features"="{target.feature_text}"'
    lines = []
    for line in emit(program, target).splitlines():
        if line.startswith("define ") and line.endswith("{"):
            line = f"{line[:-1]}{attribute} {{"
        lines.append(line)
    return "\n".join(lines)


def _entry(
    module: Module,
    interface: Interface,
    programs: Sequence[LoopProgram],
    constants: Mapping[str, Array],
) -> str:
    """The entry, what it calls, and what it reads."""
    processor = interface.processor
    builder = ModuleBuilder(processor.base)
    types = {s.name: s.type.dtype for s in module.body if isinstance(s, Constant)}
    embedded = {
        name: Embedded(f"einloom.constant.{number}", types[name], array.shape)
        for number, (name, array) in enumerate(constants.items())
    }
    for name, array in constants.items():
        builder.add(_global(embedded[name].symbol, np.ascontiguousarray(array).tobytes()))
    if needs_dispatch(processor):
        builder.add(level_function(builder, processor))
    for name, (result, arguments) in LAUNCH_CALLS.items():
        builder.declare(name, result, arguments, "nounwind")
    builder.add(LAUNCH_FUNCTION)
    for level, program in zip(processor.levels, programs, strict=True):
        builder.add(EntryEmitter(builder, interface, level, program, embedded).text())
        for function in program.functions:
            symbol = kernel_symbol(function.name, level)
            builder.declare(symbol, "i32", ["ptr", "ptr", "i64", "i64", "ptr"], "nounwind")
    builder.add(entry_function(builder, interface.name, processor))
    builder.add(_message_function(interface))
    return builder.text()


def _message_function(interface: Interface) -> str:
    """`ptr @NAME_message(i32 code)`."""
    texts, cases, blocks = [], [], []
    for code, message in sorted(interface.messages.items()):
        symbol = f"einloom.message.{code}"
        texts.append(_global(symbol, message.encode("utf-8", "replace") + b"\0", 1))
        cases.append(f"    i32 {code}, label %code.{code}")
        blocks.append(f"code.{code}:\n  ret ptr @{symbol}")
    texts.append(_global("einloom.message.unknown", b"no code of this library\0", 1))
    head = f"define ptr @{interface.name}_message(i32 %code) nounwind {{"
    switch = ["entry:", "  switch i32 %code, label %unknown [", *cases, "  ]"]
    last = "unknown:\n  ret ptr @einloom.message.unknown\n}"
    return "\n".join([*texts, head, *switch, *blocks, last])


def _global(symbol: str, data: bytes, alignment: int = 64) -> str:
    if any(data):
        digits = data.hex().upper()
        pairs = "".join([f"\\{digits[at : at + 2]}" for at in range(0, len(digits), 2)])
        value = f'c"{pairs}"'
    else:
        value = "zeroinitializer"
    return f"@{symbol} = internal constant [{len(data)} x i8] {value}, align {alignment}"


def _linked(
    processor: Processor, entry: str, kernels: Sequence[str], programs: Sequence[LoopProgram]
) -> str:
    """One module of all parts; only the entry and the messages are seen outside."""
    binding = llvm_for(processor.base.architecture)
    context = binding.create_context()
    try:
        whole = binding.parse_assembly(entry, context)
        for level, text, program in zip(processor.levels, kernels, programs, strict=True):
            part = binding.parse_assembly(text, context)
            for function in program.functions:
                found = part.get_function(entry_symbol(function.name))
                found.name = kernel_symbol(function.name, level)
            whole.link_in(part)
        for level, program in zip(processor.levels, programs, strict=True):
            for function in program.functions:
                whole.get_function(kernel_symbol(function.name, level)).linkage = "internal"
        return str(whole)
    except RuntimeError as error:
        raise BackendError(f"internal: LLVM refuses the generated text: {error}") from error
