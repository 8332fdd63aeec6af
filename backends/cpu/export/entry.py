"""LLVM IR of a program's run: arguments checked, intermediates allocated, kernels launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from einloom.backends.cpu.builder import FunctionBuilder, ModuleBuilder
from einloom.backends.cpu.emit_workspace import ALIGNMENT, MOST_WORKSPACE_BYTES
from einloom.backends.cpu.export.interface import (
    LAYOUT,
    MEMORY,
    NULL,
    SIZE,
    Interface,
    Member,
    SizeMember,
)
from einloom.backends.cpu.export.processors import Level
from einloom.backends.cpu.export.sizes import SizeEmitter
from einloom.backends.cpu.export.slices import LAUNCH
from einloom.backends.cpu.library import entry_symbol
from einloom.ir.errors import BackendError
from einloom.ir.loops import Launch, LoopFunction, LoopProgram, Storage, tensor_of
from einloom.ir.promotion import numpy_dtype
from einloom.ir.record import record
from einloom.ir.types import DType, Tuple

MOST_WORK = 2**62


@record
class Placed:
    """A tensor while the entry runs: its address, the strides in bytes, offsets of components."""

    address: str
    strides: tuple[str, ...]
    offsets: tuple[int, ...]


@record
class Embedded:
    """A constant: the global that holds it, its dtype and its shape."""

    symbol: str
    dtype: DType
    shape: tuple[int, ...]


def run_symbol(level: Level) -> str:
    return f"einloom.run.{level.suffix}"


def kernel_symbol(function: str, level: Level) -> str:
    return f"{entry_symbol(function)}.{level.suffix}"


def result_name(tensor: str) -> str:
    """The name, within the entry, of a result that is an input or a constant, too.

    Programs cannot spell it.
    """
    return f"result of {tensor}"


class EntryEmitter:
    """Builds the function that runs a program by the kernels of one level: `i32 (ptr arguments)`.

    `program` is what the module was lowered to for that level; `constants` are the globals that
    hold the program's constants.
    """

    def __init__(
        self,
        module: ModuleBuilder,
        interface: Interface,
        level: Level,
        program: LoopProgram,
        constants: dict[str, Embedded],
    ) -> None:
        self.interface = interface
        self.level = level
        self.program = program
        self.functions = {function.name: function for function in program.functions}
        self.builder = FunctionBuilder(module)
        self.stack: list[str] = []
        self.tensors: dict[str, Placed] = {}
        self._emit(constants)

    def text(self) -> str:
        head = f"define internal i32 @{run_symbol(self.level)}(ptr %arguments) nounwind {{"
        return "\n".join([head, "entry:", *self.stack, *self.builder.lines, "}"])

    def _emit(self, constants: dict[str, Embedded]) -> None:
        builder = self.builder
        self.result = self._reserve("i32", 4)
        self.fault = self._reserve("[2 x i64]", 8)
        self.memory = self._reserve("ptr", 8)
        builder.line(f"store i32 0, ptr {self.result}, align 4")
        builder.line(f"store ptr null, ptr {self.memory}, align 8")
        builder.line(f"store [2 x i64] zeroinitializer, ptr {self.fault}, align 8")
        self._require(builder.compare("icmp ne", "ptr", "%arguments", "null"), NULL)
        self.threads = builder.convert(
            "sext", "i32", self._argument("i32", self.interface.threads_place), "i64"
        )
        self._sizes()
        for member in self.interface.tensors:
            self._member(member)
        for name, constant in constants.items():
            self._constant(name, constant)
        self._intermediates()
        for launch in self.program.launches:
            self._launch(launch)
        builder.jump("leave")
        builder.start("leave")
        memory = builder.value(f"load ptr, ptr {self.memory}, align 8")
        builder.module.declare("free", "void", ["ptr"], "nounwind")
        builder.line(f"call void @free(ptr {memory})")
        builder.line(f"ret i32 {builder.value(f'load i32, ptr {self.result}, align 4')}")

    # ---- arguments ------------------------------------------------------------------------

    def _sizes(self) -> None:
        """Symbols from the arguments; every extent as the program's types have it."""
        builder, symbols = self.builder, {}
        for name, source in self.interface.bindings.items():
            place = (
                source.place
                if isinstance(source, SizeMember)
                else source[0].extent_place(source[1])
            )
            symbols[name] = self._argument("i64", place)
        self.sizes = SizeEmitter(builder, symbols)
        # Signs first: with negative symbols the equations would be misread.
        for sign in self.interface.signs:
            value = self.sizes.emit(sign.extent)
            self._require_sound()
            self._require(builder.compare("icmp sge", "i64", value, "0"), sign.code)
        for equation in self.interface.equations:
            if isinstance(equation.left, tuple):
                member, rank = equation.left
                left = self._argument("i64", member.extent_place(rank))
            else:
                left = self.sizes.emit(equation.left)
            right = self.sizes.emit(equation.right)
            self._require_sound()
            self._require(builder.compare("icmp eq", "i64", left, right), equation.code)

    def _require_sound(self, code: int = SIZE) -> None:
        flag = self.sizes.take_flag()
        if flag is not None:
            self._require(self.builder.op("xor", "i1", flag, "true"), code)

    def _member(self, member: Member) -> None:
        """The address and the strides of a tensor among the arguments, checked."""
        builder = self.builder
        address = self._argument("ptr", member.place)
        extents = [self.sizes.emit(extent) for extent in member.type.extents]
        empty = "false"
        for extent in extents:
            zero = builder.compare("icmp eq", "i64", extent, "0")
            empty = builder.op("or", "i1", empty, zero)
        there = builder.compare("icmp ne", "ptr", address, "null")
        self._require(builder.op("or", "i1", empty, there), NULL)
        if member.alignment > 1:
            number = builder.value(f"ptrtoint ptr {address} to i64")
            rest = builder.op("and", "i64", number, str(member.alignment - 1))
            self._require(builder.compare("icmp eq", "i64", rest, "0"), LAYOUT)
        own = self._contiguous(member.item_size, extents)
        strides = own
        if extents:
            given = self._argument("ptr", member.strides_place)
            strides = self._given_strides(member, given, own)
        name = member.name
        if member.written and name not in {s.name for s in self.program.storages}:
            name = result_name(name)
        for rank, wanted in self._static_strides(name, member.rank).items():
            fits = builder.compare("icmp eq", "i64", strides[rank], str(wanted))
            single = builder.compare("icmp sle", "i64", extents[rank], "1")
            either = builder.op("or", "i1", fits, single)
            self._require(builder.op("or", "i1", either, empty), LAYOUT)
        self.tensors[name] = Placed(address, tuple(strides), _offsets(member.type.dtype))

    def _given_strides(self, member: Member, given: str, own: Sequence[str]) -> list[str]:
        """Strides in bytes: those at `given`, in elements there, or the tensor's own for null."""
        builder = self.builder
        there, after = builder.label("strided"), builder.label("laid")
        before = builder.block
        builder.branch(builder.compare("icmp ne", "ptr", given, "null"), there, after)
        builder.start(there)
        scaled = []
        for rank in range(member.rank):
            place = builder.value(f"getelementptr inbounds i8, ptr {given}, i64 {8 * rank}")
            elements = builder.value(f"load i64, ptr {place}, align 8")
            scaled.append(builder.op("mul", "i64", elements, str(member.item_size)))
        builder.jump(after)
        builder.start(after)
        return [
            builder.phi("i64", [(a, before), (b, there)]) for a, b in zip(own, scaled, strict=True)
        ]

    def _static_strides(self, tensor: str, rank: int) -> dict[int, int]:
        """Strides in bytes that kernels were built with, by rank."""
        found: dict[int, int] = {}
        for function in self.program.functions:
            for buffer in function.buffers:
                if tensor_of(buffer.name)[0] != tensor or len(buffer.strides) != rank:
                    continue
                for position, stride in enumerate(buffer.strides):
                    if stride is not None:
                        found[position] = stride
        return found

    def _contiguous(self, item_size: int, extents: Sequence[str]) -> list[str]:
        """Strides in bytes of a C-contiguous tensor. A rank of extent 0 counts as 1."""
        builder = self.builder
        strides: list[str] = []
        step = str(item_size)
        for position, extent in enumerate(reversed(extents)):
            strides.append(step)
            if position + 1 < len(extents):
                factor = builder.intrinsic("llvm.smax", "i64", extent, "1")
                step = builder.op("mul", "i64", step, factor)
        return strides[::-1]

    # ---- storage --------------------------------------------------------------------------

    def _constant(self, name: str, constant: Embedded) -> None:
        extents = [str(extent) for extent in constant.shape]
        strides = self._contiguous(numpy_dtype(constant.dtype).itemsize, extents)
        offsets = _offsets(constant.dtype)
        self.tensors[name] = Placed(f"@{constant.symbol}", tuple(strides), offsets)

    def _intermediates(self) -> None:
        """One block of memory for all tensors that are neither inputs nor results."""
        builder = self.builder
        kept: list[tuple[Storage, str, list[str]]] = []
        storages = [s for s in self.program.storages if s.name not in self.tensors]
        shapes = [[self.sizes.emit(extent) for extent in s.extents] for s in storages]
        self._require_sound()
        for extent in dict.fromkeys(extent for shape in shapes for extent in shape):
            if not extent.isdigit():
                self._require(builder.compare("icmp sge", "i64", extent, "0"), SIZE)
        # from here on, what does not fit 64 bits is memory
        total = str(ALIGNMENT)
        for storage, extents in zip(storages, shapes, strict=True):
            size = self.sizes.product([str(numpy_dtype(storage.dtype).itemsize), *extents])
            padded = self.sizes.checked("add", size, str(ALIGNMENT - 1))
            rounded = builder.op("and", "i64", padded, str(-ALIGNMENT))
            kept.append((storage, total, extents))
            total = self.sizes.checked("add", total, rounded)
        if not kept:
            return
        self._require_sound(MEMORY)
        fits = builder.compare("icmp ule", "i64", total, str(MOST_WORKSPACE_BYTES))
        self._require(fits, MEMORY)
        builder.module.declare("malloc", "noalias ptr", ["i64"], "nounwind")
        memory = builder.value(f"call noalias ptr @malloc(i64 {total})")
        self._require(builder.compare("icmp ne", "ptr", memory, "null"), MEMORY)
        builder.line(f"store ptr {memory}, ptr {self.memory}, align 8")
        # Tensors begin ALIGNMENT bytes in, less what malloc's answer lies above a multiple of it.
        number = builder.value(f"ptrtoint ptr {memory} to i64")
        above = builder.op("and", "i64", number, str(ALIGNMENT - 1))
        for storage, offset, extents in kept:
            place = builder.op("sub", "i64", offset, above)
            address = builder.value(f"getelementptr inbounds i8, ptr {memory}, i64 {place}")
            strides = self._contiguous(numpy_dtype(storage.dtype).itemsize, extents)
            self.tensors[storage.name] = Placed(address, tuple(strides), _offsets(storage.dtype))

    # ---- launches -------------------------------------------------------------------------

    def _launch(self, launch: Launch) -> None:
        builder = self.builder
        function = self.functions[launch.function]
        scalars = [self.sizes.emit(scalar) for scalar in launch.scalars]
        slices = "1" if launch.slices is None else self.sizes.emit(launch.slices)
        self._require_sound()
        work = self._work(launch)
        bases, numbers = self._operands(function)
        table = self._array("ptr", bases)
        parameters = self._array("i64", [*scalars, *numbers])
        threads = "1" if launch.slices is None else self.threads
        status = builder.value(
            f"call i32 @{LAUNCH}(ptr @{kernel_symbol(function.name, self.level)}, ptr {table}, "
            f"ptr {parameters}, i64 {slices}, i64 {work}, i64 {threads}, ptr {self.fault})"
        )
        self._require(builder.compare("icmp sge", "i32", status, "0"), MEMORY)
        codes = {
            site.number: self.interface.faults[site.message]
            for site in self.program.faults
            if site.function == function.name
        }
        if codes:
            self._faults(status, codes)

    def _faults(self, status: str, codes: dict[int, int]) -> None:
        """Leave with the code of a fault, its values told to who asked for them."""
        builder = self.builder
        faulty, passed, tell = (
            builder.label("faulty"),
            builder.label("passed"),
            builder.label("tell"),
        )
        builder.branch(builder.compare("icmp eq", "i32", status, "0"), passed, faulty)
        builder.start(faulty)
        code = "0"
        for number, own in codes.items():
            this = builder.compare("icmp eq", "i32", status, str(number))
            code = builder.select(this, "i32", str(own), code)
        builder.line(f"store i32 {code}, ptr {self.result}, align 4")
        asked = self._argument("ptr", self.interface.fault_place)
        builder.branch(builder.compare("icmp eq", "ptr", asked, "null"), "leave", tell)
        builder.start(tell)
        values = builder.value(f"load [2 x i64], ptr {self.fault}, align 8")
        builder.line(f"store [2 x i64] {values}, ptr {asked}, align 8")
        builder.jump("leave")
        builder.start(passed)

    def _work(self, launch: Launch) -> str:
        """The work of a launch; a huge number where it does not fit 64 bits."""
        if launch.slices is None:
            return "0"
        # An emitter of its own: what overflows here is no extent, and must not pass as one later.
        sizes = SizeEmitter(self.builder, self.sizes.symbols)
        value = sizes.emit(launch.work)
        flag = sizes.take_flag()
        if flag is None:
            return value
        return self.builder.select(flag, "i64", str(MOST_WORK), value)

    def _operands(self, function: LoopFunction) -> tuple[list[str], list[str]]:
        """Addresses of a function's buffers, and all their strides."""
        addresses: list[str] = []
        strides: list[str] = []
        for buffer in function.buffers:
            tensor, component = tensor_of(buffer.name)
            if tensor not in self.tensors:
                raise BackendError(f"internal: there is no tensor {tensor} to export")
            placed = self.tensors[tensor]
            offset = placed.offsets[component] if component is not None else 0
            address = placed.address
            if offset:
                address = self.builder.value(
                    f"getelementptr inbounds i8, ptr {address}, i64 {offset}"
                )
            addresses.append(address)
            strides.extend(placed.strides)
        return addresses, strides

    # ---- instructions ---------------------------------------------------------------------

    def _reserve(self, machine_type: str, alignment: int) -> str:
        name = self.builder.name("kept")
        self.stack.append(f"  {name} = alloca {machine_type}, align {alignment}")
        return name

    def _array(self, machine_type: str, items: Sequence[str]) -> str:
        """An array on the stack of 8-byte values."""
        name = self._reserve(f"[{max(1, len(items))} x {machine_type}]", 8)
        for place, item in enumerate(items):
            pointer = self.builder.value(f"getelementptr inbounds i8, ptr {name}, i64 {8 * place}")
            self.builder.line(f"store {machine_type} {item}, ptr {pointer}, align 8")
        return name

    def _argument(self, machine_type: str, offset: int) -> str:
        place = self.builder.value(f"getelementptr inbounds i8, ptr %arguments, i64 {offset}")
        alignment = 4 if machine_type == "i32" else 8
        return self.builder.value(f"load {machine_type}, ptr {place}, align {alignment}")

    def _require(self, condition: str, code: int) -> None:
        """Leave with `code` where a condition is false."""
        passed, failed = self.builder.label("passed"), self.builder.label("failed")
        self.builder.branch(condition, passed, failed)
        self.builder.start(failed)
        self.builder.line(f"store i32 {code}, ptr {self.result}, align 4")
        self.builder.jump("leave")
        self.builder.start(passed)


def _offsets(dtype: DType) -> tuple[int, ...]:
    """Bytes from an element to each of its components."""
    if not isinstance(dtype, Tuple):
        return (0,)
    whole = numpy_dtype(dtype)
    fields: Mapping[str, Any] = whole.fields or {}
    return tuple(int(fields[name][1]) for name in whole.names or ())
