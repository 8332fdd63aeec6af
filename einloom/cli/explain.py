"""`einloom explain`: the work, traffic, decisions, loop orders and storage of a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einloom.cli.arguments import Commands, add_command, add_pipeline, add_program, positive
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
  einloom explain 'ij,jk->ik' --shape x0=1024x1024 --extent k=1024 --measure
  einloom explain examples/conv.ein --extent H=128 --passes 'simplify, fuse{max_ops=2}'
"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands, "explain", "show what a compiled program does and why", EXAMPLES, execute
    )
    add_program(parser)
    add_pipeline(parser)
    parser.add_argument(
        "--measure",
        action="store_true",
        help="run every kernel on random operands, and compare with the prediction",
    )
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="threads that a kernel may use"
    )
    parser.add_argument(
        "--traversals",
        action="store_true",
        help="how often a kernel traverses its inputs (not built yet)",
    )


def execute(arguments: Namespace, task: Task) -> int:
    from einloom.explanation import explain
    from einloom.machine_file import stored
    from einloom.options import options

    if arguments.traversals:
        raise UnsupportedError(
            "explain --traversals is not built yet",
            suggestion="explain without it shows the loops of every statement",
        )
    given = given_program(arguments)
    task.program = given.module
    say_assumptions(task, given, [], 0)
    doing = "compiling and running" if arguments.measure else "compiling"
    with (
        options(threads=arguments.threads),
        task.terminal.progress(f"{doing} {given.module.name}"),
    ):
        executable = compiled(given, arguments, task)
        report = explain(executable, given.extents, measure=arguments.measure)
    task.terminal.report(report)
    if arguments.measure and stored().measured is None:
        task.terminal.note(
            "this machine was not measured (einloom doctor --measure): predictions and the "
            "roofline are those of a default machine"
        )
    return 0
