"""The command line: `einloom run f.ein`, `einloom explain 'ij,jk->ik'`, and the others."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0: done. 1: something is wrong with what the user gave. 2: wrong usage. 70: a defect of
    Einloom, with a reproducer file written. 130: interrupted. 141: the reader of a pipe left.
    """
    from einloom.cli.arguments import new_parser
    from einloom.cli.failures import Task, guarded
    from einloom.cli.terminal import Terminal

    open_closed_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    parser = new_parser()
    if not words:
        parser.print_help(sys.stderr)
        return 2
    terminal = Terminal()

    def work() -> int:
        try:
            arguments = parser.parse_args(words)
        except SystemExit as stop:  # argparse has said all there is to say
            return int(stop.code or 0)
        return int(arguments.execute(arguments, task))

    task = Task(terminal, tuple(words))
    return guarded(work, task)


def open_closed_streams() -> None:
    """Stand in for standard streams that the caller closed (`>&-`): Python leaves None there."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, nowhere)


__all__ = ["main"]
