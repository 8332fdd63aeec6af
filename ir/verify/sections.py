"""Rules on the sections that never change meaning: mapping and layout."""

from __future__ import annotations

import re
from collections.abc import Iterator

from einloom.ir import extents as ext
from einloom.ir.errors import ShapeError
from einloom.ir.expressions import Access
from einloom.ir.names import counted, nested_statements, own_names
from einloom.ir.node import Node, postorder
from einloom.ir.program import Call, Constant, Einsum, Kernel, Layout, Mapping, Scan, Statement
from einloom.ir.types import TensorType
from einloom.ir.verify.complaints import Complaint, complaint, near
from einloom.ir.verify.parts import Parts

SCOPES = ("across", "within")
_SPLIT = re.compile(r"(.+?)[0-9]+")


# ---- mapping ------------------------------------------------------------------------------


def mappings_fit_their_kernels(parts: Parts) -> Iterator[Complaint]:
    """A mapping names a kernel, ranks that its statements range over, and its statements."""
    kernels = {
        place.statement.name: place.statement
        for place in parts.places
        if isinstance(place.statement, Kernel)
    }
    seen: set[str] = set()
    for mapping in parts.module.mappings:
        kernel = kernels.get(mapping.kernel)
        if kernel is None:
            hint = near(mapping.kernel, list(kernels))
            yield complaint(f"there is no kernel {mapping.kernel} to map", mapping, hint=hint)
            continue
        if mapping.kernel in seen:
            yield complaint(f"kernel {mapping.kernel} is mapped twice", mapping)
        seen.add(mapping.kernel)
        yield from _mapped_ranks(mapping, kernel)
        yield from _mapped_statements(mapping, kernel)


def _mapped_ranks(mapping: Mapping, kernel: Kernel) -> Iterator[Complaint]:
    ranks = ranks_of(kernel)
    tiled: set[str] = set()
    for tile in mapping.tiles:
        if tile.rank not in ranks:
            yield _unknown_rank(tile.rank, tile, mapping, ranks)
        if tile.size < 1:
            yield complaint(f"the tile of {tile.rank} must be at least 1 long", tile, mapping)
        if tile.rank in tiled:
            yield complaint(f"rank {tile.rank} is tiled twice", tile, mapping)
        tiled.add(tile.rank)
    for what, listed in (("loops", mapping.loops), ("spatial", mapping.spatial)):
        for name in dict.fromkeys(listed):
            split = _SPLIT.fullmatch(name)
            # `tile p = 64` makes loops p0, p1, ... of rank p
            if name not in ranks and not (split and split[1] in tiled):
                yield _unknown_rank(name, mapping, mapping, ranks)
            if listed.count(name) > 1:
                yield complaint(f"{what} lists rank {name} twice", mapping)


def ranks_of(kernel: Kernel) -> list[str]:
    """The indices that the statements of a kernel range over, those of its scans included."""
    names: dict[str, None] = {}
    for statement in nested_statements([kernel]):
        if isinstance(statement, Scan):
            names[statement.index] = None
        elif isinstance(statement, Einsum):
            for root in (*statement.indices, statement.body):
                names.update(dict.fromkeys(ext.indices_in(root)))
            for reduction in statement.reductions:
                names.update(dict.fromkeys(reduction.indices))
    return list(names)


def _unknown_rank(name: str, part: Node, mapping: Mapping, ranks: list[str]) -> Complaint:
    hint = near(name, ranks) or f"its ranks are {', '.join(ranks)}"
    message = f"kernel {mapping.kernel} has no rank {name}"
    return complaint(message, part, mapping, hint=hint)


def _mapped_statements(mapping: Mapping, kernel: Kernel) -> Iterator[Complaint]:
    written = {n for s in nested_statements([kernel]) for n in own_names(s)}
    named: list[tuple[str, Node]] = [(p.statement, p) for p in mapping.placements]
    named += [(name, i) for i in mapping.interleavings for name in i.statements]
    for name, part in named:
        if name not in written:
            hint = near(name, sorted(written)) or "statements are named by what they define"
            message = f"kernel {kernel.name} has no statement {name}"
            yield complaint(message, part, mapping, hint=hint)
    placed = [placement.statement for placement in mapping.placements]
    for name in dict.fromkeys(name for name in placed if placed.count(name) > 1):
        yield complaint(f"{name} is placed on two units", mapping)
    for interleave in mapping.interleavings:
        if interleave.scope not in SCOPES:
            message = f"statements are not interleaved {interleave.scope}"
            yield complaint(message, interleave, mapping, hint="write across or within")
        if len(set(interleave.statements)) < 2:
            message = "interleave needs at least two statements"
            yield complaint(message, interleave, mapping)


# ---- layout -------------------------------------------------------------------------------


