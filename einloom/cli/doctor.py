"""`einloom doctor`: what Einloom finds on this machine, for bug reports and for surprises."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from einloom.cli.arguments import Commands, add_command
from einloom.cli.cache import disk_rows
from einloom.cli.failures import USER_ERROR, Task
from einloom.ir.errors import EinloomError

if TYPE_CHECKING:
    from argparse import Namespace

    from einloom.report import Cell, Table

EXAMPLES = """\
  einloom doctor
  einloom doctor > report.txt
  einloom doctor --measure
"""

# What decides about the width and the kind of vector code; all others are listed after them.
TELLING_FEATURES = (
    "sse4.2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl",
    "avx512vnni", "avx512bf16", "avx512fp16", "amx-tile", "amx-int8", "amx-bf16",
    "neon", "dotprod", "bf16", "sve", "sve2",
)  # fmt: skip


def add(commands: Commands) -> None:
    parser = add_command(
        commands, "doctor", "show versions, the processor, caches and settings", EXAMPLES, execute
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="measure arithmetic and memory, and keep the numbers for the cost model; ten seconds",
    )


def execute(arguments: Namespace, task: Task) -> int:
    from einloom.report import Report

    faults: list[str] = []
    remarks: list[str] = []
    if arguments.measure:
        from einloom.cli.doctor_measure import measure_and_store

        with task.terminal.progress("measuring this machine"):
            tables, remarks = measure_and_store(faults)
    else:
        tables = [
            versions_table(),
            machine_table(faults, remarks),
            cache_table(faults),
            settings_table(faults),
        ]
    task.terminal.report(Report(tuple(tables)))
    for remark in remarks:
        task.terminal.note(remark)
    for fault in faults:
        task.terminal.error(fault)
    return USER_ERROR if faults else 0


def _table(title: str, rows: list[tuple[Cell, ...]]) -> Table:
    from einloom.report import Table

    return Table(title, ("property", "value"), tuple(rows), header=False)


def versions_table() -> Table:
    """Einloom, Python and the libraries."""
    from einloom.cli.failures import versions

    return _table("versions", [tuple(line.split(" ", 1)) for line in versions()])


def machine_table(faults: list[str], remarks: list[str]) -> Table:
    """LLVM, the processor's features as LLVM names them, cores and memory."""
    from einloom.report import Quantity

    rows: list[tuple[Cell, ...]] = []
    try:
        from einloom.backends.cpu.target import host, llvm

        target = host()
        rows.append(("LLVM", ".".join(map(str, llvm().llvm_version_info))))
        rows.append(("triple", target.triple))
        telling = [name for name in TELLING_FEATURES if name in target.features]
        others = sorted(target.features - set(telling))
        rows.append(("vector features", " ".join(telling) or "none beyond the baseline"))
        rows.append(("other features", " ".join(others)))
    except EinloomError as error:
        faults.append(str(error))
    rows.append(("architecture", platform.machine()))
    rows.append(("cores", f"{usable_cores()} usable of {os.cpu_count()}"))
    rows += measured_rows(remarks)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    rows.append(("memory", Quantity(memory, "bytes")))
    return _table("machine", rows)


def measured_rows(remarks: list[str]) -> list[tuple[Cell, ...]]:
    """Whether this machine was measured; a file that cannot be used is remarked on."""
    from einloom.cli.doctor_measure import stored_row
    from einloom.machine_file import stored

    try:
        found = stored()
    except EinloomError:  # a setting is wrong, which the settings' table says
        return []
    if found.fault is not None:
        remarks.append(f"{found.fault} (einloom doctor --measure writes it anew)")
    return [stored_row(found)]


def usable_cores() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_table(faults: list[str]) -> Table:
    """The cache on disk."""
    from einloom.cache import cache_info

    try:
        return _table("cache on disk", disk_rows(cache_info().disk))
    except EinloomError as error:
        return _table("cache on disk", [("state", error.message)])


def settings_table(faults: list[str]) -> Table:
    """Every environment variable that Einloom reads, and what it is set to."""
    from einloom import config
    from einloom.report import Table

    readers = (
        config.cache_folder,
        config.cache_limit_bytes,
        config.disk_cache_enabled,
        config.num_threads,
        config.autotune,
        config.debug_level,
    )
    for read in readers:
        try:
            read()
        except EinloomError as error:
            faults.append(str(error))
    rows = tuple((v.name, v.value or f"unset: {v.default}", v.meaning) for v in config.VARIABLES)
    return Table("settings", ("variable", "value", "meaning"), rows)
