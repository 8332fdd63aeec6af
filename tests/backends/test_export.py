"""Shared libraries of programs compute what NumPy computes, in a process without Einloom."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.backends.cpu.export.linking import find_linker
from einloom.backends.cpu.export.processors import host_architecture
from einloom.ir.errors import BackendError
from tests.backends.exported import Call, Tensor, exported, results, run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def linker_missing() -> str | None:
    try:
        find_linker(host_architecture())
    except BackendError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(linker_missing() is not None, reason=str(linker_missing()))
RANDOM = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return RANDOM.standard_normal(shape, np.float32)


def test_an_einsum(tmp_path: Path) -> None:
    a, b = floats(37, 65), floats(65, 29)
    library = exported(tmp_path, "ij,jk->ik", a, b)
    call = Call(library, "einsum", {"x0": a, "x1": b, "result": np.zeros((37, 29), np.float32)})
    (found,) = results(tmp_path, call, ["result"])
    np.testing.assert_allclose(found, a.astype(float) @ b, rtol=1e-4, atol=1e-4)


def test_attention(tmp_path: Path) -> None:
    q, k, v = floats(8, 256, 64), floats(8, 1024, 64), floats(8, 1024, 64)
    library = exported(tmp_path, EXAMPLES / "attention.ein")
    members = {"Q": q, "K": k, "V": v, "AV": np.zeros((8, 256, 64), np.float32)}
    calls = [Call(library, "attention", members, threads=t) for t in (0, 1, 2, 3, 100)]
    answers = run(tmp_path, *calls)
    assert [answer.code for answer in answers] == [0] * 5
    scores = np.einsum("hpe,hme->hpm", q.astype(float), k)
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    expected = np.einsum("hpm,hmf->hpf", weights / weights.sum(axis=2, keepdims=True), v)
    np.testing.assert_allclose(answers[0].arrays["AV"], expected, rtol=1e-3, atol=1e-5)
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer.arrays["AV"], answers[0].arrays["AV"])


def test_a_scan_over_symbols(tmp_path: Path) -> None:
    library = exported(tmp_path, EXAMPLES / "rnn.ein")
    calls, expected = [], []
    for t, b, d, h in ((9, 4, 5, 6), (1, 1, 1, 1), (0, 2, 3, 2), (3, 0, 2, 2)):
        x, state, wx, wh, a = floats(t, b, d), floats(b, h), floats(d, h), floats(h, h), floats(h)
        members = {"X": x, "H0": state, "WX": wx, "WH": wh, "A": a}
        zeros = {"Y": np.zeros((t, b, h), np.float32), "L": np.zeros((b, h), np.float32)}
        calls.append(Call(library, "rnn", {**members, **zeros}))
        states = [state.astype(float)]
        for step in x:
            states.append(np.tanh(step @ wx / d + states[-1] @ wh / h + a))
        expected.append((np.array(states[1:]).reshape(t, b, h), states[-1]))
    for answer, (y, last) in zip(run(tmp_path, *calls), expected, strict=True):
        assert answer.code == 0
        np.testing.assert_allclose(answer.arrays["Y"], y, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(answer.arrays["L"], last, rtol=1e-4, atol=1e-5)


def test_a_scan_that_stops_early(tmp_path: Path) -> None:
    w = RANDOM.integers(1, 100, (25, 25)).astype(np.uint16)
    w[RANDOM.random((25, 25)) < 0.85] = 0
    library = exported(tmp_path, EXAMPLES / "shortest_paths.ein")
    call = Call(library, "shortest_paths", {"W": w, "S": np.zeros((25, 25))})
    (found,) = results(tmp_path, call, ["S"])
    expected = np.where(w == 0, np.inf, w.astype(float))
    np.fill_diagonal(expected, 0.0)
    for k in range(25):
        expected = np.minimum(expected, expected[:, k : k + 1] + expected[k : k + 1, :])
    np.testing.assert_array_equal(found, expected)


def test_integers_wrap_and_divide_as_in_numpy(tmp_path: Path) -> None:
    program = """program integers(A: i64[i=N, j=M], B: i64[j=M]) -> (S, Q) {
      S[i] = sum[j] A[i, j] * B[j]
      Q[i, j] = A[i, j] // B[j]
    }"""
    a = RANDOM.integers(-(2**62), 2**62, (11, 7))
    b = RANDOM.integers(1, 2**40, 7) * np.array([1, -1, 1, -1, 1, 1, -1])
    zeros = {"S": np.zeros(11, np.int64), "Q": np.zeros((11, 7), np.int64)}
    call = Call(exported(tmp_path, program), "integers", {"A": a, "B": b, **zeros})
    s, q = results(tmp_path, call, ["S", "Q"])
    np.testing.assert_array_equal(s, a @ b)
    np.testing.assert_array_equal(q, a // b)


def test_an_index_out_of_range(tmp_path: Path) -> None:
    program = """program gather(T: f32[v=V, d=D], I: i32[n=N]) -> (Y) {
      Y[n, d] = T[I[n], d]
    }"""
    library = exported(tmp_path, program)
    table, y = floats(9, 5), np.zeros((3, 5), np.float32)
    good, high, low = (np.array(i, np.int32) for i in ([8, 0, 3], [1, 9, 2], [1, 2, -4]))
    calls = [Call(library, "gather", {"T": table, "I": i, "Y": y}) for i in (good, high, low)]
    answers = run(tmp_path, *calls)
    np.testing.assert_array_equal(answers[0].arrays["Y"], table[good])
    assert [answer.code for answer in answers] == [0, 1000, 1000]
    assert [answer.fault for answer in answers] == [(-7, -7), (9, 9), (-4, 9)]
    assert answers[1].message == "<text>:2:17: index I[n] of T is outside rank 0"


def test_faults_of_threads_are_those_of_the_lowest_slice(tmp_path: Path) -> None:
    program = """program gather(T: f32[v=V], I: i64[n=N, d=D]) -> (Y) {
      Y[n] = sum[d] T[I[n, d]]
    }"""
    indices = RANDOM.integers(0, 50, (64, 20_000))
    members = {"T": floats(50), "I": indices, "Y": np.zeros(64, np.float32)}
    bad = indices.copy()
    bad[5, 19_999], bad[63, 0] = 77, 88
    library = exported(tmp_path, program)
    calls = [Call(library, "gather", members, threads=4), Call(library, "gather", members)]
    calls += [Call(library, "gather", {**members, "I": bad}, threads=t) for t in (1, 2, 4, 64)]
    answers = run(tmp_path, *calls)
    assert [answer.code for answer in answers] == [0, 0, 1000, 1000, 1000, 1000]
    np.testing.assert_array_equal(answers[0].arrays["Y"], answers[1].arrays["Y"])
    assert [answer.fault for answer in answers[2:]] == [(77, 50)] * 4


@pytest.mark.parametrize("row", [0, 31, 32, 47, 63])
def test_a_fault_of_any_one_slice_is_told(row: int, tmp_path: Path) -> None:
    """The last slice's, too, after which nothing more is joined."""
    program = """program gather(T: f32[v=V], I: i64[n=N, d=D]) -> (Y) {
      Y[n] = sum[d] T[I[n, d]]
    }"""
    indices = np.zeros((64, 20_000), np.int64)
    indices[row, 7] = -3
    members = {"T": floats(50), "I": indices, "Y": np.zeros(64, np.float32)}
    library = exported(tmp_path, program)
    answers = run(tmp_path, *(Call(library, "gather", members, threads=t) for t in (1, 2, 3, 4)))
    assert [(answer.code, answer.fault) for answer in answers] == [(1000, (-3, 50))] * 4


