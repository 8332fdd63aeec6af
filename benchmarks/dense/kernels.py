"""Machine code that does one thing as fast as the processor can: read, copy, multiply-add, tiles.

The rates of these loops are what a case is compared with where its bar is a fraction of the
machine. They are written as LLVM IR and share nothing with the code that is measured.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

ARCH_REQUEST_TILE_DATA = (158, 0x1023, 18)
"""Linux lets a process use tile registers after this system call."""

STREAMS = 8
TILE_FLOPS = 2 * 16 * 16 * 32


class MissingFeature(Exception):
    """The processor cannot run this."""


@cache
def features() -> dict[str, bool]:
    from llvmlite import binding

    return dict(binding.get_host_cpu_features())


def vector_bytes() -> int:
    return 64 if features().get("avx512f") else 32


def loop(name: str, arguments: str, setup: str, state: list[tuple[str, str, str]], step: str,
         finish: str) -> str:  # fmt: skip
    """A function `name(count, ...)` that runs `step` `count` times; `%n` is the iteration.

    `state`: type, name, initial value of what is carried; `step` defines `%NAME.next`.
    """
    phis = "\n".join(
        f"  %{name_} = phi {type_} [ {start}, %entry ], [ %{name_}.next, %body ]"
        for type_, name_, start in state
    )
    return f"""
