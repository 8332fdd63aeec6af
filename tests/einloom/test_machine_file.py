"""The file of measurements: found, refused, replaced, and what the model is without it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from einloom.api import TensorSpec, compile
from einloom.backends.machine_model import MachineModel
from einloom.backends.measurements import encoded
from einloom.cli import main
from einloom.ir.errors import EinloomError
from einloom.machine_file import ThisMachine, fingerprint, machine_model, store, stored
from tests.backends.test_measurements import MEASURED

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, not there yet."""
    monkeypatch.setenv("EINLOOM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("EINLOOM_CACHE", raising=False)
    return tmp_path / "cache"


def file_of(folder: Path) -> Path:
    return folder / f"machine-{fingerprint()}.json"


def test_nothing_is_measured_at_first(folder: Path) -> None:
    found = stored()
    assert (found.path, found.measured, found.fault) == (file_of(folder), None, None)
    assert machine_model() == MachineModel()
    assert not folder.exists()


def test_what_is_stored_makes_the_model(folder: Path) -> None:
    assert machine_model() == MachineModel()  # which store must make it forget
    assert store(MEASURED) == file_of(folder)
    assert stored().measured == MEASURED
    assert machine_model() == MachineModel.from_measurements(MEASURED)
    assert os.listdir(folder) == [file_of(folder).name]
    assert folder.stat().st_mode & 0o777 == 0o700
    faster = replace(MEASURED, launch_seconds=1e-7)
    store(faster)
    assert (stored().measured, machine_model().launch_seconds) == (faster, 1e-7)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"garbage", "it is not JSON"),
        (b" " * (1 << 17), "it is too large"),
        (encoded(MEASURED, "another machine"), "it was measured on another machine"),
    ],
)
def test_a_file_that_is_not_ours_is_ignored(content: bytes, reason: str, folder: Path) -> None:
    folder.mkdir()
    file_of(folder).write_bytes(content)
    assert stored().fault == f"{file_of(folder)} is not used: {reason}"
    assert machine_model() == MachineModel()
    assert compile("ij->ji", TensorSpec((2, 3))).cost()[0].seconds > 0


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_ignored(kind: str, folder: Path) -> None:
    folder.mkdir()
    if kind == "pipe":
        os.mkfifo(file_of(folder))
    else:
        file_of(folder).mkdir()
    fault = stored().fault
    assert fault is not None and fault.startswith(str(file_of(folder)))
    assert machine_model() == MachineModel()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux")
def test_what_is_no_file_is_closed_again(folder: Path) -> None:
    file_of(folder).mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert stored().fault == f"{file_of(folder)} is not read: Is a directory"
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    with pytest.raises(EinloomError) as caught:
        store(MEASURED)
    assert str(caught.value) == (
        f"the measurements are not kept: cannot write {file_of(folder)}: File exists\n"
        "  hint: name a folder of your own in EINLOOM_CACHE_DIR"
    )
    assert machine_model() == MachineModel()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(EinloomError, match=r"cannot write .*: Permission denied"):
        store(MEASURED)


def test_the_cache_may_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    store(MEASURED)
    monkeypatch.setenv("EINLOOM_CACHE", "0")
    assert (stored().path, stored().measured) == (None, None)
    assert machine_model() == MachineModel()
    with pytest.raises(EinloomError, match="not kept: EINLOOM_CACHE=0"):
        store(MEASURED)


def test_the_file_is_read_when_a_cost_is_asked_for(folder: Path) -> None:
    model = ThisMachine()
    store(replace(MEASURED, launch_seconds=0.5))
    work = {"operations": 0, "bytes_moved": 0, "footprint": 0, "fresh_bytes": 0}
    from einloom.ir.types import f32

    assert model.seconds(**work, dtype=f32, launches=1, serial=True) == 0.5


# ---- the command --------------------------------------------------------------------------


def test_doctor_says_whether_the_machine_was_measured(folder: Path, capsys: Capture) -> None:
    assert main(["doctor"]) == 0
    assert "measured\tno: einloom doctor --measure\n" in capsys.readouterr().out
    store(MEASURED)
    assert main(["doctor"]) == 0
    assert f"measured\tyes, on 4 threads: {file_of(folder)}\n" in capsys.readouterr().out
    file_of(folder).write_text("{")
    assert main(["doctor"]) == 0
    captured = capsys.readouterr()
    assert "measured\tnot usable\n" in captured.out
    assert captured.err == (
        f"note: {file_of(folder)} is not used: it is not JSON "
        "(einloom doctor --measure writes it anew)\n"
    )


def test_doctor_measures(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from einloom import measuring
    from einloom.backends.cpu import probes

    for module, name, value in (
        (probes, "PROBE_SECONDS", 0.0),
        (probes, "RUN_SECONDS", 1e-4),
        (probes, "LEAST_RUNS", 2),
        (probes, "PAGES", 1 << 20),
        (measuring, "PRODUCT", 96),
        (measuring, "TRANSPOSED", 64),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setenv("EINLOOM_NUM_THREADS", "2")
    assert main(["doctor", "--measure"]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"note: the measurements are in {file_of(folder)}\n"
    titles = [line for line in captured.out.splitlines() if line.startswith("#")]
    assert titles == ["# operations per second", "# bytes per second", "# fixed costs"]
    rows = [line.split("\t") for line in captured.out.splitlines() if "\t" in line]
    numbers = [
        float(cell) for row in rows for cell in row[1:] if cell[0].isdigit() and " " not in cell
    ]
    assert len(numbers) > 40 and all(number > 0 for number in numbers)
    measured = stored().measured
    assert measured is not None and measured.threads == 2
    assert machine_model() == MachineModel.from_measurements(measured)


def test_doctor_measures_where_nothing_can_be_kept(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from einloom import measuring

    monkeypatch.setattr(measuring, "measure", lambda: MEASURED)
    folder.write_text("")
    assert main(["doctor", "--measure"]) == 1
    captured = capsys.readouterr()
    assert "f32 multiply-adds in registers\t100000000000\t400000000000\n" in captured.out
    assert "L1\t32768\t200000000000\t800000000000\t" in captured.out
    assert captured.err.startswith("error: the measurements are not kept: cannot write ")


def test_a_first_call_that_needs_no_cost_reads_no_measurements(folder: Path) -> None:
    script = (
        "import sys, numpy, einloom\n"
        "one = numpy.ones((4, 4))\n"
        "einloom.einsum('ij,jk->ik', one, one)\n"
        "print('einloom.machine_file' in sys.modules)\n"
        "einloom.einsum('ij,jk,kl->il', one, one, one)\n"
        "print('einloom.machine_file' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout.split(), done.stderr) == (["False", "True"], "")
