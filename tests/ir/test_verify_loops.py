"""The verifier of the loops level: each rule with its message, and a kernel that is right."""

from __future__ import annotations

from dataclasses import replace

import pytest

from einloom.ir.errors import EinloomError, ParseError
from einloom.ir.expressions import Apply, Cast, Expression, Literal, Local, Symbol
from einloom.ir.loops import (
    Across,
    Allocate,
    AtomicAdd,
    Buffer,
    CallKernel,
    Carried,
    Check,
    Dot,
    FaultSite,
    For,
    If,
    Launch,
    Let,
    Load,
    LoopFunction,
    LoopProgram,
    LoopStatement,
    Prefetch,
    Splat,
    Storage,
    Store,
    Stream,
    Transpose,
    Vector,
    While,
)
from einloom.ir.types import Scalar, bf16, bool_, f32, f64, i8, i32, i64
from einloom.ir.verify import loop_problems, verify_loops

INDEX, N = Local("i"), Symbol("N")
ZERO, ONE = Literal(0), Literal(1)
A, B = Buffer("A", f32, (None, 4)), Buffer("B", f32, (4,), "out")

LANES = Load("A", (INDEX, ZERO), 2)
ONES, LONG = Splat(ONE, 16), Vector(bf16, 16)


def eight_bits(lanes: int) -> Expression:
    return Cast(Vector(i8, lanes), Splat(ONE, lanes))


def add(*arguments: Expression) -> Apply:
    return Apply("add", arguments)


def row_sum() -> For:
    """B[i] = sum of A[i, :], in a parallel loop over i."""
    step = add(Local("total"), Load("A", (INDEX, Local("j"))))
    inner = For("j", ZERO, N, (), carried=(Carried("total", f32, Literal(0.0)),), yields=(step,))
    return For("i", ZERO, N, (inner, Store("B", (INDEX,), Local("total"))), "parallel")


def function(*body: LoopStatement, **changes: object) -> LoopFunction:
    made = LoopFunction("k", (A, B), ("N",), body)
    return replace(made, **changes)  # type: ignore[arg-type]


def serial(*body: LoopStatement) -> LoopFunction:
    return function(For("i", ZERO, N, body))


def messages(*functions: LoopFunction, **changes: object) -> list[str]:
    program = replace(LoopProgram(functions), **changes)  # type: ignore[arg-type]
    return [diagnostic.message for diagnostic in loop_problems(program)]


def test_nothing_is_wrong() -> None:
    vector = Vector(f32, 8)
    lanes = Load("A", (INDEX, ZERO), 8)
    body = (
        Allocate("W", f32, (Literal(8), N)),
        Allocate("T", f32, (Literal(8),), "stack"),
        Check(Apply("lt", (INDEX, N)), 1, INDEX, N),
        Let("v", add(lanes, Splat(Literal(1.0), 8))),
        For(
            "j", ZERO, N, (Store("T", (ZERO,), Local("w")),), "vector", 8,
            (Carried("w", vector, Local("v")),), (Apply("mul", (Local("w"), Local("v"))),),
        ),
        Let("s", Across("add", Local("w"))),
        Transpose(tuple("abcdefgh"), (lanes,) * 8),
        Let("y", Apply("mul", (Local("a"), Local("v")))),
        If(
            Apply("gt", (Local("s"), Literal(0.0))), (Let("x", Local("s")),), (),
            (Carried("r", f32, Literal(0.0)),), (Local("x"),),
        ),
        While(Apply("lt", (Local("r"), Literal(9.0))), (), (Store("B", (INDEX,), Local("r")),), ()),
        Store("B", (INDEX,), Cast(f32, Local("r"))),
        CallKernel("sum", ("A", "B"), (N,)),
    )  # fmt: skip
    program = LoopProgram(
        (serial(*body), function(row_sum(), name="sum")),
        (Storage("B", f32, (N,)),),
        (Launch("k", (N,), None, N), Launch("sum", (N,), N, N)),
        (FaultSite("k", 1, "A is too short"),),
    )
    assert loop_problems(program) == []
    verify_loops(program)


