"""Inference: types of results, extents of indices, states of scans, what is checked at entry.

Messages about wrong programs are in `verifier/*.txt`, tested by `test_verify.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from einloom.ir import extents as ext
from einloom.ir.errors import EinloomError, ShapeError
from einloom.ir.infer import infer
from einloom.ir.interpret import interpret
from einloom.ir.program import Einsum, Scan
from einloom.ir.promotion import numpy_dtype
from einloom.ir.text import parse


def types(body: str, inputs: str, results: str = "C") -> dict[str, str]:
    """The types of all tensors that a program defines, as text."""
    module = parse(f"program p({inputs}) -> ({results}) {{\n{body}\n}}")
    given = {item.name for item in module.inputs}
    return {n: str(t) for n, t in infer(module).tensors.items() if n not in given}


MATRICES = "A: f32[i=N, j=M], B: f32[i=M, j=K]"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("C[i, k] = A[i, j] * B[j, k]", "f32[i=N, k=K]"),
        ("C[k, i] = A[i, j] * B[j, k]", "f32[k=K, i=N]"),
        ("C[] = sum[i, j] A[i, j]", "f32[]"),
        ("C[i, i] = A[i, 0]", "f32[i=N, i_1=N]"),
        ("C: f64[p=N, q=4][i, 3] = A[i, 0]", "f64[p=N, q=4]"),
        ("C[a, b] = A[a*2 + b, 0] where a < N // 2, b < 2", "f32[a=N//2, b=2]"),
        ("C[a] = A?(0)[a - 1, 0] where a < N + 2", "f32[a=N+2]"),
        ("C[i] = sum[j] A[i, j] if j < i", "f32[i=N]"),
        ("C[i, j] = A[i, j] > 0.0", "bool[i=N, j=M]"),
        ("C[i] = argmax[j] (A[i, j], iota(j))", "(f32, i64)[i=N]"),
        ("C[i] = iota(i)", None),
        ("C[i] = iota(i) where i < M*K + 1", "i64[i=K*M + 1]"),
        ("C[i] = sum:f64[j] A[i, j]", "f64[i=N]"),
        ("C[i] = N where i < M", "i64[i=M]"),
        ("C[i, j] = A[i, j] + 1", "f32[i=N, j=M]"),
        ("C[i, j] = A[i, j] * 2.0j", "c64[i=N, j=M]"),
        ("C[i, j] = i64(A[i, j]) / 2", "f64[i=N, j=M]"),
    ],
)
def test_type_of_a_result(body: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(EinloomError):
            types(body, MATRICES)
    else:
        assert types(body, MATRICES)["C"] == expected


def test_several_results() -> None:
    found = types("(V, P)[i] = argmax[j] (A[i, j], iota(j))", MATRICES, "V, P")
    assert found == {"V": "f32[i=N]", "P": "i64[i=N]"}


def checks(inputs: str, body: str) -> list[str]:
    module = parse(f"program p({inputs}) -> (C) {{ {body} }}")
    return [check.message for check in infer(module).checks]


@pytest.mark.parametrize(
    ("inputs", "body", "expected"),
    [
        ("A: f32[i=N], B: f32[i=N]", "C[i] = A[i] * B[i]", []),
        (
            "A: f32[i=N], B: f32[i=M]",
            "C[i] = A[i] * B[i]",
            ["index i has extent N in A, but M in B"],
        ),
        ("A: f32[i=N*2 + M], B: f32[i=M + N + N], N: extent, M: extent", "C[i] = A[i] * B[i]", []),
        (
            "A: f32[i=N], M1: extent, M0: extent",
            "C: f32[m=M1*M0][i] = A[i]",
            ["index i has extent M0 * M1 in C, but N in A"],
        ),
        (
            "A: f32[i=8], B: f32[i=M]",
            "C[i] = A[i] * B[i]",
            ["index i has extent 8 in A, but M in B"],
        ),
    ],
)
def test_what_cannot_be_proved_is_checked_at_entry(
    inputs: str, body: str, expected: list[str]
) -> None:
    assert checks(inputs, body) == expected


def test_a_check_points_into_its_own_text() -> None:
    text = "program p(A: f32[i=N], B: f32[i=M]) -> (C) { C[i] = A[i] * B[i] }"
    for name in ("first.ein", "second.ein"):
        (check,) = infer(parse(text, name)).checks
        assert check.location is not None and check.location.source.name == name


# ---- left sides ----------------------------------------------------------------------------

SEPARATE = [
    "C: f32[p=N, q=M][i, j] = A[i, j]",
    "C: f32[p=8][i*4 + j] = a[i, j]",
    "C: f32[p=8][j*2 + i] = a[i, j]",
    "C: f32[p=9][i*4 + j + 1] = a[i, j]",
    "C: f32[p=N*M][i*M + j] = A[i, j]",
    "C: f32[p=N*M*2][i*M*2 + j*2 + 1] = A[i, j]",
    "C: f32[p=2, q=8][i, i + j] = a[i, j]",
    "C: f32[p=4][3 - j] = b[j]",
    "C: f32[p=4][g[j]] = sum[j] b[j]",
    "C: f32[p=8, q=4][g[j], j] = b[j]",
]
COLLIDING = [
    "C: f32[p=N][i] = exp(A[i, j])",
    "C: f32[p=7][i + j] = a[i, j]",
    "C: f32[p=8][i*3 + j] = a[i, j]",
    "C: f32[p=4][g[j]] = b[j]",
    "C: f32[p=4][j // 2] = b[j]",
    "C: f32[p=4][j % 2] = b[j]",
    "C: f32[p=16][j * j] = b[j]",
    "C: f32[p=N*M][i*N + j] = A[i, j]",
    "C: f32[p=4][0 * j] = b[j]",
]
INPUTS = "A: f32[i=N, j=M], a: f32[i=2, j=4], b: f32[j=4], g: i64[j=4]"


@pytest.mark.parametrize("body", SEPARATE)
def test_writes_that_differ_are_proved_to(body: str) -> None:
    assert types(body, INPUTS)["C"]


@pytest.mark.parametrize("body", COLLIDING)
def test_writes_that_may_collide_need_a_reducer(body: str) -> None:
    with pytest.raises(EinloomError) as caught:
        types(body, INPUTS)
    assert any(
        words in caught.value.message
        for words in ("several iterations may write one cell of C", "not on the left")
    )


@pytest.mark.parametrize(
    "body", ["C: f32[p=3][b] = A[b, 0] where b < 4", "C: f32[p=4][j+1] = b[j]"]
)
def test_a_write_that_leaves_its_tensor(body: str) -> None:
    with pytest.raises(ShapeError):
        types(body, INPUTS)


def test_an_empty_iteration_space_reaches_nothing() -> None:
    assert types("C[i] = A[i + 5] where i < 0", "A: f32[i=2]") == {"C": "f32[i=0]"}


# ---- scans ---------------------------------------------------------------------------------


def test_states_take_dtype_and_extents_from_the_body() -> None:
    found = types(
        """scan t < M1 from { RM[0, p] = -inf; RD[0, p] = 0; Seen[0] = False } {
             LM[t, p] = max[m0] QK[t, m0, p]
             RM[t+1, p] = max(RM[t, p], LM[t, p])
             RD[t+1, p] = RD[t, p] * exp(RM[t, p] - RM[t+1, p])
             Seen[t+1] = Seen[t] or RM[t+1, 0] > 1.0
           }
           C[p] = final(RD)[p]""",
        "QK: f16[a=M1, b=M0, p=P]",
    )
    assert found == {
        "LM": "f16[t=M1, p=P]",
        "RM": "f16[t=M1+1, p=P]",
        "RD": "f16[t=M1+1, p=P]",
        "Seen": "bool[t=M1+1]",
        "C": "f16[p=P]",
    }


def test_states_that_depend_on_one_another() -> None:
    """The dtype of each follows from the next one's, the last one's from an input."""
    count = 12
    first = "; ".join(f"S{k}[0, i] = 0.0" for k in range(count))
    body = "\n".join(f"S{k}[t+1, i] = S{k + 1}[t, i]" for k in range(count - 1))
    found = types(
        f"scan t < T from {{ {first} }} {{ {body}\nS{count - 1}[t+1, i] = A[i] }}",
        "A: f32[i=N], T: extent",
        "S0",
    )
    assert set(found.values()) == {"f32[t=T+1, i=N]"}


def test_a_state_holds_every_value_that_is_written_to_it() -> None:
    found = types(
        """scan t < T from { X[0] = 0.0; Y[0] = 0.0; Z[0] = 1 } {
             X[t+1] = A[t] + Y[t]
             Y[t+1] = B[t]
             Z[t+1] = Z[t] * 2
           }""",
        "A: f16[t=T], B: f64[t=T]",
        "X",
    )
    assert found == {"X": "f64[t=T+1]", "Y": "f64[t=T+1]", "Z": "i64[t=T+1]"}


def test_nested_scans_and_wavefronts() -> None:
    found = types(
        """scan i < N from { D[0, j] = iota(j) where j < M + 1 } {
             scan j < M from { D[i+1, 0] = iota(i) + 1 } {
               D[i+1, j+1] = min(D[i, j+1] + 1, D[i+1, j] + 1, D[i, j] + i64(a[i] != b[j]))
             }
             scan k < 3 from { S[0] = 0.0 } { S[k+1] = S[k] + a[i] }
           }
           C[] = final(D)[M]""",
        "a: f32[i=N], b: f32[j=M]",
    )
    assert found == {
        "D": "i64[i=N+1, j=M+1]",
        "S": "f32[k=4]",
        "C": "i64[]",
    }


def test_a_state_of_an_outer_scan_stays_open_inside_an_inner_one() -> None:
    """An inner scan that settles does not fix the dtype of the outer scan's state."""
    found = types(
        """scan t < T from { S[0] = 0.0 } {
             scan u < 2 from { R[0] = 0.0 } { R[u+1] = R[u] + 1.0 }
             S[t+1] = S[t] + A[t]
           }
           C[] = final(S)""",
        "A: f32[t=T]",
    )
    assert found["S"] == "f32[t=T+1]" and found["R"] == "f64[u=3]" and found["C"] == "f32[]"


