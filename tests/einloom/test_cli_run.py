"""`einloom run`: inputs, sizes, checks, files, and what is said about all that was assumed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from einloom.cli import main
from einloom.cli.comparison import Roundings, compare, largest
from einloom.cli.inputs import random_inputs
from einloom.ir.program import Module

Capture = pytest.CaptureFixture[str]

SCALED = "program scaled(A: f64[i=N], s: f64) -> (B) {\n  B[i] = A[i] * s\n}\n"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EINLOOM_DEBUG", raising=False)
    yield


def program(text: str, name: str = "p.ein") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def module(text: str) -> Module:
    from einloom.api import parse

    return parse(text)


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


# ---- results ------------------------------------------------------------------------------


def test_results_are_named_typed_and_summarised(capsys: Capture) -> None:
    np.save("a.npy", np.array([1.0, -2.0, 4.0]))
    assert main(["run", program(SCALED), "--input", "A=a.npy", "--input", "s=0.5"]) == 0
    captured = capsys.readouterr()
    assert rows(captured.out) == [
        ["result", "dtype", "shape", "min", "max", "mean", "first values"],
        ["B", "f64", "3", "-1", "2", "0.5", "0.5 -1 2"],
    ]
    assert captured.err == ""


def test_what_nobody_gave_is_said(capsys: Capture) -> None:
    assert main(["run", program(SCALED), "--seed", "5"]) == 0
    assert capsys.readouterr().err == (
        "note: N = 64: no size was given (--extent)\n"
        "note: random inputs, seed 5: A, s (standard normal)\n"
    )


def test_one_seed_gives_one_result(capsys: Capture) -> None:
    outputs = []
    for seed in ("1", "1", "2"):
        assert main(["run", program(SCALED), "--extent", "N=5", "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


def test_results_of_every_kind(capsys: Capture) -> None:
    text = """
