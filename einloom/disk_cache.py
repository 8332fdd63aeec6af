"""A folder of checked entries that many processes share, that heals itself and never raises.

An entry is one file, named by the digest of its key:

    magic (8 bytes) | format version (u32) | key size (u32) | payload size (u64) | key
    | BLAKE2b checksum of all the other bytes (32 bytes) | payload

Numbers are little-endian. The checksum guards against damage, not against malice: payloads become
machine code, so the folder is used only if nobody else can write to it. Every file is reached
through a handle of the folder that was examined: swapping the path afterwards changes nothing.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from einloom.ir.record import record

MAGIC = b"einloom\x1a"
FORMAT_VERSION = 1
HEADER = struct.Struct("<8sIIQ")
DIGEST_BYTES = 32

# A writer needs less than a second: a temporary file of this age has lost its process.
STALE_SECONDS = 600.0
# Eviction goes below the cap, so that not every later write has to evict again.
EVICT_TO = 0.9
# Other processes write too: count the folder anew after writing this share of the cap.
SHARE_BETWEEN_SCANS = 1 / 16

_ENTRY_NAME = re.compile(r"[0-9a-f]{64}")
_TEMPORARY_NAME = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{16}\.tmp")


@record
class DiskInfo:
    """What a `DiskCache` holds, and this process's counts.

    `reason` says why entries are not read or not written (then memory alone is used); it is `None`
    while all is well.
    """

    folder: Path | None
    limit_bytes: int
    entries: int
    bytes: int
    hits: int
    misses: int
    evictions: int
    reason: str | None


@record
class _File:
    name: str
    size: int
    last_use: int  # ns since the epoch


class _RefusedError(Exception):
    """The folder cannot be used; the text says why and what would help."""


class DiskCache:
    """Payloads by key in `folder`, least recently used ones evicted above `limit_bytes`.

    The folder is made by the first `put`, for its owner only. One that belongs to somebody else,
    that others may write to, or that is a symbolic link is left alone. No method raises on a
    failing file system: `get` answers `None`, `put` does nothing, and `info().reason` tells.
    Safe to use from many threads and processes, and after a fork.
    """

    def __init__(self, folder: str | os.PathLike[str], limit_bytes: int) -> None:
        self.folder = Path(folder)
        self.limit_bytes = limit_bytes
        # A refused folder is not remembered: info() looks again.
        self._read_failure: str | None = None
        self._write_failure: str | None = None
        self._hits = 0
        self._misses = 0
        self._evictions = 0
        # Bytes in the folder as far as this process knows; None makes the next write count them.
        self._bytes: int | None = None
        self._written_since_scan = 0

    def get(self, key: bytes) -> bytes | None:
        """The payload of a key, or `None`. A damaged or foreign entry is removed."""
        payload = None
        try:
            with self._open_folder(create=False) as folder:
                payload = self._read(folder, _entry_name(key), key)
            self._read_failure = None
        except (FileNotFoundError, _RefusedError):
            pass
        except OSError as error:
            self._read_failure = self._explain("read", error)
        if payload is None:
            self._misses += 1
        else:
            self._hits += 1
        return payload

    def put(self, key: bytes, payload: bytes) -> None:
        """Keep a payload, in place of an older one. One above the cap is not kept."""
        entry = encode_entry(key, payload)
        if len(entry) > self.limit_bytes:
            return
        try:
            with self._open_folder(create=True) as folder:
                self._make_room(folder, len(entry))
                _write(folder, _entry_name(key), entry)
            self._write_failure = None
        except _RefusedError:
            pass
        except OSError as error:
            self._write_failure = self._explain("write", error)

    def clear(self) -> None:
        """Remove all entries and temporary files; other files in the folder stay."""
        self._bytes = None
        try:
            with self._open_folder(create=False) as folder:
                entries, temporaries = _scan(folder)
                for file in entries + temporaries:
                    with suppress(FileNotFoundError):  # another process was faster
                        os.unlink(file.name, dir_fd=folder)
        except (FileNotFoundError, _RefusedError):
            pass
        except OSError as error:
            self._write_failure = self._explain("clear", error)

    def info(self) -> DiskInfo:
        """Contents of the folder now, counts of this process, and what is wrong, if anything is."""
        entries: list[_File] = []
        reason = self._read_failure or self._write_failure
        try:
            with self._open_folder(create=False) as folder:
                entries, _ = _scan(folder)
                if reason is None and not os.access(self.folder, os.W_OK | os.X_OK):
                    reason = f"cannot write {self.folder}: it is read-only"
        except FileNotFoundError:
            pass
        except _RefusedError as error:
            reason = str(error)
        except OSError as error:
            reason = self._explain("read", error)
        return DiskInfo(
            folder=self.folder,
            limit_bytes=self.limit_bytes,
            entries=len(entries),
            bytes=sum(file.size for file in entries),
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            reason=reason,
        )

    def _explain(self, deed: str, error: OSError) -> str:
        return f"cannot {deed} {self.folder}: {error.strerror or error}"

    @contextmanager
    def _open_folder(self, create: bool) -> Iterator[int]:
        """A handle of the folder, if it is ours alone.

        It is not kept open: a program that becomes a daemon closes all handles and reuses their
        numbers.
        """
        if not hasattr(os, "geteuid"):
            raise _RefusedError("the disk cache needs a POSIX system")
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            folder = os.open(self.folder, flags)
        except FileNotFoundError:
            if not create:
                raise
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(self.folder, 0o700)
            folder = os.open(self.folder, flags)
        except NotADirectoryError:
            # Linux says so of symbolic links, too.
            what = "a symbolic link" if self.folder.is_symlink() else "not a folder"
            raise _RefusedError(
                f"{self.folder} is {what}; name a real folder in EINLOOM_CACHE_DIR"
            ) from None
        try:
            status = os.fstat(folder)
            if status.st_uid != os.geteuid():
                raise _RefusedError(
                    f"{self.folder} belongs to user {status.st_uid}, and this process runs as user "
                    f"{os.geteuid()}; name a folder of your own in EINLOOM_CACHE_DIR"
                )
            if status.st_mode & 0o022:
                raise _RefusedError(
                    f"others may write to {self.folder} (mode {status.st_mode & 0o777:o}), and its "
                    f"contents are run as code; run: chmod go-w {self.folder}"
                )
            yield folder
        finally:
            os.close(folder)

    def _read(self, folder: int, name: str, key: bytes) -> bytes | None:
        # Without O_NONBLOCK, opening a pipe that bears the name would wait for a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            handle = os.open(name, flags, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            _remove(folder, name)
            return None
        try:
            status = os.fstat(handle)
            payload = None
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                with os.fdopen(handle, "rb", closefd=False) as file:
                    payload = decode_entry(file.read(), key)
            if payload is not None:
                now = time.time_ns()
                with suppress(OSError):  # a read-only file system still serves
                    os.utime(handle, ns=(now, now))
        finally:
            os.close(handle)
        if payload is None:
            _remove(folder, name)
        return payload

    def _make_room(self, folder: int, wanted: int) -> None:
        """Count `wanted` more bytes, and evict until they fit under the cap."""
        known = self._bytes
        self._written_since_scan += wanted
        if (
            known is not None
            and known + wanted <= self.limit_bytes
            and self._written_since_scan <= self.limit_bytes * SHARE_BETWEEN_SCANS
        ):
            self._bytes = known + wanted
            return
        self._written_since_scan = 0
        entries, temporaries = _scan(folder)
        total = wanted + sum(file.size for file in entries + temporaries)
        newest_stale = time.time_ns() - int(STALE_SECONDS * 1e9)
        for file in temporaries:
            if file.last_use <= newest_stale:
                _remove(folder, file.name)
                total -= file.size
        if total > self.limit_bytes:
            for file in sorted(entries, key=lambda file: file.last_use):
                if total <= self.limit_bytes * EVICT_TO:
                    break
                _remove(folder, file.name)
                total -= file.size
                self._evictions += 1
        self._bytes = total


def encode_entry(key: bytes, payload: bytes) -> bytes:
    """The bytes of an entry's file."""
    head = HEADER.pack(MAGIC, FORMAT_VERSION, len(key), len(payload)) + key
    return head + _checksum(head, payload) + payload


