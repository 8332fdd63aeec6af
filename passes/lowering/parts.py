"""Reductions of many terms to few cells: folded in parts that threads share, and then together.

The parts are cut by the extents alone, so a result has the same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from einloom.ir import extents as ext
from einloom.ir.expressions import Access, Apply, Expression, Index, Literal, Local
from einloom.ir.infer import EinsumTyping
from einloom.ir.loops import For, Let, LoopStatement
from einloom.ir.names import unique_name
from einloom.ir.ops import apply
from einloom.ir.program import Einsum, Reduction, Target
from einloom.ir.record import record
from einloom.ir.types import DType, Rank, TensorType
from einloom.passes.lowering.fold_loops import Turns
from einloom.passes.lowering.function import FunctionBuilder, Place, ProgramContext
from einloom.passes.lowering.nests import Nest
from einloom.passes.lowering.order import is_exchangeable
from einloom.passes.lowering.products.blocking import Parts

PARTS = 32
"""Parts that a reduction is cut into: enough for a few threads to finish together."""
SMALLEST = 1 << 18
"""Terms from which two threads are faster than one."""
FEW = 8
"""Turns of a parallel loop that are too few for threads to share evenly."""
CELLS_SHARE = 4
"""The partial results are at most one in so many of the terms."""


def parts_for(nest: Nest, sizes: Mapping[str, int]) -> Parts | None:
    """How a reduction is cut so that threads share it; None where its own loops serve as well.

    `sizes`: the extents that symbols are likely to have.
    """
    statement = nest.statement
    plain = all(isinstance(e, Index) for e in statement.indices)
    if not statement.reductions or not plain or len(statement.targets) > 1:
        return None
    if statement.condition is not None or nest.scatters or nest.fills:
        return None
    if not nest.folds()[0].is_simple or nest.builder.context.strict:
        return None
    size = {name: ext.evaluate(e, sizes) for name, e in nest.typing.extents.items()}
    terms = prod(size.values())
    cells = prod(size[e.name] for e in statement.indices if isinstance(e, Index))
    shared = size[nest.order.outer[0]] if nest.order.outer else 1
    if terms < SMALLEST or shared >= FEW or cells * PARTS * CELLS_SHARE > terms:
        return None
    if is_exchangeable(statement, nest.builder.context):
        candidates = nest.order.reduced
    else:
        candidates = statement.reductions[0].indices
    long = [name for name in candidates if size[name] >= PARTS]
    return Parts(long[0]) if long else None


@record
class Halves:
    """The statements that a reduction in parts becomes, and a context that knows them."""

    context: ProgramContext
    partial: Einsum
    whole: Einsum
    part: str
    index: str


def halves(statement: Einsum, parts: Parts, context: ProgramContext) -> Halves:
    """A statement that folds each part into cells of its own, and one that folds those."""
    inference = context.inference
    typing = inference.einsums[statement]
    nest = Nest(FunctionBuilder("", context), statement, typing, Place({}, {}))
    first = nest.folds()[0]
    (dtype,) = first.dtypes
    tensor = unique_name(f"{statement.targets[0].name}_parts", list(inference.tensors))
    part = unique_name("part", list(typing.extents))
    count = Apply("ceildiv", (typing.extents[parts.index], _length(typing, parts)))
    indices = (Index(part), *statement.indices)
    partial = replace(
        statement, targets=(Target(tensor),), indices=indices, location=statement.location
    )
    whole = replace(
        statement,
        body=Access(tensor, indices),
        reductions=(Reduction(statement.reductions[0].monoid, (part,), dtype),),
    )
    cells = {e.name: typing.extents[e.name] for e in statement.indices if isinstance(e, Index)}
    typings: dict[Einsum, EinsumTyping] = {
        partial: replace(
            typing,
            extents={**typing.extents, part: count},
            scans=(*typing.scans, part),
            dtypes=(dtype,),
        ),
        whole: replace(typing, extents={**cells, part: count}),
    }
    type_ = _type(dtype, (count, *cells.values()))
    known = replace(
        inference,
        tensors={**inference.tensors, tensor: type_},
        einsums={**inference.einsums, **typings},
    )
    return Halves(replace(context, inference=known), partial, whole, part, parts.index)


def partial_loops(builder: FunctionBuilder, found: Halves) -> list[LoopStatement]:
    """The parallel loop over the parts around the nest of one of them."""
    typing = found.context.inference.einsums[found.partial]
    part, start, stop = (builder.fresh(hint) for hint in (found.part, "start", "stop"))
    length = _length(typing, Parts(found.index))
    total = typing.extents[found.index]
    window = Turns(found.index, Local(start), Local(stop), length)
    place = Place({found.part: Local(part)}, {}, scans=(found.part,))
    nest = Nest(builder, found.partial, typing, place, sliced=False, window=window)
    end = Apply("add", (Local(start), builder.scalar(length)))
    body: list[LoopStatement] = [
        Let(start, Apply("mul", (Local(part), builder.scalar(length)))),
        Let(stop, apply("min", end, builder.scalar(total))),
        *nest.build(),
    ]
    count = builder.scalar(typing.extents[found.part])
    return [For(part, Literal(0), count, tuple(body), "parallel")]


def _length(typing: EinsumTyping, parts: Parts) -> Expression:
    """Turns of the index in one part, at least one."""
    turns = Apply("ceildiv", (typing.extents[parts.index], Literal(PARTS)))
    return apply("max", turns, Literal(1))


def _type(dtype: DType, extents: tuple[Expression, ...]) -> TensorType:
    return TensorType(dtype, tuple(Rank(f"r{k}", ext.simplify(e)) for k, e in enumerate(extents)))
