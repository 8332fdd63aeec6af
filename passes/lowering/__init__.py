"""The lowering from the program level to loops: one function per statement, kernel or scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from einloom.ir import extents as ext
from einloom.ir.errors import UnsupportedError
from einloom.ir.expressions import Apply, Expression, Literal
from einloom.ir.infer import infer
from einloom.ir.loops import For, Launch, LoopFunction, LoopProgram, LoopStatement, Storage
from einloom.ir.node import postorder
from einloom.ir.ops import OPS, apply
from einloom.ir.program import Call, Constant, Einsum, Kernel, Module, Scan, Statement
from einloom.ir.types import i64
from einloom.passes.lowering.context import context_of
from einloom.passes.lowering.function import (
    FunctionBuilder,
    OperandLayout,
    Place,
    ProgramContext,
)
from einloom.passes.lowering.nests import Nest
from einloom.passes.lowering.products.blocking import Blocking, Parts
from einloom.passes.lowering.scans import lower_scan
from einloom.passes.lowering.spine import Refusal, spine_of

if TYPE_CHECKING:
    from einloom.passes.lowering.products.blocking import Cut
    from einloom.passes.lowering.products.epilogues import Segment


TILED_SPEED = 16
"""How many operations of a packed contraction take the time of one elsewhere."""


def lower(
    module: Module,
    layouts: Mapping[str, OperandLayout] | None = None,
    *,
    strict: bool = False,
    blockings: Mapping[str, Cut] | None = None,
) -> LoopProgram:
    """The loops-level program of a module.

    `layouts` states what is known of the inputs' and outputs' strides; a tensor that it leaves
    out is contiguous in C order. `strict` keeps the written order of floating folds.
    `blockings`: by tensor, how the contraction that defines it is packed and cut
    (`products.plan` makes them).
    Raises UnsupportedError for a `call`, which has no native form.
    """
    inference = infer(module)
    context = context_of(module, inference, layouts or {}, strict=strict, blockings=blockings)
    work = _Program(module, context)
    for statement in module.body:
        work.statement(statement)
    return work.finish()


class _Program:
    def __init__(self, module: Module, context: ProgramContext) -> None:
        self.module = module
        self.context = context
        self.functions: list[LoopFunction] = []
        self.launches: list[Launch] = []
        self.builders: list[FunctionBuilder] = []
        self.local: set[str] = set()

    def statement(self, statement: Statement) -> None:
        match statement:
            case Einsum() if self.is_in_parts(statement):
                self.in_parts(statement)
            case Einsum():
                builder = self.builder(statement.targets[0].name)
                typing = self.context.inference.einsums[statement]
                nest = Nest(builder, statement, typing, Place({}, {}))
                self.add(builder, nest.build(), self.work(statement))
            case Scan():
                builder = self.builder(statement.initial[0].targets[0].name)
                body = lower_scan(builder, statement, Place({}, {}))
                self.add(builder, body, Literal(1))
            case Kernel():
                self.kernel(statement)
            case Call():
                raise UnsupportedError(
                    f"call {statement.function}@{statement.version} has no native form",
                    location=statement.location,
                    suggestion="run the program with einloom.interpret",
                )
            case Constant():
                pass

    def work(self, statement: Einsum) -> Expression:
        """What decides whether threads pay, in scalar operations of loops that are not tiled."""
        whole = work_of(statement, self.context)
        if isinstance(self.context.blockings.get(statement.targets[0].name), Blocking):
            whole = apply("add", whole, Literal(TILED_SPEED - 1))
            return ext.simplify(Apply("floordiv", (whole, Literal(TILED_SPEED))))
        return whole

    def is_in_parts(self, statement: Einsum) -> bool:
        return isinstance(self.context.blockings.get(statement.targets[0].name), Parts)

    def in_parts(self, statement: Einsum) -> None:
        """A reduction in parts: one function that folds them and one that folds their results."""
        from einloom.passes.lowering.parts import halves, partial_loops

        parts = self.context.blockings[statement.targets[0].name]
        assert isinstance(parts, Parts)
        found = halves(statement, parts, self.context)
        self.context = found.context
        builder = self.builder(found.partial.targets[0].name)
        self.add(builder, partial_loops(builder, found), work_of(statement, self.context))
        builder = self.builder(statement.targets[0].name)
        typing = self.context.inference.einsums[found.whole]
        nest = Nest(builder, found.whole, typing, Place({}, {}))
        self.add(builder, nest.build(), work_of(found.whole, self.context))

    def kernel(self, kernel: Kernel) -> None:
        """One function when the statements share loops, otherwise one for each."""
        einsums = [s for s in kernel.body if isinstance(s, Einsum)]
        if len(einsums) < len(kernel.body):
            for inner in kernel.body:
                self.statement(inner)
        elif self.context.blockings:
            from einloom.passes.lowering.products.epilogues import read_outside, segments_of

            segments = segments_of(einsums, self.context)
            for segment in segments:
                others = [s for other in segments if other != segment for s in other.statements]
                needed = read_outside(segment, others, kernel.outputs)
                if segment.is_product:
                    self.product(kernel.name, segment, needed)
                else:
                    self.shared(kernel.name, segment.statements, needed)
        else:
            self.shared(kernel.name, einsums, kernel.outputs)

    def product(self, name: str, segment: Segment, needed: Sequence[str]) -> None:
        """A packed contraction and the maps of its cells, of which `needed` are stored."""
        from einloom.passes.lowering.products.factors import product_of
        from einloom.passes.lowering.products.loops import product_loops

        first, *epilogues = segment.statements
        builder = self.builder(name)
        nest = Nest(builder, first, self.context.inference.einsums[first], Place({}, {}))
        product = product_of(nest, tuple(epilogues))
        blocking = self.context.blockings[first.targets[0].name]
        assert product is not None and isinstance(blocking, Blocking)
        self.local.update(set(segment.tensors) - set(needed))
        body = product_loops(nest, product, blocking, needed)
        self.add(builder, body, self.work(first))

    def shared(self, name: str, einsums: Sequence[Einsum], outputs: Sequence[str]) -> None:
        """Statements in common outer loops where they have some, else one after another."""
        members = spine_of(einsums, self.context)
        if isinstance(members, Refusal) or len(einsums) == 1:
            for inner in einsums:
                self.statement(inner)
            return
        from einloom.passes.lowering.kernels import lower_kernel

        builder = self.builder(name)
        body = lower_kernel(builder, members, outputs, Place({}, {}))
        self.local.update({t.name for s in einsums for t in s.targets} - set(outputs))
        self.add(builder, body, apply("add", *(work_of(s, self.context) for s in einsums)))

    def builder(self, name: str) -> FunctionBuilder:
        return FunctionBuilder(f"k{len(self.functions)}_{identifier(name)}", self.context)

    def add(self, builder: FunctionBuilder, body: list[LoopStatement], work: Expression) -> None:
        body = builder.streamed(body)
        first = body[0] if len(body) == 1 else None
        slices = first.upper if isinstance(first, For) and first.kind == "parallel" else None
        function = builder.finish(body)
        names = {name: extent for extent, name in builder.scalars.items()}
        if slices is not None and not isinstance(slices, Literal):
            slices = names[slices.name]  # type: ignore[attr-defined]
        self.functions.append(function)
        self.builders.append(builder)
        self.launches.append(Launch(function.name, tuple(builder.scalars), slices, work))

    def finish(self) -> LoopProgram:
        return LoopProgram(
            tuple(self.functions),
            tuple(self.storages()),
            tuple(self.launches),
            tuple(site for builder in self.builders for site in builder.faults),
        )

    def storages(self) -> list[Storage]:
        """Everything that statements define, whole: the launcher allocates it."""
        given = {item.name for item in self.module.inputs}
        given |= {s.name for s in self.module.body if isinstance(s, Constant)}
        found: list[Storage] = []
        for name, type_ in self.context.inference.tensors.items():
            if name in given or name in self.local:
                continue
            extents = type_.extents
            if name in self.context.rings:
                extents = (Literal(self.context.rings[name]), *extents[1:])
            found.append(Storage(name, type_.dtype, extents))
        found.extend(Storage(name, i64, ()) for name in self.context.counters.values())
        return found


def identifier(name: str) -> str:
    """A name usable as a symbol of machine code."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)


def work_of(statement: Einsum, context: ProgramContext) -> Expression:
    """Scalar operations of a statement: its iteration space times the cost of its body."""
    applied = [p.op for p in postorder(statement.body) if isinstance(p, Apply)]
    cost = sum(OPS[op].cost if op in OPS else 10.0 for op in applied) + 1
    extents = context.inference.einsums[statement].extents.values()
    return ext.simplify(apply("mul", Literal(int(cost)), *extents))


__all__ = ["OperandLayout", "lower"]
