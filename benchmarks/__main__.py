"""`python -m benchmarks NAME [--json FILE]`: run one page of measurements."""

from __future__ import annotations

import argparse
from importlib import import_module

PAGES = ("foundation", "rewriting")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("page", choices=PAGES)
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON, too")
    arguments = parser.parse_args()
    import_module(f"benchmarks.{arguments.page}").main(arguments.json)


main()
