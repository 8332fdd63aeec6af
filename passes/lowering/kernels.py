"""Lowering of fused kernels: shared outer loops, intermediates cut down to one iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from einloom.ir.expressions import Expression, Index, Literal, Local
from einloom.ir.loops import Allocate, For, LoopStatement
from einloom.passes.lowering.function import FunctionBuilder, LocalTensor, Place
from einloom.passes.lowering.merged import SweepLoops
from einloom.passes.lowering.nests import Nest
from einloom.passes.lowering.spine import Member
from einloom.passes.lowering.sweeps import schedule, step_of

STACK_BYTES = 32 * 1024  # intermediates up to this size live on the stack of a kernel


def lower_kernel(
    builder: FunctionBuilder, members: Sequence[Member], outputs: Sequence[str], place: Place
) -> list[LoopStatement]:
    """Loops over the spine around the nests of all members, the first one parallel."""
    context = builder.context
    first = members[0]
    extents = context.inference.einsums[first.statement].extents
    loops = [(builder.fresh(name), builder.scalar(extents[name])) for name in first.spine]
    names = [name for name, _ in loops]
    nests = [member_nest(builder, member, names, place) for member in members]
    steps = [step_of(position, nest) for position, nest in enumerate(nests)]
    plan = schedule(steps, outputs)
    allocations: list[LoopStatement] = []
    for member in members:
        for target in member.statement.targets:
            if target.name not in outputs and target.name in plan.stored:
                allocations.extend(make_local(builder, target.name, member))
    body: list[LoopStatement] = []
    sweeps = SweepLoops(builder, plan)
    for sweep in plan.sweeps:
        body.extend(sweeps.sweep(sweep) if sweep.alone is None else sweep.alone.nest.build())
    for position, (name, extent) in reversed(list(enumerate(loops))):
        if position == 0:
            body = [*allocations, *body]
        kind = "parallel" if position == 0 else "serial"
        body = [For(name, Literal(0), extent, tuple(body), kind)]
    return body


def member_nest(
    builder: FunctionBuilder, member: Member, loops: Sequence[str], place: Place
) -> Nest:
    """The nest of one statement for one iteration of the spine."""
    typing = builder.context.inference.einsums[member.statement]
    typing = replace(typing, scans=(*typing.scans, *member.spine))
    variables: dict[str, Expression] = {
        **place.variables,
        **{own: Local(loop) for own, loop in zip(member.spine, loops, strict=True)},
    }
    inside = replace(place, variables=variables, scans=(*place.scans, *member.spine))
    return Nest(builder, member.statement, typing, inside, sliced=False)


def make_local(builder: FunctionBuilder, tensor: str, member: Member) -> list[LoopStatement]:
    """Declare an intermediate of which only one iteration's part is kept."""
    context = builder.context
    kept = tuple(
        position
        for position, expression in enumerate(member.statement.indices)
        if not (isinstance(expression, Index) and expression.name in member.spine)
    )
    type_ = context.type_of(tensor)
    dtypes = context.components(tensor)
    extents = tuple(builder.scalar(type_.extents[position]) for position in kept)
    names = tuple(builder.fresh(tensor) for _ in dtypes)
    builder.locals[tensor] = LocalTensor(names, kept)
    constant = [int(e.value.real) for e in extents if isinstance(e, Literal)]
    small = len(constant) == len(extents) and _product(constant) * 16 <= STACK_BYTES
    storage = "stack" if small else "workspace"
    return [Allocate(n, d, extents, storage) for n, d in zip(names, dtypes, strict=True)]


def _product(numbers: list[int]) -> int:
    total = 1
    for number in numbers:
        total *= number
    return total
