"""What a library shows to C: the members of its arguments, and the codes that it returns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from einloom.backends.cpu.export.c_names import entry_name, member_name
from einloom.backends.cpu.export.processors import Processor
from einloom.ir.errors import UnsupportedError
from einloom.ir.expressions import Expression, Literal, Symbol
from einloom.ir.infer import Inference, infer
from einloom.ir.loops import LoopProgram
from einloom.ir.program import Module
from einloom.ir.promotion import numpy_dtype
from einloom.ir.record import record
from einloom.ir.types import Quantized, Scalar, TensorType, Tuple

OK, NULL, LAYOUT, MEMORY, PROCESSOR, SIZE = 0, 1, 2, 3, 4, 5
FIRST_SHAPE = 100
_FAULT_STEP = 1000


@record
class Member:
    """A tensor among the arguments: `data`, then `extents` and `strides` unless its rank is 0.

    `name` is the program's, `member` the one in C, `place` its offset in bytes.
    """

    name: str
    member: str
    type: TensorType
    place: int
    written: bool

    @property
    def rank(self) -> int:
        return len(self.type.ranks)

    @property
    def item_size(self) -> int:
        """Bytes of an element."""
        return numpy_dtype(self.type.dtype).itemsize

    @property
    def alignment(self) -> int:
        """Bytes that the address of an element is a multiple of; 1 for packed tuples."""
        if isinstance(self.type.dtype, Tuple):
            return 1
        is_complex = isinstance(self.type.dtype, Scalar) and self.type.dtype.kind == "complex"
        return self.item_size // (2 if is_complex else 1)

    def extent_place(self, rank: int) -> int:
        return self.place + 8 + 8 * rank

    @property
    def strides_place(self) -> int:
        return self.place + 8 + 8 * self.rank

    @property
    def size(self) -> int:
        return 8 + (8 * self.rank + 8 if self.rank else 0)


@record
class SizeMember:
    """An extent among the arguments: `int64_t`."""

    name: str
    member: str
    place: int


@record
class Equation:
    """Two extents that must agree; `code` is returned, with its message, where they do not.

    `left` is what the caller gave: a rank of a member, or None where both sides are expressions.
    """

    code: int
    message: str
    right: Expression
    left: tuple[Member, int] | Expression


@record
class Sign:
    """An extent of the program that must not be negative."""

    code: int
    message: str
    extent: Expression


@record
class Interface:
    """Everything that the header states and the entry keeps.

    `bindings`: the symbols in order, each with the member that it is the size of, and a rank.
    `faults`: by the text of a fault in loop programs, its code. `messages`: by code.
    """

    name: str
    program: str
    processor: Processor
    inputs: tuple[Member | SizeMember, ...]
    outputs: tuple[Member, ...]
    bindings: Mapping[str, tuple[Member, int] | SizeMember]
    equations: tuple[Equation, ...]
    signs: tuple[Sign, ...]
    first_fault: int
    faults: Mapping[str, int]
    messages: Mapping[int, str]
    fault_place: int
    threads_place: int

    @property
    def tensors(self) -> tuple[Member, ...]:
        return (*(item for item in self.inputs if isinstance(item, Member)), *self.outputs)


def refuse_quantized(module: Module) -> None:
    """Raises UnsupportedError for quantized inputs, whose decoding is no part of the kernels."""
    for item in module.inputs:
        if item.type is not None and isinstance(item.type.dtype, Quantized):
            raise UnsupportedError(
                f"the input {item.name} is quantized, and a library for C does not take that yet",
                location=item.location,
                suggestion="declare the codes and the scales as inputs of their own",
            )


def interface_of(
    module: Module, programs: Sequence[LoopProgram], processor: Processor, name: str | None = None
) -> Interface:
    """The interface of a module; `programs` are its lowered forms.

    Raises UnsupportedError for a name that C does not take.
    """
    inference = infer(module)
    inputs, outputs, place = _members(module, inference)
    bindings = _bindings(inputs, inference)
    equations, signs = _checks(inputs, outputs, inference, bindings)
    first_fault = -(-(FIRST_SHAPE + len(equations) + len(signs)) // _FAULT_STEP) * _FAULT_STEP
    faults: dict[str, int] = {}
    messages = _general_messages(processor)
    messages.update({equation.code: equation.message for equation in equations})
    messages.update({sign.code: sign.message for sign in signs})
    codes: dict[str, int] = {}
    for message in (site.message for program in programs for site in program.faults):
        text = _without_values(message)
        faults[message] = codes.setdefault(text, first_fault + len(codes))
        messages[faults[message]] = text
    return Interface(
        entry_name(module.name, name),
        module.name,
        processor,
        inputs,
        outputs,
        bindings,
        equations,
        signs,
        first_fault,
        faults,
        messages,
        place,
        place + 8,
    )


def _members(
    module: Module, inference: Inference
) -> tuple[tuple[Member | SizeMember, ...], tuple[Member, ...], int]:
    """Inputs, outputs, and the offset after them."""
    taken = {"fault", "threads", "data", "extents", "strides"}
    place = 0
    inputs: list[Member | SizeMember] = []
    outputs: list[Member] = []
    for item in module.inputs:
        name = member_name(item.name, taken)
        taken.add(name)
        if item.type is None:
            inputs.append(SizeMember(item.name, name, place))
            place += 8
        else:
            inputs.append(Member(item.name, name, item.type, place, written=False))
            place += inputs[-1].size  # type: ignore[union-attr]
    given = {item.name for item in inputs}
    for tensor in module.outputs:
        name = member_name(f"{tensor}_result" if tensor in given else tensor, taken)
        taken.add(name)
        outputs.append(Member(tensor, name, inference.tensors[tensor], place, written=True))
        place += outputs[-1].size
    return tuple(inputs), tuple(outputs), place


def _bindings(
    inputs: Sequence[Member | SizeMember], inference: Inference
) -> dict[str, tuple[Member, int] | SizeMember]:
    """Where the size of each symbol comes from: as `binding.bind` finds it."""
    found: dict[str, tuple[Member, int] | SizeMember] = {
        item.name: item for item in inputs if isinstance(item, SizeMember)
    }
    for item in inputs:
        if isinstance(item, Member):
            for position, rank in enumerate(item.type.ranks):
                if isinstance(rank.extent, Symbol):
                    found.setdefault(rank.extent.name, (item, position))
    for symbol in inference.symbols:
        if symbol not in found:
            raise UnsupportedError(
                f"the size of {symbol} does not follow from the inputs",
                suggestion=f"add an input: {symbol}: extent",
            )
    return found


def _checks(
    inputs: Sequence[Member | SizeMember],
    outputs: Sequence[Member],
    inference: Inference,
    bindings: Mapping[str, tuple[Member, int] | SizeMember],
) -> tuple[tuple[Equation, ...], tuple[Sign, ...]]:
    """What `binding.bind` checks of extents, and the same for the results."""
    equations: list[Equation] = []
    for item in (*inputs, *outputs):
        if isinstance(item, SizeMember):
            continue
        for position, rank in enumerate(item.type.ranks):
            extent = str(rank.extent)
            origin = bindings.get(rank.extent.name) if isinstance(rank.extent, Symbol) else None
            if origin == (item, position):
                continue
            if isinstance(origin, tuple):
                where = f"{origin[0].type.ranks[origin[1]].name} of {origin[0].member}"
                extent += f", the extent of rank {where}"
            message = f"rank {rank.name} of {item.member} must have extent {extent}"
            code = FIRST_SHAPE + len(equations)
            equations.append(Equation(code, message, rank.extent, (item, position)))
    for check in inference.checks:
        code = FIRST_SHAPE + len(equations)
        where = _short_place(f"{check.location}: ") if check.location is not None else ""
        message = f"{where}{check.message}: {check.left} and {check.right}"
        equations.append(Equation(code, message, check.right, check.left))
    signs: dict[Expression, Sign] = {}
    wanted = [
        (rank.extent, f"rank {rank.name} of {name}")
        for name, type_ in inference.tensors.items()
        for rank in type_.ranks
    ]
    wanted += [
        (extent, f"index {index}")
        for typing in inference.einsums.values()
        for index, extent in typing.extents.items()
    ]
    wanted += [(Symbol(item.name), item.member) for item in inputs if isinstance(item, SizeMember)]
    for size, what in wanted:
        if size not in signs and not (isinstance(size, Literal) and size.value.real >= 0):
            code = FIRST_SHAPE + len(equations) + len(signs)
            signs[size] = Sign(code, f"the extent {size} ({what}) is negative", size)
    return tuple(equations), tuple(signs.values())


def _general_messages(processor: Processor) -> dict[int, str]:
    lowest = processor.levels[0].name
    needed = "the machine that the library was made on" if lowest == "native" else lowest
    return {
        OK: "done",
        NULL: "the arguments, or the data of a tensor with elements, are a null pointer",
        LAYOUT: "a tensor is not aligned to its elements, or its last rank is not contiguous",
        MEMORY: "out of memory",
        PROCESSOR: f"this processor, or the system, lacks features of {needed}",
        SIZE: "an extent does not fit 64 bits, or divides by zero",
    }


def _short_place(text: str) -> str:
    """A message whose location names the file without its folders."""
    return re.sub(r"^[^:\n]*[/\\](?=[^/\\:\n]+:\d+:\d+: )", "", text)


def _without_values(message: str) -> str:
    """The message of a fault as it reads where the values are reported apart from it."""
    text = re.sub(
        r" is \{value\}, rank (\d+) has extent \{limit\}$", r" is outside rank \1", message
    )
    return _short_place(text)


def packed_parts(dtype: Tuple) -> list[tuple[str, int]]:
    """Dtypes and offsets in bytes of the parts of a tuple, as NumPy packs them."""
    whole = numpy_dtype(dtype)
    fields: Mapping[str, Any] = whole.fields or {}
    return [
        (str(item), int(fields[name][1]))
        for item, name in zip(dtype.items, whole.names or (), strict=True)
    ]
