"""Where the tensors of a running program are: arrays, and scan states with their history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from einloom.ir.interpret.values import Array, Value
from einloom.ir.quantized import QuantizedArray, codes_of, decode, scales_of
from einloom.ir.types import DType, Quantized, TensorType, f32


@dataclass
class Storage:
    """One tensor. `array` stores `dtype`; of a quantized tensor it holds the f32 values.

    `owned`: made by this run, so that it may be handed out without a copy. `kept`: made when the
    outermost scan began, so that cells of earlier iterations stay.
    """

    type: TensorType
    array: Array
    owned: bool = True
    kept: bool = False
    quantized: QuantizedArray | None = None
    views: dict[str, Array] = field(default_factory=dict)

    @property
    def dtype(self) -> DType:
        return f32 if self.quantized is not None else self.type.dtype

    def view(self, name: str) -> Array:
        """The array that an access with this view indexes."""
        if name in ("codes", "scales") and name not in self.views:
            assert self.quantized is not None and isinstance(self.type.dtype, Quantized)
            read = codes_of if name == "codes" else scales_of
            self.views[name] = read(self.type.dtype, self.quantized)
        return self.views.get(name, self.array)

    def bounds(self, view: str) -> list[tuple[int, int]]:
        """Per rank of what `view` indexes, the lowest index and the end of the range."""
        return [(0, extent) for extent in self.view(view).shape]


@dataclass
class State(Storage):
    """A state of a scan: `window` states are kept, state k in slot k % window.

    `defined` is the range of the states that can be read, `last` the final one.
    """

    extent: int = 1
    window: int = 1
    fill: Any = 0
    defined: tuple[int, int] = (0, 0)
    last: int = 0

    def view(self, name: str) -> Array:
        return self.array[self.last % self.window] if name == "final" else self.array

    def forget(self, step: int) -> None:
        """Clear the slot of a state about to be written, where an earlier one lay."""
        if self.window < self.extent:
            self.array[step % self.window] = self.fill

    def bounds(self, view: str) -> list[tuple[int, int]]:
        if view == "final":
            return super().bounds(view)
        return [self.defined, *((0, extent) for extent in self.array.shape[1:])]


def of_quantized(type_: TensorType, value: QuantizedArray) -> Storage:
    assert isinstance(type_.dtype, Quantized)
    return Storage(type_, decode(type_.dtype, value), owned=False, quantized=value)


@dataclass
class Frame:
    """The part of an iteration space that is evaluated at once.

    `fixed`: the values of indices that stand still; those of scans, and of extent or chunk 1.
    `ranges`: begin and end of every other index; each is one axis, in this order. `mask`: the
    points where the condition holds, None for all. `locals`: the parameters of a monoid.
    """

    storages: Mapping[str, Storage]
    symbols: Mapping[str, int]
    fixed: Mapping[str, int]
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    mask: Array | None = None
    locals: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.axes = {name: axis for axis, name in enumerate(self.ranges)}
        self.shape = tuple(end - begin for begin, end in self.ranges.values())

    def index(self, name: str) -> Array:
        """The values of an index, i64: 0-d, or along its axis."""
        if name in self.fixed:
            return np.asarray(self.fixed[name], np.int64)
        begin, end = self.ranges[name]
        shape = [1] * len(self.ranges)
        shape[self.axes[name]] = end - begin
        return np.arange(begin, end, dtype=np.int64).reshape(shape)

    def along(self, values: Array, axes: tuple[int, ...]) -> Array:
        """`values` with one axis per index, the given ones broadcast to their full extent."""
        if values.ndim == 0:
            values = values.reshape((1,) * len(self.shape))
        wanted = list(values.shape)
        for axis in axes:
            wanted[axis] = self.shape[axis]
        return np.broadcast_to(values, wanted)
