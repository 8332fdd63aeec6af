"""A bounded map that builds each missing value once, whatever number of threads ask for it."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable
from itertools import count
from typing import Generic, TypeVar

from einloom.ir.errors import EinloomError
from einloom.ir.record import record

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@record
class MemoryInfo:
    """What a `MemoryCache` holds, and its counts since it was made."""

    entries: int
    capacity: int
    hits: int
    misses: int
    evictions: int


class _Entry(Generic[V]):
    __slots__ = ("last_use", "value")

    def __init__(self, value: V) -> None:
        self.value = value
        self.last_use = 0


class _Building(Generic[V]):
    """A value that one thread is making; the gate opens when it has been made or has failed."""

    __slots__ = ("entry", "error", "finished", "gate", "owner")

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self.entry: _Entry[V] | None = None
        self.error: BaseException | None = None
        self.finished = False
        # A bare lock, not an Event: opening it cannot block on a waiter that a fork left behind.
        self.gate = threading.Lock()
        self.gate.acquire()


class MemoryCache(Generic[K, V]):
    """Keeps the `capacity` most recently used values.

    A hit takes no lock. It reads one dict and marks the entry with the next tick of a clock
    (`itertools.count`), both atomic in CPython, in place of moving the entry to the end of a list.
    The price is paid on eviction, which searches all entries for the oldest mark; it follows a
    build, beside which a scan of some hundred entries is nothing.

    A value that is evicted or cleared lives on for as long as a caller holds it.

    >>> cache = MemoryCache[str, int](capacity=2)
    >>> cache.get_or_build("a", lambda: 1)
    1
    >>> cache.get("a"), cache.get("b")
    (1, None)
    """

    def __init__(self, capacity: int = 512) -> None:
        if capacity < 1:
            raise EinloomError(f"the capacity of a cache is {capacity}; it must be at least 1")
        self.capacity = capacity
        self._entries: dict[K, _Entry[V]] = {}
        self._building: dict[K, _Building[V]] = {}
        self._waiting: dict[int, _Building[V]] = {}  # by waiting thread
        self._clock = count(1)
        self._ticks_of_no_hit = 0
        self._misses = 0
        self._evictions = 0
        # Reentrant, because the collector may run a finaliser that uses this cache at any point.
        self._lock = threading.RLock()
        _after_fork_in_child(self._after_fork)

    def get_or_build(self, key: K, build: Callable[[], V]) -> V:
        """The value of a key, from `build()` where it is missing.

        Threads that ask for a key while it is being built wait for that one build. If it raises,
        all of them raise its error and nothing is kept; if it is interrupted (KeyboardInterrupt,
        SystemExit), one of the waiting threads builds anew. A build that comes to need its own
        result raises EinloomError where it would have waited for ever.
        """
        entry = self._entries.get(key)
        if entry is None:
            return self._wait_or_build(key, build)
        entry.last_use = next(self._clock)
        return entry.value

    def get(self, key: K) -> V | None:
        """The value of a key, or `None`; does not wait for a build in progress."""
        entry = self._entries.get(key)
        if entry is None:
            with self._lock:
                self._misses += 1
            return None
        return self._hit(entry)

    def clear(self) -> None:
        """Forget all values. What is being built now goes to those who wait for it, and no further.

        Counts stay.
        """
        with self._lock:
            dropped, self._entries = self._entries, {}
            self._building = {}
        del dropped  # finalisers of the values run here, outside the lock

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def hits(self) -> int:
        """Look-ups that found their value, or waited for another thread's build of it."""
        with self._lock:
            self._ticks_of_no_hit += 1
            return next(self._clock) - self._ticks_of_no_hit

    @property
    def misses(self) -> int:
        """Look-ups that found nothing: one per build, whatever number of threads waited."""
        return self._misses

    @property
    def evictions(self) -> int:
        """Values dropped because the cache was full."""
        return self._evictions

    def info(self) -> MemoryInfo:
        """Size and counts now."""
        return MemoryInfo(len(self), self.capacity, self.hits, self._misses, self._evictions)

    def _hit(self, entry: _Entry[V]) -> V:
        entry.last_use = next(self._clock)
        return entry.value

    def _wait_or_build(self, key: K, build: Callable[[], V]) -> V:
        own: _Building[V] = _Building(threading.get_ident())
        # The claim on the key is inside the try: an interrupt at any point after it is cleaned up.
        try:
            while True:
                with self._lock:
                    entry = self._entries.get(key)
                    if entry is not None:
                        return self._hit(entry)
                    other = self._building.get(key)
                    if other is None:
                        self._building[key] = own
                        self._misses += 1
                        break
                    if self._waits_for(other, own.owner):
                        raise EinloomError(f"building {key!r} needs its own result")
                    self._waiting[own.owner] = other
                self._wait(other, own.owner)
                if other.entry is not None:
                    return self._hit(other.entry)
                if isinstance(other.error, Exception):
                    raise other.error
            own.entry = _Entry(build())
            return own.entry.value
        except BaseException as error:
            own.error = error
            raise
        finally:
            self._finish(key, own)
            del own  # its error would hold this frame, and this frame the error

    def _wait(self, building: _Building[V], thread: int) -> None:
        try:
            with building.gate:
                pass
        finally:
            with self._lock:
                self._waiting.pop(thread, None)

    def _finish(self, key: K, building: _Building[V]) -> None:
        """Keep what was built, unless it failed, and let those who wait go on."""
        evicted: list[_Entry[V]] = []
        with self._lock:
            building.finished = True
            # Another or none stands there when this one only waited, after clear(), and in the
            # child of a fork: then nothing is kept.
            if self._building.get(key) is building:
                del self._building[key]
                if building.entry is not None:
                    evicted = self._insert(key, building.entry)
        building.gate.release()
        del evicted  # finalisers of the values run here, outside the lock

    def _insert(self, key: K, entry: _Entry[V]) -> list[_Entry[V]]:
        entry.last_use = next(self._clock)
        self._ticks_of_no_hit += 1
        self._entries[key] = entry
        evicted = []
        while len(self._entries) > self.capacity:
            oldest, _ = min(list(self._entries.items()), key=lambda item: item[1].last_use)
            evicted.append(self._entries.pop(oldest))
            self._evictions += 1
        return evicted

    def _waits_for(self, building: _Building[V], thread: int) -> bool:
        """Whether `building` can only be finished after something that `thread` is building."""
        link: _Building[V] | None = building
        while link is not None and not link.finished:
            if link.owner == thread:
                return True
            link = self._waiting.get(link.owner)
        return False

    def _after_fork(self) -> None:
        # The threads that built, waited or held the lock are not in the child.
        self._lock = threading.RLock()
        self._building = {}
        self._waiting = {}


def _after_fork_in_child(method: Callable[[], None]) -> None:
    """Call a method in the child after each fork, without keeping its object alive."""
    reference = weakref.WeakMethod(method)

    def after_fork() -> None:
        bound = reference()
        if bound is not None:
            bound()

    os.register_at_fork(after_in_child=after_fork)
