"""The caches of this process: compiled code in memory, and on disk for the processes to come."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from einloom import config
from einloom.disk_cache import DiskCache, DiskInfo
from einloom.ir.record import record
from einloom.memory_cache import MemoryCache, MemoryInfo
from einloom.source_fingerprint import source_fingerprint

__all__ = [
    "CacheInfo",
    "DiskCache",
    "DiskInfo",
    "MemoryCache",
    "MemoryInfo",
    "cache_clear",
    "cache_info",
    "disk_cache",
    "memory_cache",
    "source_fingerprint",
]


@record
class CacheInfo:
    """What both caches hold, and the counts of this process."""

    memory: MemoryInfo
    disk: DiskInfo


_memory: MemoryCache[Hashable, Any] = MemoryCache()


class PlanCache(MemoryCache[Hashable, Any]):
    """Plans of calls. `calls` are those that run without Python: slots, some of them None."""

    def __init__(self, capacity: int = 1024) -> None:
        super().__init__(capacity)
        self.calls: list[Any] = [None] * capacity

    def clear(self) -> None:
        """Forget all plans and calls."""
        super().clear()
        self.calls[:] = [None] * len(self.calls)


_plans = PlanCache()
_disk: DiskCache | None = None


def memory_cache() -> MemoryCache[Hashable, Any]:
    """The one cache in memory; its keys say what kind of value they name."""
    return _memory


def plan_cache() -> PlanCache:
    """Plans of calls by dtypes, shapes and strides: small, and apart from compiled code, so that
    calls of many shapes do not drive code out. `cache_info` does not count it."""
    return _plans


def disk_cache() -> DiskCache | None:
    """The disk cache that the environment asks for now, or `None` where there is none.

    Raises EinloomError for a variable with an illegal value.
    """
    global _disk
    folder = config.cache_folder()
    limit_bytes = config.cache_limit_bytes()
    if not config.disk_cache_enabled() or folder is None:
        return None
    cache = _disk
    if cache is None or (cache.folder, cache.limit_bytes) != (folder, limit_bytes):
        cache = _disk = DiskCache(folder, limit_bytes)
    return cache


def cache_info() -> CacheInfo:
    """Sizes, hits, misses and evictions of both caches, and why one is out of use, if it is."""
    disk = disk_cache()
    if disk is not None:
        return CacheInfo(_memory.info(), disk.info())
    if config.disk_cache_enabled():
        reason = f"this user has no home folder; name a folder in {config.CACHE_DIR.name}"
    else:
        reason = f"switched off by {config.CACHE.name}=0"
    nothing = DiskInfo(
        folder=config.cache_folder(),
        limit_bytes=config.cache_limit_bytes(),
        entries=0,
        bytes=0,
        hits=0,
        misses=0,
        evictions=0,
        reason=reason,
    )
    return CacheInfo(_memory.info(), nothing)


def cache_clear() -> None:
    """Empty the cache in memory, and the one on disk unless it is switched off."""
    _memory.clear()
    _plans.clear()
    disk = disk_cache()
    if disk is not None:
        disk.clear()
