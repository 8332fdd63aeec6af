"""The verifier: one table of rules per level; all errors are collected, each with its place."""

from einloom.ir.verify.laws import check_laws
from einloom.ir.verify.loops import loop_problems, verify_loops
from einloom.ir.verify.program import problems, verify

__all__ = ["check_laws", "loop_problems", "problems", "verify", "verify_loops"]
