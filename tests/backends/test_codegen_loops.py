"""Loops, branches, carried values and sums as native code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from einloom.backends.cpu.codegen import emit
from einloom.backends.cpu.target import host
from einloom.ir.expressions import Apply, Expression, Literal, Local, Symbol
from einloom.ir.loops import (
    Buffer,
    Carried,
    For,
    If,
    Let,
    Load,
    LoopFunction,
    LoopProgram,
    LoopStatement,
    Store,
    While,
)
from einloom.ir.types import DType, bool_, c128, f16, f32, f64, i32, i64

Compile = Callable[..., Any]
ZERO, ONE = Literal(0), Literal(1)
INDEX, J, N = Local("i"), Local("j"), Symbol("n")


def op(name: str, *arguments: Expression) -> Apply:
    return Apply(name, arguments)


def out(name: str, dtype: DType, *strides: int | None) -> Buffer:
    return Buffer(name, dtype, strides, "out")


@pytest.mark.parametrize(
    ("lower", "upper", "step"),
    [(0, 5, 1), (0, 0, 1), (3, 2, 1), (2, 9, 3), (2, 11, 3), (0, 5, -1), (2, 9, -3), (4, 4, -1)],
)
def test_bounds_and_steps(lower: int, upper: int, step: int, compiled: Compile) -> None:
    """Each turn appends its index: R[count] = i. Downwards it starts at upper - 1."""
    loop = For(
        "i",
        Symbol("lower"),
        Symbol("upper"),
        (Store("R", (Local("count"),), INDEX),),
        step=step,
        carried=(Carried("count", i64, ZERO),),
        yields=(op("add", Local("count"), ONE),),
    )
    store = Store("R", (Literal(31),), Local("count"))
    function = LoopFunction("f", (out("R", i64, 8),), ("lower", "upper"), (loop, store))
    kernels = compiled(function)
    found = np.full(32, -1)
    assert kernels("f", [found], [lower, upper]) == 0
    turns = range(lower, upper, step) if step > 0 else range(upper - 1, lower - 1, step)
    assert found[:31].tolist() == [*turns] + [-1] * (31 - len(turns))
    assert found[31] == len(turns)


@pytest.mark.parametrize("kind", ["serial", "vector", "unroll"])
@pytest.mark.parametrize("extent", [0, 1, 7, 64, 200])
def test_kinds_of_loops_agree(kind: str, extent: int, compiled: Compile) -> None:
    def function(name: str, upper: Expression) -> LoopFunction:
        loop = For("i", ZERO, upper, (Store("R", (INDEX,), op("mul", INDEX, INDEX)),), kind)
        return LoopFunction(name, (out("R", i64, 8),), ("n",), (loop,))

    kernels = compiled(function("known", Literal(extent)), function("symbol", N))
    for name in ("known", "symbol"):
        found = np.full(256, -1)
        assert kernels(name, [found], [extent]) == 0
        np.testing.assert_array_equal(found[:extent], np.arange(extent) ** 2)
        assert (found[extent:] == -1).all()


def test_unrolling_is_bounded_and_carries_values(compiled: Compile) -> None:
    """Three nested loops of ten turns: the innermost two are copied, the sum is that of i*j*k."""
    names = ("i", "j", "k")
    product = op("mul", *(Local(name) for name in names))
    value: Expression = op("add", Local("acc.k"), product)
    body: tuple[LoopStatement, ...] = ()
    for name, outer in (("k", "acc.j"), ("j", "acc.i"), ("i", None)):
        initial = Local(outer) if outer else Literal(5)
        carried = (Carried(f"acc.{name}", i64, initial),)
        body = (For(name, ZERO, Literal(10), body, "unroll", 1, carried, (value,)),)
        value = Local(f"acc.{name}")
    function = LoopFunction("f", (out("R", i64),), (), (*body, Store("R", (), Local("acc.i"))))
    kernels = compiled(function)
    found = np.zeros((), np.int64)
    assert kernels("f", [found]) == 0
    assert found == 5 + 45**3
    assert kernels.text.count(" = mul i64") <= 2 * 256


@pytest.mark.parametrize("kind", ["serial", "vector"])
def test_a_loop_that_cannot_be_vectorised_is_not_talked_about(
    kind: str, compiled: Compile, capfd: pytest.CaptureFixture[str]
) -> None:
    """LLVM would write a warning to the standard error if it was told to and could not."""
    update = op("add", op("mul", Local("acc"), Literal(0.5)), Load("A", (INDEX,)))
    loop = For("i", ZERO, N, (), kind, 1, (Carried("acc", f32, Literal(0.0)),), (update,))
    buffers = (Buffer("A", f32, (None,)), out("R", f32))
    body = (loop, Store("R", (), Local("acc")))
    compiled(LoopFunction("f", buffers, ("n",), body, reassociate=False))
    assert capfd.readouterr().err == ""


def test_a_parallel_loop_runs_the_slice_that_it_is_given(compiled: Compile) -> None:
    loop = For("i", ZERO, N, (Store("R", (INDEX,), INDEX),), "parallel")
    kernels = compiled(LoopFunction("f", (out("R", i64, 8),), ("n",), (loop,)))
    found = np.full(10, -1)
    assert kernels("f", [found], [10], 3, 6) == 0
    assert found.tolist() == [-1, -1, -1, 3, 4, 5, -1, -1, -1, -1]
    assert kernels("f", [found], [10], 6, 6) == 0
    assert found[6] == -1


def test_carried_values_of_every_kind(compiled: Compile) -> None:
    """A complex, a bool, an integer and an f16 that depends on the others' last values."""
    carried = (
        Carried("z", c128, Literal(1j)),
        Carried("even", bool_, Literal(True)),
        Carried("count", i32, ZERO),
        Carried("held", f16, Literal(2048.0)),
    )
    yields = (
        op("mul", Local("z"), Literal(1 + 1j)),
        op("not", Local("even")),
        op("select", Local("even"), op("add", Local("count"), ONE), Local("count")),
        op("add", Local("held"), ONE),
    )
    stores = tuple(
        Store(name, (), Local(value))
        for name, value in (("Z", "z"), ("E", "even"), ("C", "count"), ("H", "held"))
    )
    buffers = (out("Z", c128), out("E", bool_), out("C", i32), out("H", f32))
    loop = For("i", ZERO, N, (), carried=carried, yields=yields)
    kernels = compiled(LoopFunction("f", buffers, ("n",), (loop, *stores)))
    for n in (0, 1, 6, 7):
        results = [np.zeros((), t) for t in (np.complex128, np.bool_, np.int32, np.float32)]
        assert kernels("f", results, [n]) == 0
        z, even, count, held = (x.item() for x in results)
        assert z == 1j * (1 + 1j) ** n
        assert (even, count) == (n % 2 == 0, (n + 1) // 2)
        assert held == 2048 + n  # held in f32: not rounded from turn to turn


def test_while(compiled: Compile) -> None:
    """The steps that Collatz's rule takes from n down to 1."""
    x = Local("x")
    step = op(
        "select",
        op("eq", op("mod", x, Literal(2)), ZERO),
        op("floordiv", x, Literal(2)),
        op("add", op("mul", x, Literal(3)), ONE),
    )
    loop = While(
        op("gt", x, ONE),
        (Carried("x", i64, N), Carried("steps", i64, ZERO)),
        (Let("next", step),),
        (Local("next"), op("add", Local("steps"), ONE)),
    )
    store = Store("R", (), Local("steps"))
    kernels = compiled(LoopFunction("f", (out("R", i64),), ("n",), (loop, store)))
    found = np.zeros((), np.int64)
    for n, steps in ((1, 0), (2, 1), (6, 8), (27, 111)):
        assert kernels("f", [found], [n]) == 0
        assert found == steps


def test_if_with_and_without_else(compiled: Compile) -> None:
    positive = op("gt", N, ZERO)
    one_armed = If(
        positive,
        (Store("R", (ONE,), Literal(7)),),
        carried=(Carried("a", i64, Literal(-1)),),
        then_yields=(op("add", Local("a"), Literal(100)),),
    )
    two_armed = If(
        positive,
        (Let("t", op("mul", N, Literal(2))),),
        (Let("e", op("mul", N, Literal(3))),),
        carried=(Carried("b", i64, ZERO),),
        then_yields=(Local("t"),),
        otherwise_yields=(Local("e"),),
    )
    body = (
        one_armed,
        two_armed,
        Store("R", (ZERO,), Local("a")),
        Store("R", (Literal(2),), Local("b")),
    )
    kernels = compiled(LoopFunction("f", (out("R", i64, 8),), ("n",), body))
    found = np.zeros(3, np.int64)
    assert kernels("f", [found], [5]) == 0
    assert found.tolist() == [99, 7, 10]
    found[:] = 0
    assert kernels("f", [found], [-5]) == 0
    assert found.tolist() == [-1, 0, -15]


def test_a_load_is_not_moved_across_a_store(compiled: Compile) -> None:
    """A[0] is read before and after it changes, by equal expressions."""
    twice = op("mul", Load("A", (ZERO,)), Literal(2))
    body = (
        Let("x", twice),
        Store("A", (ZERO,), Literal(10)),
        Store("A", (ONE,), twice),
        Store("A", (Literal(2),), Local("x")),
    )
    kernels = compiled(LoopFunction("f", (Buffer("A", i64, (8,), "inout"),), (), body))
    found = np.array([1, 0, 0])
    assert kernels("f", [found]) == 0
    assert found.tolist() == [10, 20, 2]


def test_nesting_is_not_bounded_by_pythons_recursion(compiled: Compile) -> None:
    statement: LoopStatement = Store("R", (), op("add", Load("R", ()), ONE))
    for depth in range(400):
        statement = If(op("gt", N, Literal(depth)), (statement,))
    value: Expression = Load("R", ())
    for _ in range(5000):
        value = op("neg", op("sub", value, ONE))
    body = (Store("R", (), value), statement)
    kernels = compiled(LoopFunction("f", (Buffer("R", i64, (), "inout"),), ("n",), body))
    found = np.zeros((), np.int64)
    assert kernels("f", [found], [1000]) == 0
    assert found == 1  # the 5,000 negations and subtractions cancel


def test_names_of_any_text(compiled: Compile) -> None:
    names = ("exp", "malloc", "naïve σ", 'with "quotes"', "main")
    functions = [
        LoopFunction(name, (out("ρ 1", f64),), ("x y",), (Store("ρ 1", (), Literal(k)),))
        for k, name in enumerate(names)
    ]
    kernels = compiled(*functions)
    for k, name in enumerate(names):
        found = np.full((), -1.0)
        assert kernels(name, [found], [0]) == 0
        assert found == k


# ---- reassociation ------------------------------------------------------------------------


def summing(name: str, reassociate: bool) -> LoopFunction:
    product = op("mul", Load("A", (INDEX,)), Load("A", (INDEX,)))
    loop = For(
        "i",
        ZERO,
        N,
        (),
        carried=(Carried("acc", f32, Literal(0.0)),),
        kind="vector",
        yields=(op("add", Local("acc"), product),),
    )
    buffers = (Buffer("A", f32, (4,)), out("R", f32))
    return LoopFunction(name, buffers, ("n",), (loop, Store("R", (), Local("acc"))), reassociate)


def test_sums_keep_their_order_unless_they_may_be_reordered(compiled: Compile) -> None:
    kernels = compiled(summing("ordered", False), summing("free", True))
    a = np.random.default_rng(0).normal(size=4099).astype(np.float32)
    sequential = np.float32(0)
    for x in a:
        sequential = np.float32(sequential + np.float32(x * x))
    found = np.zeros((), np.float32)
    assert kernels("ordered", [a, found], [a.size]) == 0
    assert found == sequential
    assert kernels("free", [a, found], [a.size]) == 0
    exact = float(np.sum(a.astype(np.float64) ** 2))
    assert abs(found - exact) <= 1e-6 * exact
    assert "fast" not in kernels.text


def test_masked_sums_are_marked_too() -> None:
    masked = op("add", Local("x"), Load("A", (INDEX,)))
    branch = If(
        op("gt", Load("A", (INDEX,)), Literal(0.0)),
        (),
        carried=(Carried("x", f32, Local("acc")),),
        then_yields=(masked,),
    )
    loop = For(
        "i",
        ZERO,
        N,
        (branch,),
        carried=(Carried("acc", f32, Literal(0.0)),),
        yields=(Local("x"),),
    )
    buffers = (Buffer("A", f32, (4,)), out("R", f32))
    function = LoopFunction("f", buffers, ("n",), (loop, Store("R", (), Local("acc"))))
    assert "fadd reassoc contract float" in emit(LoopProgram((function,)), host())


def test_other_arithmetic_is_never_reordered() -> None:
    value = op("add", op("mul", Load("A", (INDEX,)), Literal(3.0)), Literal(1.0))
    buffers = (Buffer("A", f32, (4,)), out("R", f32, 4))
    function = LoopFunction(
        "f", buffers, ("n",), (For("i", ZERO, N, (Store("R", (INDEX,), value),)),)
    )
    text = emit(LoopProgram((function,)), host())
    assert "fmul float" in text and "fadd float" in text


def test_equal_programs_have_equal_texts() -> None:
    first = emit(LoopProgram((summing("a", True), summing("b", False))), host())
    assert first == emit(LoopProgram((summing("a", True), summing("b", False))), host())
    assert first != emit(LoopProgram((summing("a", False), summing("b", False))), host())
