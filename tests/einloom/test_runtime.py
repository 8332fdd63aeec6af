"""The runtime contract: threads, forks, shapes, pickling, failures that leave nothing behind."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import einloom as el
import einloom.kernels as kernels

MATMUL = (
    "program matmul(A: f32[i=I, j=J], B: f32[j=J, k=K]) -> (C) {\n"
    "  C[i, k] = A[i, j] * B[j, k]\n}\n"
)
SOFTMAX = (
    "program softmax(X: f32[p=P, m=M]) -> (Y) {\n"
    "  G[p] = max[m] X[p, m]\n  N[p, m] = exp(X[p, m] - G[p])\n"
    "  D[p] = sum[m] N[p, m]\n  Y[p, m] = N[p, m] / D[p]\n}\n"
)
GATHER = "program gather(X: f32[v=V], I: i64[t=T]) -> (Y) {\n  Y[t] = X[I[t]]\n}\n"


def random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("text", [MATMUL, SOFTMAX])
def test_results_are_bitwise_equal_over_thread_counts(text: str) -> None:
    exe = el.compile(text)
    operands = [random(301, 303) for _ in exe.inputs]
    if len(operands) == 2:
        operands[1] = random(303, 517)
    with el.options(threads=1):
        alone = exe(*operands)
    for threads in (2, 3, 8):
        with el.options(threads=threads):
            assert exe(*operands).tobytes() == alone.tobytes()


def test_a_thousand_shapes_take_few_compilations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINLOOM_CACHE", "0")
    el.cache_clear()
    count = 0
    lower = kernels.lowered

    def counted(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        return lower(*arguments)

    monkeypatch.setattr(kernels, "lowered", counted)
    exe = el.compile(MATMUL)
    rng = np.random.default_rng(1)
    for _ in range(1000):
        i, j, k = rng.integers(0, 12, 3)
        a, b = random(i, j), random(j, k)
        np.testing.assert_allclose(exe(a, b), a @ b, rtol=1e-4, atol=1e-5)
    assert 1 <= count <= 3


def test_many_threads_compile_one_program_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINLOOM_CACHE", "0")
    el.cache_clear()
    calls: list[int] = []
    lower = kernels.lowered

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return lower(*arguments)

    monkeypatch.setattr(kernels, "lowered", counted)
    exe = el.compile(SOFTMAX)
    x = random(64, 64)
    with ThreadPoolExecutor(64) as pool:
        results = list(pool.map(lambda _: exe(x), range(64)))
    assert len(calls) == 1
    assert all(r.tobytes() == results[0].tobytes() for r in results)


def test_a_fork_can_go_on_computing() -> None:
    exe = el.compile(MATMUL)
    a = random(300, 300)
    with el.options(threads=2):
        expected = exe(a, a)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with el.options(threads=2):
                status = 0 if exe(a, a).tobytes() == expected.tobytes() else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_executables_and_modules_pickle() -> None:
    exe = el.compile(SOFTMAX)
    again = pickle.loads(pickle.dumps(exe))
    x = random(5, 9)
    assert again(x).tobytes() == exe(x).tobytes()
    module = el.parse(SOFTMAX)
    assert pickle.loads(pickle.dumps(module)) == module


def test_out_is_untouched_when_a_call_fails() -> None:
    exe = el.compile(GATHER)
    out = np.full(2, 7, np.float32)
    with pytest.raises(el.RangeError) as raised:
        exe(random(4), np.array([1, 4]), out=out)
    assert "index I[t] of X is 4, rank 0 has extent 4" in str(raised.value)
    assert out.tolist() == [7, 7]
    with pytest.raises(el.ShapeError):
        exe(random(4), np.array([1, 2, 3]), out=out)
    assert out.tolist() == [7, 7]
    assert exe(random(4), np.array([1, 2]), out=out) is out


def test_operands_may_be_read_only_and_overlap() -> None:
    whole = random(40)
    whole.setflags(write=False)
    exe = el.compile("program add(A: f32[i=N], B: f32[i=N]) -> (C) {\n  C[i] = A[i] + B[i]\n}\n")
    np.testing.assert_array_equal(exe(whole[:30], whole[10:]), whole[:30] + whole[10:])


def test_encrypted_tensors_are_refused() -> None:
    with pytest.raises(el.UnsupportedError, match="X is encrypted"):
        el.compile("program p(X: f32[i=N] enc) -> (Y) {\n  Y[i] = X[i] + X[i]\n}\n")


def test_more_than_two_to_the_31_elements() -> None:
    pages, page = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    if pages * page < 6 << 30:
        pytest.skip("needs 6 GiB of free memory")
    count = (1 << 31) + 5
    x = np.zeros(count, np.uint8)
    x[-1] = x[count // 2] = 1
    exe = el.compile(
        "program p(X: u8[i=N]) -> (S, P) {\n  S[] = sum[i] X[i]\n"
        "  (V, P)[] = argmax[i] (X[i], select(X[i] == 1, iota(i), 0))\n}\n"
    )
    results = exe.run({"X": x})
    assert results["S"] == 2
    assert results["P"] == count // 2