FAULTS: dict[str, tuple[LoopFunction, list[str]]] = {
    "as many names as transposed values": (
        serial(Transpose(("t",), (LANES, LANES))),
        ["2 values are transposed to 1 name"],
    ),
    "squares of powers of two": (
        serial(Transpose(("t", "u", "v"), (Splat(Literal(0.5), 3),) * 3)),
        ["3 values are no side of a square"],
    ),
    "squares": (
        serial(Transpose(("t", "u"), (LANES, Load("A", (ZERO, ZERO))))),
        ["one of 2 transposed values has 1 lane"],
    ),
    "squares of groups": (
        serial(Transpose(("t", "u"), (Load("A", (INDEX, ZERO), 4), LANES))),
        ["one of 2 transposed values has 2 lanes"],
    ),
    "squares of one dtype": (
        serial(Transpose(("t", "u"), (LANES, Cast(Vector(i64, 2), LANES)))),
        ["f32 and i64 are transposed together"],
    ),
    "transposed values have new names": (
        serial(Transpose(("t", "t"), (LANES, LANES))),
        ["t is defined twice in k"],
    ),
    "a prefetch with too few indices": (
        serial(Prefetch("A", (ZERO,))),
        ["buffer A has 2 dimensions, it is given 1 index"],
    ),
    "a prefetch of nothing": (serial(Prefetch("Q", (ZERO,))), ["there is no buffer Q here"]),
    "a stream of vectors": (
        serial(Stream("B", (ZERO,), Load("A", (INDEX, ZERO), 4), N)),
        ["a stream starts at one element, not at 4"],
    ),
    "a stream to itself": (
        serial(Stream("B", (ZERO,), Load("B", (INDEX,)), N)),
        ["B is streamed to itself"],
    ),
    "a stream to an input": (
        serial(Stream("A", (ZERO, ZERO), Load("B", (INDEX,)), N)),
        ["the buffer A is an input, it is not written"],
    ),
    "a stream of another dtype": (
        serial(
            Allocate("W", f64, (Literal(8),), "stack"), Stream("B", (ZERO,), Load("W", (ZERO,)), N)
        ),
        ["f64 is streamed to f32"],
    ),
    "a count that is no integer": (
        serial(
            Allocate("W", f32, (Literal(8),), "stack"),
            Stream("B", (ZERO,), Load("W", (ZERO,)), Literal(0.5)),
        ),
        ["the count of a stream must be an integer, it is f64"],
    ),
    "an unknown value": (
        serial(Store("B", (INDEX,), Local("x"))),
        ["the value x is not defined here"],
    ),
    "a value of an ended block": (
        function(For("i", ZERO, N, (Let("x", Literal(1.0)),)), Store("B", (ZERO,), Local("x"))),
        ["the value x is not defined here"],
    ),
    "an index after its loop": (
        function(For("i", ZERO, N, ()), Store("B", (INDEX,), Literal(1.0))),
        ["the value i is not defined here"],
    ),
    "a carried value inside its own initial one": (
        function(For("i", ZERO, N, (), carried=(Carried("x", f32, Local("x")),), yields=(ONE,))),
        ["the value x is not defined here"],
    ),
    "a name twice": (
        serial(Let("x", ONE), Let("x", ONE)),
        ["x is defined twice in k"],
    ),
    "a name twice, one after the other": (
        function(For("i", ZERO, N, ()), For("i", ZERO, N, ())),
        ["i is defined twice in k"],
    ),
    "an unknown scalar": (
        function(For("i", ZERO, Symbol("M"), ())),
        ["the kernel has no scalar M"],
    ),
    "an unknown buffer": (
        serial(Store("C", (INDEX,), Load("D", (INDEX,)))),
        ["there is no buffer C here", "there is no buffer D here"],
    ),
    "a buffer of an ended block": (
        function(For("i", ZERO, N, (Allocate("W", f32, (N,)),)), Store("W", (ZERO,), Literal(1.0))),
        ["there is no buffer W here"],
    ),
    "too few indices": (
        serial(Store("B", (INDEX,), Load("A", (INDEX,)))),
        ["buffer A has 2 dimensions, it is given 1 index"],
    ),
    "too many indices": (
        serial(Store("B", (INDEX, INDEX), Literal(1.0))),
        ["buffer B has 1 dimension, it is given 2 indices"],
    ),
    "an input that is written": (
        serial(Store("A", (INDEX, ZERO), Literal(1.0))),
        ["the buffer A is an input, it is not written"],
    ),
    "an input that is added to": (
        serial(AtomicAdd("A", (INDEX, ZERO), Literal(1.0))),
        ["the buffer A is an input, it is not written"],
    ),
    "an index that is no integer": (
        serial(Store("B", (Literal(1.5),), Load("A", (INDEX, Load("A", (INDEX, INDEX)))))),
        [
            "an index of B must be an integer, it is f64",
            "an index of A must be an integer, it is f32",
        ],
    ),
    "a bound that is no integer": (
        function(For("i", Literal(0.0), N, ())),
        ["the lower bound of i must be an integer, it is f64"],
    ),
    "an unknown operation": (
        serial(Let("x", Apply("sqroot", (INDEX,)))),
        ["unknown operation sqroot"],
    ),
    "too many arguments": (
        serial(Let("x", Apply("exp", (INDEX, INDEX)))),
        ["exp takes 1 argument, it is given 2"],
    ),
    "an operation that does not take the dtype": (
        serial(Let("x", Apply("bitand", (Load("A", (INDEX, INDEX)), ONE)))),
        ["bitand does not take f32"],
    ),
    "lanes that differ": (
        serial(Let("x", add(Load("A", (INDEX, ZERO), 8), Load("A", (INDEX, ZERO), 4)))),
        ["add takes values of 4 and 8 lanes"],
    ),
    "lanes spread again": (
        serial(Let("x", Splat(Load("A", (INDEX, ZERO), 8), 8))),
        ["only a scalar is spread over lanes"],
    ),
    "a dot of other lanes": (
        serial(Let("d", Dot(4, Splat(Cast(i32, ZERO), 8), eight_bits(4), eight_bits(16)))),
        ["dot<4> into 8 lanes takes 4 and 32 lanes, it is given 4 and 16"],
    ),
    "a dot of other dtypes": (
        serial(Let("d", Dot(4, Splat(Cast(f32, ZERO), 8), eight_bits(4), eight_bits(32)))),
        ["dot<4> does not add i8 times i8 to f32"],
    ),
    "a dot of mixed dtypes": (
        serial(Let("d", Dot(2, Splat(Cast(i32, ZERO), 8), eight_bits(2), Cast(LONG, ONES)))),
        ["dot<2> does not add i8 times bf16 to i32"],
    ),
    "lanes folded by a difference": (
        serial(Let("x", Across("sub", Load("A", (INDEX, ZERO), 8)))),
        ["lanes are not folded with sub"],
    ),
    "a cast to other lanes": (
        serial(Let("x", Cast(Vector(f32, 4), Load("A", (INDEX, ZERO), 8)))),
        ["a value of 8 lanes is cast to 4"],
    ),
    "a condition that is no bool": (
        serial(If(INDEX, ())),
        ["a condition must be a bool, it is i64"],
    ),
    "a condition of many lanes": (
        serial(If(Apply("lt", (Load("A", (INDEX, ZERO), 8), Literal(0.0))), ())),
        ["a condition must be a bool, it is bool of 8 lanes"],
    ),
    "a while that is no bool": (
        serial(While(ONE, (), (), ())),
        ["a condition must be a bool, it is i64"],
    ),
    "a check that is no bool": (
        serial(Check(INDEX, 0, Literal(0.5), N)),
        [
            "a condition must be a bool, it is i64",
            "the value that a check reports must be an integer, it is f64",
            "faults are numbered from 1",
        ],
    ),
    "too few yields": (
        function(For("i", ZERO, N, (), carried=(Carried("x", f32, Literal(0.0)),))),
        ["1 value is carried and 0 are yielded"],
    ),
    "too many yields": (
        serial(If(Apply("lt", (INDEX, N)), (), then_yields=(ONE,))),
        ["0 values are carried and 1 is yielded"],
    ),
    "an else that yields nothing": (
        serial(
            If(
                Apply("lt", (INDEX, N)),
                (),
                (Let("y", ONE),),
                (Carried("x", i64, ZERO),),
                (ONE,),
            )
        ),
        ["1 value is carried and 0 are yielded"],
    ),
    "a yield of other lanes": (
        function(
            For(
                "i",
                ZERO,
                N,
                (),
                carried=(Carried("x", f32, Literal(0.0)),),
                yields=(Load("A", (INDEX, ZERO), 8),),
            )
        ),
        ["x has 1 lane, what is yielded has 8"],
    ),
    "a first value of other lanes": (
        serial(
            While(
                Apply("lt", (INDEX, N)),
                (Carried("x", Vector(f32, 4), Load("A", (INDEX, ZERO), 8)),),
                (),
                (Local("x"),),
            )
        ),
        ["x has 4 lanes, its first value has 8"],
    ),
    "a loop of an unknown kind": (
        function(For("i", ZERO, N, (), "simd")),
        ["unknown kind of loop simd"],
    ),
    "a step of 0": (
        function(For("i", ZERO, N, (), step=0)),
        ["the step of the loop over i is 0"],
    ),
    "a parallel loop inside": (
        function(For("i", ZERO, N, (For("j", ZERO, N, (), "parallel"),))),
        ["the parallel loop over j is not alone in its function"],
    ),
    "a parallel loop beside another": (
        function(For("i", ZERO, N, (), "parallel"), Let("x", ONE)),
        ["the parallel loop over i is not alone in its function"],
    ),
    "a parallel loop from 1": (
        function(For("i", ONE, N, (), "parallel")),
        ["the parallel loop over i is not plain"],
    ),
    "a stack of unknown size": (
        serial(Allocate("W", f32, (N,), "stack")),
        ["W is on the stack, its extents must be constant"],
    ),
    "an unknown storage": (
        serial(Allocate("W", f32, (N,), "heap")),
        ["unknown storage heap"],
    ),
    "a buffer twice": (
        serial(Allocate("A", f32, (N,))),
        ["there is a buffer A already"],
    ),
    "an unknown dtype": (
        serial(Allocate("W", Scalar("f33"), (N,))),
        ["unknown dtype f33"],
    ),
    "an unknown kernel": (
        serial(CallKernel("l", ())),
        ["there is no kernel l"],
    ),
    "a call with other arguments": (
        serial(CallKernel("k", ("A",), ())),
        [
            "kernel k calls itself",
            "kernel k takes 2 buffers, it is given 1",
            "kernel k takes 1 scalar, it is given 0",
        ],
    ),
    "a buffer's role": (
        function(buffers=(replace(A, role="read"), B)),
        ["the buffer A is read"],
    ),
    "a parameter twice": (
        function(buffers=(A, A, B)),
        ["kernel k has two parameters A"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str) -> None:
    wrong, expected = FAULTS[name]
    assert messages(wrong) == expected
    with pytest.raises(EinloomError):
        verify_loops(LoopProgram((wrong,)))


def test_a_call_checks_dtypes() -> None:
    callee = function(row_sum(), name="l", buffers=(A, replace(B, dtype=i64)))
    found = messages(serial(CallKernel("l", ("A", "B"), (N,))), callee)
    assert found == ["B is f32, kernel l takes i64 there"]


def test_launches() -> None:
    sums = function(row_sum())
    assert messages(sums, sums) == ["there are two kernels k"]
    assert messages(sums, launches=(Launch("k", (N,), N, N),)) == []
    assert messages(sums, launches=(Launch("l", (N,), N, N),)) == ["there is no kernel l to launch"]
    assert messages(sums, launches=(Launch("k", (), N, N),)) == [
        "kernel k takes 1 scalar, the launch gives 0"
    ]
    assert messages(sums, launches=(Launch("k", (N,), None, N),)) == [
        "kernel k has a parallel loop"
    ]
    assert messages(function(), launches=(Launch("k", (N,), N, N),)) == [
        "kernel k has no parallel loop"
    ]
    twice = (Storage("B", f32, ()), Storage("B", f32, ()))
    assert messages(sums, storages=twice) == ["there is storage for B twice"]
    assert messages(sums, faults=(FaultSite("l", 3, "x"),)) == ["fault 3 is of no kernel: l"]


def test_all_complaints_are_collected() -> None:
    wrong = serial(
        Store("B", (INDEX,), Local("x")), Let("y", Apply("sqroot", (INDEX,))), If(INDEX, ())
    )
    with pytest.raises(ParseError) as caught:
        verify_loops(LoopProgram((wrong,)))
    assert str(caught.value) == (
        "the value x is not defined here\n"
        "unknown operation sqroot\n  hint: did you mean sqrt?\n"
        "a condition must be a bool, it is i64"
    )


def test_depth_does_not_matter() -> None:
    nest: LoopStatement = Store("B", (ZERO,), Literal(1.0))
    for k in range(5_000):
        nest = If(Literal(True), (nest,)) if k % 2 else For(f"i{k}", ZERO, N, (nest,))
    assert messages(function(nest)) == []
    deep: Expression = Load("A", (ZERO, ZERO))
    for _ in range(20_000):
        deep = Apply("neg", (deep,))
    assert messages(function(Store("B", (ZERO,), deep))) == []
    assert messages(function(Let("x", Literal(True)), If(Cast(bool_, deep), ()))) == []
