"""Dense contractions and small fused programs against other libraries and the machine itself."""

from __future__ import annotations

import argparse
import json
import re

PEERS = "numpy,opt_einsum,torch,torch.compile,jax,numba"
SMALL = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this page, on top of --json."""
    parser.add_argument("--peers", type=names, default=names(PEERS), help=f"default: {PEERS}")
    parser.add_argument(
        "--threads", type=counts, default=(1,), metavar="1,2", help="numbers of threads"
    )
    parser.add_argument("--cases", type=expression, default="", metavar="REGEX", help="only these")
    parser.add_argument("--pairs", type=positive, default=31, help="pairs of timings (31)")
    parser.add_argument("--plot", metavar="FILE.png", help="draw a roofline (needs matplotlib)")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument(
        "--small", action="store_true", help=f"extents of at most {SMALL}: tries the machinery"
    )


def names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def counts(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(positive(part.strip()) for part in text.split(",")))


def expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None
    return text


def main(arguments: argparse.Namespace) -> int:
    """Run what was asked for; print tables; 1 where no case has the name."""
    from rich.console import Console

    from benchmarks.dense import report, roofline, session

    plan = session.Plan(
        arguments.peers,
        arguments.threads,
        arguments.cases,
        arguments.pairs,
        SMALL if arguments.small else None,
        not arguments.no_memory,
    )
    progress = Console(stderr=True, markup=False, highlight=False)
    chosen = plan.chosen()
    if arguments.list:
        print("\n".join(case.name for case in chosen))
        return 0
    if not chosen:
        progress.print(f"no case matches {arguments.cases!r}; --list prints their names")
        return 1
    outcome = session.run(plan, progress.print)
    # Wide enough for a line per case, also where there is no terminal.
    report.show(outcome, Console(width=200))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(report.as_json(outcome), file, indent=2, ensure_ascii=False)
    if arguments.plot and (reason := roofline.draw(outcome, arguments.plot)):
        progress.print(reason)
    return 0
