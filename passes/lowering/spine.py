"""The spine of a kernel: the loops that all of its statements share.

Statements that follow one another can run inside common outer loops when each produces, for
one iteration of those loops, all that the later ones read in it. Then intermediates need only
hold one iteration's part.
"""

from __future__ import annotations

from collections.abc import Sequence

from einloom.ir import extents as ext
from einloom.ir.definitions import inline
from einloom.ir.expressions import Access, Expression, Index
from einloom.ir.infer import EinsumTyping
from einloom.ir.node import postorder
from einloom.ir.program import Einsum
from einloom.ir.record import record
from einloom.passes.lowering.function import ProgramContext
from einloom.passes.lowering.order import choose_order, plain_indices


@record
class Member:
    """One statement of a kernel and its own names of the shared loops, outermost first."""

    statement: Einsum
    spine: tuple[str, ...]


@record
class Refusal:
    """Why a statement cannot join a kernel."""

    reason: str


def start(statement: Einsum, context: ProgramContext) -> tuple[Member, ...] | Refusal:
    """A kernel of one statement: its spine is every result index but a blocked innermost one."""
    typing = context.inference.einsums[statement]
    refusal = refuse_alone(statement, typing)
    if refusal is not None:
        return refusal
    spine = _free_spine(statement, typing, context)
    return (Member(statement, spine),) if spine else Refusal("it has no result index to share")


def join(
    members: Sequence[Member], statement: Einsum, context: ProgramContext
) -> tuple[Member, ...] | Refusal:
    """The kernel with one more statement and the spine that remains, or why there is none."""
    typing = context.inference.einsums[statement]
    refusal = refuse_alone(statement, typing)
    if refusal is not None:
        return refusal
    producers = {t.name: m for m in members for t in m.statement.targets}
    reads = [a for a in all_accesses(statement, context) if a.tensor in producers]
    if not reads:
        return Refusal("it reads nothing that the kernel computes")
    width = len(members[0].spine)
    names: list[str | None] = [None] * width
    allowed = set(_free_spine(statement, typing, context))
    why = "its loops do not line up with the kernel's"
    for access in reads:
        for level, name in enumerate(_spine_names(access, producers[access.tensor])):
            if name is None:
                why = f"{access.tensor} is read across iterations of the kernel's loops"
                names[level] = ""
            elif name not in allowed:
                why = f"index {name} is reduced or innermost in it"
                names[level] = ""
            elif names[level] not in (None, name):
                names[level] = ""
            else:
                names[level] = name
    kept = [level for level, name in enumerate(names) if name]
    if not kept or len({names[level] for level in kept}) < len(kept):
        return Refusal(why)
    for member in members:
        first = context.inference.einsums[member.statement].extents
        for level in kept:
            name = names[level]
            assert name is not None
            if ext.equal(first[member.spine[level]], typing.extents[name]) is not True:
                return Refusal(f"the extent of index {name} may differ from the kernel's loop")
    trimmed = [Member(m.statement, tuple(m.spine[k] for k in kept)) for m in members]
    return (*trimmed, Member(statement, tuple(str(names[k]) for k in kept)))


def join_sibling(
    members: Sequence[Member], statement: Einsum, context: ProgramContext
) -> tuple[Member, ...] | Refusal:
    """The kernel with one more statement that reads what the others read, and nothing of theirs.

    Only statements that stream what they share join: each reads it with all of its indices, and
    the kernel keeps all its loops.
    """
    typing = context.inference.einsums[statement]
    refusal = refuse_alone(statement, typing)
    if refusal is not None:
        return refusal
    reads = all_accesses(statement, context)
    known = {a.tensor for m in members for a in all_accesses(m.statement, context)}
    shared = [a for a in reads if a.tensor in known and _streams(a, statement, context)]
    if not shared:
        return Refusal("it reads nothing that the kernel reads or computes")
    apart = Refusal("it reads what the kernel reads in other loops")
    spine: tuple[str, ...] | None = None
    for member in members:
        theirs = [
            (ours, a)
            for a in all_accesses(member.statement, context)
            for ours in shared
            if ours.tensor == a.tensor
        ]
        if any(_streams(a, member.statement, context) for _, a in theirs):
            names = _spine_through(theirs, member)
            if names is None or (spine or names) != names:
                return apart
            spine = names
        elif theirs:
            return apart
    if spine is None or spine != _free_spine(statement, typing, context):
        return apart
    first = context.inference.einsums[members[0].statement].extents
    for own, name in zip(spine, members[0].spine, strict=True):
        if ext.equal(first[name], typing.extents[own]) is not True:
            return apart
    return (*members, Member(statement, spine))