program kinds(A: f32[i=3], Z: c64[i=3], U: u8[i=3]) -> (V, C, B, E) {
  V: (f32, i64) = argmax[i] (A[i], iota(i))
  C[i] = Z[i] * Z[i]
  B[i] = U[i] > 4
  E: f32[i=0] = 1.0
}
"""
    np.save("a.npy", np.array([1, 5, 2], np.float32))
    np.save("z.npy", np.array([1j, 2, 0], np.complex64))
    np.save("u.npy", np.array([4, 5, 6], np.uint8))
    line = ["--input", "A=a.npy", "--input", "Z=z.npy", "--input", "U=u.npy", "--check"]
    assert main(["run", program(text), *line]) == 0
    table = rows(capsys.readouterr().out)
    assert table[1:6] == [
        ["V.0", "f32", "scalar", "5", "5", "5", "5"],
        ["V.1", "i64", "scalar", "1", "1", "1", "1"],
        ["C", "c64", "3", "-", "-", "1+0j", "-1+0j 4+0j 0+0j"],
        ["B", "bool", "3", "False", "True", "0.6667", "False True True"],
        ["E", "f32", "0", "-", "-", "-", "empty"],
    ]
    assert [row[3] for row in table[7:]] == ["yes"] * 5


def test_a_spec_runs(capsys: Capture) -> None:
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    np.save("a.npy", a)
    np.save("b.npy", b)
    line = ["run", "ij,jk->ik", "--input", "x0=a.npy", "--input", "x1=b.npy", "--output", "out"]
    assert main(line) == 0
    np.testing.assert_array_equal(np.load("out/result.npy"), a @ b)
    captured = capsys.readouterr()
    assert rows(captured.out)[1][2:5] == ["2x4", "20", "92"]
    assert captured.err == f"note: result is in {Path('out/result.npy')}\n"


def test_sizes_of_a_spec(capsys: Capture) -> None:
    line = ["run", "ij,jk->ik", "--shape", "x0=2x3", "--extent", "k=5", "--dtype", "x1=f64"]
    assert main(line) == 0
    captured = capsys.readouterr()
    assert rows(captured.out)[1][1:3] == ["f64", "2x5"]
    assert captured.err == "note: random inputs, seed 0: x0, x1 (standard normal)\n"
    assert main(["run", "ij->ji", "--shape", "x0=1x3", "--extent", "i=1"]) == 0
    capsys.readouterr()
    assert main(["run", "ij->ji"]) == 0
    assert capsys.readouterr().err.startswith("note: i, j = 64: no size was given (--extent)\n")


SPEC_ERRORS = {
    ("ij,jk->ik", "--shape", "x0=2x3", "--shape", "x1=4x5"): (
        1,
        "error: einsum:1:4: rank 'j' is 4 in operand 1, but 3 in operand 0\n",
    ),
    ("ij->ji", "--extent", "q=3"): (
        1,
        "error: the spec has no label q\n  hint: its labels are: i, j\n",
    ),
    ("ij->ji", "--shape", "x0=2x3", "--extent", "i=3"): (
        1,
        "error: label i is 2 in the operands, but --extent says 3\n",
    ),
    ("ij->ji", "--shape", "x1=2x3"): (
        2,
        "einloom run: error: --shape x1: the operands are x0\n",
    ),
    ("i...->i...",): (
        2,
        "einloom run: error: what ... stands for is open: --shape x0=8x16\n",
    ),
    ("ij->ji", "--dtype", "x0=f33"): (1, "error: 'f33' is no dtype\n"),
    ("abcdefghij->a",): (1, "error: random inputs would need more than "),
}


@pytest.mark.parametrize("line", SPEC_ERRORS)
def test_errors_of_specs(line: tuple[str, ...], capsys: Capture) -> None:
    status, message = SPEC_ERRORS[line]
    assert main(["run", *line]) == status
    assert capsys.readouterr().err.startswith(message)


# ---- inputs -------------------------------------------------------------------------------


INPUT_ERRORS = {
    ("--input", "Q=a.npy"): "error: the program has no input Q\n  hint: its inputs: A, s\n",
    ("--input", "A=none.npy"): "error: cannot read none.npy for A: No such file or directory\n",
    ("--input", "A=junk.npy"): (
        "error: cannot read junk.npy for A: it is not an array in a .npy file\n"
    ),
    ("--input", "A=two.npz"): "error: cannot read two.npz for A: it holds several arrays\n",
    ("--input", "A=a.npy", "--extent", "N=4"): (
        "error: N does not fit: A has shape (3,), but --extent says 4\n"
    ),
    ("--extent", "M=4"): "error: the program has no symbol M\n  hint: its symbols are: N\n",
    ("--input", "A=f32.npy"): ("error: p.ein:1:16: A is declared f64, the array is float32\n"),
    ("--shape", "A=3"): (
        "einloom run: error: --shape goes with an einsum spec; a program states its types\n"
    ),
}


@pytest.mark.parametrize("line", INPUT_ERRORS)
def test_errors_of_inputs(line: tuple[str, ...], capsys: Capture) -> None:
    np.save("a.npy", np.ones(3))
    np.save("f32.npy", np.ones(3, np.float32))
    np.savez("two.npz", a=np.ones(3))
    Path("junk.npy").write_text("junk")
    assert main(["run", program(SCALED), *line]) == (2 if "--shape" in line else 1)
    assert INPUT_ERRORS[line] in capsys.readouterr().err


def test_an_extent_is_an_input_too(capsys: Capture) -> None:
    text = "program ones(T: extent) -> (Y) {\n  Y: f32[t=T] = 1.0\n}\n"
    assert main(["run", program(text), "--input", "T=3"]) == 0
    assert rows(capsys.readouterr().out)[1][2] == "3"
    assert main(["run", "p.ein", "--extent", "T=4"]) == 0
    assert rows(capsys.readouterr().out)[1][2] == "4"
    assert main(["run", "p.ein", "--input", "T=4", "--extent", "T=5"]) == 1
    assert capsys.readouterr().err == ("error: T does not fit: it is 4, but --extent says 5\n")


def test_bf16_goes_through_files(capsys: Capture) -> None:
    text = "program double(A: bf16[i=N]) -> (B) {\n  B[i] = A[i] + A[i]\n}\n"
    np.save("a.npy", np.array([1.0, 2.5], ml_dtypes.bfloat16))
    assert main(["run", program(text), "--input", "A=a.npy", "--output", "o"]) == 0
    assert np.load("o/B.npy").view(ml_dtypes.bfloat16).astype(float).tolist() == [2.0, 5.0]


def randoms(text: str, seed: int = 0, **sizes: int) -> dict[str, Any]:
    return {r.name: r.value for r in random_inputs(module(text), sizes, {}, seed)}


def test_random_values_suit_their_dtypes() -> None:
    text = """
