"""`einloom compile`: a program as IR, loops, LLVM IR, assembly or an object file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einloom.cli.arguments import Commands, add_command, add_pipeline, add_program
from einloom.cli.compilation import compiled
from einloom.cli.failures import Task, UsageError
from einloom.cli.files import write_file
from einloom.cli.programs import given_program

if TYPE_CHECKING:
    from argparse import Namespace

    from einloom.executable import Executable

FORMS = ("ir", "loops", "llvm", "asm", "obj")
LANGUAGES = {"ir": "ein", "loops": "ein", "llvm": "llvm", "asm": "gas"}

EXAMPLES = """\
  einloom compile examples/attention.ein
  einloom compile examples/attention.ein --emit loops --passes simplify
  einloom compile 'ij,jk->ik' --emit llvm --optimized
  einloom compile examples/attention.ein --emit asm -o attention.s
  einloom compile examples/attention.ein --emit obj -o attention.o
"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands, "compile", "compile a program and print a form of it", EXAMPLES, execute
    )
    add_program(parser)
    add_pipeline(parser)
    parser.add_argument(
        "--emit",
        choices=FORMS,
        default="ir",
        help="ir: the program after all passes (the default); loops: explicit loops; llvm: "
        "LLVM IR; asm: assembly of this machine; obj: an object file. All but ir are for "
        "contiguous operands.",
    )
    parser.add_argument("--optimized", action="store_true", help="LLVM IR after LLVM's own passes")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to a file")


def execute(arguments: Namespace, task: Task) -> int:
    terminal = task.terminal
    form = arguments.emit
    if arguments.optimized and form != "llvm":
        raise UsageError("--optimized goes with --emit llvm; asm and obj are optimized anyway")
    if form == "obj" and arguments.output is None and terminal.for_people:
        raise UsageError("an object file is not for a terminal: name a file with -o")
    given = given_program(arguments)
    task.program = given.module
    with terminal.progress(f"compiling {given.module.name}"):
        executable = compiled(given, arguments, task)
        made = emitted(executable, form, arguments.optimized)
    if arguments.output is not None:
        write_file(arguments.output, made, arguments.program)
    elif isinstance(made, bytes):
        terminal.binary(made)
    else:
        terminal.code(made, LANGUAGES[form])
    return 0


def emitted(executable: Executable, form: str, optimized: bool) -> str | bytes:
    """One form of a compiled program."""
    match form:
        case "ir":
            return executable.ir()
        case "loops":
            return executable.ir("loops")
        case "llvm":
            return executable.llvm(optimized=optimized)
        case "asm":
            return executable.asm()
    from einloom.backends.cpu.compile import object_code

    return object_code(executable.loops())
