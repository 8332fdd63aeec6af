"""Executables as libraries for C, and the files that hold them."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from einloom.backends.cpu.export.files import library_files
from einloom.backends.cpu.export.library import Library, library_of
from einloom.backends.cpu.export.processors import find_processor
from einloom.cli.files import write_files
from einloom.ir.constants import constant_arrays
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import TensorType, Tuple

if TYPE_CHECKING:
    from einloom.backends.cpu.target import Target
    from einloom.executable import Executable
    from einloom.ir.loops import LoopProgram
    from einloom.passes.lowering import OperandLayout

FIRST_CACHE, SECOND_CACHE = 32 << 10, 512 << 10
"""Bytes of the data caches that a library is blocked for."""


def library(
    executable: Executable,
    cpu: str | None = None,
    architecture: str | None = None,
    name: str | None = None,
) -> Library:
    """An executable for C: LLVM IR, assembly, object code and a header.

    The arguments are those of `Executable.export`. Raises UnsupportedError for what has no form
    in C.
    """
    module = executable.module

    def lower(target: Target) -> LoopProgram:
        from einloom.backends.cpu.target import machine
        from einloom.passes.lowering import lower
        from einloom.passes.lowering.products.plan import blockings_of

        layouts = _layouts(executable)
        if executable.strict:
            return lower(module, layouts, strict=True)
        # The caches of the machine that exports say nothing of those that the library meets.
        described = replace(machine(target), first_cache=FIRST_CACHE, second_cache=SECOND_CACHE)
        cut = blockings_of(module, layouts, executable.sizes(None), described)
        return lower(module, layouts, blockings=cut)

    processor = find_processor(cpu, architecture)
    return library_of(module, lower, constant_arrays(module), processor, name)


def export(
    executable: Executable,
    path: str | PathLike[str],
    cpu: str | None = None,
    architecture: str | None = None,
    name: str | None = None,
) -> tuple[Path, Path]:
    """Write a library and its header; see `Executable.export`."""
    files = library_files(path, lambda: library(executable, cpu, architecture, name))
    write_files(files)
    made, header = files
    return made, header


def _layouts(executable: Executable) -> dict[str, OperandLayout]:
    """What kernels may rely on: C callers choose all strides but the last rank's."""
    tensors = {**executable.inputs, **executable.outputs}
    return {name: _layout(type_) for name, type_ in tensors.items() if type_ is not None}


def _layout(type_: TensorType) -> OperandLayout:
    from einloom.passes.lowering import OperandLayout

    rank = len(type_.ranks)
    if isinstance(type_.dtype, Tuple):  # of its components none is contiguous
        return OperandLayout((None,) * rank, aligned=False)
    unit = (numpy_dtype(type_.dtype).itemsize,) if rank else ()
    return OperandLayout((None,) * (rank - 1) + unit)
