"""What the functions of one program share, from the program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from einloom.ir.definitions import functions_of, monoids_of
from einloom.ir.infer import Inference
from einloom.ir.program import Module
from einloom.passes.lowering.function import OperandLayout, ProgramContext
from einloom.passes.lowering.scans import counters, rings

if TYPE_CHECKING:
    from einloom.passes.lowering.products.blocking import Cut


def context_of(
    module: Module,
    inference: Inference,
    layouts: Mapping[str, OperandLayout],
    *,
    strict: bool = False,
    blockings: Mapping[str, Cut] | None = None,
) -> ProgramContext:
    """The context that statements of a module are lowered in."""
    return ProgramContext(
        inference,
        layouts,
        functions_of(module),
        monoids_of(module),
        rings(module, inference),
        strict,
        counters(inference),
        blockings or {},
    )
