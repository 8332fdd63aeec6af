"""The rewrite driver: what it visits, reports, keeps in step, and refuses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from einloom.ir.expressions import Access, Apply, Cast, Expression, Index, Literal
from einloom.ir.infer import infer
from einloom.ir.interpret import interpret
from einloom.ir.node import postorder
from einloom.ir.ops import apply
from einloom.ir.program import Einsum, Input, Module, Target
from einloom.ir.rewrite import ExpressionRule, Firing, rewrite
from einloom.ir.rewrite.graph import Graph
from einloom.ir.rewrite.patterns import Applied, Variable
from einloom.ir.rules import (
    ALL_RULES,
    DENEST_RULES,
)
from einloom.ir.types import Rank, TensorType, f32, f64
from einloom.ir.verify import verify
from tests.ir.rewriting import SIMPLIFYING, program, rewritten

# ---- the driver ---------------------------------------------------------------------------


def test_firings_are_told_with_rule_statement_and_place() -> None:
    heard: list[Firing] = []
    module = program("program p(A: f64[i=4]) -> (B) {\n  B[i] = exp(A[i] * 1.0)\n}")
    done = rewrite(module, SIMPLIFYING, on_firing=heard.append)
    assert done.firings == 1
    assert dict(done.counts) == {"mul_with_its_identity_is_dropped": 1}
    assert [str(firing) for firing in heard] == [
        "<text>:2:14: B: mul_with_its_identity_is_dropped: A[i] * 1.0  ->  A[i]"
    ]


def test_a_module_without_anything_to_do_is_the_same_object() -> None:
    module = program("program p(A: f64[i=4]) -> (B) {\n  B[i] = exp(A[i])\n}")
    assert rewrite(module, ALL_RULES).module is module


def test_the_same_input_gives_the_same_text() -> None:
    text = """program p(A: f64[i=4, j=5]) -> (T) {
      P[i] = sum[j] A[i, j] * 2.0 * 3.0
      Q[k] = sum[l] A[k, l] * 6.0
      T[i] = P[i] - Q[i] * 1.0
    }"""
    texts = {rewritten(text) for _ in range(3)}
    assert texts == {"T[i] = f64(0.0) where i < 4"}


def test_rewriting_twice_changes_nothing_more() -> None:
    text = """program p(A: f64[i=4, j=1], B: f64[i=4]) -> (T, U) {
      P[i, j] = A[i, j] + 0.0
      Q[i, j] = P[i, j] * 1.0
      T[i] = sum[j] Q[i, j] * B[i] + B[i] * Q[i, j]
      U[i] = sum[j, k] Q[i, j] where k < 3
    }"""
    once = rewrite(program(text), SIMPLIFYING).module
    assert rewrite(once, SIMPLIFYING).module is once


@pytest.mark.parametrize("budget", [0, 1, 2, 3, 5, 8])
def test_the_budget_stops_at_a_correct_program(budget: int) -> None:
    module = program("""program p(A: f64[i=4, j=1]) -> (T) {
      P[i, j] = A[i, j] + 0.0
      Q[i, j] = P[i, j] * 1.0
      T[i] = sum[j] Q[i, j] * 2.0 * 3.0
    }""")
    done = rewrite(module, SIMPLIFYING, max_firings=budget)
    assert done.exhausted == (budget < 8)
    assert done.firings == min(budget, 8)
    verify(done.module)
    values = np.arange(4.0).reshape(4, 1)
    assert np.array_equal(interpret(done.module, {"A": values})["T"], values[:, 0] * 6.0)


def test_rules_that_undo_each_other_stop_at_the_budget() -> None:
    x, y = Variable("x"), Variable("y")

    def swapped(op: str, other: str) -> ExpressionRule:
        return ExpressionRule(
            f"{op}_becomes_{other}",
            "not a law",
            (op,),
            pattern=Applied(op, (x, y)),
            replacement=lambda match, scope: Apply(other, (match["x"], match["y"])),
        )

    module = program("program p(A: f64[i=4]) -> (B) {\n  B[i] = A[i] - 2.0\n}")
    done = rewrite(module, [swapped("sub", "div"), swapped("div", "sub")], max_firings=50)
    assert done.exhausted
    assert done.firings == 50
    verify(done.module)


def test_a_replacement_of_another_dtype_is_refused() -> None:
    rule = ExpressionRule(
        "negation_is_dropped",
        "not a law",
        ("neg",),
        pattern=Applied("neg", (Variable("x"),)),
        replacement=lambda match, scope: Cast(f32, match["x"]),
    )
    module = program("program p(A: f64[i=4]) -> (B) {\n  B[i] = -A[i]\n}")
    assert rewrite(module, [rule]).firings == 0


def test_5000_nested_operators() -> None:
    body: Expression = Access("A", (Index("i"),))
    for _ in range(5000):
        body = Apply("neg", (Apply("sub", (body, Literal(0.0))),))
    type_ = TensorType(f64, (Rank("i", Literal(3)),))
    module = Module(
        "deep", (Input("A", type_),), ("B",), (Einsum((Target("B"),), (Index("i"),), body),)
    )
    done = rewrite(module, SIMPLIFYING)
    (statement,) = done.module.body
    assert isinstance(statement, Einsum)
    assert statement.body == Access("A", (Index("i"),))


def test_a_product_of_20000_operands() -> None:
    factors: list[Expression] = [Access("A", (Index("i"),)), Literal(1.0)] * 10_000
    type_ = TensorType(f64, (Rank("i", Literal(3)),))
    statement = Einsum((Target("B"),), (Index("i"),), apply("mul", *factors))
    done = rewrite(Module("wide", (Input("A", type_),), ("B",), (statement,)), SIMPLIFYING)
    (after,) = done.module.body
    assert isinstance(after, Einsum)
    assert isinstance(after.body, Apply)
    assert after.body.arguments == (Access("A", (Index("i"),)),) * 10_000


# ---- the def-use index and the sections ---------------------------------------------------


def fresh_index(module: Module) -> dict[str, set[str]]:
    """Readers of every tensor, found anew."""
    graph = Graph(module, infer(module))
    return {
        name: {slot.label for slot in graph.readers_of(name)}
        for name in graph.types
        if graph.readers_of(name)
    }


def test_the_index_is_the_one_that_would_be_built_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[Graph] = []
    build: Callable[..., None] = Graph.__init__

    def kept(self: Graph, *arguments: object) -> None:
        build(self, *arguments)
        graphs.append(self)

    module = program("""program p(A: f64[i=4, k=5], B: f64[k=5, j=6], C: f64[j=6]) -> (T, V) {
      P[i, j] = sum[k] A[i, k] * B[k, j] * 1.0
      Q[a, b] = sum[c] A[a, c] * B[c, b]
      R[i, j] = Q[i, j]
      T[i] = sum[j] R[i, j] * C[j] + P[i, j] * C[j]
      W[i] = T[i] - T[i]
      V[i] = max[j] sum[k] A[i, k] * B[k, j] * C[j]
    }""")
    monkeypatch.setattr(Graph, "__init__", kept)
    done = rewrite(module, (*SIMPLIFYING, *DENEST_RULES))
    monkeypatch.undo()
    assert done.firings > 5
    updated = {
        name: {slot.label for slot in readers}
        for name, readers in graphs[0].readers.items()
        if readers
    }
    assert updated == fresh_index(done.module)


def test_sections_lose_what_is_gone_and_say_so() -> None:
    text = """program p(A: f64[p=64, e=1], B: f64[p=64]) -> (Y) {
      kernel main {
        S[p] = sum[e] A[p, e]
        D[p] = exp(B[p])
        Y[p] = S[p] * B[p]
      } -> (Y)
    }
    mapping main {
      loops p, e
      tile p = 16
      place Y on pe2d
      place D on pe1d
    }
    layout D {
      strides 1
    }
    layout Y {
      strides 1
    }"""
    notes: list[str] = []
    module = program(text)
    done = rewrite(
        module, SIMPLIFYING, note=lambda subject, what: notes.append(f"{subject}: {what}")
    )
    verify(done.module)
    (mapping,) = done.module.mappings
    assert mapping.loops == ("p",)
    assert [placement.statement for placement in mapping.placements] == ["Y"]
    assert [layout.tensor for layout in done.module.layouts] == ["Y"]
    assert notes == [
        "mapping main: 1 of its loops dropped: what they name is gone",
        "mapping main: 1 of its placements dropped: what they name is gone",
        "layout D: dropped with its tensor",
    ]


def test_a_kernel_keeps_what_others_read() -> None:
    text = """program p(A: f64[i=4]) -> (Y) {
      kernel one {
        P[i] = exp(A[i])
        Q[i] = P[i]
      } -> (Q)
      kernel two {
        Y[i] = Q[i] * 2.0
      } -> (Y)
    }"""
    result = rewrite(program(text), SIMPLIFYING).module
    verify(result)
    values = np.linspace(0, 1, 4)
    assert np.allclose(interpret(result, {"A": values})["Y"], np.exp(values) * 2)


def test_locations_ride_along() -> None:
    module = program("program p(A: f64[i=4]) -> (B) {\n  B[i] = exp(A[i] - 0.0) * 1.0\n}")
    (statement,) = rewrite(module, SIMPLIFYING).module.body
    assert isinstance(statement, Einsum)
    assert str(statement.location) == "<text>:2:3"
    assert str(statement.body.location) == "<text>:2:10"
    assert all(part.location for part in postorder(statement.body) if isinstance(part, Access))
