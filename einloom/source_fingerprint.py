"""One hash for the sources that this process runs, so that compiled code never outlives them."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

SUFFIXES = (".py", ".lark")
# The clock that stamps files runs behind the one that programs read, by one tick of the kernel.
CLOCK_LAG_NS = 20_000_000

_ROOT = Path(__file__).parent
# `import einloom` imports this module, and with it come the sources that run: what changes on disk
# later is not what this process has loaded.
_LOADED_NS = time.time_ns()


class SourceFile(NamedTuple):
    """A source and what tells, without reading it, that it was written again."""

    path: str
    size: int
    inode: int
    modified_ns: int
    changed_ns: int  # of contents or metadata; unlike the other time it cannot be set back


class SourceFingerprint:
    """Hash of the sources under a folder, as they were when this process loaded them.

    Contents are read once. Each later question costs one look at names, sizes and times: if a
    source was written after `loaded_ns`, or the list of sources differs from the first time, then
    what runs here may be old, new or a mixture. The answer is then a random value of this process,
    so that it shares compiled code with no other. The same goes for a folder without sources.
    """

    def __init__(self, root: Path, loaded_ns: int) -> None:
        self._root = root
        self._loaded_ns = loaded_ns
        self._known: tuple[list[SourceFile], str] | None = None
        self._private = secrets.token_hex(32)
        self._private_process = os.getpid()

    def current(self) -> str:
        """64 hexadecimal digits."""
        try:
            files = sorted(source_files(self._root))
            newest = max((file.changed_ns for file in files), default=None)
            if newest is None or newest > self._loaded_ns - CLOCK_LAG_NS:
                return self._unshared()
            if self._known is None:
                fingerprint = hash_contents(self._root, files)
                if files != sorted(source_files(self._root)):  # written while they were read
                    return self._unshared()
                self._known = files, fingerprint
        except OSError:  # sources are being replaced at this moment
            return self._unshared()
        known, fingerprint = self._known
        return fingerprint if known == files else self._unshared()

    def _unshared(self) -> str:
        # The child of a fork may load other sources than its parent.
        if self._private_process != os.getpid():
            self._private, self._private_process = secrets.token_hex(32), os.getpid()
        return self._private


def source_files(root: Path) -> Iterator[SourceFile]:
    """Sources under a folder, at any depth; in a checkout the floors are symbolic links in it."""
    pending = [""]
    visited = set()
    while pending:
        prefix = pending.pop()
        folder = os.path.join(root, prefix)
        real = os.path.realpath(folder)
        if real in visited:
            continue
        visited.add(real)
        with os.scandir(folder) as listing:
            for item in listing:
                name = item.name
                if name.startswith("."):  # no module, but often an editor's lock
                    continue
                if name.endswith(SUFFIXES):
                    status = item.stat()
                    yield SourceFile(
                        prefix + name,
                        status.st_size,
                        status.st_ino,
                        status.st_mtime_ns,
                        status.st_ctime_ns,
                    )
                elif name != "__pycache__" and item.is_dir():
                    pending.append(f"{prefix}{name}/")


def hash_contents(root: Path, files: list[SourceFile]) -> str:
    """Hash of paths and contents, in the order given."""
    hasher = blake2b(digest_size=32)
    for file in files:
        with open(os.path.join(root, file.path), "rb", buffering=0) as source:
            contents = source.read()
        hasher.update(f"{file.path}\0{len(contents)}\0".encode(errors="surrogateescape"))
        hasher.update(contents)
    return hasher.hexdigest()


_OWN = SourceFingerprint(_ROOT, _LOADED_NS)


def source_fingerprint() -> str:
    """Hash over Einloom's own Python and grammar sources, all floors; part of every disk cache key.

    64 hexadecimal digits, equal in all processes that run the same sources.
    """
    return _OWN.current()
