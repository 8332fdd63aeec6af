"""Machine code that shares kernels out to threads: posting a kernel, helping with it, waiting.

A board is memory that callers and workers share. A caller posts its kernel in a free slot, takes
slices itself, and leaves when all who help are out. A worker watches the board for a while and
then sleeps on the bell of its seat. No function here touches Python objects or needs its lock.

Why a helper never sees a slot that was given to another caller: a slot's `gate` counts those
inside and says whether the slot is open, in one word. Who enters adds one and learns by the same
instruction whether it was open; who finds it closed touches nothing else. A caller closes the
gate and waits for the count to be zero before it gives the slot back.

Why no call for help is lost: a caller opens a slot and then looks who watches or sleeps; a worker
says that it sleeps and then looks at the open slots. These are sequentially consistent, so one of
the two sees the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from einloom.backends.cpu.board import (
    ASLEEP,
    AWAKE,
    HEAD,
    HEAD_WORDS,
    IS_OPEN,
    JOB,
    JOB_WORDS,
    NEXT,
    RESULT,
    SEAT,
    SEAT_BYTES,
    SLOT_BYTES,
    SLOTS,
    WAITING,
    WATCHING,
    seat_offset,
    slot_offset,
)
from einloom.backends.cpu.builder import ModuleBuilder
from einloom.backends.cpu.entry.structured import Loop, Structured
from einloom.backends.cpu.library import entry_symbol
from einloom.backends.cpu.target import Target
from einloom.ir.errors import UnsupportedError

_PAUSES = {
    "x86_64": ("llvm.x86.sse2.pause", (), ""),
    "aarch64": ("llvm.aarch64.hint", ("i32",), "i32 1"),  # the instruction `yield`
}


def emit_board(target: Target) -> str:
    """The LLVM module. Raises UnsupportedError for an architecture without a pause.

    `i32 run(board, kernel, bases, parameters, cuts, count, turns, fault)`: run a kernel on slices
    `[cuts[i], cuts[i + 1])`. Gives 0, or the status of the lowest slice that failed, with its
    `fault`. `turns` bounds how often one looks before one sleeps.
    `void serve(board, seat)`: help with kernels until summoned.
    `void summon(board, seat)`: let `serve` return, once.
    `void pause(turns)`: as long as a worker looks at an empty board so often.
    """
    if target.architecture not in _PAUSES:
        raise UnsupportedError(f"threads do not watch for kernels on {target.architecture}")
    module = ModuleBuilder(target)
    for emitter in (_Work, _Help, _Run, _Serve, _Summon, _Pause):
        module.add(emitter(module).function())
    return module.text()


class _Board(Structured):
    """A function that has the board at hand, with the atomic operations it is used by."""

    def __init__(self, module: ModuleBuilder) -> None:
        super().__init__(module)
        self.open = "%board"
        self.watching = self.pointer("%board", WATCHING)
        self.head = self.pointer("%board", HEAD_WORDS)

    def pause(self) -> None:
        name, types, arguments = _PAUSES[self.module.target.architecture]
        self.module.declare(name, "void", types, "")
        self.line(f"call void @{name}({arguments})")

    def atomic_load(self, pointer: str, order: str) -> str:
        return self.value(f"load atomic i64, ptr {pointer} {order}, align 8")

    def atomic_store(self, value: str, pointer: str, order: str) -> None:
        self.line(f"store atomic i64 {value}, ptr {pointer} {order}, align 8")

    def change(self, operation: str, pointer: str, value: object, order: str) -> str:
        """Change a word in one step; the result is what it was before."""
        return self.value(f"atomicrmw {operation} ptr {pointer}, i64 {value} {order}")

    def replaced(self, pointer: str, old: object, new: object, order: str) -> str:
        """Whether a word was `old` and now is `new`."""
        failing = "acquire" if order in ("acquire", "acq_rel") else "seq_cst"
        both = f"i64 {old}, i64 {new} {order} {failing}"
        pair = self.value(f"cmpxchg ptr {pointer}, {both}")
        return self.value(f"extractvalue {{ i64, i1 }} {pair}, 1")

    def is_set(self, word: str, bit: object) -> str:
        return self.compare("icmp ne", "i64", self.op("and", "i64", word, str(bit)), "0")

    def field(self, words: str, fields: Sequence[str], name: str) -> str:
        return self.pointer(words, 8 * fields.index(name))

    def named(self, words: str, fields: Sequence[str], name: str, machine_type: str) -> str:
        return self.load(machine_type, self.field(words, fields, name))

    def bell(self, function: str, words: str, fields: Sequence[str], *flags: str) -> None:
        """Ring (`release`) or wait for (`acquire`) the bell of a slot or a seat."""
        bell = self.named(words, fields, "bell", "ptr")
        result = "i32" if function == "acquire" else "void"
        self.call(result, self.named(self.head, HEAD, function, "ptr"), f"ptr {bell}", *flags)

    def slot_at(self, index: str) -> str:
        offset = self.op("mul", "i64", index, str(SLOT_BYTES))
        return self.pointer(self.pointer_by("%board", offset), slot_offset(0))

    @contextmanager
    def again(self) -> Iterator[Loop]:
        """What is written inside runs until it leaves for `done`."""
        head, done = self.label("again"), self.label("done")
        self.jump(head)
        self.start(head)
        yield Loop("", head, done)
        self.jump(head)
        self.start(done)

    def wake(self, seat: str) -> str:
        """Ring a seat's bell where its worker sleeps; whether it did."""
        state = self.field(seat, SEAT, "state")
        slept = self.replaced(state, ASLEEP, AWAKE, "seq_cst")
        with self.when(slept):
            self.bell("release", seat, SEAT)
        return slept


