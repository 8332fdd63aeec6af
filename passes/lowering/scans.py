"""Lowering of scans: one serial function per outermost scan, states in buffers or rings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from einloom.ir import extents as ext
from einloom.ir.errors import UnsupportedError
from einloom.ir.expressions import Access, Apply, Cast, Expression, Index, Literal, Local
from einloom.ir.infer import Inference
from einloom.ir.loops import Carried, For, LoopStatement, Store, While
from einloom.ir.names import nested_statements, unique_name
from einloom.ir.node import postorder
from einloom.ir.program import Call, Constant, Einsum, Kernel, Module, Scan, Statement
from einloom.ir.types import bool_, i64
from einloom.passes.lowering.function import FunctionBuilder, Place
from einloom.passes.lowering.nests import Nest
from einloom.passes.lowering.regions import covers_slice, fill_tensor
from einloom.passes.lowering.values import lower_scalar


def lower_scan(builder: FunctionBuilder, scan: Scan, place: Place) -> list[LoopStatement]:
    """Initial states, then the loop over iterations; with `until` a loop that may stop."""
    out: list[LoopStatement] = []
    if not place.inside:
        for name in histories(scan, builder):
            out.extend(fill_tensor(builder, name))
    out.extend(opened_slices(builder, scan, scan.initial, first_state(builder, scan)))
    for statement in scan.initial:
        out.extend(lower_inner(builder, statement, place))
    extent = builder.scalar(scan.extent)
    name = builder.fresh(scan.index)
    if scan.until is None:
        inner = entered(place, scan, Local(name))
        body = opened_slices(builder, scan, scan.body, newest_state(scan, Local(name)))
        body += [s for statement in scan.body for s in lower_inner(builder, statement, inner)]
        step = -1 if scan.down else 1
        out.append(For(name, Literal(0), extent, tuple(body), "serial", step))
        return out
    running = builder.fresh("running")
    current: Expression = Local(name)
    if scan.down:
        current = Apply("sub", (extent, Apply("add", (Local(name), Literal(1)))))
    inner = entered(place, scan, current)
    body = opened_slices(builder, scan, scan.body, newest_state(scan, current))
    body += [s for statement in scan.body for s in lower_inner(builder, statement, inner)]
    stop = builder.bind(lower_scalar(builder, scan.until, inner, body), "stop", body)
    carried = (Carried(name, i64, Literal(0)), Carried(running, bool_, Literal(True)))
    more = Apply("and", (Local(running), Apply("lt", (Local(name), extent))))
    yields = (
        Apply("add", (Local(name), Literal(1))),
        Apply("not", (Cast(bool_, stop),)),
    )
    out.append(While(more, carried, tuple(body), yields))
    out.append(Store(builder.buffer(builder.context.counter_of(scan), write=True), (), Local(name)))
    return out


def first_state(builder: FunctionBuilder, scan: Scan) -> Expression:
    return builder.scalar(scan.extent) if scan.down else Literal(0)


def newest_state(scan: Scan, current: Expression) -> Expression:
    """The state that the iteration with this index defines."""
    return current if scan.down else Apply("add", (current, Literal(1)))


def opened_slices(
    builder: FunctionBuilder, scan: Scan, writers: Sequence[Statement], slot: Expression
) -> list[LoopStatement]:
    """Fills of the states' new slices, but where one statement defines all cells of it."""
    inference = builder.context.inference
    covered: set[str] = set()
    for statement in flat(writers):
        if isinstance(statement, Einsum):
            own = set(inference.einsums[statement].own_indices())
            if covers_slice(statement.indices, own):
                covered.update(t.name for t in statement.targets)
    names = [t.name for s in scan.initial for t in s.targets]
    states = [n for n in dict.fromkeys(names) if inference.states.get(n) == scan]
    return [s for n in states if n not in covered for s in fill_tensor(builder, n, slot)]


