"""`contract`: which statements it splits, how, and why it leaves the others alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from einloom.ir.errors import PassError
from einloom.ir.infer import infer
from einloom.ir.interpret import interpret
from einloom.ir.program import Scan
from einloom.passes import Pipeline
from einloom.passes.base import Context
from einloom.passes.contract import Contract
from tests.passes.contraction_programs import (
    LARGE,
    SMALL,
    body,
    chain,
    check_same,
    inputs,
    split,
)

# ---- what is split ------------------------------------------------------------------------


def test_a_chain_becomes_two_products() -> None:
    before, after, context = split(chain("f64"))
    assert body(after) == [
        "R_1[i, k] = sum[j] A[i, j] * B[j, k]",
        "R[i, l] = sum[k] R_1[i, k] * C[k, l]",
    ]
    check_same(before, after)
    assert [str(note) for note in context.notes] == [
        "contract: R: split in 2 steps by the path of enumeration: 1.28e+08 operations instead of "
        "3.60e+10, largest intermediate 80000 elements"
    ]


def test_sizes_decide_which_product_comes_first() -> None:
    context = Context(extents={"N": 2000, "M": 2000, "K": 2000, "L": 2})
    _, after, _ = split(chain("f64"), context)
    assert body(after) == [
        "R_1[j, l] = sum[k] B[j, k] * C[k, l]",
        "R[i, l] = sum[j] A[i, j] * R_1[j, l]",
    ]


def test_tiny_products_stay_in_one_loop_nest() -> None:
    before, after, context = split(chain("f64"), Context(extents=SMALL))
    assert after is before
    assert context.notes[0].text == "not split: enumeration keeps one loop nest of 360 operations"


def test_sizes_in_the_program_are_taken_from_it() -> None:
    text = chain("f64").replace("N", "3").replace("M", "2").replace("K", "2").replace("L", "2")
    before, after, _ = split(text)
    assert after is before


def test_an_index_of_one_factor_is_folded_before_it_meets_another() -> None:
    before, after, _ = split(
        "program p(A: f64[i=N, j=M], B: f64[k=K, l=L]) -> (R) {\n"
        "  R[i, l] = sum[j, k] A[i, j] * B[k, l]\n}"
    )
    assert body(after) == [
        "R_1[i] = sum[j] A[i, j]",
        "R_2[l] = sum[k] B[k, l]",
        "R[i, l] = R_1[i] * R_2[l]",
    ]
    check_same(before, after)


def test_two_factors_with_nothing_to_fold_alone_are_one_product() -> None:
    before, after, context = split(
        "program p(A: f64[i=N, j=M], B: f64[j=M, k=K]) -> (R) {\n"
        "  R[i, k] = sum[j] A[i, j] * B[j, k]\n}"
    )
    assert after is before
    assert context.notes == []


def test_factors_with_the_same_loops_are_multiplied_in_one_step() -> None:
    before, after, _ = split(
        "program p(A: f64[i=N, j=M], B: f64[i=N, j=M], C: f64[i=N, j=M], D: f64[j=M, k=K])"
        " -> (R) {\n  R[i, k] = sum[j] A[i, j] * B[i, j] * C[i, j] * D[j, k]\n}"
    )
    assert body(after) == [
        "R_1[i, j] = A[i, j] * B[i, j] * C[i, j]",
        "R[i, k] = sum[j] R_1[i, j] * D[j, k]",
    ]
    check_same(before, after)


def test_names_that_are_taken_are_skipped() -> None:
    before, after, _ = split(
        "program p(R_1: f64[i=N, j=M], B: f64[j=M, k=K], C: f64[k=K, l=L], R_3: f64[l=L, n=N])"
        " -> (R) {\n  R[i, n] = sum[j, k, l] R_1[i, j] * B[j, k] * C[k, l] * R_3[l, n]\n}"
    )
    names = [line.split("[")[0] for line in body(after)]
    assert names == ["R_2", "R_4", "R"]
    check_same(before, after)


def test_ranks_of_intermediates_suit_their_consumer() -> None:
    """Shared ranks first, then rows and folded ranks; the columns of the result last."""
    before, after, _ = split(
        "program p(A: f64[b=N, j=M, i=N], B: f64[j=M, b=N, k=K], C: f64[l=L, k=K, b=N]) -> (R) {\n"
        "  R[b, i, l] = sum[j, k] A[b, j, i] * B[j, b, k] * C[l, k, b]\n}",
        method="left",
    )
    assert body(after) == [
        "R_1[b, i, k] = sum[j] A[b, j, i] * B[j, b, k]",
        "R[b, i, l] = sum[k] R_1[b, i, k] * C[l, k, b]",
    ]
    check_same(before, after)


@pytest.mark.parametrize(
    ("left", "factors"),
    [
        ("R[i, i]", "A[i, j] * B[j, k] * C[k, i]"),
        ("R[i, l]", "A[i, j] * B[j, k] * C[k, l] * 2"),
        ("R[i, l]", "A[i, j] * exp(B[j, k]) * C[k, l] * M"),
        ("R[i, l]", "A[i, j] * B[j, k] * C[k, l] * iota(k)"),
        ("R[i, l]", "A[i, j] * B[j, j] * C[k, l]"),
    ],
)
def test_factors_and_left_sides_of_other_kinds(left: str, factors: str) -> None:
    reduced = "j, k"
    text = (
        "program p(A: f64[a=M, b=M], B: f64[a=M, b=M], C: f64[a=M, b=M], M: extent) -> (R) {\n"
        f"  {left} = sum[{reduced}] {factors}\n}}"
    )
    before, after, _ = split(text.replace(", M: extent", ""))
    assert len(after.body) > 1
    for seed in range(3):
        arrays = inputs(before, SMALL, seed)
        np.testing.assert_allclose(
            interpret(after, arrays)["R"], interpret(before, arrays)["R"], rtol=1e-12, atol=1e-12
        )


def test_extents_that_no_access_gives_are_stated() -> None:
    before, after, _ = split(
        "program p(A: f64[i=N, j=M], B: f64[j=M, k=K], X: f64[m=L]) -> (R) {\n"
        "  R[i] = sum[j, k, l] A[i, j] * B[j, k] * X?(0)[k + l - 1] where l < 3\n}"
    )
    assert len(after.body) > 1
    check_same(before, after)


def test_an_index_that_no_factor_has_is_folded_last() -> None:
    before, after, _ = split(
        "program p(A: f64[i=N, j=M], B: f64[j=M, k=K], C: f64[k=K]) -> (R) {\n"
        "  R[i] = sum[j, k, t] A[i, j] * B[j, k] * C[k] where t < 5\n}"
    )
    assert len(after.body) > 1
    check_same(before, after)


def test_reads_through_indices_are_factors_too() -> None:
    before, after, _ = split(
        "program p(W: f64[v=N, d=M], idx: i64[t=K], B: f64[d=M, e=L], C: f64[e=L, t=K]) -> (R) {\n"
        "  R[t] = sum[d, e] W[idx[t], d] * B[d, e] * C[e, t]\n}"
    )
    assert len(after.body) > 1
    arrays = inputs(before, SMALL)
    arrays["idx"] = np.array([2, 0])
    np.testing.assert_array_equal(interpret(after, arrays)["R"], interpret(before, arrays)["R"])


def test_functions_of_the_program_are_looked_into() -> None:
    before, after, _ = split(
        "fn twice(x) = x * 2.0\n"
        "program p(A: f64[i=N, j=M], B: f64[j=M, k=K], C: f64[k=K]) -> (R) {\n"
        "  R[i] = sum[j, k] twice(A[i, j]) * B[j, k] * C[k]\n}"
    )
    assert len(after.body) > 1
    check_same(before, after)


# ---- laws ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "op", "monoid"),
    [
        ("f64", "*", "sum"),
        ("i32", "*", "sum"),
        ("bool", "*", "sum"),
        ("c128", "*", "sum"),
        ("zq<97>", "*", "sum"),
        ("f64", "+", "max"),
        ("f64", "+", "min"),
        ("bool", "and", "any"),
        ("bool", "or", "all"),
    ],
)
def test_products_that_distribute(dtype: str, op: str, monoid: str) -> None:
    before, after, _ = split(chain(dtype, op, monoid))
    assert len(after.body) == 2
    check_same(before, after)


def test_max_of_minima() -> None:
    before, after, _ = split(
        "program p(A: i16[i=N, j=M], B: i16[j=M, k=K], C: i16[k=K, l=L]) -> (R) {\n"
        "  R[i, l] = max[j, k] min(A[i, j], B[j, k], C[k, l])\n}"
    )
    assert body(after)[0] == "R_1[i, k] = max[j] min(A[i, j], B[j, k])"
    check_same(before, after)
    check_same(before, after, {"N": 2, "M": 0, "K": 3, "L": 2})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (chain("f64", "*", "max"), "mul does not distribute over max on f64"),
        (chain("f64", "+", "sum"), "add does not distribute over add on f64"),
        (
            chain("i64", "+", "max"),
            "add distributes over max on i64 only where nothing overflows",
        ),
        (
            chain("f64").replace("sum[j, k]", "sum[j] max[k]"),
            "it folds with several reducers, whose order matters",
        ),
        (
            chain("f64").replace("C[k, l]\n", "C[k, l] if j <= k\n"),
            "its iterations are restricted by a condition",
        ),
        (
            chain("i32").replace("sum[j, k]", "sum:i64[j, k]"),
            "it folds i32 in i64, which changes the values multiplied",
        ),
        (
            chain("f64")
            .replace("R[i, l]", "R: f64[a=N+M, b=L][i + j, l]")
            .replace("sum[j, k]", "sum[i, j, k]"),
            "its left side scatters over reduced indices",
        ),
        (
            chain("f64", "+", "max").replace("R[i, l]", "R[i, i]").replace("C[k, l]", "C[k, i]")
            .replace("l=L", "l=N"),
            "its left side leaves cells that hold the identity of the fold",
        ),
    ],
)  # fmt: skip
def test_what_is_left_alone(text: str, reason: str) -> None:
    before, after, context = split(text)
    assert after is before
    assert [str(note) for note in context.notes] == [f"contract: R: left as it is: {reason}"]


def test_a_monoid_of_the_program_has_no_known_laws() -> None:
    before, after, context = split(
        "monoid plus: f64 { identity 0.0; combine(a, b) = a + b }\n" + chain("f64", "*", "plus")
    )
    assert after is before
    assert context.notes[0].text == (
        "left as it is: plus is defined by the program, and no law says what distributes over it"
    )


def test_strict_leaves_floats_alone_and_splits_integers() -> None:
    context = Context(extents=LARGE, strict=True)
    before, after, _ = split(chain("f32"), context)
    assert after is before
    assert context.notes[0].text == "left as it is: strict keeps the order of mul and add on f32"
    before, after, _ = split(chain("i32"), Context(extents=LARGE, strict=True))
    assert len(after.body) == 2
    check_same(before, after)
    # The sum of floats is inexact, their maximum is not; what is added is.
    before, after, _ = split(chain("f32", "+", "max"), Context(extents=LARGE, strict=True))
    assert after is before


def test_integer_tropical_sums_need_the_assumption_and_no_empty_extent() -> None:
    context = Context(extents=LARGE, assume_no_overflow=True)
    before, after, _ = split(chain("i64", "+", "max"), context)
    assert after is before
    assert context.notes[0].text == (
        "left as it is: index j may have extent 0, where add changes the identity of max on i64"
    )
    text = chain("i64", "+", "max").replace("M", "30").replace("K", "20")
    before, after, _ = split(text, Context(extents=LARGE, assume_no_overflow=True))
    assert len(after.body) == 2
    check_same(before, after)


# ---- dtypes -------------------------------------------------------------------------------


def test_half_floats_are_rounded_once() -> None:
    _, after, _ = split(chain("f16"))
    assert body(after) == [
        "R_1[i, k] = sum[j] f32(A[i, j]) * f32(B[j, k])",
        "R: f16[i=N, l=L] = sum[k] R_1[i, k] * f32(C[k, l])",
    ]
    sizes = {"N": 8, "M": 64, "K": 64, "L": 8}
    source = np.random.default_rng(0)
    arrays = {
        name: source.standard_normal([sizes[d] for d in dims]).astype(np.float16)
        for name, dims in (("A", "NM"), ("B", "MK"), ("C", "KL"))
    }
    found = interpret(after, arrays)["R"]
    exact = arrays["A"].astype(np.float64) @ arrays["B"] @ arrays["C"].astype(np.float64)
    assert found.dtype == np.float16
    mismatches = np.mean(found != exact.astype(np.float16))
    assert mismatches < 0.1, "rounding R_1 to f16 would make most of them differ"


def test_mixed_factors_are_converted_first() -> None:
    before, after, _ = split(
        "program p(A: i8[i=N, j=M], B: f32[j=M, k=K], C: f64[k=K, l=L]) -> (R) {\n"
        "  R[i, l] = sum[j, k] A[i, j] * B[j, k] * C[k, l]\n}"
    )
    assert body(after)[0] == "R_1[i, k] = sum[j] f64(A[i, j]) * f64(B[j, k])"
    check_same(before, after)


def test_accumulators_that_change_nothing_are_computed_in() -> None:
    before, after, _ = split(chain("f32").replace("sum[", "sum:f64["))
    assert body(after)[0] == "R_1[i, k] = sum[j] f64(A[i, j]) * f64(B[j, k])"
    check_same(before, after)
    before, after, _ = split(chain("i32").replace("sum[", "sum:i8["))
    assert infer(after).tensors["R_1"].dtype == infer(before).tensors["R"].dtype
    check_same(before, after, {"N": 3, "M": 40, "K": 40, "L": 3})


def test_a_declared_result_keeps_its_type() -> None:
    before, after, _ = split(chain("f32").replace("R[i, l]", "R: f64[row=N, col=L][i, l]"))
    assert body(after)[-1].startswith("R: f64[row=N, col=L][i, l] = sum[k]")
    check_same(before, after)


# ---- scans, kernels, sections -------------------------------------------------------------


def test_statements_in_a_scan_are_split_inside_it() -> None:
    before, after, _ = split(
        "program p(X: f64[i=N], W: f64[t=L, a=N, b=M], V: f64[b=M, c=N]) -> (S) {\n"
        "  scan t < L from { S[0, i] = X[i] } {\n"
        "    S[t+1, c] = sum[a, b] S[t, a] * W[t, a, b] * V[b, c]\n"
        "  }\n}",
        Context(extents={**LARGE, "L": 3}),
        memory_limit=1000,
    )
    scan = after.body[0]
    assert isinstance(scan, Scan)
    assert [str(s) for s in scan.body] == [
        "S_1[b] = sum[a] S[t, a] * W[t, a, b]",
        "S[t+1, c] = sum[b] S_1[b] * V[b, c]",
    ]
    check_same(before, after)


def test_the_first_state_of_a_scan_is_left_alone() -> None:
    before, after, context = split(
        "program p(A: f64[i=N, j=M], B: f64[j=M, k=K], C: f64[k=K]) -> (S) {\n"
        "  scan t < 3 from { S[0, i] = sum[j, k] A[i, j] * B[j, k] * C[k] } {\n"
        "    S[t+1, i] = S[t, i] * 2.0\n"
        "  }\n}"
    )
    assert after is before
    assert context.notes[0].text == "left as it is: it defines the first state of a scan"


def test_kernels_are_left_alone() -> None:
    before, after, context = split(
        chain("f64").replace("  R[", "  kernel k { R[").replace("C[k, l]\n", "C[k, l] } -> (R)\n")
    )
    assert after is before
    assert context.notes[0].text == "left as it is: it is fused in kernel k"


# ---- options ------------------------------------------------------------------------------


def test_a_given_path_is_followed() -> None:
    before, after, _ = split(chain("f64"), method="given", path="(1, 2), (0, 1)")
    assert body(after)[0] == "R_1[j, l] = sum[k] B[j, k] * C[k, l]"
    check_same(before, after)
    before, after, _ = split(chain("f64"), method="given", path="(0, 1, 2)")
    assert after is before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("(0, 1)", "the path leaves 2 operands\n  hint: end it with (0, 1)"),
        (
            "(0, 3), (0, 1)",
            "group (0, 3) of the path asks for position 3, but 3 operands are left\n"
            "  hint: positions count from 0, and each group's result goes to the end",
        ),
        ("(1, 1), (0, 1)", "group (1, 1) of the path names a position twice"),
        (
            "first",
            "'first' is not a contraction path\n"
            '  hint: write groups of positions, for example "(1, 2), (0, 1)"',
        ),
    ],
)
def test_paths_that_do_not_fit(path: str, message: str) -> None:
    with pytest.raises(PassError) as caught:
        split(chain("f64"), method="given", path=path)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_limit": 0}, "memory_limit is 0, and an intermediate has at least 1 element"),
        ({"path": "(0, 1)"}, "a path is given, but method is auto"),
        ({"method": "given"}, "method is given, but there is no path"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PassError) as caught:
        Contract(**options)
    assert caught.value.message == message


def test_method_none_splits_nothing() -> None:
    before, after, context = split(chain("f64"), method="none")
    assert after is before
    assert context.notes == []


def test_as_text_of_a_pipeline() -> None:
    text = 'contract{method=given, path="(1, 2), (0, 1)", memory_limit=max_input}'
    pipeline = Pipeline.parse(text)
    assert str(pipeline) == text
    assert pipeline.passes == (Contract("given", "(1, 2), (0, 1)", "max_input"),)
    assert Pipeline.parse("contract{memory_limit=1000}").passes == (Contract(memory_limit=1000),)
