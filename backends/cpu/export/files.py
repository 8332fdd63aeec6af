"""The files that a library consists of, by the name of the first one."""

from __future__ import annotations

import re
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

from einloom.ir.errors import BackendError

if TYPE_CHECKING:
    from einloom.backends.cpu.export.library import Library

_NAME = re.compile(r"(?P<stem>.+?)(?P<kind>\.so(\.\d+)*|\.o)")


def library_files(
    path: str | PathLike[str], make: Callable[[], Library]
) -> dict[Path, bytes | str]:
    """What a library at `path` and the header beside it hold: bytes, and a text.

    Raises BackendError for a name that is neither a shared library's nor an object file's; the
    library is made only after that.
    """
    from einloom.backends.cpu.export.linking import find_linker, link

    place = Path(fspath(path))
    found = _NAME.fullmatch(place.name)
    if found is None:
        raise BackendError(
            f"{place} is no name of a library",
            suggestion="a shared library ends in .so, an object file in .o",
        )
    library = make()
    architecture = library.interface.processor.architecture
    shared = found["kind"] != ".o"
    if shared:
        find_linker(architecture)  # before the longest part of the work
    data = library.object_code()
    if shared:
        data = link(data, architecture, place.name)
    return {place: data, place.with_name(f"{found['stem']}.h"): library.header}
