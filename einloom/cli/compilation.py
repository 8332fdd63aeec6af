"""Compiling what a command was given, and saying what it had to assume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from einloom.cli.failures import Task
from einloom.cli.programs import DEFAULT_EXTENT, Given
from einloom.ir.record import record

if TYPE_CHECKING:
    from argparse import Namespace

    from einloom.executable import Executable
    from einloom.ir.program import Module
    from einloom.passes import Context, Pipeline
    from einloom.passes.base import Event


def say_assumptions(task: Task, given: Given, made: list[tuple[str, str]], seed: int) -> None:
    """Name every size and every input that the user did not give."""
    if given.assumed:
        names = ", ".join(given.assumed)
        task.terminal.note(f"{names} = {DEFAULT_EXTENT}: no size was given (--extent)")
    groups: dict[str, list[str]] = {}
    for name, description in made:
        groups.setdefault(description, []).append(name)
    if groups:
        parts = [f"{', '.join(names)} ({words})" for words, names in groups.items()]
        task.terminal.note(f"random inputs, seed {seed}: {'; '.join(parts)}")


def chosen_pipeline(arguments: Namespace, task: Task) -> Pipeline:
    """The pipeline of --passes, or the default one."""
    from einloom import api
    from einloom.passes import Pipeline

    if arguments.passes is None:
        pipeline = api.default_pipeline("cpu")
    else:
        pipeline = Pipeline.parse(arguments.passes)
    task.pipeline = str(pipeline)
    return pipeline


def pass_context(arguments: Namespace, given: Given) -> Context:
    """What passes run in: --strict, sizes, and what EINLOOM_DEBUG listens to."""
    from einloom import api
    from einloom.debug import debug_listeners

    context = api.new_context(arguments.strict or None, given.extents)
    context.seed = getattr(arguments, "seed", 0)
    context.listeners = debug_listeners()
    return context


def compiled(given: Given, arguments: Namespace, task: Task) -> Executable:
    """The executable of a program under the pipeline options of the command line."""
    from einloom.debug import debug_code
    from einloom.executable import Executable
    from einloom.ir.program import Module
    from einloom.passes.base import AfterPass

    pipeline = chosen_pipeline(arguments, task)
    context = pass_context(arguments, given)
    stages: dict[str, Module] = {"input": given.module}

    def listen(event: Event) -> None:
        if isinstance(event, AfterPass) and isinstance(event.module, Module):
            stages[event.pass_.name] = event.module

    context.listeners = (listen, *context.listeners)
    final = pipeline.run(given.module, context)
    executable = Executable(final, stages=stages, notes=context.notes, strict=context.strict)
    debug_code(executable)
    return executable


@record
class Inputs:
    """Every input of a run, and the names and descriptions of those that are random."""

    arrays: dict[str, Any]
    described: list[tuple[str, str]]


def all_inputs(given: Given, seed: int) -> Inputs:
    """The given inputs, random ones for the rest, and the sizes that are inputs themselves."""
    from einloom.cli.inputs import random_inputs

    made = random_inputs(given.module, given.extents, given.arrays, seed)
    arrays = dict(given.arrays) | {item.name: item.value for item in made}
    for item in given.module.inputs:
        if item.type is None:
            arrays.setdefault(item.name, given.extents[item.name])
    return Inputs(arrays, [(item.name, item.description) for item in made])
