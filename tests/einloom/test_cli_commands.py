"""`einloom compile`, `opt`, `explain`, `passes`, `cache`, `doctor`, and EINLOOM_DEBUG."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from einloom.api import load, parse
from einloom.cli import main
from einloom.passes.registry import ALL_PASSES

ROOT = Path(__file__).resolve().parents[2]
ATTENTION = str(ROOT / "examples" / "attention.ein")
Capture = pytest.CaptureFixture[str]

CHAIN = """\
program chain(A: f32[i=10, j=1000], B: f32[j=1000, k=10], C: f32[k=10, l=1000]) -> (D) {
  D[i, l] = A[i, j] * B[j, k] * C[k, l]
}
"""
RELU = """\
program relu(A: f32[i=N, j=8], B: f32[j=8, k=8]) -> (E) {
  C[i, k] = A[i, j] * B[j, k]
  E[i, k] = max(C[i, k] * 1.0, 0.0)
}
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for name in ("EINLOOM_DEBUG", "EINLOOM_NUM_THREADS", "EINLOOM_CACHE"):
        monkeypatch.delenv(name, raising=False)
    Path("chain.ein").write_text(CHAIN)
    Path("relu.ein").write_text(RELU)
    yield


def tables(text: str) -> dict[str, list[list[str]]]:
    """The tables of a report by their titles."""
    found: dict[str, list[list[str]]] = {}
    for part in text.split("\n\n"):
        title, *lines = part.strip("\n").splitlines()
        found[title.removeprefix("# ")] = [line.split("\t") for line in lines]
    return found


# ---- compile ------------------------------------------------------------------------------


def test_compile_prints_ir_that_parses(capsys: Capture) -> None:
    assert main(["compile", "relu.ein"]) == 0
    text = capsys.readouterr().out
    assert "kernel k0 {" in text
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("form", "mark"),
    [
        ("loops", "for parallel"),
        ("llvm", "define i32 @"),
        ("asm", ".text"),
    ],
)
def test_compile_emits(form: str, mark: str, capsys: Capture) -> None:
    assert main(["compile", "relu.ein", "--emit", form]) == 0
    assert mark in capsys.readouterr().out


def test_compile_optimized_differs(capsys: Capture) -> None:
    assert main(["compile", "relu.ein", "--emit", "llvm"]) == 0
    plain = capsys.readouterr().out
    assert main(["compile", "relu.ein", "--emit", "llvm", "--optimized"]) == 0
    assert capsys.readouterr().out != plain
    assert main(["compile", "relu.ein", "--emit", "asm", "--optimized"]) == 2
    assert "--optimized goes with --emit llvm" in capsys.readouterr().err


def test_compile_writes_an_object(capsys: Capture) -> None:
    assert main(["compile", "ij->ji", "--emit", "obj", "-o", "o/t.o"]) == 0
    data = Path("o/t.o").read_bytes()
    assert data[:4] in (b"\x7fELF", b"\xcf\xfa\xed\xfe")
    assert b"kernel.k0" in data
    assert capsys.readouterr().out == ""
    assert os.listdir("o") == ["t.o"]


def test_compile_never_overwrites_its_program(capsys: Capture) -> None:
    assert main(["compile", "relu.ein", "-o", "relu.ein"]) == 1
    assert capsys.readouterr().err.startswith("error: relu.ein is an input and would be")
    assert Path("relu.ein").read_text() == RELU


def test_compile_to_a_place_that_is_none(capsys: Capture) -> None:
    Path("file").write_text("")
    assert main(["compile", "relu.ein", "-o", "file/deep"]) == 1
    assert capsys.readouterr().err.startswith("error: cannot write file/deep: ")


def test_compile_strict_is_another_program(capsys: Capture) -> None:
    assert main(["compile", "ij->i", "--emit", "llvm"]) == 0
    relaxed = capsys.readouterr().out
    assert main(["compile", "ij->i", "--emit", "llvm", "--strict"]) == 0
    strict = capsys.readouterr().out
    assert "reassoc" in relaxed and "reassoc" not in strict


# ---- opt ----------------------------------------------------------------------------------


def test_opt_prints_what_the_pipeline_leaves(capsys: Capture) -> None:
    assert main(["opt", "relu.ein", "--passes", "simplify"]) == 0
    text = capsys.readouterr().out
    assert "* 1.0" not in text and "max(C[i, k], 0.0)" in text
    assert main(["opt", "relu.ein", "--passes", ""]) == 0
    assert capsys.readouterr().out == str(load("relu.ein"))


def test_opt_takes_options_of_passes(capsys: Capture) -> None:
    assert main(["opt", "relu.ein", "--passes", "fuse{max_ops=1}"]) == 0
    assert "kernel" not in capsys.readouterr().out
    assert main(["opt", "relu.ein", "--passes", "fuse{max_op=1}"]) == 1
    assert "did you mean max_ops?" in capsys.readouterr().err


