"""One einsum statement: its space cut into boxes, each evaluated, folded and written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from einloom.ir import extents as ext
from einloom.ir.binding import size_of
from einloom.ir.casting import literal_array
from einloom.ir.definitions import inline
from einloom.ir.errors import UnsupportedError
from einloom.ir.infer import EinsumTyping
from einloom.ir.interpret.compile import plan
from einloom.ir.interpret.folds import Partial, prepared
from einloom.ir.interpret.levels import (
    MOST_AXES,
    Box,
    boxes,
    is_direct,
    levels_of,
    mapped_indices,
)
from einloom.ir.interpret.storage import Frame, Storage
from einloom.ir.interpret.values import (
    Array,
    Value,
    array_of,
    components,
    converted,
    item_size,
    loaded,
)
from einloom.ir.interpret.writing import Writer
from einloom.ir.program import Einsum
from einloom.ir.promotion import Typing, numpy_dtype
from einloom.ir.ranges import conjuncts
from einloom.ir.record import record
from einloom.ir.types import DType, Tuple, bool_
from einloom.ir.typing import Lookup

WORKING_SET = 64 * 2**20
"""Bytes of temporaries aimed at: larger boxes are no faster, smaller ones cost more calls."""


@record
class Surroundings:
    """What a statement runs among: the tensors so far, sizes, and the memory cap in bytes."""

    storages: dict[str, Storage]
    symbols: Mapping[str, int]
    lookup: Lookup
    memory_cap: int


class EinsumRunner:
    """An einsum statement, compiled for one binding of the symbols; it may run many times."""

    def __init__(self, statement: Einsum, typing: EinsumTyping, surroundings: Surroundings) -> None:
        self.statement, self.around = statement, surroundings
        lookup, scans = surroundings.lookup, typing.scans
        self.mapped = mapped_indices(statement, scans)
        own = [*self.mapped, *(n for r in statement.reductions for n in r.indices)]
        self.sizes = {
            name: size_of(typing.extents[name], surroundings.symbols, statement.location)
            for name in own
        }
        moving = [name for name in own if self.sizes[name] != 1]
        self.body = plan(statement.body, lookup, moving)
        self.levels = levels_of(statement, _parts(self.body.typing), lookup)
        condition = statement.condition
        self.conditions = [
            plan(part, lookup, moving)
            for part in conjuncts(
                None if condition is None else inline(condition, lookup.functions)
            )
        ]
        self.left = [plan(e, lookup, moving, as_index=True) for e in statement.indices]
        self.direct = is_direct(statement.indices, own)
        self.scatter_level = self.innermost_left_level()
        self.chunks = self.chosen_chunks()

    def innermost_left_level(self) -> int:
        """The innermost level with an index on the left side: from there on outwards, partial
        results live in cells of the result. -1: in none."""
        named = {name for e in self.statement.indices for name in ext.indices_in(e)}
        inside = [k for k, level in enumerate(self.levels) if named & set(level.indices)]
        return max(inside, default=-1)

    # -- chunks

    def chosen_chunks(self) -> dict[str, int]:
        """How much of each index is evaluated at once, so that a box fits the memory cap.

        The outermost indices are cut first, so that boxes follow each other in iteration order.
        """
        chunks = dict(self.sizes)
        order = [*self.mapped, *(name for level in self.levels for name in level.indices)]
        for k in range(1, self.scatter_level + 1):
            # inner levels are folded into cells for one point of the outer ones at a time
            for name in [*self.mapped, *self.levels[k - 1].indices]:
                chunks[name] = min(1, chunks[name])
        limit = min(self.around.memory_cap, max(WORKING_SET, self.around.memory_cap // 16))
        axes = sum(size != 1 for size in chunks.values())
        for name in order:
            if axes > MOST_AXES and chunks[name] > 1:
                chunks[name], axes = 1, axes - 1
        for name in order:
            while chunks[name] > 1 and self.peak(chunks) > limit:
                chunks[name] = -(-chunks[name] // 2)
        if self.peak(chunks) > max(limit, 2**20):
            raise UnsupportedError(
                "one point of this statement takes more memory than the cap allows",
                location=self.statement.location,
            )
        return chunks

    def peak(self, chunks: Mapping[str, int]) -> int:
        """Bytes of temporaries for one box of these chunks; an estimate."""
        cells = 1
        for name in self.sizes:
            cells *= chunks[name]
        held = sum(item_size(typing.dtype) for typing in _parts(self.body.typing)) + 2
        folding = 3 * held * cells if self.levels or self.conditions else 0
        scattering = 0 if self.direct else cells * (16 + 8 * len(self.left))
        plans = [*self.conditions, self.body]
        return max(p.peak(chunks) for p in plans) + folding + scattering

    # -- running

    def run(self, fixed: Mapping[str, int]) -> None:
        """Evaluate with the scan indices at these values, and define or update the targets."""
        still = {**fixed, **{name: 0 for name, size in self.sizes.items() if size == 1}}
        writers = [self.writer(k) for k in range(len(self.statement.targets))]
        frame, around = self.frame(still, {}), self.around
        whole = bool(self.levels) and not self.direct
        for writer in writers:
            writer.open(frame, around.storages, around.symbols, around.memory_cap, whole)
        if self.direct or self.scatter_level < 0:
            for values, mask, frame in self.folded(still):
                for writer in writers:
                    value = self.component(values, writer)
                    writer.write(frame, value, mask, self.direct, self.mapped)
        else:
            self.collide(still, writers)

    def writer(self, position: int) -> Writer:
        type_ = self.around.lookup.tensors[self.statement.targets[position].name]
        if self.levels:
            outermost = self.levels[0].fold
            identities: list[Value] = list(outermost.result(outermost.start()))
            one = len(self.statement.targets) > 1 or len(identities) == 1
            empty = identities[position] if one else tuple(identities)
        else:
            fill = type_.fill.value if type_.fill is not None else 0
            empty = loaded(literal_array(fill, type_.dtype), type_.dtype)
        return Writer(self.statement, position, type_, self.left, list(self.sizes), empty)

    def component(self, values: Sequence[Value], writer: Writer) -> Value:
        """The components that one target takes: its own, or all as a tuple."""
        if len(self.statement.targets) > 1 or len(values) == 1:
            return values[writer.position]
        return tuple(values)

    def frame(self, still: Mapping[str, int], ranges: Mapping[str, tuple[int, int]]) -> Frame:
        fixed, moving = dict(still), {}
        for name, (begin, end) in ranges.items():
            if self.sizes[name] == 1:
                continue
            if self.chunks[name] == 1:
                fixed[name] = begin
            else:
                moving[name] = (begin, end)
        return Frame(self.around.storages, self.around.symbols, fixed, moving)

    def boxes(self) -> Iterator[Box]:
        level_indices = [level.indices for level in self.levels]
        return boxes(self.mapped, level_indices, self.sizes, self.chunks)

    def evaluated(self, frame: Frame) -> tuple[list[Value], Array | None]:
        """The components of the body at the points of a box, and where the condition holds."""
        for part in self.conditions:
            holds = array_of(converted(part.run(frame), bool_))
            frame.mask = holds if frame.mask is None else np.asarray(frame.mask & holds)
        typings = _parts(self.body.typing)
        if frame.mask is not None and not frame.mask.any():
            return [_zero(typing.dtype) for typing in typings], frame.mask
        value = self.body.run(frame)
        return (list(components(value)) if isinstance(value, tuple) else [value]), frame.mask

    def axes(self, frame: Frame, level: int) -> tuple[int, ...]:
        return tuple(frame.axes[n] for n in self.levels[level].indices if n in frame.axes)

    def folded(self, still: Mapping[str, int]) -> Iterator[tuple[list[Value], Array | None, Frame]]:
        """Per box of the mapped indices: the reduced components and the mask of reached points."""
        held: list[Partial | None] = [None] * len(self.levels)
        reached: list[Array | None] = [None] * len(self.levels)
        for box in self.boxes():
            frame = self.frame(still, box.ranges)
            values, mask = self.evaluated(frame)
            for k in range(len(self.levels) - 1, -1, -1):
                self.absorb(held, reached, k, values, mask, frame)
                if k < box.completes:
                    break
                values, mask = self.completed(held, reached, k)
            else:
                yield values, mask, frame

    def absorb(
        self,
        held: list[Partial | None],
        reached: list[Array | None],
        level: int,
        values: Sequence[Value],
        mask: Array | None,
        frame: Frame,
    ) -> None:
        """Fold a box, or a finished inner level, into the partial result of a level.

        A point of an outer level takes part where the condition holds at some inner point.
        """
        fold, axes, before = self.levels[level].fold, self.axes(frame, level), held[level]
        held[level] = fold.absorb(
            fold.start() if before is None else before, prepared(values, fold), mask, axes, frame
        )
        if mask is not None:
            found = mask.any(axis=axes, keepdims=True) if mask.ndim else mask
            earlier = reached[level]
            reached[level] = np.asarray(found if earlier is None else earlier | found)

    def completed(
        self, held: list[Partial | None], reached: list[Array | None], level: int
    ) -> tuple[list[Value], Array | None]:
        partial, mask = held[level], reached[level]
        assert partial is not None
        held[level] = reached[level] = None
        return list(self.levels[level].fold.result(partial)), mask

    # -- colliding writes

    def collide(self, still: Mapping[str, int], writers: list[Writer]) -> None:
        """Reductions whose indices stand on the left side: points are folded into cells.

        Levels inside the scatter level fold along axes as ever. The scatter level folds onto
        the cells of the result; levels outside it fold such cell arrays, one point at a time.
        """
        inner, outer = self.scatter_level, range(self.scatter_level + 1)
        place = writers[0]
        cells: list[Partial | None] = [None for _ in outer]
        touched: list[Array] = [np.zeros(place.count, bool) for _ in outer]
        held: list[Partial | None] = [None] * len(self.levels)
        reached: list[Array | None] = [None] * len(self.levels)
        for box in self.boxes():
            frame = self.frame(still, box.ranges)
            values, mask = self.evaluated(frame)
            for k in range(len(self.levels) - 1, inner, -1):
                self.absorb(held, reached, k, values, mask, frame)
                if k < box.completes:
                    break
                values, mask = self.completed(held, reached, k)
            else:
                self.scatter(cells, touched[inner], values, mask, frame, place)
                for k in range(inner, 0, -1):
                    if k < box.completes:
                        break
                    self.absorb_cells(cells, touched, k, frame)
        outermost = cells[0] if cells[0] is not None else self.cell_identities(0, place.count)
        results: list[Value] = list(self.levels[0].fold.result(outermost))
        for writer in writers:
            writer.write_all(self.component(results, writer))

    def cell_identities(self, level: int, count: int) -> Partial:
        return [np.full(count, part) for part in self.levels[level].fold.start()]

    def scatter(
        self,
        cells: list[Partial | None],
        touched: Array,
        values: Sequence[Value],
        mask: Array | None,
        frame: Frame,
        place: Writer,
    ) -> None:
        fold = self.levels[self.scatter_level].fold
        partial = cells[self.scatter_level]
        if partial is None:
            partial = self.cell_identities(self.scatter_level, place.count)
            cells[self.scatter_level] = partial
        keep = set(self.mapped)
        for level in self.levels[: self.scatter_level + 1]:
            keep.update(level.indices)
        shape = tuple(
            n if name in keep else 1 for name, n in zip(frame.ranges, frame.shape, strict=True)
        )
        frame.mask = mask
        flat = np.broadcast_to(place.cells(frame), shape).ravel()
        takes = np.broadcast_to(True if mask is None else mask, shape).ravel()
        parts = [np.broadcast_to(part, shape).ravel() for part in prepared(values, fold)]
        fold.collide(partial, flat, parts, takes, frame)
        touched[flat[takes]] = True

    def absorb_cells(
        self, cells: list[Partial | None], touched: list[Array], level: int, frame: Frame
    ) -> None:
        """Fold the cells of a finished level into those of the level outside it."""
        finished, outer = cells[level], self.levels[level - 1].fold
        assert finished is not None
        before = cells[level - 1]
        if before is None:
            before = self.cell_identities(level - 1, len(touched[level]))
        values = prepared(self.levels[level].fold.result(finished), outer)
        cells[level - 1] = outer.absorb(before, values, touched[level], (), frame)
        touched[level - 1] |= touched[level]
        cells[level] = None
        touched[level] = np.zeros_like(touched[level])


def _parts(typing: Typing) -> list[Typing]:
    if isinstance(typing.dtype, Tuple):
        return [Typing(item, typing.weak) for item in typing.dtype.items]
    return [typing]


def _zero(dtype: DType) -> Value:
    return loaded(np.zeros((), numpy_dtype(dtype)), dtype)
