"""The benchmark of dense code: what it measures, what it refuses to time, what it concludes."""

from __future__ import annotations

import io
import json
import mmap
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einloom as el
from benchmarks.dense import session, small
from benchmarks.dense.case import Array, Bar, Case, Form, Operand, error_of
from benchmarks.dense.cases import all_cases
from benchmarks.dense.contractions import as_given, at_level, product
from benchmarks.dense.kernels import Kernels, aligned
from benchmarks.dense.peers import PEERS, Machine, Peer
from benchmarks.dense.residency import STATUS, Residency
from benchmarks.dense.residency import measure as measure_memory
from benchmarks.dense.timing import Comparison, Interval, interval
from benchmarks.dense.verdict import best_peer, judge
from benchmarks.dense.worker import (
    ABSENT,
    MEASURED,
    NO_FORM,
    THEIRS_FAILED,
    UNSUPPORTED,
    WRONG,
    Measurement,
    measure,
    run,
)

ROOT = Path(__file__).resolve().parents[1]
BAR = (Bar(("numpy", "torch"), 1.0),)
CASE = product("ij,jk->ik 4", "ij,jk->ik", dict.fromkeys("ijk", 4), BAR, swap=as_given)


def ours(call: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """The preparation of a call that takes the operands."""
    return lambda arrays, out: lambda: call(*arrays)


def row(
    peer: str, ratio: float = 2.0, low: float | None = None, control: float = 1.0, **changes: Any
) -> Measurement:
    """A measurement as a worker would give it."""
    low = ratio if low is None else low
    found = Comparison(
        31,
        Interval(2e-6, 1.9e-6, 2.1e-6),
        Interval(ratio * 2e-6, low * 2e-6, ratio * 2e-6),
        Interval(ratio, low, ratio),
        Interval(control, control, control),
    )
    plain = Measurement("case", peer, 1, MEASURED, comparison=found)
    return replace(plain, **changes)


# ---- measuring ----------------------------------------------------------------------------


def test_a_case_is_checked_and_timed_against_a_peer() -> None:
    found = measure(CASE, Peer(1), 1, 3)
    assert (found.status, found.case, found.peer) == (MEASURED, "ij,jk->ik 4", "numpy")
    assert found.way in ("einsum", "matmul")
    assert found.preallocated == (found.way == "matmul")
    assert found.our_error is not None and 0 < found.our_error < found.tolerance
    assert found.their_error is not None and 0 < found.their_error < found.tolerance
    assert found.hold is not None and found.hold > 0
    assert found.comparison is not None and found.comparison.pairs == 3
    for part in ("ours", "theirs", "ratio", "control"):
        span = getattr(found.comparison, part)
        assert 0 < span.low <= span.median <= span.high


def test_a_wrong_result_is_not_timed() -> None:
    wrong = replace(CASE, ours=ours(lambda a, b: a @ b + np.float32(1e-3)))
    found = measure(wrong, Peer(1), 1, 3)
    assert (found.status, found.comparison) == (WRONG, None)
    assert found.our_error is not None and found.our_error > found.tolerance
    assert judge(wrong, [found]).text == "wrong result"


def test_a_wrong_result_with_out_is_caught() -> None:
    """The plain call is right, and the one that a preallocating peer is timed against is not."""

    def prepare(arrays: Any, out: Array | None) -> Callable[[], Any]:
        return lambda: arrays[0] @ arrays[1] if out is None else out.fill(0)

    forms = {"numpy": (CASE.forms["numpy"][1],)}
    found = measure(replace(CASE, ours=prepare, forms=forms), Peer(1), 1, 3)
    assert (found.status, found.comparison) == (WRONG, None)
    assert found.note == "with out=, the error is 1; at most 4.8e-07 is right"


def test_a_peer_with_a_wrong_result_is_not_timed() -> None:
    forms = {"numpy": (Form("sum", lambda np: np.add),)}
    found = measure(replace(CASE, forms=forms), Peer(1), 1, 3)
    assert (found.status, found.comparison) == (THEIRS_FAILED, None)
    assert found.note.startswith("sum: wrong result, error ")
    verdict = judge(CASE, [found])
    assert (verdict.text, verdict.why) == ("open", "not measured: torch, numpy")


def test_a_form_that_a_peer_lacks_is_said() -> None:
    forms = {"numpy": (Form("none", lambda np: np.no_such_function),)}
    found = measure(replace(CASE, forms=forms), Peer(1), 1, 3)
    assert found.status == THEIRS_FAILED
    assert found.note == "AttributeError: module 'numpy' has no attribute 'no_such_function'"


def test_a_peer_that_does_not_start_is_said() -> None:
    class Broken(Peer):
        def load(self, threads: int) -> Any:
            raise ImportError("a library of its own is missing")

    task = {"peer": "broken", "threads": 1, "cases": ["a", "b"], "pairs": 3, "most": 4}
    results = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PEERS, "broken", Broken)
        run(task, results)
    rows = [session.restored(json.loads(line)) for line in results.getvalue().splitlines()]
    assert [(r.case, r.status) for r in rows] == [("a", THEIRS_FAILED), ("b", THEIRS_FAILED)]
    assert rows[0].note == "ImportError: a library of its own is missing"


