"""Entries in machine code: the layouts they rely on, and kernels of our own making run by them."""

from __future__ import annotations

import ctypes
import sys
import tracemalloc
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest

from einloom.backends.cpu.entry import layout as layouts
from einloom.backends.cpu.entry.functions import Entries, Usual, load_entries, object_code
from einloom.backends.cpu.entry.known import (
    HEAD,
    MISSED,
    MOST_TENSORS,
    PROBES,
    RELEASE_WORK,
    Known,
    Returned,
    can_be_known,
    hash_of,
    insert,
    known_call,
    new_table,
)
from einloom.backends.cpu.launcher import _PROTOTYPE, Kernels, Prepared
from einloom.backends.cpu.plan import BufferPlan, LaunchPlan, Plan, StoragePlan

Array = np.ndarray[Any, Any]
MODE: ContextVar[object] = ContextVar("mode", default=None)


# ---- layouts ------------------------------------------------------------------------------


def test_the_layout_of_this_interpreter_is_confirmed() -> None:
    if sys.implementation.name == "cpython" and object.__basicsize__ == 16:
        found = layouts.object_layout()
        assert found is not None
        assert found.tuple_items == tuple.__basicsize__
        assert layouts.functions() is not None


@pytest.mark.parametrize(
    ("field", "offset"),
    [
        ("kind", 0), ("size", 8), ("list_items", 32), ("data", 24), ("rank", 28), ("extents", 40),
        ("strides", 32), ("dtype", 48), ("flags", 68),
    ],
)  # fmt: skip
def test_another_layout_is_refused(
    field: str, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A field that stands elsewhere is noticed, whichever it is."""
    original = layouts.Layout
    monkeypatch.setattr(layouts, "Layout", lambda **given: original(**{**given, field: offset}))
    assert layouts.object_layout() is None


def test_another_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.implementation, "name", "other")
    assert layouts.object_layout() is None


# ---- kernels of our own -------------------------------------------------------------------


class Callbacks:
    """In place of machine code: Python functions that C calls."""

    def __init__(self, **functions: Callable[..., int]) -> None:
        self.functions = {name: _PROTOTYPE(function) for name, function in functions.items()}

    def entry(self, name: str) -> int:
        return ctypes.cast(self.functions[name], ctypes.c_void_p).value or 0


@pytest.fixture(scope="module")
def code() -> bytes:
    layout = layouts.object_layout()
    if layout is None:
        pytest.skip("no layout of this interpreter is known")
    return object_code(layout)


@pytest.fixture
def table() -> list[Known | None]:
    return new_table(16)


@pytest.fixture
def entries(code: bytes, table: list[Known | None]) -> Entries:
    found = load_entries(code, table, Usual((None, "K"), MODE, None))
    assert found is not None
    return found


def doubling(status: int = 0) -> Callable[..., int]:
    """`b[k] = 2 a[k]` for four f64; gives `status`."""

    def run(bases: int, parameters: int, begin: int, end: int, fault: int) -> int:
        a, b = (ctypes.c_size_t * 2).from_address(bases)
        source, target = ((ctypes.c_double * 4).from_address(p) for p in (a, b))
        for k in range(4):
            target[k] = 2 * source[k]
        return status

    return run


def prepared(
    launches: list[tuple[str, str, str]], storages: list[str], work: int, **functions: Any
) -> Prepared:
    """Launches (function, read, written) on vectors of four f64; `x` is the input."""
    plan = Plan(
        tuple(StoragePlan(name, "float64", ((4,),)) for name in storages),
        tuple(
            LaunchPlan(
                function, (BufferPlan(read, None), BufferPlan(written, None)), (), None, (work,), ()
            )
            for function, read, written in launches
        ),
    )
    return Kernels(plan, Callbacks(**functions)).prepare({"x": np.zeros(4)}, {})


def known(
    launches: list[tuple[str, str, str]], storages: list[str], *results: str, work: int = 1,
    out: Array | None = None, key: str | None = None, **functions: Any,
) -> Known:  # fmt: skip
    ready = prepared(launches, storages, work, **functions)
    returned = [Returned(name) for name in results]
    assert can_be_known(ready, returned, out is not None)
    return known_call(key, [np.zeros(4)], [7], ready, returned, out=out)


@pytest.mark.parametrize("work", [1, RELEASE_WORK])
def test_several_launches_results_and_scratch(
    work: int, entries: Entries, table: list[Known | None]
) -> None:
    launches = [("f", "x", "a"), ("f", "a", "b"), ("f", "b", "c")]
    insert(table, known(launches, ["a", "b", "c"], "c", "a", work=work, f=doubling()))
    x = np.arange(4.0)
    for _ in range(3):
        c, a = entries.executable(table, (x,), None)
        np.testing.assert_array_equal(a, 2 * x)
        np.testing.assert_array_equal(c, 8 * x)
    assert sys.getrefcount(a) == sys.getrefcount(c) == 2
    tracemalloc.start()
    try:
        start, _ = tracemalloc.get_traced_memory()
        for _ in range(200):
            entries.executable(table, (x,), None)
        grown = tracemalloc.get_traced_memory()[0] - start
    finally:
        tracemalloc.stop()
    assert grown < 2000, "scratch memory is given back"


@pytest.mark.parametrize("work", [1, RELEASE_WORK])
@pytest.mark.parametrize("results", [("b",), ("a", "b")])
def test_a_kernel_that_fails_is_left_to_python(
    work: int, results: tuple[str, ...], entries: Entries, table: list[Known | None]
) -> None:
    """What was allocated is given back, and later launches do not run."""
    ran = []

    def last(*arguments: int) -> int:
        ran.append(arguments)
        return 0

    launches = [("f", "x", "a"), ("g", "a", "b")]
    call = known(launches, ["a", "b"], *results, work=work, f=doubling(-1), g=last)
    insert(table, call)
    x = np.arange(4.0)
    counted = [x, x.dtype, MISSED, call, None]
    before = [sys.getrefcount(one) for one in counted]
    for _ in range(100):
        assert entries.executable(table, (x,), None) is MISSED
    after = [sys.getrefcount(one) for one in counted]
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) < 20
    assert not ran


class LockCheck:
    """A kernel that fails where its thread holds the global lock: CPython's own question."""

    def entry(self, name: str) -> int:
        return ctypes.cast(ctypes.pythonapi.PyGILState_Check, ctypes.c_void_p).value or 0


@pytest.mark.parametrize(("work", "is_released"), [(RELEASE_WORK - 1, False), (RELEASE_WORK, True)])
def test_only_long_kernels_release_the_global_lock(
    work: int, is_released: bool, entries: Entries, table: list[Known | None]
) -> None:
    launches = (LaunchPlan("f", (), (), None, (work,), ()),)
    plan = Plan((StoragePlan("a", "float64", ((4,),)),), launches)
    ready = Kernels(plan, LockCheck()).prepare({}, {})
    insert(table, known_call(None, [], [], ready, [Returned("a")]))
    assert (entries.executable(table, (), None) is not MISSED) == is_released


def test_a_call_may_vanish_while_it_runs(entries: Entries, table: list[Known | None]) -> None:
    """The table loses the call from inside its own kernel."""
    double = doubling()

    def run(*arguments: int) -> int:
        table[:] = [None] * len(table)
        return double(*arguments)

    insert(table, known([("f", "x", "a")], ["a"], "a", f=run))
    x = np.arange(4.0)
    np.testing.assert_array_equal(entries.executable(table, (x,), None), 2 * x)
    assert entries.executable(table, (x,), None) is MISSED


def test_keys_options_and_the_context(entries: Entries, table: list[Known | None]) -> None:
    """A spec is found by its text; other options, and another mode, are missed."""
    x = np.arange(4.0)
    insert(table, known([("f", "x", "a")], ["a"], "a", key="i->i", f=doubling()))
    again = "".join(["i", "->", "i"])
    for spec in ("i->i", again):
        np.testing.assert_array_equal(entries.einsum((spec, x), None, None, "K"), 2 * x)

    class Text(str):
        pass

    missed: list[tuple[Any, ...]] = [
        (("i->", x), None, None, "K"),
        ((Text("i->i"), x), None, None, "K"),
        ((b"i->i", x), None, None, "K"),
        (("i->i", x, x), None, None, "K"),
        (("i->i",), None, None, "K"),
        ((), None, None, "K"),
        (("i->i", x), None, None, "C"),
        (("i->i", x), None, None),
        (("i->i", x), None, None, "K", None),
        (("i->i", [0.0] * 4), None, None, "K"),
        (("i->i", x), x, None, "K"),
        (("i->i", x), 1, None, "K"),
        (("i->i", *[x] * MOST_TENSORS), None, None, "K"),
    ]
    for arguments in missed:
        assert entries.einsum(*arguments) is MISSED
    token = MODE.set("other")
    assert entries.einsum(("i->i", x), None, None, "K") is MISSED
    MODE.reset(token)
    assert entries.einsum(("i->i", x), None, None, "K") is not MISSED
    assert entries.executable(table, (x,), None) is MISSED, "the key is part of the call"
    assert entries.executable(table, (x,)) is MISSED


@pytest.mark.parametrize(
    ("key", "operands"),
    [
        ("j->j", [np.zeros(4)]),
        (None, [np.zeros(4)]),
        ("i->i", [np.zeros(4, np.int64)]),
        ("i->i", [np.zeros(5)]),
        ("i->i", [np.zeros(8)[::2]]),
        ("i->i", [np.zeros((4, 1))]),
        ("i->i", [np.zeros(())]),
        ("i->i", [np.zeros(4), np.zeros(4)]),
    ],
)
def test_equal_hashes_do_not_suffice(
    key: str | None, operands: list[Array], entries: Entries, table: list[Known | None]
) -> None:
    """Another call, under the hash of which the known one is made to stand."""
    call = known([("f", "x", "a")], ["a"], "a", key="i->i", f=doubling())
    place = HEAD.index("hash")
    call[0][place] = np.uint64(hash_of(key, operands)).astype(np.int64)
    insert(table, call)
    if key is None:
        assert entries.executable(table, tuple(operands), None) is MISSED
    else:
        assert entries.einsum((key, *operands), None, None, "K") is MISSED
    call[0][place] = np.uint64(hash_of("i->i", [np.zeros(4)])).astype(np.int64)
    insert(table, call)
    assert entries.einsum(("i->i", np.zeros(4)), None, None, "K") is not MISSED


def test_the_number_of_operands_counts(entries: Entries, table: list[Known | None]) -> None:
    call = known([("f", "x", "a")], ["a"], "a", f=doubling())
    for operands in ((), (np.zeros(4), np.zeros(4))):
        call[0][HEAD.index("hash")] = np.uint64(hash_of(None, operands)).astype(np.int64)
        insert(table, call)
        assert entries.executable(table, operands, None) is MISSED


def test_a_full_table(entries: Entries) -> None:
    """Calls drive out others in their slots; one that was put in last is found."""
    small = new_table(PROBES)
    for extent in range(3 * PROBES):
        x = np.arange(float(extent))
        ready = Kernels(Plan((StoragePlan("a", "float64", ((0,),)),), ()), Callbacks()).prepare(
            {"x": x}, {}
        )
        insert(small, known_call(None, [x], [7], ready, [Returned("a")]))
        assert entries.executable(small, (x,), None).shape == (0,)
    assert None not in small


def test_what_cannot_be_known() -> None:
    ready = prepared([("f", "x", "a")], ["a"], 1, f=doubling())
    assert can_be_known(ready, [Returned("a")], True)
    assert not can_be_known(ready, [Returned("x")], False)
    assert not can_be_known(ready, [Returned("a"), Returned("a")], False)
    assert not can_be_known(ready, [Returned("a", as_scalar=True)], False)
    many = [f"s{k}" for k in range(MOST_TENSORS)]
    assert not can_be_known(prepared([("f", "x", "s1")], many, 1, f=doubling()), [], False)


def test_hashes_tell_operands_apart() -> None:
    x = np.zeros((4, 6))
    hashes = [
        hash_of(None, [x]), hash_of("ij", [x]), hash_of(None, [x.T]), hash_of(None, [x[::2]]),
        hash_of(None, [x[:2]]), hash_of(None, [x.astype(np.float32)]), hash_of(None, [x, x]),
        hash_of(None, [x[:, :, None]]),
    ]  # fmt: skip
    assert len(set(hashes)) == len(hashes)
