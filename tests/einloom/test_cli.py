"""The command line as a whole: usage, exit statuses, pipes, interruption, defects."""

from __future__ import annotations

import array
import fcntl
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from einloom import __version__
from einloom.cli import main
from einloom.cli.arguments import COMMANDS, new_parser

ROOT = Path(__file__).resolve().parents[2]
ATTENTION = str(ROOT / "examples" / "attention.ein")
COMMAND = [sys.executable, "-m", "einloom"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working folder to litter, and no settings of the person who runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EINLOOM_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    yield


def started(*words: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    command = [*COMMAND, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment())


def environment(**changes: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **changes}


# ---- usage --------------------------------------------------------------------------------


def test_every_command_has_help_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"usage: einloom {command}")
        assert f"examples:\n  einloom {command}" in text


def test_examples_of_the_help_are_lines_that_parse() -> None:
    parser = new_parser()
    commands = parser._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert list(commands) == list(COMMANDS)  # type: ignore[arg-type]
    for command, each in commands.items():  # type: ignore[union-attr]
        for line in each.epilog.splitlines()[1:]:
            words = shlex.split(line.split(" > ")[0])
            words = [w for w in words if not re.match(r"EINLOOM_\w+=", w)]
            assert words[:2] == ["einloom", command]
            parser.parse_args(words[1:])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"einloom {__version__}\n"


def test_no_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: einloom")


USAGE_ERRORS = {
    "rnu": "einloom: error: there is no command 'rnu'; did you mean run?",
    "sing": "einloom: error: there is no command 'sing'; commands: " + ", ".join(COMMANDS),
    "run": "einloom run: error: the following arguments are required: PROGRAM",
    "run x.ein --chek": (
        "einloom run: error: unrecognized arguments: --chek (did you mean --check?)"
    ),
    "run x.ein --extent N": (
        "einloom run: error: argument --extent: 'N' is not of the form NAME=SIZE, as in N=128"
    ),
    "run x.ein --extent N=-1": (
        "einloom run: error: argument --extent: 'N=-1' is not of the form NAME=SIZE, as in N=128"
    ),
    "run ij->i --shape x0=3xx": (
        "einloom run: error: argument --shape: 'x0=3xx' is not of the form NAME=AxB, as in x0=8x16"
    ),
    "run x.ein --input x": (
        "einloom run: error: argument --input: 'x' is not of the form NAME=VALUE"
    ),
    "run x.ein --threads 0": "einloom run: error: argument --threads: it must be at least 1",
    "cache empty": (
        "einloom cache: error: argument action: invalid choice: 'empty' "
        "(choose from 'info', 'clear')"
    ),
}


@pytest.mark.parametrize(("line", "message"), USAGE_ERRORS.items())
def test_usage_errors(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    first, *rest = captured.err.splitlines()
    # Python 3.12 no longer puts the choices in quotes.
    assert first.replace("'info', 'clear'", "info, clear") == message.replace(
        "'info', 'clear'", "info, clear"
    )
    assert rest == [f"  {first.split(': error')[0]} --help shows what it takes"]
    assert captured.out == ""


def test_options_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", ATTENTION, "--che"]) == 2
    assert "unrecognized arguments: --che" in capsys.readouterr().err


# ---- errors of the user -------------------------------------------------------------------


def test_errors_of_the_user_are_messages(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.ein").write_text("program p(A: f32[i=2]) -> (B) {\n  B[i] = A[i] * C[i]\n}\n")
    assert main(["run", "bad.ein"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[:3] == [
        "error: bad.ein:2:17: C is not defined",
        "    B[i] = A[i] * C[i]",
        "                  ^^^^",
    ]


def test_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nothing.ein"]) == 1
    assert capsys.readouterr().err == (
        "error: there is no file nothing.ein\n"
        "  hint: an einsum spec has an arrow: einloom run 'ij,jk->ik'\n"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"program \xff", "error: f.ein is not UTF-8: byte 0xff at offset 8, line 1"),
        (b"", "error: f.ein:1:1: "),
        (b"(" * 5000, "error: f.ein:1:1: "),
        (b"x" * 10_000_000, "error: f.ein:1:1: "),
    ],
    ids=["not UTF-8", "empty", "5,000 parentheses", "10 MB line"],
)
def test_malformed_files(data: bytes, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("f.ein").write_bytes(data)
    assert main(["run", "f.ein"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert len(error) < 2000


def test_illegal_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EINLOOM_DEBUG", "9")
    assert main(["opt", "ij->ji", "--passes", "simplify"]) == 1
    assert capsys.readouterr().err.startswith(
        "error: the environment variable EINLOOM_DEBUG is '9'"
    )


# ---- defects of Einloom -------------------------------------------------------------------


def test_a_defect_leaves_a_reproducer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from einloom.passes.fuse import Fuse

    def broken(self: Fuse, module: Any, context: Any) -> Any:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(Fuse, "run", broken)
    assert main(["opt", ATTENTION, "--passes", "fuse", "--seed", "3"]) == 70
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err.startswith(
        "error: internal error in pass fuse: ZeroDivisionError: a defect\n"
        "  This is a defect of Einloom, not of your program.\n"
    )
    (path,) = Path.cwd().glob("einloom-reproducer-*.ein")
    assert str(path) in captured.err
    text = path.read_text()
    assert f"# einloom opt {ATTENTION} --passes fuse --seed 3\n" in text
    assert "# pipeline: fuse\n" in text
    assert "# seed: 3\n" in text
    assert "# numpy " in text
    assert "ZeroDivisionError" in text
    # The file is itself the program.
    monkeypatch.undo()
    assert main(["opt", str(path), "--passes", "simplify"]) == 0


def test_a_defect_outside_passes_leaves_a_reproducer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from einloom import explanation

    def broken(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(explanation, "explain", broken)
    assert main(["explain", ATTENTION]) == 70
    assert capsys.readouterr().err.startswith("error: internal error: AssertionError: \n")
    (path,) = Path.cwd().glob("einloom-reproducer-*.ein")
    assert "# pipeline: simplify, contract, fuse\n" in path.read_text()
    assert "program attention(" in path.read_text()


def test_out_of_memory_is_no_defect(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from einloom.executable import Executable

    def exhausted(self: Executable, arrays: Any) -> Any:
        raise MemoryError("Unable to allocate 8 EiB")

    monkeypatch.setattr(Executable, "run", exhausted)
    assert main(["run", "ij->ji"]) == 1
    assert capsys.readouterr().err.endswith(
        "error: out of memory: Unable to allocate 8 EiB\n"
        "  hint: smaller extents need less: --extent NAME=SIZE\n"
    )


def test_interruption(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from einloom.passes import Pipeline

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "trace", interrupted)
    assert main(["opt", ATTENTION]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


# ---- processes, pipes and terminals -------------------------------------------------------


def test_module_runs_as_a_command() -> None:
    done = started("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"einloom {__version__}\n", "")


def test_exit_statuses_reach_the_shell() -> None:
    assert started("opt", "ij->ji", "--passes", "simplify").returncode == 0
    assert started("run", "missing.ein").returncode == 1
    assert started("runn").returncode == 2


def test_a_closed_pipe_is_no_error() -> None:
    command = " ".join([*COMMAND, "compile", "'ij,jk->ik'", "--emit", "asm"])
    script = f"set -o pipefail; {command} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=120, env=environment()
    )
    assert done.stderr == ""
    # 141 where the text is larger than the pipe, 0 where all of it fitted.
    assert done.stdout.splitlines()[-1] in ("0", "141")


def test_output_that_nobody_reads_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "passes"], stdout=writer, stderr=subprocess.PIPE, timeout=120, env=environment()
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_ctrl_c_ends_with_130() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*COMMAND, "opt", "-"], env=environment(), **pipes)  # type: ignore[call-overload]
    process.stdin.write(b"program")
    process.stdin.flush()
    deadline = time.monotonic() + 60
    # Once it has taken these bytes, it waits for more.
    while unread(process.stdin.fileno()) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr.read() == b"error: interrupted\n"
    assert process.stdout.read() == b""


def unread(pipe: int) -> int:
    """Bytes that wait in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def on_terminal(*words: str, **changes: str) -> str:
    """What a command prints on a terminal of 100 columns."""
    return shown_by([*COMMAND, *words], **changes)


def shown_by(command: list[str], **changes: str) -> str:
    """What a process prints on a terminal of 100 columns."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave,
        env=environment(TERM="xterm-256color", COLUMNS="100", **changes),
    )  # fmt: skip
    os.close(slave)
    pieces = []
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # how Linux reports that the other side has closed
            break
        if not piece:
            break
        pieces.append(piece)
    process.wait(60)
    os.close(master)
    return b"".join(pieces).decode()


def test_a_terminal_gets_tables_and_colours_and_a_pipe_gets_text() -> None:
    shown = on_terminal("opt", "ij,jk->ik", "--passes", "simplify")
    assert "\x1b[" in shown
    piped = started("opt", "ij,jk->ik", "--passes", "simplify").stdout
    assert "\x1b" not in piped
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n")
    assert stripped == piped


SLOW = """
import time
from einloom.cli import terminal
terminal.PATIENCE_SECONDS = 0.2
with terminal.Terminal().progress("working hard"):
    time.sleep({seconds})
print("done")
"""


@pytest.mark.parametrize(("seconds", "seen"), [(1.5, True), (0.0, False)])
def test_long_work_shows_that_it_goes_on(seconds: float, seen: bool) -> None:
    command = [sys.executable, "-c", SLOW.format(seconds=seconds)]
    assert ("working hard" in shown_by(command)) == seen
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_no_color_is_respected() -> None:
    shown = on_terminal("passes", NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)
    assert "simplify" in shown
    # Lines are drawn all the same.
    assert "─" in shown
    assert "\t" not in shown


def test_an_object_file_is_not_for_a_terminal() -> None:
    shown = on_terminal("compile", "ij->ji", "--emit", "obj")
    assert "an object file is not for a terminal: name a file with -o" in shown
    assert "ELF" not in shown


def test_names_that_the_encoding_lacks_are_escaped() -> None:
    program = "program p(é: f32[i=2]) -> (y) {\n  y[i] = é[i] + 1.0\n}\n"
    Path("accent.ein").write_text(program, encoding="utf-8")
    done = subprocess.run(
        [*COMMAND, "opt", "accent.ein", "--passes", "simplify"],
        capture_output=True, timeout=120, env=environment(PYTHONIOENCODING="ascii"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"program p(\\xe9: f32[i=2]) -> (y) {" in done.stdout


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom einloom.cli import main\nmain(['run', '--help'])\n"
        "heavy = {'lark', 'llvmlite', 'networkx', 'opt_einsum', 'rich'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment()
    )
    assert (done.returncode, done.stderr) == (0, "")
