"""A pairwise contraction as a batched matrix product, so that all of them share one kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from einloom.ir.record import record

Array = np.ndarray[Any, Any]
Indices = tuple[int, ...]

TERMS = ((0, 1, 2), (0, 2, 3))
RESULT = (0, 1, 3)
"""`bik,bkj->bij`, by numbers."""


@record
class Arrangement:
    """An array repeated to `stretched`, its ranks in another order, and runs of them as one."""

    stretched: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]

    def of(self, array: Array) -> Array:
        if array.shape != self.stretched:
            array = np.broadcast_to(array, self.stretched)
        return aligned(np.ascontiguousarray(array.transpose(self.order))).reshape(self.shape)


def aligned(array: Array) -> Array:
    """An array, or a copy of one whose address does not fit its dtype."""
    return array if array.flags.aligned else array.copy()


@record
class MatrixProduct:
    """How two operands become matrices, and what the result's indices are then.

    `extents`: of the batch, the rows, the terms and the columns.
    """

    operands: tuple[Arrangement, Arrangement]
    indices: Indices
    shape: tuple[int, ...]
    extents: tuple[int, int, int, int]


def matrix_product(
    left: Indices, right: Indices, kept: Sequence[int], extents: Mapping[int, int]
) -> MatrixProduct | None:
    """The product that a step is; None where there is a diagonal or a sum over one operand."""
    inside, other, outside = set(left), set(right), set(kept)
    if len(inside) < len(left) or len(other) < len(right) or len(outside) < len(kept):
        return None
    if not (inside ^ other) <= outside:
        return None
    shared = [index for index in left if index in other]
    batch = [index for index in shared if index in outside]
    terms = [index for index in shared if index not in outside]
    rows = [index for index in left if index not in other]
    columns = [index for index in right if index not in inside]
    extent = extents.__getitem__
    b, i, k, j = sizes = (
        prod(map(extent, batch)),
        prod(map(extent, rows)),
        prod(map(extent, terms)),
        prod(map(extent, columns)),
    )
    result = (*batch, *rows, *columns)
    place, position = left.index, right.index
    return MatrixProduct(
        (
            Arrangement(
                tuple(map(extent, left)), tuple(map(place, batch + rows + terms)), (b, i, k)
            ),
            Arrangement(
                tuple(map(extent, right)), tuple(map(position, batch + terms + columns)), (b, k, j)
            ),
        ),
        result,
        tuple(map(extent, result)),
        sizes,
    )