define void @{name}(i64 %count{arguments}) {{
entry:
{setup}
  br label %body
body:
  %n = phi i64 [ 0, %entry ], [ %n.next, %body ]
{phis}
{step}
  %n.next = add i64 %n, 1
  %more = icmp ult i64 %n.next, %count
  br i1 %more, label %body, label %done
done:
{finish}
  ret void
}}
"""


def read_text() -> str:
    """Streams `count` blocks of 512 bytes; what was read is folded into 64 bytes at `%sink`."""
    state = [("<16 x i32>", f"s{k}", "zeroinitializer") for k in range(STREAMS)]
    step = ["  %at = mul i64 %n, 512", "  %block = getelementptr i8, ptr %source, i64 %at"]
    for k in range(STREAMS):
        step += [
            f"  %p{k} = getelementptr i8, ptr %block, i64 {64 * k}",
            f"  %v{k} = load <16 x i32>, ptr %p{k}, align 4",
            f"  %s{k}.next = xor <16 x i32> %s{k}, %v{k}",
        ]
    fold = ["  %f0 = or <16 x i32> %s0.next, %s1.next"]
    fold += [f"  %f{k} = xor <16 x i32> %f{k - 1}, %s{k + 1}.next" for k in range(1, STREAMS - 1)]
    fold.append(f"  store <16 x i32> %f{STREAMS - 2}, ptr %sink, align 64")
    return loop("read", ", ptr %source, ptr %sink", "", state, "\n".join(step), "\n".join(fold))


def copy_text(name: str, streaming: bool) -> str:
    """Copies `count` blocks of 512 bytes; streaming stores pass the caches by."""
    mark = ", !nontemporal !0" if streaming else ""
    step = [
        "  %at = mul i64 %n, 512",
        "  %from = getelementptr i8, ptr %source, i64 %at",
        "  %to = getelementptr i8, ptr %target, i64 %at",
    ]
    for k in range(STREAMS):
        step += [
            f"  %p{k} = getelementptr i8, ptr %from, i64 {64 * k}",
            f"  %q{k} = getelementptr i8, ptr %to, i64 {64 * k}",
            f"  %v{k} = load <16 x i32>, ptr %p{k}, align 4",
            f"  store <16 x i32> %v{k}, ptr %q{k}, align 64{mark}",
        ]
    return loop(name, ", ptr %source, ptr %target", "", [], "\n".join(step), "")


def accumulators() -> int:
    """Sums that run at once: more than latency times units, fewer than registers."""
    return 24 if vector_bytes() == 64 else 12


def fma_text(name: str, scalar: str, lanes: int) -> str:
    """Multiply-adds on registers: `accumulators()` vectors of `lanes` per iteration."""
    vector = f"<{lanes} x {scalar}>"
    bits = "f32" if scalar == "float" else "f64"
    count = accumulators()
    state = [(vector, f"s{k}", "%start") for k in range(count)]
    step = [
        f"  %s{k}.next = call {vector} @llvm.fma.v{lanes}{bits}"
        f"({vector} %x, {vector} %s{k}, {vector} %x)"
        for k in range(count)
    ]
    setup = f"  %x = load {vector}, ptr %sink, align 64\n  %start = fadd {vector} %x, %x"
    finish = ["  %f0 = fadd " + f"{vector} %s0.next, %s1.next"]
    finish += [f"  %f{k} = fadd {vector} %f{k - 1}, %s{k + 1}.next" for k in range(1, count - 1)]
    finish.append(f"  store {vector} %f{count - 2}, ptr %sink, align 64")
    text = loop(name, ", ptr %sink", setup, state, "\n".join(step), "\n".join(finish))
    return f"declare {vector} @llvm.fma.v{lanes}{bits}({vector}, {vector}, {vector})\n" + text


def tiles_text() -> str:
    """bf16 products on tile registers: four per iteration, their operands loaded from L1."""
    setup = ["  call void @llvm.x86.ldtilecfg(ptr %settings)"]
    setup += [f"  call void @llvm.x86.tilezero(i8 {k})" for k in range(4)]
    step = [
        f"  %p{k} = getelementptr i8, ptr %sink, i64 {1024 * k}\n"
        f"  call void @llvm.x86.tileloadd64(i8 {4 + k}, ptr %p{k}, i64 64)"
        for k in range(4)
    ]
    step += [
        f"  call void @llvm.x86.tdpbf16ps(i8 {2 * a + b}, i8 {4 + a}, i8 {6 + b})"
        for a in range(2)
        for b in range(2)
    ]
    finish = [
        f"  %q{k} = getelementptr i8, ptr %sink, i64 {4096 + 1024 * k}\n"
        f"  call void @llvm.x86.tilestored64(i8 {k}, ptr %q{k}, i64 64)"
        for k in range(4)
    ]
    finish.append("  call void @llvm.x86.tilerelease()")
    text = loop("tiles", ", ptr %settings, ptr %sink", "\n".join(setup), [], "\n".join(step),
                "\n".join(finish))  # fmt: skip
    return (
        "declare void @llvm.x86.ldtilecfg(ptr)\n"
        "declare void @llvm.x86.tilezero(i8 immarg)\n"
        "declare void @llvm.x86.tileloadd64(i8 immarg, ptr, i64)\n"
        "declare void @llvm.x86.tdpbf16ps(i8 immarg, i8 immarg, i8 immarg)\n"
        "declare void @llvm.x86.tilestored64(i8 immarg, ptr, i64)\n"
        "declare void @llvm.x86.tilerelease()\n" + text
    )


def has_tiles() -> bool:
    """Whether bf16 products on tile registers (AMX) can be run here."""
    if not (features().get("amx-tile") and features().get("amx-bf16")):
        return False
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return ctypes.CDLL(None).syscall(*ARCH_REQUEST_TILE_DATA) == 0  # type: ignore[no-any-return]


def aligned(size: int) -> Any:
    """Zeroed bytes that start at a cache line, all of them mapped."""
    raw = np.zeros(size + 64, np.uint8)
    raw[::4096] = 0
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


class Kernels:
    """The loops, compiled for this processor, on a number of threads."""

    def __init__(self, threads: int) -> None:
        from llvmlite import binding

        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        self.threads = threads
        self.tiles = has_tiles()
        size = vector_bytes()
        parts = [
            "!0 = !{i32 1}",
            read_text(),
            copy_text("copy", False),
            copy_text("stream", True),
            fma_text("fma_float32", "float", size // 4),
            fma_text("fma_float64", "double", size // 8),
        ]
        if self.tiles:
            parts.append(tiles_text())
        machine = binding.Target.from_default_triple().create_target_machine(
            cpu="", features=binding.get_host_cpu_features().flatten(), opt=3, jit=True
        )
        module = binding.parse_assembly("\n".join(parts))
        module.verify()
        self._engine = binding.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        # Each thread has a sink of its own, far from the others'.
        self._sinks = [aligned(8192) for _ in range(threads)]
        for sink in self._sinks:
            sink.view(np.float32)[:] = 0.5
        self._settings = tile_settings()
        self._pool = ThreadPoolExecutor(max(1, threads - 1))

    def _function(self, name: str, pointers: int) -> Any:
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * pointers)
        return kind(self._engine.get_function_address(name))

    def _everywhere(self, function: Any, calls: Sequence[tuple[int, ...]]) -> None:
        """One call per thread; the first on this one. The others run beside it: ctypes lets go
        of the interpreter's lock."""
        others = [self._pool.submit(function, *call) for call in calls[1:]]
        function(*calls[0])
        for other in others:
            other.result()

    def reader(self, arrays: list[Any]) -> Any:
        """A call that reads all bytes of contiguous arrays (but for a last block) once."""
        function = self._function("read", 2)
        plans = [
            [
                (count, array.ctypes.data + 512 * start, sink.ctypes.data)
                for (start, count), sink in zip(
                    self._shares(array.nbytes // 512), self._sinks, strict=False
                )
            ]
            for array in arrays
        ]

        def call() -> None:
            for plan in plans:
                self._everywhere(function, plan)

        return call

    def copier(self, array: Any, target: Any, name: str) -> Any:
        """A call that copies a contiguous array (but for a last block) to bytes from `aligned`.

        `name`: copy, or stream for stores that pass the caches by.
        """
        function = self._function(name, 2)
        plan = [
            (count, array.ctypes.data + 512 * start, target.ctypes.data + 512 * start)
            for start, count in self._shares(array.nbytes // 512)
        ]

        def call(keep: Any = (array, target)) -> None:
            self._everywhere(function, plan)

        return call

    def multiplier(self, operations: float, dtype: str) -> Any:
        """A call that does this many floating-point operations as multiply-adds."""
        lanes = vector_bytes() // np.dtype(dtype).itemsize
        rounds = round(operations / (2 * lanes * accumulators()))
        function = self._function(f"fma_{dtype}", 1)
        plan = [
            (count, sink.ctypes.data)
            for (_, count), sink in zip(self._shares(rounds), self._sinks, strict=False)
        ]
        return lambda: self._everywhere(function, plan)

    def tile_multiplier(self, operations: float) -> Any:
        """The same on tile registers, in bf16. Raises MissingFeature without them."""
        if not self.tiles:
            raise MissingFeature("this processor has no AMX")
        function = self._function("tiles", 2)
        rounds = round(operations / (4 * TILE_FLOPS))
        plan = [
            (count, self._settings.ctypes.data, sink.ctypes.data)
            for (_, count), sink in zip(self._shares(rounds), self._sinks, strict=False)
        ]
        return lambda: self._everywhere(function, plan)

    def _shares(self, blocks: int) -> list[tuple[int, int]]:
        """Start and count for each thread; loops run at least once, so none is empty."""
        blocks = max(1, blocks)
        threads = min(self.threads, blocks)
        edges = [blocks * k // threads for k in range(threads + 1)]
        return [(a, b - a) for a, b in pairwise(edges)]


def tile_settings() -> Any:
    """The 64 bytes that `ldtilecfg` reads: palette 1, eight tiles of 16 rows of 64 bytes."""
    settings = aligned(64)
    settings[0] = 1
    settings[16:32].view(np.uint16)[:] = 64
    settings[48:56] = 16
    return settings