def test_deeply_nested_scans_take_no_time() -> None:
    """Each level is passed over a few times, not a power of a few."""
    depth = 24
    body = "".join(
        f"scan t{k} < 2 from {{ S{k}[0] = 0.0 }} {{ S{k}[t{k}+1] = S{k}[t{k}] + A[0]\n"
        for k in range(depth)
    )
    found = types(body + "}" * depth, "A: f32[i=N]", "S0")
    assert set(found.values()) == {"f32[t0=3]"} | {f"f32[t{k}=3]" for k in range(1, depth)}


def test_indices_of_scans_are_not_the_statements_own() -> None:
    module = parse("""program p(A: f32[t=T, i=N]) -> (S) {
      scan t < T from { S[0, i] = 0.0 } { S[t+1, i] = S[t, i] + A[t, i] }
    }""")
    scan = module.body[0]
    assert isinstance(scan, Scan) and isinstance(scan.body[0], Einsum)
    inference = infer(module)
    first, step = inference.einsums[scan.initial[0]], inference.einsums[scan.body[0]]
    assert (first.scans, first.own_indices()) == ((), ["i"])
    assert (step.scans, step.own_indices()) == (("t",), ["i"])
    assert {name: str(extent) for name, extent in step.extents.items()} == {"t": "T", "i": "N"}
    assert inference.states == {"S": scan}


