"""Loops, branches, carried values, checks and calls as native code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from einloom.backends.cpu.codegen import emit
from einloom.backends.cpu.target import host
from einloom.ir.errors import BackendError, UnsupportedError
from einloom.ir.expressions import Apply, Cast, Expression, Literal, Local, Symbol
from einloom.ir.loops import (
    Allocate,
    Append,
    AtomicAdd,
    Buffer,
    CallKernel,
    Carried,
    Check,
    For,
    HashInsert,
    HashLookup,
    If,
    Let,
    Load,
    LoopFunction,
    LoopProgram,
    LoopStatement,
    PackPanel,
    Search,
    Store,
    TileMultiply,
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


def test_workspaces_and_stack_buffers(compiled: Compile) -> None:
    """Rows of A reversed through a heap row and a stack cell, allocated anew in each turn."""
    width = Symbol("m")
    row = For(
        "j",
        ZERO,
        width,
        (
            Store(
                "W",
                (
                    ZERO,
                    op(
                        "sub",
                        width,
                        J,
                    ),
                ),
                Load("A", (INDEX, J)),
            ),
        ),
    )
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


# ---- what is refused ----------------------------------------------------------------------

CELL = Load("A", (ZERO,))
REFUSED = [
    (Append("A", ONE), "Append"),
    (HashInsert("A", ONE, ONE, "add"), "HashInsert"),
    (AtomicAdd("A", (ZERO,), ONE), "AtomicAdd"),
    (TileMultiply((2, 2, 2), (f32, f32, f32), CELL, CELL, CELL), "TileMultiply"),
    (PackPanel("A", CELL, ONE, ONE, 4), "PackPanel"),
]


@pytest.mark.parametrize(
    ("statement", "name"), REFUSED, ids=lambda x: x if isinstance(x, str) else ""
)
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


def test_equal_programs_have_equal_texts() -> None:
    first = emit(LoopProgram((summing("a", True), summing("b", False))), host())
    assert first == emit(LoopProgram((summing("a", True), summing("b", False))), host())
    assert first != emit(LoopProgram((summing("a", False), summing("b", False))), host())
