"""The text form: what is printed reads back as the same nodes, and canonical text as itself."""

from __future__ import annotations

import itertools
import pickle
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from einloom.ir.expressions import (
    Access,
    Apply,
    Cast,
    Expression,
    Index,
    Literal,
    Pack,
    Project,
    Symbol,
)
from einloom.ir.node import Node, postorder
from einloom.ir.ops import OPS, apply, is_flat
from einloom.ir.program import Einsum, Module, Reduction, Target
from einloom.ir.text import load, parse, parse_definitions, parse_expression, parse_type, show
from einloom.ir.types import Quantized, Rank, Scalar, Scale, TensorType, Tuple, f32, i64
from einloom.ir.verify import problems
from tests.ir.generate import random_module
from tests.ir.samples import AWKWARD_NAMES, COMPLEXES, FLOATS, INTEGERS

TEXTS = Path(__file__).parent / "texts"

ATTENTION = """\
# three-pass attention
program attention(Q: f32[h=8, p=256, e=64], K: f32[h=8, m=1024, e=64], \
V: f32[h=8, m=1024, f=64]) -> (AV) {
  QK[h, p, m] = Q[h, p, e] * K[h, m, e]
  GM[h, p]    = max[m] QK[h, p, m]
  SN[h, p, m] = exp(QK[h, p, m] - GM[h, p])
  SD[h, p]    = sum[m] SN[h, p, m]
  AV[h, p, f] = SN[h, p, m] / SD[h, p] * V[h, m, f]
}
"""


def read(text: str, **options: object) -> Expression:
    return parse_expression(text, symbols=("N", "M"), **options)  # type: ignore[arg-type]


def program(body: str, inputs: str = "") -> Module:
    return parse(f"program p({inputs}) -> () {{\n{body}\n}}")


def only_einsum(body: str, inputs: str = "") -> Einsum:
    (statement,) = program(body, inputs).body
    assert isinstance(statement, Einsum)
    return statement


# ---- whole programs -----------------------------------------------------------------------


def test_informal_text_prints_as_canonical_text() -> None:
    canonical = (TEXTS / "canonical.ein").read_text("utf-8")
    informal = load(TEXTS / "informal.ein")
    assert show(informal) == canonical
    assert parse(canonical) == informal


def test_attention_has_its_implicit_sums_written() -> None:
    module = parse(ATTENTION)
    assert problems(module) == []
    assert show(module).splitlines()[1:-1] == [
        "  QK[h, p, m] = sum[e] Q[h, p, e] * K[h, m, e]",
        "  GM[h, p] = max[m] QK[h, p, m]",
        "  SN[h, p, m] = exp(QK[h, p, m] - GM[h, p])",
        "  SD[h, p] = sum[m] SN[h, p, m]",
        "  AV[h, p, f] = sum[m] SN[h, p, m] / SD[h, p] * V[h, m, f]",
    ]


def check_laws(seed: int, size: int) -> Module:
    module = random_module(Random(seed), size)
    text = show(module)
    again = parse(text)
    assert again == module, text
    assert show(again) == text
    assert problems(again) == [], text  # the generator makes sound modules
    return module


def test_generated_modules_round_trip() -> None:
    kinds: set[type[Node]] = set()
    for seed in range(300):
        module = check_laws(seed, 4)
        kinds.update(type(part) for part in postorder(module))
    names = {kind.__name__ for kind in kinds}
    assert names >= {
        "Access", "Apply", "Bound", "Call", "Cast", "Constant", "Einsum", "Function", "Index",
        "Input", "Interleave", "Kernel", "Layout", "Level", "Literal", "Local", "Mapping",
        "Modular", "Module", "Monoid", "Pack", "Parameter", "Placement", "Project", "Quantized",
        "Rank", "Reduction", "Scale", "Scalar", "Scan", "Symbol", "Target", "TensorType", "Tile",
        "Tuple",
    }  # fmt: skip


@pytest.mark.deep
def test_many_generated_modules_round_trip() -> None:
    for seed in range(300, 5300):
        check_laws(seed, 2 + seed % 6)


def test_a_module_pickles_through_its_text() -> None:
    module = load(TEXTS / "informal.ein")
    assert pickle.loads(pickle.dumps(module)) == module


# ---- operators ----------------------------------------------------------------------------

