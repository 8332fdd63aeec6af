"""Whether a case met its bars, from all that was measured of it on one number of threads.

A bar is met when the lower end of the interval reaches it, against every peer that it names; a
row whose control left [0.97, 1.03] can neither meet nor miss it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.dense.case import Bar, Case
from benchmarks.dense.worker import (
    ABSENT,
    FAILED,
    MEASURED,
    NO_FORM,
    UNSUPPORTED,
    WRONG,
    Measurement,
)

MET, MISSED, VOID, OPEN, ABSENT_HERE, SHOWN = "met", "missed", "void", "open", "n/a", "-"


@dataclass(frozen=True)
class Verdict:
    """`text` is met, missed, void, open (a peer that the bar names was not measured), n/a (not a
    bar on this processor), - (no bar), or what went wrong; `why` says more."""

    text: str
    why: str = ""


def judge(case: Case, rows: Sequence[Measurement]) -> Verdict:
    """The verdict on a case."""
    for status in (WRONG, FAILED, UNSUPPORTED):
        for row in rows:
            if row.status == status:
                return Verdict(status, row.note)
    if not case.bars:
        return Verdict(SHOWN)
    if case.needs is not None and (gone := [row for row in rows if row.status == ABSENT]):
        return Verdict(ABSENT_HERE, gone[0].note)
    found = [judge_bar(bar, rows, case) for bar in case.bars]
    order = (MET, VOID, OPEN, MISSED) if case.any_bar else (MISSED, VOID, OPEN, MET)
    return min(found, key=lambda verdict: order.index(verdict.text))


def judge_bar(bar: Bar, rows: Sequence[Measurement], case: Case) -> Verdict:
    """The verdict on one bar."""
    if bar.seconds:
        return judge_seconds(bar, rows)
    by_peer = {row.peer: row for row in rows if row.peer in bar.peers}
    waiting = [
        peer for peer in bar.peers
        if peer not in by_peer and (family_of(peer) in case.forms or peer in ("machine", "highest"))
    ]  # fmt: skip
    timed = [row for row in by_peer.values() if row.status == MEASURED]
    broken = [row for row in by_peer.values() if row.status not in (MEASURED, NO_FORM)]
    void = []
    for row in timed:
        assert row.comparison is not None
        if row.comparison.void:
            void.append(f"control against {row.peer} {row.comparison.control.median:.3f}")
        elif row.comparison.ratio.low < bar.ratio:
            return Verdict(MISSED, f"{row.peer}: {row.comparison.ratio.low:.2f}, bar {bar}")
    if void:
        return Verdict(VOID, "; ".join(void))
    if waiting or broken or not timed:
        names = [*waiting, *(row.peer for row in broken)] or list(bar.peers)
        return Verdict(OPEN, f"not measured: {', '.join(names)}")
    return Verdict(MET)


def family_of(peer: str) -> str:
    return "torch" if peer == "torch.compile" else peer


def judge_seconds(bar: Bar, rows: Sequence[Measurement]) -> Verdict:
    """A bar on our own time: where no peer runs beside, in the process of the machine."""
    for row in rows:
        if row.peer == "machine" and row.comparison is not None:
            if row.comparison.void:
                return Verdict(VOID, f"control {row.comparison.control.median:.3f}")
            if row.comparison.ours.high <= bar.seconds:
                return Verdict(MET)
            return Verdict(MISSED, f"{row.comparison.ours.high * 1e6:.2f} µs, bar {bar}")
    return Verdict(OPEN, "not measured: machine")


def best_peer(rows: Sequence[Measurement]) -> Measurement | None:
    """The library that comes closest to us, or is furthest ahead."""
    timed = [
        row for row in rows if row.comparison is not None and row.peer not in ("machine", "highest")
    ]
    return min(timed, key=lambda row: row.comparison.ratio.median if row.comparison else 0.0,
               default=None)  # fmt: skip
