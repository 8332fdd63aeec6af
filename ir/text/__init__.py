"""The text form of programs and of loops: one grammar in, one printer out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from einloom.ir.text.parser import load, parse, parse_definitions, parse_expression, parse_type
from einloom.ir.text.printer import show

if TYPE_CHECKING:
    from einloom.ir.text.loops_parser import parse_loops

__all__ = [
    "load",
    "parse",
    "parse_definitions",
    "parse_expression",
    "parse_loops",
    "parse_type",
    "show",
]


def __getattr__(name: str) -> Any:
    if name != "parse_loops":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # reading a program does without the nodes of the loops level
    from einloom.ir.text.loops_parser import parse_loops

    globals()[name] = parse_loops
    return parse_loops
