"""`contract` under a memory limit: slices in a scan, and what they are made of."""

from __future__ import annotations

import pytest

from einloom.ir.program import Scan
from einloom.passes.base import Context
from tests.passes.contraction_programs import LARGE, SMALL, body, check_same, ring, split


def test_slices_are_added_up_in_a_scan() -> None:
    before, after, context = split(ring("f64"), memory_limit=1000)
    assert body(after) == [
        "scan i < N from {",
        "R_total: f64[i=N+1][0] = 0.0",
        "} {",
        "R_1[k] = sum[l] C[k, l] * D[l, i]",
        "R_2[j] = sum[k] B[j, k] * R_1[k]",
        "R_3[] = sum[j] A[i, j] * R_2[j]",
        "R_total[i+1] = R_total[i] + R_3[]",
        "}",
        "R[] = final(R_total)[]",
    ]
    assert context.notes[0].text.endswith("largest intermediate 400 elements, in 200 slices over i")
    check_same(before, after)
    for empty in ("N", "M", "K"):
        check_same(before, after, {**SMALL, empty: 0})


@pytest.mark.parametrize(
    ("dtype", "op", "monoid", "first"),
    [
        ("f32", "+", "max", "-inf"),
        ("f32", "+", "min", "inf"),
        ("i8", "*", "sum", "0"),
        ("f16", "*", "sum", "0.0"),
        ("bool", "and", "any", "bool(False)"),
        ("zq<97>", "*", "sum", "zq<97>(0)"),
        ("c64", "*", "sum", "c64(0)"),
    ],
)
def test_slices_start_from_the_identity(dtype: str, op: str, monoid: str, first: str) -> None:
    before, after, _ = split(ring(dtype, op, monoid), memory_limit=1000)
    assert body(after)[1].endswith(f"= {first}")
    check_same(before, after)
    check_same(before, after, {**SMALL, "N": 0})


def test_steps_that_no_slice_changes_stand_before_the_scan() -> None:
    text = ring("f64").replace(") -> (R)", ", E: f64[j=M, m=M], F: f64[m=M, n=M]) -> (R)")
    text = text.replace("sum[i", "sum[m, n, i").replace("D[l, i]", "D[l, i] * E[j, m] * F[m, n]")
    before, after, _ = split(text, memory_limit=1000)
    lines = body(after)
    scan = next(k for k, line in enumerate(lines) if line.startswith("scan i"))
    assert lines[:scan] == ["R_1[m] = sum[n] F[m, n]", "R_2[j] = sum[m] E[j, m] * R_1[m]"]
    check_same(before, after)


def test_extents_that_have_to_agree_at_entry_are_not_sliced() -> None:
    context = Context(extents={**LARGE, "O": 200})
    before, after, _ = split(ring("f64").replace("i=N])", "i=O])"), context, memory_limit=1000)
    scans = [s for s in after.body if isinstance(s, Scan)]
    assert [scan.index for scan in scans] == ["k"]
    check_same(before, after, {**SMALL, "O": 3})


def test_max_input_limits_to_the_largest_factor() -> None:
    text = (
        "program p(A: f64[i=N, j=M], B: f64[k=K, j=M], C: f64[i=N, k=K, l=L]) -> (R) {\n"
        "  R[l] = sum[i, j, k] A[i, j] * B[k, j] * C[i, k, l]\n}"
    )
    sizes = Context(extents={"N": 1000, "M": 10, "K": 1000, "L": 1})
    _, after, _ = split(text, sizes, memory_limit="max_input")
    assert not any(isinstance(s, Scan) for s in after.body)  # 1e6 elements fit
    _, after, _ = split(text, sizes, memory_limit=999_999)
    assert len(after.body) > 0
    assert "R_1[i, k]" not in str(after)