class _Work(_Board):
    """`i64 work(board, slot, bit)`: take slices until none is left; how many. For who is inside."""

    def function(self) -> str:
        words = self.pointer("%slot", JOB_WORDS)
        counter = self.pointer("%slot", NEXT)
        kernel, bases, parameters, cuts, results = (
            self.named(words, JOB, name, "ptr")
            for name in ("kernel", "bases", "parameters", "cuts", "results")
        )
        count = self.named(words, JOB, "count", "i64")
        taken = self.variable("i64", "0")
        with self.again():
            # Entering the gate has made visible what the caller wrote: a plain count will do.
            index = self.change("add", counter, 1, "monotonic")
            with self.when(self.compare("icmp sge", "i64", index, count)):
                others = self.op("xor", "i64", "%bit", "-1")
                self.change("and", self.open, others, "seq_cst")
                self.give("i64", self.load("i64", taken))
            cut = self.pointer_at(cuts, index)
            begin, end = self.load("i64", cut), self.load("i64", cut, 8)
            result = self.pointer_by(results, self.op("mul", "i64", index, str(8 * len(RESULT))))
            status = self.call(
                "i32", kernel, f"ptr {bases}", f"ptr {parameters}", f"i64 {begin}", f"i64 {end}",
                f"ptr {self.field(result, RESULT, 'value')}",
            )  # fmt: skip
            with self.when(self.compare("icmp ne", "i32", status, "0")):
                self.store("i64", self.convert("sext", "i32", status, "i64"), result)
                # What is left lies above the failure, and the lowest failure is the one given.
                self.change("max", counter, count, "monotonic")
            self.store("i64", self.op("add", "i64", self.load("i64", taken), "1"), taken)
        self.line("unreachable")
        return self.text("work", "i64", ("ptr %board", "ptr %slot", "i64 %bit"), exported=False)


class _Help(_Board):
    """`i64 help(board)`: take slices of all open slots; how many."""

    def function(self) -> str:
        seen = self.atomic_load(self.open, "acquire")
        taken = self.variable("i64", "0")
        with self.loop(str(SLOTS)) as each:
            bit = self.op("shl", "i64", "1", each.index)
            self.unless(self.is_set(seen, bit), each.next)
            slot = self.slot_at(each.index)
            before = self.change("add", slot, 1, "acquire")
            with self.when(self.is_set(before, IS_OPEN)):
                here = self.value(f"call i64 @work(ptr %board, ptr {slot}, i64 {bit})")
                self.store("i64", self.op("add", "i64", self.load("i64", taken), here), taken)
            self.leave(slot)
        self.give("i64", self.load("i64", taken))
        self.line("unreachable")
        return self.text("help", "i64", ("ptr %board",), exported=False)

    def leave(self, slot: str) -> None:
        """Go out of a gate. The last one out wakes the caller, where it sleeps."""
        with self.again() as attempt:
            gate = self.atomic_load(slot, "monotonic")
            last = self.compare("icmp eq", "i64", gate, str(WAITING | 1))
            fewer = self.op("sub", "i64", gate, "1")
            after = self.select(last, "i64", "0", fewer)
            self.unless(self.replaced(slot, gate, after, "acq_rel"), attempt.next)
            with self.when(last):
                self.bell("release", self.pointer(slot, JOB_WORDS), JOB)
            self.leave_for(attempt.done)


