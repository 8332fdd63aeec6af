"""Kernel, mapping and layout sections after rewriting: what no longer fits is dropped, and said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from einloom.ir.expressions import Index
from einloom.ir.names import nested_statements
from einloom.ir.node import postorder
from einloom.ir.program import Einsum, Kernel, Layout, Mapping, Module, Statement
from einloom.ir.rewrite.graph import Graph
from einloom.ir.rewrite.indices import indices_used

Note = Callable[[str, str], None]


def pruned(module: Module, graph: Graph, note: Note) -> Module:
    """A module whose sections name only what is left of it.

    A mapping loses the ranks and statements that are gone, a layout goes with its tensor. An
    alias is dropped where the aliased tensor is now read at another place, because the storage
    could be overwritten before that read.
    """
    if not module.mappings and not module.layouts:
        return module
    kernels = {s.name: s for s in nested_statements(module.body) if isinstance(s, Kernel)}
    mappings = [_mapping(m, kernels.get(m.kernel), note) for m in module.mappings]
    tensors = set(graph.types) - set(graph.removed)
    layouts = [_layout(layout, tensors, graph, note) for layout in module.layouts]
    return replace(
        module,
        mappings=tuple(m for m in mappings if m is not None),
        layouts=tuple(layout for layout in layouts if layout is not None),
    )


def _mapping(mapping: Mapping, kernel: Kernel | None, note: Note) -> Mapping | None:
    subject = f"mapping {mapping.kernel}"
    if kernel is None:
        note(subject, "dropped with its kernel, of which nothing is left")
        return None
    ranks, statements = _contents(kernel.body)
    new = replace(
        mapping,
        loops=tuple(name for name in mapping.loops if _base(name, mapping) in ranks),
        spatial=tuple(name for name in mapping.spatial if _base(name, mapping) in ranks),
        tiles=tuple(tile for tile in mapping.tiles if tile.rank in ranks),
        placements=tuple(p for p in mapping.placements if p.statement in statements),
        interleavings=tuple(
            i for i in mapping.interleavings if all(name in statements for name in i.statements)
        ),
    )
    for part in ("loops", "spatial", "tiles", "placements", "interleavings"):
        gone = len(getattr(mapping, part)) - len(getattr(new, part))
        if gone:
            note(subject, f"{gone} of its {part} dropped: what they name is gone")
    return new


def _base(name: str, mapping: Mapping) -> str:
    """The rank that a loop is over: `p1` and `p0` are the parts of a tiled `p`."""
    for tile in mapping.tiles:
        if name.startswith(tile.rank) and name[len(tile.rank) :].isdigit():
            return tile.rank
    return name


def _contents(body: tuple[Statement, ...]) -> tuple[set[str], set[str]]:
    """Names of the indices and of the tensors written in the statements of a kernel."""
    indices: set[str] = set()
    tensors: set[str] = set()
    for statement in body:
        if isinstance(statement, Einsum):
            indices.update(indices_used(statement))
            tensors.update(target.name for target in statement.targets)
        else:
            parts = list(postorder(statement))
            indices.update(part.name for part in parts if isinstance(part, Index))
            for part in parts:
                if isinstance(part, Einsum):
                    tensors.update(target.name for target in part.targets)
    return indices, tensors


def _layout(layout: Layout, tensors: set[str], graph: Graph, note: Note) -> Layout | None:
    subject = f"layout {layout.tensor}"
    if layout.tensor not in tensors:
        note(subject, "dropped with its tensor")
        return None
    if layout.alias is None:
        return layout
    if layout.alias not in tensors:
        note(subject, f"alias {layout.alias} dropped with that tensor")
        return replace(layout, alias=None)
    if layout.alias in graph.moved:
        note(subject, f"alias dropped: {layout.alias} is read at another place now")
        return replace(layout, alias=None)
    return layout
