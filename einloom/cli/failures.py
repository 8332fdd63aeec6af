"""What happens when a command fails: exit statuses, messages, and reproducers of defects."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from einloom.cli.terminal import Terminal
from einloom.ir.errors import BackendError, EinloomError

USER_ERROR, USAGE, INTERNAL, INTERRUPTED, CLOSED_PIPE = 1, 2, 70, 130, 141


class UsageError(Exception):
    """Options that do not go together; the text says which and what would."""


@dataclass
class Task:
    """One call of the command line: where it prints, and what a reproducer has to hold.

    Commands set `program` (a module or its text), `pipeline` and `seed` as they learn them.
    """

    terminal: Terminal
    words: tuple[str, ...]
    program: Any = None
    pipeline: str | None = None
    seed: int | None = None


def guarded(work: Callable[[], int], task: Task) -> int:
    """Run a command and turn whatever it raises into a message and an exit status."""
    try:
        status = work()
        sys.stdout.flush()
        return status
    except UsageError as error:
        print(f"einloom {task.words[0]}: error: {error}", file=sys.stderr)
        return USAGE
    except EinloomError as error:
        if is_internal(error):
            return _internal(error, task)
        task.terminal.error(str(error))
        return USER_ERROR
    except BrokenPipeError:
        # What is left in the buffer has no reader; the interpreter must not try again at exit.
        with suppress(OSError, ValueError):  # where standard output is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except KeyboardInterrupt:
        task.terminal.error("interrupted")
        return INTERRUPTED
    except MemoryError as error:
        hint = "smaller extents need less: --extent NAME=SIZE"
        task.terminal.error(f"out of memory: {str(error) or 'no details'}\n  hint: {hint}")
        return USER_ERROR
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        task.terminal.error(f"{name}{error.strerror or error}")
        return USER_ERROR
    except Exception as error:
        return _internal(error, task)


def is_internal(error: EinloomError) -> bool:
    """Whether an error is a defect of Einloom, not of what it was given."""
    from einloom.passes.pipeline import InternalPassError

    own = isinstance(error, BackendError) and error.message.startswith("internal")
    return own or isinstance(error, InternalPassError)


def _internal(error: Exception, task: Task) -> int:
    if isinstance(error, EinloomError):
        message = str(error)
    else:
        message = f"internal error: {type(error).__name__}: {error}"
    lines = [message, "  This is a defect of Einloom, not of your program."]
    try:
        path = write_reproducer(reproducer(error, task))
        lines.append(f"  A file that repeats it, to be sent with a report: {path}")
    except OSError as failure:
        lines.append(f"  A file that repeats it could not be written: {failure}")
    task.terminal.error("\n".join(lines))
    return INTERNAL


def reproducer(error: Exception, task: Task) -> str:
    """A program file that repeats a failure: how it was called as comments, then the program."""
    lines = [f"# einloom {shlex.join(task.words)}", *(f"# {line}" for line in versions())]
    ready = getattr(error, "reproducer", "")
    if not ready:
        if task.pipeline is not None:
            lines.append(f"# pipeline: {task.pipeline}")
        if task.seed is not None:
            lines.append(f"# seed: {task.seed}")
    trace = "".join(traceback.format_exception(error)).rstrip()
    lines += [f"# {line}" for line in trace.splitlines()]
    if ready:
        lines.append(ready.rstrip())
    elif task.program is not None:
        lines.append(_text_of(task.program))
    return "\n".join(lines) + "\n"


def versions() -> list[str]:
    """`name version` of Einloom, Python and the libraries that decide what happens."""
    import platform
    from importlib import metadata

    from einloom import __version__

    found = [
        f"einloom {__version__}",
        f"python {platform.python_version()} on {platform.platform()}",
    ]
    for name in ("numpy", "llvmlite", "lark", "networkx", "opt_einsum", "ml_dtypes"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} missing")
    return found


def write_reproducer(text: str) -> str:
    """Write a reproducer to a new file in the working folder, or else the temporary one."""
    for folder in (os.getcwd(), tempfile.gettempdir()):
        try:
            handle, path = tempfile.mkstemp(".ein", "einloom-reproducer-", folder)
        except OSError:
            continue
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        return path
    raise OSError("neither the working folder nor the temporary one can be written to")


def _text_of(program: Any) -> str:
    try:
        return str(program)
    except Exception as error:  # the printer may be what fails
        return f"# the program cannot be printed: {type(error).__name__}: {error}"