program p(A: f32[i=N], B: f64[i=N], H: f16[i=N], C: c64[i=N], F: bool[i=N], I: i8[i=N], U: u8[i=N],
          Z: zq<17>[i=N], T: (f32, i64)[i=N], S: f32[i=N] (compressed)) -> (Y) {
  Y[i] = A[i]
}
"""
    made = randoms(text, N=4000)
    dtypes = {name: value.dtype.name for name, value in made.items() if name != "T"}
    assert dtypes == {
        "A": "float32", "B": "float64", "H": "float16", "C": "complex64", "F": "bool",
        "I": "int8", "U": "uint8", "Z": "uint64", "S": "float32",
    }  # fmt: skip
    for name in "AB":
        assert abs(float(made[name].mean())) < 0.1 and abs(float(made[name].std()) - 1) < 0.1
    assert set(made["I"].tolist()) == set(range(-9, 10))
    assert set(made["U"].tolist()) == set(range(10))
    assert set(made["Z"].tolist()) == set(range(17))
    assert set(made["F"].tolist()) == {False, True}
    assert made["T"].dtype == np.dtype([("f0", "f4"), ("f1", "i8")])
    assert abs((made["S"] != 0).mean() - 0.1) < 0.03
    assert not np.array_equal(made["A"], made["B"].astype(np.float32))


def test_random_indices_stay_inside_what_they_index() -> None:
    text = """
program p(W: f32[v=V, d=D], a: i64[t=N], b: i32[t=N], c: i64[t=N]) -> (X) {
  X[t, d] = W[a[t], d] + W[2 * b[t] + 1, d] * c[t]
}
"""
    made = randoms(text, N=4000, V=8, D=2)
    assert set(made["a"].tolist()) == set(range(8))
    assert set(made["b"].tolist()) == {0, 1, 2, 3}
    assert set(made["c"].tolist()) == set(range(-9, 10))


def test_random_indices_of_a_scatter_stay_inside_the_result() -> None:
    text = """
program p(A: f32[t=N], b: i32[t=N]) -> (G) {
  G: f32[v=3][b[t]] = sum[t] A[t]
}
"""
    assert set(randoms(text, N=500)["b"].tolist()) == {0, 1, 2}


def test_random_indices_leave_room_for_what_is_added() -> None:
    text = """
