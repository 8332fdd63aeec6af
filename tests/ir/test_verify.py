"""The verifier of the program level: every rule with its exact message, place and suggestion.

`verifier/*.txt` holds programs and what is said about them; `pytest --update-golden` rewrites
the messages. What the parser refuses before the verifier sees it is built by hand here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from einloom.ir.errors import DTypeError, EinloomError, ParseError, ShapeError
from einloom.ir.expressions import Access, Apply, Cast, Expression, Index, Literal, Local, Symbol
from einloom.ir.infer import infer
from einloom.ir.node import postorder, rebuild
from einloom.ir.program import (
    Call,
    Constant,
    Einsum,
    Function,
    Input,
    Module,
    Monoid,
    Parameter,
    Reduction,
    Scan,
    Target,
)
from einloom.ir.text import parse
from einloom.ir.types import Modular, Quantized, Rank, Scalar, TensorType, Tuple, f32, i64
from einloom.ir.verify import problems, verify
from einloom.ir.verify.parts import Parts
from einloom.ir.verify.program import DECLARATIONS, STRUCTURE, TYPED
from tests.ir.generate import random_module

FOLDER = Path(__file__).parent / "verifier"
FILES = sorted(FOLDER.glob("*.txt"))


def cases(path: Path) -> list[tuple[str, str, str]]:
    """Name, program and expected message of each case of a file."""
    found = []
    for part in path.read_text(encoding="utf-8").split("=== ")[1:]:
        name, _, rest = part.partition("\n")
        program, _, expected = rest.partition("--- ")
        found.append((name, program, expected.rstrip("\n")))
    return found


def message_of(module: Module) -> str:
    with pytest.raises(EinloomError) as caught:
        verify(module)
    return f"{type(caught.value).__name__}\n{caught.value}"


CASES = [
    pytest.param(program, expected, id=f"{path.stem}: {name}")
    for path in FILES
    for name, program, expected in cases(path)
]


@pytest.mark.parametrize(("program", "expected"), CASES)
def test_message(program: str, expected: str, update_golden: bool) -> None:
    if not update_golden:
        assert message_of(parse(program)) == expected


def test_golden_files_can_be_rewritten(update_golden: bool) -> None:
    for path in FILES:
        parts = [
            f"=== {name}\n{program}--- {message_of(parse(program))}\n"
            for name, program, _ in cases(path)
        ]
        if update_golden:
            path.write_text("\n".join(parts), encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "\n".join(parts)


# ---- what the parser would refuse first ----------------------------------------------------

PLAIN, N = Index("i"), Symbol("N")
A = Input("A", TensorType(f32, (Rank("i", N),)))
READ = Access("A", (PLAIN,))
COPY = Einsum((Target("B"),), (PLAIN,), READ)
VALID = Module("p", (A,), ("B",), (COPY,))


def function(name: str, *uses: str) -> Function:
    body = Local("x")
    for used in uses:
        body = Apply(used, (body,))  # type: ignore[assignment]
    return Function(name, (Parameter("x"),), body)


def with_body(**changes: object) -> Module:
    return replace(VALID, body=(replace(COPY, **changes),))  # type: ignore[arg-type]


def with_type(type_: TensorType) -> Module:
    return replace(VALID, inputs=(replace(A, type=type_),))


def with_constant(constant: Constant) -> Module:
    return replace(VALID, body=(constant, COPY))


PAIR = TensorType(f32, (Rank("i", Literal(2)),))
BUILT: list[tuple[str, Module, type[EinloomError], str]] = [
    (
        "an input without a name",
        replace(VALID, inputs=(A, replace(A, name=""))),
        ParseError,
        "the name of an input is empty",
    ),
    (
        "an extent and a tensor",
        replace(VALID, inputs=(A, Input("A", None))),
        ParseError,
        "the input A is declared twice",
    ),
    (
        "an extent twice",
        replace(VALID, inputs=(A, Input("N", None), Input("N", None))),
        ParseError,
        "the input N is declared twice",
    ),
    (
        "an unknown operation",
        with_body(body=Apply("sqroot", (READ,))),
        ParseError,
        "unknown operation sqroot\n  hint: did you mean sqrt?",
    ),
    (
        "a reducer applied",
        with_body(body=Apply("sum", (READ,))),
        ParseError,
        "unknown operation sum\n  hint: sum is a reducer, write sum[i] and what it reduces",
    ),
    (
        "an unknown reducer",
        with_body(indices=(), reductions=(Reduction("summ", ("i",)),)),
        ParseError,
        "unknown reducer summ\n  hint: did you mean sum?",
    ),
    (
        "a reducer of nothing",
        with_body(reductions=(Reduction("sum", ()),)),
        ParseError,
        "sum reduces no index\n  hint: write sum[i], or drop it",
    ),
    (
        "an unknown view",
        with_body(body=Access("A", (PLAIN,), view="last")),
        ParseError,
        "A has no view last\n  hint: views are final, codes and scales",
    ),
    (
        "a parameter outside its definition",
        with_body(body=Local("x")),
        ParseError,
        "x is no tensor, extent or index here",
    ),
    (
        "an unknown parameter",
        replace(VALID, definitions=(Function("f", (Parameter("first"),), Local("frist")),)),
        ParseError,
        "f has no parameter frist\n  hint: did you mean first?",
    ),
    (
        "two definitions of one name",
        replace(VALID, definitions=(function("f"), function("f"))),
        ParseError,
        "f is defined twice\n  hint: give the second one another name",
    ),
    (
        "a definition named like an operation",
        replace(VALID, definitions=(function("exp"),)),
        ParseError,
        "exp is the name of an operation\n  hint: call it exp_1, for example",
    ),
    (
        "a definition named like a reducer",
        replace(VALID, definitions=(function("argmax"),)),
        ParseError,
        "argmax is the name of a reducer\n  hint: call it argmax_1, for example",
    ),
    (
        "a definition named like a dtype",
        replace(VALID, definitions=(function("f32"),)),
        ParseError,
        "f32 is the name of a dtype\n  hint: call it f32_1, for example",
    ),
    (
        "one parameter twice",
        replace(VALID, definitions=(Function("f", (Parameter("x"), Parameter("x")), Local("x")),)),
        ParseError,
        "f has two parameters x",
    ),
    (
        "a definition that uses itself",
        replace(VALID, definitions=(function("f", "f"),)),
        ParseError,
        "f uses itself\n  hint: definitions do not recur; iterate with a scan",
    ),
    (
        "definitions in a cycle",
        replace(VALID, definitions=(function("f", "g"), function("g", "h"), function("h", "f"))),
        ParseError,
        "definitions form a cycle: f -> g -> h -> f\n"
        "  hint: definitions do not recur; iterate with a scan",
    ),
    (
        "a definition that uses a later one",
        replace(VALID, definitions=(function("f", "g"), function("g"))),
        ParseError,
        "f uses g before it is defined\n  hint: move g up",
    ),
    (
        "a monoid whose identity is no constant",
        replace(VALID, definitions=(Monoid("m", f32, Local("a"), "a", "b", Local("a")),)),
        ParseError,
        "the identity of m is no constant",
    ),
    (
        "an unknown dtype",
        with_type(TensorType(Scalar("f33"), (Rank("i", N),))),
        DTypeError,
        "unknown dtype f33\n  hint: dtypes are bool, i8, i16, i32, i64, u8, u16, u32, u64, "
        "f16, bf16, f32, f64, c64, c128",
    ),
    (
        "a modulus out of range",
        with_type(TensorType(Modular(1), (Rank("i", N),))),
        DTypeError,
        "the modulus of zq<1> must be at least 2 and below 2^63",
    ),
    (
        "an empty tuple",
        with_type(TensorType(Tuple(()), (Rank("i", N),))),
        DTypeError,
        "a tuple dtype has at least one component",
    ),
    (
        "a rank without a name",
        with_type(TensorType(f32, (Rank("", N),))),
        ParseError,
        "a rank has no name",
    ),
    (
        "a cast to a quantized dtype",
        with_body(body=Cast(Quantized(("i4",)), READ)),
        DTypeError,
        "nothing can be cast to a quantized dtype\n"
        "  hint: compute codes and scales as tensors of their own",
    ),
    (
        "a constant with too few bytes",
        with_constant(Constant("W", PAIR, b"\0" * 7)),
        ShapeError,
        "the constant W has 7 bytes, its type f32[i=2] needs 8",
    ),
    (
        "a blob with a short digest",
        with_constant(Constant("W", PAIR, b"\0" * 31, "w.npy")),
        ParseError,
        "the digest of w.npy has 31 bytes, not 32",
    ),
    (
        "a call that is handed one cell",
        replace(
            VALID, body=(Call((Target("B", A.type),), "sort", 1, (Access("A", (Literal(0),)),)),)
        ),
        ParseError,
        "sort is handed whole tensors, A[0] is not one\n"
        "  hint: compute it before the call and hand over its name: A",
    ),
]


@pytest.mark.parametrize(
    ("module", "kind", "expected"), [pytest.param(*case[1:], id=case[0]) for case in BUILT]
)
def test_built_by_hand(module: Module, kind: type[EinloomError], expected: str) -> None:
    with pytest.raises(kind) as caught:
        verify(module)
    assert str(caught.value) == expected
    assert type(caught.value) is kind


def test_every_rule_has_a_case() -> None:
    """No rule stands in a table without a program here that it refuses."""
    modules = [parse(program) for path in FILES for _, program, _ in cases(path)]
    modules += [module for _, module, _, _ in BUILT]
    silent: dict[str, Callable[..., object]] = {
        rule.__name__: rule for rule in (*DECLARATIONS, *STRUCTURE, *TYPED)
    }
    for module in modules:
        parts = Parts(module)
        early = [rule for rule in (*DECLARATIONS, *STRUCTURE) if list(rule(parts))]
        if not any(rule in DECLARATIONS for rule in early):
            try:
                parts.inference = infer(module)
                early += [rule for rule in TYPED if list(rule(parts))]
            except EinloomError:
                pass
        for rule in early:
            silent.pop(rule.__name__, None)
    assert list(silent) == []


# ---- what is right -------------------------------------------------------------------------

RIGHT = {
    "attention": """
        program p(Q: f32[p=P, e=E], K: f32[m=M, e=E], V: f32[m=M, f=F]) -> (AV) {
          QK[p, m] = Q[p, e] * K[m, e]
          GM[p] = max[m] QK[p, m]
          SN[p, m] = exp(QK[p, m] - GM[p])
          SD[p] = sum[m] SN[p, m]
          AV[p, f] = SN[p, m] / SD[p] * V[m, f]
        }""",
    "wavefront": """
        program p(a: i32[i=N], b: i32[j=M]) -> (R) {
          scan i < N from { D[0, j] = iota(j) where j < M + 1 } {
            scan j < M from { D[i+1, 0] = iota(i) + 1 } {
              D[i+1, j+1] = min(D[i, j+1] + 1, D[i+1, j] + 1, D[i, j] + i64(a[i] != b[j]))
            }
          }
          R[] = final(D)[M]
        }""",
    "history under a condition": """
        program p(A: f32[i=N], T: extent) -> (S) {
          scan t < T from { S[0, i] = A[i] } { S[t+1, i] = sum[s] S[s, i] if s <= t }
        }""",
    "downwards": """
        program p(A: f32[t=T]) -> (S) {
          scan t < T down from { S[T] = 0.0 } {
            L[t] = A[t] * 2.0
            S[t] = S[t+1] + L[t]
          }
        }""",
    "downwards history under a condition": """
        program p(A: f32[t=T]) -> (S) {
          scan t < T down from { S[T] = 0.0 } { S[t] = A[t] + (sum[s] S[s] if s > t) }
        }""",
    "until": """
        program p(A: f64[i=N, j=N]) -> (R) {
          scan t < N from { D[0, i, j] = A[i, j] } {
            D[t+1, i, j] = min[k] D[t, i, k] + D[t, k, j]
            C[t] = any[i, j] D[t+1, i, j] != D[t, i, j]
          } until not C[t]
          R[i, j] = final(D)[i, j]
        }""",
    "kernels and sections": """
        program p(A: f32[i=N, j=M]) -> (C) {
          kernel k {
            B[i, j] = A[i, j] * 2.0
            C[i] = sum[j] B[i, j]
          } -> (C)
        }
        mapping k { loops i1, i0, j; tile i = 4; place B on pe; interleave(B, C) across }
        layout A { strides 1, 8; order j, i; donate }
        layout B { alias A }""",
    "formats": """
        program p(A: f32[i=N, j=M] (bcsr<4x1>), B: f32[i=N, j=M] (coo), C: f32[i=N] (nm<2:4>)
                  ) -> (D) {
          D[i] = A[i, j] * B[i, j] * C[i]
        }""",
}
del RIGHT["downwards history under a condition"]  # a reduction is a whole body in the text


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_is_wrong(name: str) -> None:
    assert problems(parse(RIGHT[name])) == []


def test_all_complaints_are_collected_in_order() -> None:
    text = """program p(A: f32[i=4], A: f32[i=5]) -> (C, C) {
      B[i] = Z[i] + Y[i]
      C[i] = A[i, i]
    }"""
    module = parse(text.replace(", A: f32[i=5]", ""))
    found = problems(module)
    assert [d.message for d in found] == [
        "the result C is listed twice",
        "Z is not defined",
        "A has 1 rank, 2 indices are given",
    ]
    with pytest.raises(ParseError) as caught:
        verify(module)
    assert caught.value.diagnostics == tuple(found)


def test_a_flood_of_errors_stays_quick() -> None:
    body = "\n".join(f"B{k}[i] = A{k}[i]" for k in range(3000))
    found = problems(parse(f"program p(A: f32[i=N]) -> (B0) {{\n{body}\n}}"))
    assert len(found) == 3000
    assert found[-1].message == "A2999 is not defined"


def test_scans_nest_to_a_limit_and_no_further() -> None:
    def nested(depth: int) -> Module:
        inner: tuple[Scan | Einsum, ...] = (
            Einsum((Target("L"),), tuple(Index(f"t{k}") for k in range(depth)), Literal(1.0)),
        )
        for k in reversed(range(depth)):
            state = f"S{k}"
            first = Einsum((Target(state),), (Literal(0),), Literal(0.0))
            step = Einsum(
                (Target(state),),
                (Apply("add", (Index(f"t{k}"), Literal(1))),),
                Access(state, (Index(f"t{k}"),)),
            )
            inner = (Scan(f"t{k}", Literal(2), (first,), (*inner, step)),)
        return Module("p", (), ("S0",), inner)

    assert problems(nested(32)) == []
    assert [d.message for d in problems(nested(33))] == ["scans nest at most 32 deep"]
    assert [d.message for d in problems(nested(2000))] == ["scans nest at most 32 deep"]


def damaged(module: Module, random: Random) -> Module:
    """The module with one node put in place of another one of its kind."""
    nodes = list(postorder(module))
    old = random.choice(nodes)
    if isinstance(old, Module):
        return module
    swappable = isinstance(old, Expression) and not isinstance(old, Literal | Access)
    kind = Expression if swappable else type(old)
    new = random.choice([node for node in nodes if isinstance(node, kind)])
    return rebuild(module, lambda node: new if node == old else node)


@pytest.mark.parametrize("seed", range(150))
def test_generated_modules_are_right_and_damaged_ones_are_only_complained_about(seed: int) -> None:
    random = Random(seed)
    module = random_module(random, 5)
    assert problems(module) == []
    for _ in range(3):
        module = damaged(module, random)
    for diagnostic in problems(module):
        assert diagnostic.message


def test_integer_dtypes_keep_their_state() -> None:
    assert infer(parse(RIGHT["wavefront"])).tensors["D"].dtype == i64
