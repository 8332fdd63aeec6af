"""The words of a command line: the parser, and the arguments that several commands take."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NoReturn, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

DESCRIPTION = """\
Einloom compiles tensor computations written as extended einsums.

PROGRAM is a .ein file, - for standard input, or an einsum spec such as 'ij,jk->ik'.
"""

EXAMPLES = """\
  einloom run examples/attention.ein --check
  einloom run 'ij,jk->ik' --shape x0=512x256 --time
  einloom explain examples/attention.ein
  einloom opt examples/attention.ein --passes 'simplify, contract, fuse'
  einloom compile examples/attention.ein --emit llvm
  einloom COMMAND --help
"""

_SIZE = re.compile(r"\d{1,18}", re.ASCII)


class Parser(argparse.ArgumentParser):
    """An argument parser that keeps the layout of its texts and suggests what was meant."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        examples = kwargs.pop("examples", None)
        if examples:
            kwargs["epilog"] = f"examples:\n{examples}"
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        # An abbreviation that works today would change its meaning with a new option.
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and what is near, and stop with status 2."""
        known = [option for action in self._actions for option in action.option_strings]
        wrong = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        if wrong is not None:
            near = get_close_matches(wrong[1], known, 1)
            message += f" (did you mean {near[0]}?)" if near else ""
        wrong = re.search(r"argument COMMAND: invalid choice: '([^']*)'", message)
        if wrong is not None:
            near = get_close_matches(wrong[1], COMMANDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"commands: {', '.join(COMMANDS)}"
            message = f"there is no command {wrong[1]!r}; {hint}"
        self.exit(2, f"{self.prog}: error: {message}\n  {self.prog} --help shows what it takes\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does it, but what is left over is reported by the command's own parser."""
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            getattr(found, "parser", self).error(f"unrecognized arguments: {' '.join(rest)}")
        return found


COMMANDS = ("run", "compile", "opt", "reduce", "explain", "passes", "cache", "doctor")


def new_parser() -> Parser:
    """The parser of all commands; each sets `execute` to its function."""
    from einloom import __version__
    from einloom.cli import cache, compile, doctor, explain, opt, passes, reduce, run

    parser = Parser(prog="einloom", description=DESCRIPTION, examples=EXAMPLES)
    parser.add_argument("--version", action="version", version=f"einloom {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for module in (run, compile, opt, reduce, explain, passes, cache, doctor):
        module.add(commands)
    return parser


def add_command(
    commands: Commands, name: str, summary: str, examples: str, execute: Callable[..., int]
) -> Parser:
    """A command with a one-line summary and examples under its help."""
    parser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", examples=examples
    )
    parser.set_defaults(execute=execute, parser=parser)
    return parser


# ---- arguments of several commands --------------------------------------------------------


def add_program(parser: Parser) -> None:
    """PROGRAM, and what a program leaves open: sizes, and shapes and dtypes of a spec."""
    parser.add_argument(
        "program",
        metavar="PROGRAM",
        help="a .ein file, - for standard input, or an einsum spec such as 'ij,jk->ik'",
    )
    group = parser.add_argument_group("sizes")
    group.add_argument(
        "--extent",
        metavar="NAME=SIZE",
        type=extent,
        action="append",
        default=[],
        help="the size of a symbol of the program, or of a label of a spec",
    )
    group.add_argument(
        "--shape",
        metavar="NAME=AxBxC",
        type=shape,
        action="append",
        default=[],
        help="the shape of an operand of a spec: x0 is the first, x1 the second (x0=8x16)",
    )
    group.add_argument(
        "--dtype",
        metavar="NAME=DTYPE",
        type=pair,
        action="append",
        default=[],
        help="the dtype of an operand of a spec (f32 unless given): x0=f64",
    )


def add_inputs(parser: Parser) -> None:
    """--input and --seed."""
    parser.add_argument(
        "--input",
        metavar="NAME=FILE.npy",
        type=pair,
        action="append",
        default=[],
        help="an input from a .npy file, or a number; inputs that are not named are random",
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="of random inputs (0)")


def add_pipeline(parser: Parser) -> None:
    """--passes and --strict."""
    parser.add_argument(
        "--passes",
        metavar="PIPELINE",
        help="passes in place of the default ones: 'simplify, fuse{max_ops=8}'",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="keep floating-point operations in the written order: no law that rounds",
    )


def pair(text: str) -> tuple[str, str]:
    """`name=value`."""
    name, equals, value = text.partition("=")
    if not (name.strip() and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name.strip(), value


def extent(text: str) -> tuple[str, int]:
    """`N=128`."""
    name, equals, value = text.partition("=")
    if not (name.strip() and equals and _SIZE.fullmatch(value.strip())):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=SIZE, as in N=128")
    return name.strip(), int(value)


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`x0=8x16`; nothing after the equals sign is the shape of a single number."""
    name, equals, value = text.partition("=")
    sizes = [size.strip() for size in re.split("[x,]", value)] if value.strip() else []
    if not (name.strip() and equals and all(_SIZE.fullmatch(size) for size in sizes)):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=AxB, as in x0=8x16")
    return name.strip(), tuple(int(size) for size in sizes)


def natural(text: str) -> int:
    """A whole number from 0."""
    if not _SIZE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1."""
    if natural(text) == 0:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return int(text)