def decode_entry(entry: bytes, key: bytes) -> bytes | None:
    """The payload of an entry that is whole and belongs to `key`, else `None`."""
    if len(entry) < HEADER.size:
        return None
    magic, version, key_size, payload_size = HEADER.unpack_from(entry)
    start = HEADER.size + key_size + DIGEST_BYTES
    if magic != MAGIC or version != FORMAT_VERSION or len(entry) != start + payload_size:
        return None
    head, checksum = entry[: HEADER.size + key_size], entry[HEADER.size + key_size : start]
    payload = entry[start:]
    if head[HEADER.size :] != key or checksum != _checksum(head, payload):
        return None
    return payload


def _checksum(head: bytes, payload: bytes) -> bytes:
    hasher = blake2b(head, digest_size=DIGEST_BYTES)
    hasher.update(payload)
    return hasher.digest()


def _entry_name(key: bytes) -> str:
    return blake2b(key, digest_size=DIGEST_BYTES).hexdigest()


def _write(folder: int, name: str, entry: bytes) -> None:
    """Write a file that appears whole or not at all.

    There is no fsync: an entry that a power cut leaves incomplete fails its checksum.
    """
    temporary = f"{name}.{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(entry)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        _remove(folder, temporary)
        raise


def _scan(folder: int) -> tuple[list[_File], list[_File]]:
    """Entries and temporary files; whatever else is in the folder is not ours to touch."""
    entries: list[_File] = []
    temporaries: list[_File] = []
    with os.scandir(folder) as listing:
        for item in listing:
            if _ENTRY_NAME.fullmatch(item.name):
                found = entries
            elif _TEMPORARY_NAME.fullmatch(item.name):
                found = temporaries
            else:
                continue
            with suppress(FileNotFoundError):  # another process removed it meanwhile
                status = item.stat(follow_symlinks=False)
                found.append(_File(item.name, status.st_size, status.st_mtime_ns))
    return entries, temporaries


def _remove(folder: int, name: str) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)
