"""Complaints: what a rule of the verifier yields, and where in the source it points."""

from __future__ import annotations

from difflib import get_close_matches

from einloom.ir.errors import Diagnostic, EinloomError, Location, ParseError
from einloom.ir.node import Node

Complaint = tuple[type[EinloomError], Diagnostic]
"""The class of error that is raised if this is the first complaint, and what is wrong."""


def complaint(
    message: str,
    *where: Node | None,
    hint: str | None = None,
    kind: type[EinloomError] = ParseError,
) -> Complaint:
    """A complaint at the first of the nodes in `where` that knows its location."""
    return kind, Diagnostic(message, location_of(*where), hint)


def location_of(*where: Node | None) -> Location | None:
    return next((n.location for n in where if n is not None and n.location is not None), None)


def near(name: str, known: list[str]) -> str | None:
    """The suggestion for a name that is not known."""
    match = get_close_matches(name, known[:1000], 1)
    return f"did you mean {match[0]}?" if match else None


def in_order(complaints: list[Complaint]) -> list[Complaint]:
    """Complaints in the order of the source, those without a location first, without doubles."""

    def key(item: Complaint) -> int:
        return item[1].location.start if item[1].location is not None else -1

    return sorted(dict.fromkeys(complaints), key=key)


def raise_collected(complaints: list[Complaint]) -> None:
    """Raise one error that carries all complaints, of the class of the first one."""
    if complaints:
        kind = complaints[0][0]
        raise kind.collected([diagnostic for _, diagnostic in complaints])
