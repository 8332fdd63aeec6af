"""Common statements: equal up to the names of their indices, they are computed once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import replace

from einloom.ir import extents as ext
from einloom.ir.expressions import Access, Apply, Expression, Index
from einloom.ir.node import Node, rebuild
from einloom.ir.ops import MONOIDS, OPS
from einloom.ir.program import Constant, Einsum, Statement, Target
from einloom.ir.rewrite.graph import Slot
from einloom.ir.rewrite.indices import plain_left, reduced_indices, rename
from einloom.ir.rewrite.laws import status, weakest
from einloom.ir.rewrite.patterns import Match
from einloom.ir.rewrite.rule import Edit, StatementRule
from einloom.ir.rewrite.scope import Scope
from einloom.ir.rules.propagation import copied, uniform_value
from einloom.ir.types import TensorType


def _equal_before(statement: Statement, scope: Scope) -> Iterator[Match]:
    """Statements before this one that compute the same."""
    rough = rough_form(statement)
    name = _only_target(statement)
    if isinstance(statement, Einsum) and uniform_value(statement) is not None:
        return  # a read of it is its value, so that a copy of it becomes the same statement again
    if rough is None or name is None or scope.graph.definition(name) is not scope.slot:
        return
    alike = scope.graph.similar.setdefault(rough, {})
    alike[scope.slot] = None
    if len(alike) == 1:
        return
    own = exact_form(statement, scope.slot, scope)
    for slot in list(alike):
        if not slot.alive or rough_form(slot.statement) != rough:
            del alike[slot]
            continue
        other = _only_target(slot.statement)
        if slot is scope.slot or other is None:
            continue
        first = scope.graph.visible(other, scope.slot) is slot
        second = scope.graph.visible(name, slot) is scope.slot
        if (first or second) and exact_form(slot.statement, slot, scope) == own:
            if second:
                scope.graph.woken[slot] = None  # it becomes the copy, when it is visited
            else:
                yield {"statement": statement, "slot": slot, "first": other, "name": name}


def _only_target(statement: Statement) -> str | None:
    if isinstance(statement, Constant):
        return statement.name
    if isinstance(statement, Einsum) and len(statement.targets) == 1:
        return statement.targets[0].name
    return None


def rough_form(statement: Statement) -> Hashable | None:
    """What equal statements certainly share, computed without looking inside; None: no candidate.

    A copy is none: it is as cheap as the copy of a copy that would replace it.
    """
    if isinstance(statement, Constant):
        return ("constant", statement.data, statement.path)
    if not isinstance(statement, Einsum) or copied(statement) is not None:
        return None
    body = statement.body
    operands: frozenset[Hashable] = frozenset()
    if isinstance(body, Apply):
        operands = frozenset(
            x.tensor if isinstance(x, Access) else type(x).__name__ for x in body.arguments
        )
    elif isinstance(body, Access):
        operands = frozenset([body.tensor])
    return (
        body.op if isinstance(body, Apply) else type(body).__name__,
        operands,
        len(statement.indices),
        tuple((r.monoid, len(r.indices)) for r in statement.reductions),
        statement.condition is None,
    )


def exact_form(statement: Statement, slot: Slot, scope: Scope) -> Hashable:
    """What a statement computes, equal for statements that differ in names of indices only.

    Arguments of commuting operations are sorted, as far as the dtype allows.
    """
    if isinstance(statement, Constant):
        return (statement.data, statement.path, _storage(statement.type))
    assert isinstance(statement, Einsum)
    own = [n for n in slot.extents if n not in slot.region.scans]
    folded = set(reduced_indices(statement))
    left = [n for e in statement.indices for n in ext.indices_in(e) if n in own]
    numbers = {n: f"#{k}" for k, n in enumerate(dict.fromkeys(left))}
    blank = {**numbers, **{n: "#" for n in own if n not in numbers}}
    sketch = _sorted(rename(statement, {}), blank, scope)
    names = [n for root in (sketch.body, sketch.condition) if root for n in ext.indices_in(root)]
    for name in (*names, *reduced_indices(statement), *own):
        if name in own and name not in numbers:
            numbers[name] = f"#{len(numbers)}"
    final = rename(_sorted(sketch, numbers, scope), numbers)
    reductions = tuple(
        replace(r, indices=tuple(sorted(r.indices)) if _any_order(r.monoid) else r.indices)
        for r in final.reductions
    )
    type_ = scope.graph.types[statement.targets[0].name]
    extents = tuple(
        (numbers[n], ext.simplify(slot.extents[n])) for n in sorted(own, key=numbers.__getitem__)
    )
    assert folded <= set(numbers)
    target = (Target(""),)
    return (
        replace(final, targets=target, reductions=reductions, bounds=()),
        extents,
        _storage(type_),
        tuple(ext.simplify(extent) for extent in type_.extents),
    )


def _any_order(monoid: str) -> bool:
    """Whether the order of a fold's indices tells nothing: not with ties, nor without laws."""
    return monoid in MONOIDS and not MONOIDS[monoid].paired


def _storage(type_: TensorType) -> Hashable:
    return type_.dtype, type_.format, type_.fill, type_.encrypted, len(type_.ranks)


def _sorted(statement: Einsum, names: dict[str, str], scope: Scope) -> Einsum:
    """Arguments of commuting operations in the order of their digests under a renaming."""
    renamed: dict[bytes, bytes] = {}

    def key(expression: Expression) -> bytes:
        if expression.digest not in renamed:
            renamed[expression.digest] = _renamed(expression, names).digest
        return renamed[expression.digest]

    def change(current: Node) -> Node:
        if not isinstance(current, Apply) or current.op not in OPS or not _commutes(current, scope):
            return current
        ordered = tuple(sorted(current.arguments, key=key))
        return current if ordered == current.arguments else replace(current, arguments=ordered)

    condition = statement.condition
    return replace(
        statement,
        body=rebuild(statement.body, change),
        condition=None if condition is None else rebuild(condition, change),
    )


def _renamed(expression: Expression, names: dict[str, str]) -> Expression:
    def change(current: Node) -> Node:
        if isinstance(current, Index) and current.name in names:
            return Index(names[current.name])
        return current

    return rebuild(expression, change)


def _commutes(current: Apply, scope: Scope) -> bool:
    dtype = scope.operand_dtype(current)
    if dtype is None:
        return False
    needed = status(current.op, "commutative", dtype)
    if len(current.arguments) > 2:
        needed = weakest(needed, status(current.op, "associative", dtype))
    return scope.allows(needed, dtype)


def _as_a_copy(match: Match, scope: Scope) -> Edit:
    statement: Statement = match["statement"]
    type_ = scope.graph.types[match["name"]]
    plain = plain_left(statement) if isinstance(statement, Einsum) else None
    names = [rank.name for rank in type_.ranks] if plain is None else plain
    indices = tuple(Index(name) for name in names)
    if isinstance(statement, Einsum):
        target = statement.targets[0]
        if plain is None and target.type is None:
            target = replace(target, type=type_)
    else:
        target = Target(match["name"], type_)
    copy = Einsum((target,), indices, Access(match["first"], indices), location=statement.location)
    extents = dict(zip(names, type_.extents, strict=True))
    return Edit((copy,), extents)


EQUAL_STATEMENTS = (
    StatementRule(
        "equal_statement_is_computed_once",
        "T = f; U = f becomes T = f; U = T, also where the names of indices differ",
        ("Einsum", "Constant"),
        source="common subexpression elimination; renaming of arXiv 2509.20020",
        pattern=_equal_before,
        replacement=_as_a_copy,
    ),
)
