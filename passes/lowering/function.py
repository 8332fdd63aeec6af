"""Building one function of the loops level: names, buffers, scalars, faults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from einloom.ir import extents as ext
from einloom.ir.errors import UnsupportedError
from einloom.ir.expressions import Apply, Expression, Literal, Local, Symbol
from einloom.ir.infer import Inference
from einloom.ir.loops import Buffer, FaultSite, Let, LoopFunction, LoopStatement, buffer_name
from einloom.ir.names import unique_name
from einloom.ir.program import Function, Monoid, Scan
from einloom.ir.record import record
from einloom.ir.types import DType, Quantized, TensorType, Tuple, i64

if TYPE_CHECKING:
    from einloom.passes.lowering.products.blocking import Cut


@record
class OperandLayout:
    """What a kernel may rely on about an operand: constant strides in bytes, alignment.

    `merged`: by rank, whether it and the next lie as one: its stride is the next one's times
    the next one's extent. Of a tensor that has a layout without it, nothing is known.
    """

    strides: tuple[int | None, ...]
    aligned: bool = True
    merged: tuple[bool, ...] = ()


@record
class ProgramContext:
    """What all functions of one program share.

    `rings`: scan states of which only the last few iterations are kept, with their count.
    `counters`: by first state, the rank-0 tensor that holds how many iterations a scan with
    `until` executed. `blockings`: by tensor, how the statement that defines it is cut, where that
    pays.
    """

    inference: Inference
    layouts: Mapping[str, OperandLayout]
    functions: Mapping[str, Function]
    monoids: Mapping[str, Monoid]
    rings: Mapping[str, int]
    strict: bool = False
    counters: Mapping[str, str] = field(default_factory=dict)
    blockings: Mapping[str, Cut] = field(default_factory=dict)

    @property
    def streamed(self) -> frozenset[str]:
        """The tensors that are written past the caches."""
        from einloom.passes.lowering.products.blocking import Blocking, Streaming

        return frozenset(
            name
            for name, cut in self.blockings.items()
            if isinstance(cut, Streaming) or (isinstance(cut, Blocking) and cut.streamed)
        )

    def type_of(self, tensor: str) -> TensorType:
        if tensor in self.counters.values():
            return TensorType(i64)
        return self.inference.tensors[tensor]

    def counter_of(self, scan: Scan) -> str:
        return self.counters[scan.initial[0].targets[0].name]

    def components(self, tensor: str) -> tuple[DType, ...]:
        """The dtypes of a tensor's buffers: several when its dtype is a tuple."""
        dtype = self.type_of(tensor).dtype
        if isinstance(dtype, Quantized):
            raise UnsupportedError(
                f"{tensor} is quantized, and only inputs of the program may be",
            )
        return dtype.items if isinstance(dtype, Tuple) else (dtype,)


@record
class LocalTensor:
    """An intermediate of a kernel: its buffers, and which of its ranks they keep."""

    buffers: tuple[str, ...]
    kept: tuple[int, ...]


@dataclass
class FunctionBuilder:
    """Collects what one function uses while its body is built."""

    name: str
    context: ProgramContext
    buffers: dict[str, Buffer] = field(default_factory=dict)
    scalars: dict[Expression, str] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    faults: list[FaultSite] = field(default_factory=list)
    locals: dict[str, LocalTensor] = field(default_factory=dict)

    def fresh(self, hint: str) -> str:
        name = unique_name(hint, self.taken)
        self.taken.append(name)
        return name

    def scalar(self, extent: Expression) -> Expression:
        """An extent as a literal or as a scalar parameter that the launcher computes."""
        extent = ext.simplify(extent)
        if isinstance(extent, Literal):
            return extent
        if extent not in self.scalars:
            hint = extent.name if isinstance(extent, Symbol) else "size"
            if hint in self.context.inference.tensors:  # a buffer will have that name
                hint = "size"
            self.scalars[extent] = self.fresh(hint)
        return Symbol(self.scalars[extent])

    def buffer(self, tensor: str, component: int = 0, write: bool = False) -> str:
        """The name of the buffer of a tensor's component, declared on first use."""
        if tensor in self.locals:
            return self.locals[tensor].buffers[component]
        dtypes = self.context.components(tensor)
        name = buffer_name(tensor, component if len(dtypes) > 1 else None)
        known = self.buffers.get(name)
        role = "out" if write else "in"
        if known is not None:
            if known.role not in (role, "inout"):
                self.buffers[name] = Buffer(
                    name, known.dtype, known.strides, "inout", known.aligned
                )
            return name
        layout = self.context.layouts.get(name)
        if layout is None:
            layout = self.default_layout(tensor, dtypes[component], len(dtypes) > 1)
        self.buffers[name] = Buffer(name, dtypes[component], layout.strides, role, layout.aligned)
        self.taken.append(name)
        return name

    def merged(self, tensor: str) -> tuple[bool, ...]:
        """By rank, whether it and the next are one in memory."""
        count = len(self.context.type_of(tensor).ranks)
        if tensor in self.locals or tensor in self.context.rings:
            return (False,) * count
        layout = self.context.layouts.get(tensor)
        if layout is None:
            return (True,) * count
        return layout.merged or (False,) * count

    def storage_indices(self, tensor: str, indices: list[Expression]) -> list[Expression]:
        """Indices into what is stored of a tensor: a ring of states, or one iteration's part."""
        kept = self.context.rings.get(tensor)
        if kept is not None:
            return [Apply("mod", (indices[0], Literal(kept))), *indices[1:]]
        if tensor in self.locals:
            return [indices[position] for position in self.locals[tensor].kept]
        return indices

    def default_layout(self, tensor: str, dtype: DType, structured: bool) -> OperandLayout:
        """Contiguous in C order; the components of a structured array are strided."""
        from einloom.ir.promotion import numpy_dtype

        rank = len(self.context.type_of(tensor).ranks)
        if structured:
            return OperandLayout((None,) * rank, aligned=False)
        return OperandLayout((None,) * (rank - 1) + (numpy_dtype(dtype).itemsize,) * (rank > 0))

    def bind(self, value: Expression, hint: str, out: list[LoopStatement]) -> Expression:
        """`value` under a name, unless it is one already."""
        if isinstance(value, Local | Literal | Symbol):
            return value
        name = self.fresh(hint)
        out.append(Let(name, value))
        return Local(name)

    def fault(self, message: str) -> int:
        for site in self.faults:
            if site.message == message:
                return site.number
        self.faults.append(FaultSite(self.name, len(self.faults) + 1, message))
        return len(self.faults)

    def streamed(self, body: list[LoopStatement]) -> list[LoopStatement]:
        """The body, with what is too large for the caches written past them where that can be."""
        names = self.context.streamed if self.context.blockings else ()
        buffers = [b for b in self.buffers.values() if b.role == "out" and b.name in names]
        if not buffers:
            return body
        from einloom.passes.lowering.streams import with_streams

        return with_streams(body, buffers, self)

    def finish(self, body: list[LoopStatement]) -> LoopFunction:
        return LoopFunction(
            self.name,
            tuple(self.buffers.values()),
            tuple(self.scalars.values()),
            tuple(body),
            reassociate=not self.context.strict,
        )


@record
class Place:
    """Where a statement is evaluated: loop variables of its indices, what bounds them.

    `steps`: for a scan whose number of executed iterations is a runtime value, that value.
    """

    variables: Mapping[str, Expression]
    extents: Mapping[str, Expression]
    condition: Expression | None = None
    scans: tuple[str, ...] = ()
    inside: tuple[Scan, ...] = ()
