"""`python -m benchmarks NAME [--json FILE]`: run one page of measurements."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from benchmarks import dense

PAGES = ("foundation", "rewriting")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    pages = parser.add_subparsers(dest="page", required=True, metavar="NAME")
    for name in (*PAGES, "dense"):
        page = pages.add_parser(name)
        page.add_argument("--json", metavar="FILE", help="write the figures as JSON, too")
        if name == "dense":
            dense.add_arguments(page)
    arguments = parser.parse_args()
    if arguments.page == "dense":
        return dense.main(arguments)
    import_module(f"benchmarks.{arguments.page}").main(arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
