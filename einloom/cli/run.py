"""`einloom run`: compile a program, run it on files or random inputs, show or keep the results."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, BinaryIO

from einloom.cli.arguments import (
    Commands,
    add_command,
    add_inputs,
    add_pipeline,
    add_program,
    positive,
)
from einloom.cli.compilation import all_inputs, compiled, say_assumptions
from einloom.cli.failures import USER_ERROR, Task
from einloom.cli.files import refuse_overwriting, write_files
from einloom.ir.errors import EinloomError

if TYPE_CHECKING:
    from argparse import Namespace

    from einloom.cli.programs import Given
    from einloom.executable import Executable

EXAMPLES = """\
  einloom run examples/attention.ein
  einloom run examples/attention.ein --input Q=q.npy --input K=k.npy --output results
  einloom run examples/conv.ein --extent W=128 --seed 7 --check
  einloom run 'ij,jk->ik' --shape x0=512x256 --extent k=64 --time
  einloom run 'ij->ji' --input x0=matrix.npy --output .
"""

FIRST_VALUES = 3
MOST_RUNS, LEAST_RUNS, SECONDS_OF_RUNS = 101, 3, 1.0
_UNSAFE = re.compile(r"[^\w.@+-]")


def add(commands: Commands) -> None:
    parser = add_command(commands, "run", "compile and run a program", EXAMPLES, execute)
    add_program(parser)
    add_inputs(parser)
    add_pipeline(parser)
    parser.add_argument("--output", metavar="FOLDER", help="write each result to FOLDER/NAME.npy")
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare with the interpreter; status 1 where a result differs",
    )
    parser.add_argument(
        "--time", action="store_true", help="run several times and print the median"
    )
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="threads that a kernel may use"
    )


def execute(arguments: Namespace, task: Task) -> int:
    from einloom.cli.programs import given_program
    from einloom.options import options

    terminal = task.terminal
    task.seed = arguments.seed
    given = given_program(arguments)
    task.program = given.module
    targets = output_files(given, arguments)
    inputs = all_inputs(given, arguments.seed)
    say_assumptions(task, given, inputs.described, arguments.seed)
    arrays = inputs.arrays
    started = time.perf_counter()
    with options(threads=arguments.threads, strict=arguments.strict or None):
        with terminal.progress(f"compiling and running {given.module.name}"):
            executable = compiled(given, arguments, task)
            results = executable.run(arrays)
        first_seconds = time.perf_counter() - started
        print_results(task, executable, results)
        if arguments.time:
            with terminal.progress(f"timing {given.module.name}"):
                seconds = repeated(executable, arrays)
            print_times(task, seconds, first_seconds)
    status = 0
    if arguments.check:
        status = check(task, given, arrays, results)
    if targets and not status:
        files = {path: npy(results[name]) for name, path in targets.items()}
        write_files(files, read_files(arguments))
        for name, path in targets.items():
            terminal.note(f"{name} is in {path}")
    return status


# ---- what is printed ----------------------------------------------------------------------


def print_results(task: Task, executable: Executable, results: Mapping[str, Any]) -> None:
    """One row per result: dtype, shape, least, greatest, mean and first values."""
    from einloom.report import Cell, Table

    columns = ("result", "dtype", "shape", "min", "max", "mean", "first values")
    rows: list[tuple[Cell, ...]] = []
    for name, type_ in executable.outputs.items():
        for label, part, dtype in _fields(name, results[name], type_.dtype):
            shape = "x".join(map(str, part.shape)) or "scalar"
            rows.append((label, str(dtype), shape, *_summary(part)))
    table = Table(f"results of {executable.module.name}", columns, tuple(rows), numbers=(3, 4, 5))
    task.terminal.report(table)


def _fields(name: str, array: Any, dtype: Any) -> list[tuple[str, Any, Any]]:
    """An array and its dtype, or those of the fields of a structured one."""
    if not array.dtype.names:
        return [(name, array, dtype)]
    return [
        found
        for k, field in enumerate(array.dtype.names)
        for found in _fields(f"{name}.{k}", array[field], dtype.items[k])
    ]


def _summary(array: Any) -> tuple[str, str, str, str]:
    import numpy as np

    if not array.size:
        return "-", "-", "-", "empty"
    values = array.astype(np.float32) if array.dtype.name in ("bfloat16", "float16") else array
    shown = [_value(v) for v in values.reshape(-1)[:FIRST_VALUES].tolist()]
    first = " ".join(shown) + (" ..." if array.size > FIRST_VALUES else "")
    if values.dtype.kind == "c":
        return "-", "-", _value(complex(values.mean(dtype=np.complex128))), first
    with np.errstate(all="ignore"):
        mean = float(values.mean(dtype=np.float64))
    return _value(values.min().item()), _value(values.max().item()), _value(mean), first


def _value(value: Any) -> str:
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, complex):
        return f"{value.real:.4g}{value.imag:+.4g}j"
    return f"{value:.4g}"


def repeated(executable: Executable, arrays: Mapping[str, Any]) -> list[float]:
    """Seconds of several runs in a row, the code being there already."""
    seconds: list[float] = []
    while len(seconds) < LEAST_RUNS or (
        len(seconds) < MOST_RUNS and sum(seconds) < SECONDS_OF_RUNS
    ):
        started = time.perf_counter()
        executable.run(arrays)
        seconds.append(time.perf_counter() - started)
    return seconds


def print_times(task: Task, seconds: list[float], first_seconds: float) -> None:
    from einloom.report import Cell, Quantity, Table

    cells = (median(seconds), min(seconds), max(seconds), first_seconds)
    row: tuple[Cell, ...] = tuple(Quantity(cell, "seconds") for cell in cells)
    columns = ("median", "fastest", "slowest", "first, with compiling", "runs")
    task.terminal.report(
        Table("time", columns, ((*row, str(len(seconds))),), numbers=(0, 1, 2, 3, 4))
    )


def check(task: Task, given: Given, arrays: Mapping[str, Any], results: Mapping[str, Any]) -> int:
    """Compare results with the interpreter's; 1 where one differs."""
    from einloom.cli.comparison import compare, comparison_table, largest, roundings
    from einloom.ir.interpret import interpret

    with task.terminal.progress(f"interpreting {given.module.name}"):
        references = interpret(given.module, arrays)
    counted = roundings(given.module, given.extents)
    differences = compare(results, references, counted, largest(arrays))
    task.terminal.report(comparison_table(differences))
    wrong = [d for d in differences if not d.agrees]
    if wrong:
        task.terminal.error(
            "; ".join(map(str, wrong)) + "\n  hint: einloom opt --bisect names the pass that "
            "changes a result; if none does, the backend is at fault"
        )
    return USER_ERROR if wrong else 0


# ---- what is written ----------------------------------------------------------------------


def output_files(given: Given, arguments: Namespace) -> dict[str, Path]:
    """The file of every result. Raises EinloomError rather than overwrite an input."""
    if arguments.output is None:
        return {}
    folder = Path(arguments.output)
    if folder.exists() and not folder.is_dir():
        raise EinloomError(f"--output takes a folder, and {folder} is none")
    targets = {name: folder / f"{file_name(name)}.npy" for name in given.module.outputs}
    refuse_overwriting(targets.values(), read_files(arguments))
    return targets


def read_files(arguments: Namespace) -> list[str]:
    """The program and the inputs."""
    return [arguments.program, *(file for _, file in arguments.input)]


def file_name(name: str) -> str:
    """A result's name as a file's: what a path could not hold is written as %2f."""
    return _UNSAFE.sub(lambda m: "".join(f"%{byte:02x}" for byte in m[0].encode()), name)


def npy(array: Any) -> Callable[[BinaryIO], None]:
    """The contents of a .npy file."""
    import numpy as np

    return lambda file: np.save(file, array, allow_pickle=False)
