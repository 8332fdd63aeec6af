"""Workspaces, checks and calls of other kernels as native code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from einloom.ir.expressions import Apply, Expression, Literal, Local, Symbol
from einloom.ir.loops import (
    Allocate,
    Buffer,
    CallKernel,
    Check,
    For,
    If,
    Load,
    LoopFunction,
    Store,
)
from einloom.ir.types import DType, f64, i32, i64

Compile = Callable[..., Any]
ZERO, ONE = Literal(0), Literal(1)
INDEX, J, N = Local("i"), Local("j"), Symbol("n")


def op(name: str, *arguments: Expression) -> Apply:
    return Apply(name, arguments)


def out(name: str, dtype: DType, *strides: int | None) -> Buffer:
    return Buffer(name, dtype, strides, "out")


def test_workspaces_and_stack_buffers(compiled: Compile) -> None:
    """Rows of A reversed through a heap row and a stack cell, allocated anew in each turn."""
    width = Symbol("m")
    mirrored = Store("W", (ZERO, op("sub", width, J)), Load("A", (INDEX, J)))
    row = For("j", ZERO, width, (mirrored,))
    k = Local("k")
    back = For(
        "k",
        ZERO,
        width,
        (
            Store("S", (ONE,), Load("W", (ZERO, op("add", k, ONE)))),
            Store("R", (INDEX, k), Load("S", (ONE,))),
        ),
    )
    body = (
        Allocate("W", f64, (Literal(2), op("add", width, ONE))),
        Allocate("S", f64, (Literal(2),), "stack"),
        row,
        back,
    )
    buffers = (Buffer("A", f64, (None, None)), out("R", f64, None, None))
    kernels = compiled(LoopFunction("f", buffers, ("n", "m"), (For("i", ZERO, N, body),)))
    a = np.arange(12.0).reshape(3, 4)
    found = np.zeros_like(a)
    assert kernels("f", [a, found], [3, 4]) == 0
    np.testing.assert_array_equal(found, a[:, ::-1])
    empty = np.zeros((3, 0))
    assert kernels("f", [empty, empty.copy()], [3, 0]) == 0


def test_workspaces_are_aligned_and_freed(compiled: Compile) -> None:
    text = compiled(
        LoopFunction(
            "f",
            (out("R", f64, 8),),
            ("n",),
            (
                Allocate("W", f64, (N,)),
                Check(op("gt", N, ZERO), 4, N, ZERO),
                If(op("gt", N, ONE), (Allocate("V", f64, (N,)),)),
            ),
        )
    ).text
    # W at the fault, where V cannot be had, and at the end; V at the end of its block.
    assert text.count("call noalias ptr @malloc") == 2
    assert text.count("call void @free") == 4


@pytest.mark.parametrize("extents", [(2**61,), (2**40, 2**40), (-1,), (2**60, 16)])
def test_a_workspace_that_cannot_be_had(extents: tuple[int, ...], compiled: Compile) -> None:
    names = tuple(f"n{k}" for k in range(len(extents)))
    # The workspace is used, or LLVM would do without it.
    index = tuple(INDEX if k == 0 else ZERO for k in range(len(extents)))
    fill = Store("W", index, op("mul", Load("R", (ZERO,)), INDEX))
    read = Store("R", (ZERO,), Load("W", (Load("K", ()), *index[1:])))
    body = (
        Allocate("W", f64, tuple(Symbol(name) for name in names)),
        For("i", ZERO, Symbol("count"), (fill,)),
        read,
    )
    buffers = (out("R", f64, 8), Buffer("K", i64, ()))
    kernels = compiled(LoopFunction("f", buffers, (*names, "count"), body))
    found, position = np.array([5.0]), np.array(2)
    fitting = [4] * len(extents)
    assert kernels("f", [found, position], [*fitting, 4]) == 0
    assert found[0] == 10
    assert kernels("f", [found, position], [*extents, 4]) == -1
    assert found[0] == 10


def test_check_leaves_with_the_fault(compiled: Compile) -> None:
    index = Load("K", (INDEX,))
    inside = op("and", op("ge", index, ZERO), op("lt", index, Literal(3)))
    body = (Check(inside, 2, index, Literal(3)), Store("R", (INDEX,), Load("A", (index,))))
    buffers = (Buffer("K", i32, (4,)), Buffer("A", f64, (8,)), out("R", f64, 8))
    kernels = compiled(LoopFunction("f", buffers, ("n",), (For("i", ZERO, N, body),)))
    a, found = np.array([10.0, 20, 30]), np.zeros(4)
    assert kernels("f", [np.array([2, 0, 1, 2], np.int32), a, found], [4]) == 0
    assert found.tolist() == [30, 10, 20, 30]
    found[:] = 0
    assert kernels("f", [np.array([1, -7, 5, 0], np.int32), a, found], [4]) == 2
    assert kernels.fault == (-7, 3)
    assert found.tolist() == [20, 0, 0, 0]


def test_call_kernel(compiled: Compile) -> None:
    """The callee gets a workspace, runs all of its parallel loop, and its fault is passed on."""
    fill = LoopFunction(
        "fill",
        (out("X", i64, None),),
        ("m",),
        (
            For(
                "i",
                ZERO,
                op("add", Symbol("m"), ONE),
                (
                    Check(op("lt", INDEX, Literal(6)), 9, INDEX, Literal(6)),
                    Store("X", (INDEX,), op("mul", INDEX, INDEX)),
                ),
                "parallel",
            ),
        ),
    )
    caller = LoopFunction(
        "main",
        (out("R", i64, None),),
        ("n",),
        (
            Allocate("W", i64, (op("add", N, ONE),)),
            CallKernel("fill", ("W",), (N,)),
            For("j", ZERO, op("add", N, ONE), (Store("R", (J,), Load("W", (J,))),)),
            CallKernel("set", ("R",)),
        ),
    )
    last = LoopFunction("set", (out("R", i64, 16),), (), (Store("R", (ZERO,), Literal(-1)),))
    kernels = compiled(caller, fill, last)
    found = np.zeros(20, np.int64)[::2]
    assert kernels("main", [found], [5]) == 0
    assert found[:7].tolist() == [-1, 1, 4, 9, 16, 25, 0]
    assert kernels("main", [found], [6]) == 9
    assert kernels.fault == (6, 6)
