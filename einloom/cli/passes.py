"""`einloom passes`: which passes there are, and the manual of each."""

from __future__ import annotations

import inspect
import textwrap
from typing import TYPE_CHECKING

from einloom.cli.arguments import Commands, add_command
from einloom.cli.failures import Task

if TYPE_CHECKING:
    from argparse import Namespace

    from einloom.passes import Pass

EXAMPLES = """\
  einloom passes
  einloom passes contract
  einloom passes --default
"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands, "passes", "list the passes, or explain one of them", EXAMPLES, execute
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the pass to explain")
    parser.add_argument(
        "--default", action="store_true", help="print the default pipeline of each target"
    )


def execute(arguments: Namespace, task: Task) -> int:
    from einloom.passes.options import unknown_pass
    from einloom.passes.registry import ALL_PASSES

    if arguments.default:
        from einloom.passes.defaults import DEFAULT_PIPELINES

        for target, pipeline in DEFAULT_PIPELINES.items():
            task.terminal.line(f"{target}\t{pipeline}")
        return 0
    if arguments.name is None:
        list_passes(ALL_PASSES, task)
        return 0
    known = {cls.name: cls for cls in ALL_PASSES}
    if arguments.name not in known:
        raise unknown_pass(arguments.name, list(known))
    task.terminal.prose(manual(known[arguments.name]))
    return 0


def list_passes(passes: tuple[type[Pass], ...], task: Task) -> None:
    from einloom.report import Table

    rows = tuple((cls.name, ", ".join(defaults(cls)) or "-", summary(cls)) for cls in passes)
    task.terminal.report(Table("passes", ("pass", "options", "what it does"), rows))


def summary(cls: type[Pass]) -> str:
    """The first sentence of a pass's docstring."""
    text = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    end = text.find(". ")
    return text if end < 0 else text[: end + 1]


def defaults(cls: type[Pass]) -> list[str]:
    """`option=default` of every option."""
    from einloom.passes.options import option_types

    return [f"{name}={_default(cls, name)}" for name in option_types(cls)]


def _default(cls: type[Pass], name: str) -> str:
    value = getattr(cls, name, None)
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def manual(cls: type[Pass]) -> str:
    """Everything that is known of a pass: its docstring, level, options, what it assumes, its
    place in pipelines."""
    from einloom.passes.options import described, option_types
    from einloom.passes.order import ORDER, Before

    level = cls.level if cls.result_level is None else f"{cls.level} to {cls.result_level}"
    lines = [cls.name, "", inspect.getdoc(cls) or "", "", f"level: {level}"]
    for text in cls.assumes:
        lines.append(f"assumes: {text}")
    options = option_types(cls)
    lines.append("options:" if options else "options: none")
    for name, hint in options.items():
        lines.append(f"  {name}: {described(hint)}; default {_default(cls, name)}")
    for constraint in ORDER:
        if isinstance(constraint, Before):
            concerned = cls.name in (constraint.first, constraint.second)
            text = f"{constraint.first} stands before {constraint.second}: {constraint.why}"
        else:
            concerned = cls.name == constraint.name
            text = f"{constraint.name} needs {constraint.needs} before it: {constraint.why}"
        if concerned:
            lines += [
                "order:",
                textwrap.fill(text, 98, initial_indent="  ", subsequent_indent="  "),
            ]
    return "\n".join(lines)
