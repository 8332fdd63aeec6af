"""Ways to change a program, and the pipeline that runs them.

The list of all passes is `passes/registry.py`.
"""

from __future__ import annotations

from einloom.passes.base import Context, Pass
from einloom.passes.pipeline import Pipeline

__all__ = ["Context", "Pass", "Pipeline"]
