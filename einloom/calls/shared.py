"""Repeated calls of executables whose kernels threads share: what was checked is not checked again.

The entry in machine code does not start threads. These calls stay in Python, but find all that
follows from their operands' dtypes, extents and strides by one look-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from einloom.backends.cpu.entry.known import MISSED

if TYPE_CHECKING:
    from einloom.backends.cpu.launcher import Prepared

Array = np.ndarray[Any, Any]
Signature = tuple[Any, ...]


def signature_of(arrays: Sequence[Any], out: Any) -> Signature | None:
    """What a repeated call is known by; None where an operand is no plain array."""
    given = arrays if out is None else (*arrays, out)
    found: list[Any] = [out is None]
    for array in given:
        if type(array) is not np.ndarray:
            return None
        found += (array.dtype, array.shape, array.strides)
    return tuple(found)


class SharedCall:
    """A call of one signature; `out`, if given, has the dtype and the layout of the result."""

    __slots__ = ("_constants", "_prepared", "_results")

    def __init__(
        self, prepared: Prepared, results: Sequence[str], constants: Sequence[Array]
    ) -> None:
        names = [storage.name for storage in prepared.storages]
        self._prepared = prepared
        self._results = [names.index(name) for name in results]
        self._constants = constants

    def run(self, arrays: Sequence[Array], out: Array | None) -> Any:
        """The results, or `MISSED` where these very arrays need more than is done here."""
        from einloom.kernels import kernel_pool, threads_to_use

        if not all(array.flags.aligned for array in arrays):
            return MISSED
        storages: list[Array] = []
        for number, storage in enumerate(self._prepared.storages):
            if out is None or number != self._results[0]:
                storages.append(np.empty(storage.shape, storage.dtype))
                continue
            fits = out.flags.writeable and out.flags.aligned
            if not fits or any(np.may_share_memory(out, array) for array in arrays):
                return MISSED
            storages.append(out)
        pool = kernel_pool()
        threads = threads_to_use(pool.num_threads)
        self._prepared.run([*arrays, *self._constants, *storages], pool, threads)
        found = [storages[number] for number in self._results]
        return found[0] if len(found) == 1 else tuple(found)
