"""What a user waits for before any arithmetic: import, first result, a tiny call, a huge spec."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

RUNS = 11


@dataclass(frozen=True)
class Figure:
    """One measured figure, in seconds; `bar` is what it must not exceed, None for a peer's."""

    name: str
    median: float
    low: float
    high: float
    bar: float | None

    @property
    def met(self) -> bool:
        return self.bar is None or self.median <= self.bar


def figure(name: str, samples: list[float], bar: float | None) -> Figure:
    ordered = sorted(samples)
    return Figure(name, statistics.median(ordered), ordered[0], ordered[-1], bar)


def run_python(code: str, cache: str, bytecode: str) -> str:
    """What a fresh interpreter prints, with bytecode kept as an installed package keeps it."""
    environment = {**os.environ, "EINLOOM_CACHE_DIR": cache, "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def printed_seconds(code: str, cache: str, bytecode: str) -> float:
    """Run code in a fresh interpreter; it prints the seconds that it measured."""
    return float(run_python(code, cache, bytecode).split()[-1])


IMPORT = """
import numpy, time
t = time.process_time()
import einloom
print(time.process_time() - t)
"""

COMPILE = """
import numpy as np, time, einloom as el
a, b = np.ones((32, 32), np.float32), np.ones((32, 32), np.float32)
t = time.perf_counter()
el.einsum("ij,jk->ik", a, b)
print(time.perf_counter() - t)
"""

WARM_COMPILE = """
import numpy as np, time, einloom as el
a, b = np.ones((32, 32), np.float32), np.ones((32, 32), np.float32)
el.einsum("i,i->", a[0], b[0])
t = time.perf_counter()
el.einsum("ij,jk->ik", a, b)
print(time.perf_counter() - t)
"""

WHOLE = """
import numpy as np, einloom as el
a, b = np.ones((32, 32), np.float32), np.ones((32, 32), np.float32)
el.einsum("ij,jk->ik", a, b)
"""

TINY = """
import numpy as np, timeit, einloom as el
a, m = np.ones(8, "DTYPE"), np.ones((4, 4), "DTYPE")
dot, product = el.compile("i,i->", a, a), el.compile("ij,jk->ik", m, m)
timer = timeit.Timer("CALL", globals=globals())
timer.timeit(1000)
print(sorted(timer.repeat(number=2000, repeat=31))[15] / 2000)
"""

TINY_CALLS = {
    "i,i-> of 8, cached expression": ("dot(a, a)", 1e-6),
    "4x4 product, cached expression": ("product(m, m)", 1e-6),
    "i,i-> of 8, string call": ("el.einsum('i,i->', a, a)", 3e-6),
    "4x4 product, string call": ("el.einsum('ij,jk->ik', m, m)", 3e-6),
    "i,i-> of 8, numpy.einsum": ("np.einsum('i,i->', a, a)", None),
    "4x4 product, numpy.einsum": ("np.einsum('ij,jk->ik', m, m)", None),
    "4x4 product, numpy @": ("m @ m", None),
}
"""Calls whose arithmetic takes no time, each with its bar."""

HUGE = """
import time
from einloom.frontend.einsum.parse import parse_spec
from einloom.frontend.einsum.program import to_module
from einloom.ir.hashing import structural_hash
from einloom.ir.types import f32
count = 100_000
spec = ",".join(["ij"] * count) + "->ij"
t = time.perf_counter()
module = to_module(parse_spec(spec, [2] * count), [f32] * count)
text = str(module)
structural_hash(module)
print(time.perf_counter() - t)
"""


def whole_process(cache: str, bytecode: str) -> float:
    start = time.perf_counter()
    run_python(WHOLE, cache, bytecode)
    return time.perf_counter() - start


def fresh(measure: Callable[[str], float]) -> float:
    """Measure with an empty disk cache."""
    with tempfile.TemporaryDirectory() as folder:
        return measure(folder)


def run() -> list[Figure]:
    """All figures of this page. Takes about a minute."""
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as bytecode:
        inside = partial(printed_seconds, bytecode=bytecode)
        whole = partial(whole_process, bytecode=bytecode)
        cold = partial(inside, COMPILE)
        fresh(whole)  # Python keeps the bytecode of all that a compilation imports.
        whole(cache)
        inside(WARM_COMPILE, cache)
        measures: list[tuple[str, Callable[[], float], int, float | None]] = [
            ("import einloom after numpy, CPU", lambda: inside(IMPORT, cache), RUNS, 0.150),
            ("ij,jk->ik cold, after import", lambda: fresh(cold), RUNS, 0.150),
            ("ij,jk->ik from disk", lambda: inside(WARM_COMPILE, cache), RUNS, 0.005),
            ("fresh process, cold", lambda: fresh(whole), RUNS, 0.400),
            ("fresh process, cached", lambda: whole(cache), RUNS, 0.200),
            *tiny(lambda code: inside(code, cache)),
            ("100,000 operands: parse, print, hash", lambda: inside(HUGE, cache), 3, 10.0),
        ]
        return [figure(name, repeat(run, runs), bar) for name, run, runs, bar in measures]


def tiny(
    measure: Callable[[str], float],
) -> list[tuple[str, Callable[[], float], int, float | None]]:
    """A row for each tiny call and dtype. Every sample is a process of its own."""
    rows: list[tuple[str, Callable[[], float], int, float | None]] = []
    for name, (call, bar) in TINY_CALLS.items():
        for dtype in ("f4", "f8"):
            code = TINY.replace("CALL", call).replace("DTYPE", dtype)
            rows.append((f"{name}, {dtype}", partial(measure, code), 5, bar))
    return rows


def repeat(measure: Callable[[], float], runs: int) -> list[float]:
    return [measure() for _ in range(runs)]


def table(figures: list[Figure]) -> str:
    rows = [f"{'figure':40} {'median':>12} {'range':>27} {'bar':>12}  met"]
    for f in figures:
        span = f"{seconds(f.low)} .. {seconds(f.high)}"
        row = f"{f.name:40} {seconds(f.median):>12} {span:>27}"
        if f.bar is not None:
            row += f" {seconds(f.bar):>12}  {'yes' if f.met else 'NO'}"
        rows.append(row)
    return "\n".join(rows)


def seconds(value: float) -> str:
    if value < 1e-3:
        return f"{value * 1e6:.2f} µs"
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"


def main(output: str | None = None) -> None:
    figures = run()
    print(table(figures))
    if output:
        with open(output, "w", encoding="utf-8") as file:
            json.dump([asdict(f) for f in figures], file, indent=2)