INFIX = [op for op in OPS.values() if op.symbol and op.arity != 1]
PREFIX = [op for op in OPS.values() if op.symbol and op.arity == 1]
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")


def python_tree(text: str) -> Expression:
    """What Python's own parser makes of the text, as our nodes."""
    import ast

    names = {
        ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.FloorDiv: "floordiv",
        ast.Mod: "mod", ast.Pow: "pow", ast.BitAnd: "bitand", ast.BitOr: "bitor",
        ast.BitXor: "bitxor", ast.LShift: "shl", ast.RShift: "shr", ast.And: "and", ast.Or: "or",
        ast.USub: "neg", ast.Invert: "bitnot", ast.Not: "not", ast.Eq: "eq", ast.NotEq: "ne",
        ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge",
    }  # fmt: skip

    def build(tree: ast.expr) -> Expression:
        match tree:
            case ast.Name(id=name):
                return Access(name)
            case ast.BinOp(left=left, op=op, right=right):
                return apply(names[type(op)], build(left), build(right))
            case ast.BoolOp(op=op, values=values):
                return apply(names[type(op)], *map(build, values))
            case ast.UnaryOp(op=op, operand=operand):
                return apply(names[type(op)], build(operand))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return apply(names[type(op)], build(left), build(right))
        raise AssertionError(ast.dump(tree))

    return build(ast.parse(text, mode="eval").body)


def test_operators_bind_as_in_python() -> None:
    symbols = [op.symbol for op in INFIX]
    for first, second in itertools.product(symbols, repeat=2):
        if first in COMPARISONS and second in COMPARISONS:
            continue  # they do not chain here
        text = f"a {first} b {second} c"
        assert read(text) == python_tree(text), text
        for prefix in ("-", "~"):
            for text in (f"{prefix} a {first} b {second} c", f"a {first} {prefix} b {second} c"):
                assert read(text) == python_tree(text), text
        text = f"not a {first} b {second} c"
        assert read(text) == python_tree(text), text
    for symbol in ("and", "or"):
        text = f"a {symbol} not b {symbol} not not c"
        assert read(text) == python_tree(text)


def test_every_operator_inside_every_other_keeps_its_place() -> None:
    a, b, c = (Access(name, (Index("i"),)) for name in "abc")
    leaves: list[Expression] = [
        a, Literal(2), Literal(-2), Literal(-0.0), Literal(2.5), Literal(-2j), Literal(True),
        Literal(complex(-1, 2)), Symbol("N"), Index("i"), Pack((a, b)), Pack((a,)), Pack(()),
        Cast(f32, a), Cast(Tuple((f32, i64)), a), Project(a, 0), Project(Literal(3), 1),
        Project(Pack((a,)), 12), apply("exp", a), apply("max", a, b, c),
        Access("a", (), Literal(-1.0)), Access("a", (Index("i"),), None, "final"),
    ]  # fmt: skip
    inner = [Apply(op.name, (b, c)) for op in INFIX]
    inner += [Apply(op.name, (a, b, c)) for op in INFIX if op.arity is None]
    inner += [Apply(op.name, (leaf,)) for op in PREFIX for leaf in (b, Literal(1.0), Literal(-1))]
    inner += [Apply("select", (a, b, c)), Apply("ceildiv", (a, b))]
    count = 0
    for part in (*leaves, *inner):
        wholes: list[Expression] = [Apply(op.name, (part,)) for op in PREFIX]
        for op in INFIX:
            wholes += [apply(op.name, a, part), apply(op.name, part, a), apply(op.name, part, part)]
        wholes += [Cast(f32, part), Project(part, 0), Pack((part, a)), Apply("exp", (part,))]
        for whole in wholes:
            text = show(whole)
            assert read(text) == whole, text
            assert show(read(text)) == text
            count += 1
    assert count > 4000