def _streams(access: Access, statement: Einsum, context: ProgramContext) -> bool:
    """Whether an access moves with every index of its statement, so that each cell is read once,
    and not as a transposition of what is written."""
    own = context.inference.einsums[statement].own_indices()
    if access.view or access.padding is not None:
        return False
    if not {Index(name) for name in own} <= set(access.indices):
        return False
    read = [e for e in access.indices if e in statement.indices]
    return read == [e for e in statement.indices if e in read]


def _spine_through(
    pairs: Sequence[tuple[Access, Access]], member: Member
) -> tuple[str, ...] | None:
    """The indices of a reader that stand where the kernel's loops stand in a read of its own."""
    for ours, theirs in pairs:
        found = []
        for level in member.spine:
            at = theirs.indices.index(Index(level)) if Index(level) in theirs.indices else None
            index = None if at is None else ours.indices[at]
            if not isinstance(index, Index):
                break
            found.append(index.name)
        if len(found) == len(member.spine):
            return tuple(found)
    return None


def spine_of(statements: Sequence[Einsum], context: ProgramContext) -> tuple[Member, ...] | Refusal:
    """The members of a kernel with the loops that all share."""
    members = start(statements[0], context)
    for statement in statements[1:]:
        if isinstance(members, Refusal):
            return members
        joined = join(members, statement, context)
        if isinstance(joined, Refusal):
            made = {target.name for member in members for target in member.statement.targets}
            if not made & {access.tensor for access in all_accesses(statement, context)}:
                joined = join_sibling(members, statement, context)
        members = joined
    return members


def refuse_alone(statement: Einsum, typing: EinsumTyping) -> Refusal | None:
    """Why a statement can be in no kernel with others."""
    own = set(typing.own_indices())
    for expression in statement.indices:
        if not isinstance(expression, Index) and (
            own & set(ext.indices_in(expression)) or ext.reads_tensor(expression)
        ):
            return Refusal("it scatters its result")
    plain = [e.name for e in statement.indices if isinstance(e, Index)]
    if len(set(plain)) < len(plain):
        return Refusal("it writes a diagonal")
    return None


def all_accesses(statement: Einsum, context: ProgramContext) -> list[Access]:
    roots: list[Expression] = [inline(statement.body, context.functions)]
    if statement.condition is not None:
        roots.append(inline(statement.condition, context.functions))
    return [p for root in roots for p in postorder(root) if isinstance(p, Access)]


def _free_spine(
    statement: Einsum, typing: EinsumTyping, context: ProgramContext
) -> tuple[str, ...]:
    """Result indices that may be loops around the whole statement without harm to it."""
    names = plain_indices(statement, typing)
    if not statement.reductions:
        return tuple(names)
    order = choose_order(statement, typing, context, may_block=True)
    return tuple(name for name in names if not (order.blocked and name == order.inner))


def _spine_names(access: Access, producer: Member) -> list[str | None]:
    """The reader's index at each spine level of the tensor, None where it is not plain."""
    found: list[str | None] = []
    for level in producer.spine:
        position = next(k for k, e in enumerate(producer.statement.indices) if e == Index(level))
        index = access.indices[position]
        plain = isinstance(index, Index) and access.padding is None and not access.view
        found.append(index.name if plain and isinstance(index, Index) else None)
    return found
