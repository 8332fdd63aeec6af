"""Every example runs as it is, and its results are compared with something independent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.cli import main

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.ein"))
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))


def test_examples_are_there() -> None:
    assert {"attention.ein", "conv.ein", "rnn.ein", "shortest_paths.ein"} <= set(PROGRAMS)
    assert "digits.py" in SCRIPTS


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs_as_the_interpreter_says(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(EXAMPLES / name), "--check"]) == 0
    captured = capsys.readouterr()
    checked = captured.out.split("result\tmax error\ttolerance\tagrees\n")[1]
    module = el.load(EXAMPLES / name)
    assert [line.split("\t")[0] for line in checked.splitlines()] == list(module.outputs)
    assert all(line.endswith("\tyes") for line in checked.splitlines())


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs_under_odd_sizes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Extents that divide by nothing, and empty ones."""
    from einloom.ir.infer import infer

    symbols = infer(el.load(EXAMPLES / name)).symbols
    for sizes in ((7, 5, 3, 11, 1), (1, 1, 1, 1, 1), (0, 2, 3, 2, 3)):
        words = [f"--extent={s}={n}" for s, n in zip(symbols, sizes, strict=False)]
        assert main(["run", str(EXAMPLES / name), "--check", *words]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs(name: str) -> None:
    if name == "digits.py":
        pytest.importorskip("sklearn")
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- what the programs compute ------------------------------------------------------------


def run(name: str, **arrays: Any) -> dict[str, np.ndarray[Any, Any]]:
    return el.compile(EXAMPLES / name).run(arrays)


def test_attention_is_softmax_attention() -> None:
    random = np.random.default_rng(1)
    q = random.standard_normal((8, 256, 64), np.float32)
    k, v = random.standard_normal((2, 8, 1024, 64), np.float32)
    scores = np.einsum("hpe,hme->hpm", q.astype(float), k.astype(float))
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    expected = np.einsum("hpm,hmf->hpf", weights / weights.sum(axis=2, keepdims=True), v)
    found = run("attention.ein", Q=q, K=k, V=v)["AV"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_conv_is_a_padded_convolution() -> None:
    random = np.random.default_rng(2)
    x = random.standard_normal((2, 3, 9, 6), np.float32)
    f = random.standard_normal((8, 3, 3, 3), np.float32)
    b = random.standard_normal(8, np.float32)
    padded = np.pad(x.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    y = np.einsum("nchwrs,kcrs->nkhw", windows, f) + b[:, None, None]
    z = np.maximum(y, 0.0)[:, :, :8, :6].reshape(2, 8, 4, 2, 3, 2)
    expected = z.max(axis=(3, 5))
    found = run("conv.ein", X=x, F=f, B=b)["P"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_shortest_paths_are_those_of_floyd_and_warshall() -> None:
    random = np.random.default_rng(3)
    w = random.integers(1, 100, (40, 40)).astype(np.uint16)
    w[random.random((40, 40)) < 0.9] = 0
    expected = np.where(w == 0, np.inf, w.astype(float))
    np.fill_diagonal(expected, 0.0)
    for k in range(len(w)):
        expected = np.minimum(expected, expected[:, k : k + 1] + expected[k : k + 1, :])
    assert np.isinf(expected).any() and np.isfinite(expected).sum() > 100
    np.testing.assert_array_equal(run("shortest_paths.ein", W=w)["S"], expected)


def test_rnn_is_a_loop_over_steps() -> None:
    random = np.random.default_rng(4)
    t, b, d, h = 9, 4, 5, 6
    x = random.standard_normal((t, b, d), np.float32)
    state = h0 = random.standard_normal((b, h), np.float32)
    wx = random.standard_normal((d, h), np.float32)
    wh = random.standard_normal((h, h), np.float32)
    a = random.standard_normal(h, np.float32)
    states = []
    for step in x.astype(float):
        state = np.tanh(step @ wx / d + state @ wh / h + a)
        states.append(state)
    found = run("rnn.ein", X=x, H0=h0, WX=wx, WH=wh, A=a)
    np.testing.assert_allclose(found["Y"], np.array(states), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["L"], states[-1], rtol=1e-4, atol=1e-6)
