"""LLVM IR that finds, once, the highest level of kernels that the processor runs."""

from __future__ import annotations

from einloom.backends.cpu.builder import FunctionBuilder, ModuleBuilder, global_name
from einloom.backends.cpu.export.entry import run_symbol
from einloom.backends.cpu.export.interface import PROCESSOR
from einloom.backends.cpu.export.processors import BITS, SYSTEM_SAVES, Level, Processor, Register

LEVEL = "einloom.level"
_KNOWN = "einloom.known_level"
_ANSWER = "{ i32, i32, i32, i32 }"
_CPUID = (
    f'call {_ANSWER} asm sideeffect "cpuid", '
    '"={ax},={bx},={cx},={dx},{ax},{cx},~{dirflag},~{fpsr},~{flags}"'
)
# XGETBV by its bytes: assemblers refuse the name where the feature is off
_XGETBV = (
    "call { i32, i32 } asm sideeffect "
    '".byte 0x0f, 0x01, 0xd0", "={ax},={dx},{cx},~{dirflag},~{fpsr},~{flags}"(i32 0)'
)


def needs_dispatch(processor: Processor) -> bool:
    """Whether processors of the architecture may lack what the library uses."""
    return len(processor.levels) > 1 or any(level.checked for level in processor.levels)


def level_function(module: ModuleBuilder, processor: Processor) -> str:
    """`i32 @einloom.level()`: how many of the processor's levels this machine has, from the lowest.

    The answer is kept: CPUID is slow on virtual machines. Threads that ask at once find the same.
    """
    builder = FunctionBuilder(module)
    builder.line(f"%known = load atomic i32, ptr @{_KNOWN} monotonic, align 4")
    builder.line("%is_known = icmp sge i32 %known, 0")
    builder.branch("%is_known", "answer", "find")
    builder.start("answer")
    builder.line("ret i32 %known")
    builder.start("find")
    registers = _registers(builder)
    saved = _saved(builder, registers)
    count, so_far = "0", "true"
    for level in processor.levels:
        so_far = builder.op("and", "i1", so_far, _has(builder, level, registers, saved))
        count = builder.op("add", "i32", count, builder.convert("zext", "i1", so_far, "i32"))
    builder.line(f"store atomic i32 {count}, ptr @{_KNOWN} monotonic, align 4")
    builder.line(f"ret i32 {count}")
    head = f"@{_KNOWN} = internal global i32 -1, align 4\n\n"
    body = "\n".join(["entry:", *builder.lines, "}"])
    return f"{head}define internal i32 @{LEVEL}() nounwind noinline {{\n{body}"


def entry_function(module: ModuleBuilder, name: str, processor: Processor) -> str:
    """`i32 @NAME(ptr arguments)`: the run of the highest level that this machine has."""
    builder = FunctionBuilder(module)
    runs = [run_symbol(level) for level in processor.levels]
    chosen = f"@{runs[0]}"
    if needs_dispatch(processor):
        level = builder.value(f"call i32 @{LEVEL}()")
        builder.branch(builder.compare("icmp eq", "i32", level, "0"), "lacking", "run")
        builder.start("lacking")
        builder.line(f"ret i32 {PROCESSOR}")
        builder.start("run")
        for count, run in enumerate(runs[1:], start=2):
            has = builder.compare("icmp sge", "i32", level, str(count))
            chosen = builder.select(has, "ptr", f"@{run}", chosen)
    result = builder.value(f"call i32 {chosen}(ptr %arguments)")
    builder.line(f"ret i32 {result}")
    head = f"define i32 {global_name(name)}(ptr %arguments) nounwind {{"
    return "\n".join([head, "entry:", *builder.lines, "}"])


def _registers(builder: FunctionBuilder) -> dict[Register, str]:
    """The answers to all questions; 0 where the processor does not know the question."""
    found: dict[Register, str] = {}
    leaves = sorted({register[:2] for register, _ in (*BITS.values(), SYSTEM_SAVES)})
    for leaf, subleaf in leaves:
        # A leaf beyond the last one answers something else.
        last = _cpuid(builder, leaf & 0x80000000, 0)[0]
        known = builder.compare("icmp uge", "i32", last, str(leaf))
        for number, text in enumerate(_cpuid(builder, leaf, subleaf)):
            found[leaf, subleaf, number] = builder.select(known, "i32", text, "0")
    return found


def _cpuid(builder: FunctionBuilder, leaf: int, subleaf: int) -> list[str]:
    answer = builder.value(f"{_CPUID}(i32 {leaf}, i32 {subleaf})")
    return [builder.value(f"extractvalue {_ANSWER} {answer}, {k}") for k in range(4)]


def _saved(builder: FunctionBuilder, registers: dict[Register, str]) -> str:
    """XCR0, 0 where it cannot be read."""
    register, bit = SYSTEM_SAVES
    readable = _all_set(builder, registers[register], 1 << bit)
    before, read, after = builder.block, builder.label("read"), builder.label("saved")
    builder.branch(readable, read, after)
    builder.start(read)
    answer = builder.value(_XGETBV)
    low = builder.value(f"extractvalue {{ i32, i32 }} {answer}, 0")
    builder.jump(after)
    builder.start(after)
    return builder.phi("i32", [("0", before), (low, read)])


def _has(builder: FunctionBuilder, level: Level, registers: dict[Register, str], saved: str) -> str:
    masks: dict[Register, int] = {}
    for name in sorted(level.checked):
        register, bit = BITS[name]
        masks[register] = masks.get(register, 0) | 1 << bit
    answer = _all_set(builder, saved, level.saved)
    for register, mask in masks.items():
        answer = builder.op("and", "i1", answer, _all_set(builder, registers[register], mask))
    return answer


def _all_set(builder: FunctionBuilder, value: str, mask: int) -> str:
    return builder.compare("icmp eq", "i32", builder.op("and", "i32", value, str(mask)), str(mask))
