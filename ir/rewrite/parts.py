"""What an expression mentions, remembered: rules ask for it again and again."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from einloom.ir.expressions import Access, Expression, Index
from einloom.ir.node import postorder


class Parts(NamedTuple):
    """Names of the indices and the accesses of an expression, in order of first appearance."""

    indices: tuple[str, ...]
    accesses: tuple[Access, ...]


@lru_cache(maxsize=1 << 14)
def parts_of(expression: Expression) -> Parts:
    """The indices and accesses in an expression, those inside index expressions included."""
    indices: dict[str, None] = {}
    accesses: dict[Access, None] = {}
    for part in postorder(expression):
        if isinstance(part, Index):
            indices.setdefault(part.name)
        elif isinstance(part, Access):
            accesses.setdefault(part)
    return Parts(tuple(indices), tuple(accesses))