def test_opt_refuses_an_illegal_order(capsys: Capture) -> None:
    assert main(["opt", "relu.ein", "--passes", "fuse, contract"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: contract must stand before fuse: ")
    assert "this order is legal: contract, fuse" in error


def test_opt_stops_disables_and_prints(capsys: Capture) -> None:
    assert main(["opt", "relu.ein", "--stop-after", "simplify"]) == 0
    assert "kernel" not in capsys.readouterr().out
    assert main(["opt", "relu.ein", "--disable", "fuse"]) == 0
    assert "kernel" not in capsys.readouterr().out
    assert main(["opt", "relu.ein", "--disable", "fues"]) == 1
    assert capsys.readouterr().err == "error: unknown pass 'fues'\n  hint: did you mean fuse?\n"
    assert main(["opt", "relu.ein", "--print-after", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "# after 1 simplify",
        "# after 2 contract: no change",
        "# after 3 fuse",
    ]
    assert main(["opt", "relu.ein", "--print-after", "fuse", "--passes", "simplify"]) == 2
    assert "--print-after fuse: it takes one of simplify, all" in capsys.readouterr().err


def test_opt_dumps_and_times(capsys: Capture) -> None:
    assert main(["opt", "relu.ein", "--dump-dir", "d", "--timings", "-o", "out.ein"]) == 0
    captured = capsys.readouterr()
    assert sorted(os.listdir("d")) == [
        "00-input.ein", "01-simplify.ein", "02-contract.ein", "03-fuse.ein",
    ]  # fmt: skip
    assert captured.out == ""
    names = [line.split("\t")[0] for line in captured.err.splitlines()]
    assert names == ["pass", "simplify", "contract", "fuse", "all"]
    assert load("out.ein") == load("d/03-fuse.ein")


# ---- explain ------------------------------------------------------------------------------


def test_explain_counts_work_and_traffic(capsys: Capture) -> None:
    assert main(["explain", "relu.ein", "--extent", "N=100", "--passes", "simplify"]) == 0
    work = tables(capsys.readouterr().out)["work of relu"]
    read, written = 4 * (100 * 8 + 8 * 8), 4 * 100 * 8
    assert [row[:7] for row in work] == [
        ["statement", "inside", "times", "FLOPs", "read", "written", "FLOPs/byte"],
        ["C", "-", "1", "12800", str(read), str(written), f"{12800 / (read + written):.6g}"],
        ["E", "-", "1", "800", str(written), str(written), "0.125"],
        ["all", "", "", "13600", str(read + written), str(2 * written),
         f"{13600 / (read + 3 * written):.6g}"],
    ]  # fmt: skip
    assert work[0][7] == "estimate"
    assert all(float(row[7]) > 0 for row in work[1:])


def test_explain_says_what_was_fused_and_what_it_saves(capsys: Capture) -> None:
    assert main(["explain", "relu.ein", "--extent", "N=100"]) == 0
    found = tables(capsys.readouterr().out)
    assert ["fuse", "k0", "C, E share the loops over i"] in found["decisions of passes"]
    # C stays inside the kernel: it moves no bytes, and only one row of it is kept.
    read, written = str(4 * (100 * 8 + 8 * 8)), str(4 * 100 * 8)
    assert [row[4:6] for row in found["work of relu"][1:]] == [
        [read, "0"], ["0", written], [read, written],
    ]  # fmt: skip
    storage = {row[0]: row[2:] for row in found["storage"][1:]}
    assert storage["A"] == ["3200", "input"]
    assert storage["C"] == ["32", "stack: one iteration of k0"]
    assert storage["E"] == ["3200", "result"]


def test_explain_gives_loop_orders_with_reasons(capsys: Capture) -> None:
    assert main(["explain", "relu.ein", "--extent", "N=100"]) == 0
    orders = tables(capsys.readouterr().out)["loop order, outermost first"]
    assert orders[1][:2] == ["C", "i (shared), j, k"]
    assert orders[1][2].startswith("k is innermost: 0 strided accesses")
    assert orders[2][:2] == ["E", "i (shared), k"]


def test_explain_names_the_path_and_the_refusals(capsys: Capture) -> None:
    assert main(["explain", "chain.ein"]) == 0
    decisions = tables(capsys.readouterr().out)["decisions of passes"]
    (contract,) = [row for row in decisions if row[0] == "contract"]
    assert contract[1] == "D"
    assert contract[2].startswith("split in 2 steps by the path of ")
    text = "program p(A: f32[i=4, j=4]) -> (S, B) {\n  S = sum[i, j] A[i, j]\n"
    Path("p.ein").write_text(text + "  B[i, j] = A[i, j] / S\n}\n")
    assert main(["explain", "p.ein"]) == 0
    decisions = tables(capsys.readouterr().out)["decisions of passes"]
    assert [row[2] for row in decisions if row[:2] == ["fuse", "B"]] == [
        "not fused: what it reads is computed by a statement on its own"
    ]


def test_explain_counts_the_iterations_of_scans(capsys: Capture) -> None:
    text = """
program running(A: f64[t=100, i=8]) -> (L) {
  scan t < 100 from { S[0, i] = 0.0 } { S[t+1, i] = S[t, i] + A[t, i] * 2.0 }
  L[i] = final(S)[i]
}
"""
    Path("s.ein").write_text(text)
    assert main(["explain", "s.ein"]) == 0
    found = tables(capsys.readouterr().out)
    assert found["work of running"][2][:4] == ["S", "scan t", "100", "1600"]
    storage = {row[0]: row[2:] for row in found["storage"][1:]}
    assert storage["S"] == [str(2 * 8 * 8), "its last 2 states"]


def test_explain_takes_a_spec(capsys: Capture) -> None:
    assert main(["explain", "ij,jk->ik", "--shape", "x0=3x5", "--shape", "x1=5x7"]) == 0
    captured = capsys.readouterr()
    assert tables(captured.out)["work of einsum"][1][3] == str(2 * 3 * 5 * 7)
    assert captured.err == ""


def test_explain_traversals_is_refused_by_name(capsys: Capture) -> None:
    assert main(["explain", "relu.ein", "--traversals"]) == 1
    assert capsys.readouterr().err.startswith("error: explain --traversals is not built yet\n")


# ---- passes, cache, doctor ----------------------------------------------------------------


def test_passes_are_listed(capsys: Capture) -> None:
    assert main(["passes"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["pass", "options", "what it does"]
    assert [row[0] for row in rows[1:]] == [cls.name for cls in ALL_PASSES]
    assert all(len(row) == 3 and row[2].endswith(".") for row in rows[1:])


def test_every_pass_has_a_manual(capsys: Capture) -> None:
    from einloom.passes.options import option_types

    for cls in ALL_PASSES:
        assert main(["passes", cls.name]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"{cls.name}\n\n")
        assert "Source: " in text or "source" in text.lower()
        for option in option_types(cls):
            assert f"\n  {option}: " in text
    assert main(["passes", "contrct"]) == 1
    assert "did you mean contract?" in capsys.readouterr().err


def test_default_pipelines(capsys: Capture) -> None:
    assert main(["passes", "--default"]) == 0
    assert capsys.readouterr().out == "cpu\tsimplify, contract, fuse\n"


def test_cache_is_shown_and_cleared(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINLOOM_CACHE_DIR", "kernels")
    program = "program p(A: f32[i=N, j=3]) -> (B) {\n  B[i, j] = A[i, j] + 1234.5\n}\n"
    Path("p.ein").write_text(program)
    assert main(["run", "p.ein"]) == 0
    capsys.readouterr()
    assert main(["cache"]) == 0
    found = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert found["folder"] == str(Path("kernels").resolve())
    assert (found["state"], found["entries"]) == ("in use", "1")
    assert int(found["size"]) > 0
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out.startswith("removed 1 entry, ")
    assert main(["cache", "info"]) == 0
    found = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert (found["entries"], found["size"]) == ("0", "0")


def test_a_cache_out_of_use_says_why(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINLOOM_CACHE", "0")
    assert main(["cache"]) == 0
    assert "state\tswitched off by EINLOOM_CACHE=0\n" in capsys.readouterr().out


def test_doctor_reports(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINLOOM_NUM_THREADS", "2")
    assert main(["doctor"]) == 0
    found = tables(capsys.readouterr().out)
    assert list(found) == ["versions", "machine", "cache on disk", "settings"]
    assert {row[0] for row in found["versions"]} >= {"einloom", "python", "numpy", "llvmlite"}
    machine = dict(found["machine"])
    assert machine["LLVM"].split(".")[0].isdigit()
    assert machine["cores"].split()[0] == str(len(os.sched_getaffinity(0)))
    settings = {row[0]: row[1] for row in found["settings"]}
    assert settings["EINLOOM_NUM_THREADS"] == "2"
    assert settings["EINLOOM_DEBUG"] == "unset: 0"


def test_doctor_finds_illegal_settings(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINLOOM_NUM_THREADS", "many")
    assert main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert "# versions" in captured.out
    assert captured.err.startswith("error: the environment variable EINLOOM_NUM_THREADS is 'many'")


# ---- EINLOOM_DEBUG ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "seen", "unseen"),
    [
        ("0", [], ["einloom:"]),
        ("1", ["einloom: 1 simplify: ", " ms, changed"], ["program relu", "share the loops"]),
        ("2", ["einloom: program relu(", "fuse: k0: C, E share the loops over i"], ["relu.ein:3:"]),
        ("3", ["einloom: relu.ein:3:", "mul_with_its_identity_is_dropped in E"], ["define"]),
        ("4", ["mul_with_its_identity_is_dropped", "einloom: define ", "einloom: \t.text"], []),
    ],
)
def test_debug_levels(
    level: str,
    seen: list[str],
    unseen: list[str],
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EINLOOM_DEBUG", level)
    assert main(["compile", "relu.ein"]) == 0
    captured = capsys.readouterr()
    for text in seen:
        assert text in captured.err
    for text in unseen:
        assert text not in captured.err
    assert str(parse(captured.out)) == captured.out
