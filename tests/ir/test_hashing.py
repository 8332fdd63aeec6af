"""The structural hash under renamings and changes, the meaning hash under rewrites."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from einloom.ir.expressions import Access, Apply, Expression, Index, Literal, Symbol
from einloom.ir.hashing import meaning_hash, probe_record, structural_hash
from einloom.ir.infer import infer
from einloom.ir.names import nested_statements, written_names
from einloom.ir.node import Node, postorder, rebuild
from einloom.ir.ops import apply
from einloom.ir.program import (
    Bound,
    Constant,
    Einsum,
    Input,
    Interleave,
    Kernel,
    Layout,
    Mapping,
    Module,
    Placement,
    Reduction,
    Scan,
    Target,
    Tile,
)
from einloom.ir.text import parse, show
from einloom.ir.types import Rank, TensorType, f32
from tests.ir.generate import random_module

GENERATED = 150


# ---- renaming ------------------------------------------------------------------------------


def renamed(module: Module, suffix: str = "_renamed") -> Module:
    """The module with every local name changed: intermediates, indices, symbols, kernels."""
    fixed = {item.name for item in module.inputs} | set(module.outputs)
    given = {item.name for item in module.inputs if item.type is None}
    written = {name for statement in module.body for name in written_names(statement)}

    def tensor(name: str) -> str:
        return name + suffix if name in written - fixed else name

    def index(name: str) -> str:
        return name + suffix

    def change(part: Node) -> Node:
        match part:
            case Index():
                return Index(index(part.name))
            case Symbol():
                return part if part.name in given else Symbol(index(part.name))
            case Access():
                return replace(part, tensor=tensor(part.tensor))
            case Target():
                return replace(part, name=tensor(part.name))
            case Reduction():
                return replace(part, indices=tuple(map(index, part.indices)))
            case Bound():
                return replace(part, index=index(part.index))
            case Rank():
                return replace(part, name=index(part.name))
            case Scan():
                return replace(part, index=index(part.index))
            case Kernel():
                outputs = tuple(map(tensor, part.outputs))
                return replace(part, name=index(part.name), outputs=outputs)
            case Layout():
                alias = None if part.alias is None else tensor(part.alias)
                order = tuple(map(index, part.order))
                return replace(part, tensor=tensor(part.tensor), alias=alias, order=order)
            case Tile():
                return replace(part, rank=index(part.rank))
            case Placement():
                return replace(part, statement=tensor(part.statement))
            case Interleave():
                return replace(part, statements=tuple(map(tensor, part.statements)))
            case Mapping():
                loops, spatial = tuple(map(index, part.loops)), tuple(map(index, part.spatial))
                return replace(part, kernel=index(part.kernel), loops=loops, spatial=spatial)
            case Module():
                return replace(part, name=index(part.name))
            case Constant():
                return replace(part, name=tensor(part.name))
        return part

    return rebuild(module, change)


@pytest.mark.parametrize("seed", range(GENERATED))
def test_renaming_keeps_the_hash(seed: int) -> None:
    module = random_module(Random(seed), 6)
    other = renamed(module)
    assert other != module
    assert structural_hash(other) == structural_hash(module)


@pytest.mark.parametrize("seed", range(0, GENERATED, 10))
def test_where_a_module_was_written_does_not_count(seed: int) -> None:
    module = random_module(Random(seed), 6)
    again = parse("# moved\n\n" + show(module))
    assert structural_hash(again) == structural_hash(module)


def changes(module: Module) -> list[Module]:
    """Modules that differ from `module` in one place, each in another way."""
    found: list[Module] = []

    def at(target: Node, new: Node) -> None:
        found.append(rebuild(module, lambda part: new if part == target else part))

    for statement in nested_statements(module.body):
        if not isinstance(statement, Einsum):
            continue
        at(statement, replace(statement, body=apply("add", statement.body, Literal(1))))
        for part in postorder(statement.body):
            if isinstance(part, Literal):
                at(part, Literal(part.value * 1j + 3.0))
            if isinstance(part, Apply) and len(set(part.arguments)) == len(part.arguments) > 1:
                at(part, Apply(part.op, part.arguments[::-1]))
        for reduction in statement.reductions:
            at(
                reduction,
                replace(reduction, monoid="prod" if reduction.monoid != "prod" else "sum"),
            )
        break
    found.append(replace(module, body=(*module.body, module.body[0])))
    first = module.inputs[0]
    found.append(replace(module, inputs=(replace(first, name="other"), *module.inputs[1:])))
    return [other for other in found if other != module]


def test_a_change_changes_the_hash() -> None:
    compared = 0
    for seed in range(GENERATED):
        module = random_module(Random(seed), 4)
        if not module.inputs or not module.body:
            continue
        for other in changes(module):
            compared += 1
            assert structural_hash(other) != structural_hash(module), show(other)
    assert compared > GENERATED


HEAD = "program p(A: f32[i=N, j=M], B: f32[i=M, j=K]) -> (C) {\n"
PRODUCT = HEAD + "  C[i, k] = A[i, j] * B[j, k]\n}"

SAME = {
    "names": (
        PRODUCT,
        "program q(A: f32[x=R, y=S], B: f32[x=S, y=T]) -> (C) { C[a, b] = A[a, c] * B[c, b] }",
    ),
    "an intermediate": (
        HEAD + "T[i] = sum[j] A[i, j]\nC[i] = exp(T[i])\n}",
        HEAD + "Other[z] = sum[i] A[z, i]\nC[j] = exp(Other[j])\n}",
    ),
    "the order of bounds": (
        HEAD + "C[i, j] = 1.0 where i < N, j < M\n}",
        HEAD + "C[i, j] = 1.0 where j < M, i < N\n}",
    ),
    "a definition": (
        "fn f(x, y) = x / y\nmonoid m: f32 { identity 0.0; combine(a, b) = f(a, b); "
        "laws associative, commutative }\n" + HEAD + "C[i] = m[j] A[i, j]\n}",
        "fn g(b, a) = b / a\nmonoid n: f32 { identity 0.0; combine(y, x) = g(y, x); "
        "laws commutative, associative }\n" + HEAD + "C[i] = n[j] A[i, j]\n}",
    ),
    "a scan": (
        HEAD + "scan t < N from { S[0] = 0.0 } { S[t+1] = S[t] * A[t, 0] }\nC[] = final(S)\n}",
        HEAD + "scan u < N from { R[0] = 0.0 } { R[u+1] = R[u] * A[u, 0] }\nC[] = final(R)\n}",
    ),
    "a kernel with its mapping": (
        HEAD + "kernel k { C[i] = exp(A[i, 0]) } -> (C)\n}\n"
        "mapping k { loops i1, i0; tile i = 4; place C on pe }",
        HEAD + "kernel l { C[z] = exp(A[z, 0]) } -> (C)\n}\n"
        "mapping l { loops z1, z0; tile z = 4; place C on pe }",
    ),
    "rank labels of a layout": (
        HEAD + "T[i, j] = A[i, j]\nC[i] = T[i, 0]\n}\nlayout T { order j, i }",
        HEAD + "U[a, b] = A[a, b]\nC[i] = U[i, 0]\n}\nlayout U { order b, a }",
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_same_structure(name: str) -> None:
    left, right = map(parse, SAME[name])
    assert left != right
    assert structural_hash(left) == structural_hash(right)


DIFFERENT = {
    "an input's name": PRODUCT.replace("A", "D"),
    "a result's name": PRODUCT.replace("C", "D"),
    "the order of operands": PRODUCT.replace("A[i, j] * B[j, k]", "B[j, k] * A[i, j]"),
    "the order of inputs": PRODUCT.replace(
        "A: f32[i=N, j=M], B: f32[i=M, j=K]", "B: f32[i=M, j=K], A: f32[i=N, j=M]"
    ),
    "an index elsewhere": PRODUCT.replace("B[j, k]", "B[k, j]"),
    "an extent": PRODUCT.replace("j=K", "j=4"),
    "which extents are equal": PRODUCT.replace("j=K", "j=M"),
    "a dtype": PRODUCT.replace("B: f32", "B: f64"),
    "a reducer": PRODUCT.replace("A[i, j] * B", "max[j] A[i, j] * B"),
    "an accumulator": PRODUCT.replace("A[i, j] * B", "sum:f64[j] A[i, j] * B"),
    "an operation": PRODUCT.replace("A[i, j] * B[j, k]", "sum[j] (A[i, j] - B[j, k])"),
    "a format": PRODUCT.replace("j=M], B", "j=M] (csr), B"),
    "a fill value": PRODUCT.replace("j=M], B", "j=M] fill 1.0, B"),
    "encryption": PRODUCT.replace("j=M], B", "j=M] enc, B"),
    "a condition": PRODUCT.replace("B[j, k]", "B[j, k] if i < j"),
    "a padding": PRODUCT.replace("B[j, k]", "B?(0)[j, k] where k < K"),
    "a layout": PRODUCT + "\nlayout A { strides 1, 7 }",
    "donation": PRODUCT + "\nlayout A { donate }",
    "a kernel": HEAD + "  kernel k { C[i, k] = A[i, j] * B[j, k] } -> (C)\n}",
    "the same tensor twice": PRODUCT.replace("B[j, k]", "A[j, k]"),
    "one statement more": PRODUCT.replace("}", "D[i] = A[i, 0]\n}"),
    "a literal's kind": PRODUCT.replace("A[i, j] *", "1 * A[i, j] *"),
    "another literal's kind": PRODUCT.replace("A[i, j] *", "1.0 * A[i, j] *"),
}


def test_different_structures() -> None:
    hashes = {structural_hash(parse(text)): name for name, text in DIFFERENT.items()}
    hashes[structural_hash(parse(PRODUCT))] = "product"
    assert len(hashes) == len(DIFFERENT) + 1


def test_names_are_not_mixed_up_with_one_another() -> None:
    """One name stands for a tensor, an index and a rank at once."""
    one = "program p(i: f32[i=N], j: f32[i=N]) -> (k) {{ k[i] = {0}[i] + {1}[i] }}"
    assert structural_hash(parse(one.format("i", "j"))) != structural_hash(
        parse(one.format("j", "i"))
    )


def test_a_wide_einsum_and_many_statements() -> None:
    rank = (Rank("i", Symbol("N")),)
    count = 100_000
    inputs = tuple(Input(f"A{k}", TensorType(f32, rank)) for k in range(count))
    body = Apply("mul", tuple(Access(f"A{k}", (Index("i"),)) for k in range(count)))
    wide = Module("p", inputs, ("B",), (Einsum((Target("B"),), (Index("i"),), body),))
    swapped = Apply("mul", (body.arguments[1], body.arguments[0], *body.arguments[2:]))
    other = replace(wide, body=(replace(wide.body[0], body=swapped),))  # type: ignore[call-arg]
    assert structural_hash(wide) != structural_hash(other)

    def chain(prefix: str) -> Module:
        statements = tuple(
            Einsum(
                (Target(f"{prefix}{k}" if k < 9_999 else "end"),),
                (Index("i"),),
                Access(f"{prefix}{k - 1}" if k else "A0", (Index("i"),)),
            )
            for k in range(10_000)
        )
        return Module("p", inputs[:1], ("end",), statements)

    assert structural_hash(chain("T")) == structural_hash(chain("U"))


def test_depth_does_not_matter() -> None:
    deep: Expression = Access("A", (Index("i"),))
    for _ in range(20_000):
        deep = Apply("exp", (deep,))
    statement = Einsum((Target("B"),), (Index("i"),), deep)
    module = Module("p", (Input("A", TensorType(f32, (Rank("i", Literal(2)),))),), ("B",), ())
    assert len(structural_hash(replace(module, body=(statement,)))) == 32
    nested: Scan | Einsum = statement
    for k in range(3_000):
        nested = Scan(f"t{k}", Literal(2), (), (nested,))
    assert len(structural_hash(replace(module, body=(nested,)))) == 32


# ---- meaning -------------------------------------------------------------------------------

Rewrite = tuple[str, str]

RIGHT: dict[str, Rewrite] = {
    "reassociation": (
        "C[i] = sum[j] A[i, j] * (x[j] + y[j])",
        "T[i] = A[i, j] * y[j]\nS[i] = A[i, j] * x[j]\nC[i] = S[i] + T[i]",
    ),
    "contraction order": (
        "C[i] = A[i, j] * A[j, k] * x[k]",
        "T[j] = A[j, k] * x[k]\nC[i] = A[i, j] * T[j]",
    ),
    "transposition": (
        "C[i, j] = A[j, i]",
        "T[a, b] = A[b, a]\nC[p, q] = T[p, q]",
    ),
    "deferred division": (
        "C[i] = sum[j] A[i, j] * x[j] / 4.0",
        "T[i] = A[i, j] * x[j]\nC[i] = T[i] / 4.0",
    ),
    "division by an extent": (
        "C[i] = sum[j] A[i, j] / N",
        "T[i] = sum[j] A[i, j]\nC[i] = T[i] / N",
    ),
    "an even split": (
        "C[] = sum[j] x[j] * y[j]",
        "C[] = sum[j] (x[j] * y[j] * 0.5 + 0.5 * x[j] * y[j])",
    ),
    "a scan for a sum": (
        "C[] = sum[j] x[j]",
        "scan t < N from { S[0] = 0.0 } { S[t+1] = S[t] + x[t] }\nC[] = final(S)",
    ),
    "integers that wrap": (
        "C[i] = m[i] * n[i] + m[i]",
        "C[i] = m[i] * (n[i] + 1)",
    ),
    "a lattice": (
        "C[i] = max(m[i], min(m[i], n[i]))",
        "C[i] = m[i]",
    ),
    "a gather": (
        "C[t] = x[g[t]] * 2.0",
        "T[i] = x[i] * 2.0\nC[t] = T[g[t]]",
    ),
    "a scatter": (
        "C: f64[v=N][g[t]] = sum[t] x[t] * 3.0",
        "T: f64[v=N][g[t]] = sum[t] x[t]\nC[v] = T[v] * 3.0",
    ),
    "a condition": (
        "C[i] = sum[j] A[i, j] if j < i",
        "C[i] = sum[j] select(iota(j) < iota(i), A[i, j], 0.0)",
    ),
    "a padded read": (
        "C[i] = x?(0)[i+1] where i < N",
        "C[i] = select(iota(i) + 1 < N, x?(0)[i+1], 0.0) where i < N",
    ),
    "a function": (
        "C[i] = x[i] * x[i] - y[i] * y[i]",
        "C[i] = (x[i] + y[i]) * (x[i] - y[i])",
    ),
    "residues": (
        "C[i] = z[i] * (z[i] + 5)",
        "C[i] = z[i] * z[i] + 5 * z[i]",
    ),
    "a widening cast": (
        "C[i] = f64(h[i]) * x[i]",
        "C[i] = h[i] * x[i]",
    ),
    "an integer factor": (
        "C[i] = x[i] * m[i]",
        "C[i] = f64(m[i]) * x[i]",
    ),
    "dead code": (
        "D[i] = A[i, 0] + w[i]\nC[i] = x[i]",
        "C[i] = x[i]",
    ),
}

WRONG: dict[str, Rewrite] = {
    "a lost factor": ("C[i] = A[i, j] * x[j]", "C[i] = sum[j] A[i, j]"),
    "a transposed operand": ("C[i] = A[i, j] * x[j]", "C[i] = A[j, i] * x[j]"),
    "the wrong operand": ("C[i] = x[i] - y[i]", "C[i] = y[i] - x[i]"),
    "the wrong reducer": ("C[] = sum[i] m[i]", "C[] = max[i] m[i]"),
    "subtraction distributed over max": (
        "C[] = max[i] (m[i] - n[i])",
        "S[] = max[i] m[i]\nT[] = max[i] n[i]\nC[] = S[] - T[]",
    ),
    "a diagonal taken for the whole": ("C[i] = A[i, i]", "C[i] = A[i, 0]"),
    "a dropped term": ("C[i] = x[i] + 1e-12", "C[i] = x[i]"),
    "a sum over an unused index dropped": ("C[i] = sum[j] x[i] where j < M", "C[i] = x[i]"),
    "a lost condition": ("C[i] = sum[j] A[i, j] if j < i", "C[i] = sum[j] A[i, j]"),
    "an off-by-one condition": (
        "C[i] = sum[j] A[i, j] if j < i",
        "C[i] = sum[j] A[i, j] if j <= i",
    ),
    "a wrong padding": ("C[i] = x?(0)[i+1] where i < N", "C[i] = x?(1)[i+1] where i < N"),
    "an off-by-one scan": (
        "scan t < N from { S[0] = 0.0 } { S[t+1] = S[t] + x[t] }\nC[] = final(S)",
        "scan t < N from { S[0] = 0.0 } { S[t+1] = S[t] + x[0] }\nC[] = final(S)",
    ),
    "a wrong first state": (
        "scan t < N from { S[0] = 0.0 } { S[t+1] = S[t] + x[t] }\nC[] = final(S)",
        "scan t < N from { S[0] = 1.0 } { S[t+1] = S[t] + x[t] }\nC[] = final(S)",
    ),
    "a gather of the wrong tensor": ("C[t] = x[g[t]]", "C[t] = y[g[t]]"),
    "a lost division": ("C[i] = x[i] / 3.0", "C[i] = x[i]"),
    "a division by the wrong extent": (
        "C[] = sum[i] x[i] / N",
        "C[] = sum[i] x[i] / M",
    ),
    "the wrong modulus's law": ("C[i] = z[i] * 17", "C[i] = z[i]"),
    "an idempotence that sums lack": ("C[i] = x[i] + x[i]", "C[i] = x[i]"),
    "a dtype": ("C[i] = m[i] * 2", "C[i] = i64(m[i]) * 2"),
    "a narrower sum": ("C[] = sum:i64[i] m[i]", "C[] = sum[i] m[i]"),
    "a dropped last block": (
        "C[] = sum[i] x[i]",
        "C[] = sum[b, r] x[b*4 + r] where b < N // 4, r < 4",
    ),
}

INPUTS = (
    "A: f64[i=N, j=N], x: f64[i=N], y: f64[i=N], w: f64[i=N], h: f32[i=N], m: i32[i=N], "
    "n: i32[i=N], g: i64[i=N], z: zq<97>[i=N], M: extent"
)


def program(body: str) -> Module:
    return parse(f"program p({INPUTS}) -> (C) {{\n{body}\n}}")


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_rewrite_keeps_the_meaning(name: str) -> None:
    before, after = map(program, RIGHT[name])
    assert structural_hash(before) != structural_hash(after)
    for seed in range(2):
        expected = meaning_hash(before, seed)
        assert expected is not None
        assert meaning_hash(after, seed, probes_of=before) == expected


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rewrite_changes_the_meaning(name: str) -> None:
    before, after = map(program, WRONG[name])
    for seed in range(2):
        expected, found = meaning_hash(before, seed), meaning_hash(after, seed, probes_of=before)
        assert expected is not None and found is not None
        assert found != expected


@pytest.mark.parametrize("name", RIGHT)
def test_names_do_not_change_the_meaning(name: str) -> None:
    before = program(RIGHT[name][0])
    assert meaning_hash(renamed(before)) == meaning_hash(before)
    assert meaning_hash(before, 1) != meaning_hash(before, 2)


@pytest.mark.parametrize(
    "body",
    [
        "C[i] = exp(x[i])",
        "C[] = max[i] x[i]",
        "C[i] = x[i] / y[i]",
        "C[i] = select(x[i] < y[i], 1, 2)",
        "C[i] = i64(x[i])",
        "C[i] = x[i] + inf",
        "C[i] = x[i] + 2.0j",
        "C: f64[i=N] = call sort@1(x)",
    ],
)
def test_what_is_not_exact_has_no_meaning_hash(body: str) -> None:
    assert meaning_hash(program(body)) is None


def test_literals_are_read_as_the_fractions_they_are() -> None:
    """0.1 is a fraction with 2^55 below it; its neighbour is another one."""
    body = "C[] = sum[i] (x[i] * {0} + y[i] * {0})"
    one, next_one = program(body.format(0.1)), program(body.format(np.nextafter(0.1, 1).item()))
    apart = program(f"C[] = sum[i] (x[i] + y[i]) * {0.1}")
    assert meaning_hash(one) == meaning_hash(apart)
    assert meaning_hash(one) != meaning_hash(next_one)


def test_probe_record() -> None:
    before = program("C[i] = exp(x[i] - y[i])")
    after = program("C[i] = exp(x[i]) / exp(y[i])")
    wrong = program("C[i] = exp(x[i]) / exp(w[i])")
    record = probe_record(before, 5)
    assert list(record) == ["C"] and record["C"].shape[0] >= 2
    np.testing.assert_allclose(probe_record(after, 5, probes_of=before)["C"], record["C"])
    assert not np.allclose(probe_record(wrong, 5, probes_of=before)["C"], record["C"])


def test_probe_sizes_satisfy_the_checks() -> None:
    text = """program p(A: f64[i=N, j=M], B: f64[i=K, j=L], Q: extent, R: extent,
      D: f64[i=Q*R]) -> (C) {
      T[i, k] = A[i, j] * B[j, k]
      C[q] = sum[r, i, k] T[i, k] * D[q*R + r] where q < Q, r < R
    }"""
    module = parse(text)
    assert len(infer(module).checks) == 1
    assert meaning_hash(module) is not None


def test_hashes_are_stable() -> None:
    """Pinned, so that a change of them is noticed: caches on disk depend on the first."""
    module = program("C[i] = A[i, j] * x[j]")
    assert structural_hash(module) == "f1f01ee66ab847268fb5afe40972bcda"
    assert meaning_hash(module) == "11ad6403f7922ee5f9f6cf7b4f5a72f6"
