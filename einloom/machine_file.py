"""The measurements of this machine on disk, beside the cache, and the model made from them."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einloom import config
from einloom.ir.errors import EinloomError
from einloom.ir.record import record

if TYPE_CHECKING:
    from einloom.backends.machine_model import MachineModel
    from einloom.backends.measurements import Measurements

MOST_BYTES = 1 << 16
"""A file of measurements is smaller; a larger one is not read."""


@record
class Stored:
    """What the file of this machine holds.

    `fault` says why a file that is there is not used; both are None where there is none.
    """

    path: Path | None
    measured: Measurements | None = None
    fault: str | None = None


def fingerprint() -> str:
    """What tells machines apart whose measurements may differ."""
    from einloom.backends.cpu.target import host_fingerprint

    return blake2b(host_fingerprint().encode(), digest_size=16).hexdigest()


def measurements_path() -> Path | None:
    """The file of this machine; None where the environment asks for no files.

    Raises EinloomError for a variable with an illegal value.
    """
    folder = config.cache_folder()
    if folder is None or not config.disk_cache_enabled():
        return None
    return folder / f"machine-{fingerprint()}.json"


def stored() -> Stored:
    """What was measured on this machine, if anything was; never fails on what a file holds."""
    from einloom.backends.measurements import DamagedError, decoded

    path = measurements_path()
    if path is None:
        return Stored(None)
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            text = file.read(MOST_BYTES + 1) or b""
    except FileNotFoundError:
        return Stored(path)
    except OSError as error:
        return Stored(path, fault=f"{path} is not read: {error.strerror or error}")
    try:
        if len(text) > MOST_BYTES:
            raise DamagedError("it is too large")
        return Stored(path, decoded(text, fingerprint()))
    except DamagedError as error:
        return Stored(path, fault=f"{path} is not used: {error}")


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; of a pipe that bears the name no writer is waited for."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def store(measured: Measurements) -> Path:
    """Write the file of this machine, whole or not at all; models made from now on use it.

    Raises EinloomError where files are switched off or cannot be written.
    """
    from einloom.backends.measurements import encoded

    path = measurements_path()
    if path is None:
        why = f"{config.CACHE.name}=0" if not config.disk_cache_enabled() else "no home folder"
        raise EinloomError(
            f"the measurements are not kept: {why}",
            suggestion=f"name a folder in {config.CACHE_DIR.name}, and leave {config.CACHE.name} 1",
        )
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(encoded(measured, fingerprint()))
        os.replace(temporary, path)
    except OSError as error:
        raise EinloomError(
            f"the measurements are not kept: cannot write {path}: {error.strerror or error}",
            suggestion=f"name a folder of your own in {config.CACHE_DIR.name}",
        ) from None
    finally:
        with suppress(OSError):  # it is there only where something went wrong
            os.unlink(temporary)
    forget()
    return path


def machine_model() -> MachineModel:
    """This machine as it was measured, or the default model where it was not.

    Raises EinloomError for an environment variable with an illegal value.
    """
    return _model_at(measurements_path())


def forget() -> None:
    """Read the file anew when a model is next asked for."""
    _model_at.cache_clear()


@cache
def _model_at(path: Path | None) -> MachineModel:
    from einloom.backends.machine_model import MachineModel

    measured = None if path is None else stored().measured
    return MachineModel() if measured is None else MachineModel.from_measurements(measured)


class ThisMachine:
    """The cost model of this machine, read from disk when the first cost is asked for."""

    @cached_property
    def model(self) -> MachineModel:
        return machine_model()

    def seconds(self, **work: Any) -> float:
        """As `MachineModel.seconds`."""
        return self.model.seconds(**work)
