"""`einloom reduce`: make a program smaller that a pass or the backend gets wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from einloom.cli.arguments import (
    Commands,
    add_command,
    add_inputs,
    add_pipeline,
    add_program,
    positive,
)
from einloom.cli.compilation import all_inputs, chosen_pipeline, pass_context
from einloom.cli.failures import USER_ERROR, Task, UsageError
from einloom.cli.files import write_file
from einloom.cli.programs import Given, given_program, resolve_extents

if TYPE_CHECKING:
    from argparse import Namespace

    from einloom.ir.program import Module

EXAMPLES = """\
  einloom reduce wrong.ein --passes 'simplify, fuse'
  einloom reduce wrong.ein --seconds 120 -o small.ein
  einloom reduce crashes.ein --compiled
"""


def add(commands: Commands) -> None:
    parser = add_command(commands, "reduce", "make a failing program smaller", EXAMPLES, execute)
    add_program(parser)
    add_inputs(parser)
    add_pipeline(parser)
    parser.add_argument(
        "--compiled",
        action="store_true",
        help="also compile and run each candidate, for faults of the backend",
    )
    parser.add_argument(
        "--seconds", type=positive, default=60, metavar="N", help="when to stop (60)"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write the program to a file")


def execute(arguments: Namespace, task: Task) -> int:
    from einloom.cli.shrinking import shrink

    if arguments.input:
        raise UsageError("--input: inputs are random here, because their shapes shrink, too")
    given = given_program(arguments)
    task.program, task.seed = given.module, arguments.seed
    deadline = time.monotonic() + arguments.seconds
    with task.terminal.progress(f"shrinking {given.module.name}"):
        kind = failure(given.module, arguments, task)
        if not kind:
            task.terminal.error(
                f"{given.module.name} does not fail: no pass changes a result or raises"
                + ("" if arguments.compiled else "\n  hint: --compiled looks at the backend, too")
            )
            return USER_ERROR

        def fails(candidate: Module) -> bool:
            try:
                return failure(candidate, arguments, task) == kind
            except Exception:  # another fault, of the interpreter: not the one that is shrunk
                return False

        small = shrink(given.module, fails, deadline)
    task.terminal.note(
        f"it fails like this: {kind}; {_size(given.module)} shrunk to {_size(small)}"
    )
    if arguments.output is not None:
        write_file(arguments.output, str(small), arguments.program)
    else:
        task.terminal.code(str(small), "ein")
    return 0


def _size(module: Module) -> str:
    from einloom.ir.names import nested_statements

    count = sum(1 for _ in nested_statements(module.body))
    return f"{count} statement{'' if count == 1 else 's'}"


def failure(module: Module, arguments: Namespace, task: Task) -> str:
    """How a program fails, in words that are the same for a smaller one; "" where it does not.

    A program that the interpreter itself refuses is taken for one that does not fail.
    """
    from einloom.cli.bisect import bisect
    from einloom.ir.errors import EinloomError

    try:
        given_sizes = dict(arguments.extent)
        known = {name: size for name, size in given_sizes.items() if name in _symbols(module)}
        sizes, assumed = resolve_extents(module, known, {})
        given = Given(module, sizes, {}, assumed)
        arrays = all_inputs(given, arguments.seed).arrays
        context = pass_context(arguments, given)
        pipeline = chosen_pipeline(arguments, task)
        steps = bisect(pipeline, module, context, arrays, sizes, verify_each=True)
    except EinloomError:
        return ""
    if steps and steps[-1].wrong:
        return f"{steps[-1].pass_text} {steps[-1].kind}"
    return _compiled_failure(given, arguments, arrays) if arguments.compiled else ""


def _symbols(module: Module) -> set[str]:
    from einloom.ir.infer import infer

    extents = {item.name for item in module.inputs if item.type is None}
    return extents | set(infer(module).symbols)


def _compiled_failure(given: Given, arguments: Namespace, arrays: Mapping[str, Any]) -> str:
    from einloom import api
    from einloom.cli.comparison import compare, largest, roundings
    from einloom.ir.interpret import interpret

    module = given.module
    try:
        executable = api.compile_module(
            module,
            pipeline=arguments.passes,
            strict=arguments.strict or None,
            extents=given.extents,
        )
        results = executable.run(arrays)
    except Exception as error:
        return f"the backend raises {type(error).__name__}"
    references = interpret(module, arrays)
    differences = compare(results, references, roundings(module, given.extents), largest(arrays))
    return "" if all(d.agrees for d in differences) else "the backend computes something else"
