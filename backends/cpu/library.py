"""Loaded machine code and how its entries are named. Light to import: a cached kernel needs it."""

from __future__ import annotations

from typing import Protocol

from einloom.ir.errors import BackendError


def entry_symbol(name: str) -> str:
    """The symbol of a function's code; the prefix keeps `exp` and `malloc` free as names."""
    return f"kernel.{name}"


class Code(Protocol):
    """Machine code in memory."""

    def address(self, symbol: str) -> int | None:
        """Where a symbol is, None where the code does not define it."""


class Library:
    """The functions of a loop program, callable until the last reference to this object goes.

    Whoever calls an entry has to hold the library for as long as the call runs.
    """

    def __init__(self, code: Code) -> None:
        self._code = code

    def entry(self, name: str) -> int:
        """The address of a function of the loop program. Raises BackendError for another name."""
        address = self._code.address(entry_symbol(name))
        if not address:
            raise BackendError(f"internal: the compiled code has no kernel {name}")
        return address