def test_indices_of_every_shape_keep_their_place() -> None:
    i, n = Index("i"), Symbol("N")
    ops = ("add", "sub", "mul", "floordiv", "mod", "ceildiv", "max")
    parts: list[Expression] = [i, n, Literal(2), Literal(-1), Access("t", (i,)), Apply("neg", (i,))]
    parts += [apply(op, x, y) for op in ops for x, y in ((i, n), (Literal(3), i))]
    for op, x, y in itertools.product(ops, parts, parts):
        whole = Access("A", (apply(op, x, y), i))
        text = show(whole)
        assert read(text) == whole, text
        assert show(read(text)) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("A[t + 1, 2*p+r-1]", "A[t+1, 2*p + r - 1]"),
        ("A[i - j + 1]", "A[i-j+1]"),
        ("A[(i+1) // 2 % 3, -i]", "A[(i+1)//2%3, -i]"),
        ("A[ceil(N / (i + 1))]", "A[ceil(N/(i+1))]"),
        ("A[idx[t], iota(i)]", "A[idx[t], i]"),
        ("iota(2*i + N) * 1.50", "(2 * iota(i) + N) * 1.5"),
        ("-1.0", "-1.0"),
        ("-(1.0)", "-(1.0)"),
        ("- - 1", "--1"),
        ("-x ** -2", "-x[] ** -2"),
        ("(-2) ** 2", "(-2) ** 2"),
        ("(((x)))", "x[]"),
        ("a - (b - c) - d", "a[] - (b[] - c[]) - d[]"),
        ("a * (b * c)", "a[] * b[] * c[]"),
        ("(a, b).1.0", "(a[], b[]).1.0"),
        ("X ?( -inf ) [i-1]", "X?(-inf)[i-1]"),
        ("final(RM)[p] + final(S)", "final(RM)[p] + final(S)[]"),
        ("codes(N)[N, i]", "codes(N)[N, i]"),
        ("ceil(x / 2) + ceildiv(a, b)", "ceil(x[] / 2) + ceildiv(a[], b[])"),
        ("0x1F + 1e3 + 1. + True", "31 + 1000.0 + 1.0 + True"),
    ],
)
def test_canonical_expressions(text: str, canonical: str) -> None:
    assert show(read(text)) == canonical
    assert show(read(canonical)) == canonical


# ---- literals, names, types ---------------------------------------------------------------


def bits(value: object) -> object:
    if isinstance(value, complex):
        return "complex", struct.pack("<dd", value.real, value.imag)
    if isinstance(value, float):
        return "float", struct.pack("<d", value)
    return type(value).__name__, value


def test_literals_keep_kind_and_bits() -> None:
    rng = Random(5)
    values: list[object] = [*FLOATS, *INTEGERS, *COMPLEXES, True, False]
    values += [-x for x in (*INTEGERS, *COMPLEXES)]
    values += [complex(a, b) for a in FLOATS for b in FLOATS]
    values += [struct.unpack("<d", rng.randbytes(8))[0] for _ in range(2000)]
    for value in values:
        literal = Literal(value)  # type: ignore[arg-type]
        for expression in (literal, Apply("neg", (literal,)), Apply("pow", (literal, literal))):
            assert read(show(expression)) == expression
        again = read(show(literal))
        assert isinstance(again, Literal)
        assert bits(again.value) == bits(value)


@pytest.mark.parametrize("text", ["0.1", "1e22", "123456789.123456789", "5e-324", "1.7e308"])
def test_numbers_read_as_in_python(text: str) -> None:
    assert read(text) == Literal(float(text))


@pytest.mark.parametrize("name", AWKWARD_NAMES)
def test_awkward_names_stand_everywhere(name: str) -> None:
    i = Index(name)
    ranks = (Rank(name, Literal(3)),)
    type_ = TensorType(f32, ranks)
    statement = Einsum(
        (Target(name, type_),), (i,), Access(name, (i, Index("j"))), (Reduction("sum", ("j",)),)
    )
    module = parse("program p() -> () {\n  " + show(statement).replace("\n", "\n  ") + "\n}\n")
    assert module.body == (statement,)


def test_names_are_quoted_only_where_they_must_be() -> None:
    bare = ["A", "_x1", "λ", "变量", "e\u0301", "call", "scan", "kernel", "f32", "extent", "iota"]
    quoted = ["if", "max", "1a", "a b", "²", "a`b"]
    assert [show(Access(name)) for name in bare] == [f"{name}[]" for name in bare]
    assert all(show(Access(name)).startswith("`") for name in quoted)
    assert show(Access("a`b\\\n")) == "`a\\`b\\\\\\u000a`[]"


