"""Indices of statements: which are used, substitution, fresh names, extents kept explicit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from einloom.ir import extents as ext
from einloom.ir.expressions import Access, Cast, Expression, Index
from einloom.ir.node import Node, child_nodes, with_children
from einloom.ir.program import Bound, Einsum, Reduction
from einloom.ir.rewrite.parts import parts_of
from einloom.ir.types import TensorType, i64


def roots_of(statement: Einsum) -> list[Expression]:
    """The expressions of a statement: body, left side, condition."""
    roots = [statement.body, *statement.indices]
    if statement.condition is not None:
        roots.append(statement.condition)
    return roots


def indices_used(statement: Einsum) -> list[str]:
    """Index names of a statement, reduced ones included, in order of first appearance."""
    names = dict.fromkeys(name for root in roots_of(statement) for name in parts_of(root).indices)
    names.update(dict.fromkeys(n for r in statement.reductions for n in r.indices))
    return list(names)


def reduced_indices(statement: Einsum) -> list[str]:
    """Indices that a statement folds away, outermost first."""
    return [name for reduction in statement.reductions for name in reduction.indices]


def plain_left(statement: Einsum) -> list[str] | None:
    """Names of the left indices where they are plain and distinct, else None."""
    names = [e.name for e in statement.indices if isinstance(e, Index)]
    if len(names) != len(statement.indices) or len(set(names)) != len(names):
        return None
    return names


def substitute(root: Expression, values: Mapping[str, Expression]) -> Expression:
    """`root` with indices replaced by index expressions.

    Inside an access an index becomes the expression itself; elsewhere its value counts, and
    an expression that would be weak there (a literal, an extent) is cast to i64, as an index is.
    """

    def at_index(current: Expression) -> Expression:
        return values.get(current.name, current) if isinstance(current, Index) else current

    def at_value(current: Expression) -> Expression:
        if not isinstance(current, Index) or current.name not in values:
            return current
        value = values[current.name]
        return value if ext.indices_in(value) else Cast(i64, value)

    return rebuild_in_context(root, at_value, at_index)


def rebuild_in_context(
    root: Expression,
    at_value: Callable[[Expression], Expression],
    at_index: Callable[[Expression], Expression],
    inside_index: bool = False,
) -> Expression:
    """Apply one change to scalar positions and another to index positions, leaves first."""
    done: dict[tuple[int, bool], Expression] = {}
    stack: list[tuple[Expression, bool, bool]] = [(root, inside_index, False)]
    while stack:
        current, inside, expanded = stack.pop()
        key = (id(current), inside)
        if key in done:
            continue
        below = inside or isinstance(current, Access)
        if not expanded:
            stack.append((current, inside, True))
            stack.extend(
                (child, below, False)
                for child in child_nodes(current)
                if isinstance(child, Expression)
            )
            continue
        new = _with_rebuilt(current, below, done)
        done[key] = at_index(new) if inside else at_value(new)
    return done[(id(root), inside_index)]


def _with_rebuilt(
    current: Expression, inside: bool, done: Mapping[tuple[int, bool], Expression]
) -> Expression:
    def change(child: Node) -> Node:
        return done.get((id(child), inside), child)

    return with_children(current, change)


def substitute_statement(statement: Einsum, values: Mapping[str, Expression]) -> Einsum:
    """A statement with reduced indices replaced; they leave their reductions.

    A reduction that loses its last index is gone.
    """
    reductions = []
    for reduction in statement.reductions:
        left = tuple(name for name in reduction.indices if name not in values)
        if left:
            reductions.append(replace(reduction, indices=left))
    condition = statement.condition
    return replace(
        statement,
        body=substitute(statement.body, values),
        indices=tuple(
            rebuild_in_context(
                e,
                lambda x: x,
                lambda x: values.get(x.name, x) if isinstance(x, Index) else x,
                inside_index=True,
            )
            for e in statement.indices
        ),
        condition=None if condition is None else substitute(condition, values),
        reductions=tuple(reductions),
    )


def rename(statement: Einsum, names: Mapping[str, str]) -> Einsum:
    """A statement with indices renamed everywhere, the left side, reductions, bounds included."""
    values = {old: Index(new) for old, new in names.items()}

    def change(current: Expression) -> Expression:
        return values.get(current.name, current) if isinstance(current, Index) else current

    def renamed(root: Expression) -> Expression:
        return rebuild_in_context(root, change, change)

    return replace(
        statement,
        body=renamed(statement.body),
        indices=tuple(renamed(e) for e in statement.indices),
        condition=None if statement.condition is None else renamed(statement.condition),
        reductions=tuple(
            replace(r, indices=tuple(names.get(n, n) for n in r.indices))
            for r in statement.reductions
        ),
        bounds=tuple(replace(b, index=names.get(b.index, b.index)) for b in statement.bounds),
    )


def fresh_index(name: str, taken: Iterable[str]) -> str:
    """`name`, or with the first free suffix."""
    used = set(taken)
    candidate, count = name, 0
    while candidate in used:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def without_reduced(statement: Einsum, name: str) -> tuple[Reduction, ...]:
    """The reductions of a statement without one index; an empty reduction is gone."""
    found = []
    for reduction in statement.reductions:
        left = tuple(n for n in reduction.indices if n != name)
        if left:
            found.append(replace(reduction, indices=left))
    return tuple(found)


def with_bounds(
    statement: Einsum,
    extents: Mapping[str, Expression],
    scans: tuple[str, ...],
    types: Mapping[str, TensorType],
) -> Einsum:
    """A statement whose indices keep `extents`: bounds are added where accesses no longer tell.

    Bounds of indices that are gone are dropped. A bound whose extent is also told by an access
    stays where it was, because the two are compared at entry.
    """
    used = [name for name in indices_used(statement) if name not in scans]
    bounds = [bound for bound in statement.bounds if bound.index in used]
    told = {bound.index: bound.extent for bound in reversed(bounds)}
    told = {**_told(statement, types), **told}
    for name in used:
        if name not in told or (
            name in extents and ext.equal(told[name], extents[name]) is not True
        ):
            bounds.append(Bound(name, extents[name]))
    return (
        statement if tuple(bounds) == statement.bounds else replace(statement, bounds=tuple(bounds))
    )


def _told(statement: Einsum, types: Mapping[str, TensorType]) -> dict[str, Expression]:
    """What declared targets and accesses at plain indices say of extents, the first one wins."""
    found: dict[str, Expression] = {}
    for target in statement.targets:
        if target.type is not None:
            for expression, extent in zip(statement.indices, target.type.extents, strict=False):
                if isinstance(expression, Index):
                    found.setdefault(expression.name, extent)
    for root in roots_of(statement):
        for part in parts_of(root).accesses:
            if part.padding is None:
                extents = types[part.tensor].extents
                extents = extents[1:] if part.view == "final" else extents
                for expression, extent in zip(part.indices, extents, strict=False):
                    if isinstance(expression, Index):
                        found.setdefault(expression.name, extent)
    return found
