"""Scans against plain Python loops; host functions and constants."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from einloom.ir.errors import (
    BackendError,
    DTypeError,
    EinloomError,
    ParseError,
    RangeError,
    ShapeError,
    UnsupportedError,
)
from einloom.ir.expressions import Literal
from einloom.ir.interpret import interpret
from einloom.ir.program import Constant, Module
from einloom.ir.text import parse
from einloom.ir.types import Rank, TensorType, bf16, f32

Array = Any


def run(text: str, cap: int = 2**30, **arrays: object) -> dict[str, Array]:
    return interpret(parse(text), arrays, memory_cap=cap)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


# ---- scans --------------------------------------------------------------------------------


def test_rnn() -> None:
    text = """program rnn(X: f64[t=T, i=I], W: f64[i=I, h=H], U: f64[g=H, h=H]) -> (S, L) {
      scan t < T from { S[0, h] = 0.0 } {
        A[h] = X[t, i] * W[i, h]
        B[h] = S[t, g] * U[g, h]
        S[t+1, h] = tanh(A[h] + B[h])
      }
      L[h] = final(S)[h] * 2
    }"""
    x, w, u = normal(6, 3), normal(3, 4, seed=1), normal(4, 4, seed=2)
    states = [np.zeros(4)]
    for t in range(6):
        states.append(np.tanh(x[t] @ w + states[-1] @ u))
    got = run(text, X=x, W=w, U=u)
    np.testing.assert_allclose(got["S"], states)
    np.testing.assert_allclose(got["L"], states[-1] * 2)


@pytest.mark.parametrize("length", [0, 1, 5])
def test_a_scan_downwards(length: int) -> None:
    text = """program horner(C: f64[t=T], X: f64[n=N]) -> (P, Y) {
      scan t < T down from { P[T, n] = 0.0 } { P[t, n] = P[t+1, n] * X[n] + C[t] }
      Y[n] = final(P)[n]
    }"""
    c, x = normal(length), normal(3, seed=1)
    got = run(text, C=c, X=x)
    np.testing.assert_allclose(got["Y"], np.polyval(c[::-1], x))
    assert got["P"].shape == (length + 1, 3)
    np.testing.assert_array_equal(got["P"][length], 0)


def test_edit_distance_as_a_wavefront() -> None:
    text = """program edit(a: i32[i=N], b: i32[j=M]) -> (R, D) {
      scan i < N from { D: i64[i=N+1, j=M+1][0, j] = iota(j) } {
        scan j < M from { D[i+1, 0] = iota(i) + 1 } {
          D[i+1, j+1] = min(D[i, j+1] + 1, D[i+1, j] + 1, D[i, j] + select(a[i] == b[j], 0, 1))
        }
      }
      R = final(D)[M]
    }"""
    random = np.random.default_rng(0)
    a, b = (random.integers(0, 3, n).astype(np.int32) for n in (9, 11))
    table = np.zeros((10, 12), int)
    table[0], table[:, 0] = np.arange(12), np.arange(10)
    for i, j in np.ndindex(9, 11):
        same = 0 if a[i] == b[j] else 1
        table[i + 1, j + 1] = min(table[i, j + 1] + 1, table[i + 1, j] + 1, table[i, j] + same)
    got = run(text, a=a, b=b)
    np.testing.assert_array_equal(got["D"], table)
    assert got["R"] == table[9, 11]


def test_an_inner_scan_starts_anew_in_every_iteration() -> None:
    text = """program p(X: i64[t=T, s=S]) -> (Y) {
      scan t < T from { Y[0] = 1 } {
        scan s < S from { Z[0] = Y[t] } { Z[s+1] = Z[s] * 2 + X[t, s] }
        Y[t+1] = final(Z) % 1000 + Y[t]
      }
    }"""
    x = np.arange(12).reshape(3, 4)
    y = [1]
    for t in range(3):
        z = y[-1]
        for s in range(4):
            z = z * 2 + int(x[t, s])
        y.append(z % 1000 + y[-1])
    assert run(text, X=x)["Y"].tolist() == y


def test_histories_are_read_far_back() -> None:
    text = """program p(N: extent) -> (F, G) {
      scan t < N from { F: i64[t=N+1][0] = 1 } {
        F[t+1] = F?(0)[t] + F?(0)[t-1]
      }
      scan t < N from { C: i64[t=N+1][0] = 1 } {
        C[t+1] = sum[k] C[k] * C[t-k] if k <= t
      }
      G = final(C)
    }"""
    got = run(text, N=12)
    assert got["F"].tolist() == [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233]
    assert got["G"] == 208012  # the Catalan number


def test_a_short_history_is_enough_for_a_short_memory() -> None:
    text = """program p(N: extent) -> (A, B) {
      scan t < N from { F: i64[t=N+1][0] = 1 } { F[t+1] = F?(0)[t-1] + F?(0)[t-3] + 1 }
      scan t < N down from { G: i64[t=N+1][N] = 1 } { G[t] = G?(0)[t+2] + G?(0)[t+4] + 1 }
      A = final(F)
      B = final(G)
    }"""
    f = [1]
    for t in range(20):
        f.append((f[t - 1] if t >= 1 else 0) + (f[t - 3] if t >= 3 else 0) + 1)
    got = run(text, N=20)
    assert got["A"] == got["B"] == f[-1]


def test_several_states_and_a_tuple() -> None:
    text = """program p(N: extent) -> (A, T) {
      scan t < N from { A[0] = 3
        (B, C)[0] = (1.5, 2) } {
        A[t+1] = A[t] + C[t]
        (B, C)[t+1] = (B[t] * 2, C[t] + 1)
      }
      T = (final(B), final(C))
    }"""
    got = run(text, N=4)
    assert got["A"].tolist() == [3, 5, 8, 12, 17]
    assert got["T"].tolist() == (24.0, 6)


UNTIL = """program closure(D: f64[i=N, j=N], T: extent) -> (R, S) {
  scan t < T from { W[0, i, j] = D[i, j]
    K[0] = 0 } {
    W[t+1, i, j] = min[k] W[t, i, k] + W[t, k, j]
    K[t+1] = K[t] + 1
    Same = all[i, j] W[t+1, i, j] == W[t, i, j]
  } until Same
  R[i, j] = final(W)[i, j]
  S = final(K)
}"""


@pytest.mark.parametrize("bound", [0, 1, 1000])
def test_until_a_fixed_point(bound: int) -> None:
    size = 12
    d = np.full((size, size), np.inf)
    np.fill_diagonal(d, 0)
    for k in range(size - 1):
        d[k, k + 1] = k + 1.0
    expected, steps = d, 0
    while steps < bound:
        following = (expected[:, :, None] + expected[None]).min(1)
        steps += 1
        if (following == expected).all():
            break
        expected = following
    got = run(UNTIL, D=d, T=bound)
    np.testing.assert_array_equal(got["R"], expected)
    assert got["S"] == steps
    assert steps == {0: 0, 1: 1, 1000: 5}[bound]


@pytest.mark.parametrize(
    ("outputs", "after"), [("S", ""), ("R", "R = S[2]"), ("R", "R = final(S) + S[0]")]
)
def test_until_leaves_only_the_final_state(outputs: str, after: str) -> None:
    text = f"""program p(T: extent) -> ({outputs}) {{
      scan t < T from {{ S[0] = 0 }} {{ S[t+1] = S[t] + 1 }} until S[t+1] > 3
      {after}
    }}"""
    with pytest.raises(ParseError) as raised:
        run(text, T=9)
    assert raised.value.message == "with until, only the final state of S can be read"


def test_a_history_that_nothing_reads_is_not_stored() -> None:
    text = """program p(X: f64[i=N], T: extent) -> (R) {
      scan t < T from { S[0, i] = X[i] } { S[t+1, i] = S[t, i] + 1 }
      R[i] = final(S)[i]
    }"""
    x = np.arange(1000.0)
    got = run(text, 100_000, X=x, T=100)  # 8 kB a state
    np.testing.assert_array_equal(got["R"], x + 100)
    with pytest.raises(UnsupportedError) as raised:
        run(text.replace("final(S)[i]", "S[3, i]"), 100_000, X=x, T=100)
    assert raised.value.message == "S takes 789.1 KiB, the memory cap is 97.7 KiB"


def test_a_state_that_is_not_defined_yet_is_not_read() -> None:
    text = """program p(T: extent) -> (S) {
      scan t < T from { S: i64[t=T+1][0] = 0 } { S[t+1] = S?(5)[t+2] + S[t] }
    }"""
    assert run(text, T=1)["S"].tolist() == [0, 5]
    text = text.replace("?(5)", "")
    with pytest.raises(RangeError) as raised:
        run(text, T=4)
    assert raised.value.message == "state 2 of S is read before it is defined (at t=0)"


def test_a_shift_register_writes_one_state_in_parts() -> None:
    text = """program p(X: i64[t=T]) -> (S) {
      scan t < T from { S: i64[t=T+1, i=4] fill -1 [0, i] = -1 } {
        S[t+1, 0] = X[t]
        S[t+1, i+1] = S[t, i] if i < 3
      }
    }"""
    got = run(text, X=np.arange(5, 10))["S"]
    register, rows = [-1] * 4, [[-1] * 4]
    for x in range(5, 10):
        register = [x, *register[:3]]
        rows.append(register)
    assert got.tolist() == rows


# ---- host functions -----------------------------------------------------------------------

CALLS = """program p(X: f64[n=N]) -> (Y, I, Z) {
  A[n] = X[n] * 2
  (Y: f64[n=N], I: i64[n=N]) = call sort@3(A)
  Z[n] = Y[n] + X[I[n]]
}"""


def host_sort(a: Array) -> tuple[Array, Array]:
    assert not a.flags.writeable
    return np.sort(a), np.argsort(a)


def test_calls() -> None:
    x = normal(6)
    got = interpret(parse(CALLS), {"X": x}, calls={"sort@3": host_sort})
    np.testing.assert_array_equal(got["Y"], np.sort(x * 2))
    np.testing.assert_array_equal(got["I"], np.argsort(x))
    np.testing.assert_array_equal(got["Z"], np.sort(x) * 3)


def test_calls_that_do_not_fit() -> None:
    module, x = parse(CALLS), normal(6)
    with pytest.raises(UnsupportedError) as unknown:
        interpret(module, {"X": x}, calls={"sort@2": host_sort})
    assert unknown.value.message == "the host function sort@3 is not given"
    with pytest.raises(BackendError) as count:
        interpret(module, {"X": x}, calls={"sort@3": np.sort})
    assert count.value.message == "sort@3 returned 1 results, the program defines 2"
    with pytest.raises(BackendError) as kind:
        interpret(module, {"X": x}, calls={"sort@3": lambda a: (a, a)})
    assert kind.value.message == (
        "sort@3 returned float64 of shape (6,) for I, declared i64 of shape (6,)"
    )


# ---- constants ----------------------------------------------------------------------------


def test_inline_constants() -> None:
    text = """program p(X: f32[j=2]) -> (Y, B, E) {
      const W: f32[i=3, j=2] = [[1.0, 2.0], [3.0, 4.0], [5.0, -0.5]]
      const B: bool[i=3] = [True, False, True]
      const E: f64[i=0] = []
      Y[i] = W[i, j] * X[j]
    }"""
    got = run(text, X=np.array([1, 10], np.float32))
    assert got["Y"].tolist() == [21, 43, 0] and got["B"].tolist() == [True, False, True]
    assert got["B"].flags.writeable and got["E"].shape == (0,)


def blob(tmp_path: Path, array: Array, name: str = "w.npy") -> str:
    np.save(tmp_path / name, array)
    return hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def from_file(tmp_path: Path, statement: str) -> Module:
    path = tmp_path / "p.ein"
    path.write_text(f"program p() -> (Y) {{\n  {statement}\n  Y[i] = W[i] + W[i]\n}}")
    return parse(path.read_text(), name=str(path))


@pytest.mark.parametrize("size", [0, 3, 5000])
def test_blobs_are_mapped_from_beside_the_program(tmp_path: Path, size: int) -> None:
    w = np.arange(size, dtype=np.float32)
    digest = blob(tmp_path, w)
    module = from_file(tmp_path, f'const W: f32[i={size}] = blob "w.npy" sha256:{digest}')
    np.testing.assert_array_equal(interpret(module, {})["Y"], w + w)


def test_a_blob_of_bf16_and_of_another_byte_order(tmp_path: Path) -> None:
    w = np.arange(4).astype(ml_dtypes.bfloat16)
    digest = blob(tmp_path, w)
    module = from_file(tmp_path, f'const W: bf16[i=4] = blob "w.npy" sha256:{digest}')
    assert interpret(module, {})["Y"].astype(float).tolist() == [0, 2, 4, 6]
    digest = blob(tmp_path, np.arange(4, dtype=">i4"))
    module = from_file(tmp_path, f'const W: i32[i=4] = blob "w.npy" sha256:{digest}')
    assert interpret(module, {})["Y"].tolist() == [0, 2, 4, 6]


def test_blobs_that_do_not_fit(tmp_path: Path) -> None:
    digest = blob(tmp_path, np.zeros(3, np.float32))
    (tmp_path / "sub").mkdir()
    cases: list[tuple[str, type[EinloomError], str]] = [
        (f'const W: f32[i=3] = blob "v.npy" sha256:{digest}', EinloomError,
         "the file v.npy of const W cannot be read: No such file or directory"),
        (f'const W: f32[i=3] = blob "w.npy" sha256:{"0" * 64}', EinloomError,
         f"the file w.npy is not the one that const W names: its sha256 is {digest}"),
        (f'const W: f32[i=3] = blob "../w.npy" sha256:{digest}', EinloomError,
         "const W names the file ../w.npy, outside the program's folder"),
        (f'const W: f32[i=4] = blob "w.npy" sha256:{digest}', ShapeError,
         "const W has shape (4,) in the program, (3,) in w.npy"),
        (f'const W: f64[i=3] = blob "w.npy" sha256:{digest}', DTypeError,
         "const W is float64 in the program, float32 in w.npy"),
    ]  # fmt: skip
    for statement, kind, message in cases:
        with pytest.raises(kind) as raised:
            interpret(from_file(tmp_path, statement), {})
        assert raised.value.message == message
    (tmp_path / "w.npy").write_bytes(b"nonsense")
    digest = hashlib.sha256(b"nonsense").hexdigest()
    with pytest.raises(EinloomError, match=r"the file w.npy of const W is no .npy file: "):
        interpret(from_file(tmp_path, f'const W: f32[i=3] = blob "w.npy" sha256:{digest}'), {})


def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    digest = blob(tmp_path, np.zeros(3, np.float32))
    (tmp_path / "home" / "w.npy").symlink_to(tmp_path / "w.npy")
    module = from_file(tmp_path / "home", f'const W: f32[i=3] = blob "w.npy" sha256:{digest}')
    with pytest.raises(EinloomError, match="outside the program's folder"):
        interpret(module, {})


def test_inline_bytes_of_the_wrong_length() -> None:
    type_ = TensorType(f32, (Rank("i", Literal(3)),))
    module = Module("p", (), ("W",), (Constant("W", type_, b"\0" * 8),))
    with pytest.raises(ShapeError) as raised:
        interpret(module, {})
    assert raised.value.message == "const W holds 8 bytes, its type has 3 elements of 4"
    type_ = TensorType(bf16, (Rank("i", Literal(1)),))
    module = Module("p", (), ("W",), (Constant("W", type_, b"\x80\x3f"),))
    assert interpret(module, {})["W"].astype(float).tolist() == [1.0]
