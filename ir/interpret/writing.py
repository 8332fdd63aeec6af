"""Left sides: the region of a tensor that a statement defines, and writes into it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from typing import Any

import numpy as np

from einloom.ir import extents as ext
from einloom.ir.binding import size_of
from einloom.ir.errors import Location, RangeError, UnsupportedError
from einloom.ir.expressions import Index
from einloom.ir.interpret.plan import Plan
from einloom.ir.interpret.reading import check_inside
from einloom.ir.interpret.storage import Frame, State, Storage
from einloom.ir.interpret.values import Array, Value, array_of, binary_size, stored
from einloom.ir.program import Einsum
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import TensorType


def allocated(
    name: str,
    type_: TensorType,
    shape: tuple[int, ...],
    fill: Value,
    memory_cap: int,
    location: Location | None,
) -> Array:
    """A new tensor full of `fill`; UnsupportedError where it alone exceeds the memory cap."""
    dtype = numpy_dtype(type_.dtype)
    size = prod(shape) * dtype.itemsize
    if size > memory_cap:
        raise UnsupportedError(
            f"{name} takes {binary_size(size)}, the memory cap is {binary_size(memory_cap)}",
            location=location,
            suggestion="raise memory_cap, or compute less at once",
        )
    array = np.empty(shape, dtype)
    array[...] = stored(fill, type_.dtype)
    return array


class Writer:
    """One target of one run of a statement.

    `empty`: what cells hold that no iteration reaches. `own`: the indices of the statement.
    A position of the left side is *single* where none of them stands in it; `moving` says where
    an index of a scan does, `away` which single positions lie outside the result.
    """

    def __init__(
        self,
        statement: Einsum,
        position: int,
        type_: TensorType,
        left: list[Plan],
        own: Collection[str],
        empty: Value,
    ) -> None:
        self.statement, self.position, self.type = statement, position, type_
        self.name = statement.targets[position].name
        self.left, self.empty = left, empty
        self.is_own = [bool(set(ext.indices_in(e)) & set(own)) for e in statement.indices]
        self.moving = [bool(set(ext.indices_in(e)) - set(own)) for e in statement.indices]
        self.outside: RangeError | None = None
        self.away: set[int] = set()
        self.single: dict[int, int] = {}

    def open(
        self,
        frame: Frame,
        storages: dict[str, Storage],
        symbols: Mapping[str, int],
        memory_cap: int,
        defines_all: bool,
    ) -> None:
        """Find the region and, unless the target lives longer than one run, make the tensor.

        `defines_all`: the statement gives every cell of the region a value, `empty` at least.
        """
        storage = storages.get(self.name)
        if storage is None or not (isinstance(storage, State) or storage.kept):
            where = self.statement.location
            shape = tuple(size_of(extent, symbols, where) for extent in self.type.extents)
            array = allocated(self.name, self.type, shape, self.empty, memory_cap, where)
            storage = storages[self.name] = Storage(self.type, array)
        self.storage: Storage = storage
        self.array = storage.array
        self.extents = list(self.array.shape)
        if isinstance(storage, State):
            self.extents[0] = storage.extent
        for position, compiled in enumerate(self.left):
            if not self.is_own[position]:
                self.single[position] = self.single_value(frame, compiled, position)
        if isinstance(storage, State) and defines_all and self.outside is None:
            region = self.region({})
            region[...] = stored(self.empty, self.type.dtype)
        if self.storage.kept:
            self.renew()

    def renew(self) -> None:
        """Empty the slice of a kept tensor that this iteration defines."""
        at = {k: index for k, index in self.single.items() if self.moving[k]}
        if not self.away & set(at):
            selectors = (at.get(k, slice(None)) for k in range(len(self.left)))
            self.array[(*selectors, ...)] = stored(self.empty, self.type.dtype)

    def single_value(self, frame: Frame, compiled: Plan, position: int) -> int:
        index = array_of(compiled.run(frame))
        try:
            self.check(frame, [position], [index])
        except RangeError as error:  # to be raised where a point is reached
            self.outside = error
            self.away.add(position)
            return 0
        return int(index)

    def check(self, frame: Frame, positions: list[int], indices: list[Array]) -> None:
        for position, index in zip(positions, indices, strict=True):
            check_inside(
                frame, f"rank {self.type.ranks[position].name} of {self.name}",
                (0, self.extents[position]), index, self.statement.location,
                "a statement writes inside its result: enlarge it, or restrict it: if ...",
            )  # fmt: skip

    def slot(self, position: int, index: int) -> int:
        if position == 0 and isinstance(self.storage, State):
            return index % self.storage.window
        return index

    def region(self, frame_slices: Mapping[int, slice]) -> Array:
        """A view of the single positions; of all others, whole or the given slices."""
        selectors: list[Any] = []
        for position in range(len(self.left)):
            if position in self.single:
                at = self.slot(position, self.single[position])
                selectors.append(slice(at, at + 1))
            else:
                selectors.append(frame_slices.get(position, slice(None)))
        view: Array = self.array[(*selectors, ...)]
        return view

    @property
    def count(self) -> int:
        """The number of cells of the region."""
        return self.region({}).size

    def write(
        self, frame: Frame, value: Value, mask: Array | None, direct: bool, mapped: Collection[str]
    ) -> None:
        """Store a box. `mapped`: the indices that `value` still varies with.

        `direct`: every position is single or a plain index, so that the box is a slice.
        """
        shape = tuple(
            n if name in mapped else 1 for name, n in zip(frame.ranges, frame.shape, strict=True)
        )
        if self.outside is not None and 0 not in shape and (mask is None or mask.any()):
            raise self.outside
        values = stored(value, self.type.dtype)
        if not direct:
            self.scatter(frame, np.broadcast_to(values, shape), mask, shape)
            return
        if mask is not None:
            values = np.where(mask, values, stored(self.empty, self.type.dtype))
        slices: dict[int, slice] = {}
        for position, expression in enumerate(self.statement.indices):
            if position not in self.single:
                assert isinstance(expression, Index)
                at = frame.fixed.get(expression.name, 0)
                begin, end = frame.ranges.get(expression.name, (at, at + 1))
                slices[position] = slice(begin, end)
        if self.outside is None:
            region = self.region(slices)
            region[...] = np.broadcast_to(values, shape).reshape(region.shape)

    def scatter(
        self, frame: Frame, values: Array, mask: Array | None, shape: tuple[int, ...]
    ) -> None:
        frame.mask = mask
        found = self.indices(frame)
        takes = np.broadcast_to(True if mask is None else mask, shape)
        selectors: list[Array | int] = []
        for position in range(len(self.left)):
            if position in self.single:
                selectors.append(self.slot(position, self.single[position]))
            else:
                selectors.append(np.broadcast_to(found[position], shape)[takes])
        self.array[tuple(selectors)] = values[takes]

    def indices(self, frame: Frame) -> dict[int, Array]:
        """The index at every position that is not single, checked where the mask holds."""
        positions = [k for k in range(len(self.left)) if k not in self.single]
        found = [array_of(self.left[k].run(frame)) for k in positions]
        self.check(frame, positions, found)
        return {
            k: np.clip(index, 0, max(0, self.extents[k] - 1))
            for k, index in zip(positions, found, strict=True)
        }

    def cells(self, frame: Frame) -> Array:
        """The number of the cell that each point writes, in C order over the region."""
        if self.outside is not None and (frame.mask is None or frame.mask.any()):
            raise self.outside
        total = np.asarray(0, np.int64)
        for k, index in self.indices(frame).items():
            total = total * self.extents[k] + index
        return total

    def write_all(self, value: Value) -> None:
        """Store the whole region, given as a value of one axis over its cells."""
        if self.outside is None:
            region = self.region({})
            region[...] = stored(value, self.type.dtype).reshape(region.shape)
