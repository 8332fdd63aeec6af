"""A small builder of LLVM IR text: numbered values, blocks, declarations and metadata.

It is ours because importing llvmlite's own builder costs more than compiling a kernel. Text is
deterministic: names are numbered in the order of emission and declarations are sorted.

Source: LLVM Language Reference, version 22.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

from einloom.backends.cpu.target import Target

_PLAIN_NAME = re.compile(r"[A-Za-z$._][A-Za-z$._0-9]*")
_SHORT = {"float": "f32", "double": "f64", "half": "f16", "ptr": "p0"}


@cache
def lanes_of(machine_type: str) -> int:
    """Lanes of a vector type, 1 for a scalar one."""
    return int(machine_type[1:].split(" ", 1)[0]) if machine_type.startswith("<") else 1


@cache
def element_of(machine_type: str) -> str:
    """`float` for `float` and for `<4 x float>`."""
    return machine_type.split(" x ")[1][:-1] if machine_type.startswith("<") else machine_type


@cache
def with_element(machine_type: str, element: str) -> str:
    """The type of `element` with as many lanes as `machine_type` has."""
    lanes = lanes_of(machine_type)
    return f"<{lanes} x {element}>" if lanes > 1 else element


@cache
def bits_of(machine_type: str) -> int:
    """Bits of one element."""
    element = element_of(machine_type)
    return {"float": 32, "double": 64, "half": 16}.get(element) or int(element[1:])


@cache
def mangled(machine_type: str) -> str:
    """How a type is spelled in the name of an overloaded intrinsic: `v4f32`, `i64`."""
    element = element_of(machine_type)
    lanes = lanes_of(machine_type)
    return (f"v{lanes}" if lanes > 1 else "") + _SHORT.get(element, element)


def global_name(name: str) -> str:
    """`@name`, quoted where LLVM's lexer needs it."""
    if _PLAIN_NAME.fullmatch(name):
        return f"@{name}"
    escaped = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:02X}"
        for byte in name.encode("utf-8", "surrogatepass")
    )
    return f'@"{escaped}"'


