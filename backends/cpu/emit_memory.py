"""Buffers: addresses from byte strides, loads and stores, and what may not alias what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from einloom.backends.cpu.builder import FunctionBuilder, with_element
from einloom.backends.cpu.emit_cast import from_memory, to_memory
from einloom.backends.cpu.values import Value, is_complex, item_size, memory_type, register_type
from einloom.ir.errors import BackendError, UnsupportedError
from einloom.ir.record import record
from einloom.ir.types import DType, bf16, f16

# With more written buffers than this, the lists of what each does not alias grow too long.
MOST_SCOPES = 64


@record
class BufferHandle:
    """A buffer within a function: the address of element 0 and how to step.

    `strides` are bytes: an integer where known, else the name of an i64 value.
    """

    name: str
    dtype: DType
    pointer: str
    strides: tuple[int | str, ...]
    aligned: bool = True

    @property
    def alignment(self) -> int:
        """Bytes that every part of every element is a multiple of."""
        size = item_size(self.dtype)
        return (size // 2 if is_complex(self.dtype) else size) if self.aligned else 1


def alias_metadata(
    builder: FunctionBuilder, read_only: Sequence[str], written: Sequence[str]
) -> dict[str, str]:
    """For each buffer, the text that says which others its loads and stores do not touch.

    Buffers that are only read share one scope, since they may overlap each other.
    """
    module = builder.module
    domain = module.distinct()
    scopes: dict[str, str] = {}
    if read_only:
        scopes.update(dict.fromkeys(read_only, module.distinct(domain)))
    for name in written[:MOST_SCOPES]:
        scopes[name] = module.distinct(domain)
    distinct_scopes = list(dict.fromkeys(scopes.values()))
    texts = {}
    for scope in distinct_scopes:
        others = ", ".join(other for other in distinct_scopes if other != scope)
        text = f", !alias.scope {module.metadata(f'!{{{scope}}}')}"
        texts[scope] = text + (f", !noalias {module.metadata(f'!{{{others}}}')}" if others else "")
    return {name: texts[scope] for name, scope in scopes.items()}


def address(builder: FunctionBuilder, buffer: BufferHandle, indices: Sequence[Value]) -> str:
    """A pointer to the element at `indices`, which are i64 values or integer literals."""
    if len(indices) != len(buffer.strides):
        raise BackendError(
            f"internal: buffer {buffer.name} has {len(buffer.strides)} dimensions and is accessed "
            f"with {len(indices)} indices"
        )
    fixed, offset = 0, ""
    for index, stride in zip(indices, buffer.strides, strict=True):
        if stride == 0:
            continue
        if index.literal is not None and isinstance(stride, int):
            fixed += int(index.literal.real) * stride
            continue
        term = str(index.literal) if index.literal is not None else index.only
        if stride != 1:
            term = builder.op("mul nsw", "i64", term, str(stride))
        offset = builder.op("add nsw", "i64", offset, term) if offset else term
    if fixed:
        offset = builder.op("add nsw", "i64", offset, str(fixed)) if offset else str(fixed)
    if not offset:
        return buffer.pointer
    return builder.value(f"getelementptr inbounds i8, ptr {buffer.pointer}, i64 {offset}")


def _part_pointers(builder: FunctionBuilder, buffer: BufferHandle, pointer: str) -> list[str]:
    """Pointers to the parts of an element: one, or two for a complex dtype."""
    if not is_complex(buffer.dtype):
        return [pointer]
    half = item_size(buffer.dtype) // 2
    second = builder.value(f"getelementptr inbounds i8, ptr {pointer}, i64 {half}")
    return [pointer, second]


def load(
    builder: FunctionBuilder,
    buffer: BufferHandle,
    indices: Sequence[Value],
    lanes: int,
    aliases: Mapping[str, str],
) -> Value:
    """`lanes` elements that lie side by side from the one at `indices` on."""
    pointer = address(builder, buffer, indices)
    stored = _stored_type(buffer, lanes)
    parts, bits = [], ""
    for place in _part_pointers(builder, buffer, pointer):
        text = f"load {stored}, ptr {place}, align {buffer.alignment}"
        bits = builder.value(text + aliases.get(buffer.name, ""))
        parts.append(from_memory(builder, buffer.dtype, lanes, bits))
    half = buffer.dtype in (f16, bf16)
    return Value(buffer.dtype, tuple(parts), lanes, in_memory=bits if half else "")


def store(
    builder: FunctionBuilder,
    buffer: BufferHandle,
    indices: Sequence[Value],
    value: Value,
    aliases: Mapping[str, str],
) -> None:
    """Write a value, converted and rounded to the buffer's dtype."""
    pointer = address(builder, buffer, indices)
    stored = _stored_type(buffer, value.lanes)
    parts = to_memory(builder, value, buffer.dtype)
    for place, part in zip(_part_pointers(builder, buffer, pointer), parts, strict=True):
        text = f"store {stored} {part}, ptr {place}, align {buffer.alignment}"
        builder.line(text + aliases.get(buffer.name, ""))


def prefetch(
    builder: FunctionBuilder, buffer: BufferHandle, indices: Sequence[Value], to_write: bool
) -> None:
    """Ask for the line of an element, near the core and for long."""
    arguments = ["ptr", "i32", "i32", "i32"]
    builder.module.declare("llvm.prefetch.p0", "void", arguments, "")
    place = f"ptr {address(builder, buffer, indices)}"
    builder.line(f"call void @llvm.prefetch.p0({place}, i32 {int(to_write)}, i32 3, i32 1)")


def _stored_type(buffer: BufferHandle, lanes: int) -> str:
    """The type of one part in memory, side by side for several lanes."""
    if lanes == 1:
        return memory_type(buffer.dtype)
    if is_complex(buffer.dtype):
        raise UnsupportedError(
            f"the CPU backend has no explicit vectors of complex numbers (buffer {buffer.name})",
            suggestion="leave the vectorisation of this loop to the compiler: `for vector`",
        )
    if buffer.strides and buffer.strides[-1] != item_size(buffer.dtype):
        raise BackendError(
            f"internal: a vector access of buffer {buffer.name}, whose last dimension is not dense"
        )
    return with_element(register_type(buffer.dtype, lanes), memory_type(buffer.dtype))
