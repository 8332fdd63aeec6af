"""Reductions: how each kind of monoid folds values along axes, and onto cells that collide.

A partial result is a list of arrays, the components of what is folded (and what the fold
needs besides). It starts as 0-d identities and takes the shape of what it absorbs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from einloom.ir.casting import highest, literal_array, lowest
from einloom.ir.interpret import modular
from einloom.ir.interpret.storage import Frame
from einloom.ir.interpret.values import Array, Value, array_of, converted
from einloom.ir.ops import MONOIDS, OPS, ReducerOp
from einloom.ir.promotion import compute_dtype
from einloom.ir.record import record
from einloom.ir.types import DType, Modular

Partial = list[Array]


class Fold(Protocol):
    """One level of reduction. `mask`: the points that take part, None for all of them."""

    @property
    def dtypes(self) -> tuple[DType, ...]:
        """What it folds, per component."""

    def start(self) -> Partial:
        """The identity."""

    def absorb(
        self, so_far: Partial, values: list[Array], mask: Array | None, axes: tuple[int, ...],
        frame: Frame,
    ) -> Partial:  # fmt: skip
        """`so_far` with all points along `axes` of `frame` folded in; the axes stay, extent 1."""

    def collide(
        self, so_far: Partial, cells: Array, values: list[Array], mask: Array, frame: Frame
    ) -> None:
        """Fold `values`, in order, into the cells of `so_far` that they name; all are 1-d."""

    def result(self, so_far: Partial) -> list[Array]:
        """The components that were asked for."""


# ---- monoids with a ufunc -----------------------------------------------------------------


@record
class UfuncFold:
    """sum, prod, max, min, all, any, xor."""

    monoid: ReducerOp
    dtypes: tuple[DType, ...]

    @property
    def ufunc(self) -> Any:
        return OPS[self.monoid.op].numpy

    @property
    def identity(self) -> Array:
        return identity_of(self.monoid, compute_dtype(self.dtypes[0]))

    def start(self) -> Partial:
        return [self.identity]

    def absorb(
        self, so_far: Partial, values: list[Array], mask: Array | None, axes: tuple[int, ...],
        frame: Frame,
    ) -> Partial:  # fmt: skip
        identity = self.identity
        value = values[0] if mask is None else np.where(mask, values[0], identity)
        if axes:
            value = frame.along(value, axes)
            # the dtype is named because NumPy widens sums of small integers and of truth values
            value = self.ufunc.reduce(
                value, axis=axes, dtype=identity.dtype, keepdims=True, initial=identity[()]
            )
        return [np.asarray(self.ufunc(so_far[0], value))]

    def collide(
        self, so_far: Partial, cells: Array, values: list[Array], mask: Array, frame: Frame
    ) -> None:
        self.ufunc.at(so_far[0], cells[mask], values[0][mask])

    def result(self, so_far: Partial) -> list[Array]:
        return so_far


def identity_of(monoid: ReducerOp, dtype: DType) -> Array:
    if isinstance(monoid.identity, str):
        return lowest(dtype) if monoid.identity == "lowest" else highest(dtype)
    return literal_array(monoid.identity, dtype)


# ---- argmax and argmin --------------------------------------------------------------------


@record
class PairedFold:
    """argmax, argmin: the first point that holds the extreme value; the first NaN wins.

    Partial: value, second component, whether any point took part. Without one, the value is
    the identity of max (min) and the second component is 0.
    """

    monoid: ReducerOp
    dtypes: tuple[DType, ...]

    def start(self) -> Partial:
        first, second = (compute_dtype(dtype) for dtype in self.dtypes)
        return [identity_of(self.monoid, first), literal_array(0, second), np.asarray(False)]

    def wins(self, challenger: Array, holder: Array) -> Array:
        beyond = challenger > holder if self.monoid.op == "max" else challenger < holder
        # only a NaN differs from itself; it beats all but an earlier NaN
        return np.asarray((beyond | (challenger != challenger)) & (holder == holder))

    def absorb(
        self, so_far: Partial, values: list[Array], mask: Array | None, axes: tuple[int, ...],
        frame: Frame,
    ) -> Partial:  # fmt: skip
        taking = np.asarray(True) if mask is None else mask
        found = self.first_extreme([*values, taking], axes, frame) if axes else [*values, taking]
        if found is None:
            return so_far
        better = found[2] & (~so_far[2] | self.wins(found[0], so_far[0]))
        return [
            np.where(better, found[0], so_far[0]),
            np.where(better, found[1], so_far[1]),
            np.asarray(so_far[2] | found[2]),
        ]

    def first_extreme(self, parts: Partial, axes: tuple[int, ...], frame: Frame) -> Partial | None:
        """The winner along `axes`; None where they hold no point at all."""
        full = np.broadcast_arrays(*(frame.along(part, axes) for part in parts))
        kept = tuple(1 if axis in axes else n for axis, n in enumerate(full[0].shape))
        last = tuple(range(-len(axes), 0))
        rest = full[0].ndim - len(axes)
        value, second, taking = (
            moved.reshape(*moved.shape[:rest], -1)
            for moved in (np.moveaxis(part, axes, last) for part in full)
        )
        if value.shape[-1] == 0:
            return None
        ufunc: Any = OPS[self.monoid.op].numpy
        best = ufunc.reduce(np.where(taking, value, self.start()[0]), axis=-1, keepdims=True)
        holds = taking & ((value == best) | ((best != best) & (value != value)))
        position = np.argmax(holds, axis=-1, keepdims=True)
        return [
            best.reshape(kept),
            np.take_along_axis(second, position, -1).reshape(kept),
            taking.any(axis=-1).reshape(kept),
        ]

    def collide(
        self, so_far: Partial, cells: Array, values: list[Array], mask: Array, frame: Frame
    ) -> None:
        for points in one_per_cell(cells, mask):
            where = cells[points]
            better = ~so_far[2][where] | self.wins(values[0][points], so_far[0][where])
            for part, value in zip(so_far, values, strict=False):
                part[where] = np.where(better, value[points], part[where])
            so_far[2][where] = True

    def result(self, so_far: Partial) -> list[Array]:
        return so_far[:2]


def one_per_cell(cells: Array, mask: Array) -> list[Array]:
    """The points of `mask` in rounds: in each at most one per cell, first come first."""
    points = np.flatnonzero(mask)
    order = points[np.argsort(cells[points], kind="stable")]
    ordered = cells[order]
    new = np.ones(len(order), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(new)
    rank = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return [order[rank == turn] for turn in range(int(rank.max(initial=-1)) + 1)]


# ---- integers modulo q --------------------------------------------------------------------


@record
class ModularFold:
    """sum and prod modulo q."""

    monoid: ReducerOp
    dtypes: tuple[DType, ...]

    @property
    def modulus(self) -> int:
        dtype = self.dtypes[0]
        assert isinstance(dtype, Modular)
        return dtype.modulus

    def start(self) -> Partial:
        return [identity_of(self.monoid, self.dtypes[0])]

    def absorb(
        self, so_far: Partial, values: list[Array], mask: Array | None, axes: tuple[int, ...],
        frame: Frame,
    ) -> Partial:  # fmt: skip
        value = values[0] if mask is None else np.where(mask, values[0], self.start()[0])
        if axes:
            along = modular.sum_along if self.monoid.op == "add" else modular.product_along
            value = along(self.modulus, frame.along(value, axes), axes)
        return [np.asarray(modular.FUNCTIONS[self.monoid.op](self.modulus, so_far[0], value))]

    def collide(
        self, so_far: Partial, cells: Array, values: list[Array], mask: Array, frame: Frame
    ) -> None:
        combine = modular.FUNCTIONS[self.monoid.op]
        for points in one_per_cell(cells, mask):
            where = cells[points]
            so_far[0][where] = combine(self.modulus, so_far[0][where], values[0][points])

    def result(self, so_far: Partial) -> list[Array]:
        return so_far


# ---- monoids that the module defines ------------------------------------------------------


@record
class DefinedFold:
    """A `monoid` of the text: combine(... combine(identity, x0) ..., xn) in index order."""

    dtypes: tuple[DType, ...]
    identity: tuple[Array, ...]
    combine: Callable[[Frame, list[Array], list[Array]], list[Array]]

    def start(self) -> Partial:
        return list(self.identity)

    def absorb(
        self, so_far: Partial, values: list[Array], mask: Array | None, axes: tuple[int, ...],
        frame: Frame,
    ) -> Partial:  # fmt: skip
        if not axes:
            return self.step(frame, so_far, values, mask)
        full = [frame.along(value, axes) for value in values]
        taking = None if mask is None else frame.along(mask, axes)
        for point in np.ndindex(*(frame.shape[axis] for axis in axes)):
            place: list[slice] = [slice(None)] * len(frame.shape)
            for axis, position in zip(axes, point, strict=True):
                place[axis] = slice(position, position + 1)
            here = tuple(place)
            so_far = self.step(
                frame, so_far, [part[here] for part in full],
                None if taking is None else taking[here],
            )  # fmt: skip
        return so_far

    def step(
        self, frame: Frame, so_far: Partial, values: list[Array], taking: Array | None
    ) -> Partial:
        combined = self.combine(frame, so_far, values)
        if taking is None:
            return combined
        return [np.where(taking, a, b) for a, b in zip(combined, so_far, strict=True)]

    def collide(
        self, so_far: Partial, cells: Array, values: list[Array], mask: Array, frame: Frame
    ) -> None:
        for points in one_per_cell(cells, mask):
            where = cells[points]
            combined = self.combine(
                frame, [part[where] for part in so_far], [value[points] for value in values]
            )
            for part, value in zip(so_far, combined, strict=True):
                part[where] = value

    def result(self, so_far: Partial) -> list[Array]:
        return so_far


def builtin_fold(name: str, dtypes: Sequence[DType]) -> Fold:
    """The fold of a builtin monoid over components of these dtypes."""
    monoid = MONOIDS[name]
    if monoid.paired:
        return PairedFold(monoid, tuple(dtypes))
    if isinstance(dtypes[0], Modular):
        return ModularFold(monoid, tuple(dtypes))
    return UfuncFold(monoid, tuple(dtypes))


def prepared(values: Sequence[Value], fold: Fold) -> list[Array]:
    """Components converted to what `fold` works on."""
    return [
        array_of(converted(value, dtype)) for value, dtype in zip(values, fold.dtypes, strict=True)
    ]
