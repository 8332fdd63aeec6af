"""The cache on disk: what is kept, damaged and foreign entries, eviction, killed writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import pytest

import einloom
from einloom import disk_cache
from einloom.disk_cache import DiskCache, decode_entry, encode_entry

ROOT = Path(einloom.__file__).resolve().parent.parent
KEY = b"ij,jk->ik f32"
PAYLOAD = bytes(range(256)) * 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kernels"


@pytest.fixture
def cache(folder: Path) -> DiskCache:
    return DiskCache(folder, 2**20)


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_put_and_get(cache: DiskCache, folder: Path) -> None:
    assert cache.get(KEY) is None
    assert not folder.exists()
    cache.put(KEY, PAYLOAD)
    cache.put(b"", b"")
    assert cache.get(KEY) == PAYLOAD
    assert cache.get(b"") == b""
    cache.put(KEY, b"newer")
    assert DiskCache(folder, 2**20).get(KEY) == b"newer"
    info = cache.info()
    assert (info.entries, info.hits, info.misses, info.evictions) == (2, 2, 1, 0)
    assert info.reason is None


def test_files_are_the_owners_alone(cache: DiskCache, folder: Path) -> None:
    previous = os.umask(0)
    try:
        cache.put(KEY, PAYLOAD)
    finally:
        os.umask(previous)
    file = only_file(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.name == blake2b(KEY, digest_size=32).hexdigest()


def test_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "no" / "such" / "parents", 2**20)
    cache.put(KEY, PAYLOAD)
    assert cache.get(KEY) == PAYLOAD


def test_folder_that_vanishes_is_made_again(cache: DiskCache, folder: Path) -> None:
    cache.put(KEY, PAYLOAD)
    only_file(folder).unlink()
    folder.rmdir()
    assert cache.get(KEY) is None
    cache.put(KEY, PAYLOAD)
    assert cache.get(KEY) == PAYLOAD


def test_entry_cut_at_every_length(cache: DiskCache, folder: Path) -> None:
    cache.put(KEY, PAYLOAD)
    file = only_file(folder)
    entry = file.read_bytes()
    for length in range(len(entry)):
        file.write_bytes(entry[:length])
        assert cache.get(KEY) is None, length
        assert not file.exists(), length
    file.write_bytes(entry + b"\0")
    assert cache.get(KEY) is None
    file.write_bytes(entry)
    assert cache.get(KEY) == PAYLOAD


def test_every_flipped_bit_is_noticed() -> None:
    entry = encode_entry(KEY, PAYLOAD)
    assert decode_entry(entry, KEY) == PAYLOAD
    for position in range(len(entry)):
        for bit in range(8):
            damaged = bytearray(entry)
            damaged[position] ^= 1 << bit
            assert decode_entry(bytes(damaged), KEY) is None, (position, bit)


def test_damaged_entry_on_disk_is_removed(cache: DiskCache, folder: Path) -> None:
    cache.put(KEY, PAYLOAD)
    file = only_file(folder)
    entry = file.read_bytes()
    for position in range(0, len(entry), 41):
        damaged = bytearray(entry)
        damaged[position] ^= 0x10
        file.write_bytes(damaged)
        assert cache.get(KEY) is None
        assert not file.exists()


@pytest.mark.parametrize(
    "entry",
    [
        encode_entry(b"another key", PAYLOAD),
        b"\x7fELF" + bytes(300),
        b"",
        disk_cache.HEADER.pack(disk_cache.MAGIC, 1, 2**32 - 1, 2**64 - 1) + bytes(300),
    ],
)
def test_foreign_entry_is_removed(cache: DiskCache, folder: Path, entry: bytes) -> None:
    cache.put(KEY, PAYLOAD)
    file = only_file(folder)
    file.write_bytes(entry)
    assert cache.get(KEY) is None
    assert not file.exists()
    cache.put(KEY, PAYLOAD)
    assert cache.get(KEY) == PAYLOAD


def test_other_format_version_is_a_miss(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache, "FORMAT_VERSION", 2)
    cache.put(KEY, PAYLOAD)
    assert cache.get(KEY) == PAYLOAD
    monkeypatch.undo()
    assert cache.get(KEY) is None


def test_entry_of_another_user_is_removed(cache: DiskCache, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    cache.put(KEY, PAYLOAD)
    file = only_file(folder)
    os.chown(file, 12345, -1)
    assert cache.get(KEY) is None
    assert not file.exists()


def test_links_and_pipes_in_place_of_an_entry(
    cache: DiskCache, folder: Path, tmp_path: Path
) -> None:
    cache.put(KEY, PAYLOAD)
    file = only_file(folder)
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    assert cache.get(KEY) is None
    assert not file.is_symlink()
    assert elsewhere.exists()
    os.mkfifo(file)
    assert cache.get(KEY) is None
    assert not file.exists()
    file.mkdir()
    assert cache.get(KEY) is None
    cache.put(KEY, PAYLOAD)
    assert cache.info().reason == f"cannot write {folder}: Is a directory"


def set_age(folder: Path, key: bytes, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder / blake2b(key, digest_size=32).hexdigest(), (then, then))


def test_least_recently_used_entries_are_evicted(folder: Path) -> None:
    size = len(encode_entry(b"0", bytes(1000)))
    cache = DiskCache(folder, 10 * size)
    for i in range(10):
        cache.put(b"%d" % i, bytes(1000))
        set_age(folder, b"%d" % i, seconds=1000 - i)
    assert cache.info().entries == 10
    assert cache.get(b"0") is not None  # the oldest write is now the newest use
    cache.put(b"x", bytes(1000))
    info = cache.info()
    assert (info.entries, info.evictions) == (9, 2)
    assert info.bytes == 9 * size
    kept = [key for key in b"0123456789x" if cache.get(bytes([key])) is not None]
    assert bytes(kept) == b"03456789x"


def test_cap_holds_over_many_writes_and_processes(folder: Path) -> None:
    caches = [DiskCache(folder, 20_000) for _ in range(3)]
    for i in range(300):
        caches[i % 3].put(b"%d" % i, bytes(i % 7 * 100))
        assert caches[0].info().bytes <= 20_000 * (1 + 3 / 16)
    assert caches[0].info().entries > 10
    assert sum(cache.info().evictions for cache in caches) > 200


def test_payload_above_the_cap_is_not_kept(folder: Path) -> None:
    cache = DiskCache(folder, 1000)
    cache.put(b"small", bytes(500))
    cache.put(b"large", bytes(1000))
    assert cache.get(b"large") is None
    assert cache.get(b"small") == bytes(500)
    DiskCache(folder / "nothing", 0).put(KEY, b"")
    assert not (folder / "nothing").exists()


def test_stale_temporary_files_are_swept(cache: DiskCache, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    stale = folder / ("a" * 64 + "." + "b" * 16 + ".tmp")
    young = folder / ("c" * 64 + "." + "d" * 16 + ".tmp")
    foreign = folder / "notes.tmp"
    for file in (stale, young, foreign):
        file.write_bytes(b"half an entry")
        then = time.time() - (3600 if file != young else 5)
        os.utime(file, (then, then))
    cache.put(KEY, PAYLOAD)
    assert (stale.exists(), young.exists(), foreign.exists()) == (False, True, True)
    assert cache.info().entries == 1
    cache.clear()
    assert [file.name for file in folder.iterdir()] == ["notes.tmp"]


WRITE_FOR_EVER = """
import sys
from einloom.disk_cache import DiskCache
cache = DiskCache(sys.argv[1], 2**30)
print("started", flush=True)
number = 0
while True:
    for key in range(4):
        number += 1
        cache.put(b"%d" % key, b"%d " % number * 20_000)
