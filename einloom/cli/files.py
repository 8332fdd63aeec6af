"""Files that commands write: whole or not at all, and never over the program they came from."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from einloom.ir.errors import EinloomError

Contents = str | bytes | Callable[[BinaryIO], object]
"""What a file holds; a function writes it, so that large arrays need no copy."""


def write_file(path: str | Path, data: Contents, *sources: str) -> None:
    """Write one file."""
    write_files({Path(path): data}, sources)


def refuse_overwriting(targets: Iterable[Path], sources: Iterable[str | Path]) -> None:
    """Raise EinloomError where a file to be written is one that was read."""
    read = [Path(source) for source in sources]
    for target in targets:
        for source in read:
            if target.exists() and source.exists() and target.samefile(source):
                raise EinloomError(
                    f"{target} is an input and would be overwritten",
                    suggestion="name another place for the output",
                )


def write_files(files: Mapping[Path, Contents], sources: Iterable[str | Path] = ()) -> None:
    """Write all files or none: temporary ones first, which then take the names.

    Raises EinloomError where that fails, or where a file is among `sources`.
    """
    refuse_overwriting(files, sources)
    written: list[tuple[str, Path]] = []
    try:
        for path, data in files.items():
            if path.exists() and not path.is_file():
                # a device or a pipe cannot be replaced by a file
                with open(path, "wb") as file:
                    _put(file, data)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(".tmp", f".{path.name[:100]}.", path.parent)
            written.append((temporary, path))
            with os.fdopen(handle, "wb") as file:
                _put(file, data)
            os.chmod(temporary, 0o666 & ~_umask())
        for temporary, path in written:
            os.replace(temporary, path)
    except OSError as error:
        where = path if len(files) == 1 else path.parent
        raise EinloomError(f"cannot write {where}: {error.strerror or error}") from None
    finally:
        for temporary, _ in written:
            with suppress(FileNotFoundError):
                os.unlink(temporary)


def _put(file: BinaryIO, data: Contents) -> None:
    if isinstance(data, str):
        text = data if data.endswith("\n") else f"{data}\n"
        file.write(text.encode("utf-8", "surrogatepass"))
    elif isinstance(data, bytes):
        file.write(data)
    else:
        data(file)


def _umask() -> int:
    """The process's mask for new files, which mkstemp does not follow."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
