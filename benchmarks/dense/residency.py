"""Peak resident memory of one of our cases, in a process that runs nothing else.

Memory is counted from a process that has imported everything and compiled and run a small
kernel, so that what the interpreter and the compiler take once is not charged to the case.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.dense.case import MEMORY_ALLOWANCE, Case
from benchmarks.dense.worker import FAILED, MEASURED, UNSUPPORTED, short

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"


@dataclass
class Residency:
    """Bytes: what inputs and output occupy, and the growth of the process at its largest."""

    case: str
    status: str
    inputs: int
    output: int
    note: str = ""
    growth: int | None = None
    whole: int | None = None

    @property
    def allowed(self) -> int:
        return self.inputs + self.output + MEMORY_ALLOWANCE

    @property
    def met(self) -> bool | None:
        return None if self.growth is None else self.growth <= self.allowed


def field(name: str) -> int:
    """Bytes of a line of the process's status, such as VmRSS."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def measure(case: Case) -> Residency:
    """Run the case once, allocating its result, and read the largest resident size."""
    row = Residency(case.name, MEASURED, case.input_bytes, case.result_bytes)
    if not STATUS.exists():
        row.status, row.note = UNSUPPORTED, "resident memory is read from /proc, not here"
        return row
    warm_up()
    before = field("VmRSS")
    arrays = case.arrays(case.draw())
    try:
        # Numbers are drawn through temporaries, which are gone and must not count.
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        row.note = "the peak could not be reset: it may be that of drawing the operands"
    try:
        result = case.ours(arrays, None)()
    except Exception as error:
        row.status = UNSUPPORTED if isinstance(error, NotImplementedError) else FAILED
        row.note = short(error)
        return row
    peak = field("VmHWM")
    del result
    row.growth, row.whole = peak - before, peak
    return row


def warm_up() -> None:
    """Import all that a call needs, and compile something small of both kinds."""
    import numpy as np

    import einloom as el

    ones = np.ones((2, 2), np.float32)
    el.einsum("ij,jk->ik", ones, ones)
    el.compile("program warm(X: f32[n=2]) -> (Y) {\n  Y[n] = exp(X[n])\n}\n")(ones[0])


def main() -> None:
    from benchmarks.dense.cases import all_cases

    task: dict[str, Any] = json.load(sys.stdin)
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    case = next(case for case in all_cases(task["most"]) if case.name == task["case"])
    results.write(json.dumps(asdict(measure(case))) + "\n")
    results.flush()


if __name__ == "__main__":
    main()