def test_one_broken_statement_makes_one_complaint() -> None:
    text = """program p(A: f32[t=T]) -> (C) {
      scan t < T from { S[0, i] = 0.0 } { S[t+1, i] = S[t, i] + Zed[i] }
      C[i] = final(S)[i]
    }"""
    with pytest.raises(EinloomError) as caught:
        infer(parse(text))
    assert [d.message for d in caught.value.diagnostics] == ["Zed is not defined"]


# ---- against NumPy -------------------------------------------------------------------------

PROGRAMS: dict[str, tuple[str, Mapping[str, object], Mapping[str, int]]] = {
    "product": (
        "program p(A: f32[i=N, j=M], B: i16[j=M]) -> (C) { C[i] = A[i, j] * B[j] }",
        {"A": np.ones((3, 4), np.float32), "B": np.ones(4, np.int16)},
        {"N": 3, "M": 4},
    ),
    "blocks": (
        "program p(A: u8[m=M1*M0], M1: extent, M0: extent) -> (C) {\n"
        "C[a, b] = A[a*M0 + b] where a < M1, b < M0 }",
        {"A": np.arange(6, dtype=np.uint8), "M1": 2, "M0": 3},
        {"M1": 2, "M0": 3},
    ),
    "states": (
        "program p(A: f64[t=T, i=N]) -> (S, F) {\n"
        "scan t < T from { S[0, i] = 0 } { S[t+1, i] = S[t, i] + A[t, i] }\n"
        "F[i] = final(S)[i] }",
        {"A": np.arange(6.0).reshape(2, 3)},
        {"T": 2, "N": 3},
    ),
    "ceiling": (
        "program p(A: f32[i=N]) -> (C) { C[b] = sum[r] A[b*2 + r] where b < ceil(N/2), r < 2 "
        "if b*2 + r < N }",
        {"A": np.ones(5, np.float32)},
        {"N": 5},
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_types_are_those_of_what_is_computed(name: str) -> None:
    text, arrays, sizes = PROGRAMS[name]
    module = parse(text)
    inference = infer(module)
    for result, array in interpret(module, arrays).items():
        type_ = inference.tensors[result]
        assert array.dtype == numpy_dtype(type_.dtype)
        assert array.shape == tuple(ext.evaluate(extent, sizes) for extent in type_.extents)
