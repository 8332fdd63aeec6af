"""The text form of loops: what is printed reads back as the same nodes, for every node."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from einloom.ir import loops
from einloom.ir.errors import EinloomError
from einloom.ir.expressions import Apply, Cast, Expression, Literal, Local, Symbol
from einloom.ir.loops import (
    Across,
    Allocate,
    Append,
    AtomicAdd,
    Buffer,
    CallKernel,
    Carried,
    Check,
    Dot,
    FaultSite,
    For,
    HashInsert,
    HashLookup,
    If,
    Launch,
    Let,
    Load,
    LoopFunction,
    LoopProgram,
    LoopStatement,
    PackPanel,
    Prefetch,
    Search,
    Splat,
    Storage,
    Store,
    Stream,
    TileMultiply,
    Transpose,
    Vector,
    While,
)
from einloom.ir.node import Node, postorder
from einloom.ir.text import parse, parse_loops, show
from einloom.ir.types import Modular, Tuple, bf16, f32, f64, i64
from einloom.ir.verify import loop_problems, verify_loops
from einloom.passes.lowering import lower
from tests.differential.templates import TEMPLATES
from tests.ir.generate_loops import random_loops
from tests.ir.samples import AWKWARD_NAMES

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "loops_matmul.txt"

N, ROW, COLUMN = Symbol("N"), Local("i"), Local("j")
ZERO, ONE, HALF = Literal(0), Literal(1), Literal(0.5)


def op(name: str, *arguments: Expression) -> Apply:
    return Apply(name, arguments)


def body_of(text: str) -> tuple[LoopStatement, ...]:
    """The statements of a kernel whose only scalar is N."""
    return parse_loops(f"kernel k(; N) {{\n{text}\n}}").functions[0].body


def value_of(text: str) -> Expression:
    (statement,) = body_of(f"let value = {text}")
    assert isinstance(statement, Let)
    return statement.value


def check_laws(program: LoopProgram) -> str:
    text = show(program)
    read = parse_loops(text)
    assert read == program, text
    assert show(read) == text
    return text


# ---- laws ---------------------------------------------------------------------------------


def check_generated(seeds: range) -> list[LoopProgram]:
    programs = [random_loops(Random(seed)) for seed in seeds]
    for program in programs:
        assert loop_problems(program) == []
        check_laws(program)
    return programs


def test_generated_programs_round_trip() -> None:
    programs = check_generated(range(200))
    parts = [part for program in programs for part in postorder(program)]
    classes = [value for value in vars(loops).values() if isinstance(value, type)]
    nodes = {x for x in classes if issubclass(x, Node) and x.__module__ == loops.__name__}
    assert len(nodes) == 31
    assert nodes - {type(part) for part in parts} == {LoopStatement}  # the base class
    assert {part.kind for part in parts if isinstance(part, For)} == {
        "serial", "parallel", "vector", "unroll",
    }  # fmt: skip
    assert {part.step for part in parts if isinstance(part, For)} == {1, 4, -1}
    assert {part.role for part in parts if isinstance(part, Buffer)} == {"in", "out", "inout"}
    assert {part.storage for part in parts if isinstance(part, Allocate)} == {
        "stack", "workspace", "growable",
    }  # fmt: skip


@pytest.mark.deep
def test_many_generated_programs_round_trip() -> None:
    check_generated(range(200, 5200))


LOWERED = [
    pytest.param(case.text.replace("{T}", dtype), id=f"{case.form}-{k}-{dtype}")
    for k, case in enumerate(TEMPLATES)
    for dtype in case.dtypes[:1] + case.dtypes[-1:]
] + [
    pytest.param(path.read_text(encoding="utf-8"), id=path.stem)
    for path in sorted((ROOT / "examples").glob("*.ein"))
]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("program", LOWERED)
def test_lowered_programs_round_trip(program: str, strict: bool) -> None:
    lowered = lower(parse(program), strict=strict)
    text = check_laws(lowered)
    verify_loops(parse_loops(text))
    assert (") strict {" in text) == strict


def test_matmul(update_golden: bool) -> None:
    """A file that shows what people read: two products, one of them with a check."""
    program = parse(
        "program product(A: f32[i=I, j=J], B: f32[j=J, k=K], rows: i64[t=T]) -> (C, R) {\n"
        "  C[i, k] = sum[j] A[i, j] * B[j, k]\n"
        "  R[t] = sum[k] C[rows[t], k]\n"
        "}\n"
    )
    text = check_laws(lower(program))
    if update_golden:
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


# ---- the spelling of every node -----------------------------------------------------------

A, B = Load("A", (ROW, COLUMN)), Load("B", (COLUMN,), 16)
NESTED = op("add", op("add", ROW, COLUMN), op("add", ONE, N))

STATEMENTS: list[tuple[LoopStatement, str]] = [
    (Let("x", A), "let x = A[i, j]"),
    (
        Transpose(("t", "u"), (Splat(HALF, 2), Local("v"))),
        "transpose (t, u) = (splat<2>(0.5), v)",
    ),
    (Store("transpose", (ROW,), HALF), "transpose[i] = 0.5"),
    (
        Stream("A", (ROW, op("add", COLUMN, ONE)), Load("B", (COLUMN,)), op("add", N, ONE)),
        "stream A[i, j + 1] = B[j], N + 1",
    ),
    (Store("stream", (ROW,), HALF), "stream[i] = 0.5"),
    (Prefetch("A", (ROW, COLUMN)), "prefetch A[i, j]"),
    (Prefetch("A", (ROW, op("add", COLUMN, ONE)), "out"), "prefetch A[i, j + 1] out"),
    (Store("prefetch", (ROW,), HALF), "prefetch[i] = 0.5"),
    (Store("A", (), HALF), "A[] = 0.5"),
    (Store("A", (op("add", op("mul", ROW, Literal(4)), ONE), COLUMN), HALF), "A[i*4 + 1, j] = 0.5"),
    (Store("A", (op("ceildiv", ROW, Literal(4)),), HALF), "A[ceildiv(i, 4)] = 0.5"),
    (Allocate("W", f32, (N, op("mul", N, ROW))), "alloc W: f32[N, N*i] workspace"),
    (Allocate("W", Modular(17), (Literal(4),), "stack"), "alloc W: zq<17>[4] stack"),
    (Allocate("W", f64, (), "growable"), "alloc W: f64[] growable"),
    (
        Check(op("and", op("ge", ROW, ZERO), op("lt", ROW, N)), 1, ROW, N),
        "check i >= 0 and i < N, fault 1 (i, N)",
    ),
    (CallKernel("k1", ("A", "B"), (N, ONE)), "call kernel k1(A, B; N, 1)"),
    (CallKernel("k1", ("A",)), "call kernel k1(A)"),
    (CallKernel("k1", (), (N,)), "call kernel k1(; N)"),
    (Append("A", op("add", ROW, ONE)), "append A, i + 1"),
    (HashInsert("A", ROW, HALF, "max"), "hash insert A[i] max= 0.5"),
    (HashInsert("A", ROW, HALF, "and"), "hash insert A[i] and= 0.5"),
    (AtomicAdd("A", (ROW, COLUMN), HALF), "atomic A[i, j] += 0.5"),
    (
        TileMultiply((16, 8, 4), (f32, bf16, Tuple((f32,))), A, B, Load("C", ())),
        "mma<16,8,4,f32,bf16,(f32,)> A[i, j] += B<16>[j] * C[]",
    ),
    (PackPanel("P", A, Literal(64), N, 16), "pack P = A[i, j] block (64, N) panel<16>"),
    (For("i", ZERO, N, ()), "for i in 0 .. N {\n}"),
    (For("i", ZERO, N, (), "parallel"), "for parallel i in 0 .. N {\n}"),
    (For("i", ONE, op("add", N, ONE), (), "vector", 16), "for vector i in 1 .. N + 1 step 16 {\n}"),
    (For("i", ZERO, N, (), "unroll", -2), "for unroll i in 0 .. N step -2 {\n}"),
    (
        For(
            "i", ZERO, N, (Let("x", A),), "serial", 2,
            (Carried("c", f32, HALF), Carried("v", Vector(f32, 8), Splat(HALF, 8))),
            (Local("x"), Local("v")),
        ),
        "for i in 0 .. N step 2 carry (c: f32 = 0.5, v: f32x8 = splat<8>(0.5)) {\n"
        "  let x = A[i, j]\n"
        "  yield x, v\n"
        "}",
    ),
    (While(op("not", Local("done")), (), (), ()), "while not done {\n}"),
    (
        While(op("lt", ROW, N), (Carried("i", i64, ZERO),), (), (op("add", ROW, ONE),)),
        "while i < N carry (i: i64 = 0) {\n  yield i + 1\n}",
    ),
    (If(Local("c"), (Let("x", ROW),)), "if c {\n  let x = i\n}"),
    (If(Local("c"), (), (Let("x", ROW),)), "if c {\n} else {\n  let x = i\n}"),
    (
        If(Local("c"), (), (), (Carried("r", f32, HALF),), (ONE,), (ZERO,)),
        "if c carry (r: f32 = 0.5) {\n  yield 1\n} else {\n  yield 0\n}",
    ),
    (
        If(Local("c"), (If(Local("d"), ()), Let("x", ROW), If(Local("e"), ()))),
        "if c {\n  if d {\n  }\n  let x = i\n  if e {\n  }\n}",
    ),
]  # fmt: skip

VALUES: list[tuple[Expression, str]] = [
    (B, "B<16>[j]"),
    (Load("T.0", (ROW,)), "`T.0`[i]"),
    (Load("zq", (ROW,), 8), "`zq`<8>[i]"),
    (Splat(op("add", ROW, ONE), 4), "splat<4>(i + 1)"),
    (Dot(4, Local("s"), Local("a"), B), "dot<4>(s, a, B<16>[j])"),
    (op("lt", Local("dot"), ROW), "dot < i"),
    (Across("add", Local("v")), "across add(v)"),
    (Across("and", Local("v")), "across and(v)"),
    (Search("A", ZERO, N, ROW), "search(A, 0, N, i)"),
    (HashLookup("A", ROW, HALF), "hash lookup(A, i, 0.5)"),
    (op("add", HashLookup("A", ROW, ONE), Local("hash")), "hash lookup(A, i, 1) + hash"),
    (Cast(f32, ROW), "f32(i)"),
    (Cast(Vector(f32, 16), B), "f32x16(B<16>[j])"),
    (Cast(Vector(Modular(5), 4), ROW), "cast[zq<5>x4](i)"),
    (op("max", op("max", ROW, COLUMN), N), "max(max(i, j), N)"),
    (NESTED, "(i + j) + (1 + N)"),
    (op("add", ROW, COLUMN, ONE), "i + j + 1"),
    (op("sub", NESTED, ROW), "(i + j) + (1 + N) - i"),
    (op("add", op("sub", ROW, COLUMN), ONE), "i - j + 1"),
    (op("mul", op("mul", ROW, COLUMN), N), "(i * j) * N"),
    (op("and", op("and", ROW, COLUMN), N), "(i and j) and N"),
    (Load("A", (NESTED,)), "A[(i + j) + (1 + N)]"),
    (Load("A", (op("mul", op("mul", ROW, COLUMN), N),)), "A[(i*j)*N]"),
    (Load("A", (op("sub", op("add", ROW, COLUMN), ONE),)), "A[i + j - 1]"),
    (Load("A", (Cast(i64, op("ceil", op("div", ROW, N))),)), "A[i64(ceil(i/N))]"),
    (op("ceil", op("div", ROW, N)), "ceil(i / N)"),
    (op("ceildiv", ROW, N), "ceildiv(i, N)"),
    (op("lt", ROW, op("shr", Literal(16), ONE)), "i < 16 >> 1"),
    (op("lt", Local("splat"), Local("across")), "splat < `across`"),
    (Literal(-0.0), "-0.0"),
    (op("neg", Literal(1.0)), "-(1.0)"),
]


@pytest.mark.parametrize(("statement", "text"), STATEMENTS, ids=[text for _, text in STATEMENTS])
def test_statements(statement: LoopStatement, text: str) -> None:
    assert str(statement) == text
    assert body_of(text) == (statement,)


@pytest.mark.parametrize(("value", "text"), VALUES, ids=[text for _, text in VALUES])
def test_values(value: Expression, text: str) -> None:
    assert str(Let("x", value)) == f"let x = {text}"
    assert value_of(text) == value


PROGRAM = LoopProgram(
    (
        LoopFunction(
            "k", (
                Buffer("x", f32, (None, -4, 0)), Buffer("y", Tuple((f32, i64)), (), "out", False),
                Buffer("z", Vector(f32, 8), (32,), "inout"),
            ), ("N", "work"), (Let("v", op("add", N, Symbol("work"), Local("slices"))),), False,
        ),
        LoopFunction("empty", (), (), ()),
    ),
    (Storage("T", f32, (N, op("ceildiv", N, Literal(4)))), Storage("S.steps", i64, ())),
    (
        Launch("k", (N, Symbol("work")), N, op("mul", Literal(2), N, N)),
        Launch("empty", (), None, ONE),
    ),
    (FaultSite("k", 1, 'index "i"\nλ'),),
)  # fmt: skip

TEXT = """\
kernel k(in x: f32[?, -4, 0], out y: (f32, i64)[] unaligned, inout z: f32x8[32]; N, `work`) strict {
  let v = N + `work` + `slices`
}

