"""Timing two calls against each other: alternating pairs, a control, medians with intervals.

A sample is the time per call of as many calls as fill `SAMPLE_SECONDS`. Short calls run once
untimed before, so that each sample begins with the caches that its own side left. One round is a
pair (ours, theirs) and a control pair (ours, ours again), both in alternating order.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

SAMPLE_SECONDS = 2e-3
WARMED_BELOW = 20e-3
"""Calls that are quicker run once untimed before each sample."""
LONG_SECONDS = 0.2
"""Calls that are slower are tried once, not three times."""
RESAMPLES = 2000
CONTROL = (0.97, 1.03)
FULL_PAIRS = 31

Call = Callable[[], Any]


@dataclass(frozen=True)
class Interval:
    """A median and its 95 % bootstrap interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Seconds per call of both sides, theirs over ours, and ours over ours as the control."""

    pairs: int
    ours: Interval
    theirs: Interval
    ratio: Interval
    control: Interval

    @property
    def void(self) -> bool:
        """Whether the machine was too unsteady: the control's median left [0.97, 1.03]."""
        return not CONTROL[0] <= self.control.median <= CONTROL[1]


def interval(samples: Sequence[float], seed: int = 0) -> Interval:
    """The median with the 2.5 and 97.5 percentiles of medians of resampled samples."""
    values = np.asarray(samples, np.float64)
    random = np.random.default_rng(seed)
    picks = random.integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(np.median(values[picks], axis=1), (2.5, 97.5))
    return Interval(float(np.median(values)), float(low), float(high))


def seconds_of(call: Call, number: int) -> float:
    """Mean seconds of `number` calls in a row."""
    start = time.perf_counter()
    for _ in repeat(None, number):
        call()
    return (time.perf_counter() - start) / number


def quick_estimate(call: Call) -> float:
    """The least of three single calls, after one that is not counted; of one call if it is long."""
    call()
    best = seconds_of(call, 1)
    if best < LONG_SECONDS:
        best = min(best, *(seconds_of(call, 1) for _ in range(2)))
    return best


@dataclass(frozen=True)
class Side:
    """A call, how many make a sample, and whether it runs untimed before each."""

    call: Call
    number: int
    warmed: bool

    def sample(self) -> float:
        if self.warmed:
            self.call()
        return seconds_of(self.call, self.number)


def side(call: Call) -> Side:
    once = quick_estimate(call)
    if once < SAMPLE_SECONDS / 10:
        # One call is too short to tell how many fill a sample.
        once = seconds_of(call, 100)
    return Side(call, max(1, round(SAMPLE_SECONDS / max(once, 1e-9))), once < WARMED_BELOW)


def compare(ours: Call, again: Call, theirs: Call, pairs: int) -> Comparison:
    """Time ours and theirs in `pairs` alternating pairs.

    `again` is ours a second time, made ready independently, for the control.
    """
    mine, other = side(ours), side(theirs)
    # The control's samples are like ours, or it would compare lengths of samples.
    again()
    copy = Side(again, mine.number, mine.warmed)
    found: list[tuple[float, float]] = []
    controls: list[tuple[float, float]] = []
    gc.collect()
    gc.disable()
    try:
        for number in range(pairs):
            for rival, rows in ((other, found), (copy, controls)):
                if number % 2:
                    their_time = rival.sample()
                    rows.append((mine.sample(), their_time))
                else:
                    my_time = mine.sample()
                    rows.append((my_time, rival.sample()))
    finally:
        gc.enable()
    return Comparison(
        pairs,
        interval([a for a, _ in found]),
        interval([b for _, b in found]),
        interval([b / a for a, b in found]),
        interval([b / a for a, b in controls]),
    )


def median_seconds(call: Call, runs: int = 3) -> float:
    return statistics.median(seconds_of(call, 1) for _ in range(runs))
