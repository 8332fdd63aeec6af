"""A call whose operands were seen before, as the 8-byte words that the entry's machine code reads.

A known call is a tuple of its words and of all that they point to, so whoever holds the tuple
holds the code of the kernels, too. Tables of known calls are Python lists with a power of two of
slots; a call stands in one of the `PROBES` slots from the one that its hash names.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from einloom.backends.cpu.addresses import address_of
from einloom.ir.record import record

if TYPE_CHECKING:
    from einloom.backends.cpu.launcher import Prepared

Array = np.ndarray[Any, Any]
Known = tuple[Any, ...]
"""First an array of int64, the words; the rest is kept alive for them."""

MISSED = object()
"""What an entry returns for a call that is not known."""

# What the words are, in order; pointers are absolute. `hash` and `key` come first in a known call,
# then for each table its length and where it begins.
HEAD = (
    "hash", "key", "operands", "operand_words", "writes_out", "out_bytes", "constants",
    "constant_words", "storages", "storage_words", "results", "scratch", "launches",
    "launch_words", "release",
)  # fmt: skip
OPERAND = ("dtype", "rank", "mask", "low", "high")  # and then extents and strides
STORAGE = ("kind", "place", "dtype", "rank", "extents", "strides")
LAUNCH = ("function", "parameters", "slices", "buffers", "buffer_words")
BUFFER = ("tensor", "offset")

# Kinds of storages: an array that is returned, one of the array scalars of NumPy, the caller's own
# array, or memory for the time of the call.
RESULT, SCALAR, OUT, SCRATCH = range(4)

PROBES = 4
MOST_TENSORS = 64
"""Operands, constants and storages of a known call, and the buffers of one launch."""
MULTIPLIER = 0x9E3779B97F4A7C15
RELEASE_WORK = 1 << 13
"""Scalar operations from which on other Python threads may run meanwhile: some microseconds."""
ALIGNMENT = 64


@record
class Returned:
    """How a storage is handed back.

    `order`: rank k of what the kernels store is rank `order[k]` of the array; None for the same.
    `as_scalar`: one of NumPy's scalars in place of an array without ranks.
    """

    storage: str
    order: tuple[int, ...] | None = None
    as_scalar: bool = False


def can_be_known(prepared: Prepared, returned: Sequence[Returned], writes_out: bool) -> bool:
    """Whether the entry can run this: on one thread, without faults, within its fixed tables."""
    if prepared.kernels.can_fault or (writes_out and len(returned) != 1):
        return False
    calls = prepared.calls
    tensors = len(prepared.inputs) + len(prepared.storages)
    wide = any(call.is_wide for call in calls)
    buffers = max((len(call.offsets) for call in calls), default=0)
    if wide or max(tensors + 1, buffers) > MOST_TENSORS:
        return False
    made = {s.name: s for s in prepared.storages}
    names = [item.storage for item in returned]
    if len(set(names)) != len(names) or not set(names) <= set(made):
        return False
    return all(
        made[item.storage].dtype.isbuiltin == 1 and not made[item.storage].shape
        for item in returned
        if item.as_scalar
    )


def known_call(
    key: str | None,
    operands: Sequence[Array],
    masks: Sequence[int],
    prepared: Prepared,
    returned: Sequence[Returned],
    *,
    out: Array | None = None,
    constants: Sequence[Array] = (),
) -> Known:
    """The words of a call like this one; `can_be_known` must hold.

    `masks`: for each operand, the bits of its address that must be 0. With `out`, the result goes
    there: it must have the result's dtype and be contiguous in the order of its ranks in memory.
    """
    kept: list[Any] = [key, prepared, tuple(constants)]
    given = [*operands, *([] if out is None else [out])]
    all_masks = [*masks, *([] if out is None else [out.dtype.alignment - 1])]
    operand_words: list[int] = []
    for array, mask in zip(given, all_masks, strict=True):
        low, high = _reach(array)
        operand_words += [id(array.dtype), array.ndim, mask, low, high]
        operand_words += [*array.shape, *array.strides]
        kept.append(array.dtype)
    storage_words, scratch = _storages(prepared, returned, out is not None, kept)
    launch_words: list[int] = []
    for call in prepared.calls:
        buffers = _kept([word for pair in call.offsets for word in pair], kept)
        function = ctypes.cast(call.function, ctypes.c_void_p).value or 0
        launch_words += [
            function, ctypes.addressof(call.parameters), call.slices, len(call.offsets), buffers,
        ]  # fmt: skip
    head = {
        "hash": hash_of(key, given),
        "key": 0 if key is None else id(key),
        "operands": len(given),
        "operand_words": _kept(operand_words, kept),
        "writes_out": int(out is not None),
        "out_bytes": 0 if out is None else out.nbytes,
        "constants": len(constants),
        "constant_words": _kept([address_of(array) for array in constants], kept),
        "storages": len(prepared.storages),
        "storage_words": _kept(storage_words, kept),
        "results": len(returned),
        "scratch": scratch,
        "launches": len(prepared.calls),
        "launch_words": _kept(launch_words, kept),
        "release": int(sum(call.work for call in prepared.calls) >= RELEASE_WORK),
    }
    return (_words([head[name] for name in HEAD]), *kept)


def _storages(
    prepared: Prepared, returned: Sequence[Returned], writes_out: bool, kept: list[Any]
) -> tuple[list[int], int]:
    """The words of the storages, and the bytes of those that live as long as the call."""
    words: list[int] = []
    places = {item.storage: place for place, item in enumerate(returned)}
    scratch = 0
    for storage in prepared.storages:
        kept.append(storage.dtype)
        place = places.get(storage.name)
        if place is None:
            words += [SCRATCH, scratch, 0, 0, 0, 0]
            size = storage.dtype.itemsize
            for extent in storage.shape:
                size *= extent
            scratch += -(-size // ALIGNMENT) * ALIGNMENT
            continue
        item = returned[place]
        kind = OUT if writes_out else SCALAR if item.as_scalar else RESULT
        shape, strides = storage.shape, 0
        if item.order is not None:
            shape, steps = _in_order(storage.shape, storage.dtype.itemsize, item.order)
            strides = _kept(steps, kept)
        extents = _kept(shape, kept)
        words += [kind, place, id(storage.dtype), len(shape), extents, strides]
    return words, scratch


def _in_order(
    stored: Sequence[int], itemsize: int, order: Sequence[int]
) -> tuple[tuple[int, ...], list[int]]:
    """Shape and strides of the array whose rank `order[k]` is rank k of what is stored."""
    shape, strides, step = [0] * len(stored), [0] * len(stored), itemsize
    for rank in reversed(range(len(stored))):
        shape[order[rank]], strides[order[rank]] = stored[rank], step
        step *= max(1, stored[rank])
    return tuple(shape), strides


def _reach(array: Array) -> tuple[int, int]:
    """The bytes that an array occupies, relative to its first element; empty for no elements."""
    if not array.size:
        return 0, 0
    spans = [(n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)]
    low, high = (sum(bound(0, span) for span in spans) for bound in (min, max))
    return low, high + array.itemsize


def _words(values: Sequence[int]) -> Array:
    return np.array([value - 2**64 if value >= 2**63 else value for value in values], np.int64)


def _kept(values: Sequence[int], kept: list[Any]) -> int:
    """The address of words that are kept alive; never null."""
    words = _words(values or [0])
    kept.append(words)
    return address_of(words)


# ---- tables -------------------------------------------------------------------------------


def hash_of(key: str | None, operands: Sequence[Array]) -> int:
    """The hash that the entry computes of a call; `out` counts as an operand."""
    found = 0 if key is None else hash(key) % 2**64
    for array in operands:
        for word in (id(array.dtype), array.ndim, *array.shape, *array.strides):
            found = (found ^ (word % 2**64)) * MULTIPLIER % 2**64
            found ^= found >> 32
    return found


def new_table(slots: int) -> list[Known | None]:
    """A table without calls; the number of slots is a power of two."""
    return [None] * slots


def insert(table: list[Known | None], known: Known) -> None:
    """Put a known call into a table, in place of another one where its slots are taken."""
    found = int(known[0][0])
    slots = [(found + probe) % len(table) for probe in range(PROBES)]
    for slot in slots:
        other = table[slot]
        if other is None or int(other[0][0]) == found:
            table[slot] = known
            return
    # Which one goes follows from the call, so that two calls need not drive out each other.
    table[slots[found >> 40 & PROBES - 1]] = known