program p(W: f32[v=10], b: i64[t=N]) -> (Y) {
  Y[t] = sum[r] W[b[t] + r] where r < 4
}
"""
    assert set(randoms(text, N=500)["b"].tolist()) == set(range(7))


# ---- checks and times ---------------------------------------------------------------------


def test_check_agrees(capsys: Capture) -> None:
    assert main(["run", "ij,jk->ik", "--check", "--extent", "i=7"]) == 0
    table = rows(capsys.readouterr().out)
    assert table[2] == ["result", "max error", "tolerance", "agrees"]
    assert table[3][0] == "result" and table[3][3] == "yes"
    assert float(table[3][1]) <= float(table[3][2])


def test_check_finds_a_wrong_result(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from einloom.executable import Executable

    right = Executable.run

    def wrong(self: Executable, arrays: Any) -> Any:
        results = right(self, arrays)
        results["B"][3] += 0.25
        return results

    monkeypatch.setattr(Executable, "run", wrong)
    words = ["--check", "--extent", "N=5", "--output", "o"]
    assert main(["run", program(SCALED), *words]) == 1
    assert not Path("o").exists()
    captured = capsys.readouterr()
    assert rows(captured.out)[3][:2] == ["B", "0.25"]
    assert rows(captured.out)[3][3] == "NO, at [3]"
    assert "error: B differs by 0.25 at [3]; tolerance " in captured.err
    assert "einloom opt --bisect" in captured.err


def test_time_prints_a_median(capsys: Capture) -> None:
    assert main(["run", program(SCALED), "--time", "--threads", "1"]) == 0
    table = rows(capsys.readouterr().out)
    assert table[2] == ["median", "fastest", "slowest", "first, with compiling", "runs"]
    median, fastest, slowest, first, runs = map(float, table[3])
    assert 0 < fastest <= median <= slowest
    assert first > 0 and runs >= 3


COUNTED = Roundings(steps=10, statements=1, coarsest=2.0**-23)


@pytest.mark.parametrize(
    ("ours", "theirs", "agrees"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.00001], [1.0, 2.0], True),
        ([1.0, 2.001], [1.0, 2.0], False),
        ([np.nan, 1.0], [np.nan, 1.0], True),
        ([np.nan, 1.0], [1.0, 1.0], False),
        ([np.inf, 1.0], [np.inf, 1.0], True),
        ([np.inf, 1.0], [-np.inf, 1.0], False),
        ([1e38, 1.0], [np.inf, 1.0], False),
        ([0.0, 1e-9], [0.0, 0.0], True),
        ([], [], True),
    ],
)
def test_comparison_of_floats(ours: list[float], theirs: list[float], agrees: bool) -> None:
    left, right = np.array(ours, np.float32), np.array(theirs, np.float32)
    (difference,) = compare({"x": left}, {"x": right}, COUNTED)
    assert difference.agrees == agrees


def test_comparison_of_exact_dtypes() -> None:
    (difference,) = compare({"x": np.array([1, 2])}, {"x": np.array([1, 3])}, COUNTED)
    assert (difference.error, difference.tolerance, difference.place) == (1.0, 0.0, (1,))
    big = np.array([2**62 + 1]), np.array([2**62])
    assert not compare({"x": big[0]}, {"x": big[1]}, COUNTED)[0].agrees
    assert not compare({"x": np.ones(2)}, {"x": np.ones(2, np.float32)}, COUNTED)[0].agrees


def test_comparison_of_tuples_names_the_component() -> None:
    dtype = [("f0", "f4"), ("f1", "i8")]
    left, right = np.array([(1.0, 2)], dtype), np.array([(1.0, 3)], dtype)
    found = compare({"x": left}, {"x": right}, COUNTED)
    assert [(d.name, d.agrees) for d in found] == [("x.0", True), ("x.1", False)]


def test_tiny_inputs_are_not_compared_with_one() -> None:
    left, right = np.array([2e-20], np.float32), np.array([0.0], np.float32)
    assert not compare({"x": left}, {"x": right}, COUNTED, largest({"a": left}))[0].agrees


# ---- files --------------------------------------------------------------------------------


def test_output_is_written_whole(capsys: Capture) -> None:
    assert main(["run", program(SCALED), "--extent", "N=4", "--output", "deep/er"]) == 0
    assert np.load("deep/er/B.npy").shape == (4,)
    assert os.listdir("deep/er") == ["B.npy"]
    mask = os.umask(0)
    os.umask(mask)
    assert os.stat("deep/er/B.npy").st_mode & 0o777 == 0o666 & ~mask


def test_output_never_overwrites_an_input(capsys: Capture) -> None:
    os.mkdir("o")
    np.save("o/B.npy", np.arange(3.0))
    assert main(["run", program(SCALED), "--input", "A=o/B.npy", "--output", "o"]) == 1
    captured = capsys.readouterr()
    assert captured.err == (
        "error: o/B.npy is an input and would be overwritten\n"
        "  hint: name another place for the output\n"
    )
    assert captured.out == ""
    np.testing.assert_array_equal(np.load("o/B.npy"), np.arange(3.0))


def test_a_failed_write_leaves_nothing(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "program two(A: f32[i=4]) -> (B, C) {\n  B[i] = A[i] + 1.0\n  C[i] = A[i] * 2.0\n}\n"
    real, calls = np.save, []

    def failing(file: Any, array: Any, **options: Any) -> None:
        calls.append(file)
        if len(calls) == 2:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        real(file, array, **options)

    monkeypatch.setattr(np, "save", failing)
    assert main(["run", program(text), "--output", "o"]) == 1
    assert capsys.readouterr().err.endswith("error: cannot write o: No space left on device\n")
    assert os.listdir("o") == []


def test_output_must_be_a_folder(capsys: Capture) -> None:
    assert main(["run", program(SCALED), "--output", "p.ein"]) == 1
    assert capsys.readouterr().err == "error: --output takes a folder, and p.ein is none\n"


def test_names_that_are_no_file_names() -> None:
    text = "program p(A: f32[i=2]) -> (`a/../b`) {\n  `a/../b`[i] = A[i] + 1.0\n}\n"
    assert main(["run", program(text), "--output", "o"]) == 0
    assert os.listdir("o") == ["a%2f..%2fb.npy"]
