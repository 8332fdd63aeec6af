"""The lowering from the program level to loops: one function per statement, kernel or scan."""

from __future__ import annotations

from collections.abc import Mapping

from einloom.ir import extents as ext
from einloom.ir.definitions import functions_of, monoids_of
from einloom.ir.errors import UnsupportedError
from einloom.ir.expressions import Expression, Literal
from einloom.ir.infer import infer
from einloom.ir.loops import For, Launch, LoopFunction, LoopProgram, LoopStatement, Storage
from einloom.ir.node import postorder
from einloom.ir.ops import OPS, apply
from einloom.ir.program import Call, Constant, Einsum, Kernel, Module, Scan, Statement
from einloom.ir.types import i64
from einloom.passes.lowering.function import (
    FunctionBuilder,
    OperandLayout,
    Place,
    ProgramContext,
)
from einloom.passes.lowering.kernels import lower_kernel
from einloom.passes.lowering.nests import Nest
from einloom.passes.lowering.scans import counters, lower_scan, rings
from einloom.passes.lowering.spine import Refusal, spine_of


def lower(
    module: Module,
    layouts: Mapping[str, OperandLayout] | None = None,
    *,
    strict: bool = False,
) -> LoopProgram:
    """The loops-level program of a module.

    `layouts` states what is known of the inputs' and outputs' strides; a tensor that it leaves
    out is contiguous in C order. `strict` keeps the written order of floating folds.
    Raises UnsupportedError for a `call`, which has no native form.
    """
    inference = infer(module)
    context = ProgramContext(
        inference,
        layouts or {},
        functions_of(module),
        monoids_of(module),
        rings(module, inference),
        strict,
        counters(inference),
    )
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
            case Einsum():
                builder = self.builder(statement.targets[0].name)
                typing = self.context.inference.einsums[statement]
                nest = Nest(builder, statement, typing, Place({}, {}))
                self.add(builder, nest.build(), work_of(statement, self.context))
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

    def kernel(self, kernel: Kernel) -> None:
        """One function when the statements share loops, otherwise one for each."""
        einsums = [s for s in kernel.body if isinstance(s, Einsum)]
        members = spine_of(einsums, self.context)
        if len(einsums) < len(kernel.body) or isinstance(members, Refusal):
            for inner in kernel.body:
                self.statement(inner)
            return
        builder = self.builder(kernel.name)
        body = lower_kernel(builder, members, kernel.outputs, Place({}, {}))
        self.local.update(builder.locals)
        self.add(builder, body, apply("add", *(work_of(s, self.context) for s in einsums)))

    def builder(self, name: str) -> FunctionBuilder:
        return FunctionBuilder(f"k{len(self.functions)}_{identifier(name)}", self.context)

    def add(self, builder: FunctionBuilder, body: list[LoopStatement], work: Expression) -> None:
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
    from einloom.ir.expressions import Apply

    applied = [p.op for p in postorder(statement.body) if isinstance(p, Apply)]
    cost = sum(OPS[op].cost if op in OPS else 10.0 for op in applied) + 1
    extents = context.inference.einsums[statement].extents.values()
    return ext.simplify(apply("mul", Literal(int(cost)), *extents))


__all__ = ["OperandLayout", "lower"]
