"""What a person reads: the table of cases, that of memory, and a roofline as a picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from benchmarks.dense.case import Case
from benchmarks.dense.session import Outcome
from benchmarks.dense.timing import FULL_PAIRS, Interval
from benchmarks.dense.verdict import best_peer, judge
from benchmarks.dense.worker import MEASURED, Measurement

COLOURS = {"met": "green", "missed": "red", "void": "yellow"}


def seconds(value: float) -> str:
    if value < 1e-3:
        return f"{value * 1e6:.3g} µs"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def span(found: Interval) -> str:
    return f"{found.median:.2f} [{found.low:.2f}, {found.high:.2f}]"


def bars_of(case: Case) -> str:
    return (" or " if case.any_bar else ", ").join(str(bar) for bar in case.bars)


def row_of(peer: str, rows: Iterable[Measurement]) -> Measurement | None:
    return next((row for row in rows if row.peer == peer), None)


def our_seconds(rows: list[Measurement]) -> Interval | None:
    """Our time: beside the machine, or beside any peer if it was not measured there."""
    for row in sorted(rows, key=lambda row: row.peer != "machine"):
        if row.comparison is not None:
            return row.comparison.ours
    return None


def case_cells(case: Case, rows: list[Measurement], outcome: Outcome) -> list[str]:
    """The cells of one line of the table."""
    mine = our_seconds(rows)
    best = best_peer(rows)
    machine = row_of("machine", rows) if case.limit else None
    highest = row_of("highest", rows)
    verdict = judge(case, rows)
    error = next((row.our_error for row in rows if row.our_error is not None), None)
    compared = best or highest
    found = compared.comparison if compared is not None else None
    fraction = machine.comparison.ratio if machine and machine.comparison else None
    colour = COLOURS.get(verdict.text)
    return [
        case.name,
        seconds(mine.median) if mine else "",
        "" if error is None else f"{error:.1e}",
        f"{compared.peer}, {compared.way}" if compared and found else "",
        seconds(found.theirs.median) if found else "",
        span(found.ratio) if found else "",
        f"{found.control.median:.3f}" if found else "",
        span(fraction) if fraction else "",
        bars_of(case),
        f"[{colour}]{verdict.text}[/]" if colour else verdict.text,
    ]


COLUMNS = (
    "case", "ours", "error", "best peer", "its time", "ratio [95 %]", "control",
    "of the machine", "bar", "verdict",
)  # fmt: skip


def show(outcome: Outcome, console: Any) -> None:
    """Print everything on a rich console."""
    from rich.table import Table

    about = outcome.surroundings
    console.print(
        f"einloom {about['einloom']} at {about['commit']}, {about['processor']}, "
        f"{about['cores']} cores, load {about['load']}, "
        + ", ".join(f"{name} {version}" for name, version in about["peers"].items()),
        highlight=False,
    )
    for name, reason in outcome.missing.items():
        console.print(f"left out: {name}: {reason}", markup=False, highlight=False)
    if outcome.plan.pairs < FULL_PAIRS:
        console.print(f"only {outcome.plan.pairs} pairs: a verdict needs {FULL_PAIRS}")
    if outcome.plan.most is not None:
        console.print("extents are capped: these figures try the machinery and say nothing else")
    cases = outcome.plan.chosen()
    for threads in outcome.plan.threads:
        if not any(row.threads == threads for row in outcome.measurements):
            continue
        table = Table(title=f"{threads} thread{'s' if threads > 1 else ''}", box=None)
        for name in COLUMNS:
            left = name in ("case", "best peer", "bar", "verdict")
            table.add_column(name, justify="left" if left else "right", no_wrap=True)
        notes = []
        for case in cases:
            rows = outcome.of(case.name, threads)
            table.add_row(*case_cells(case, rows, outcome))
            verdict = judge(case, rows)
            if verdict.why:
                notes.append(f"{case.name}: {verdict.text}: {verdict.why}")
            notes += [f"{case.name}: {r.peer}: {r.note}" for r in rows if r.note and r.comparison]
        console.print(table)
        for note in notes:
            console.print("  " + note, markup=False, highlight=False)
        console.print(peers_table(outcome, threads))
    if outcome.residencies:
        console.print(memory_table(outcome))


def peers_table(outcome: Outcome, threads: int) -> Any:
    """Times of all peers: each its own median, and the ratio to ours beside it."""
    from rich.table import Table

    peers = [p for p in outcome.plan.peers if p not in outcome.missing]
    table = Table(title=f"every peer: its time, and over ours ({threads} thr.)", box=None)
    table.add_column("case", no_wrap=True)
    for peer in peers:
        table.add_column(peer, justify="right", no_wrap=True)
    for case in outcome.plan.chosen():
        rows = outcome.of(case.name, threads)
        cells = []
        for peer in peers:
            row = row_of(peer, rows)
            if row is None or row.comparison is None:
                cells.append("" if row is None else row.status)
                continue
            mark = "!" if row.comparison.void else ""
            found = row.comparison
            cells.append(f"{seconds(found.theirs.median)} {found.ratio.median:.2f}{mark}")
        table.add_row(case.name, *cells)
    return table


def memory_table(outcome: Outcome) -> Any:
    from rich.table import Table

    table = Table(title="peak resident memory, MB beyond an idle process", box=None)
    for name in ("case", "inputs", "output", "peak", "allowed", "verdict"):
        table.add_column(name, justify="left" if name in ("case", "verdict") else "right")
    for row in outcome.residencies:
        table.add_row(
            row.case,
            megabytes(row.inputs),
            megabytes(row.output),
            "" if row.growth is None else megabytes(row.growth),
            megabytes(row.allowed),
            row.status if row.status != MEASURED else "met" if row.met else "[red]missed[/]",
        )
    return table


def megabytes(count: int) -> str:
    return f"{count / (1 << 20):.1f}"


def as_json(outcome: Outcome) -> dict[str, Any]:
    """All figures, with the verdicts that were drawn from them."""
    verdicts = [
        {"case": case.name, "threads": threads, "bar": bars_of(case), **asdict(judged)}
        for threads in outcome.plan.threads
        for case in outcome.plan.chosen()
        if (rows := outcome.of(case.name, threads))
        for judged in [judge(case, rows)]
    ]
    return {
        "surroundings": outcome.surroundings,
        "left_out": outcome.missing,
        "verdicts": verdicts,
        "measurements": [
            {**asdict(row), "void": row.comparison.void if row.comparison else None}
            for row in outcome.measurements
        ],
        "memory": [
            {**asdict(row), "allowed": row.allowed, "met": row.met} for row in outcome.residencies
        ],
    }