kernel empty() {
}

storage T: f32[N, ceil(N/4)]
storage `S.steps`: i64[]

launch k(N, `work`) slices N work 2*N*N
launch empty() work 1

fault k 1 "index \\"i\\"\\n\\u03bb"
"""


def test_program() -> None:
    assert show(PROGRAM) == TEXT
    assert parse_loops(TEXT) == PROGRAM
    assert pickle.loads(pickle.dumps(PROGRAM)) == PROGRAM
    assert show(LoopProgram(())) == "" and parse_loops("") == LoopProgram(())


def test_parts_print_alone() -> None:
    function = PROGRAM.functions[0]
    first, second, _ = function.buffers
    assert str(function) == TEXT.partition("\n\n")[0]
    assert str(first) == "in x: f32[?, -4, 0]"
    assert str(second) == "out y: (f32, i64)[] unaligned"
    assert str(PROGRAM.launches[1]) == "launch empty() work 1"
    assert str(PROGRAM.storages[1]) == "storage `S.steps`: i64[]"
    assert str(Carried("c", f32, HALF)) == "c: f32 = 0.5"
    assert str(Vector(f32, 16)) == "f32x16"
    assert str(op("add", A, ONE)) == "A[i, j] + 1"
    assert repr(B) == "<Load B<16>[j]>"


@pytest.mark.parametrize("name", [*AWKWARD_NAMES, "in", "step", "carry", "else", "let", "T.0"])
def test_awkward_names_stand_everywhere(name: str) -> None:
    value = op("add", Local(name), Load(name, (Local(name),)), Load(name, (ZERO,), 4))
    loop = For(
        name, Local(name), Local(name), (Let(name, value), Store(name, (Local(name),), value)),
        "vector", 1, (Carried(name, f32, Local(name)),), (Local(name),),
    )  # fmt: skip
    body = (
        loop, Allocate(name, f32, (Local(name),)), Append(name, value), While(value, (), (), ()),
        If(Local(name), (), (Store(name, (), value),)), Store(name, (), value),
        Check(Local(name), 1, Local(name), Local(name)), CallKernel(name, (name,), (Local(name),)),
        Let("x", Search(name, Local(name), value, HashLookup(name, value, value))),
        Let("y", op("lt", Local(name), op("shr", Literal(8), Local(name)))),
    )  # fmt: skip
    symbol = Symbol(name)
    for scalars in ((), (name,)):
        statements = (Let("z", symbol if scalars else Local(name)),)
        check_laws(
            LoopProgram(
                (LoopFunction(name, (Buffer(name, f32, ()),), scalars, body * (not scalars)),
                 LoopFunction("k", (), scalars, statements)),
                (Storage(name, f32, (symbol,)),), (Launch(name, (symbol,), symbol, symbol),),
                (FaultSite(name, 1, name),),
            )
        )  # fmt: skip


def test_only_the_scalars_of_a_kernel_are_symbols() -> None:
    text = "kernel a(; N) {\n  let x = N + M\n}\n\nkernel b(; M) {\n  let x = N + M\n}\n"
    first, second = (function.body[0] for function in parse_loops(text).functions)
    assert first == Let("x", op("add", Symbol("N"), Local("M")))
    assert second == Let("x", op("add", Local("N"), Symbol("M")))
    (launch,) = parse_loops("launch a(N) work M").launches
    assert launch == Launch("a", (Symbol("N"),), None, Symbol("M"))


# ---- what people may write ----------------------------------------------------------------


def test_informal_text_prints_as_canonical_text() -> None:
    informal = """
    # launches may stand first
    launch k ( ceil( N / 8 ) ) work N
    kernel k (in A : f32[ ? ], out B: f32[4] ;
              N, M)
    {
      for serial i in 0..N { B [i] = A[i] +
          1 ; let x = 2 }
      if (N < 3) { }
      else { alloc W: f32[ 4 ] stack }   # behind a block
      for j in 0 .. ((N)) step 1 { let y = A< 4 >[j]; if N < M { } }

    }
    storage B : f32[N]
    """
    canonical = """\
