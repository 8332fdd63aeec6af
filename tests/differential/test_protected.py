"""Kernels read and write nothing past their buffers: operands end at a protected page."""

from __future__ import annotations

import ctypes
import mmap
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einloom as el
from tests.differential.operands import SIZES, operands
from tests.differential.templates import TEMPLATES, Template
from tests.differential.test_mutations import MISSED, in_child
from tests.differential.test_programs import compiled

Array = np.ndarray[Any, Any]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
DTYPES = ("bool", "i8", "u64", "f16", "bf16", "f32", "f64", "c128")
PAGE = mmap.PAGESIZE
KEPT: list[mmap.mmap] = []


def at_page_end(array: Array) -> Array:
    """A C-contiguous copy whose last byte lies just before a page that cannot be touched."""
    size = max(array.nbytes, 1)
    pages = -(-size // PAGE)
    region = mmap.mmap(-1, (pages + 2) * PAGE)
    KEPT.append(region)
    base = ctypes.addressof(ctypes.c_char.from_buffer(region))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for page in (0, pages + 1):
        assert protect(base + page * PAGE, PAGE, 0) == 0
    offset = (pages + 1) * PAGE - array.nbytes
    memory = np.frombuffer(region, np.uint8, array.nbytes, offset)
    copy = memory.view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def run_protected(template: Template, dtype: str, wrap: Callable[[Array], Array]) -> None:
    exe = compiled(template, dtype)
    for size in SIZES:
        seed = zlib.crc32(f"{template.text} {dtype} {size}".encode())
        arrays = operands(template, dtype, size, "contiguous", seed)
        if arrays is not None:
            exe.run({name: wrap(array) for name, array in arrays.items()})


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_kernel_leaves_its_operands(dtype: str) -> None:
    def work() -> None:
        for template in TEMPLATES:
            if dtype in template.dtypes:
                run_protected(template, dtype, at_page_end)

    assert in_child(work) == MISSED, "a kernel touched memory outside an operand"


def test_the_page_is_protected() -> None:
    """A read past the end does crash, so that the test above can fail."""

    def work() -> None:
        array = at_page_end(np.zeros(5, np.float32))
        past = np.lib.stride_tricks.as_strided(array, (6,), (4,))
        el.compile("program p(X: f32[i=I]) -> (Y) {\n  Y[] = sum[i] X[i]\n}\n")(past)

    assert in_child(work) < 0