def test_what_we_do_not_support_is_said() -> None:
    def refuse(*arrays: Array) -> Array:
        raise el.UnsupportedError("not at this precision")

    found = measure(replace(CASE, ours=ours(refuse)), Peer(1), 1, 3)
    assert (found.status, found.note) == (UNSUPPORTED, "UnsupportedError: not at this precision")


def test_a_peer_without_a_form_is_said() -> None:
    assert measure(replace(CASE, forms={}), Peer(1), 1, 3).status == NO_FORM


def test_a_machine_without_tiles_is_said_and_the_error_is_still_measured() -> None:
    machine = Machine(1)
    machine.library.tiles = False
    level = at_level(CASE, "high")
    found = measure(level, machine, 1, 3)
    assert (found.status, found.note) == (ABSENT, "this processor has no AMX")
    assert found.our_error is not None and found.our_error <= level.tolerance
    assert judge(level, [found, row("highest", 0.5)]).text == "n/a"


def test_errors_are_relative_to_the_exact_result() -> None:
    exact = np.array([[3.0, 4.0]])
    assert error_of(np.array([[3.0, 4.5]], np.float32), exact) == pytest.approx(0.1)
    assert error_of(exact[0], exact) == np.inf
    assert error_of(np.array([[np.nan, 4.0]]), exact) == np.inf
    whole = np.array([1 << 53, 1])
    assert error_of(whole, whole) == 0
    assert error_of(whole + np.array([1, 0]), whole) == np.inf
    assert error_of(np.float32(3), np.array(4.0)) == 0.25


def test_an_interval_holds_the_median() -> None:
    assert interval([2.0] * 5) == Interval(2.0, 2.0, 2.0)
    found = interval([1.0, 2.0, 3.0, 4.0, 100.0])
    assert found.median == 3.0
    assert 1.0 <= found.low < 3.0 < found.high <= 100.0
    wide = interval(list(np.random.default_rng(1).normal(5, 1, 400)))
    # The standard error of a median of 400 normal samples is 0.063.
    assert 0.15 < wide.high - wide.low < 0.40


# ---- cases --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", all_cases(6), ids=lambda case: case.name)
def test_the_exact_result_has_the_shape_of_the_result(case: Case) -> None:
    exact = case.reference(*case.arrays(case.draw()))
    assert np.shape(exact) == case.result[0]
    assert case.flops or case.limit or case.bars or "path" in case.name or "run" in case.name


def test_operands_that_are_views_are_not_contiguous() -> None:
    case = next(case for case in all_cases() if "strided" in case.name)
    small_ones = [replace(o, shape=tuple(min(n, 8) for n in o.shape)) for o in case.operands]
    for operand in small_ones:
        base = operand.base(np.random.default_rng(0))
        view = operand.view(base)
        assert np.shares_memory(view, base) and not view.flags.c_contiguous
    assert [o.view(np.empty(o.shape, np.int8)).shape for o in case.operands] == [
        (96, 128, 160),
        (96, 128, 128),
    ]


def test_operands_lie_in_their_range() -> None:
    random = np.random.default_rng(0)
    whole = Operand((50, 50), "int8", -128, 128).base(random)
    assert (whole.dtype, whole.min(), whole.max()) == (np.int8, -128, 127)
    single = Operand((5000,), low=2.0, high=3.0).base(random)
    assert 2.0 <= single.min() < 2.01 and 2.99 < single.max() <= 3.0


def test_the_sweep_of_a_grid_is_its_contraction() -> None:
    labels = [label for line in small.grid(3, 4) for label in line]
    random = np.random.default_rng(0)
    arrays = [random.random((2,) * len(label)) for label in labels]
    letters = {label: chr(97 + n) for n, label in enumerate(sorted({*"".join(labels)}))}
    spec = ",".join("".join(letters[c] for c in label) for label in labels) + "->"
    assert small.swept(3, 4, arrays) == pytest.approx(np.einsum(spec, *arrays, optimize=True))


def test_the_machine_copies_what_it_is_timed_on() -> None:
    kernels = Kernels(2)
    array = np.random.default_rng(0).integers(0, 255, 512 * 7, np.uint8)
    for name in ("copy", "stream"):
        target = aligned(array.nbytes)
        kernels.copier(array, target, name)()
        assert np.array_equal(target, array)


# ---- memory -------------------------------------------------------------------------------


@pytest.mark.skipif(not STATUS.exists(), reason="resident memory is read from /proc")
def test_memory_that_a_call_takes_is_seen() -> None:
    def greedy(a: Array, b: Array) -> Array:
        # Mapped, for the allocator may hold so much already, freed by tests before.
        np.frombuffer(mmap.mmap(-1, 100 << 20), np.uint8)[:] = 1
        return np.asarray(a @ b)

    found = measure_memory(replace(CASE, ours=ours(greedy)))
    assert found.growth is not None and found.growth > 90 << 20
    assert (found.inputs, found.output) == (128, 64)
    assert found.met is False


