"""`einloom compile`: a program as IR, loops, LLVM IR, assembly, an object file or a library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einloom.cli.arguments import Commands, add_command, add_pipeline, add_program
from einloom.cli.compilation import compiled
from einloom.cli.failures import Task, UsageError
from einloom.cli.files import write_file, write_files
from einloom.cli.programs import given_program

if TYPE_CHECKING:
    from argparse import Namespace

    from einloom.backends.cpu.export.library import Library
    from einloom.executable import Executable

FORMS = ("ir", "loops", "llvm", "asm", "obj", "so", "header")
LANGUAGES = {"ir": "ein", "loops": "ein", "llvm": "llvm", "asm": "gas", "header": "c"}
OF_LIBRARIES = ("llvm", "asm", "obj", "so", "header")
BINARY = ("obj", "so")

EXAMPLES = """\
  einloom compile examples/attention.ein
  einloom compile examples/attention.ein --emit loops --passes simplify
  einloom compile 'ij,jk->ik' --emit llvm --optimized
  einloom compile examples/attention.ein --emit asm -o attention.s
  einloom compile examples/attention.ein --emit so -o libattention.so
  einloom compile examples/attention.ein --emit obj --arch aarch64 -o attention.o
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
        "LLVM IR; asm: assembly; obj: an object file; so: a shared library, with a C header "
        "beside it; header: that header. All but ir are for contiguous operands. llvm and asm "
        "show the kernels for this machine, with --cpu or --arch all that a library holds.",
    )
    parser.add_argument("--optimized", action="store_true", help="LLVM IR after LLVM's own passes")
    group = parser.add_argument_group("libraries")
    group.add_argument(
        "--cpu",
        metavar="NAME",
        help="the least processor that it has to run on: x86-64, x86-64-v2, x86-64-v3 (the "
        "default), x86-64-v4, armv8-a, or native for this machine",
    )
    group.add_argument(
        "--arch", metavar="NAME", help="x86-64 or aarch64; this machine's unless given"
    )
    group.add_argument("--name", metavar="NAME", help="of the C function: the program's by default")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to a file")


def execute(arguments: Namespace, task: Task) -> int:
    terminal = task.terminal
    form = arguments.emit
    _check_options(arguments, terminal.for_people)
    given = given_program(arguments)
    task.program = given.module
    with terminal.progress(f"compiling {given.module.name}"):
        executable = compiled(given, arguments, task)
        if form == "so":
            _write_library(executable, arguments)
            return 0
        made = emitted(executable, form, arguments)
    if arguments.output is not None:
        write_file(arguments.output, made, arguments.program)
    elif isinstance(made, bytes):
        terminal.binary(made)
    else:
        terminal.code(made, LANGUAGES[form])
    return 0


def _check_options(arguments: Namespace, for_people: bool) -> None:
    form = arguments.emit
    if arguments.optimized and form != "llvm":
        raise UsageError("--optimized goes with --emit llvm; asm and obj are optimized anyway")
    for option in ("cpu", "arch", "name"):
        if getattr(arguments, option) is not None and form not in OF_LIBRARIES:
            raise UsageError(f"--{option} goes with --emit {', '.join(OF_LIBRARIES)}")
    if form == "so" and arguments.output is None:
        raise UsageError("a shared library and its header are files: name one with -o lib.so")
    if form == "obj" and arguments.output is None and for_people:
        raise UsageError("an object file is not for a terminal: name a file with -o")


def _write_library(executable: Executable, arguments: Namespace) -> None:
    from einloom.backends.cpu.export.files import library_files
    from einloom.exporting import library

    def make() -> Library:
        return library(executable, arguments.cpu, arguments.arch, arguments.name)

    write_files(library_files(arguments.output, make), [arguments.program])


def emitted(executable: Executable, form: str, arguments: Namespace) -> str | bytes:
    """One form of a compiled program."""
    whole = any(getattr(arguments, option) is not None for option in ("cpu", "arch", "name"))
    match form:
        case "ir":
            return executable.ir()
        case "loops":
            return executable.ir("loops")
        case "llvm" if not whole:
            return executable.llvm(optimized=arguments.optimized)
        case "asm" if not whole:
            return executable.asm()
    from einloom.exporting import library

    made = library(executable, arguments.cpu, arguments.arch, arguments.name)
    match form:
        case "llvm":
            return made.optimized() if arguments.optimized else made.text
        case "asm":
            return made.assembly()
        case "header":
            return made.header
    return made.object_code()
