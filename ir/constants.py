"""Constants of a program: inline bytes, and blobs mapped from their files."""

from __future__ import annotations

import hashlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einloom.ir import extents as ext
from einloom.ir.errors import DTypeError, EinloomError, ShapeError
from einloom.ir.program import Constant, Module
from einloom.ir.promotion import numpy_dtype

Array = NDArray[Any]


def constant_arrays(module: Module) -> dict[str, Array]:
    """The arrays of the constants of a module whose extents are numbers, read-only."""
    return {
        s.name: constant_array(s, tuple(ext.evaluate(e, {}) for e in s.type.extents))
        for s in module.body
        if isinstance(s, Constant)
    }


def constant_array(constant: Constant, shape: tuple[int, ...]) -> Array:
    """The read-only value of a constant, whose type has this shape.

    A blob is looked for beside the program's file (or in the current folder if the program
    came from no file), and may not lie outside that folder. Raises EinloomError where it is
    missing, outside, or not what its digest says; ShapeError and DTypeError where the array
    is not of the declared type.
    """
    wanted = numpy_dtype(constant.type.dtype)
    if constant.path is not None:
        return _check_array(constant, _mapped(constant, wanted), wanted, shape)
    stored = wanted.newbyteorder("<")
    if len(constant.data) != prod(shape) * stored.itemsize:
        raise ShapeError(
            f"const {constant.name} holds {len(constant.data)} bytes, its type has "
            f"{prod(shape)} elements of {stored.itemsize}",
            location=constant.location,
        )
    array = np.frombuffer(constant.data, stored).reshape(shape)
    return array if stored == wanted else array.astype(wanted)


def _mapped(constant: Constant, wanted: np.dtype[Any]) -> Array:
    path = blob_path(constant)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        if constant.data and digest != constant.data:
            raise EinloomError(
                f"the file {constant.path} is not the one that const {constant.name} names: "
                f"its sha256 is {digest.hex()}",
                location=constant.location,
                suggestion="restore the file, or update the digest in the program",
            )
        # asking for a map of an empty array is an error of the operating system
        array = np.load(path, mmap_mode=None if path.stat().st_size < 4096 else "r",
                        allow_pickle=False)  # fmt: skip
    except OSError as error:
        raise EinloomError(
            f"the file {constant.path} of const {constant.name} cannot be read: {error.strerror}",
            location=constant.location,
            suggestion=f"it is looked for in {path.parent}",
        ) from None
    except ValueError as error:
        raise EinloomError(
            f"the file {constant.path} of const {constant.name} is no .npy file: {error}",
            location=constant.location,
        ) from None
    if array.dtype.kind == "V" and array.dtype.names is None and \
            array.dtype.itemsize == wanted.itemsize:  # fmt: skip
        array = array.view(wanted)  # NumPy writes bfloat16 as raw bytes
    return np.asarray(array)


def blob_path(constant: Constant) -> Path:
    """Where the blob of a constant lies."""
    assert constant.path is not None
    folder = Path.cwd()
    if constant.location is not None:
        source = Path(constant.location.source.name)
        if source.is_file():
            folder = source.parent.resolve()
    path = (folder / constant.path).resolve()
    if not path.is_relative_to(folder):
        raise EinloomError(
            f"const {constant.name} names the file {constant.path}, outside the program's folder",
            location=constant.location,
            suggestion="move it beside the program and name it by a relative path",
        )
    return path


def _check_array(
    constant: Constant, array: Array, wanted: np.dtype[Any], shape: tuple[int, ...]
) -> Array:
    if array.shape != shape:
        raise ShapeError(
            f"const {constant.name} has shape {shape} in the program, "
            f"{array.shape} in {constant.path}",
            location=constant.location,
        )
    if array.dtype != wanted and array.dtype.newbyteorder("=") != wanted:
        raise DTypeError(
            f"const {constant.name} is {wanted} in the program, {array.dtype} in {constant.path}",
            location=constant.location,
        )
    return array if array.dtype == wanted else array.astype(wanted)
