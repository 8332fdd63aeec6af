"""Structured control flow and memory on top of the builder: loops, conditions, variables.

Variables are stack slots, which LLVM turns into registers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from einloom.backends.cpu.builder import FunctionBuilder, ModuleBuilder, global_name
from einloom.ir.record import record


@record
class Loop:
    """A loop that is being written: its index, and where to go on and where to leave."""

    index: str
    next: str
    done: str


class Structured(FunctionBuilder):
    """A function whose text is written from the top to the bottom, blocks included."""

    def __init__(self, module: ModuleBuilder) -> None:
        super().__init__(module)
        self._slots: list[str] = []

    def text(
        self, name: str, result: str, parameters: Sequence[str], *, exported: bool = True
    ) -> str:
        """The whole function; one that is not exported is private to the module."""
        linkage = "" if exported else "internal "
        head = f"define {linkage}{result} {global_name(name)}({', '.join(parameters)}) nounwind {{"
        return "\n".join([head, "entry:", *self._slots, *self.lines, "}"])

    # ---- memory -----------------------------------------------------------------------------

    def slot(self, text: str) -> str:
        name = self.name("slot")
        self._slots.append(f"  {name} = alloca {text}")
        return name

    def variable(self, machine_type: str, initial: str) -> str:
        """A pointer to a variable, set here and now."""
        name = self.slot(machine_type)
        self.store(machine_type, initial, name)
        return name

    def array(self, machine_type: str, items: int) -> str:
        return self.slot(f"[{items} x {machine_type}]")

    def memory(self, size: int, alignment: int) -> str:
        return self.slot(f"[{size} x i8], align {alignment}")

    def load(self, machine_type: str, pointer: str, offset: int = 0) -> str:
        """What stands `offset` bytes behind a pointer."""
        return self.value(f"load {machine_type}, ptr {self.pointer(pointer, offset)}")

    def load_at(self, machine_type: str, pointer: str, index: str) -> str:
        """One of a row of 8-byte words."""
        return self.value(f"load {machine_type}, ptr {self.pointer_at(pointer, index)}")

    def store(self, machine_type: str, value: str, pointer: str) -> None:
        self.line(f"store {machine_type} {value}, ptr {pointer}")

    def store_at(self, machine_type: str, value: str, pointer: str, index: str) -> None:
        self.store(machine_type, value, self.pointer_at(pointer, index))

    def pointer(self, pointer: str, offset: int) -> str:
        return self.pointer_by(pointer, str(offset)) if offset else pointer

    def pointer_at(self, pointer: str, index: str) -> str:
        """A pointer to one of a row of 8-byte words."""
        return self.value(f"getelementptr i64, ptr {pointer}, i64 {index}")

    def pointer_by(self, pointer: str, offset: str) -> str:
        """A pointer moved by bytes."""
        return self.value(f"getelementptr i8, ptr {pointer}, i64 {offset}")

    # ---- control flow -----------------------------------------------------------------------

    def call(self, result: str, function: str, *arguments: str) -> str:
        """Call through a pointer; the name of its result, or nothing for `void`."""
        text = f"call {result} {function}({', '.join(arguments)})"
        if result == "void":
            self.line(text)
            return ""
        return self.value(text)

    def unless(self, condition: str, otherwise: str) -> None:
        """Go on where the condition holds, else continue at a label."""
        label = self.label("go_on")
        self.branch(condition, label, otherwise)
        self.start(label)

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """What is written inside runs where the condition holds."""
        inside, after = self.label("when"), self.label("after")
        self.branch(condition, inside, after)
        self.start(inside)
        yield
        self.jump(after)
        self.start(after)

    @contextmanager
    def loop(self, count: str) -> Iterator[Loop]:
        """What is written inside runs for the indices from 0 to `count` - 1."""
        counter = self.variable("i64", "0")
        head, body, following, done = (
            self.label(hint) for hint in ("loop", "body", "next", "done")
        )
        self.jump(head)
        self.start(head)
        index = self.load("i64", counter)
        self.branch(self.compare("icmp slt", "i64", index, count), body, done)
        self.start(body)
        yield Loop(index, following, done)
        self.jump(following)
        self.start(following)
        self.store("i64", self.op("add", "i64", index, "1"), counter)
        self.jump(head)
        self.start(done)

    def leave_for(self, label: str) -> None:
        """Continue at a label; what is written next is reached from elsewhere or not at all."""
        self.jump(label)
        self.start(self.label("unreached"))

    def give(self, machine_type: str, value: str) -> None:
        """Return a value; what is written next is reached from elsewhere or not at all."""
        self.line(f"ret {machine_type} {value}")
        self.start(self.label("unreached"))