def test_a_monoid_of_the_text_reserves_its_name_in_that_text_only() -> None:
    text = (
        "monoid m: f32 {\n  identity 0.0\n  combine(a, b) = a + b\n}\n\n"
        "program p(`m`: f32[i=3]) -> (S) {\n  S[] = m[i] `m`[i]\n}\n"
    )
    assert show(parse(text)) == text
    assert show(program("S = m[0]", "m: f32[i=3]")).splitlines()[1] == "  S[] = m[0]"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("f32", "f32[]"),
        ("f32[i=N,j=ceil( N / 4 )]", "f32[i=N, j=ceil(N/4)]"),
        ("f64[i=N, j=8] (csr)", "f64[i=N, j=8] (dense, compressed)"),
        ("f64[i=N, j=8] (dcsr)", "f64[i=N, j=8] (compressed, compressed)"),
        ("f64[i=2, j=2, k=2](coo)", "f64[i=2, j=2, k=2] (compressed, singleton, singleton)"),
        ("f64[i=2, j=2, k=2](csf)", "f64[i=2, j=2, k=2] (compressed, compressed, compressed)"),
        ("u8[i=4, j=2](bcsr<4x1>)", "u8[i=4, j=2] (dense, compressed, block<4>, block<1>)"),
        ("f16[i=N](nm<2:4>) fill -inf enc", "f16[i=N] (nm<2:4>) fill -inf enc"),
        ("(f32, (i64,), zq< 17 >)[]", "(f32, (i64,), zq<17>)[]"),
        ("q<i4|e2m1, scale=f16@1x32, scale=f32, offset=i8, select=1x32>[i=N, j=M]",
         "q<i4|e2m1, scale=f16@1x32, scale=f32, offset=i8, select@1x32>[i=N, j=M]"),
        ("q<table(0, -1.5), scale=bf16@*x8>[i=4, j=8]",
         "q<table(0, -1.5), scale=bf16@*x8>[i=4, j=8]"),
    ],
)  # fmt: skip
def test_canonical_types(text: str, canonical: str) -> None:
    assert show(parse_type(text)) == canonical
    assert parse_type(canonical) == parse_type(text)


def test_a_quantized_dtype_reads_as_its_parts() -> None:
    dtype = parse_type("q<i4|table(0.0), scale=f16@1x*, offset=i8, select@2x2>").dtype
    assert dtype == Quantized(
        ("i4", "table"), (Literal(0.0),), (Scale(Scalar("f16"), (1, 0)),), Scale(Scalar("i8")),
        (2, 2),
    )  # fmt: skip


# ---- statements ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reductions"),
    [
        ("C[i, k] = A[i, j] * B[j, k]", ["sum[j]"]),
        ("C = A[i, j] / B[j, k] * 2", ["sum[i, j, k]"]),
        ("C[i] = A[i, j]", ["sum[j]"]),
        ("C[i] = exp(A[i, k]) * -B[j]", ["sum[k, j]"]),
        ("C[i] = A[i + j] * B[idx[k], j]", ["sum[j, k]"]),
        ("C[i] = A[j + idx[k]]", ["sum[j, k]"]),
        ("C[2*i] = A[i]", []),
        ("C[i, i] = A[i]", []),
        ("C[i] = A[i] if B[i, j] > 0", ["sum[j]"]),
        ("C[i] = max[j] sum:i32[k, l] A[i, j, k, l]", ["max[j]", "sum:i32[k, l]"]),
        ("C = 1 * 2", []),
    ],
)
def test_implicit_reducers(text: str, reductions: list[str]) -> None:
    assert [show(x) for x in only_einsum(text).reductions] == reductions


def test_scan_indices_are_not_summed() -> None:
    module = program("scan t < 3 from { S[0] = A[t] } { S[t+1] = S[t] * A[t] }")
    lines = [line.strip() for line in show(module).splitlines()]
    # in the from block the index of the scan is not yet bound
    assert lines[2] == "S[0] = sum[t] A[t]"
    assert lines[4] == "S[t+1] = S[t] * A[t]"


def test_bare_names_in_conditions() -> None:
    statement = only_einsum("Y[i] = A[i] * S if i < N and S > 0 and `i` < S[]", "A: f32[i=N]")
    assert statement.condition == apply(
        "and",
        Apply("lt", (Index("i"), Symbol("N"))),
        Apply("gt", (Access("S"), Literal(0))),
        Apply("lt", (Index("i"), Access("S"))),
    )
    assert show(statement).endswith(" if i < N and S[] > 0 and i < S[]")
    explicit = only_einsum("Y[i] = A[i] if i[] > 0")
    assert explicit.condition == Apply("gt", (Access("i"), Literal(0)))
    assert show(explicit).endswith(" if i[] > 0")


