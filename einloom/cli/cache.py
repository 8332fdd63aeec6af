"""`einloom cache`: what the folder of compiled code holds, and emptying it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from einloom.cli.arguments import Commands, add_command
from einloom.cli.failures import Task

if TYPE_CHECKING:
    from argparse import Namespace

    from einloom.cache import DiskInfo
    from einloom.report import Cell

EXAMPLES = """\
  einloom cache
  einloom cache clear
  EINLOOM_CACHE_DIR=/tmp/kernels einloom cache info
"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands, "cache", "show or empty the cache of compiled code", EXAMPLES, execute
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=("info", "clear"),
        default="info",
        help="info (the default) or clear",
    )


def execute(arguments: Namespace, task: Task) -> int:
    from einloom.cache import cache_clear, cache_info
    from einloom.report import Quantity, Table

    if arguments.action == "clear":
        before = cache_info().disk
        cache_clear()
        after = cache_info().disk
        gone = before.entries - after.entries
        freed = Quantity(before.bytes - after.bytes, "bytes")
        task.terminal.line(f"removed {gone} {'entry' if gone == 1 else 'entries'}, {freed}")
        if after.reason is not None:
            task.terminal.note(after.reason)
        return 0
    rows = disk_rows(cache_info().disk)
    task.terminal.report(Table("cache on disk", ("property", "value"), tuple(rows), header=False))
    return 0


def disk_rows(disk: DiskInfo) -> list[tuple[Cell, ...]]:
    """What the cache on disk holds, a property a row."""
    from einloom.report import Quantity

    return [
        ("folder", str(disk.folder) if disk.folder else "none"),
        ("state", _state(disk)),
        ("entries", str(disk.entries)),
        ("size", Quantity(disk.bytes, "bytes")),
        ("limit", Quantity(disk.limit_bytes, "bytes")),
    ]


def _state(disk: DiskInfo) -> str:
    """Why the folder is out of use; one that is not there yet may be impossible to make."""
    if disk.reason is not None or disk.folder is None or disk.folder.exists():
        return disk.reason or "in use"
    nearest = next(parent for parent in disk.folder.parents if parent.exists())
    if os.access(nearest, os.W_OK | os.X_OK):
        return "in use"
    return f"cannot make {disk.folder}: {nearest} is read-only"
