"""The cycle that a use before the definition closes, for the message about it."""

from __future__ import annotations

from einloom.ir.expressions import Access
from einloom.ir.names import nested_statements, own_names, written_names
from einloom.ir.node import postorder
from einloom.ir.program import Einsum, Module


def cycle_through(module: Module, name: str, access: Access) -> list[str]:
    """Names along a shortest chain of definitions from the one that reads `access` to `name`
    and back to it, the first one repeated at the end; empty where there is none."""
    for statement in nested_statements(module.body):
        itself = isinstance(statement, Einsum) and name in own_names(statement)
        if itself and any(part is access for part in postorder(statement)):
            return [name, name]
    reads: dict[str, list[str]] = {}
    reader: str | None = None
    for statement in module.body:
        parts = [part for part in postorder(statement) if isinstance(part, Access)]
        found = list(dict.fromkeys(part.tensor for part in parts))
        written = written_names(statement)
        for target in written:
            reads[target] = found
        if reader is None and name in found and any(part is access for part in parts):
            reader = next(iter(written), None)
    if reader is None:
        return []
    before: dict[str, str] = {}
    frontier = [name]
    while frontier and reader not in frontier:
        following = []
        for current in frontier:
            for read in reads.get(current, []):
                if read not in before:
                    before[read] = current
                    following.append(read)
        frontier = following
    if reader not in frontier:
        return []
    chain = [reader]
    while chain[-1] != name:
        chain.append(before[chain[-1]])
    return [reader, *reversed(chain)]