def test_strides(tmp_path: Path) -> None:
    """Rows apart, a broadcast rank, a negative stride, and a result with gaps."""
    library = exported(tmp_path, "ij,jk->ik", floats(2, 2), floats(2, 2))
    wide, b, gaps = floats(5, 12), floats(7, 3), np.full((5, 10), -1, np.float32)
    members = {
        "x0": Tensor(wide, (5, 7), (12, 1)),
        "x1": Tensor(b, (7, 3), (-3, 1), offset=6 * 3 * 4),
        "result": Tensor(gaps, (5, 3), (10, 1)),
    }
    same = {**members, "x0": Tensor(wide, (5, 7), (0, 1))}
    first, second = run(tmp_path, Call(library, "einsum", members), Call(library, "einsum", same))
    assert (first.code, second.code) == (0, 0)
    product = wide[:, :7].astype(float) @ b[::-1]
    np.testing.assert_allclose(first.arrays["result"][:, :3], product, rtol=1e-4, atol=1e-5)
    assert (first.arrays["result"][:, 3:] == -1).all()
    rows = second.arrays["result"][:, :3]
    np.testing.assert_allclose(rows, np.broadcast_to(product[0], (5, 3)), rtol=1e-4, atol=1e-5)


def test_constants_and_results_that_no_kernel_computes(tmp_path: Path) -> None:
    program = """program passed(X: f32[i=N, j=M], K: extent) -> (X, C, Y, Z) {
      const C: i16[k=3] = [7, -8, 9]
      Y[i, k] = X[i, k] * C[k]
      Z: f32 = K * 2.0
    }"""
    x = floats(4, 3)
    zeros: dict[str, Any] = {
        "X_result": np.zeros((4, 3), np.float32),
        "C": np.zeros(3, np.int16),
        "Y": np.zeros((4, 3), np.float32),
        "Z": np.zeros((), np.float32),
    }
    call = Call(exported(tmp_path, program), "passed", {"X": x, "K": 21, **zeros})
    same, c, y, z = results(tmp_path, call, list(zeros))
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(c, [7, -8, 9])
    np.testing.assert_array_equal(y, x * np.array([7, -8, 9], np.float32))
    assert z == 42.0


