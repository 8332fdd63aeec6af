"""`einloom opt`: run passes over a program and print what they leave, or find the wrong one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einloom.cli.arguments import (
    Commands,
    add_command,
    add_inputs,
    add_pipeline,
    add_program,
)
from einloom.cli.compilation import (
    all_inputs,
    chosen_pipeline,
    pass_context,
    say_assumptions,
)
from einloom.cli.failures import USER_ERROR, Task, UsageError
from einloom.cli.files import write_file
from einloom.cli.programs import Given, given_program

if TYPE_CHECKING:
    from argparse import Namespace

    from einloom.passes import Pipeline
    from einloom.passes.base import Event, Listener
    from einloom.passes.pipeline import Timing

ALL = "all"

EXAMPLES = """\
  einloom opt examples/attention.ein
  einloom opt examples/attention.ein --passes 'simplify, contract{method=greedy}, fuse'
  einloom opt examples/attention.ein --print-after all --timings
  einloom opt examples/attention.ein --stop-after contract --dump-dir stages
  einloom opt examples/conv.ein --verify-each --bisect --extent N=2
"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands, "opt", "run passes over a program and print the result", EXAMPLES, execute
    )
    add_program(parser)
    add_inputs(parser)
    add_pipeline(parser)
    parser.add_argument(
        "--verify-each", action="store_true", help="verify the program after every pass"
    )
    parser.add_argument("--stop-after", metavar="PASS", help="the last pass to run")
    parser.add_argument(
        "--disable",
        metavar="PASS",
        action="append",
        default=[],
        help="leave a pass out; may be given several times",
    )
    parser.add_argument(
        "--print-after",
        metavar="PASS",
        help="also print the program after this pass, or after all of them (all)",
    )
    parser.add_argument(
        "--dump-dir", metavar="FOLDER", help="write the program after every pass to FOLDER"
    )
    parser.add_argument(
        "--timings", action="store_true", help="print how long each pass took (standard error)"
    )
    parser.add_argument(
        "--bisect",
        action="store_true",
        help="interpret the program after every pass and name the first pass that changes a "
        "result or fails; status 1 where there is one",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write the result to a file")


def execute(arguments: Namespace, task: Task) -> int:
    task.seed = arguments.seed
    given = given_program(arguments)
    task.program = given.module
    pipeline = chosen_pipeline(arguments, task)
    if arguments.print_after not in (None, ALL, *pipeline.names):
        names = ", ".join((*pipeline.names, ALL))
        raise UsageError(f"--print-after {arguments.print_after}: it takes one of {names}")
    if arguments.bisect:
        return find_wrong_pass(pipeline, given, arguments, task)
    context = pass_context(arguments, given)
    if arguments.print_after is not None:
        context.listeners = (*context.listeners, _printer(arguments.print_after, task))
    with task.terminal.progress(f"running {pipeline}"):
        outcome = pipeline.trace(
            given.module,
            context,
            verify_each=arguments.verify_each,
            stop_after=arguments.stop_after,
            disable=arguments.disable,
            dump_dir=arguments.dump_dir,
        )
    if arguments.output is not None:
        write_file(arguments.output, str(outcome.module), arguments.program)
    elif arguments.print_after is None:
        task.terminal.code(str(outcome.module), "ein")
    if arguments.timings:
        print_timings(task, outcome.timings)
    return 0


def _printer(wanted: str, task: Task) -> Listener:
    """Prints the program after a pass, under a comment that names it."""
    from einloom.passes.base import AfterPass

    def listen(event: Event) -> None:
        if isinstance(event, AfterPass) and wanted in (ALL, event.pass_.name):
            changed = "" if event.changed else ": no change"
            task.terminal.code(f"# after {event.position} {event.pass_}{changed}", "ein")
            if event.changed or wanted != ALL:
                task.terminal.code(str(event.module), "ein")

    return listen


def print_timings(task: Task, timings: tuple[Timing, ...]) -> None:
    from einloom.report import Quantity, Table

    total = sum(timing.seconds for timing in timings)
    rows = [
        (t.name, Quantity(t.seconds, "seconds"), f"{t.seconds / total:.0%}" if total else "-")
        for t in timings
    ]
    rows.append(("all", Quantity(total, "seconds"), ""))
    table = Table("timings", ("pass", "time", "share"), tuple(rows), numbers=(1, 2))
    task.terminal.report(table, errors=True)


def find_wrong_pass(pipeline: Pipeline, given: Given, arguments: Namespace, task: Task) -> int:
    """Print what each pass does to the results; 1 where one of them is at fault."""
    from einloom.cli.bisect import bisect
    from einloom.report import Table

    inputs = all_inputs(given, arguments.seed)
    say_assumptions(task, given, inputs.described, arguments.seed)
    context = pass_context(arguments, given)
    with task.terminal.progress(f"interpreting {given.module.name} after every pass"):
        steps = bisect(
            pipeline,
            given.module,
            context,
            inputs.arrays,
            given.extents,
            verify_each=arguments.verify_each,
            stop_after=arguments.stop_after,
            disable=arguments.disable,
        )
    rows = tuple((str(s.position), s.pass_text, s.verdict) for s in steps)
    table = Table("what each pass does", ("position", "pass", "results"), rows, numbers=(0,))
    task.terminal.report(table)
    wrong = next((step for step in steps if step.wrong), None)
    if wrong is None:
        task.terminal.note("no pass changes a result")
        return 0
    task.terminal.error(
        f"pass {wrong.position}, {wrong.pass_text}, is the first one at fault: {wrong.verdict}"
        f"\n  hint: einloom reduce makes the program smaller that shows it"
    )
    return USER_ERROR