def test_the_bar_of_memory_is_inputs_output_and_64_megabytes() -> None:
    found = Residency("case", MEASURED, 10, 5, growth=15 + (64 << 20))
    assert found.met is True
    assert replace(found, growth=16 + (64 << 20)).met is False
    assert replace(found, growth=None).met is None


# ---- verdicts -----------------------------------------------------------------------------


def test_a_bar_is_met_by_the_lower_end_against_every_peer() -> None:
    met = [row("numpy", 1.2, low=1.0), row("torch", 3.0)]
    assert judge(CASE, met).text == "met"
    missed = judge(CASE, [row("numpy", 1.2, low=0.99), row("torch", 3.0)])
    assert (missed.text, missed.why) == ("missed", "numpy: 0.99, bar ≥ 1")
    best = best_peer([row("machine", 0.1), *met])
    assert best is not None and best.peer == "numpy"


@pytest.mark.parametrize("control", [0.96, 1.04])
def test_an_unsteady_control_voids_a_row(control: float) -> None:
    found = judge(CASE, [row("numpy", control=control), row("torch")])
    assert (found.text, found.why) == ("void", f"control against numpy {control:.3f}")
    slower = judge(CASE, [row("numpy", control=control), row("torch", 0.5)])
    assert slower.text == "missed"


def test_a_peer_that_was_not_measured_leaves_a_bar_open() -> None:
    found = judge(CASE, [row("numpy")])
    assert (found.text, found.why) == ("open", "not measured: torch")
    assert judge(CASE, [row("numpy", 0.5)]).text == "missed"


def test_one_of_two_bars_may_be_enough() -> None:
    bars = (Bar(("machine",), 0.95), Bar(("numpy",), 1.2))
    case = replace(CASE, bars=bars, any_bar=True)
    assert judge(case, [row("machine", 0.5), row("numpy", 1.3)]).text == "met"
    assert judge(case, [row("machine", 0.96), row("numpy", 1.1)]).text == "met"
    assert judge(case, [row("machine", 0.5), row("numpy", 1.1)]).text == "missed"
    assert judge(case, [row("machine", 0.5), row("numpy", 1.3, control=2.0)]).text == "void"


def test_a_bar_in_seconds_is_on_the_upper_end() -> None:
    case = replace(CASE, bars=(Bar(seconds=2.1e-6),))
    assert judge(case, [row("machine")]).text == "met"
    case = replace(CASE, bars=(Bar(seconds=2.0e-6),))
    assert judge(case, [row("machine")]).text == "missed"
    assert judge(case, [row("numpy")]).text == "open"


# ---- the command --------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "dense", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_the_command_writes_tables_and_json(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    done = command(
        *("--small", "--pairs", "3", "--peers", "numpy,nonsense", "--threads", "1,4096"),
        *("--cases", "^(i,i-> 8 string|ij,ij-> 4096)", "--json", str(file)),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    assert set(found["left_out"]) == {"nonsense", "4096 threads"}
    assert "left out: nonsense: no peer of this name; known: numpy, opt_einsum" in done.stdout
    names = ["ij,ij-> 4096^2", "i,i-> 8 string"]
    assert [v["case"] for v in found["verdicts"]] == names
    measured = {(m["case"], m["peer"]): m for m in found["measurements"]}
    assert set(measured) == {(n, p) for n in names for p in ("machine", "highest", "numpy")}
    assert {m["status"] for (_, p), m in measured.items() if p != "highest"} == {MEASURED}
    assert [m["case"] for m in found["memory"]] == names
    assert found["surroundings"]["peers"] == {"numpy": np.__version__}
    assert all(name in done.stdout for name in names)
    assert "only 3 pairs: a verdict needs 31" in done.stdout


def test_no_case_of_a_name_is_an_error() -> None:
    done = command("--cases", "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "no case matches 'nothing'; --list prints their names\n"


def test_a_peer_that_is_not_installed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PEERS["numba"], "module", "einloom_has_no_such_module")
    assert session.missing_peers(["numpy", "numba"]) == {"numba": "numba is not installed"}


def test_a_process_that_dies_costs_one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process measures one case and dies in the second; the next one goes on."""
    started: list[list[str]] = []

    def start(module: str, task: Any, *_: Any) -> subprocess.Popen[str]:
        started.append(task["cases"])
        line = json.dumps({"case": task["cases"][0], "peer": "p", "threads": 1, "status": "x"})
        row = json.dumps({**json.loads(line), "comparison": None})
        status = 3 if len(task["cases"]) > 1 else 0
        code = f"import os; print({row!r}, flush=True); os._exit({status})"
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)

    monkeypatch.setattr(session, "start", start)
    rows = list(
        session.measured("p", 1, [0], ["a", "b", "c"], session.Plan(("p",)), lambda line: None)
    )
    assert started == [["a", "b", "c"], ["c"]]
    assert [(r.case, r.status) for r in rows] == [("a", "x"), ("b", "died"), ("c", "x")]
    assert rows[1].note == "process ended with status 3"
