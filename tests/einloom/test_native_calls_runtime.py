"""Calls that run without Python code: references, threads, forks, and how the entries load."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.backends.cpu.entry import functions, layout
from einloom.backends.cpu.entry.known import MISSED
from einloom.cache import memory_cache, plan_cache
from einloom.calls import native
from einloom.calls.native import RUNS, NativeCalls, native_calls
from tests.einloom.known_calls import USUAL, at_once, known_results, learned


@pytest.fixture(autouse=True)
def calls() -> Iterator[NativeCalls]:
    """The entries, loaded."""
    found = native_calls()
    if not found.loaded:
        found.load()
    if not found.loaded:
        pytest.skip("no layout of this interpreter is known")
    plan_cache().clear()
    yield found


# ---- memory, threads, processes -----------------------------------------------------------


def test_references_and_memory() -> None:
    """Many calls leave all counts of references, and the memory in use, as they were."""
    a, out, spec = np.ones((4, 4)), np.empty((4, 4)), "ij,jk->ik"
    v = np.ones(8)
    exe = el.compile(spec, a, a)
    for _ in range(RUNS + 1):
        exe(a, a)
    learned(spec, a, a)
    learned(spec, a, a, out=out)
    learned("i,i->", v, v)

    def all_ways() -> None:
        at_once(spec, a, a)
        at_once(spec, a, a, out=out)
        at_once("i,i->", v, v)
        at_once("i,i->", v, out)
        known_results(exe, a, a)

    assert at_once(spec, a, a, out=out) is out
    assert known_results(exe, a, a) is not MISSED
    known = [one for one in plan_cache().calls if one is not None]
    counted = [a, out, spec, a.dtype, MISSED, USUAL[1], v, *known]
    for _ in range(100):
        all_ways()
    before = [sys.getrefcount(one) for one in counted]
    gc.collect()
    tracemalloc.start()
    try:
        start, _ = tracemalloc.get_traced_memory()
        for _ in range(3000):
            all_ways()
        grown = tracemalloc.get_traced_memory()[0] - start
    finally:
        tracemalloc.stop()
    assert [sys.getrefcount(one) for one in counted] == before
    assert grown < 3000
    result = at_once(spec, a, a)
    assert sys.getrefcount(result) == 2


SCRATCH = """
import numpy as np
import einloom as el
from einloom.backends.cpu.entry.known import MISSED
from einloom.calls.native import native_calls

native_calls().load()
exe = el.compile(
    "program p(X: f64[i=I]) -> (Y) { T[i] = X[i] * 2.0; Y[i] = T[i] + 1.0 }", pipeline=()
)
for size in range(8, 2048, 8):
    x = np.arange(float(size))
    for _ in range(5):
        exe(x)
    found = native_calls().executable(exe._repeated.table, (x,), None)
    assert found is MISSED or (found == 2 * x + 1).all()
    known = found is not MISSED
assert known, "no call has scratch memory"
"""


def test_scratch_memory_stays_inside_its_block() -> None:
    """CPython's debugging allocator stops a process that wrote beside a block."""
    environment = {**os.environ, "PYTHONMALLOC": "debug"}
    command = [sys.executable, "-c", SCRATCH]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_cleared_plans_are_given_back() -> None:
    a = np.ones((4, 4))
    learned("ij,jk->ik", a, a)
    (known,) = (one for one in plan_cache().calls if one is not None)
    prepared = weakref.ref(known[2])
    del known
    plan_cache().clear()
    memory_cache().clear()
    gc.collect()
    assert prepared() is None
    assert at_once("ij,jk->ik", a, a) is MISSED
    assert el.einsum("ij,jk->ik", a, a)[0, 0] == 4


def test_more_calls_than_slots() -> None:
    """All of them stay right, whichever the table still knows."""
    vectors = [np.arange(float(extent)) for extent in range(1, 1500)]
    for _ in range(2):
        for vector in vectors:
            for _ in range(RUNS + 1):
                assert el.einsum("i,i->", vector, vector) == vector @ vector
    known = [at_once("i,i->", vector, vector) is not MISSED for vector in vectors]
    assert sum(known) > 500


def test_threads_and_a_cache_that_is_cleared() -> None:
    errors: list[BaseException] = []
    done = threading.Event()

    def work(seed: int) -> None:
        source = np.random.default_rng(seed)
        try:
            for extent in range(300):
                a = source.integers(0, 9, (3, extent % 7 + 1)).astype(float)
                for _ in range(RUNS + 2):
                    np.testing.assert_array_equal(el.einsum("ij,kj->ik", a, a), a @ a.T)
        except BaseException as error:
            errors.append(error)

    def clear() -> None:
        while not done.is_set():
            plan_cache().clear()
            gc.collect()

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    cleaner = threading.Thread(target=clear)
    for thread in (*workers, cleaner):
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    cleaner.join()
    assert not errors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forks() -> None:
    a = np.arange(16.0).reshape(4, 4)
    learned("ij,jk->ik", a, a)
    child = os.fork()
    if child == 0:
        good = np.array_equal(at_once("ij,jk->ik", a, a), a @ a)
        learned("ij,jk->ki", a, a)
        good = good and np.array_equal(at_once("ij,jk->ki", a, a), (a @ a).T)
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---- loading ------------------------------------------------------------------------------


def test_entries_are_loaded_after_some_repeated_calls() -> None:
    fresh = NativeCalls()
    assert [fresh.wanted() for _ in range(native.OFFERS)] == [False] * (native.OFFERS - 1) + [True]
    assert fresh.einsum is not native_calls().einsum


def test_entries_come_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINLOOM_CACHE_DIR", str(tmp_path / "cache"))
    compiled: list[bytes] = []
    original = functions.object_code

    def counted(found: layout.Layout) -> bytes:
        compiled.append(original(found))
        return compiled[-1]

    monkeypatch.setattr(functions, "object_code", counted)
    monkeypatch.setattr("einloom.source_fingerprint.source_fingerprint", lambda: "fixed")
    for _ in range(2):
        fresh = NativeCalls()
        fresh.load()
        assert fresh.loaded
    assert len(compiled) == 1


@pytest.mark.parametrize("failure", ["layout", "functions", "code"])
def test_without_entries_calls_go_through_python(
    failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> Any:
        raise el.BackendError("the system refuses")

    monkeypatch.setenv("EINLOOM_CACHE", "0")
    if failure == "layout":
        monkeypatch.setattr(layout, "object_layout", lambda: None)
    elif failure == "functions":
        monkeypatch.setattr(functions, "functions", lambda: None)
    else:
        monkeypatch.setattr(functions, "object_code", refuse)
    fresh = NativeCalls()
    assert not any(fresh.wanted() for _ in range(2 * native.OFFERS))
    assert fresh.einsum(("i->", np.ones(2)), None, *USUAL) is MISSED
    monkeypatch.setattr(native, "_native", fresh)
    monkeypatch.setattr("einloom.calls.einsum._native", fresh)
    a = np.ones((2, 2))
    for _ in range(RUNS + 2):
        np.testing.assert_array_equal(el.einsum("ij,jk->ik", a, a), a @ a)
