"""The cache on disk where it must not be used or cannot be written: unsafe folders, full disks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import einloom
from einloom import disk_cache
from einloom.disk_cache import DiskCache

ROOT = Path(einloom.__file__).resolve().parent.parent
KEY = b"ij,jk->ik f32"
PAYLOAD = bytes(range(256)) * 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kernels"


@pytest.fixture
def cache(folder: Path) -> DiskCache:
    return DiskCache(folder, 2**20)


def run_script(script: str, *arguments: str) -> str:
    """What a script prints in a fresh process; fails after a minute."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_folder_that_others_may_write_to(cache: DiskCache, folder: Path) -> None:
    cache.put(KEY, PAYLOAD)
    for mode in (0o770, 0o702, 0o777):
        folder.chmod(mode)
        assert cache.get(KEY) is None
        cache.put(b"new", PAYLOAD)
        cache.clear()
        assert cache.info().reason == (
            f"others may write to {folder} (mode {mode:o}), and its contents are run as code; "
            f"run: chmod go-w {folder}"
        )
        assert len(list(folder.iterdir())) == 1
    folder.chmod(0o755)
    assert cache.get(KEY) == PAYLOAD
    assert cache.info().reason is None


def test_folder_of_another_user(
    cache: DiskCache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(KEY, PAYLOAD)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    assert cache.get(KEY) is None
    cache.put(b"new", PAYLOAD)
    assert cache.info().reason == (
        f"{folder} belongs to user {own}, and this process runs as user {own + 1}; "
        f"name a folder of your own in EINLOOM_CACHE_DIR"
    )
    assert len(list(folder.iterdir())) == 1


def test_folder_behind_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    cache = DiskCache(link, 2**20)
    cache.put(KEY, PAYLOAD)
    assert cache.get(KEY) is None
    assert list((tmp_path / "real").iterdir()) == []
    assert cache.info().reason == (
        f"{link} is a symbolic link; name a real folder in EINLOOM_CACHE_DIR"
    )
    # The folder's parents may be links: they are the user's to arrange.
    through = DiskCache(link / "inner", 2**20)
    through.put(KEY, PAYLOAD)
    assert through.get(KEY) == PAYLOAD


def test_folder_swapped_after_the_check(
    cache: DiskCache, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody moves the folder away and puts a link in its place while an entry is written."""
    cache.put(b"first", PAYLOAD)
    trap, moved = tmp_path / "trap", tmp_path / "moved"
    trap.mkdir()
    write = disk_cache._write

    def swap_then_write(handle: int, name: str, entry: bytes) -> None:
        folder.rename(moved)
        folder.symlink_to(trap)
        write(handle, name, entry)

    monkeypatch.setattr(disk_cache, "_write", swap_then_write)
    cache.put(KEY, PAYLOAD)
    assert list(trap.iterdir()) == []
    assert len(list(moved.iterdir())) == 2


def test_file_in_place_of_the_folder(cache: DiskCache, folder: Path) -> None:
    folder.write_text("not a folder")
    cache.put(KEY, PAYLOAD)
    cache.clear()
    assert cache.get(KEY) is None
    assert cache.info().reason == (
        f"{folder} is not a folder; name a real folder in EINLOOM_CACHE_DIR"
    )


def failing(number: int, when: Callable[..., bool], call: Callable[..., Any]) -> Callable[..., Any]:
    def replacement(*arguments: Any, **options: Any) -> Any:
        if when(*arguments):
            raise OSError(number, os.strerror(number))
        return call(*arguments, **options)

    return replacement


def writes(path: object, flags: int, *rest: object) -> bool:
    return bool(flags & os.O_CREAT)


def test_read_only_folder_simulated(
    cache: DiskCache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(KEY, PAYLOAD)
    monkeypatch.setattr(os, "open", failing(errno.EROFS, writes, os.open))
    monkeypatch.setattr(os, "utime", failing(errno.EROFS, lambda *_: True, os.utime))
    cache.put(b"new", PAYLOAD)
    assert cache.get(b"new") is None
    assert cache.get(KEY) == PAYLOAD
    assert cache.info().reason == f"cannot write {folder}: Read-only file system"
    monkeypatch.undo()
    cache.put(b"new", PAYLOAD)
    assert cache.get(b"new") == PAYLOAD
    assert cache.info().reason is None


READ_ONLY_FOLDER = """
import os, tempfile
from pathlib import Path
from einloom.disk_cache import DiskCache
if os.geteuid() == 0:
    os.setuid(65534)  # root may write to read-only folders
with tempfile.TemporaryDirectory() as name:
    folder = Path(name, "kernels")
    cache = DiskCache(folder, 2**20)
    cache.put(b"key", b"payload")
    folder.chmod(0o500)
    assert DiskCache(folder, 2**20).info().reason == f"cannot write {folder}: it is read-only"
    cache.put(b"new", b"payload")
    assert cache.get(b"new") is None
    assert cache.get(b"key") == b"payload"
    assert cache.info().reason == f"cannot write {folder}: Permission denied"
    cache.clear()
    assert cache.info().reason == f"cannot clear {folder}: Permission denied"
    folder.chmod(0o700)
    cache.clear()
    cache.put(b"new", b"payload")
    assert cache.info().reason is None
    assert cache.info().entries == 1
print("done")
"""


def test_read_only_folder() -> None:
    assert run_script(READ_ONLY_FOLDER) == "done\n"


def test_full_disk(cache: DiskCache, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(KEY, PAYLOAD)
    monkeypatch.setattr(os, "replace", failing(errno.ENOSPC, lambda *_: True, os.replace))
    cache.put(KEY, b"newer")
    assert cache.get(KEY) == PAYLOAD
    assert cache.info().reason == f"cannot write {folder}: No space left on device"
    assert len(list(folder.iterdir())) == 1, "the temporary file is gone"


FILL_A_TINY_DISK = """
import ctypes, os, sys
from einloom.disk_cache import DiskCache
mount = ctypes.CDLL(None, use_errno=True).mount
if ctypes.CDLL(None).unshare(0x00020000) or mount(b"none", b"/", None, 0x44000, None):
    print("cannot mount"); sys.exit()
if mount(b"tmpfs", sys.argv[1].encode(), b"tmpfs", 0, b"size=64k,mode=700"):
    print("cannot mount"); sys.exit()
cache = DiskCache(sys.argv[1], 2**20)
for i in range(40):
    cache.put(b"%d" % i, bytes(5000))
found = [cache.get(b"%d" % i) for i in range(40)]
assert set(found) == {None, bytes(5000)}, "some fit, and those are whole"
assert not [name for name in os.listdir(sys.argv[1]) if name.endswith(".tmp")]
print(cache.info().reason)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a disk in a namespace of its own")
def test_disk_that_is_really_full(tmp_path: Path) -> None:
    printed = run_script(FILL_A_TINY_DISK, str(tmp_path))
    if printed == "cannot mount\n":
        pytest.skip("mounting a small disk needs a privilege")
    assert printed == f"cannot write {tmp_path}: No space left on device\n"


def test_unreadable_entry(cache: DiskCache, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(KEY, PAYLOAD)

    def entries(path: object, *rest: object) -> bool:
        return isinstance(path, str) and len(path) == 64

    monkeypatch.setattr(os, "open", failing(errno.EIO, entries, os.open))
    assert cache.get(KEY) is None
    assert cache.info().reason == f"cannot read {folder}: Input/output error"
    monkeypatch.undo()
    assert cache.get(KEY) == PAYLOAD
    assert cache.info().reason is None
