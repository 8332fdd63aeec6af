"""Machine code for a module and the layouts of its operands: from memory, disk, or made now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from einloom import config
from einloom.backends.cpu.addresses import effective_strides
from einloom.backends.cpu.threads import ThreadPool, available_threads, shared_pool
from einloom.cache import disk_cache, memory_cache
from einloom.source_fingerprint import source_fingerprint

if TYPE_CHECKING:
    from einloom.backends.cpu.launcher import Kernels, Prepared
    from einloom.ir.loops import LoopProgram
    from einloom.ir.program import Module
    from einloom.passes.lowering import OperandLayout
    from einloom.passes.lowering.products.blocking import Cut

Array = np.ndarray[Any, Any]
Blockings = tuple[tuple[str, "Cut"], ...]
LayoutClass = tuple[tuple[int | None, ...], bool, tuple[bool, ...]]


def layout_class(array: Array) -> LayoutClass:
    """What a kernel is specialised on: see `layout_of`."""
    return layout_of(array.shape, array.strides, array.itemsize, bool(array.flags.aligned))


def layout_of(
    shape: Sequence[int], strides: Sequence[int], item: int, aligned: bool
) -> LayoutClass:
    """A last rank of unit stride, alignment, and which ranks lie as one with the next.

    The stride of a rank of extent 1 does not matter, nor do those of an empty array, so they
    count as unit.
    """
    rank = len(shape)
    empty = 0 in shape
    strides = effective_strides(shape, strides, item)
    unit = item if rank and (strides[-1] == item or empty) else None
    merged = tuple([empty or strides[k] == shape[k + 1] * strides[k + 1] for k in range(rank - 1)])
    return (None,) * (rank - 1) + (unit,) * (rank > 0), aligned, (*merged, False)[:rank]


def known_layouts(layouts: Mapping[str, LayoutClass]) -> dict[str, OperandLayout]:
    from einloom.passes.lowering import OperandLayout

    return {name: OperandLayout(*layout) for name, layout in layouts.items()}


def lowered(
    module: Module, layouts: Mapping[str, LayoutClass], strict: bool, blockings: Blockings
) -> LoopProgram:
    from einloom.passes.lowering import lower

    return lower(module, known_layouts(layouts), strict=strict, blockings=dict(blockings))


def blockings_for(
    module: Module,
    layouts: Mapping[str, LayoutClass],
    strict: bool,
    sizes: Mapping[str, int],
    rounding: bool = False,
) -> Blockings:
    """How the large contractions of a module are cut, for likely sizes of its symbols.

    With `rounding` those of f32 may take their factors in bf16, where that is faster.
    With `strict` none is: packed sums are added up in blocks of terms.
    """
    if strict:
        return ()
    from einloom.backends.cpu.target import host_machine
    from einloom.passes.lowering.products.plan import blockings_of

    machine = host_machine()
    return tuple(blockings_of(module, known_layouts(layouts), sizes, machine, rounding).items())


def unlike(cut: Blockings, wanted: Blockings | None) -> int:
    """How far one way to cut tensors is from another: 0 where they are the same."""
    if wanted is None or cut == wanted:
        return 0
    return 1 + len({name for name, _ in cut} ^ {name for name, _ in wanted})


def kernels_for(
    module: Module, layouts: Mapping[str, LayoutClass], strict: bool, blockings: Blockings
) -> Kernels:
    """Machine code for a module and layouts: from memory, from disk, or compiled now."""
    key = ("kernels", module.digest, tuple(layouts.items()), strict, blockings)
    found: Callable[[], Kernels] = lambda: _load_or_compile(  # noqa: E731
        module, layouts, strict, blockings
    )
    return memory_cache().get_or_build(key, found)  # type: ignore[no-any-return]


def _load_or_compile(
    module: Module, layouts: Mapping[str, LayoutClass], strict: bool, blockings: Blockings
) -> Kernels:
    from einloom.backends.cpu import compile as cpu

    disk = disk_cache()
    key = b"\0".join(
        (
            module.digest,
            repr(sorted(layouts.items())).encode(),
            b"strict" if strict else b"",
            repr(blockings).encode(),
            cpu.fingerprint().encode(),
            source_fingerprint().encode(),
        )
    )
    payload = disk.get(key) if disk is not None else None
    if payload is not None:
        kernels = cpu.from_payload(payload)
        if kernels is not None:
            return kernels
    payload = cpu.compile_payload(lowered(module, layouts, strict, blockings))
    if disk is not None:
        disk.put(key, payload)
    kernels = cpu.from_payload(payload)
    assert kernels is not None
    return kernels


def run_prepared(
    prepared: Prepared,
    tensors: Mapping[str, Array],
    outputs: Sequence[str],
    given: Mapping[str, Array],
) -> dict[str, Array]:
    """Allocate, launch, and pick the results; `given` are storages that need no allocation."""
    storages = prepared.allocate(given)
    operands = [tensors[name] for name in prepared.inputs]
    pool = kernel_pool()
    prepared.run([*operands, *storages], pool, threads_to_use(pool.num_threads))
    made = {s.name: array for s, array in zip(prepared.storages, storages, strict=True)}
    return {name: made[name] if name in made else tensors[name].copy() for name in outputs}


def kernel_pool() -> ThreadPool:
    """The threads of this process, with the default that the environment sets and cached code."""
    pool = shared_pool()
    pool.default_threads = default_threads
    pool.board_code = board_code
    return pool


def board_code() -> bytes:
    """The machine code by which kernels are shared out: from the disk cache, or compiled now."""
    from einloom.backends.cpu import board
    from einloom.backends.cpu import compile as cpu

    disk = disk_cache()
    parts = ("board", cpu.fingerprint(), source_fingerprint())
    key = b"\0".join(part.encode() for part in parts)
    code = disk.get(key) if disk is not None else None
    if code is None:
        code = board.object_code()
        if disk is not None:
            disk.put(key, code)
    return code


def default_threads() -> int:
    return config.num_threads() or available_threads()


def threads_to_use(default: int) -> int:
    from einloom.options import current

    chosen = current().threads
    return default if chosen is None else chosen
