"""`autotune`: one of the candidates is taken and kept, and results stay right."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import einloom as el
from einloom import autotuning
from einloom.api import TensorSpec, compile
from einloom.executable import Executable
from einloom.passes.lowering.products.alternatives import alternatives_of
from einloom.passes.lowering.products.blocking import Blocking

SHAPE = (96, 400, 160)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and quick measurements."""
    monkeypatch.setenv("EINLOOM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("EINLOOM_CACHE", raising=False)
    monkeypatch.setattr(autotuning, "SECONDS", 0.0)
    el.cache_clear()
    return tmp_path / "cache"


def product(**options: object) -> Executable:
    rows, terms, columns = SHAPE
    specs = TensorSpec((rows, terms)), TensorSpec((terms, columns))
    return compile("ij,jk->ik", *specs, **options)  # type: ignore[arg-type]


def cut(executable: Executable) -> Blocking:
    found = dict(executable.blockings(executable.default_layouts(), executable.sizes(None)))
    blocking = found["result"]
    assert isinstance(blocking, Blocking)
    return blocking


def candidates() -> tuple[Blocking, ...]:
    rows, terms, columns = SHAPE
    return alternatives_of(cut(product()), (rows, columns, terms))


def choose(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Let measurements find a candidate the fastest; returns the sizes of what was measured."""
    asked: list[int] = []

    def times(runs: list[object]) -> list[float]:
        asked.append(len(runs))
        return [0.5 if k == number else 1.0 for k in range(len(runs))]

    monkeypatch.setattr(autotuning, "_prepared", lambda *ignored: None)  # nothing is compiled
    monkeypatch.setattr(autotuning, "fastest_runs", times)
    return asked


def test_candidates_differ_from_the_usual_cut_in_one_respect() -> None:
    usual, *others = candidates()
    assert usual == cut(product()) and len(others) >= 2
    for other in others:
        assert (other.rows, other.lanes, other.block_rows) == (
            usual.rows, usual.lanes, usual.block_rows,
        )  # fmt: skip
        assert other.block_columns % other.columns == 0
        changed = [other.depth != usual.depth, other.vectors != usual.vectors]
        wider = other.block_columns == 2 * usual.block_columns
        assert changed.count(True) + wider == 1


def test_a_shallow_product_keeps_its_terms() -> None:
    usual = cut(compile("ij,jk->ik", TensorSpec((512, 12)), TensorSpec((12, 512))))
    found = alternatives_of(usual, (512, 512, 12))
    assert {blocking.depth for blocking in found} == {usual.depth}


def test_the_fastest_is_taken_and_kept(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    every = candidates()
    asked = choose(monkeypatch, 2)
    executable = product(autotune=True)
    assert asked == [len(every)]
    assert cut(executable) == every[2]
    again = product(autotune=True)
    assert cut(again) == every[2] and len(asked) == 1
    # Another process finds it on disk.
    stored = sorted(folder.iterdir())
    from einloom.cache import memory_cache

    memory_cache().clear()
    assert cut(product(autotune=True)) == every[2]
    assert len(asked) == 1 and sorted(folder.iterdir()) == stored


def test_a_second_contraction_is_measured_with_the_choice_for_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choose(monkeypatch, 1)
    tried: list[dict[str, object]] = []
    monkeypatch.setattr(autotuning, "_prepared", lambda *given: tried.append(dict(given[-1])))
    compile(
        "program p(A: f32[i=96, j=400], B: f32[j=400, k=160], C: f32[k=160, l=96]) -> (D) {\n"
        "  T[i, k] = A[i, j] * B[j, k]\n  D[i, l] = T[i, k] * C[k, l]\n}\n",
        autotune=True,
    )
    first, second = (len({str(x[name]) for x in tried}) for name in ("T", "D"))
    assert first > 1 and second > 1 and len(tried) == first + second
    assert all(x["T"] == tried[1]["T"] for x in tried[first:])


def test_a_gain_that_may_be_noise_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, 1)
    monkeypatch.setattr(autotuning, "fastest_runs", lambda runs: [1.0, *[0.98] * (len(runs) - 1)])
    assert cut(product(autotune=True)) == candidates()[0]


def test_every_candidate_computes_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, terms, columns = SHAPE
    generator = np.random.default_rng(0)
    left = generator.standard_normal((rows, terms)).astype(np.float32)
    right = generator.standard_normal((terms, columns)).astype(np.float32)
    exact = left.astype(np.float64) @ right.astype(np.float64)
    bound = terms * 2.0**-24 * (np.abs(left).astype(np.float64) @ np.abs(right))
    for number in range(len(candidates())):
        el.cache_clear()
        choose(monkeypatch, number)
        executable = product(autotune=True)
        assert cut(executable) == candidates()[number]
        assert (np.abs(executable(left, right) - exact) <= bound).all()
        same = pickle.loads(pickle.dumps(executable))
        assert same.autotune and cut(same) == cut(executable)


def test_measuring_in_earnest_takes_one_of_the_candidates() -> None:
    executable = product(autotune=True)
    assert cut(executable) in candidates()
    runs = autotuning.fastest_runs([])
    assert runs == []


def test_other_sizes_and_layouts_are_cut_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, 1)
    executable = product(autotune=True)
    sizes = dict.fromkeys(executable.sizes(None), 200)
    layouts = executable.default_layouts()
    assert executable.blockings(layouts, sizes) == product().blockings(layouts, sizes)
    other = dict.fromkeys(layouts, ((None, None), True, (False, False)))
    usual = product().blockings(other, executable.sizes(None))
    assert executable.blockings(other, executable.sizes(None)) == usual


def test_without_a_disk_cache_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINLOOM_CACHE", "0")
    asked = choose(monkeypatch, 1)
    assert cut(product(autotune=True)) == cut(product())
    assert asked == []


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b'{"result": 99}', b'{"other": 0}', b'{"result": "1"}']
)
def test_a_stored_choice_that_makes_no_sense_is_measured_anew(payload: bytes) -> None:
    assert autotuning._read(payload, {"result": candidates()}) is None
    good = json.dumps({"result": 1}).encode()
    assert autotuning._read(good, {"result": candidates()}) == {"result": 1}


def test_the_environment_may_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    every = candidates()
    asked = choose(monkeypatch, 1)
    assert cut(product()) == every[0]
    monkeypatch.setenv("EINLOOM_AUTOTUNE", "1")
    assert cut(product()) == every[1]
    assert cut(product(autotune=False)) == every[0]
    assert asked == [len(every)]


def test_what_has_no_packed_contraction_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = choose(monkeypatch, 1)
    turned = compile("ij->ji", TensorSpec((256, 256)), autotune=True)
    small = compile("ij,jk->ik", TensorSpec((8, 8)), TensorSpec((8, 8)), autotune=True)
    ones = np.ones((8, 8), np.float32)
    assert (small(ones, ones) == 8).all() and turned.autotune and asked == []
