"""What calls of `einsum` keep, and what they compile: the runtime contract."""

from __future__ import annotations

import ctypes
import gc
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.backends.cpu import compile as cpu
from einloom.cache import memory_cache, plan_cache
from einloom.calls import variants
from einloom.calls.plan import KernelPlan

Array = np.ndarray[Any, Any]


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A list that grows by one with every program compiled; caches start empty."""
    monkeypatch.setenv("EINLOOM_CACHE", "0")
    memory_cache().clear()
    plan_cache().clear()
    done: list[int] = []
    original = cpu.compile_payload

    def counted(program: Any) -> bytes:
        done.append(len(done))
        return original(program)

    monkeypatch.setattr(cpu, "compile_payload", counted)
    yield done
    memory_cache().clear()
    plan_cache().clear()


def distinct_shapes(
    spec: str, count: int, largest: int, ones: bool
) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Shapes that fit a spec, no two alike; with `ones`, labels are stretched here and there."""
    source = random.Random(4)
    terms = spec.partition("->")[0].split(",")
    letters = sorted(set("".join(terms)))
    seen: set[tuple[tuple[int, ...], ...]] = set()
    while len(seen) < count:
        sizes = {letter: source.randint(1 if ones else 2, largest) for letter in letters}
        shapes = tuple(
            tuple(1 if ones and source.random() < 0.2 else sizes[x] for x in term) for term in terms
        )
        if shapes not in seen:
            seen.add(shapes)
            yield shapes


@pytest.mark.parametrize(
    ("spec", "largest", "ones"),
    [
        ("ij,jk->ik", 40, False),
        ("ij,jk->ik", 40, True),
        ("ij,ij->ij", 40, True),
        ("bij,bjk->bik", 12, True),
        ("ij,jk,kl->il", 60, False),
        ("ij,jk,kl->il", 15, True),
        ("ijk,jl,km->ilm", 9, True),
    ],
)
def test_a_thousand_shapes_in_three_compilations(
    spec: str, largest: int, ones: bool, compilations: list[int]
) -> None:
    """Kernels take extents at run time; the path of three operands depends on sizes."""
    source = np.random.default_rng(0)
    for number, shapes in enumerate(distinct_shapes(spec, 1000, largest, ones)):
        operands = [source.standard_normal(shape) for shape in shapes]
        result = el.einsum(spec, *operands)
        if number % 40 == 0:
            np.testing.assert_allclose(result, np.einsum(spec, *operands), rtol=1e-9, atol=1e-9)
    assert 1 <= len(compilations) <= 3


def test_paths_follow_sizes(compilations: list[int]) -> None:
    """A chain is multiplied from the cheaper end, by a program of its own for either end."""
    small, big = np.ones((2, 400)), np.ones((400, 400))
    for _ in range(2):
        el.einsum("ij,jk,kl->il", small, big, big)
        el.einsum("ij,jk,kl->il", big, big, np.ones((400, 2)))
    assert len(compilations) == 2


