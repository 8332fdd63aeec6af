"""Ways to change a program, and the pipeline that runs them."""

from __future__ import annotations

from einloom.passes.base import Context, Pass
from einloom.passes.pipeline import Pipeline
from einloom.passes.simplify import Simplify

# Every pass that a pipeline may name, in the order of the manual.
ALL_PASSES: tuple[type[Pass], ...] = (Simplify,)

__all__ = ["ALL_PASSES", "Context", "Pass", "Pipeline"]
