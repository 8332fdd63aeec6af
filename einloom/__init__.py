"""Einloom: a compiler and an IR for tensor computations.

>>> import numpy as np
>>> import einloom as el
>>> el.einsum("ij,jk->ik", np.ones((2, 3)), np.ones((3, 4))).shape
(2, 4)
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any

from einloom.cache import cache_clear, cache_info
from einloom.ir.errors import (
    BackendError,
    DTypeError,
    EinloomError,
    ParseError,
    PassError,
    RangeError,
    ShapeError,
    UnsupportedError,
)
from einloom.options import options

if TYPE_CHECKING:
    from einloom.api import TensorSpec, compile, interpret, load, parse
    from einloom.calls.einsum import einsum
    from einloom.calls.path import einsum_path
    from einloom.executable import Executable
    from einloom.frontend.einsum.semiring import Semiring, define_semiring
    from einloom.ir.program import Module
    from einloom.passes import Pipeline

__version__ = "0.1.0"

# Names that are imported when they are first used, so that `import einloom` stays quick.
_LAZY = {
    "Executable": "einloom.executable",
    "Module": "einloom.ir.program",
    "Pipeline": "einloom.passes",
    "Semiring": "einloom.frontend.einsum.semiring",
    "TensorSpec": "einloom.api",
    "compile": "einloom.api",
    "define_semiring": "einloom.frontend.einsum.semiring",
    "einsum": "einloom.calls.einsum",
    "einsum_path": "einloom.calls.path",
    "interpret": "einloom.api",
    "load": "einloom.api",
    "parse": "einloom.api",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'einloom' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


def set_num_threads(threads: int | None) -> None:
    """Use this many threads from now on; None goes back to EINLOOM_NUM_THREADS or all cores.

    Raises DTypeError for what is no whole number, and EinloomError for one out of range.
    """
    if threads is not None:
        try:
            threads = index(threads)
        except TypeError:
            raise DTypeError(
                f"the number of threads is {threads!r}, not a whole number",
                suggestion="give one from 1 on, or None for the default",
            ) from None
    from einloom.backends.cpu.threads import shared_pool

    shared_pool().set_num_threads(threads)


__all__ = [
    "BackendError",
    "DTypeError",
    "EinloomError",
    "Executable",
    "Module",
    "ParseError",
    "PassError",
    "Pipeline",
    "RangeError",
    "Semiring",
    "ShapeError",
    "TensorSpec",
    "UnsupportedError",
    "__version__",
    "cache_clear",
    "cache_info",
    "compile",
    "define_semiring",
    "einsum",
    "einsum_path",
    "interpret",
    "load",
    "options",
    "parse",
    "set_num_threads",
]