def test_the_best_of_three_programs_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once three exist, the cost model chooses among them for the sizes of the call."""
    memory_cache().clear()
    plan_cache().clear()
    families: list[variants.Family] = []
    original = variants.Family.variant

    def watched(self: variants.Family, *arguments: Any) -> variants.Variant:
        families.append(self)
        return original(self, *arguments)

    monkeypatch.setattr(variants.Family, "variant", watched)
    monkeypatch.setattr(variants, "MOST_VARIANTS", 2)
    small, big = np.ones((2, 300)), np.ones((300, 300))
    el.einsum("ij,jk,kl->il", small, big, big)
    el.einsum("ij,jk,kl->il", big, big, np.ones((300, 2)))
    (family,) = set(families)
    first, second = family._variants
    labels = family.key.spec.labels

    def chosen(*sizes: int) -> variants.Variant:
        return family.variant(dict(zip(labels, sizes, strict=True)), first.layouts)

    assert chosen(3, 500, 500, 500) is first
    assert chosen(500, 500, 500, 3) is second


def test_letters_do_not_matter(compilations: list[int]) -> None:
    """The same contraction in other letters, names or lists shares its machine code."""
    a, b = np.ones((3, 4)), np.ones((4, 5))
    el.einsum("ij,jk->ik", a, b)
    el.einsum("ab,bc->ac", a, b)
    el.einsum("row inner, inner col -> row col", a, b)
    el.einsum(a, [0, 1], b, [1, 2], [0, 2])
    assert len(compilations) == 1


def test_repeated_calls_build_nothing() -> None:
    """A call of known shapes is a look-up: neither cache misses anything."""
    a, b = np.ones((3, 4)), np.ones((4, 5))
    calls: list[Callable[[], Any]] = [
        lambda: el.einsum("ij,jk->ik", a, b),
        lambda: el.einsum(a, [0, 1], b, [1, 2]),
        lambda: el.einsum("ij,jk->ik", a, b, out=np.empty((3, 5))),
        lambda: el.einsum("ij,jk->ik", a, b, semiring=el.define_semiring("min", "+")),
        lambda: el.einsum("ij->ji", a),
    ]
    for call in calls:
        call()
    before = memory_cache().misses, plan_cache().misses
    for call in calls:
        call()
    assert (memory_cache().misses, plan_cache().misses) == before


def test_options_that_do_not_hash() -> None:
    """A path is a list; it is read anew in every call."""
    a = np.ones((3, 3))
    for _ in range(3):
        result = el.einsum("ij,jk,kl->il", a, a, a, optimize=["einsum_path", (0, 1), (0, 1)])
        np.testing.assert_array_equal(result, np.full((3, 3), 9.0))


def test_plans_keep_no_arrays() -> None:
    """Keys and plans hold dtypes, shapes and strides only."""
    for spec in ("ij,kj->ik", "ij,ij->", "ij,kj->ikj"):
        operands = [np.ones((17, 3)), np.ones((17, 3))]
        out = np.empty(np.einsum(spec, *operands).shape)
        el.einsum(spec, *operands)
        el.einsum(spec, *operands, out=out)
        watched = [weakref.ref(array) for array in (*operands, out)]
        del operands, out
        gc.collect()
        assert [reference() for reference in watched] == [None] * 3


def test_cleared_caches_are_filled_again() -> None:
    a = np.ones(5)
    assert el.einsum("i,i->", a, a) == 5
    memory_cache().clear()
    plan_cache().clear()
    assert el.einsum("i,i->", a, a) == 5
    assert len(plan_cache()) > 0


def test_many_threads_compile_once(compilations: list[int]) -> None:
    """Threads that call one spec at once wait for one compilation, and all get the result."""
    a, b = np.arange(12.0).reshape(3, 4), np.ones((4, 5))
    results: list[Array] = []
    gate = threading.Barrier(16)

    def call() -> None:
        gate.wait()
        results.append(el.einsum("ij,jk->ik", a, b))

    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 16
    for result in results:
        np.testing.assert_array_equal(result, a @ b)
    assert len(compilations) == 1


def test_threads_do_not_change_bits() -> None:
    """One and two threads give the same bits."""
    source = np.random.default_rng(1)
    a, b = source.standard_normal((300, 200)), source.standard_normal((200, 300))
    for spec in ("ij,jk->ik", "ij,jk->i", "ij,ji->", "ij,jk->ki"):
        with el.options(threads=1):
            one = el.einsum(spec, a, b)
        with el.options(threads=2):
            two = el.einsum(spec, a, b)
        np.testing.assert_array_equal(one, two)


def test_strict_has_plans_of_its_own() -> None:
    """Inside `strict`, the order of a sum is the written one: no parts, no reassociation."""
    terms = np.array([1e16] + [1.0] * 9999)
    with el.options(strict=True):
        assert el.einsum("i->", terms) == 1e16
    assert el.einsum("i->", terms) > 1e16


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (-1, el.BackendError, "out of memory for a kernel's workspace"),
        (2, el.RangeError, "index i of X is 7, rank 0 has extent 5"),
    ],
)
def test_what_stopped_a_single_kernel_is_said(
    status: int, kind: type[el.EinloomError], message: str
) -> None:
    """The short way reports a failed check as the long one does, not as missing memory."""

    def kernel(table: Any, parameters: Any, begin: int, end: int, fault: Any) -> int:
        fault[0], fault[1] = 7, 5
        return status

    faults = ("no such", "index i of X is {value}, rank 0 has extent {limit}")
    call = SimpleNamespace(
        name="k0", function=kernel, offsets=((0, 0),), parameters=(ctypes.c_int64 * 1)(),
        slices=1, sliced=False, is_wide=False, work=1, faults=faults,
    )  # fmt: skip
    storage = SimpleNamespace(name="Y", shape=(), dtype=np.dtype(np.float64))
    prepared: Any = SimpleNamespace(calls=[call], storages=[storage])
    plan = KernelPlan(prepared, (), (), "Y", {}, None)
    assert plan.function is kernel
    with pytest.raises(kind) as caught:
        plan.run([], None)
    assert str(caught.value) == message


def test_when_there_are_enough_forms_the_one_that_cuts_alike_runs(
    compilations: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    families: list[variants.Family] = []
    original = variants.Family.variant

    def watched(self: variants.Family, *arguments: Any) -> variants.Variant:
        families.append(self)
        return original(self, *arguments)

    monkeypatch.setattr(variants.Family, "variant", watched)
    for size in (4, 40, 96, 64, 48, 200):
        a = np.ones((size, size), np.float32)
        np.testing.assert_array_equal(el.einsum("ij,jk->ik", a, a), np.full_like(a, size))
    (family,) = set(families)
    assert len(family._variants) <= variants.MOST_VARIANTS
    plain, *packed = family._variants
    assert not plain.blockings and all(variant.blockings for variant in packed)
    labels = family.key.spec.labels
    for size in (500, 501, 768):
        extents = dict.fromkeys(labels, size)
        assert family.variant(extents, plain.layouts).blockings


def test_an_executable_compiles_few_forms_for_many_shapes(compilations: list[int]) -> None:
    exe = el.compile(
        el.parse(
            "program p(A: f32[i=I,j=J], B: f32[j=J,k=K], C: f32[k=K,l=L]) -> (Z) {\n"
            "  Y[i,k] = A[i,j] * B[j,k]\n  Z[i,l] = Y[i,k] * C[k,l]\n}"
        )
    )
    rng = np.random.default_rng(0)
    compilations.clear()
    for _ in range(40):
        i, j, k, length = rng.integers(1, 130, 4)
        a, b, c = (rng.integers(0, 3, s).astype(np.float32) for s in [(i, j), (j, k), (k, length)])
        np.testing.assert_array_equal(exe(a, b, c), a @ b @ c)
    assert len(compilations) <= 3
