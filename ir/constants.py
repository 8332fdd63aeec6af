"""The arrays of `const` statements: inline bytes, or .npy files beside the program."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einloom.ir import extents as ext
from einloom.ir.errors import EinloomError, ShapeError
from einloom.ir.program import Constant, Module
from einloom.ir.promotion import numpy_dtype

CHUNK_BYTES = 1 << 20


def constant_arrays(module: Module) -> dict[str, NDArray[Any]]:
    """The arrays of all top-level constants of a module, read-only."""
    return {s.name: constant_array(s) for s in module.body if isinstance(s, Constant)}


def constant_array(statement: Constant) -> NDArray[Any]:
    """The array of one constant; a file is mapped into memory, not read.

    Raises ShapeError where shape or dtype differ from the declared type, EinloomError where
    the file is missing, lies outside the program's folder, or has another digest.
    """
    dtype = numpy_dtype(statement.type.dtype)
    shape = tuple(ext.evaluate(extent, {}) for extent in statement.type.extents)
    if statement.path is None:
        return np.frombuffer(statement.data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
    path = _resolved(statement)
    _check_digest(path, statement)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise EinloomError(f"{path} is no .npy file: {error}", location=statement.location) from None
    if array.shape != shape or array.dtype != dtype:
        raise ShapeError(
            f"{path.name} holds {array.dtype} of shape {array.shape}, "
            f"{statement.name} is declared {statement.type}",
            location=statement.location,
        )
    return np.asarray(array)


def _resolved(statement: Constant) -> Path:
    """The file of a constant, which must lie in the folder of the program's file."""
    assert statement.path is not None
    name = statement.location.source.name if statement.location is not None else ""
    folder = Path(name).resolve().parent
    path = (folder / statement.path).resolve()
    if not path.is_relative_to(folder):
        raise EinloomError(
            f"{statement.path} leaves the folder of the program",
            location=statement.location,
            suggestion="put the file beside the program",
        )
    return path


def _check_digest(path: Path, statement: Constant) -> None:
    hasher = sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                hasher.update(chunk)
    except OSError as error:
        raise EinloomError(
            f"cannot read {statement.path}: {error.strerror}", location=statement.location
        ) from None
    if hasher.digest() != statement.data:
        raise EinloomError(
            f"{statement.path} has digest sha256:{hasher.hexdigest()}, "
            f"the program names sha256:{statement.data.hex()}",
            location=statement.location,
            suggestion="the file has changed since the program was written",
        )
