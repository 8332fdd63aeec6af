"""Ways to change a program, and the pipeline that runs them.

The list of all passes is `passes/registry.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from einloom.passes.base import Context, Pass
    from einloom.passes.pipeline import Pipeline

# Imported when first used: lowering a single statement needs none of them.
_LAZY = {
    "Context": "einloom.passes.base",
    "Pass": "einloom.passes.base",
    "Pipeline": "einloom.passes.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'einloom.passes' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


__all__ = ["Context", "Pass", "Pipeline"]