def histories(scan: Scan, builder: FunctionBuilder) -> list[str]:
    """Tensors of the body, no states, that keep what enclosing iterations computed of them."""
    inference = builder.context.inference
    found: list[str] = []
    for statement in nested_statements([scan]):
        if isinstance(statement, Einsum):
            around = set(inference.einsums[statement].scans)
            if any(around & set(ext.indices_in(e)) for e in statement.indices):
                found.extend(t.name for t in statement.targets if t.name not in inference.states)
    return list(dict.fromkeys(found))


def flat(statements: Sequence[Statement]) -> list[Statement]:
    """Statements with those of kernels in the kernels' place."""
    return [
        inner
        for statement in statements
        for inner in (statement.body if isinstance(statement, Kernel) else (statement,))
    ]


def entered(place: Place, scan: Scan, value: Expression) -> Place:
    return replace(
        place,
        variables={**place.variables, scan.index: value},
        extents={**place.extents, scan.index: scan.extent},
        scans=(*place.scans, scan.index),
        inside=(*place.inside, scan),
    )


def lower_inner(
    builder: FunctionBuilder, statement: Statement, place: Place
) -> list[LoopStatement]:
    """A statement inside a scan, run serially."""
    match statement:
        case Einsum():
            typing = builder.context.inference.einsums[statement]
            return Nest(builder, statement, typing, place, sliced=False).build()
        case Scan():
            return lower_scan(builder, statement, place)
        case Kernel():
            return [s for inner in statement.body for s in lower_inner(builder, inner, place)]
        case Call() | Constant():
            raise UnsupportedError(
                f"{type(statement).__name__.lower()} statements inside a scan are not compiled",
                location=statement.location,
            )
    raise UnsupportedError(f"cannot lower {type(statement).__name__}")


def counters(inference: Inference) -> dict[str, str]:
    """A name for the number of iterations that each scan with `until` executes."""
    taken = list(inference.tensors)
    found: dict[str, str] = {}
    for scan in inference.states.values():
        first = scan.initial[0].targets[0].name
        if scan.until is not None and first not in found:
            found[first] = unique_name(f"{first}.steps", taken)
            taken.append(found[first])
    return found


def accesses_of(statement: Statement) -> list[Access]:
    return [part for part in postorder(statement) if isinstance(part, Access)]


def rings(module: Module, inference: Inference) -> dict[str, int]:
    """States whose history is not read: how many of their last iterations must be kept.

    A state qualifies when everything outside its scan reads only `final`, it is no result of
    the program, and inside the scan it is read at fixed distances from the current iteration.
    """
    found: dict[str, int] = {}
    for statement in module.body:
        if isinstance(statement, Scan):
            outside = [a for s in module.body if s is not statement for a in accesses_of(s)]
            for initial in statement.initial:
                for target in initial.targets:
                    kept = _kept(target.name, statement, outside, module)
                    if kept is not None:
                        found[target.name] = kept
    return found


def _kept(name: str, scan: Scan, outside: list[Access], module: Module) -> int | None:
    if name in module.outputs:
        return None
    if any(a.tensor == name and a.view != "final" for a in outside):
        return None
    distances: list[int | None] = [0, 1]
    for statement in scan.body:
        for part in postorder(statement):
            if isinstance(part, Access) and part.tensor == name:
                if part.view == "final" or part.padding is not None:
                    return None
                distances.append(_distance(part.indices[0], scan))
            if isinstance(part, Einsum) and any(t.name == name for t in part.targets):
                distances.append(_distance(part.indices[0], scan))
    if scan.until is not None:
        distances += [
            _distance(p.indices[0], scan) for p in postorder(scan.until)
            if isinstance(p, Access) and p.tensor == name and p.indices
        ]  # fmt: skip
    if None in distances:
        return None
    offsets = [d for d in distances if d is not None]
    return max(offsets) - min(offsets) + 1


def _distance(index: Expression, scan: Scan) -> int | None:
    """The constant c of an index `t + c`, or None."""
    form = ext.polynomial(index)
    if form.get((Index(scan.index),)) != 1 or not set(form) <= {(Index(scan.index),), ()}:
        return None
    return form.get((), 0)
