"""Environment variables: every one that Einloom reads, what it takes, and what it means when unset.

Values are read when they are used, never at import, so a program may set them in `os.environ`
after `import einloom`. An empty value counts as unset.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from einloom.ir.errors import EinloomError
from einloom.ir.record import record

MOST_THREADS = 1024
MOST_BYTES = 2**60  # an exbibyte: a larger number is a slip of the finger
HIGHEST_DEBUG_LEVEL = 4


@record
class Variable:
    """One environment variable, for documentation and for messages."""

    name: str
    meaning: str
    takes: str
    example: str
    default: str

    @property
    def value(self) -> str | None:
        """What it is set to now; None where it is unset or empty."""
        return os.environ.get(self.name) or None


CACHE_DIR = Variable(
    "EINLOOM_CACHE_DIR",
    "folder of compiled code on disk",
    "a path",
    "~/.cache/einloom",
    "einloom in $XDG_CACHE_HOME, or ~/.cache/einloom",
)
CACHE_SIZE = Variable(
    "EINLOOM_CACHE_SIZE",
    "most bytes that the folder of compiled code may hold",
    f"a whole number of bytes from 0 to {MOST_BYTES}",
    "1073741824",
    "1073741824 (1 GiB)",
)
CACHE = Variable(
    "EINLOOM_CACHE",
    "whether compiled code is kept on disk",
    "0 (off) or 1 (on)",
    "0",
    "1",
)
NUM_THREADS = Variable(
    "EINLOOM_NUM_THREADS",
    "number of threads that a kernel may use",
    f"a whole number from 1 to {MOST_THREADS}",
    "2",
    "the number of CPUs that the process may run on",
)
DEBUG = Variable(
    "EINLOOM_DEBUG",
    "what is printed about a compilation: 1 pass timings, 2 IR where it changed, "
    "3 every rule that fired, 4 LLVM IR and assembly",
    f"a whole number from 0 to {HIGHEST_DEBUG_LEVEL}",
    "1",
    "0",
)
AUTOTUNE = Variable(
    "EINLOOM_AUTOTUNE",
    "whether compile measures how packed contractions are best cut",
    "0 (off) or 1 (on)",
    "1",
    "0",
)
VARIABLES = (CACHE_DIR, CACHE_SIZE, CACHE, NUM_THREADS, AUTOTUNE, DEBUG)


def cache_folder() -> Path | None:
    """Absolute folder of the disk cache; it need not exist.

    `None` when no variable names one and the user has no home folder, as in some containers.

    Source: XDG Base Directory Specification 0.8 for `XDG_CACHE_HOME`, which ignores relative paths.
    """
    chosen = os.environ.get(CACHE_DIR.name)
    if chosen:
        expanded = os.path.expanduser(chosen)
        if expanded.startswith("~"):
            raise _illegal(CACHE_DIR, chosen, "no such user has a home folder")
        try:
            return Path(os.path.abspath(expanded))
        except OSError:
            why = "the working folder, which it is relative to, is gone"
            raise _illegal(CACHE_DIR, chosen, why) from None
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    return Path(base, "einloom") if os.path.isabs(base) else None


def cache_limit_bytes() -> int:
    """Most bytes that the disk cache may hold; 0 keeps nothing."""
    return _whole_number(CACHE_SIZE, 0, MOST_BYTES, unset=2**30)


def disk_cache_enabled() -> bool:
    """Whether compiled code is kept on disk."""
    return _whole_number(CACHE, 0, 1, unset=1) == 1


def num_threads() -> int | None:
    """Number of threads that the user asks for, or `None` where the choice is left to us."""
    return _whole_number(NUM_THREADS, 1, MOST_THREADS, unset=0) or None


def autotune() -> bool:
    """Whether `compile` measures how packed contractions are best cut."""
    return _whole_number(AUTOTUNE, 0, 1, unset=0) == 1


def debug_level() -> int:
    """How much is printed about a compilation, from 0 (nothing) to 4 (assembly)."""
    return _whole_number(DEBUG, 0, HIGHEST_DEBUG_LEVEL, unset=0)


def _whole_number(variable: Variable, least: int, most: int, unset: int) -> int:
    text = os.environ.get(variable.name)
    if not text:
        return unset
    # int() alone takes "1_000" and digits of every script, and refuses 5,000 digits in words of
    # its own.
    if re.fullmatch(r"\s*\d{1,20}\s*", text, re.ASCII) is None or not least <= int(text) <= most:
        raise _illegal(variable, text)
    return int(text)


def _illegal(variable: Variable, text: str, why: str | None = None) -> EinloomError:
    shown = text if len(text) <= 60 else text[:57] + "..."
    reason = f": {why}" if why else ""
    return EinloomError(
        f"the environment variable {variable.name} is {shown!r}{reason}; it takes {variable.takes}",
        suggestion=f"{variable.name}={variable.example}, or unset it for its default: "
        f"{variable.default}",
    )
