"""A roofline: operations per second over operations per byte, for ours and the best peer."""

from __future__ import annotations

from importlib import import_module

from benchmarks.dense.session import Outcome
from benchmarks.dense.verdict import best_peer


def rates(outcome: Outcome, threads: int) -> tuple[float, float] | None:
    """Operations per second (f32) and bytes per second that the machine reached in this run.

    The best of all comparisons with the machine; None if one of the two was not measured.
    """
    work, bandwidth = 0.0, 0.0
    by_name = {case.name: case for case in outcome.plan.chosen()}
    for row in outcome.measurements:
        if row.peer != "machine" or row.threads != threads or row.comparison is None:
            continue
        case = by_name[row.case]
        if case.limit is None:
            continue
        quickest = row.comparison.theirs.low
        if case.limit.kind == "fma" and case.limit.dtype == "float32":
            work = max(work, case.limit.amount / quickest)
        elif case.limit.kind in ("read", "copy"):
            written = case.result_bytes if case.limit.kind == "copy" else 0
            bandwidth = max(bandwidth, (case.input_bytes + written) / quickest)
    return (work, bandwidth) if work and bandwidth else None


def draw(outcome: Outcome, path: str) -> str | None:
    """Write the picture; says why not if there is none to draw."""
    try:
        import_module("matplotlib").use("Agg")
        pyplot = import_module("matplotlib.pyplot")
    except ImportError:
        return "no picture: matplotlib is not installed (extra bench)"

    threads = [n for n in outcome.plan.threads if rates(outcome, n) is not None]
    if not threads:
        return "no picture: it needs a product in f32 and `ij,ij->` or a transpose among the cases"
    figure, axes = pyplot.subplots(1, len(threads), figsize=(11 * len(threads), 7), squeeze=False)
    for count, axis in zip(threads, axes[0], strict=True):
        found = rates(outcome, count)
        assert found is not None
        work, bandwidth = found
        ridge = work / bandwidth
        axis.plot([ridge / 256, ridge, ridge * 64], [work / 256 / 1e9, work / 1e9, work / 1e9],
                  color="black", label="f32 multiply-adds and bandwidth, measured")  # fmt: skip
        labelled = set()
        for case in outcome.plan.chosen():
            rows = outcome.of(case.name, count)
            best = best_peer(rows)
            mine = next((r.comparison for r in rows if r.comparison is not None), None)
            if not case.flops or mine is None or case.flops < 1e6:
                continue
            intensity = case.flops / (case.input_bytes + case.result_bytes)
            points = [("ours", mine.ours.median, "o", "tab:blue")]
            if best is not None and best.comparison is not None:
                points.append(("best peer", best.comparison.theirs.median, "x", "tab:red"))
            for label, time, mark, colour in points:
                axis.plot(intensity, case.flops / time / 1e9, mark, color=colour,
                          label=None if label in labelled else label)  # fmt: skip
                labelled.add(label)
            axis.annotate(case.name, (intensity, case.flops / mine.ours.median / 1e9), fontsize=6)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("operations per byte of inputs and output")
        axis.set_ylabel("10⁹ operations per second")
        axis.set_title(f"{count} thread{'s' if count > 1 else ''}")
        axis.grid(True, which="both", alpha=0.2)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return None
