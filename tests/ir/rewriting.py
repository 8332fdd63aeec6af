"""What the tests of rewriting share: programs from text, and their statements afterwards."""

from __future__ import annotations

from einloom.ir.program import Module
from einloom.ir.rewrite import rewrite
from einloom.ir.rules import (
    COMMON_RULES,
    DEAD_RULES,
    EINSUM_RULES,
    SCALAR_RULES,
)
from einloom.ir.text import parse
from einloom.ir.verify import verify

SIMPLIFYING = (*DEAD_RULES, *SCALAR_RULES, *EINSUM_RULES, *COMMON_RULES)


def program(text: str) -> Module:
    """A module from its text, verified."""
    module = parse(text)
    verify(module)
    return module


def rewritten(text: str, rules: tuple[object, ...] = SIMPLIFYING, **options: object) -> str:
    """The body of a program after rewriting, one statement a line, without the indentation."""
    module = program(text)
    result = rewrite(module, rules, **options).module  # type: ignore[arg-type]
    verify(result)
    lines = str(result).strip().splitlines()[1:-1]
    return "\n".join(line.strip() for line in lines)
