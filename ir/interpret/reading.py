"""Reads of tensors: slices where the indices are plain, gathers with range checks elsewhere."""

from __future__ import annotations

from functools import reduce

import numpy as np

from einloom.ir.errors import Location, RangeError
from einloom.ir.expressions import Access, Index
from einloom.ir.interpret.storage import Frame, State, Storage
from einloom.ir.interpret.values import Array, Value, loaded, mapped
from einloom.ir.types import DType


def read(
    frame: Frame, access: Access, dtype: DType, padding: Value | None, indices: list[Array]
) -> Value:
    """The value of an access at all points of `frame`.

    `dtype`: what the view that is read stores. `indices`: the values of its index expressions.
    Raises RangeError where the frame's condition holds and an index is out of range, unless
    the access is padded.
    """
    storage = frame.storages[access.tensor]
    array = storage.view(access.view)
    bounds = storage.bounds(access.view)
    direct = _slice(frame, access, storage, array, bounds, indices)
    if direct is not None:
        return loaded(direct, dtype)
    outside, inside = _split(bounds, indices)
    if outside is not None:
        if padding is None:
            check_read(frame, access, storage, bounds, indices)
        if 0 in array.shape:
            array = np.zeros((1,) * array.ndim, array.dtype)
            inside = [np.zeros_like(index) for index in inside]
    value = loaded(array[tuple(_slots(storage, access, inside))], dtype)
    if outside is None or padding is None:
        return value

    def padded(inner: Array, pad: Array) -> Array:
        return np.asarray(np.where(outside, pad, inner))

    return mapped(padded, value, padding)


def _slice(
    frame: Frame,
    access: Access,
    storage: Storage,
    array: Array,
    bounds: list[tuple[int, int]],
    indices: list[Array],
) -> Array | None:
    """A view of the tensor where every index is plain or a single value, and in range."""
    selectors: list[int | slice] = []
    axes: list[int] = []
    for expression, index, (low, high) in zip(access.indices, indices, bounds, strict=True):
        if index.ndim == 0:
            if not low <= index < high:
                return None
            selectors.append(int(index))
            continue
        if not isinstance(expression, Index):
            return None
        begin, end = frame.ranges[expression.name]
        if begin < low or end > high or frame.axes[expression.name] in axes:
            return None
        selectors.append(slice(begin, end))
        axes.append(frame.axes[expression.name])
    if isinstance(storage, State) and access.view != "final":
        if isinstance(selectors[0], int):
            selectors[0] %= storage.window
        elif storage.window < storage.extent:
            return None
    view: Array = np.asarray(array[tuple(selectors)])
    if not axes:
        return view
    ordered = np.transpose(view, np.argsort(axes))
    present = set(axes)
    spread = tuple(slice(None) if axis in present else None for axis in range(len(frame.ranges)))
    return ordered[spread]


def _split(bounds: list[tuple[int, int]], indices: list[Array]) -> tuple[Array | None, list[Array]]:
    """Where any index is out of range (None: nowhere), and the indices moved into range."""
    wrong: list[Array] = []
    inside: list[Array] = []
    for (low, high), index in zip(bounds, indices, strict=True):
        if index.size and (index.min() < low or index.max() >= high):
            wrong.append(np.asarray((index < low) | (index >= high)))
            index = np.clip(index, low, max(low, high - 1))
        inside.append(index)
    return (reduce(np.logical_or, wrong) if wrong else None), inside


def _slots(storage: Storage, access: Access, indices: list[Array]) -> list[Array]:
    if isinstance(storage, State) and access.view != "final":
        return [indices[0] % storage.window, *indices[1:]]
    return indices


def check_read(
    frame: Frame,
    access: Access,
    storage: Storage,
    bounds: list[tuple[int, int]],
    indices: list[Array],
) -> None:
    """RangeError where an access leaves its tensor, or reads a state that is not defined yet."""
    history = isinstance(storage, State) and access.view != "final"
    ranks = storage.type.ranks[1:] if access.view == "final" else storage.type.ranks
    hint = f"pad the read, {access.tensor}?(0)[...], or restrict it: if ..."
    for position, (rank, bound, index) in enumerate(zip(ranks, bounds, indices, strict=True)):
        if history and isinstance(storage, State) and position == 0:
            whole = (0, storage.extent)
            check_inside(frame, f"rank {rank.name} of {access.tensor}", whole, index,
                         access.location, hint)  # fmt: skip
            check_defined(frame, access, bound, index)
        else:
            check_inside(frame, f"rank {rank.name} of {access.tensor}", bound, index,
                         access.location, hint)  # fmt: skip


def check_inside(
    frame: Frame,
    what: str,
    bound: tuple[int, int],
    index: Array,
    location: Location | None,
    hint: str,
) -> None:
    """RangeError at the first point of the frame's mask where an index is out of range."""
    found = first_outside(frame, bound, index)
    if found is not None:
        value, point = found
        raise RangeError(
            f"index {value} is outside {what}, its extent is {bound[1]}{point}",
            location=location,
            suggestion=hint,
        )


def check_defined(frame: Frame, access: Access, bound: tuple[int, int], index: Array) -> None:
    found = first_outside(frame, bound, index)
    if found is not None:
        value, point = found
        raise RangeError(
            f"state {value} of {access.tensor} is read before it is defined{point}",
            location=access.location,
        )


def first_outside(frame: Frame, bound: tuple[int, int], index: Array) -> tuple[int, str] | None:
    """The first index out of range where the mask holds, and the iteration, for messages."""
    wrong = np.asarray((index < bound[0]) | (index >= bound[1]))
    if frame.mask is not None:
        wrong = np.asarray(wrong & frame.mask)
    if not wrong.any():
        return None
    point = tuple(np.argwhere(wrong)[0])
    return int(np.broadcast_to(index, wrong.shape)[point]), at_point(frame, point)


def at_point(frame: Frame, point: tuple[int, ...]) -> str:
    """` (at t=2, i=0)`: the indices of an iteration, for messages."""
    values = {name: str(value) for name, value in frame.fixed.items()}
    if len(point) == len(frame.ranges):
        for (name, (begin, _)), offset in zip(frame.ranges.items(), point, strict=True):
            values[name] = str(begin + int(offset))
    shown = ", ".join(f"{name}={value}" for name, value in list(values.items())[:8])
    return f" (at {shown})" if shown else ""
