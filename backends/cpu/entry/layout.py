"""Where objects of CPython and NumPy keep their fields, confirmed by reading known objects.

Sources: `PyArrayObject_fields` in NumPy's public header ndarraytypes.h, `PyTupleObject` and
`PyListObject` in CPython's cpython/tupleobject.h and cpython/listobject.h. Extension modules are
compiled against the same layouts. Where one object reads otherwise, there is no layout, and calls
go through Python.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from einloom.ir.record import record

Array = np.ndarray[Any, Any]

PYTHON_FUNCTIONS = (
    "PyCFunction_NewEx",
    "PyContextVar_Get",
    "PyEval_RestoreThread",
    "PyEval_SaveThread",
    "PyMem_RawFree",
    "PyMem_RawMalloc",
    "PyObject_Hash",
    "PyTuple_New",
    "PyTuple_SetItem",
    "PyUnicode_Compare",
    "Py_DecRef",
    "Py_IncRef",
)
# Positions in NumPy's table of functions, which its header fixes for extension modules.
NUMPY_TYPE_OF_ARRAYS = 2
NUMPY_FUNCTIONS = {"PyArray_NewFromDescr": 94, "PyArray_Scalar": 60}


@record
class Layout:
    """Offsets in bytes from the beginning of an object.

    `kind` is the pointer to the type of any object, `size` the length of a tuple or a list. Items
    of a tuple stand in the object, those of a list behind a pointer.
    """

    kind: int = 8
    size: int = 16
    tuple_items: int = 24
    list_items: int = 24
    data: int = 16
    rank: int = 24
    extents: int = 32
    strides: int = 40
    dtype: int = 56
    flags: int = 64


def object_layout() -> Layout | None:
    """The layout of this interpreter's objects; None where it is not one that is known.

    Builds without a global lock, or that trace references, have other heads and yield None.
    """
    if sys.implementation.name != "cpython" or sys.byteorder != "little":
        return None
    if ctypes.sizeof(ctypes.c_void_p) != 8 or object.__basicsize__ != 16:
        return None
    if np.ndarray.__basicsize__ < 72 or list.__basicsize__ != 40:
        return None
    layout = Layout(tuple_items=tuple.__basicsize__)
    whole = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    frozen = whole[1].view()
    frozen.flags.writeable = False
    arrays = [
        whole, whole[:, ::-1, 1:3], frozen, np.empty(()), np.empty((0, 5), np.int8),
        np.empty(3, [("pad", "u1"), ("value", "f8")])["value"],
    ]  # fmt: skip
    confirmed = _items_confirmed(layout) and all(_array_confirmed(layout, a) for a in arrays)
    return layout if confirmed else None


def _word(address: int) -> int:
    return ctypes.c_size_t.from_address(address).value


def _words(head: int, offset: int, count: int) -> list[int] | None:
    """The words behind a pointer in an object; None for what is a small number, not a pointer."""
    pointer = _word(head + offset)
    if pointer % 8 or pointer < 1 << 16:
        return None
    return list((ctypes.c_ssize_t * count).from_address(pointer))


def _items_confirmed(layout: Layout) -> bool:
    items = [object(), object(), object()]
    for values, place in ((tuple(items), None), (items, layout.list_items)):
        head = id(values)
        if _word(head + layout.kind) != id(type(values)) or _word(head + layout.size) != 3:
            return False
        found = (
            [_word(head + layout.tuple_items + 8 * k) for k in range(3)]
            if place is None
            else _words(head, place, 3)
        )
        if found != [id(item) for item in items]:
            return False
    return True


def _array_confirmed(layout: Layout, array: Array) -> bool:
    head = id(array)
    known = {
        layout.kind: id(type(array)),
        layout.data: array.__array_interface__["data"][0],
        layout.dtype: id(array.dtype),
    }
    if any(_word(head + offset) != value for offset, value in known.items()):
        return False
    rank = ctypes.c_int.from_address(head + layout.rank).value
    flags = ctypes.c_int.from_address(head + layout.flags).value
    if (rank, flags) != (array.ndim, array.flags.num):
        return False
    for offset, values in ((layout.extents, array.shape), (layout.strides, array.strides)):
        if array.ndim and _words(head, offset, array.ndim) != list(values):
            return False
    return True


def functions() -> dict[str, int] | None:
    """Addresses of the C functions that entries call; None where one of them is missing."""
    if not hasattr(ctypes, "pythonapi"):
        return None
    found: dict[str, int] = {}
    for name in PYTHON_FUNCTIONS:
        function = getattr(ctypes.pythonapi, name, None)
        if function is None:
            return None
        found[name] = ctypes.cast(function, ctypes.c_void_p).value or 0
    try:
        capsule: Any = import_module("numpy._core._multiarray_umath")._ARRAY_API
    except (ImportError, AttributeError):
        return None
    pointer: Callable[..., int | None] = ctypes.PYFUNCTYPE(
        ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p
    )(("PyCapsule_GetPointer", ctypes.pythonapi))
    table = pointer(capsule, None)
    if not table or _word(table + 8 * NUMPY_TYPE_OF_ARRAYS) != id(np.ndarray):
        return None
    found |= {name: _word(table + 8 * place) for name, place in NUMPY_FUNCTIONS.items()}
    return found if all(found.values()) else None
