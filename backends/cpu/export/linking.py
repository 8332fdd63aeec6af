"""Shared libraries from object files, by whatever linker the machine has."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from einloom.backends.cpu.export.processors import TRIPLES, host_architecture
from einloom.ir.errors import BackendError
from einloom.ir.record import record

_FLAGS = ("-shared", "-z", "noexecstack", "-z", "defs", "--as-needed")
_FOLDERS = ("/lib/{}", "/usr/lib/{}", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
_LIBRARIES = ("libm.so.6", "libpthread.so.0", "libc.so.6", "libgcc_s.so.1")


@record
class Linker:
    """A program that links. A compiler knows where the system's libraries are."""

    command: tuple[str, ...]
    compiler: bool

    def arguments(self, architecture: str, soname: str, source: Path, output: Path) -> list[str]:
        flags = [*_FLAGS, "-soname", soname]
        if not self.compiler:
            return [*self.command, *flags, "-o", str(output), str(source), *_system(architecture)]
        passed = [word for flag in flags[1:] for word in ("-Xlinker", flag)]
        libraries = ["-lm", "-lpthread"]
        start = [*self.command, "-shared", "-nostartfiles", *passed]
        return [*start, "-o", str(output), str(source), *libraries]


def link(data: bytes, architecture: str, soname: str) -> bytes:
    """The shared library that an object file becomes; `soname` is its name in itself.

    Linkers are tried in the order cc, clang, ld, ld.lld; for another architecture than this
    machine's, those that its triple names and clang and ld.lld. Raises BackendError where there is
    none, or where it fails.
    """
    linker = find_linker(architecture)
    with tempfile.TemporaryDirectory(prefix="einloom-") as folder:
        source, output = Path(folder, "library.o"), Path(folder, "library.so")
        source.write_bytes(data)
        command = linker.arguments(architecture, soname, source, output)
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
        )
        if done.returncode or not output.exists():
            said = (done.stderr or done.stdout).strip().splitlines()
            reason = "\n  ".join(said[-5:]) or f"it stopped with status {done.returncode}"
            raise BackendError(
                f"{linker.command[0]} could not link the library:\n  {reason}",
                suggestion="--emit obj writes the object file, to be linked by hand",
            )
        return output.read_bytes()


def find_linker(architecture: str) -> Linker:
    """The first linker on the search path. Raises BackendError where there is none."""
    for linker in _candidates(architecture):
        found = shutil.which(linker.command[0])
        if found is not None:
            return Linker((found, *linker.command[1:]), linker.compiler)
    names = ", ".join(linker.command[0] for linker in _candidates(architecture))
    needed = "a C compiler" if _is_own(architecture) else f"a C compiler for {architecture}"
    raise BackendError(
        f"a shared library needs a linker, and there is none of {names}",
        suggestion=f"install {needed} (Debian: gcc{_package(architecture)}), or write an object "
        "file: --emit obj",
    )


def _candidates(architecture: str) -> Sequence[Linker]:
    if _is_own(architecture):
        return (
            Linker(("cc",), True),
            Linker(("clang",), True),
            Linker(("ld",), False),
            Linker(("ld.lld",), False),
        )
    system = _system_name(architecture)
    return (
        Linker((f"{system}-gcc",), True),
        Linker(("clang", f"--target={TRIPLES[architecture]}"), True),
        Linker((f"{system}-ld",), False),
        Linker(("ld.lld",), False),
    )


def _is_own(architecture: str) -> bool:
    return sys.platform == "linux" and host_architecture() == architecture


def _system_name(architecture: str) -> str:
    """The name of the system's folders and tools: `x86_64-linux-gnu`."""
    return f"{architecture.replace('x86-64', 'x86_64')}-linux-gnu"


def _package(architecture: str) -> str:
    return "" if _is_own(architecture) else f"-{architecture}-linux-gnu"


def _system(architecture: str) -> list[str]:
    """The system's libraries as files, for linkers that do not know where they are."""
    name = _system_name(architecture)
    folders = [Path(folder.format(name)) for folder in _FOLDERS]
    if not _is_own(architecture):
        folders = [Path("/usr", name, "lib"), folders[1]]
    found = []
    for library in _LIBRARIES:
        place = next((f / library for f in folders if (f / library).is_file()), None)
        found += [str(place)] if place is not None else []
    return found
