"""Sums of floats are lowered to sums of parts; nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

import einloom as el
from einloom.ir.loops import For
from einloom.ir.node import postorder
from einloom.ir.text import parse
from einloom.passes.lowering import lower
from einloom.passes.lowering.fold_loops import SUM_BLOCK


def blocks(text: str, strict: bool = False) -> int:
    """How many loops run over blocks of a sum."""
    program = lower(parse(text), strict=strict)
    loops = [part for part in postorder(program) if isinstance(part, For)]
    return sum(loop.index.startswith("block") and bool(loop.carried) for loop in loops)


SUM = "program p(A: {dtype}[i={extent}]) -> (Y) {{\n  Y = {reducer}[i] A[i]\n}}\n"


@pytest.mark.parametrize(
    ("dtype", "extent", "reducer", "expected"),
    [
        ("f64", "N", "sum", 1),
        ("f32", "N", "sum", 1),
        ("bf16", "N", "sum", 1),
        ("c64", "N", "sum", 1),
        ("f32", str(SUM_BLOCK + 1), "sum", 1),
        ("f32", str(SUM_BLOCK), "sum", 0),
        ("i32", "N", "sum", 0),
        ("bool", "N", "sum", 0),
        ("f32", "N", "max", 0),
        ("f32", "N", "prod", 0),
    ],
)
def test_which_folds_have_blocks(dtype: str, extent: str, reducer: str, expected: int) -> None:
    assert blocks(SUM.format(dtype=dtype, extent=extent, reducer=reducer)) == expected


def test_strict_keeps_one_running_sum() -> None:
    assert blocks(SUM.format(dtype="f64", extent="N", reducer="sum"), strict=True) == 0


@pytest.mark.parametrize("count", [0, 1, SUM_BLOCK - 1, SUM_BLOCK, SUM_BLOCK + 1, 3 * SUM_BLOCK])
def test_every_term_is_added_once(count: int) -> None:
    """On both sides of the ends of blocks, contiguous and not, with and without a condition."""
    whole = np.arange(2.0 * count)
    terms = whole[:count]
    assert el.einsum("i->", terms) == terms.sum()
    assert el.einsum("i->", whole[::2]) == whole[::2].sum()
    text = "program p(A: f64[i=N]) -> (Y) {\n  Y = sum[i] A[i] if A[i] > 3.0\n}\n"
    assert el.compile(text)(terms) == terms[terms > 3].sum()


def test_sums_over_several_indices() -> None:
    array = np.arange(5000.0 * 6).reshape(5000, 6) % 7
    assert el.einsum("ij->", array) == array.sum()
    assert el.einsum("ji->", array.T) == array.sum()
    np.testing.assert_array_equal(el.einsum("ijk->k", array.reshape(50, 100, 6)), array.sum(0))
