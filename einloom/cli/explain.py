"""`einloom explain`: the work, traffic, decisions, loop orders and storage of a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einloom.cli.arguments import Commands, add_command, add_pipeline, add_program
from einloom.cli.compilation import compiled, say_assumptions
from einloom.cli.failures import Task
from einloom.cli.programs import given_program
from einloom.ir.errors import UnsupportedError

if TYPE_CHECKING:
    from argparse import Namespace

EXAMPLES = """\
  einloom explain examples/attention.ein
  einloom explain 'ij,jk,kl->il' --extent i=1000 --extent l=2
  einloom explain 'ij,jk->ik' --shape x0=512x256 --dtype x0=f64
  einloom explain examples/conv.ein --extent H=128 --passes 'simplify, fuse{max_ops=2}'
"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands, "explain", "show what a compiled program does and why", EXAMPLES, execute
    )
    add_program(parser)
    add_pipeline(parser)
    parser.add_argument(
        "--traversals",
        action="store_true",
        help="how often a kernel traverses its inputs (not built yet)",
    )


def execute(arguments: Namespace, task: Task) -> int:
    from einloom.explanation import explain

    if arguments.traversals:
        raise UnsupportedError(
            "explain --traversals is not built yet",
            suggestion="explain without it shows the loops of every statement",
        )
    given = given_program(arguments)
    task.program = given.module
    say_assumptions(task, given, [], 0)
    with task.terminal.progress(f"compiling {given.module.name}"):
        executable = compiled(given, arguments, task)
        report = explain(executable, given.extents)
    task.terminal.report(report)
    return 0
