"""What the CPU backend does not have is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from einloom.backends.cpu.codegen import emit
from einloom.backends.cpu.target import host
from einloom.ir.errors import BackendError, UnsupportedError
from einloom.ir.expressions import Apply, Cast, Expression, Literal, Symbol
from einloom.ir.loops import (
    Allocate,
    Append,
    AtomicAdd,
    Buffer,
    For,
    HashInsert,
    HashLookup,
    Let,
    Load,
    LoopFunction,
    LoopProgram,
    LoopStatement,
    PackPanel,
    Search,
    Store,
    TileMultiply,
)
from einloom.ir.types import f32, f64

Compile = Callable[..., Any]
ZERO, ONE = Literal(0), Literal(1)
N = Symbol("n")


def op(name: str, *arguments: Expression) -> Apply:
    return Apply(name, arguments)


CELL = Load("A", (ZERO,))
REFUSED = [
    (Append("A", ONE), "Append"),
    (HashInsert("A", ONE, ONE, "add"), "HashInsert"),
    (AtomicAdd("A", (ZERO,), ONE), "AtomicAdd"),
    (TileMultiply((2, 2, 2), (f32, f32, f32), CELL, CELL, CELL), "TileMultiply"),
    (PackPanel("A", CELL, ONE, ONE, 4), "PackPanel"),
]


@pytest.mark.parametrize(("statement", "name"), REFUSED, ids=[name for _, name in REFUSED])
def test_sparse_and_tile_statements_are_refused_by_name(
    statement: LoopStatement, name: str
) -> None:
    function = LoopFunction("f", (Buffer("A", f64, (8,), "inout"),), (), (statement,))
    with pytest.raises(UnsupportedError) as error:
        emit(LoopProgram((function,)), host())
    assert error.value.message == (
        f"the CPU backend does not have the statement {name} of sparse and tiled loops"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            Search("A", ZERO, ONE, ONE),
            "the CPU backend does not have 'search' (Search)",
        ),
        (
            HashLookup("A", ZERO, ONE),
            "the CPU backend does not have 'hash lookup' (HashLookup)",
        ),
        (op("stored", CELL), "the CPU backend has no operation 'stored'"),
    ],
)
def test_sparse_values_are_refused_by_name(value: Expression, message: str) -> None:
    store = Store("A", (ZERO,), Cast(f64, value))
    function = LoopFunction("f", (Buffer("A", f64, (8,), "inout"),), (), (store,))
    with pytest.raises(UnsupportedError) as error:
        emit(LoopProgram((function,)), host())
    assert error.value.message == message


def test_growable_buffers_are_refused_by_name() -> None:
    function = LoopFunction("f", (), (), (Allocate("G", f64, (ONE,), "growable"),))
    with pytest.raises(UnsupportedError) as error:
        emit(LoopProgram((function,)), host())
    assert error.value.message == "the CPU backend does not have growable buffers (Allocate of G)"


def test_a_parallel_loop_stands_alone() -> None:
    loop = For("i", ZERO, N, (), "parallel")
    function = LoopFunction("f", (), ("n",), (loop, Let("x", ONE)))
    with pytest.raises(BackendError, match="parallel loop i is not alone at the top"):
        emit(LoopProgram((function,)), host())
