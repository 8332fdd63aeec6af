"""The cache in memory, and what a process says about both of its caches."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from functools import partial
from pathlib import Path

import pytest

import einloom
from einloom import cache, config
from einloom.cache import MemoryCache, cache_clear, cache_info, disk_cache, memory_cache
from einloom.ir.errors import EinloomError

ROOT = Path(einloom.__file__).resolve().parent.parent


def run_script(script: str, *arguments: str) -> str:
    """What a script prints in a fresh process; fails after a minute."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Value:
    """Something that a weak reference can point at."""


def test_hit_miss_and_len() -> None:
    values = MemoryCache[str, int]()
    assert values.get("a") is None
    assert values.get_or_build("a", lambda: 1) == 1
    assert values.get_or_build("a", lambda: 2) == 1
    assert values.get("a") == 1
    assert (len(values), values.hits, values.misses, values.evictions) == (1, 2, 2, 0)


def test_counting_hits_is_no_hit() -> None:
    values = MemoryCache[int, int]()
    values.get_or_build(0, lambda: 0)
    for expected in range(5):
        assert [values.hits, values.info().hits] == [expected, expected]
        values.get(0)


def test_none_is_a_value() -> None:
    values = MemoryCache[str, None]()
    built: list[str] = []
    for _ in range(3):
        assert values.get_or_build("a", lambda: built.append("a")) is None
    assert built == ["a"]


def test_least_recently_used_goes_first() -> None:
    values = MemoryCache[str, str](capacity=3)
    for key in "abc":
        values.get_or_build(key, lambda: "old")
    values.get("a")
    values.get_or_build("b", lambda: "unused")
    for key in "de":
        values.get_or_build(key, lambda: "new")
    assert [values.get(key) for key in "abcde"] == [None, "old", None, "new", "new"]
    assert values.info() == cache.MemoryInfo(entries=3, capacity=3, hits=5, misses=7, evictions=2)


def test_eviction_against_a_model() -> None:
    values = MemoryCache[int, int](capacity=8)
    model: dict[int, int] = {}
    state = 12345
    for _ in range(3000):
        state = state * 1103515245 + 12345 & 0x7FFFFFFF
        key = (state >> 16) % 13
        values.get_or_build(key, partial(int, key))
        model.pop(key, None)
        model[key] = key
        if len(model) > 8:
            del model[next(iter(model))]
        assert set(values._entries) == set(model)


def test_evicted_and_cleared_values_are_freed() -> None:
    values = MemoryCache[int, Value](capacity=1)
    first = weakref.ref(values.get_or_build(1, Value))
    second = weakref.ref(values.get_or_build(2, Value))
    assert first() is None
    held = second()
    values.clear()
    assert len(values) == 0
    assert second() is held
    del held
    assert second() is None


def test_capacity_must_be_positive() -> None:
    with pytest.raises(EinloomError) as caught:
        MemoryCache[int, int](capacity=0)
    assert str(caught.value) == "the capacity of a cache is 0; it must be at least 1"


def test_64_threads_build_one_key_once() -> None:
    values = MemoryCache[str, Value]()
    builds: list[int] = []
    start = threading.Barrier(64)

    def build() -> Value:
        builds.append(threading.get_ident())
        time.sleep(0.05)
        return Value()

    def ask() -> Value:
        start.wait(30)
        return values.get_or_build("key", build)

    with ThreadPoolExecutor(64) as executor:
        answers = [ask.result(30) for ask in [executor.submit(ask) for _ in range(64)]]
    assert len(builds) == 1
    assert len(set(map(id, answers))) == 1
    assert (values.hits, values.misses) == (63, 1)


def test_keys_are_built_beside_each_other() -> None:
    values = MemoryCache[int, int]()
    both_inside = threading.Barrier(2)

    def build(key: int) -> int:
        both_inside.wait(30)
        return key

    with ThreadPoolExecutor(2) as executor:
        asked = [executor.submit(values.get_or_build, k, partial(build, k)) for k in (1, 2)]
        assert [answer.result(30) for answer in asked] == [1, 2]


def wait_until_waiting(values: MemoryCache[str, int], number: int) -> None:
    deadline = time.monotonic() + 30
    while len(values._waiting) < number:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_failure_reaches_all_who_wait_and_leaves_nothing() -> None:
    values = MemoryCache[str, int]()
    builds: list[str] = []

    def fail() -> int:
        builds.append("failed")
        wait_until_waiting(values, 7)
        raise EinloomError("no such intrinsic")

    with ThreadPoolExecutor(8) as executor:
        asked = [executor.submit(values.get_or_build, "key", fail) for _ in range(8)]
        errors = [answer.exception(30) for answer in asked]
    assert [str(error) for error in errors] == ["no such intrinsic"] * 8
    assert builds == ["failed"]
    assert (len(values), values._building, values._waiting) == (0, {}, {})
    assert values.get_or_build("key", lambda: 7) == 7


def test_interrupted_build_is_taken_over() -> None:
    values = MemoryCache[str, int]()

    def interrupted() -> int:
        wait_until_waiting(values, 1)
        raise KeyboardInterrupt

    def first() -> str:
        try:
            values.get_or_build("key", interrupted)
        except KeyboardInterrupt:
            return "interrupted"
        return "built"

    with ThreadPoolExecutor(2) as executor:
        interrupt = executor.submit(first)
        while "key" not in values._building:
            time.sleep(0.001)
        second = executor.submit(values.get_or_build, "key", lambda: 5)
        assert (interrupt.result(30), second.result(30)) == ("interrupted", 5)
    assert values.get("key") == 5


