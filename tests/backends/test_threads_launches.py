"""Launches that are shared out: results and faults by machine code as by Python code."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.backends.cpu.launcher import SLICE_WORK, IndexFault, Kernels, Prepared
from einloom.backends.cpu.plan import BufferPlan, LaunchPlan, Plan, StoragePlan
from einloom.backends.cpu.threads import ThreadPool, plan_slices
from einloom.ir.errors import BackendError, UnsupportedError
from tests.backends.shared_kernels import adding, new_pool
from tests.backends.test_threads_fork import run_script

Array = np.ndarray[Any, Any]
CELLS = 100


def no_code() -> bytes:
    raise UnsupportedError("no machine code")


@pytest.fixture(params=["machine code", "python"])
def pool(request: pytest.FixtureRequest) -> Iterator[ThreadPool]:
    if request.param == "machine code":
        with new_pool() as pool:
            yield pool
            assert pool._crew.board is not None
    else:
        pool = ThreadPool(board_code=no_code)
        yield pool
        assert pool._crew.board is None
        pool.close()


class Adding:
    """The library of one kernel, under the name `f`."""

    def __init__(self) -> None:
        self.function: Any = adding()

    def entry(self, name: str) -> int:
        return int(self.function.library.entry("adding"))


def prepared(number: int, limit: int, slices: int = 4) -> Prepared:
    """One launch that adds to the cells of `y`, whose slices from `limit` on fail."""
    plan = Plan(
        (StoragePlan("y", "int64", ((CELLS,),)),),
        (
            LaunchPlan(
                "f", (BufferPlan("y", None),), ((number,), (limit,)), (CELLS,),
                (slices * SLICE_WORK,), tuple(f"{k}: {{value}} {{limit}}" for k in range(1, 101)),
            ),
        ),
    )  # fmt: skip
    return Kernels(plan, Adding()).prepare({}, {})


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7])
def test_results(pool: ThreadPool, threads: int) -> None:
    launch = prepared(5, 1 << 40)
    y = np.zeros(CELLS, np.int64)
    for repeat in range(1, 4):
        launch.run([y], pool, threads)
        assert (y == 5 * repeat).all()
    assert pool._crew.workers == min(threads, 4) - 1


def test_slices_follow_the_number_of_threads_of_each_run(pool: ThreadPool) -> None:
    """The failing slice tells where slices begin and end."""
    launch = prepared(1, 1)
    y = np.zeros(CELLS, np.int64)
    for threads in (2, 4, 3, 2):
        begin, end = plan_slices(CELLS, threads, CELLS // 4)[1]
        with pytest.raises(IndexFault) as caught:
            launch.run([y], pool, threads)
        assert (caught.value.function, caught.value.number) == ("f", end)
        assert (caught.value.value, caught.value.limit) == (begin, end)
        assert str(caught.value) == f"{end}: {begin} {end}"


def test_a_kernel_out_of_memory(pool: ThreadPool) -> None:
    launch = prepared(1, 0)
    (call,) = launch.calls
    object.__setattr__(call, "function", type(call.function)(lambda *arguments: -1))
    with pytest.raises(BackendError, match=r"^out of memory for a kernel's workspace$"):
        launch.run([np.zeros(CELLS, np.int64)], pool, 2)


@pytest.mark.parametrize("spec", ["ij,jk->ik", "ij->i", "ij->ji", "ij,ij->ij"])
def test_results_do_not_depend_on_threads_or_on_how_they_share(pool: ThreadPool, spec: str) -> None:
    generator = np.random.default_rng(3)
    arrays = [generator.standard_normal((600, 600)) for _ in range(1 + spec.count(","))]
    executable = el.compile(spec, *arrays)
    tensors, symbols = executable.tensors(dict(zip(executable.inputs, arrays, strict=True)))
    found = []
    for threads in (1, 2, 3, 5):
        ready = executable.prepared(tensors, symbols)
        assert all(call.is_wide for call in ready.calls)
        storages = ready.allocate()
        for _ in range(3):
            ready.run([*(tensors[name] for name in ready.inputs), *storages], pool, threads)
            found.append([storage.tobytes() for storage in storages])
    assert all(one == found[0] for one in found)
    expected = np.einsum(spec, *arrays)
    (result,) = (s for s in storages if s.shape == expected.shape)
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)


WITH_ONE_THREAD = """
import threading
import numpy as np, einloom as el
a = np.ones((400, 400))
for _ in range(30):
    el.einsum("ij,jk->ik", a, a)
executable = el.compile("ij,jk->ik", a, a)
for _ in range(30):
    executable(a, a)
print(len(threading.enumerate()))
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_one_thread_never_starts_another(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINLOOM_NUM_THREADS", str(threads))
    assert run_script(WITH_ONE_THREAD) == f"{threads}\n"


FROM_THE_DISK = """
import sys
import numpy as np, einloom as el
from einloom.backends.cpu.threads import shared_pool
from einloom.kernels import kernel_pool
kernel_pool()._load()
print(shared_pool()._crew.board is not None, "llvmlite" in sys.modules)
"""


def test_machine_code_for_sharing_is_kept_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EINLOOM_CACHE", "1")
    monkeypatch.setenv("EINLOOM_CACHE_DIR", str(tmp_path))
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("other systems load with LLVM")
    assert run_script(FROM_THE_DISK) == "True True\n"
    assert run_script(FROM_THE_DISK) == "True False\n"
