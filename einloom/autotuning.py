"""Choosing by measurement how packed contractions are cut, and keeping the choice on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from einloom.cache import disk_cache, memory_cache
from einloom.kernels import (
    Blockings,
    LayoutClass,
    default_threads,
    kernel_pool,
    kernels_for,
    known_layouts,
    threads_to_use,
)
from einloom.source_fingerprint import source_fingerprint

if TYPE_CHECKING:
    from einloom.backends.cpu.launcher import Prepared
    from einloom.ir.program import Module
    from einloom.passes.lowering.products.blocking import Blocking

LEAST_ROUNDS, MOST_ROUNDS = 5, 100
SECONDS = 0.5
"""How long the candidates of one contraction are run, in turns."""
BETTER = 0.97
"""A candidate replaces the usual cut where it takes less than this share of its time."""


def tuned(
    module: Module,
    layouts: Mapping[str, LayoutClass],
    sizes: Mapping[str, int],
    usual: Blockings,
) -> Blockings:
    """The usual cuts with those of packed contractions replaced by the fastest candidates.

    Operands are random and contiguous. What was chosen once is found again in the cache, on disk
    too; where that is off nothing is measured and the usual cuts are taken, so that programs do
    not differ from run to run.
    """
    if disk_cache() is None:
        return usual
    choices = _candidates(module, layouts, sizes, usual)
    if not choices:
        return usual
    key = ("tuned", module.digest, tuple(layouts.items()), tuple(sorted(sizes.items())), usual)

    def find() -> Blockings:
        return _stored_or_measured(module, layouts, sizes, usual, choices)

    return memory_cache().get_or_build(key, find)  # type: ignore[no-any-return]


def _candidates(
    module: Module,
    layouts: Mapping[str, LayoutClass],
    sizes: Mapping[str, int],
    usual: Blockings,
) -> dict[str, tuple[Blocking, ...]]:
    """By tensor, the ways to cut the packed contraction that defines it."""
    from einloom.backends.cpu.target import host_machine
    from einloom.passes.lowering.products.alternatives import alternatives_of
    from einloom.passes.lowering.products.blocking import Blocking
    from einloom.passes.lowering.products.decisions import decisions_of

    packed = {name: cut for name, cut in usual if isinstance(cut, Blocking)}
    if not packed:
        return {}
    found: dict[str, tuple[Blocking, ...]] = {}
    for decision in decisions_of(module, known_layouts(layouts), sizes, host_machine()):
        if decision.tensor in packed and decision.shape is not None:
            found[decision.tensor] = alternatives_of(packed[decision.tensor], decision.shape)
    return found


def _stored_or_measured(
    module: Module,
    layouts: Mapping[str, LayoutClass],
    sizes: Mapping[str, int],
    usual: Blockings,
    choices: Mapping[str, Sequence[Blocking]],
) -> Blockings:
    from einloom.backends.cpu import compile as cpu

    disk = disk_cache()
    key = b"\0".join(
        (
            b"autotuned",
            module.digest,
            repr(sorted(layouts.items())).encode(),
            repr(sorted(sizes.items())).encode(),
            repr(usual).encode(),
            repr(threads_to_use(default_threads())).encode(),
            cpu.fingerprint().encode(),
            source_fingerprint().encode(),
        )
    )
    payload = None if disk is None else disk.get(key)
    chosen = None if payload is None else _read(payload, choices)
    if chosen is None:
        chosen = _measured(module, layouts, sizes, usual, choices)
        if disk is not None:
            disk.put(key, json.dumps(chosen).encode())
    return _with(usual, {name: choices[name][k] for name, k in chosen.items()})


def _read(payload: bytes, choices: Mapping[str, Sequence[Blocking]]) -> dict[str, int] | None:
    """Numbers of candidates as they were stored; None where they are not those of `choices`."""
    try:
        found = json.loads(payload)
        fits = set(found) == set(choices) and all(
            isinstance(found[name], int) and 0 <= found[name] < len(choices[name])
            for name in choices
        )
    except (ValueError, TypeError):
        return None
    return found if fits else None


def _measured(
    module: Module,
    layouts: Mapping[str, LayoutClass],
    sizes: Mapping[str, int],
    usual: Blockings,
    choices: Mapping[str, Sequence[Blocking]],
) -> dict[str, int]:
    """The number of the fastest candidate of each contraction, found one after the other."""
    chosen: dict[str, int] = {}
    now = usual
    for name, candidates in choices.items():
        ways = [_with(now, {name: candidate}) for candidate in candidates]
        seconds = fastest_runs([_prepared(module, layouts, sizes, way) for way in ways])
        best = min(range(len(ways)), key=seconds.__getitem__)
        chosen[name] = best if seconds[best] < BETTER * seconds[0] else 0
        now = ways[chosen[name]]
    return chosen


class _Run:
    """A program prepared for random operands."""

    def __init__(self, prepared: Prepared, addresses: list[int], alive: object) -> None:
        self.prepared, self.addresses, self.alive = prepared, addresses, alive


def fastest_runs(runs: Sequence[_Run]) -> list[float]:
    """Seconds of the fastest run of each; they take turns, so that all meet the same machine."""

    pool, threads = kernel_pool(), threads_to_use(default_threads())
    least = [float("inf")] * len(runs)
    rounds, begun = 0, time.perf_counter()
    while rounds < LEAST_ROUNDS or (rounds < MOST_ROUNDS and time.perf_counter() - begun < SECONDS):
        for k, run in enumerate(runs):
            started = time.perf_counter()
            run.prepared.run_at(run.addresses, pool, threads)
            least[k] = min(least[k], time.perf_counter() - started)
        rounds += 1
    return least


def _prepared(
    module: Module,
    layouts: Mapping[str, LayoutClass],
    sizes: Mapping[str, int],
    blockings: Blockings,
) -> _Run:
    from einloom.backends.cpu.addresses import address_of
    from einloom.cli.inputs import random_inputs
    from einloom.ir.constants import constant_arrays

    made = {item.name: item.value for item in random_inputs(module, sizes, {}, 0)}
    tensors = {item.name: made[item.name] for item in module.inputs if item.type is not None}
    tensors |= constant_arrays(module)
    kernels = kernels_for(module, layouts, False, blockings)
    prepared = kernels.prepare(tensors, sizes)
    arrays = [*(tensors[name] for name in prepared.inputs), *prepared.allocate()]
    return _Run(prepared, [address_of(array) for array in arrays], arrays)


def _with(blockings: Blockings, changed: Mapping[str, Blocking]) -> Blockings:
    return tuple((name, changed.get(name, cut)) for name, cut in blockings)