def test_failed_build_keeps_no_frames_alive() -> None:
    values = MemoryCache[str, int]()

    def fail() -> int:
        raise EinloomError("no")

    def attempt() -> weakref.ref[Value]:
        operand = Value()
        with pytest.raises(EinloomError):
            values.get_or_build("key", fail)
        return weakref.ref(operand)

    gc.disable()
    try:
        assert attempt()() is None
    finally:
        gc.enable()


def test_build_that_needs_itself() -> None:
    values = MemoryCache[str, int]()
    with pytest.raises(EinloomError) as caught:
        values.get_or_build("a", lambda: values.get_or_build("a", lambda: 1))
    assert str(caught.value) == "building 'a' needs its own result"
    assert values.get_or_build("b", lambda: values.get_or_build("a", lambda: 1) + 1) == 2


def test_two_threads_that_need_each_other_do_not_hang() -> None:
    values = MemoryCache[str, int]()
    both_inside = threading.Barrier(2)

    def build(other: str) -> int:
        both_inside.wait(30)
        return values.get_or_build(other, lambda: 1)

    with ThreadPoolExecutor(2) as executor:
        asked = [
            executor.submit(values.get_or_build, own, partial(build, other))
            for own, other in (("a", "b"), ("b", "a"))
        ]
        errors = {str(answer.exception(30)) for answer in asked}
    assert errors <= {"building 'a' needs its own result", "building 'b' needs its own result"}
    assert len(errors) == 1


def test_clear_during_a_build() -> None:
    values = MemoryCache[str, str]()

    def build() -> str:
        values.clear()
        return values.get_or_build("key", lambda: "after") + " then before"

    assert values.get_or_build("key", build) == "after then before"
    assert values.get("key") == "after"


def test_finaliser_may_use_the_cache() -> None:
    values = MemoryCache[int, Value](capacity=1)
    seen: list[int] = []
    first = values.get_or_build(1, Value)
    weakref.finalize(first, lambda: seen.append(len(values)))
    del first
    values.get_or_build(2, Value)
    values.clear()
    assert seen == [1]


FORK_DURING_BUILD = """
import os, threading, time
from einloom.memory_cache import MemoryCache
values = MemoryCache()
values.get_or_build("kept", lambda: 1)
inside, forked = threading.Event(), threading.Event()
def build():
    inside.set()
    forked.wait(30)
    return "parent"
builder = threading.Thread(target=values.get_or_build, args=("key", build))
builder.start()
inside.wait(30)
holder_ready, holder_done = threading.Event(), threading.Event()
def hold():
    with values._lock:
        holder_ready.set()
        holder_done.wait(30)
holder = threading.Thread(target=hold)
holder.start()
holder_ready.wait(30)
child = os.fork()
if child == 0:
    ok = values.get("kept") == 1 and values.get_or_build("key", lambda: "child") == "child"
    os._exit(0 if ok else 1)
holder_done.set()
forked.set()
_, status = os.waitpid(child, 0)
builder.join(30)
print(os.waitstatus_to_exitcode(status), values.get("key"))
"""


def test_fork_while_another_thread_builds_and_another_holds_the_lock() -> None:
    assert run_script(FORK_DURING_BUILD) == "0 parent\n"


FORK_INSIDE_BUILD = """
import os
from einloom.memory_cache import MemoryCache
values = MemoryCache()
def build():
    child = os.fork()
    return (child, os.getpid())
child, me = values.get_or_build("key", build)
if child == 0:
    os._exit(values.get_or_build("key", lambda: 42) != 42)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), values.get("key") == (child, me))
"""


def test_fork_inside_a_build() -> None:
    assert run_script(FORK_INSIDE_BUILD) == "0 True\n"


@pytest.fixture
def fresh_process_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for variable in config.VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.setattr(cache, "_memory", MemoryCache())
    monkeypatch.setattr(cache, "_disk", None)
    monkeypatch.setenv("EINLOOM_CACHE_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def test_info_and_clear(fresh_process_caches: Path) -> None:
    disk = disk_cache()
    assert disk is not None
    assert disk is disk_cache()
    disk.put(b"key", b"payload")
    memory_cache().get_or_build("key", lambda: 1)
    memory_cache().get("key")
    disk.get(b"key")
    disk.get(b"other")
    info = cache_info()
    assert (info.memory.entries, info.memory.hits, info.memory.misses) == (1, 1, 1)
    assert info.memory.capacity == 512
    assert info.disk.folder == fresh_process_caches
    assert info.disk.limit_bytes == 2**30
    assert (info.disk.entries, info.disk.hits, info.disk.misses) == (1, 1, 1)
    assert info.disk.bytes == sum(f.stat().st_size for f in fresh_process_caches.iterdir())
    assert info.disk.reason is None
    with pytest.raises(FrozenInstanceError):
        info.memory = info.memory  # type: ignore[misc]
    cache_clear()
    info = cache_info()
    assert (info.memory.entries, info.disk.entries, info.disk.bytes) == (0, 0, 0)
    assert list(fresh_process_caches.iterdir()) == []


def test_disk_cache_follows_the_environment(
    fresh_process_caches: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EINLOOM_CACHE", "0")
    assert disk_cache() is None
    assert cache_info().disk.reason == "switched off by EINLOOM_CACHE=0"
    cache_clear()
    monkeypatch.setenv("EINLOOM_CACHE", "1")
    monkeypatch.setenv("EINLOOM_CACHE_SIZE", "4096")
    monkeypatch.setenv("EINLOOM_CACHE_DIR", str(tmp_path / "other"))
    disk = disk_cache()
    assert disk is not None
    assert (disk.folder, disk.limit_bytes) == (tmp_path / "other", 4096)
    monkeypatch.setattr(config, "cache_folder", lambda: None)
    assert disk_cache() is None
    assert cache_info().disk.reason == (
        "this user has no home folder; name a folder in EINLOOM_CACHE_DIR"
    )