class _Run(_Board):
    """Post a kernel, wake whoever is needed, take part, wait for the others, say how it went."""

    parameters = ("ptr %board", "ptr %kernel", "ptr %bases", "ptr %parameters", "ptr %cuts",
                  "i64 %count", "i64 %turns", "ptr %fault")  # fmt: skip

    def function(self) -> str:
        place, bits = self.variable("ptr", "null"), self.variable("i64", "0")
        self.claim(place, bits)
        slot, bit = self.load("ptr", place), self.load("i64", bits)
        with self.when(self.compare("icmp eq", "ptr", slot, "null")):
            self.give("i32", self.alone())
        words = self.pointer(slot, JOB_WORDS)
        results = self.value(f"alloca [{len(RESULT)} x i64], i64 %count, align 8")
        with self.loop("%count") as each:
            self.store("i64", "0", self.result(results, each.index))
        for name in ("kernel", "bases", "parameters", "cuts"):
            self.store("ptr", f"%{name}", self.field(words, JOB, name))
        self.store("ptr", results, self.field(words, JOB, "results"))
        self.store("i64", "%count", self.field(words, JOB, "count"))
        self.atomic_store("0", self.pointer(slot, NEXT), "monotonic")
        self.change("or", slot, IS_OPEN, "release")
        self.change("or", self.open, bit, "seq_cst")
        self.call_helpers()
        self.value(f"call i64 @work(ptr %board, ptr {slot}, i64 {bit})")
        self.change("and", slot, ~IS_OPEN, "acq_rel")
        self.wait(slot)
        status = self.lowest(results)
        self.atomic_store("0", self.field(words, JOB, "owned"), "release")
        self.give("i32", status)
        self.line("unreachable")
        return self.text(entry_symbol("run"), "i32", self.parameters)

    def result(self, results: str, index: str) -> str:
        return self.pointer_by(results, self.op("mul", "i64", index, str(8 * len(RESULT))))

    def claim(self, place: str, bits: str) -> None:
        """Find a slot that nobody owns."""
        with self.loop(str(SLOTS)) as each:
            slot = self.slot_at(each.index)
            owned = self.field(self.pointer(slot, JOB_WORDS), JOB, "owned")
            free = self.compare("icmp eq", "i64", self.atomic_load(owned, "monotonic"), "0")
            self.unless(free, each.next)
            self.unless(self.replaced(owned, 0, 1, "acquire"), each.next)
            self.store("ptr", slot, place)
            self.store("i64", self.op("shl", "i64", "1", each.index), bits)
            self.leave_for(each.done)

    def alone(self) -> str:
        """All slices as one, on this thread."""
        begin, end = (self.load_at("i64", "%cuts", index) for index in ("0", "%count"))
        return self.call(
            "i32", "%kernel", "ptr %bases", "ptr %parameters", f"i64 {begin}", f"i64 {end}",
            "ptr %fault",
        )  # fmt: skip

    def call_helpers(self) -> None:
        """Wake sleeping workers, if fewer watch than there are slices for."""
        turns = self.field(self.head, HEAD, "turns")
        known = self.atomic_load(turns, "monotonic")
        with self.when(self.compare("icmp ne", "i64", known, "%turns")):
            self.atomic_store("%turns", turns, "monotonic")
        helpers = self.op("sub", "i64", "%count", "1")
        watching = self.atomic_load(self.watching, "seq_cst")
        missing = self.variable("i64", self.op("sub", "i64", helpers, watching))
        seats = self.named(self.head, HEAD, "seats", "i64")
        with self.loop(seats) as each:
            wanted = self.load("i64", missing)
            self.unless(self.compare("icmp sgt", "i64", wanted, "0"), each.done)
            offset = self.op("mul", "i64", each.index, str(SEAT_BYTES))
            seat = self.pointer(self.pointer_by("%board", offset), seat_offset(0))
            state = self.atomic_load(self.field(seat, SEAT, "state"), "seq_cst")
            self.unless(self.compare("icmp eq", "i64", state, str(ASLEEP)), each.next)
            with self.when(self.wake(seat)):
                self.store("i64", self.op("sub", "i64", wanted, "1"), missing)

    def wait(self, slot: str) -> None:
        """Until nobody is inside: looking for a while, then asleep on the slot's bell."""
        left = self.variable("i64", "%turns")
        with self.again() as look:
            gate = self.atomic_load(slot, "acquire")
            self.unless(self.compare("icmp ne", "i64", gate, "0"), look.done)
            turns = self.load("i64", left)
            with self.when(self.compare("icmp sle", "i64", turns, "0")):
                asleep = self.op("or", "i64", gate, str(WAITING))
                self.unless(self.replaced(slot, gate, asleep, "acq_rel"), look.next)
                self.bell("acquire", self.pointer(slot, JOB_WORDS), JOB, "i32 1")
                self.leave_for(look.done)
            self.store("i64", self.op("sub", "i64", turns, "1"), left)
            self.pause()

    def lowest(self, results: str) -> str:
        """The status of the lowest slice that failed, and its fault; 0 where none did."""
        found = self.variable("i64", "0")
        with self.loop("%count") as each:
            result = self.result(results, each.index)
            status = self.named(result, RESULT, "status", "i64")
            self.unless(self.compare("icmp ne", "i64", status, "0"), each.next)
            self.store("i64", status, found)
            for word, name in enumerate(("value", "limit")):
                value = self.named(result, RESULT, name, "i64")
                self.store_at("i64", value, "%fault", str(word))
            self.leave_for(each.done)
        return self.convert("trunc", "i64", self.load("i64", found), "i32")


