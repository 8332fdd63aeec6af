"""Buffers that a kernel allocates, and the ways out of it that free them."""

from __future__ import annotations

from collections.abc import Sequence

from einloom.backends.cpu.builder import FunctionBuilder
from einloom.backends.cpu.emit_memory import BufferHandle
from einloom.backends.cpu.values import item_size
from einloom.ir.errors import BackendError, UnsupportedError
from einloom.ir.loops import Allocate

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
MOST_STACK_BYTES = 1 << 20  # a thread's stack may be as small as 2 MiB
MOST_WORKSPACE_BYTES = 1 << 62  # sizes are computed in 64 bits without overflow below this
OUT_OF_MEMORY = -1


class Workspaces:
    """The live allocations of a function at the point that is being emitted."""

    def __init__(self, builder: FunctionBuilder) -> None:
        self.builder = builder
        self.entry_lines: list[str] = []
        self._live: list[str] = []  # pointers as malloc gave them

    @property
    def unlikely(self) -> str:
        """Metadata of a branch whose second target is next to never taken."""
        weights = '!{!"branch_weights", i32 1048575, i32 1}'
        return f", !prof {self.builder.module.metadata(weights)}"

    def mark(self) -> int:
        """A state to `release` to."""
        return len(self._live)

    def release(self, mark: int) -> None:
        """Free what was allocated since the mark."""
        self._free(self._live[mark:])
        del self._live[mark:]

    def leave(self, result: str) -> None:
        """Free everything that is live and return from the kernel, on a side path."""
        self._free(self._live)
        self.builder.line(f"ret i32 {result}")

    def _free(self, pointers: Sequence[str]) -> None:
        for pointer in reversed(pointers):
            self.builder.module.declare("free", "void", ["ptr"], "nounwind")
            self.builder.line(f"call void @free(ptr {pointer})")

    def allocate(self, statement: Allocate, extents: Sequence[int | str]) -> BufferHandle:
        """A dense C-ordered buffer; extents are integers or the names of i64 values."""
        size = item_size(statement.dtype)
        match statement.storage:
            case "stack":
                pointer = self._on_stack(statement, extents, size)
            case "workspace":
                pointer = self._on_heap(extents, size)
            case _:
                raise UnsupportedError(
                    f"the CPU backend does not have {statement.storage} buffers "
                    f"(Allocate of {statement.name})",
                    location=statement.location,
                )
        strides: list[int | str] = []
        step: int | str = size
        for extent in reversed(extents):
            strides.append(step)
            step = self._product(step, extent)
        return BufferHandle(statement.name, statement.dtype, pointer, tuple(reversed(strides)))

    def _product(self, a: int | str, b: int | str) -> int | str:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        return self.builder.op("mul nsw", "i64", str(a), str(b))

    def _on_stack(self, statement: Allocate, extents: Sequence[int | str], size: int) -> str:
        total = size
        for extent in extents:
            if not isinstance(extent, int):
                raise BackendError(
                    f"internal: stack buffer {statement.name} has an extent known at run time only"
                )
            total *= extent
        if not 0 <= total <= MOST_STACK_BYTES:
            raise BackendError(
                f"internal: stack buffer {statement.name} takes {total} bytes, "
                f"at most {MOST_STACK_BYTES} fit"
            )
        return self._on_entry(f"alloca [{total} x i8], align {ALIGNMENT}")

    def _on_entry(self, text: str) -> str:
        name = self.builder.name("stack")
        self.entry_lines.append(f"  {name} = {text}")
        return name

    def _on_heap(self, extents: Sequence[int | str], size: int) -> str:
        """`malloc`, aligned by hand. Where it fails the kernel returns OUT_OF_MEMORY."""
        builder = self.builder
        total: int | str = size
        overflows: list[str] = []
        builder.module.declare("llvm.umul.with.overflow.i64", "{ i64, i1 }", ["i64", "i64"], "")
        for extent in extents:
            if isinstance(total, int) and isinstance(extent, int):
                total *= extent
                continue
            pair = builder.value(
                f"call {{ i64, i1 }} @llvm.umul.with.overflow.i64(i64 {total}, i64 {extent})"
            )
            total = builder.value(f"extractvalue {{ i64, i1 }} {pair}, 0")
            overflows.append(builder.value(f"extractvalue {{ i64, i1 }} {pair}, 1"))
        if isinstance(total, int):
            if not 0 <= total <= MOST_WORKSPACE_BYTES:
                total = MOST_WORKSPACE_BYTES
        else:
            limit = str(MOST_WORKSPACE_BYTES)
            large = builder.compare("icmp ugt", "i64", total, limit)
            for overflow in overflows:
                large = builder.op("or", "i1", large, overflow)
            # more than malloc can give, so that too large a size fails like any other
            total = builder.select(large, "i64", limit, total)
        padded = builder.op("add", "i64", str(total), str(ALIGNMENT))
        builder.module.declare("malloc", "noalias ptr", ["i64"], "nounwind")
        raw = builder.value(f"call noalias ptr @malloc(i64 {padded})")
        failed, passed = builder.label("memory"), builder.label("passed")
        given = builder.compare("icmp ne", "ptr", raw, "null")
        builder.branch(given, passed, failed, self.unlikely)
        builder.start(failed)
        self.leave(str(OUT_OF_MEMORY))
        builder.start(passed)
        self._live.append(raw)
        return self._aligned(raw)

    def _aligned(self, raw: str) -> str:
        """The first address from `raw` + 1 on that is a multiple of ALIGNMENT."""
        builder = self.builder
        number = builder.value(f"ptrtoint ptr {raw} to i64")
        rest = builder.op("and", "i64", number, str(ALIGNMENT - 1))
        step = builder.op("sub", "i64", str(ALIGNMENT), rest)
        return builder.value(f"getelementptr inbounds i8, ptr {raw}, i64 {step}")

    def array(self, machine_type: str, items: Sequence[str]) -> str:
        """An array on the stack that holds 8-byte values, for passing to another kernel."""
        name = self._on_entry(f"alloca [{max(1, len(items))} x {machine_type}], align 8")
        for place, item in enumerate(items):
            pointer = self.builder.value(f"getelementptr inbounds i8, ptr {name}, i64 {8 * place}")
            self.builder.line(f"store {machine_type} {item}, ptr {pointer}, align 8")
        return name