"""


def test_kill_during_writes_leaves_only_whole_entries(folder: Path) -> None:
    reader = DiskCache(folder, 2**30)
    read = 0
    for attempt in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"started\n"
            time.sleep(0.03 + 0.007 * attempt)
            writer.send_signal(signal.SIGKILL)
        entries = [file for file in folder.iterdir() if not file.name.endswith(".tmp")]
        for key in range(4):
            payload = reader.get(b"%d" % key)
            if payload is not None:
                words = payload.split()
                assert len(words) == 20_000
                assert len(set(words)) == 1
                read += 1
        # A damaged entry would have been removed by the read.
        assert sorted(entries) == sorted(
            file for file in folder.iterdir() if not file.name.endswith(".tmp")
        )
    assert read >= 8


def test_many_threads_and_handles(cache: DiskCache, folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    start = threading.Barrier(8)

    def work(worker: int) -> int:
        start.wait(30)
        wrong = 0
        for i in range(100):
            key = b"%d" % (i % 10)
            cache.put(key, key * 1000)
            wrong += cache.get(key) not in (key * 1000, None)
            if worker == 0 and i % 25 == 0:
                cache.clear()
        return wrong

    with ThreadPoolExecutor(8) as executor:
        assert sum(executor.map(work, range(8))) == 0
    assert cache.info().reason is None
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after <= before
