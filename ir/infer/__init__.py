"""Inference: the type of every tensor, the extent of every index, the checks left for entry."""

from __future__ import annotations

from functools import lru_cache

from einloom.ir.errors import Location
from einloom.ir.infer.result import EinsumTyping, Equality, Inference
from einloom.ir.infer.work import Work
from einloom.ir.program import Module

__all__ = ["EinsumTyping", "Equality", "Inference", "infer"]


def infer(module: Module) -> Inference:
    """Types and extents of a module; raises the collected errors of everything wrong in it.

    What cannot be proved about symbols becomes an `Equality` to check at entry. Results are
    kept for modules seen lately.
    """
    return _inferred(module, module.location)


# Equal modules may come from different texts, and checks point into theirs.
@lru_cache(maxsize=256)
def _inferred(module: Module, location: Location | None) -> Inference:
    work = Work(module)
    work.run()
    if work.diagnostics:
        found = sorted(
            work.diagnostics, key=lambda pair: pair[1].location.start if pair[1].location else -1
        )
        raise found[0][0].collected([diagnostic for _, diagnostic in found])
    return Inference(
        work.tensors,
        work.einsums,
        tuple(dict.fromkeys(work.checks)),
        work.states,
        tuple(work.symbols),
    )
