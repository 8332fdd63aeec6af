"""Smaller programs that still fail: results, statements, operands and extents taken away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from einloom.ir.errors import EinloomError
from einloom.ir.expressions import Access, Apply, Expression, Literal
from einloom.ir.names import defined_names, nested_statements
from einloom.ir.node import Node, postorder, rebuild
from einloom.ir.program import (
    Call,
    Constant,
    Definition,
    Einsum,
    Function,
    Input,
    Kernel,
    Module,
    Monoid,
    Scan,
    Statement,
)
from einloom.ir.types import TensorType

NodeT = TypeVar("NodeT", bound=Node)


def shrink(module: Module, fails: Callable[[Module], bool], deadline: float) -> Module:
    """The smallest program found that `fails`, by steps that each keep it failing.

    `deadline` is a `time.monotonic()`; what has been reached by then is returned. The result is
    a valid program, and no single step of `candidates` makes it smaller unless time ran out.
    """
    found = module
    progressing = True
    while progressing and time.monotonic() < deadline:
        progressing = False
        for candidate in candidates(found):
            if time.monotonic() >= deadline:
                break
            if candidate != found and _is_valid(candidate) and fails(candidate):
                found, progressing = candidate, True
                break
    return found


def candidates(module: Module) -> Iterator[Module]:
    """Programs one step smaller, those that take away most first; some are not valid."""
    for change in (_fewer_results, _fewer_statements, _simpler_statements, _smaller_extents):
        for candidate in change(module):
            yield cleaned(candidate)


def cleaned(module: Module) -> Module:
    """The module without statements, inputs and definitions that no result needs."""
    needed = set(module.outputs)
    kept: list[Statement] = []
    for statement in reversed(module.body):
        if needed & set(defined_names(statement)):
            kept.append(statement)
            needed |= {p.tensor for p in postorder(statement) if isinstance(p, Access)}
            needed |= _names_of_calls(statement)
    body = tuple(reversed(kept))
    symbols = _symbols_used(module, body, needed)
    inputs = tuple(
        item
        for item in module.inputs
        if item.name in needed or (item.type is None and item.name in symbols)
    )
    names = {s.name for s in nested_statements(body) if isinstance(s, Kernel)}
    return replace(
        module,
        body=body,
        inputs=inputs,
        definitions=_used_definitions(module, body),
        mappings=tuple(m for m in module.mappings if m.kernel in names),
        layouts=tuple(x for x in module.layouts if x.tensor in needed),
    )


def _names_of_calls(statement: Statement) -> set[str]:
    return {
        access.tensor
        for inner in nested_statements([statement])
        if isinstance(inner, Call)
        for access in inner.arguments
    }


def _symbols_used(module: Module, body: tuple[Statement, ...], needed: set[str]) -> set[str]:
    from einloom.ir.expressions import Symbol

    roots: list[Node] = list(body)
    roots += [i.type for i in module.inputs if i.type is not None and i.name in needed]
    return {p.name for root in roots for p in postorder(root) if isinstance(p, Symbol)}


def _used_definitions(module: Module, body: tuple[Statement, ...]) -> tuple[Definition, ...]:
    used: set[str] = set()

    def note(root: Node) -> None:
        for part in postorder(root):
            if isinstance(part, Apply):
                used.add(part.op)
            elif isinstance(part, Einsum):
                used.update(r.monoid for r in part.reductions)

    for statement in body:
        note(statement)
    kept = []
    for definition in reversed(module.definitions):
        assert isinstance(definition, Function | Monoid)
        if definition.name in used:
            kept.append(definition)
            note(definition)
    return tuple(reversed(kept))


def _is_valid(module: Module) -> bool:
    from einloom.ir.verify import verify

    try:
        verify(module)
    except EinloomError:
        return False
    return True


# ---- the steps ----------------------------------------------------------------------------


def _fewer_results(module: Module) -> Iterator[Module]:
    if len(module.outputs) > 1:
        for name in module.outputs:
            yield replace(module, outputs=(name,))
        for name in module.outputs:
            yield replace(module, outputs=tuple(x for x in module.outputs if x != name))


def _fewer_statements(module: Module) -> Iterator[Module]:
    """An earlier tensor as the result, or a statement replaced by inputs of the types it made."""
    from einloom.ir.infer import infer

    for position, statement in enumerate(module.body[:-1]):
        names = [n for n in defined_names(statement) if not isinstance(statement, Constant)]
        if names and not isinstance(statement, Scan):
            body = module.body[: position + 1]
            yield replace(module, body=body, outputs=tuple(names))
    tensors = infer(module).tensors
    for position, statement in enumerate(module.body):
        names = defined_names(statement)
        if isinstance(statement, Scan) or set(names) & set(module.outputs):
            continue
        made = tuple(Input(name, tensors[name]) for name in names)
        body = module.body[:position] + module.body[position + 1 :]
        yield replace(module, inputs=(*module.inputs, *made), body=body)
    for position, statement in enumerate(module.body):
        if isinstance(statement, Kernel):
            body = module.body[:position] + statement.body + module.body[position + 1 :]
            yield replace(module, body=body)


def _simpler_statements(module: Module) -> Iterator[Module]:
    """A condition dropped, an `until` dropped, an operation replaced by one of its arguments."""
    from einloom.ir.infer import infer

    tensors = infer(module).tensors
    for statement in nested_statements(module.body):
        for simpler in _simpler(statement):
            yield _replaced(module, statement, simpler)
            if isinstance(simpler, Einsum):
                # What is left may no longer say how far an index runs: the result's type does.
                targets = tuple(replace(t, type=tensors[t.name]) for t in simpler.targets)
                yield _replaced(module, statement, replace(simpler, targets=targets))


def _simpler(statement: Statement) -> Iterator[Statement]:
    if isinstance(statement, Scan) and statement.until is not None:
        yield replace(statement, until=None)
    if not isinstance(statement, Einsum):
        return
    if statement.condition is not None:
        yield replace(statement, condition=None)
    for part in postorder(statement.body):
        if isinstance(part, Apply):
            arguments: list[Expression] = list(part.arguments)
            for argument in arguments:
                body = _replaced(statement.body, part, argument)
                yield _without_unused(replace(statement, body=body))


def _without_unused(statement: Einsum) -> Einsum:
    """Reductions over the indices that are left only."""
    from einloom.ir.expressions import Index

    roots: list[Expression] = [statement.body, *statement.indices]
    roots += [] if statement.condition is None else [statement.condition]
    used = {p.name for root in roots for p in postorder(root) if isinstance(p, Index)}
    bounds = tuple(b for b in statement.bounds if b.index in used)
    used |= {b.index for b in bounds}
    reductions = tuple(
        replace(r, indices=tuple(name for name in r.indices if name in used))
        for r in statement.reductions
    )
    kept = tuple(r for r in reductions if r.indices)
    return replace(statement, reductions=kept, bounds=bounds)


def _smaller_extents(module: Module) -> Iterator[Module]:
    """Every extent of one size halved, the largest size first."""
    sizes = {
        int(part.value)
        for root in _extent_holders(module)
        for part in postorder(root)
        if isinstance(part, Literal) and isinstance(part.value, int) and part.value > 1
    }
    for size in sorted(sizes, reverse=True):
        for smaller in dict.fromkeys((1, size // 2, size - 1)):

            def change(current: Node, old: int = size, new: int = smaller) -> Node:
                if isinstance(current, TensorType | Kernel | Scan) and _holds(current, old):
                    return _with_extent(current, old, new)
                return current

            yield rebuild(module, change)


def _extent_holders(module: Module) -> Iterator[Node]:
    for part in postorder(module):
        if isinstance(part, TensorType):
            yield from part.extents
        elif isinstance(part, Scan):
            yield part.extent


def _holds(current: Node, size: int) -> bool:
    roots: tuple[Node, ...] = ()
    if isinstance(current, TensorType):
        roots = current.extents
    elif isinstance(current, Scan):
        roots = (current.extent,)
    return any(
        isinstance(part, Literal) and part.value == size and isinstance(part.value, int)
        for root in roots
        for part in postorder(root)
    )


def _with_extent(current: Node, old: int, new: int) -> Node:
    if isinstance(current, TensorType):
        ranks = tuple(
            replace(rank, extent=_replaced(rank.extent, Literal(old), Literal(new)))
            for rank in current.ranks
        )
        return replace(current, ranks=ranks)
    assert isinstance(current, Scan)
    return replace(current, extent=_replaced(current.extent, Literal(old), Literal(new)))


def _replaced(root: NodeT, old: Node, new: Node) -> NodeT:
    return rebuild(root, lambda current: new if current == old else current)
