"""A whole run: which processes are started, on which cores, and what came back."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.dense.case import Case
from benchmarks.dense.cases import all_cases
from benchmarks.dense.peers import OURSELVES, PEERS
from benchmarks.dense.residency import Residency
from benchmarks.dense.timing import Comparison, Interval
from benchmarks.dense.worker import DIED, NO_FORM, Measurement

ROOT = Path(__file__).resolve().parents[2]
THREAD_VARIABLES = (
    "EINLOOM_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to run. `most` caps extents, to try the machinery; `cases` is a regular expression."""

    peers: tuple[str, ...]
    threads: tuple[int, ...] = (1,)
    cases: str = ""
    pairs: int = 31
    most: int | None = None
    memory: bool = True

    def chosen(self) -> list[Case]:
        return [case for case in all_cases(self.most) if re.search(self.cases, case.name)]


@dataclass
class Outcome:
    """Everything that one run found."""

    plan: Plan
    surroundings: dict[str, Any]
    missing: dict[str, str] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    residencies: list[Residency] = field(default_factory=list)

    def of(self, case: str, threads: int) -> list[Measurement]:
        return [m for m in self.measurements if m.case == case and m.threads == threads]


def missing_peers(peers: Sequence[str]) -> dict[str, str]:
    """Peers that were asked for and cannot run, each with the reason."""
    found = {}
    for name in peers:
        peer = PEERS.get(name)
        reason = f"no peer of this name; known: {', '.join(PEERS)}" if peer is None else None
        reason = reason if peer is None else peer.missing()
        if reason is not None:
            found[name] = reason
    return found


def run(plan: Plan, say: Say = lambda line: None) -> Outcome:
    """Measure all chosen cases against all peers, one process per peer and number of threads."""
    outcome = Outcome(plan, surroundings(plan), missing_peers(plan.peers))
    for name, reason in outcome.missing.items():
        say(f"{name} is left out: {reason}")
    try:
        for threads in plan.threads:
            measure_threads(threads, outcome, say)
        if plan.memory:
            say("peak memory, a process each")
            for case in plan.chosen():
                outcome.residencies.append(resident(case.name, plan))
    except KeyboardInterrupt:
        say("interrupted: the rest is not measured")
    return outcome


def measure_threads(threads: int, outcome: Outcome, say: Say) -> None:
    """Add the measurements of all peers on one number of threads."""
    plan = outcome.plan
    cores = available_cores()
    if threads > len(cores):
        reason = f"this process may use {len(cores)} cores"
        outcome.missing[f"{threads} threads"] = reason
        say(f"{threads} threads are left out: {reason}")
        return
    cases = [case.name for case in plan.chosen()]
    for peer in (*OURSELVES, *plan.peers):
        if peer not in outcome.missing:
            say(f"{peer}, {threads} thread{'s' if threads > 1 else ''}")
            for row in measured(peer, threads, cores[:threads], cases, plan, say):
                outcome.measurements.append(row)


def measured(
    peer: str, threads: int, cores: Sequence[int], cases: Sequence[str], plan: Plan, say: Say
) -> Iterator[Measurement]:
    """What a process of this peer finds. One that dies is started again after the fatal case."""
    left = list(cases)
    while left:
        task = {
            "peer": peer,
            "threads": threads,
            "cases": left,
            "pairs": plan.pairs,
            "most": plan.most,
        }
        done = 0
        process = start("benchmarks.dense.worker", task, threads, cores)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                row = restored(json.loads(line))
                done += 1
                if row.status != NO_FORM:
                    say(line_of(row))
                yield row
        except BaseException:
            process.kill()  # an interrupted run leaves nothing behind that disturbs the next
            raise
        status = process.wait()
        left = left[done:]
        if left:
            say(f"  {left[0]}: the process ended with status {status}")
            yield Measurement(left[0], peer, threads, DIED, f"process ended with status {status}")
            left = left[1:]


def line_of(row: Measurement) -> str:
    """A measurement in one line, to follow a run by."""
    if row.comparison is None:
        return f"  {row.case}: {row.status}" + (f", {row.note}" if row.note else "")
    found = row.comparison
    return f"  {row.case}: {found.ours.median * 1e3:.4g} ms, ratio {found.ratio.median:.2f}"


def resident(name: str, plan: Plan) -> Residency:
    process = start("benchmarks.dense.residency", {"case": name, "most": plan.most}, 1,
                    available_cores()[:1])  # fmt: skip
    assert process.stdout is not None
    text = process.stdout.read()
    status = process.wait()
    if status:
        return Residency(name, DIED, 0, 0, f"process ended with status {status}")
    return Residency(**json.loads(text))


def start(module: str, task: Any, threads: int, cores: Sequence[int]) -> subprocess.Popen[str]:
    """A process on these cores, with every library's number of threads set."""
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    # Compiling in other processes would run beside what is timed.
    environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

    def pin() -> None:
        # Before any library is loaded: threads keep the cores that they were started with.
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)

    process = subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=pin,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(task))
    process.stdin.close()
    return process


def available_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def restored(data: dict[str, Any]) -> Measurement:
    """A measurement from its JSON."""
    found = data.pop("comparison")
    if found is not None:
        pairs = found.pop("pairs")
        found = Comparison(pairs, **{key: Interval(**value) for key, value in found.items()})
    return Measurement(**data, comparison=found)


def surroundings(plan: Plan) -> dict[str, Any]:
    """What a figure depends on: processor, versions, commit, load."""
    from einloom import __version__

    versions = {n: PEERS[n].version() for n in plan.peers if n in PEERS and not PEERS[n].missing()}
    return {
        "einloom": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "processor": processor(),
        "features": sorted(
            name
            for name in ("avx2", "avx512f", "avx512vnni", "avx512bf16", "amx-tile", "amx-bf16")
            if processor_has(name)
        ),
        "cores": len(available_cores()),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "peers": versions,
        "pairs": plan.pairs,
    }


def processor_has(feature: str) -> bool:
    from benchmarks.dense.kernels import features

    return bool(features().get(feature))


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit of the checkout, with `+` where files differ from it."""
    try:
        head = git("rev-parse", "--short", "HEAD")
        return head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