def layouts_fit_their_tensors(parts: Parts) -> Iterator[Complaint]:
    """A layout names a tensor, has a stride for each rank, and orders exactly its ranks."""
    tensors = parts.types.tensors
    seen: set[str] = set()
    for layout in parts.module.layouts:
        name = layout.tensor
        if name not in tensors:
            message = f"there is no tensor {name} to lay out"
            yield complaint(message, layout, hint=near(name, list(tensors)))
            continue
        if name in seen:
            yield complaint(f"{name} has two layouts", layout)
        seen.add(name)
        type_ = tensors[name]
        labels = [rank.name for rank in type_.ranks]
        if layout.strides and len(layout.strides) != len(labels):
            yield complaint(
                f"the layout of {name} has {counted(len(layout.strides), 'stride')}, "
                f"{name} has {counted(len(labels), 'rank')}",
                layout,
                hint=f"its type is {type_}",
                kind=ShapeError,
            )
        if layout.order and sorted(layout.order) != sorted(labels):
            message = f"the order of {name} must list each of its ranks once"
            yield complaint(message, layout, hint=f"its ranks are {', '.join(labels)}")


def storage_is_free_to_reuse(parts: Parts) -> Iterator[Complaint]:
    """A tensor overwritten through `alias` or handed over by `donate` is not read later."""
    inputs = {item.name for item in parts.module.inputs if item.type is not None}
    donated = {layout.tensor for layout in parts.module.layouts if layout.donate}
    reused: set[str] = set()
    for layout in parts.module.layouts:
        name = layout.tensor
        if name not in parts.types.tensors:
            continue
        if layout.donate:
            if name not in inputs:
                message = f"{name} is no input, it has nothing to donate"
                yield complaint(message, layout, hint="donate is for inputs of the program")
            elif name in parts.module.outputs:
                message = f"{name} is a result, its storage cannot be donated"
                yield complaint(message, layout)
        if layout.alias is not None:
            yield from _alias(parts, layout, layout.alias, inputs, donated)
            if layout.alias in reused:
                yield complaint(f"two tensors are stored in {layout.alias}", layout)
            reused.add(layout.alias)


def _alias(
    parts: Parts, layout: Layout, source: str, inputs: set[str], donated: set[str]
) -> Iterator[Complaint]:
    name, tensors = layout.tensor, parts.types.tensors
    if source not in tensors:
        message = f"there is no tensor {source} that {name} could be stored in"
        yield complaint(message, layout, hint=near(source, list(tensors)))
        return
    if name in inputs:
        yield complaint(f"the input {name} has its own storage", layout)
    elif source == name:
        yield complaint(f"{name} is stored in itself", layout)
    elif not _same_storage(tensors[name], tensors[source]):
        yield complaint(
            f"{name} is {tensors[name]}, it cannot be stored in {source}, "
            f"which is {tensors[source]}",
            layout,
            kind=ShapeError,
        )
    elif source in inputs and source not in donated:
        message = f"{source} is an input, {name} cannot overwrite it"
        yield complaint(message, layout, hint=f"layout {source} {{ donate }}")
    elif source in parts.module.outputs:
        yield complaint(f"{source} is a result, {name} cannot overwrite it", layout)
    else:
        yield from _overwritten(parts, layout, source)


def _same_storage(mine: TensorType, theirs: TensorType) -> bool:
    same = mine.dtype == theirs.dtype and len(mine.ranks) == len(theirs.ranks)
    return same and all(
        ext.equal(a, b) is True for a, b in zip(mine.extents, theirs.extents, strict=True)
    )


def _overwritten(parts: Parts, layout: Layout, source: str) -> Iterator[Complaint]:
    """Reads of `source` once the tensor that is stored in it is being written."""
    name = layout.tensor
    statements = parts.module.body
    flat = [inner for s in statements for inner in (s.body if isinstance(s, Kernel) else (s,))]
    writer = next((k for k, s in enumerate(flat) if name in _written(s)), None)
    if writer is None:
        return
    for access in _reads(flat[writer]):
        if access.tensor != source:
            continue
        statement = flat[writer]
        plain = isinstance(statement, Einsum) and not statement.reductions
        if not (plain and isinstance(statement, Einsum) and access.indices == statement.indices):
            yield complaint(
                f"{name} overwrites {source} while other cells of it are still read",
                access,
                layout,
                hint="in place works cell by cell: read it at the indices of the left side",
            )
            return
    for statement in flat[writer + 1 :]:
        for access in _reads(statement):
            if access.tensor == source:
                message = f"{source} is read after {name} has overwritten it"
                yield complaint(message, access, layout, hint=f"drop the alias of {name}")
                return


def _written(statement: Statement) -> list[str]:
    return [name for inner in nested_statements([statement]) for name in own_names(inner)]


def _reads(statement: Statement) -> Iterator[Access]:
    if isinstance(statement, Einsum | Scan | Call | Constant):
        for part in postorder(statement):
            if isinstance(part, Access):
                yield part
