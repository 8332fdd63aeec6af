"""The pass simplify: what it does to whole programs, its options, and random programs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from einloom.ir.errors import EinloomError, PassError
from einloom.ir.expressions import Access
from einloom.ir.extents import evaluate
from einloom.ir.interpret import interpret
from einloom.ir.names import written_names
from einloom.ir.node import postorder
from einloom.ir.program import Call, Constant, Einsum, Module
from einloom.ir.promotion import numpy_dtype
from einloom.ir.text import parse
from einloom.ir.types import Modular, Quantized
from einloom.ir.verify import verify
from einloom.passes import Context, Pipeline
from einloom.passes.base import Event, RuleFired
from einloom.passes.simplify import Simplify
from tests.ir.generate import random_module

PROGRAM = """program p(A: f64[i=4, j=5], B: f64[i=4]) -> (C, D) {
  ONES[i] = 1.0 where i < 4
  X[i, j] = A[i, j] * ONES[i] + 0.0
  C[i] = sum[j] X[i, j] * 2.0 * 3.0
  Z[p, q] = X[p, q]
  D[i] = sum[j] Z[i, j] * 6.0 - (B[i] - B[i])
  W[i] = max[j] X[i, j]
}
"""


def body(module: Module) -> list[str]:
    """The statements of a module, without indentation."""
    return [line.strip() for line in str(module).splitlines()[1:-1]]


def run(text: str, pipeline: str = "simplify", context: Context | None = None) -> list[str]:
    """The statements of a program after a pipeline, verified."""
    return body(Pipeline.parse(pipeline).run(parse(text), context, verify_each=True))


def test_everything_together() -> None:
    assert run(PROGRAM) == [
        "C[i] = sum[j] A[i, j] * 6.0",
        "D[i] = C[i]",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Z[a] = sum[k] X[a, k]\n  R[a] = max(Z[a], 0.0)",
        "Z[a] = 0.0 where a < 3\n  Y[a] = 0.0 where a < 3\n  R[a] = Y[a]",
    ],
)
def test_tensors_of_one_value_are_not_made_copies_of_one_another(text: str) -> None:
    """A read of the copy is the value again, and the copy would be made again, without end."""
    module = parse(f"program p(X: f64[a=3, k=0]) -> (R, Z) {{\n  {text}\n}}\n")
    context = Context()
    after = Simplify(max_firings=40).run(module, context)
    verify(after)
    assert not any("stopped" in note.text for note in context.notes)
    values = sorted(line.replace("f64(0.0)", "0.0") for line in body(after))
    assert values == ["R[a] = 0.0 where a < 3", "Z[a] = 0.0 where a < 3"]


def test_the_docstring_tells_the_truth() -> None:
    text = """program p(A: f64[i=2], D: f64[i=2]) -> (C) {
      B[i] = A[i] * 1.0 + 0.0
      C[i] = sum[j, k] B[j] * D[i] where k < 3
    }"""
    assert run(text) == ["C[i] = sum[j] A[j] * D[i] * 3"]


def test_strict_leaves_what_is_only_nearly_equal() -> None:
    assert run(PROGRAM, context=Context(strict=True)) == [
        "X[i, j] = A[i, j] + 0.0",
        "C[i] = sum[j] X[i, j] * 2.0 * 3.0",
        "D[i] = sum[j] X[i, j] * 6.0 - (B[i] - B[i])",
    ]


def test_parts_are_switched_off() -> None:
    assert run(PROGRAM, "simplify{algebra=false, dead=false, common=false}") == body(parse(PROGRAM))
    assert len(run(PROGRAM, "simplify{dead=false}")) == 6
    only_dead = run(PROGRAM, "simplify{algebra=false, common=false}")
    assert only_dead == [line for line in body(parse(PROGRAM)) if not line.startswith("W")]


def test_options_choose_rules() -> None:
    names = {rule.name for rule in Simplify().rules()}
    assert "mul_with_its_identity_is_dropped" in names
    assert "einsum_with_one_reader_is_nested_into_it" not in names
    assert {rule.name for rule in Simplify(algebra=False, common=False).rules()} == {
        "statement_without_a_reader_is_dropped",
        "state_without_a_reader_is_dropped",
    }
    nest = {rule.name for rule in Simplify(nesting="nest").rules()}
    assert nest - names == {"einsum_with_one_reader_is_nested_into_it"}


def test_nest_and_denest() -> None:
    text = """program p(A: f64[i=4, k=5], B: f64[k=5, j=6], C: f64[j=6, l=7]) -> (U) {
      T[i, j] = sum[k] A[i, k] * B[k, j]
      U[i, l] = sum[j] T[i, j] * C[j, l]
    }"""
    assert run(text) == body(parse(text))
    assert run(text, "simplify{nesting=nest}") == [
        "U[i, l] = sum[j, k] A[i, k] * B[k, j] * C[j, l]"
    ]
    assert len(run(text, "simplify{nesting=nest}, simplify{nesting=denest}")) == 2


def test_likely_extents_decide_where_a_product_is_split() -> None:
    text = """program p(A: f64[i=N, k=K], B: f64[k=K, j=M], C: f64[j=M, l=L]) -> (U) {
      U[i, l] = sum[j, k] A[i, k] * B[k, j] * C[j, l]
    }"""
    left = run(text, "simplify{nesting=denest}", Context(extents={"N": 1, "L": 1000}))
    right = run(text, "simplify{nesting=denest}", Context(extents={"N": 1000, "L": 1}))
    assert left[0] == "U_part[i, j] = sum[k] A[i, k] * B[k, j]"
    assert right[0] == "U_part[k, l] = sum[j] B[k, j] * C[j, l]"


def test_the_budget_is_noted() -> None:
    context = Context()
    run(PROGRAM, "simplify{max_firings=2}", context)
    assert [str(note) for note in context.notes] == [
        "simplify: p: stopped after 2 rewrites (max_firings)"
    ]
    with pytest.raises(PassError, match="it cannot be negative"):
        Pipeline.parse("simplify{max_firings=-1}")


def test_listeners_hear_every_rule() -> None:
    heard: list[Event] = []
    run(PROGRAM, context=Context(listeners=(heard.append,)))
    fired = [event for event in heard if isinstance(event, RuleFired)]
    assert [event.rule for event in fired[:2]] == [
        "read_of_a_uniform_tensor_is_its_value",
        "mul_with_its_identity_is_dropped",
    ]
    assert str(fired[0].location) == "<text>:3:23"
    assert fired[0].statement == "X"


def test_a_cost_model_may_prefer_the_expanded_form() -> None:
    class Expanding:
        def expression_cost(self, expression: Any) -> float:
            return -float(sum(1 for _ in postorder(expression)))

    text = """program p(A: f64[i=4], B: f64[i=4], C: f64[i=4]) -> (D) {
      D[i] = A[i] * (B[i] + C[i])
    }"""
    assert run(text) == ["D[i] = A[i] * (B[i] + C[i])"]
    found = run(text, context=Context(cost_model=Expanding()))
    assert found == ["D[i] = A[i] * B[i] + A[i] * C[i]"]


def test_attention_keeps_its_shape() -> None:
    text = """program attention(Q: f32[h=8, p=256, e=64], K: f32[h=8, m=1024, e=64],
                               V: f32[h=8, m=1024, f=64]) -> (AV) {
      QK[h, p, m] = Q[h, p, e] * K[h, m, e]
      GM[h, p]    = max[m] QK[h, p, m]
      SN[h, p, m] = exp(QK[h, p, m] - GM[h, p])
      SD[h, p]    = sum[m] SN[h, p, m]
      AV[h, p, f] = SN[h, p, m] / SD[h, p] * V[h, m, f]
    }"""
    module = parse(text)
    assert Pipeline.parse("simplify").run(module) is module


# ---- random programs ----------------------------------------------------------------------


def runnable(module: Module) -> Module:
    """A random module without what needs a host, a file or codes; all it computes is a result."""
    gone = {
        item.name
        for item in module.inputs
        if item.type is not None and isinstance(item.type.dtype, Quantized)
    }
    for statement in module.body:
        reads = {part.tensor for part in postorder(statement) if isinstance(part, Access)}
        opaque = isinstance(statement, Call) or (
            isinstance(statement, Constant) and statement.path is not None
        )
        if opaque or gone & reads:
            gone |= set(written_names(statement))
    left = tuple(s for s in module.body if not gone & set(written_names(s)))
    results = [t.name for s in left if isinstance(s, Einsum) for t in s.targets]
    return replace(
        module,
        inputs=tuple(item for item in module.inputs if item.name not in gone),
        body=left,
        outputs=tuple(dict.fromkeys(results)),
        mappings=(),
        layouts=(),
    )


def inputs_of(module: Module, seed: int) -> dict[str, Any]:
    """Random arrays for a module; every symbol is 3."""
    generator = np.random.default_rng(seed)
    threes: defaultdict[str, int] = defaultdict(lambda: 3)
    arrays: dict[str, Any] = {}
    for item in module.inputs:
        if item.type is None:
            arrays[item.name] = 3
            continue
        shape = [evaluate(extent, threes) for extent in item.type.extents]
        dtype = numpy_dtype(item.type.dtype)
        if dtype.names:
            arrays[item.name] = np.zeros(shape, dtype)
        elif dtype.kind in "biu":
            top = {"b": 2}.get(dtype.kind, 5)
            top = item.type.dtype.modulus if isinstance(item.type.dtype, Modular) else top
            arrays[item.name] = generator.integers(0, top, shape).astype(dtype)
        else:
            arrays[item.name] = generator.standard_normal(shape).astype(dtype)
    return arrays


def same_bits(a: Any, b: Any) -> bool:
    """Whether two results are equal bit for bit; all NaN are one."""
    x, y = np.asarray(a), np.asarray(b)
    if x.dtype != y.dtype or x.shape != y.shape:
        return False
    if x.tobytes() == y.tobytes():
        return True
    if x.dtype.names:
        return all(same_bits(x[name], y[name]) for name in x.dtype.names)
    equal = np.asarray(x == y)
    return bool(np.all(equal | ((x != x) & (y != y))))


def check_random_program(seed: int) -> int:
    """Simplify a random program strictly and compare all its results; how many rules fired."""
    module = random_module(Random(seed), 8)
    after = Pipeline.parse("simplify").run(module, verify_each=True)
    assert parse(str(after)) == after
    module = runnable(module)
    arrays = inputs_of(module, seed)
    try:
        expected = interpret(module, arrays)
    except EinloomError:  # a literal that does not fit what it meets
        return 0
    fired: list[Event] = []
    context = Context(strict=True, listeners=(fired.append,))
    after = Pipeline.parse("simplify").run(module, context, verify_each=True)
    found = interpret(after, arrays)
    for name, value in expected.items():
        assert same_bits(value, found[name]), f"{name}\n{module}\n{after}"
    assert Pipeline.parse("simplify").run(after, Context(strict=True)) == after
    return sum(isinstance(event, RuleFired) for event in fired)


def test_random_programs_keep_every_bit() -> None:
    assert sum(check_random_program(seed) for seed in range(40)) > 100


@pytest.mark.deep
def test_many_random_programs_keep_every_bit() -> None:
    assert sum(check_random_program(seed) for seed in range(1000, 2000)) > 3000


def test_a_simplified_module_verifies_and_prints() -> None:
    after = Pipeline.parse("simplify").run(parse(PROGRAM))
    verify(after)
    assert parse(str(after)) == after
