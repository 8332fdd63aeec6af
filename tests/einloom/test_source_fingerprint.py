"""The hash of Einloom's own sources: equal for equal sources, shared with nobody when in doubt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import einloom
from einloom.source_fingerprint import SourceFingerprint, source_files, source_fingerprint

LATER = 2**62  # every file is older than this: sources that are settled


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A front door with one floor inside and one behind a link, as in a checkout."""
    root = tmp_path / "package"
    (root / "lab" / "__pycache__").mkdir(parents=True)
    (tmp_path / "floor" / "room").mkdir(parents=True)
    (root / "floor").symlink_to("../floor")
    (root / "__init__.py").write_text("")
    (root / "lab" / "search.py").write_text("x = 1\n")
    (root / "lab" / "__pycache__" / "search.py").write_text("no source")
    (root / "lab" / ".#search.py").symlink_to("an editor's lock that leads nowhere")
    (root / "notes.txt").write_text("no source")
    (tmp_path / "floor" / "language.lark").write_text("start: NAME\n")
    (tmp_path / "floor" / "room" / "deep.py").write_text("y = 2\n")
    return root


def test_all_floors_are_sources(sources: Path) -> None:
    (sources / "floor" / "room" / "circle").symlink_to("../..")
    assert sorted(file.path for file in source_files(sources)) == [
        "__init__.py",
        "floor/language.lark",
        "floor/room/deep.py",
        "lab/search.py",
    ]


def test_own_sources_span_the_floors() -> None:
    paths = {file.path for file in source_files(Path(einloom.__file__).parent)}
    assert {"source_fingerprint.py", "ir/errors.py", "backends/cpu/threads.py"} <= paths


def test_equal_sources_elsewhere_have_one_hash(sources: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    shutil.copytree(sources, installed, ignore=shutil.ignore_patterns(".#*", "__pycache__"))
    assert not (installed / "floor").is_symlink()
    first = SourceFingerprint(sources, LATER).current()
    assert SourceFingerprint(installed, LATER).current() == first
    assert len(bytes.fromhex(first)) == 32


@pytest.mark.parametrize("name", ["__init__.py", "floor/language.lark", "floor/room/deep.py"])
def test_every_source_counts(sources: Path, name: str) -> None:
    before = SourceFingerprint(sources, LATER).current()
    file = sources / name
    contents = file.read_text()
    file.write_text(contents + " ")
    assert SourceFingerprint(sources, LATER).current() != before
    file.write_text(contents)
    assert SourceFingerprint(sources, LATER).current() == before
    file.rename(file.with_name("renamed.py"))
    assert SourceFingerprint(sources, LATER).current() != before


def test_text_that_moves_between_files_counts(sources: Path) -> None:
    (sources / "a.py").write_text("1\n2\n")
    (sources / "b.py").write_text("3\n")
    before = SourceFingerprint(sources, LATER).current()
    (sources / "a.py").write_text("1\n")
    (sources / "b.py").write_text("2\n3\n")
    assert SourceFingerprint(sources, LATER).current() != before


def test_source_written_after_loading_is_shared_with_nobody(sources: Path) -> None:
    loaded = time.time_ns() + 30_000_000
    running = SourceFingerprint(sources, loaded)
    settled = running.current()
    assert settled == SourceFingerprint(sources, LATER).current()
    time.sleep(0.06)
    file = sources / "lab" / "search.py"
    status = file.stat()
    file.write_text("x = 9\n")  # of the same size, and with the old time put back
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    unsettled = running.current()
    assert unsettled == running.current()
    others = [SourceFingerprint(sources, loaded).current() for _ in range(2)]
    assert len({settled, unsettled, *others}) == 4
    assert SourceFingerprint(sources, LATER).current() not in {settled, unsettled, *others}


def test_source_that_comes_or_goes_later(sources: Path) -> None:
    running = SourceFingerprint(sources, LATER)
    settled = running.current()
    (sources / "lab" / "search.py").unlink()
    assert running.current() not in {settled, SourceFingerprint(sources, LATER).current()}
    (sources / "lab" / "new.py").write_text("")
    assert running.current() not in {settled, SourceFingerprint(sources, LATER).current()}


def test_no_sources_are_no_key(tmp_path: Path) -> None:
    first, second = (SourceFingerprint(tmp_path, LATER) for _ in range(2))
    assert first.current() == first.current() != second.current()
    assert SourceFingerprint(tmp_path / "missing", LATER).current() != second.current()


def test_processes_agree_on_a_settled_copy(tmp_path: Path) -> None:
    """A copy, because the checkout itself may be written to while tests run."""
    package = Path(einloom.__file__).parent
    shutil.copytree(package, tmp_path / "einloom", ignore=shutil.ignore_patterns("__pycache__"))
    time.sleep(0.1)
    script = (
        "from einloom.source_fingerprint import source_fingerprint as f; print(f(), f() == f())"
    )
    answers = [
        subprocess.run(
            [sys.executable, "-B", "-c", script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert answers[0].endswith(" True\n")


def test_own_fingerprint_has_64_digits() -> None:
    assert len(bytes.fromhex(source_fingerprint())) == 32
