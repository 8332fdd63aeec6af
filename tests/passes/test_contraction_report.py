"""Reports of contractions: numbers, paths as NumPy takes them, and the words."""

from __future__ import annotations

import numpy as np
import pytest

from einloom.backends.cost import MachineModel
from einloom.ir.errors import PassError
from einloom.ir.text import parse
from einloom.passes.base import Context
from einloom.passes.contract import Contract
from einloom.passes.contraction.choose import checked_path, list_positions, parse_path
from einloom.passes.contraction.cost import counted
from einloom.passes.contraction.report import contraction_report, contraction_reports
from tests.passes.networks import random_network

CHAIN = """program p(A: f64[i=N, j=M], B: f64[j=M, k=K], C: f64[k=K, l=L]) -> (R) {
  R[i, l] = sum[j, k] A[i, j] * B[j, k] * C[k, l]
}"""
SIZES = {"N": 200, "M": 300, "K": 400, "L": 500}


def test_numbers_of_a_chain() -> None:
    report = contraction_report(parse(CHAIN), context=Context(extents=SIZES))
    assert report.equation == "ij,jk,kl->il"
    assert report.path == ((0, 1), (0, 1))
    assert [step.equation for step in report.steps] == ["ij,jk->ik", "ik,kl->il"]
    assert report.operations == 2 * 200 * 300 * 400 + 2 * 200 * 400 * 500
    assert report.direct_operations == 3 * 200 * 300 * 400 * 500
    assert report.largest_intermediate == report.peak == 200 * 400
    assert report.bytes_read == 8 * (200 * 300 + 300 * 400 + 200 * 400 + 400 * 500)
    assert report.bytes_written == 8 * (200 * 400 + 200 * 500)
    assert report.speedup == pytest.approx(281.25)
    assert report.assumed == ()
    assert report.refusal is None


def test_words_of_a_chain() -> None:
    report = contraction_report(parse(CHAIN), context=Context(extents={"N": 200, "M": 300}))
    assert str(report).splitlines()[:-4] == [
        "contraction of R: ij,jk,kl->il",
        "  path            (0, 1), (0, 1) (from enumeration, best of 4 by estimated time)",
        "  operations      9.32e+06, in one loop nest 7.37e+08, 79 times as many",
        "  intermediates   largest 12800 elements (100.0 KiB)",
        "                  12800 elements at one time",
        "  memory traffic  750.8 KiB read, 200.0 KiB written",
        "  estimated time  482 µs, in one loop nest 36.9 ms",
        "  assumed sizes   K, L",
    ]
    assert str(report).splitlines()[-3:] == [
        "  step  operations    elements  loops  contraction",
        "     1    7.68e+06       12800      3  ij,jk->ik",
        "     2    1.64e+06       12800      3  ik,kl->il",
    ]


def test_slices() -> None:
    module = parse(
        "program p(A: f64[i=N, j=M], B: f64[j=M, k=K], C: f64[k=K, l=L], D: f64[l=L, i=N])"
        " -> (R) {\n  R[] = sum[i, j, k, l] A[i, j] * B[j, k] * C[k, l] * D[l, i]\n}"
    )
    options = Contract(memory_limit=1000, method="left")
    report = contraction_report(module, options, Context(extents=SIZES))
    assert report.sliced == ("i",)
    assert report.slices == 200
    assert report.largest_intermediate == 500
    assert report.operations == 200 * (2 * 300 * 400 + 2 * 400 * 500 + 2 * 500 + 1)
    assert "  slices          200 over i" in str(report).splitlines()


def test_statements_that_are_not_split() -> None:
    module = parse(CHAIN)
    report = contraction_report(module, context=Context(strict=True))
    assert report.refusal == "strict keeps the order of mul and add on f64"
    assert report.path == ((0, 1, 2),)
    assert report.operations == report.direct_operations
    pair = parse("program p(A: f64[i=N, j=M]) -> (R) { R[i] = sum[j] A[i, j] * A[i, j] }")
    report = contraction_report(pair)
    assert (report.path, report.refusal, report.equation) == (((0, 1),), None, "ij,ij->i")


def test_long_names_are_kept_apart() -> None:
    module = parse(CHAIN.replace("j", "inner"))
    report = contraction_report(module, context=Context(extents=SIZES))
    assert report.equation == "i inner, inner k, k l -> i l"
    assert report.steps[1].equation == "ik,kl->il"


def test_the_statement_is_found_by_name() -> None:
    module = parse(
        "program p(A: f64[i=N, j=M], B: f64[j=M, k=K], C: f64[k=K]) -> (R, Y) {\n"
        "  Y[i] = sum[j] A[i, j]\n  R[i] = sum[j, k] A[i, j] * B[j, k] * C[k]\n}"
    )
    assert contraction_report(module).statement == "R"
    assert contraction_report(module, statement="Y").equation == "ij->i"
    assert [report.statement for report in contraction_reports(module)] == ["R"]
    with pytest.raises(PassError) as caught:
        contraction_report(module, statement="Q")
    assert str(caught.value) == "program p has no einsum that defines Q alone"


def test_a_cost_model_decides() -> None:
    """A launch that costs a second makes one loop nest the best of all."""
    sizes = {"N": 20, "M": 20, "K": 20, "L": 20}
    fast = Context(extents=sizes, cost_model=MachineModel(launch_seconds=0.0))
    slow = Context(extents=sizes, cost_model=MachineModel(launch_seconds=1.0))
    assert len(contraction_report(parse(CHAIN), context=fast).steps) == 2
    assert len(contraction_report(parse(CHAIN), context=slow).steps) == 1


@pytest.mark.parametrize("seed", range(20))
def test_paths_are_what_numpy_takes(seed: int) -> None:
    net = random_network(seed)
    module = net.module(np.dtype(np.float64))
    context = Context(extents=net.symbols(40))
    path = contraction_report(module, context=context).path
    arrays = net.arrays(np.dtype(np.float64), seed)
    arguments = [x for k, term in enumerate(net.terms) for x in (arrays[f"x{k}"], list(term))]
    ours = np.einsum(*arguments, list(net.output), optimize=["einsum_path", *path])
    np.testing.assert_allclose(ours, net.by_numpy(arrays))


@pytest.mark.parametrize("text", ["", "(0,1)", "(1, 2), (0, 1)", "(0,1,2)", "(0,), (0, 1)"])
def test_paths_as_text(text: str) -> None:
    groups = parse_path(text)
    factors = sum(len(group) - 1 for group in groups) + 1
    nodes = checked_path(groups, factors)
    assert list_positions(nodes, factors) == groups


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (99_999, "99999"), (100_000, "1.00e+05"), (5 * 10**400, "5.00e+400")],
)
def test_counts_for_people(value: int, text: str) -> None:
    assert counted(value) == text