def test_separators_comments_and_line_ends() -> None:
    expected = program("A = 1\nB = A\nC = B")
    for text in (
        "A = 1; B = A; C = B;",
        ";;A = 1;\n;B = A # ; comment }\n\n\n  C = B",
        "A = 1\r\nB = A\r\nC = B\r\n",
        "A = 1\rB = A\rC = B",
        "\tA\t=\t1\n\tB = A\n\f\tC = B",
        "A =\n 1\nB\n= A\nC = (\nB\n)",
        "# é\nA = 1 # max[\nB = A\nC = B",
    ):
        assert program(text) == expected, text
    assert parse("\ufeff" + show(expected)) == expected
    assert parse(show(expected).encode()) == expected


def test_statements_go_on_after_an_operator_and_before_one() -> None:
    text = "C[i] = A[i] +\n  B[i]\n  * 2\n  where i < 3\n  if i\n    > 1"
    assert program(text) == program("C[i] = A[i] + B[i] * 2 where i < 3 if i > 1")


def test_definitions_alone() -> None:
    text = "fn f(x: f32, y) = x + y"
    (definition,) = parse_definitions(text)
    assert show(definition) == text
    assert parse_definitions("") == ()


# ---- locations ----------------------------------------------------------------------------


def test_locations_cover_what_they_are_of() -> None:
    line = "C[i] = max[j] A[i, j] + exp(A[i, j]) * 2 if i < 3"
    text = f"program p(A: f32[i=N, j=M]) -> (C) {{\n  {line}\n}}\n"
    module = parse(text)
    covered = {}
    for part in postorder(module):
        if part.location is not None:
            assert part.location.source.text == text
            covered[text[part.location.start : part.location.end]] = type(part).__name__
    assert covered["A[i, j] + exp(A[i, j]) * 2"] == "Apply"
    assert covered["exp(A[i, j]) * 2"] == "Apply"
    assert covered["A[i, j]"] == "Access"
    assert covered["max[j]"] == "Reduction"
    assert covered[line] == "Einsum"
    assert covered["i < 3"] == "Apply"


# ---- size ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000 + "a" + ")" * 5000,
        "-" * 5000 + "a",
        "not " * 5000 + "a",
        "a ** " * 5000 + "a",
        "a - " * 5000 + "a",
        "a - (" * 5000 + "a" + ")" * 5000,
        "exp(" * 5000 + "a" + ")" * 5000,
        "f32(" * 5000 + "a" + ")" * 5000,
        "A[" * 5000 + "i" + "]" * 5000,
        "A[i" + " + 1 - 2*i" * 5000 + "]",
        "(" * 5000 + "a" + ",)" * 5000,
        "a" + ".0" * 5000,
        "select(a, b, " * 5000 + "c" + ")" * 5000,
    ],
    ids=lambda text: text[:12],
)
def test_deep_expressions(text: str) -> None:
    deep = read(text)
    assert read(show(deep)) == deep


def test_deep_types_and_deep_scans() -> None:
    type_ = parse_type("(" * 5000 + "f32" + ",)" * 5000)
    assert parse_type(show(type_)) == type_
    module = program("scan t < 2 from { S[0] = 1 } {\n" * 300 + "A = 1\n" + "}\n" * 300)
    assert parse(show(module)) == module


def test_wide_product() -> None:
    count = 20_000
    inputs = ", ".join(f"A{k}: f32[i=8]" for k in range(count))
    body = "Y[] = sum[i] " + " * ".join(f"A{k}[i]" for k in range(count))
    text = f"program p({inputs}) -> (Y) {{\n  {body}\n}}\n"
    module = parse(text)
    (statement,) = module.body
    assert isinstance(statement, Einsum) and isinstance(statement.body, Apply)
    assert statement.body.op == "mul" and len(statement.body.arguments) == count
    assert is_flat("mul")
    assert show(module) == text


# ---- house rules --------------------------------------------------------------------------


def test_importing_the_text_form_does_not_import_lark() -> None:
    code = "import sys, einloom.ir.text; sys.exit('lark' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_threads_parse_at_the_same_time() -> None:
    modules = [random_module(Random(seed), 2) for seed in range(24)]
    texts = [show(module) for module in modules]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(parse, texts)) == modules