class ModuleBuilder:
    """Functions, declarations and metadata of one module."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._functions: list[str] = []
        self._helpers: dict[str, str] = {}
        self._declarations: dict[str, str] = {}
        self._metadata: list[str] = []
        self._metadata_numbers: dict[str, int] = {}

    @property
    def native_half(self) -> bool:
        """Whether the target converts between f16 and f32 without a library call."""
        if self.target.architecture == "x86_64":
            return "f16c" in self.target.features
        return self.target.architecture == "aarch64"

    def declare(self, name: str, result: str, arguments: Sequence[str], attributes: str) -> None:
        """Declare an outside function; a second declaration of the same name is dropped."""
        parameters = ", ".join(arguments)
        self._declarations[name] = f"declare {result} @{name}({parameters}) {attributes}".rstrip()

    def helper(self, name: str, text: Callable[[], str]) -> str:
        """The name of an internal function, whose text is made on first use."""
        if name not in self._helpers:
            self._helpers[name] = ""  # the text may itself ask for helpers
            self._helpers[name] = text()
        return name

    def add(self, function: str) -> None:
        self._functions.append(function)

    def metadata(self, text: str) -> str:
        """`!7` for a metadata node; equal texts share one."""
        if text not in self._metadata_numbers:
            self._metadata_numbers[text] = len(self._metadata)
            self._metadata.append(text)
        return f"!{self._metadata_numbers[text]}"

    def distinct(self, *rest: str) -> str:
        """A metadata node that is equal to no other, its first field being itself."""
        number = len(self._metadata)
        self._metadata.append(f"distinct !{{{', '.join([f'!{number}', *rest])}}}")
        return f"!{number}"

    def text(self) -> str:
        """The whole module."""
        parts = [f'target triple = "{self.target.triple}"', *self._functions]
        parts += [self._helpers[name] for name in sorted(self._helpers)]
        parts.append("\n".join(self._declarations[name] for name in sorted(self._declarations)))
        parts.append("\n".join(f"!{n} = {text}" for n, text in enumerate(self._metadata)))
        return "\n\n".join(part for part in parts if part) + "\n"


class FunctionBuilder:
    """The instructions of one function, in order."""

    def __init__(self, module: ModuleBuilder) -> None:
        self.module = module
        self.lines: list[str] = []
        self.block = "entry"
        self._count = 0

    # ---- structure ------------------------------------------------------------------------

    def name(self, hint: str = "") -> str:
        """A fresh `%name`; a hint that LLVM would have to quote is dropped."""
        self._count += 1
        return f"%{hint}.{self._count}" if _PLAIN_NAME.fullmatch(hint) else f"%v{self._count}"

    def label(self, hint: str) -> str:
        self._count += 1
        return f"{hint}.{self._count}"

    def start(self, label: str) -> None:
        """Begin a block."""
        self.lines.append(f"{label}:")
        self.block = label

    def line(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def reserve(self) -> int:
        """Keep a line for text that is known later, such as a phi node."""
        self.lines.append("")
        return len(self.lines) - 1

    def fill(self, position: int, text: str) -> None:
        self.lines[position] = f"  {text}"

    def jump(self, label: str) -> None:
        self.line(f"br label %{label}")

    def branch(self, condition: str, yes: str, no: str, metadata: str = "") -> None:
        self.line(f"br i1 {condition}, label %{yes}, label %{no}{metadata}")

    def phi(self, machine_type: str, incoming: Sequence[tuple[str, str]], hint: str = "") -> str:
        """A phi node of (value, block) pairs; must come first in its block."""
        name = self.name(hint)
        self.line(f"{name} = phi {phi_text(machine_type, incoming)}")
        return name

    # ---- instructions ---------------------------------------------------------------------

    def value(self, text: str) -> str:
        """An instruction that yields a value."""
        self._count += 1
        name = f"%v{self._count}"
        self.lines.append(f"  {name} = {text}")
        return name

    def op(self, opcode: str, machine_type: str, *operands: str) -> str:
        """`add i32 a, b`, `fneg float a`: operands and result of one type."""
        return self.value(f"{opcode} {machine_type} {', '.join(operands)}")

    def compare(self, predicate: str, machine_type: str, a: str, b: str) -> str:
        """`icmp slt` or `fcmp oeq`; the result is an i1, or as many as there are lanes."""
        return self.value(f"{predicate} {machine_type} {a}, {b}")

    def select(self, condition: str, machine_type: str, a: str, b: str) -> str:
        truth = with_element(machine_type, "i1")
        return self.value(f"select {truth} {condition}, {machine_type} {a}, {machine_type} {b}")

    def convert(self, opcode: str, source: str, operand: str, destination: str) -> str:
        """`sext i8 x to i32` and its kin; types are those of the values, lanes included."""
        if source == destination:
            return operand
        return self.value(f"{opcode} {source} {operand} to {destination}")

    def intrinsic(
        self, name: str, machine_type: str, *operands: str, flags: str = "", suffix: str = ""
    ) -> str:
        """An intrinsic whose operands and result have one type, such as `llvm.exp`."""
        full = f"{name}.{suffix or mangled(machine_type)}"
        self.module.declare(full, machine_type, [machine_type] * len(operands), "")
        arguments = ", ".join(f"{machine_type} {operand}" for operand in operands)
        return self.value(f"call {flags}{machine_type} @{full}({arguments})")

    def lanewise(
        self, machine_type: str, operands: Sequence[str], call: Callable[[list[str]], str]
    ) -> str:
        """Apply a function of scalars to every lane of vectors of one type."""
        lanes = lanes_of(machine_type)
        if lanes == 1:
            return call(list(operands))
        element, result = element_of(machine_type), "poison"
        for lane in range(lanes):
            scalars = [
                self.value(f"extractelement {machine_type} {operand}, i64 {lane}")
                for operand in operands
            ]
            item = call(scalars)
            result = self.value(
                f"insertelement {machine_type} {result}, {element} {item}, i64 {lane}"
            )
        return result

    def libm(self, name: str, machine_type: str, *operands: str) -> str:
        """A real function of the C mathematical library, `name` being the double version."""
        element = element_of(machine_type)
        full = name + "f" if element == "float" else name
        self.module.declare(
            full, element, [element] * len(operands), "nounwind willreturn memory(none)"
        )

        def call(scalars: list[str]) -> str:
            arguments = ", ".join(f"{element} {scalar}" for scalar in scalars)
            return self.value(f"call {element} @{full}({arguments})")

        return self.lanewise(machine_type, operands, call)

    def splat(self, machine_type: str, scalar: str) -> str:
        """`scalar`, a value of the element's type, in every lane."""
        lanes = lanes_of(machine_type)
        if lanes == 1:
            return scalar
        first = self.value(
            f"insertelement {machine_type} poison, {element_of(machine_type)} {scalar}, i64 0"
        )
        zeros = f"<{lanes} x i32> zeroinitializer"
        return self.value(f"shufflevector {machine_type} {first}, {machine_type} poison, {zeros}")


def phi_text(machine_type: str, incoming: Sequence[tuple[str, str]]) -> str:
    """The operands of a phi node: `i64 [ 0, %entry ], [ %next, %loop ]`."""
    return f"{machine_type} " + ", ".join(f"[ {value}, %{block} ]" for value, block in incoming)
