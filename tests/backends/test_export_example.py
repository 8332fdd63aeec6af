"""The C example of the manual: compiled as its comment says, run, and compared with NumPy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import einloom as el

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "attention.c"


def numbers(count: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What the function of that name in the example makes."""
    made = []
    for _ in range(count):
        seed = (seed * 1664525 + 1013904223) % 2**32
        made.append((seed >> 8) / 8388608.0 - 1.0)
    return np.array(made)


@pytest.mark.parametrize("kind", ["so", "o"])
def test_the_example_compiles_and_runs(kind: str, tmp_path: Path) -> None:
    """With the shared library, and with the object file in the program itself."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library, header = el.compile(ROOT / "examples" / "attention.ein").export(
        tmp_path / ("libattention.so" if kind == "so" else "attention.o")
    )
    (tmp_path / "attention.h").write_bytes(header.read_bytes())
    command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I."]
    command += [str(EXAMPLE), "-o", "attention"]
    if kind == "so":
        command += ["-L.", "-lattention", "-Wl,-rpath," + str(tmp_path)]
    else:
        command += [str(library), "-lm", "-lpthread"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ran = subprocess.run(["./attention"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    *rows, mistake = ran.stdout.splitlines()
    q = numbers(8 * 256 * 64, 1).reshape(8, 256, 64)
    k = numbers(8 * 1024 * 64, 2).reshape(8, 1024, 64)
    v = numbers(8 * 1024 * 64, 3).reshape(8, 1024, 64)
    scores = np.einsum("hpe,hme->hpm", q, k)
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    expected = np.einsum("hpm,hmf->hpf", weights / weights.sum(axis=2, keepdims=True), v)
    places = [int(row.split()[0]) for row in rows]
    assert places == list(range(0, expected.size, 16411))
    found = [float(row.split()[1]) for row in rows]
    np.testing.assert_allclose(found, expected.ravel()[places], rtol=1e-3, atol=1e-5)
    code, _, message = mistake.partition(" ")
    assert int(code) >= 100 and message == "rank e of K must have extent 64"
