"""What the tests of the CPU backend share: loop programs compiled, loaded and called."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from einloom.backends.cpu import jit
from einloom.backends.cpu.codegen import emit
from einloom.backends.cpu.target import Target, host
from einloom.ir.loops import LoopFunction, LoopProgram

Array = np.ndarray[Any, Any]

ENTRY = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_void_p,
)


class CompiledKernels:
    """The functions of a loop program as machine code of this process."""

    def __init__(self, *functions: LoopFunction, target: Target | None = None) -> None:
        self.target = target or host()
        self.text = emit(LoopProgram(functions), self.target)
        self.library = jit.load_object(jit.compile_object(self.text, self.target))
        self.fault = (0, 0)

    def __call__(
        self,
        name: str,
        arrays: Sequence[Array],
        scalars: Sequence[int] = (),
        begin: int = 0,
        end: int = 0,
    ) -> int:
        """Run one function on [begin, end); its result. What it faults with is in `fault`."""
        bases = (ctypes.c_void_p * max(1, len(arrays)))(
            *(array.__array_interface__["data"][0] for array in arrays)
        )
        numbers = [*scalars, *(stride for array in arrays for stride in array.strides)]
        parameters = (ctypes.c_int64 * max(1, len(numbers)))(*numbers)
        fault = (ctypes.c_int64 * 2)()
        result = ENTRY(self.library.entry(name))(bases, parameters, begin, end, fault)
        self.fault = (fault[0], fault[1])
        return int(result)


@pytest.fixture(scope="session")
def compiled() -> type[CompiledKernels]:
    """Compiles loop functions: `compiled(function, ...)(name, arrays, scalars)`."""
    return CompiledKernels
