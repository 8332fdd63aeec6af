"""One process of the benchmark: one peer on one number of threads, pinned to its cores.

Reads what to do as JSON from standard input, writes one JSON line per case to standard output.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from benchmarks.dense.case import Array, Case, error_of
from benchmarks.dense.kernels import MissingFeature
from benchmarks.dense.peers import OURSELVES, PEERS, Peer, Way
from benchmarks.dense.timing import Comparison, compare, median_seconds, quick_estimate

MEASURED = "measured"
NO_FORM = "no form"
ABSENT = "not present"
UNSUPPORTED = "not supported"
WRONG = "wrong result"
FAILED = "failed"
THEIRS_FAILED = "peer failed"
DIED = "died"


@dataclass
class Measurement:
    """What one peer gave on one case. `status` is one of the words above; `note` says why.

    Errors are relative to the exact result. `hold`: seconds for which the peer's containers
    are filled from NumPy arrays; not part of `comparison`.
    """

    case: str
    peer: str
    threads: int
    status: str
    note: str = ""
    way: str = ""
    preallocated: bool = False
    our_error: float | None = None
    their_error: float | None = None
    tolerance: float = 0.0
    hold: float | None = None
    comparison: Comparison | None = None


class WrongResult(Exception):
    """Our call gave a result that is not right."""


class PeerFailed(Exception):
    """No form of the peer gave a right result."""


def measure(case: Case, peer: Peer, threads: int, pairs: int) -> Measurement:
    """Check both sides against the exact result, then time them against each other."""
    row = Measurement(case.name, peer.name, threads, NO_FORM, tolerance=case.tolerance)
    if not peer.has_form(case):
        return row
    try:
        fill(row, case, peer, pairs)
    except WrongResult as fault:
        row.status, row.note = WRONG, str(fault)
    except MissingFeature as fault:
        row.status, row.note = ABSENT, str(fault)
    except PeerFailed as fault:
        row.status, row.note = THEIRS_FAILED, str(fault)
    except Exception as fault:
        row.status = UNSUPPORTED if isinstance(fault, NotImplementedError) else FAILED
        row.note = short(fault)
        traceback.print_exc()
    return row


def fill(row: Measurement, case: Case, peer: Peer, pairs: int) -> None:
    """Put into a row what is found, up to the first fault."""
    bases = case.draw()
    arrays = case.arrays(bases)
    exact = case.reference(*arrays)
    plain = ours_checked(case, arrays, exact, row, into=False)
    try:
        ways = peer.ways(case, bases)
    except MissingFeature:
        raise
    except Exception as fault:
        raise PeerFailed(short(fault)) from fault
    if ways:
        chosen = quickest(case, peer, ways, exact, row)
        theirs, into = chosen.call, chosen.into
        row.way, row.preallocated = chosen.label, into
        if into:
            plain = ours_checked(case, arrays, exact, row, into=True)
        if peer.is_library:
            row.hold = median_seconds(lambda: peer.hold(case, bases))
    else:
        # Nothing to compare with: our own time, which a bar in seconds needs.
        theirs, into = ours_checked(case, arrays, exact, row, into=False), False
        row.way = "none"
    again = ours_checked(case, arrays, exact, row, into)
    row.comparison = compare(plain, again, theirs, pairs)
    row.status = MEASURED


def ours_checked(
    case: Case, arrays: list[Array], exact: Any, row: Measurement, into: bool
) -> Callable[[], Any]:
    """Our call, after a look at what it gives. With `into`, it writes to an array of its own,
    whose pages are there before. Raises WrongResult."""
    out = case.empty() if into else None
    call = case.ours(arrays, out)
    result = call()
    error = error_of(result if out is None else out, exact)
    row.our_error = error if row.our_error is None else max(error, row.our_error)
    if not error <= case.tolerance:
        how = "with out=, the error is" if into else "the error is"
        raise WrongResult(f"{how} {error:.2g}; at most {case.tolerance:.2g} is right")
    return call


def quickest(case: Case, peer: Peer, ways: list[Way], exact: Any, row: Measurement) -> Way:
    """The way that is quickest in a trial, of those that give the right result."""
    best: tuple[float, Way, float | None] | None = None
    notes = []
    for way in ways:
        try:
            result = way.call()
            error = None
            if way.checked:
                error = error_of(peer.fetch(way.out if way.into else result), exact)
                if not error <= case.tolerance:
                    notes.append(f"{way.label}: wrong result, error {error:.2g}")
                    continue
            del result
            seconds = quick_estimate(way.call)
        except Exception as fault:
            notes.append(f"{way.label}: {short(fault)}")
            continue
        if best is None or seconds < best[0]:
            best = seconds, way, error
    row.note = "; ".join(notes)
    if best is None:
        raise PeerFailed(row.note)
    row.their_error = best[2]
    return best[1]


def short(error: Exception) -> str:
    """The first line of an error."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


def run(task: dict[str, Any], results: TextIO) -> None:
    """Measure the cases of a task and write what was found, one line each."""
    from benchmarks.dense.cases import all_cases

    threads = task["threads"]
    by_name = {case.name: case for case in all_cases(task["most"])}
    try:
        peer = {**PEERS, **OURSELVES}[task["peer"]](threads)
    except Exception as fault:
        # Installed, and does not start.
        rows: Iterable[Measurement] = [
            Measurement(name, task["peer"], threads, THEIRS_FAILED, short(fault))
            for name in task["cases"]
        ]
    else:
        rows = (measure(by_name[name], peer, threads, task["pairs"]) for name in task["cases"])
    for row in rows:
        results.write(json.dumps(asdict(row)) + "\n")
        results.flush()


def main() -> None:
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Whatever a library prints goes to standard error, so that the lines of results stay whole.
    os.dup2(2, 1)
    run(json.load(sys.stdin), results)


if __name__ == "__main__":
    main()
