"""Copies past the caches: whole lines by non-temporal stores, the rest by plain ones.

A processor gathers the bytes of a non-temporal store until a line is whole and then writes it to
memory without having read it. Such stores may overtake later ones, so that a kernel which makes
some ends with a fence, on processors that have one for them.
"""

from __future__ import annotations

from einloom.backends.cpu.builder import FunctionBuilder, ModuleBuilder
from einloom.backends.cpu.target import machine

LINE_BYTES = 64
NAME = "einloom.stream"


def stream(builder: FunctionBuilder, to: str, source: str, count: str, item: int) -> None:
    """Copy `count` elements of `item` bytes between places that do not overlap."""
    module = builder.module
    name = module.helper(NAME, lambda: _text(module))
    length = count if item == 1 else builder.op("mul nsw", "i64", count, str(item))
    builder.line(f"call void @{name}(ptr {to}, ptr {source}, i64 {length})")


def fence(builder: FunctionBuilder) -> None:
    """What was streamed is seen before what is stored from here on."""
    if builder.module.target.architecture == "x86_64":
        builder.module.declare("llvm.x86.sse.sfence", "void", [], "nounwind")
        builder.line("call void @llvm.x86.sse.sfence()")


def _text(module: ModuleBuilder) -> str:
    width = min(LINE_BYTES, machine(module.target).vector_bytes)
    vector = f"<{width} x i8>"
    module.declare("llvm.memcpy.p0.p0.i64", "void", ["ptr", "ptr", "i64", "i1"], "nounwind")
    module.declare("llvm.umin.i64", "i64", ["i64", "i64"], "nounwind")
    mark = module.metadata("!{i32 1}")
    moves = []
    for part in range(0, LINE_BYTES, width):
        moves += [
            f"  %from.{part} = getelementptr inbounds i8, ptr %first, i64 {part}",
            f"  %to.{part} = getelementptr inbounds i8, ptr %line, i64 {part}",
            f"  %v.{part} = load {vector}, ptr %from.{part}, align 1",
            f"  store {vector} %v.{part}, ptr %to.{part}, align {width}, !nontemporal {mark}",
        ]
    parameters = "ptr noalias %to, ptr noalias %from, i64 %bytes"
    return "\n".join(
        [
            f"define internal void @{NAME}({parameters}) nounwind {{",
            "entry:",
            "  %address = ptrtoint ptr %to to i64",
            "  %below = sub i64 0, %address",
            f"  %odd = and i64 %below, {LINE_BYTES - 1}",
            "  %head = call i64 @llvm.umin.i64(i64 %odd, i64 %bytes)",
            "  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %head, i1 false)",
            "  %rest = sub i64 %bytes, %head",
            f"  %lines = and i64 %rest, -{LINE_BYTES}",
            "  %whole = add i64 %head, %lines",
            "  %some = icmp ne i64 %lines, 0",
            "  br i1 %some, label %loop, label %end",
            "loop:",
            "  %at = phi i64 [%head, %entry], [%next, %loop]",
            "  %first = getelementptr inbounds i8, ptr %from, i64 %at",
            "  %line = getelementptr inbounds i8, ptr %to, i64 %at",
            *moves,
            f"  %next = add i64 %at, {LINE_BYTES}",
            "  %more = icmp ult i64 %next, %whole",
            "  br i1 %more, label %loop, label %end",
            "end:",
            "  %last.from = getelementptr inbounds i8, ptr %from, i64 %whole",
            "  %last.to = getelementptr inbounds i8, ptr %to, i64 %whole",
            "  %tail = sub i64 %bytes, %whole",
            "  call void @llvm.memcpy.p0.p0.i64(ptr %last.to, ptr %last.from, i64 %tail, i1 false)",
            "  ret void",
            "}",
        ]
    )