class _Serve(_Board):
    """A worker's time between two runs of Python functions."""

    def function(self) -> str:
        state, summoned = (self.field("%seat", SEAT, name) for name in ("state", "summoned"))
        left = self.variable("i64", "0")
        with self.again() as turn:
            self.watch(summoned, left)
            self.change("xchg", state, ASLEEP, "seq_cst")
            reasons = (self.atomic_load(word, "seq_cst") for word in (self.open, summoned))
            any_reason = self.op("or", "i64", *reasons)
            with self.when(self.compare("icmp ne", "i64", any_reason, "0")):
                # Who finds the state changed is about to be rung for.
                woke = self.op("xor", "i1", self.replaced(state, ASLEEP, AWAKE, "seq_cst"), "true")
                self.unless(woke, turn.next)
            self.bell("acquire", "%seat", SEAT, "i32 1")
        self.line("unreachable")
        return self.text(entry_symbol("serve"), "void", ("ptr %board", "ptr %seat"))

    def watch(self, summoned: str, left: str) -> None:
        """Look for open slots until nothing has come for a while; return where summoned."""
        turns = self.field(self.head, HEAD, "turns")
        self.store("i64", self.atomic_load(turns, "monotonic"), left)
        self.change("add", self.watching, 1, "seq_cst")
        with self.again() as look:
            called = self.atomic_load(summoned, "acquire")
            with self.when(self.compare("icmp ne", "i64", called, "0")):
                self.atomic_store("0", summoned, "monotonic")
                self.change("sub", self.watching, 1, "seq_cst")
                self.line("ret void")
                self.start(self.label("unreached"))
            seen = self.atomic_load(self.open, "monotonic")
            with self.when(self.compare("icmp ne", "i64", seen, "0")):
                self.change("sub", self.watching, 1, "seq_cst")
                taken = self.value("call i64 @help(ptr %board)")
                self.change("add", self.watching, 1, "seq_cst")
                with self.when(self.compare("icmp ne", "i64", taken, "0")):
                    self.store("i64", self.atomic_load(turns, "monotonic"), left)
            rest = self.load("i64", left)
            self.unless(self.compare("icmp sgt", "i64", rest, "0"), look.done)
            self.store("i64", self.op("sub", "i64", rest, "1"), left)
            self.pause()
        self.change("sub", self.watching, 1, "seq_cst")


class _Summon(_Board):
    """Called from Python, for a worker that has gone to wait."""

    def function(self) -> str:
        self.change("xchg", self.field("%seat", SEAT, "summoned"), 1, "seq_cst")
        self.wake("%seat")
        self.line("ret void")
        return self.text(entry_symbol("summon"), "void", ("ptr %board", "ptr %seat"))


class _Pause(_Board):
    """Looks at an empty board that is its own."""

    def function(self) -> str:
        left = self.variable("i64", "%turns")
        word = self.variable("i64", "0")
        with self.again() as look:
            self.atomic_load(word, "acquire")
            rest = self.load("i64", left)
            self.unless(self.compare("icmp sgt", "i64", rest, "0"), look.done)
            self.store("i64", self.op("sub", "i64", rest, "1"), left)
            self.pause()
        self.line("ret void")
        # `board` is any address: what `_Board` works out from it is not used.
        return self.text(entry_symbol("pause"), "void", ("ptr %board", "i64 %turns"))
