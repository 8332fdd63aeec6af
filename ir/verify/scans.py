"""Rules on scans: which iteration a state is written for, and which ones may be read.

Iteration t of an upward scan writes state t+1 and may read the states up to t, and t+1 where
it is written already; of a downward one it writes t and reads from t+1 on. Inside nested
scans the same holds for each of them (wavefronts).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from einloom.ir import extents as ext
from einloom.ir.expressions import Access, Expression, Index, Literal, Symbol
from einloom.ir.node import Node, postorder, rebuild
from einloom.ir.ops import apply
from einloom.ir.program import Einsum, Scan
from einloom.ir.ranges import index_text, is_below, is_injective
from einloom.ir.record import record
from einloom.ir.verify.complaints import Complaint, complaint
from einloom.ir.verify.parts import Parts, Place, roots_of

ONE = Literal(1)


@record
class Write:
    """One write of a tensor inside a scan. `order`: its position in the text."""

    indices: tuple[Expression, ...]
    order: int
    place: Place


def newest(scan: Scan) -> Expression:
    """The state that an iteration of the scan writes."""
    return Index(scan.index) if scan.down else apply("add", Index(scan.index), ONE)


def first_state(scan: Scan) -> Expression:
    """The state that `from` defines."""
    return ext.simplify(scan.extent) if scan.down else Literal(0)


def states_are_written_in_turn(parts: Parts) -> Iterator[Complaint]:
    """`from` writes the first state and the body the next one, once."""
    seen: dict[tuple[str, tuple[Expression, ...]], Einsum] = {}
    for statement, place in parts.einsums:
        for target in statement.targets:
            name = target.name
            owner = parts.types.states.get(name)
            if owner is None or owner not in place.scans or not statement.indices:
                continue
            level = place.scans.index(owner)
            found = statement.indices[0]
            is_first = place.first[level]
            wanted = first_state(owner) if is_first else newest(owner)
            if ext.equal(found, wanted) is not True:
                part = "from" if is_first else "the body"
                right = ", ".join(map(index_text, (wanted, *statement.indices[1:])))
                yield complaint(
                    f"{part} of the scan over {owner.index} writes {name} at "
                    f"{index_text(found)}, it must write it at {index_text(wanted)}",
                    found,
                    statement,
                    hint=f"{name}[{right}]",
                )
                continue
            key = (name, statement.indices)
            if key in seen and statement.condition is None and seen[key].condition is None:
                written = ", ".join(map(index_text, statement.indices))
                message = f"{name}[{written}] is written twice in one iteration"
                yield complaint(message, statement, hint="leave one of the two statements")
            seen[key] = statement
            yield from _covers_inner_scans(parts, statement, name, place, level)


def _covers_inner_scans(
    parts: Parts, statement: Einsum, name: str, place: Place, level: int
) -> Iterator[Complaint]:
    """Different iterations write different cells: those of inner scans, and of the statement."""
    typing = parts.types.einsums[statement]
    reduced = {index for reduction in statement.reductions for index in reduction.indices}
    own = [index for index in typing.own_indices() if index not in reduced]
    everything = {scan.index for scan in place.scans}
    indices = tuple(_fixed(index, everything) for index in statement.indices)
    if not is_injective(indices, own, typing.extents):
        yield complaint(
            f"several iterations may write one cell of {name}",
            statement,
            hint="say how they combine with a reducer, for example sum[...]",
        )
        return
    around = list(zip(place.scans, place.first, strict=True))
    inner = [scan.index for scan, is_first in around[level + 1 :] if not is_first]
    given = everything - set(inner)
    indices = tuple(_fixed(index, given) for index in statement.indices)
    if inner and not is_injective(indices, [*inner, *own], typing.extents):
        yield complaint(
            f"iterations of the scan over {inner[-1]} may write one cell of {name}",
            statement,
            hint=f"its left side must tell them apart: {name}[..., {inner[-1]}+1, ...]",
        )


def _fixed(expression: Expression, indices: set[str]) -> Expression:
    """The expression with indices of scans taken as given numbers."""
    if isinstance(expression, Index):
        return Symbol(expression.name) if expression.name in indices else expression

    def change(part: Node) -> Node:
        return Symbol(part.name) if isinstance(part, Index) and part.name in indices else part

    return rebuild(expression, change)


# ---- reads --------------------------------------------------------------------------------


def only_earlier_iterations_are_read(parts: Parts) -> Iterator[Complaint]:
    """A state or a tensor of the body is read where it has been computed already."""
    writes = _writes(parts)
    order = {id(place.statement): k for k, place in enumerate(parts.places)}
    last = len(order)
    for statement, place in parts.einsums:
        if not place.scans:
            continue
        typing = parts.types.einsums[statement]
        position = order[id(statement)]
        for access in _accesses(roots_of(statement)):
            yield from _check_read(
                parts, access, statement, place, position, typing.extents, writes
            )
    for place in parts.places:
        scan = place.statement
        if isinstance(scan, Scan) and scan.until is not None:
            inner = Place(scan, (*place.scans, scan), (*place.first, False), place.kernel)
            extents = {around.index: around.extent for around in inner.scans}
            for access in _accesses([scan.until]):
                yield from _check_read(parts, access, scan, inner, last, extents, writes)


def _accesses(roots: list[Expression]) -> Iterator[Access]:
    for root in roots:
        for part in postorder(root):
            if isinstance(part, Access):
                yield part


def _writes(parts: Parts) -> dict[str, list[Write]]:
    """Writes inside scans, by tensor."""
    found: dict[str, list[Write]] = {}
    for order, place in enumerate(parts.places):
        statement = place.statement
        if place.scans and isinstance(statement, Einsum):
            for target in statement.targets:
                found.setdefault(target.name, []).append(Write(statement.indices, order, place))
    return found


def _check_read(
    parts: Parts,
    access: Access,
    owner: Node,
    place: Place,
    position: int,
    extents: Mapping[str, Expression],
    writes: dict[str, list[Write]],
) -> Iterator[Complaint]:
    """One read, checked against each scan around it that computes the tensor."""
    name = access.tensor
    if name not in writes or access.view == "final":
        return
    state_of = parts.types.states.get(name)
    if state_of is not None and state_of not in place.scans:
        return  # read after its scan
    around = {scan.index for scan in place.scans}
    condition = owner.condition if isinstance(owner, Einsum) else None
    if condition is not None:
        condition = _fixed(condition, around)
    inner = {n: e for n, e in extents.items() if n not in around}
    fresh = False  # whether the read may be of the iteration that runs, of all scans so far
    for level, scan in enumerate(place.scans):
        if state_of is not None and scan != state_of and not fresh:
            continue
        if scan == state_of and place.first[level]:
            message = f"from of the scan over {scan.index} reads its own state {name}"
            yield complaint(message, access, owner, hint="read what the state starts from")
            return
        if place.first[level]:
            continue
        counted = _rank_over(scan, writes[name], level, scan == state_of)
        if counted is None:
            continue
        rank, cell = counted
        read, current = _fixed(access.indices[rank], around), _fixed(cell, around)
        if ext.equal(read, current) is not True:
            if _is_before(read, current, scan.down, inner, condition):
                return
            if not _is_before(read, _next(current, scan), scan.down, inner, condition):
                yield _too_late(access, scan, cell, owner, state_of is None)
                return
        fresh = True
    earlier = [write for write in writes[name] if write.order < position]
    if state_of is not None:
        level = place.scans.index(state_of)
        earlier = [write for write in earlier if not write.place.first[level]]
    if fresh and not earlier:
        scan = place.scans[-1]
        counted = _rank_over(scan, writes[name], len(place.scans) - 1, scan == state_of)
        cell = counted[1] if counted else Index(scan.index)
        yield _too_late(access, scan, cell, owner, False)


def _rank_over(
    scan: Scan, writes: list[Write], level: int, is_own: bool
) -> tuple[int, Expression] | None:
    """The rank of a tensor that counts the iterations of a scan, and the cell that an iteration
    writes; None where the tensor has no such rank. `is_own`: the tensor is a state of this scan,
    so that both are known."""
    if is_own:
        return 0, newest(scan)
    for write in writes:
        inside = len(write.place.scans) > level and write.place.scans[level] == scan
        if not inside or write.place.first[level]:
            continue
        for rank, expression in enumerate(write.indices):
            form = ext.polynomial(expression)
            index = (Index(scan.index),)
            if set(form) <= {index, ()} and form.get(index, 0) > 0:
                return rank, expression
    return None


def _next(cell: Expression, scan: Scan) -> Expression:
    """The neighbour of a cell on the side of the iterations to come."""
    return apply("add", cell, Literal(-1 if scan.down else 1))


def _is_before(
    read: Expression,
    current: Expression,
    down: bool,
    extents: Mapping[str, Expression],
    condition: Expression | None,
) -> bool:
    """Whether the cell that is read belongs to an earlier iteration than the current one."""
    if down:
        lowest = ext.interval(read, extents)
        if lowest is not None and ext.at_most(
            apply("add", current, ONE), ext.expression_of(lowest[0])
        ):
            return True
        return is_below(current, read, extents, condition)
    return is_below(read, current, extents, condition)


def _too_late(
    access: Access, scan: Scan, cell: Expression, owner: Node, is_written: bool
) -> Complaint:
    """`is_written`: the cell that the iteration itself writes can be read, too."""
    index = scan.index
    if not is_written:
        before = apply("add", Index(index), Literal(1 if scan.down else -1))
        cell = rebuild(cell, lambda part: before if part == Index(index) else part)
    limit = index_text(ext.simplify(cell))
    side = "from" if scan.down else "up to"
    return complaint(
        f"{access} is not known to be computed when iteration {index} of the scan reads it",
        access,
        owner,
        hint=f"iteration {index} reads {access.tensor} {side} {limit}: shift the read, "
        "or restrict it with if",
    )
