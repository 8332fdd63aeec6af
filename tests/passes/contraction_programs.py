"""Programs to contract: a chain and a ring of matrices, split, run and compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from einloom.ir import extents as ext
from einloom.ir.interpret import interpret
from einloom.ir.program import Module
from einloom.ir.promotion import numpy_dtype
from einloom.ir.text import parse
from einloom.ir.types import Modular
from einloom.ir.verify import verify
from einloom.passes.base import Context
from einloom.passes.contract import Contract

LARGE = {"N": 200, "M": 300, "K": 400, "L": 500}
SMALL = {"N": 3, "M": 4, "K": 2, "L": 5}


def split(
    text: str, context: Context | None = None, /, **options: Any
) -> tuple[Module, Module, Context]:
    """The program, what `contract` makes of it, and the context with its notes."""
    module = parse(text)
    context = Context(extents=LARGE) if context is None else context
    made = Contract(**options).run(module, context)
    verify(made)
    assert parse(str(made)) == made
    return module, made, context


def body(module: Module) -> list[str]:
    """The lines of a program between its braces."""
    return [line.strip() for line in str(module).strip().splitlines()[1:-1]]


def inputs(module: Module, sizes: dict[str, int], seed: int = 0) -> dict[str, Any]:
    """Small whole numbers for every input, in its dtype."""
    source = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for item in module.inputs:
        if item.type is None:
            arrays[item.name] = sizes[item.name]
            continue
        shape = [ext.evaluate(extent, sizes) for extent in item.type.extents]
        low = 0 if isinstance(item.type.dtype, Modular) else -4
        arrays[item.name] = source.integers(low, 5, shape).astype(numpy_dtype(item.type.dtype))
    return arrays


def check_same(before: Module, after: Module, sizes: dict[str, int] | None = None) -> None:
    """Both programs give the same values of the same dtype."""
    for seed in range(3):
        arrays = inputs(before, SMALL if sizes is None else sizes, seed)
        expected, found = interpret(before, arrays), interpret(after, arrays)
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)


def chain(dtype: str, op: str = "*", monoid: str = "sum") -> str:
    return (
        f"program p(A: {dtype}[i=N, j=M], B: {dtype}[j=M, k=K], C: {dtype}[k=K, l=L]) -> (R) {{\n"
        f"  R[i, l] = {monoid}[j, k] A[i, j] {op} B[j, k] {op} C[k, l]\n}}"
    )


def ring(dtype: str, op: str = "*", monoid: str = "sum") -> str:
    return (
        f"program p(A: {dtype}[i=N, j=M], B: {dtype}[j=M, k=K], C: {dtype}[k=K, l=L], "
        f"D: {dtype}[l=L, i=N]) -> (R) {{\n"
        f"  R[] = {monoid}[i, j, k, l] A[i, j] {op} B[j, k] {op} C[k, l] {op} D[l, i]\n}}"
    )
