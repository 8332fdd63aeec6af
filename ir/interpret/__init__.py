"""The reference interpreter: what a program means, computed with NumPy."""

from einloom.ir.interpret.program import DEFAULT_MEMORY_CAP, HostFunction, interpret

__all__ = ["DEFAULT_MEMORY_CAP", "HostFunction", "interpret"]