@pytest.mark.parametrize("dtype", ["bool", "u8", "i16", "f16", "f32", "f64", "c64", "c128"])
def test_dtypes(dtype: str, tmp_path: Path) -> None:
    program = f"program same(A: {dtype}[i=N], B: {dtype}[i=N]) -> (S) {{ S[i] = A[i] + B[i] }}"
    numpy = {"bool": "bool", "u8": "u1", "i16": "i2", "f16": "f2"}.get(dtype)
    numpy = numpy or {"f32": "f4", "f64": "f8", "c64": "c8", "c128": "c16"}[dtype]
    a, b = (RANDOM.integers(0, 90, (2, 33))).astype(numpy)
    if np.dtype(numpy).kind == "c":
        a += np.asarray(1j * RANDOM.integers(0, 9, 33)).astype(numpy)
    members = {"A": a, "B": b, "S": np.zeros(33, numpy)}
    (found,) = results(tmp_path, Call(exported(tmp_path, program), "same", members), ["S"])
    np.testing.assert_array_equal(found, a + b)


def test_tuples_and_residues(tmp_path: Path) -> None:
    program = """program best(A: f32[i=N], B: zq<1000003>[i=N]) -> (P, Q) {
      P: (f32, i64)[i=N] = (A[i] * 2.0, iota(i))
      Q = sum[i] B[i] * B[i]
    }"""
    a, b = floats(13), RANDOM.integers(0, 1_000_003, 13).astype(np.uint64)
    zeros: dict[str, Any] = {"P": np.zeros(13, "f4,i8"), "Q": np.zeros((), np.uint64)}
    call = Call(exported(tmp_path, program), "best", {"A": a, "B": b, **zeros})
    p, q = results(tmp_path, call, ["P", "Q"])
    np.testing.assert_array_equal(p["f0"], a * 2)
    np.testing.assert_array_equal(p["f1"], np.arange(13))
    assert int(q) == sum(int(x) ** 2 for x in b) % 1_000_003


@pytest.mark.parametrize("cpu", ["x86-64", "x86-64-v2", "x86-64-v3", "native"])
def test_processors(cpu: str, tmp_path: Path) -> None:
    if host_architecture() != "x86-64":
        pytest.skip("the processors are those of x86-64")
    program = "program e(A: f16[i=N]) -> (B, C) { B: f32[i=N] = exp(A[i])\nC[i] = A[i] * A[i] }"
    a = floats(100).astype(np.float16)
    zeros: dict[str, Any] = {"B": np.zeros(100, np.float32), "C": np.zeros(100, np.float16)}
    call = Call(exported(tmp_path, program, cpu=cpu), "e", {"A": a, **zeros})
    b, c = results(tmp_path, call, ["B", "C"])
    np.testing.assert_allclose(b, np.exp(a.astype(float)), rtol=1e-6)
    np.testing.assert_array_equal(c, a * a)


@pytest.mark.parametrize("program", ["attention.ein", "rnn.ein", "conv.ein"])
def test_only_the_documented_symbols_are_exported(program: str, tmp_path: Path) -> None:
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    library = exported(tmp_path, EXAMPLES / program)
    name = program.removesuffix(".ein")
    command = ["nm", "-D", "--defined-only", "--format=posix", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        [name, "T"],
        [f"{name}_message", "T"],
    ]


def test_a_library_is_the_same_every_time(tmp_path: Path) -> None:
    executable = el.compile(EXAMPLES / "conv.ein")
    first = executable.export(tmp_path / "one" / "lib.so")
    second = executable.export(tmp_path / "two" / "lib.so")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert sorted(os.listdir(tmp_path / "one")) == ["lib.h", "lib.so"]
