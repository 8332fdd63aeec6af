"""The command line on a narrow terminal, on streams that are closed, and with huge messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from einloom.cli import main
from einloom.cli.passes import manual
from einloom.cli.terminal import Terminal
from einloom.ir.errors import LONGEST_LINE
from einloom.passes.registry import ALL_PASSES

Capture = pytest.CaptureFixture[str]
PROGRAM = "program double(X: f64[n=4]) -> (Y) {\n  Y[n] = X[n] * 2.0\n}\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_stops_nothing(closed: str, tmp_path: Path) -> None:
    (tmp_path / "p.ein").write_text(PROGRAM)
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m einloom run p.ein --output results {closed}', sys.executable],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "EINLOOM_CACHE": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert (tmp_path / "results" / "Y.npy").exists()


def test_a_message_does_not_flood_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "long.ein"
    file.write_text("program p(X: f64[n=4]) -> (Y) {\n  Y[n] = " + "A" * 10_000_000 + "[n]\n}\n")
    assert main(["run", str(file)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: ")
    assert lines[0].endswith(" is not defined")
    assert max(map(len, lines)) <= len("error: ") + LONGEST_LINE


@pytest.mark.parametrize("width", [40, 80, 132])
@pytest.mark.parametrize("cls", ALL_PASSES, ids=lambda cls: cls.name)
def test_the_manual_of_a_pass_fits_a_terminal(
    cls: type, width: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    terminal = Terminal()
    text = manual(cls)
    terminal.prose(text)
    assert capsys.readouterr().out == text + "\n"  # in a pipe, as it stands

    terminal.for_people = True
    monkeypatch.setenv("COLUMNS", str(width))
    terminal.prose(text)
    shown = capsys.readouterr().out
    assert shown.split() == text.split()
    code = {line for line in text.splitlines() if line.startswith("    ")}
    assert code <= set(shown.splitlines())
    for line in set(shown.splitlines()) - code:
        assert len(line) <= width or " " not in line.strip()
    first_words = [line.split()[0] for line in text.splitlines() if line.strip()]
    labels = {word for word in first_words if word[-1] == ":" and word[:-1].isidentifier()}
    assert "level:" in labels
    assert labels <= {line.split()[0] for line in shown.splitlines() if line.strip()}


def test_a_cache_that_cannot_be_made_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    folder = tmp_path / "none" / "kernels"
    monkeypatch.setenv("EINLOOM_CACHE_DIR", str(folder))
    assert main(["cache"]) == 0
    assert "state\tin use\n" in capsys.readouterr().out

    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and access(path, mode))
    assert main(["cache"]) == 0
    expected = f"state\tcannot make {folder}: {tmp_path} is read-only\n"
    assert expected in capsys.readouterr().out