kernel k(in A: f32[?], out B: f32[4]; N, M) {
  for i in 0 .. N {
    B[i] = A[i] + 1
    let x = 2
  }
  if N < 3 {
  } else {
    alloc W: f32[4] stack
  }
  for j in 0 .. N {
    let y = A<4>[j]
    if N < M {
    }
  }
}

storage B: f32[N]

launch k(ceil(N/8)) work N
"""
    assert show(parse_loops(informal)) == canonical
    assert parse_loops(informal.replace("\n", "\r\n").encode()) == parse_loops(canonical)


def test_deep_nesting() -> None:
    depth = 1000
    inner: tuple[LoopStatement, ...] = (Store("A", (ROW,), ROW),)
    for k in range(depth):
        kind = k % 3
        if kind == 0:
            inner = (For(f"i{k}", ZERO, N, inner),)
        elif kind == 1:
            inner = (While(Local("c"), (), inner, ()),)
        else:
            inner = (If(Local("c"), (), inner),)
    chain: Expression = ROW
    for _ in range(5000):
        chain = Load("A", (op("add", op("add", chain, ONE), ONE),))
    statements = (*inner, Let("x", chain))
    text = check_laws(LoopProgram((LoopFunction("k", (), ("N",), statements),)))
    assert "\n" + "  " * (depth + 1) + "A[i] = i\n" in text


def test_locations() -> None:
    text = "kernel k(out A: f32[4]; N) {\n  for i in 0 .. N {\n    A[i] = x + B[i]\n  }\n}\n"
    with pytest.raises(EinloomError) as caught:
        verify_loops(parse_loops(text, "k.loops"))
    assert str(caught.value) == (
        "k.loops:3:12: the value x is not defined here\n"
        "      A[i] = x + B[i]\n"
        "             ^\n"
        "k.loops:3:16: there is no buffer B here\n"
        "      A[i] = x + B[i]\n"
        "                 ^^^^"
    )


def test_programs_are_read_without_the_nodes_of_loops() -> None:
    code = (
        "import sys; from einloom.ir.text import parse, show\n"
        "show(parse('program p(A: f32[i=N]) -> (B) { B[i] = A[i] + 1 }'))\n"
        "assert 'einloom.ir.loops' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
