"""`explain`: how contractions are cut and why not, memory, and predictions beside measurements."""

from __future__ import annotations

from pathlib import Path

import pytest

import einloom as el
from einloom.api import TensorSpec, compile, parse
from einloom.backends.cost import cost_of
from einloom.cli import main
from einloom.executable import Executable
from einloom.passes.lowering.products.blocking import Blocking
from einloom.predictions import costs, decisions, kernel_times, kernels_of, loops_for
from einloom.report import Quantity, Table

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No measurements but those of the test."""
    monkeypatch.setenv("EINLOOM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def product(
    rows: int, terms: int, columns: int, dtype: str = "f32", **options: object
) -> Executable:
    specs = TensorSpec((rows, terms), dtype), TensorSpec((terms, columns), dtype)
    return compile("ij,jk->ik", *specs, **options)  # type: ignore[arg-type]


def table(executable: Executable, title: str, measure: bool = False) -> Table:
    (found,) = [t for t in executable.explain(measure=measure).tables if t.title == title]
    return found


def titles(executable: Executable) -> list[str]:
    return [t.title for t in executable.explain().tables]


# ---- how statements are cut ---------------------------------------------------------------


def test_a_packed_product_tells_its_blocks() -> None:
    executable = product(96, 512, 96)
    (row,) = table(executable, "contractions and transpositions").rows
    name, shape, cut, packed, in_place, why = row
    assert (name, shape, packed, in_place) == ("result", "96 x 96 x 512", "x1", "x0")
    (decision,) = decisions(executable, executable.sizes(None))
    blocking = decision.cut
    assert isinstance(blocking, Blocking)
    # What is told is what the loops do: their buffer has these extents.
    text = executable.ir("loops")
    assert f"f32[{blocking.block_columns // blocking.columns}, {blocking.depth}, " in text
    assert str(cut).startswith(f"tiles {blocking.rows} x {blocking.columns}, ")
    wanted = 96 * 96 / (-(-96 // blocking.rows) * blocking.rows)
    wanted /= -(-96 // blocking.columns) * blocking.columns
    assert decision.share == pytest.approx(wanted)
    assert why == f"{100 * wanted:.0f} % of what its tiles compute is wanted"


@pytest.mark.parametrize(
    ("spec", "shapes", "dtype", "reason"),
    [
        ("ij,jk->ik", [(8, 8), (8, 8)], "f32", "512 multiplications are fewer than 64000"),
        ("ij,j->i", [(512, 512), (512,)], "f32",
         "it has no rows, or no columns: an index of the result that one side alone has"),
        ("ij,ij->i", [(512, 512), (512, 512)], "f32",
         "it has no rows, or no columns: an index of the result that one side alone has"),
        ("ij,jk->ik", [(64, 64), (64, 64)], "c64", "c64 is not computed in vectors"),
    ],
)  # fmt: skip
def test_reasons_why_a_contraction_is_not_cut(
    spec: str, shapes: list[tuple[int, ...]], dtype: str, reason: str
) -> None:
    executable = compile(spec, *(TensorSpec(shape, dtype) for shape in shapes))
    (row,) = table(executable, "contractions and transpositions").rows
    assert row[0] == "result"
    assert row[2:] == ("-", "-", "-", f"not cut: {reason}")


def test_strict_sums_are_not_cut() -> None:
    (row,) = table(product(64, 64, 64, strict=True), "contractions and transpositions").rows
    assert row[-1] == "not cut: strict: sums are added up in their written order"


def test_a_contraction_in_a_scan_is_not_cut() -> None:
    text = """program p(A: f32[i=64, j=64]) -> (Y) {
      scan t < 3 from { S[0, i, j] = A[i, j] } { S[t+1, i, j] = sum[k] S[t, i, k] * A[k, j] }
      Y[i, j] = final(S)[i, j]
    }"""
    (row,) = table(compile(text), "contractions and transpositions").rows
    assert (row[0], row[-1]) == ("S", "not cut: it stands in a scan")


def test_a_transposition_tells_its_tiles_and_a_copy_is_not_listed() -> None:
    turned = compile("ij->ji", TensorSpec((256, 256)))
    (row,) = table(turned, "contractions and transpositions").rows
    assert str(row[2]).startswith("squares of ")
    assert row[-1] == "it reads one way and writes another"
    same = compile("program p(A: f32[i=256, j=256]) -> (B) { B[i, j] = A[i, j] + 1.0 }")
    assert "contractions and transpositions" not in titles(same)


def test_a_sum_of_one_factor_is_no_contraction() -> None:
    assert "contractions and transpositions" not in titles(compile("ij->i", TensorSpec((64, 64))))


# ---- memory -------------------------------------------------------------------------------


def chain(size: int) -> Executable:
    text = f"program chain(A: f32[i={size}, j={size}], B: f32[j={size}, k={size}], "
    text += f"C: f32[k={size}, l={size}]) -> (D) {{\n  T[i, k] = A[i, j] * B[j, k]\n"
    return compile(text + "  D[i, l] = T[i, k] * C[k, l]\n}", pipeline="simplify")


def test_memory_beyond_inputs_and_results_is_accounted_for() -> None:
    small = table(chain(256), "memory beyond inputs and results")
    assert small.rows[0] == (
        "T", Quantity(4.0 * 256 * 256, "bytes"), "intermediate between kernels",
    )  # fmt: skip
    *parts, (last, total, verdict) = small.rows
    buffers = [row[1].value for row in parts[1:] if isinstance(row[1], Quantity)]
    assert (last, verdict) == ("at most", "within 64 MB")
    assert isinstance(total, Quantity) and total.value == 4.0 * 256 * 256 + max(buffers)
    large = table(chain(4096), "memory beyond inputs and results")
    assert large.rows[-1][2] == "more than 64 MB: T"


def test_each_thread_has_buffers_of_its_own() -> None:
    def buffers(threads: int) -> tuple[float, str]:
        with el.options(threads=threads):
            row = table(chain(256), "memory beyond inputs and results").rows[1]
        assert isinstance(row[1], Quantity)
        return row[1].value, str(row[2])

    (one, first), (two, second) = buffers(1), buffers(2)
    assert (first, second) == ("buffers of 1 thread", "buffers of 2 threads")
    assert two == 2 * one > 0


def test_a_program_that_needs_nothing_says_nothing() -> None:
    text = "program p(A: f32[i=N]) -> (B) { B[i] = A[i] + 1.0 }"
    assert "memory beyond inputs and results" not in titles(compile(text))


def test_intermediates_of_a_kernel_that_is_cut_are_kept_whole() -> None:
    text = """program p(A: f32[i=N, j=N], B: f32[j=N, k=N]) -> (E) {
      C[i, k] = A[i, j] * B[j, k]
      M[i] = max[k] C[i, k]
      E[i, k] = C[i, k] - M[i]
    }"""
    executable = compile(text, extents={"N": 128})
    storage = {str(row[0]): row[2:] for row in table(executable, "storage").rows}
    assert storage["C"] == (Quantity(4.0 * 128 * 128, "bytes"), "whole, between kernels")
    assert loops_for(executable, {"N": 128}).storages[0].name == "C"


# ---- predictions and measurements ---------------------------------------------------------


def test_predictions_are_those_of_the_packed_product() -> None:
    executable = product(512, 512, 512)
    (cost,) = costs(executable, executable.sizes(None))
    plain = cost_of(executable.module, executable.sizes(None))
    assert cost.seconds < plain[0].seconds / 2
    assert [c.seconds for c in executable.cost()] == [cost.seconds]
    with el.options(threads=1):
        assert executable.cost()[0].seconds > cost.seconds


def test_kernels_are_those_that_are_launched() -> None:
    text = """program p(A: f32[i=N, j=N], x: f32[j=N]) -> (Y, Z) {
      Y[i] = sum[j] A[i, j] * x[j]
      scan t < 3 from { S[0, i] = Y[i] } { S[t+1, i] = S[t, i] * 2.0 }
      T[i] = final(S)[i] + 1.0
      Z[i] = exp(T[i])
    }"""
    executable = compile(text, extents={"N": 16})
    loops = loops_for(executable, {"N": 16})
    found = kernels_of(loops, costs(executable, {"N": 16}))
    assert [[c.name for c in own] for _, own in found] == [["Y"], ["S", "S"], ["T", "Z"]]
    names = [name for kernels, _ in found for name in kernels]
    assert names == [launch.function for launch in loops.launches]


def test_kernels_that_prepare_others_stand_with_them() -> None:
    executable = compile("ij->j", TensorSpec((4096, 64)))
    sizes = executable.sizes(None)
    loops = loops_for(executable, sizes)
    found = kernels_of(loops, costs(executable, sizes))
    assert [[c.name for c in own] for _, own in found] == [["result"]]
    assert len(found[0][0]) == len(loops.launches)


def test_measured_kernels_beside_their_predictions() -> None:
    executable = product(64, 64, 64)
    (time,) = kernel_times(executable, executable.sizes(None))
    assert (time.kernels, time.costs[0].name) == (("k0_result",), "result")
    assert time.seconds > 0
    found = table(executable, "predicted and measured", measure=True)
    assert found.columns == (
        "kernel", "statements", "predicted", "measured", "ratio", "FLOP/s", "bytes/s",
        "of roofline",
    )  # fmt: skip
    (row,) = found.rows
    predicted, measured, ratio, flops, moved, share = (
        cell.value for cell in row[2:] if isinstance(cell, Quantity)
    )
    (cost,) = executable.cost()
    assert predicted == cost.seconds
    assert ratio == pytest.approx(measured / predicted)
    assert flops == pytest.approx(2 * 64**3 / measured, rel=1e-6)
    assert moved == pytest.approx(3 * 4 * 64 * 64 / measured, rel=1e-6)
    assert share == pytest.approx(max(cost.computing, cost.moving) / measured)


def test_measured_programs_of_several_kernels_are_summed_up() -> None:
    found = table(chain(32), "predicted and measured", measure=True)
    assert [row[:2] for row in found.rows] == [("k0_T", "T"), ("k1_D", "D"), ("all", "")]
    seconds = [row[3].value for row in found.rows if isinstance(row[3], Quantity)]
    assert seconds[2] == pytest.approx(seconds[0] + seconds[1])


def test_without_measure_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from einloom import predictions

    monkeypatch.setattr(predictions, "_seconds", None)
    assert "predicted and measured" not in titles(product(8, 8, 8))


def test_the_command_measures(capsys: Capture) -> None:
    assert main(["explain", "ij,jk->ik", "--extent", "i=8", "--extent", "j=8", "--extent", "k=8",
                 "--measure", "--threads", "1"]) == 0  # fmt: skip
    captured = capsys.readouterr()
    lines = captured.out.split("# predicted and measured\n")[1].splitlines()
    assert lines[1].split("\t")[:2] == ["k0_result", "result"]
    assert captured.err == (
        "note: this machine was not measured (einloom doctor --measure): predictions and the "
        "roofline are those of a default machine\n"
    )


def test_programs_with_extents_as_inputs_are_measured() -> None:
    module = parse("program p(N: extent, A: f32[i=N]) -> (B) { B[i] = A[i] * 2.0 }")
    assert kernel_times(compile(module), {"N": 100})[0].seconds > 0
