"""Results that are views of their one operand: transposes and diagonals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from einloom.frontend.einsum.spec import Label, Spec

Array = np.ndarray[Any, Any]


def is_view(spec: Spec) -> bool:
    """Whether the result only rearranges its one operand: no label is folded or repeated."""
    if len(spec.inputs) != 1 or spec.repeats_output:
        return False
    return set(spec.inputs[0]) == set(spec.output)


def view_of(array: Array, labels: Sequence[Label], output: Sequence[Label]) -> Array:
    """The operand with its ranks in the order of `output`; a repeated label takes the diagonal.

    It can be written where the operand can.
    """
    left = list(labels)
    view = array
    while len(left) > len(output):
        label = next(x for k, x in enumerate(left) if x in left[:k])
        first = left.index(label)
        second = left.index(label, first + 1)
        view = view.diagonal(axis1=first, axis2=second)
        left = [x for k, x in enumerate(left) if k not in (first, second)] + [label]
    view = view.transpose([left.index(label) for label in output])
    if array.flags.writeable and not view.flags.writeable:
        try:
            view.flags.writeable = True
        except ValueError:  # memory that NumPy does not own; what stands on it is not known to it
            return np.lib.stride_tricks.as_strided(array, view.shape, view.strides)
    return view
