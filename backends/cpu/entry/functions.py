"""Entries as Python functions: machine code, loaded and wrapped in CPython's function objects."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from einloom.backends.cpu import jit
from einloom.backends.cpu.addresses import address_of
from einloom.backends.cpu.entry.known import MISSED, Known
from einloom.backends.cpu.entry.layout import Layout, functions
from einloom.backends.cpu.entry.objects import CONTEXT
from einloom.ir.record import record

_FASTCALL = 0x0080
"""CPython's METH_FASTCALL."""


class _Definition(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("code", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("text", ctypes.c_char_p),
    ]


@record
class Usual:
    """What a call of `einsum` must have for its entry to run it: the very objects.

    `options` in the order in which the entry gets them; `value` is that of `variable`.
    """

    options: tuple[Any, ...]
    variable: ContextVar[Any]
    value: Any


@record
class Entries:
    """Functions that return `MISSED` or what a known call returns.

    `executable(table, operands, out)`, `einsum(arguments, out, *options)`.
    """

    executable: Callable[..., Any]
    einsum: Callable[..., Any]


def object_code(layout: Layout) -> bytes:
    """The machine code of the entries for this machine."""
    from einloom.backends.cpu.entry.emission import emit_entries
    from einloom.backends.cpu.target import host

    # LLVM's passes would take ten times as long and make calls a tenth faster.
    return jit.compile_object(emit_entries(layout, host()), optimize=False)


def load_entries(code: bytes, table: list[Known | None], usual: Usual) -> Entries | None:
    """The functions of `object_code`, `einsum` with a table of its own.

    None where a C function that they need is missing. Raises BackendError where code cannot be
    loaded.
    """
    addresses = functions()
    if addresses is None:
        return None
    library = jit.load_object(code)
    options = np.array([id(option) for option in usual.options], np.int64)
    words = {
        "missed": id(MISSED),
        "none": id(None),
        "array_type": id(np.ndarray),
        "string_type": id(str),
        "table": id(table),
        "variable": id(usual.variable),
        "usual_variable": id(usual.value),
        "options": len(usual.options),
        "usual_options": address_of(options),
        **addresses,
    }
    context = np.array([words[name] for name in CONTEXT], np.int64)
    # All that the code reads lives as long as this tuple, which the functions hold.
    kept = (context, library, MISSED, table, usual, options)
    return Entries(
        _function("executable", library.entry("executable"), kept, addresses),
        _function("einsum", library.entry("einsum"), kept, addresses),
    )


def _function(
    name: str, code: int, kept: Sequence[Any], addresses: dict[str, int]
) -> Callable[..., Any]:
    definition = _Definition(name.encode(), code, _FASTCALL, None)
    create = ctypes.PYFUNCTYPE(
        ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p
    )(addresses["PyCFunction_NewEx"])
    # CPython lets go of `self` last, as it may hold the definition.
    own = (*kept, definition)
    function: Callable[..., Any] = create(ctypes.addressof(definition), own, None)
    return function
