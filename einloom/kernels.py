"""Machine code for a module and the layouts of its operands: from memory, disk, or made now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from einloom import config
from einloom.cache import disk_cache, memory_cache
from einloom.source_fingerprint import source_fingerprint

if TYPE_CHECKING:
    from einloom.backends.cpu.launcher import Kernels, Prepared
    from einloom.ir.loops import LoopProgram
    from einloom.ir.program import Module
    from einloom.passes.lowering import OperandLayout

Array = np.ndarray[Any, Any]
LayoutClass = tuple[tuple[int | None, ...], bool]


def layout_class(array: Array) -> LayoutClass:
    """What a kernel is specialised on: a last rank of unit stride, and alignment.

    The stride of a rank of extent 1 does not matter, nor do those of an empty array, so they
    count as unit.
    """
    rank = array.ndim
    unit: int | None = None
    if rank and (array.strides[-1] == array.itemsize or array.shape[-1] == 1 or not array.size):
        unit = array.itemsize
    strides = (None,) * (rank - 1) + (unit,) * (rank > 0)
    return strides, bool(array.flags.aligned)


def lowered(module: Module, layouts: Mapping[str, LayoutClass], strict: bool) -> LoopProgram:
    from einloom.passes.lowering import OperandLayout, lower

    known: dict[str, OperandLayout] = {
        name: OperandLayout(strides, aligned) for name, (strides, aligned) in layouts.items()
    }
    return lower(module, known, strict=strict)


def kernels_for(module: Module, layouts: Mapping[str, LayoutClass], strict: bool) -> Kernels:
    """Machine code for a module and layouts: from memory, from disk, or compiled now."""
    key = ("kernels", module.digest, tuple(layouts.items()), strict)
    found: Callable[[], Kernels] = lambda: _load_or_compile(module, layouts, strict)  # noqa: E731
    return memory_cache().get_or_build(key, found)  # type: ignore[no-any-return]


def _load_or_compile(module: Module, layouts: Mapping[str, LayoutClass], strict: bool) -> Kernels:
    from einloom.backends.cpu import compile as cpu

    disk = disk_cache()
    key = b"\0".join(
        (
            module.digest,
            repr(sorted(layouts.items())).encode(),
            b"strict" if strict else b"",
            cpu.fingerprint().encode(),
            source_fingerprint().encode(),
        )
    )
    payload = disk.get(key) if disk is not None else None
    if payload is not None:
        kernels = cpu.from_payload(payload)
        if kernels is not None:
            return kernels
    payload = cpu.compile_payload(lowered(module, layouts, strict))
    if disk is not None:
        disk.put(key, payload)
    kernels = cpu.from_payload(payload)
    assert kernels is not None
    return kernels


def run_prepared(
    prepared: Prepared, tensors: Mapping[str, Array], outputs: Sequence[str]
) -> dict[str, Array]:
    """Allocate, launch, and pick the results."""
    from einloom.backends.cpu.threads import shared_pool

    storages = prepared.allocate()
    operands = [tensors[name] for name in prepared.inputs]
    pool = shared_pool()
    pool.default_threads = default_threads
    prepared.run([*operands, *storages], pool, threads_to_use(pool.num_threads))
    made = {s.name: array for s, array in zip(prepared.storages, storages, strict=True)}
    return {name: made[name] if name in made else tensors[name].copy() for name in outputs}


def default_threads() -> int:
    from einloom.backends.cpu.threads import available_threads

    return config.num_threads() or available_threads()


def threads_to_use(default: int) -> int:
    from einloom.options import current

    chosen = current().threads
    return default if chosen is None else chosen
