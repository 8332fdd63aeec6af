"""Programs that once gave wrong results or crashed, each with what NumPy says it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.ir.errors import DTypeError, EinloomError, RangeError, ShapeError

Array = np.ndarray[Any, Any]
PIPELINES = ("", "fuse", None)
X = np.array([[3, -1, 4, 1], [-5, 9, 2, 6], [5, 3, -5, 8]], np.float32)
V = np.array([2, -7, 1, 8, 2], np.float32)


@pytest.fixture(params=PIPELINES, ids=["no pass", "fuse", "default"])
def run(request: pytest.FixtureRequest) -> Any:
    """Compile a program text with one pipeline and run it on named inputs."""

    def compiled(text: str, **inputs: Any) -> dict[str, Array]:
        return el.compile(text, pipeline=request.param).run(inputs)

    return compiled


def check(found: Array, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# ---- cells that no iteration writes


def test_a_constant_on_the_left_leaves_the_other_cells_at_the_fill(run: Any) -> None:
    text = "program p(X: f32[i=N]) -> (D) { D: f32[a=3, i=N][1, i] = X[i] }"
    check(run(text, X=V)["D"], [0 * V, V, 0 * V])


def test_an_extent_on_the_left_of_a_reduction_leaves_identities(run: Any) -> None:
    text = "program p(X: f32[i=N, j=M]) -> (D) { D: f32[a=N, i=N][N - 1, i] = max[j] X[i, j] }"
    lowest = np.full(3, -np.inf)
    check(run(text, X=X)["D"], [lowest, lowest, X.max(1)])


def test_a_cell_outside_the_result_that_no_iteration_reaches(run: Any) -> None:
    text = """program p(X: f32[i=N], K: extent) -> (Y) {
      Y: f32[a=2, i=N][K, i] = X[i] if X[i] > 1000.0
    }"""
    check(run(text, X=V, K=5)["Y"], np.zeros((2, 5)))


def test_a_first_state_written_in_one_cell(run: Any) -> None:
    text = """program p(X: f32[t=T]) -> (S) {
      scan t < T from { S: f32[t=T+1, v=4][0, 2] = 1 } {
        S[t+1, v] = S[t, v] + X[t]
      }
    }"""
    steps = np.concatenate([[0], np.cumsum(V)])
    check(run(text, X=V)["S"], steps[:, None] + np.array([0, 0, 1, 0]))


def test_two_maps_into_one_state_keep_each_other_s_cells(run: Any) -> None:
    text = """program p(X: f32[t=T]) -> (S) {
      scan t < T from { S: f32[t=T+1, j=6][0, j] = 0 } {
        S[t+1, 2*j] = X[t] where j < 3
        S[t+1, 2*j + 1] = -X[t] where j < 3
      }
    }"""
    expected = np.concatenate([np.zeros((1, 6)), V[:, None] * np.array([1, -1] * 3)])
    check(run(text, X=V)["S"], expected)


def test_cells_of_a_state_that_an_iteration_leaves_out(run: Any) -> None:
    text = """program p(X: f32[t=T]) -> (S, F) {
      scan t < T from { S: f32[t=T+1, j=3][0, j] = 1 } { S[t+1, 1] = X[t] }
      F[j] = final(S)[j]
    }"""
    expected = np.concatenate([np.ones((1, 3)), V[:, None] * np.array([0, 1, 0])])
    found = run(text, X=V)
    check(found["S"], expected)
    check(found["F"], expected[-1])
    check(run(text.replace("(S, F)", "(F)"), X=V)["F"], expected[-1])


def test_a_tensor_of_a_scan_keeps_what_earlier_iterations_computed(run: Any) -> None:
    text = """program p(X: f32[t=T]) -> (S) {
      scan t < T from { S: f32[t=T+1][0] = 0 } {
        B: f32[t=T][t] = X[t] * 10
        S[t+1] = S[t] * 0 + B[t-2] if t > 1
      }
    }"""
    check(run(text, X=V)["S"], [0, 0, 0, 20, -70, 10])


def test_a_guarded_write_beside_the_state_writes_nothing(run: Any) -> None:
    text = """program p(X: f32[t=T]) -> (S) {
      scan t < T from { S: f32[t=T+1, j=6][0, j] = 1 } {
        scan u < 6 from { Q[0] = 0.0 } {
          Q[u+1] = Q[u] + 1
          S[t+1, 2*u] = sum[k] Q[u] * X[k] if 2*u < 6
        }
      }
    }"""
    row = np.array([0, 0, 1, 0, 2, 0]) * V.sum()
    check(run(text, X=V)["S"], np.concatenate([np.ones((1, 6)), np.tile(row, (5, 1))]))


# ---- scatters


def test_scattered_halves_are_summed_in_f32(run: Any) -> None:
    text = """program p(X: f16[i=N], I: i64[i=N]) -> (Y) {
      Y: f16[v=2][I[i]] = sum[i] X[i]
    }"""
    ones = np.ones(5000, np.float16)
    check(run(text, X=ones, I=np.zeros(5000, np.int64))["Y"], [5000, 0])


@pytest.mark.parametrize(
    ("given", "result", "reducer", "values", "expected"),
    [
        ("f32", "i32", "sum", [0.6, 0.6, 0.6], 1),
        ("u8", "f32", "sum", [200, 200, 0], 144),
        ("i32", "i8", "max:i32", [300, 100, 5], 44),
    ],
)
def test_a_scatter_folds_in_the_accumulator_s_dtype(
    run: Any, given: str, result: str, reducer: str, values: list[float], expected: int
) -> None:
    text = f"""program p(X: {given}[i=N], I: i64[i=N]) -> (Y) {{
      Y: {result}[v=2][I[i]] = {reducer}[i] X[i]
    }}"""
    x = np.array(values, {"f32": "f4", "u8": "u1", "i32": "i4"}[given])
    assert run(text, X=x, I=np.ones(3, np.int64))["Y"][1] == expected


def test_scattered_argmax_takes_the_first_point_even_if_it_is_the_identity(run: Any) -> None:
    text = """program p(X: f32[i=N], I: i64[i=N]) -> (V, P) {
      (V: f32[v=4], P: i64[v=4])[I[i]] = argmax[i] (X[i], iota(i) + 5)
    }"""
    x = np.array([-np.inf, -np.inf, 3, np.nan, np.nan], np.float32)
    found = run(text, X=x, I=np.array([1, 1, 2, 2, 2]))
    check(found["V"], [-np.inf, -np.inf, np.nan, -np.inf])
    assert found["P"].tolist() == [0, 5, 8, 0]


def test_a_scatter_by_an_index_of_an_inner_reduction(run: Any) -> None:
    text = """program p(X: f32[i=N, j=M], I: i64[j=M]) -> (Y) {
      Y: f32[v=3][I[j]] = max[i] sum[j] X[i, j]
    }"""
    expected = [(X[:, 0] + X[:, 3]).max(), -np.inf, (X[:, 1] + X[:, 2]).max()]
    check(run(text, X=X, I=np.array([0, 2, 2, 0]))["Y"], expected)


def test_a_scatter_leaves_out_points_that_the_condition_never_reaches(run: Any) -> None:
    text = """program p(X: f32[i=N, j=M], I: i64[i=N]) -> (Y) {
      Y: f32[v=4][I[i]] = max[i] sum[j] X[i, j] if X[i, j] < -2.0
    }"""
    check(run(text, X=X, I=np.array([0, 1, 2]))["Y"], [-np.inf, -5, -5, -np.inf])


# ---- order


def test_a_fold_without_laws_keeps_the_order_of_its_indices(run: Any) -> None:
    text = """monoid late: f32 { identity 0.0; combine(a, b) = a * 0.5 + b }
    program p(X: f32[i=N, j=M]) -> (A, B) {
      A[] = late[i, j] X[j, i]
      B[] = late[i] late[j] X[j, i]
    }"""

    def late(values: Any) -> float:
        total = 0.0
        for value in values:
            total = total * 0.5 + value
        return total

    found = run(text, X=X)
    check(found["A"], late(X.T.ravel()))
    check(found["B"], late(late(row) for row in X.T))


def test_ties_of_argmax_go_to_the_first_in_iteration_order(run: Any) -> None:
    text = """program p(X: i32[i=N, j=M]) -> (P) {
      (V, P)[] = argmax[i, j] (X[j, i], 10 * iota(j) + iota(i))
    }"""
    x = np.zeros((3, 4), np.int32)
    x[2, 1] = x[0, 2] = x[1, 1] = 7  # of X[j, i], i = 1 comes first, and in it j = 1
    assert run(text, X=x)["P"] == 11


def test_later_parts_of_a_condition_are_read_where_earlier_ones_hold(run: Any) -> None:
    text = """program p(X: f32[i=N], K: i64[j=M]) -> (Y, Z, S) {
      Y[i] = X[i] if i > 0 and X[i-1] > 0
      Z[j] = X[K[j]] if K[j] >= 0 and K[j] < N and X[K[j]] > 0
      S[]  = max[i] sum[j] X[i] where j < 4 if i > 0 and X[i-1] > iota(j)
    }"""
    found = run(text, X=V, K=np.array([-1, 3, 9, 1]))
    check(found["Y"], [0, -7, 0, 8, 2])
    check(found["Z"], [0, 8, 0, 0])
    check(found["S"], max(-7 * 2, 8 * 1, 2 * 4))


# ---- names, errors, out


def test_a_tensor_may_be_called_like_the_counter_of_a_scan(run: Any) -> None:
    text = """program p(`S.steps`: f32[i=N], X: f32[t=T]) -> (Y) {
      scan t < T from { S[0] = 0.0 } { S[t+1] = S[t] + X[t] } until S[t+1] > 3.0
      Y[i] = `S.steps`[i] * final(S)
    }"""
    check(run(text, **{"S.steps": V, "X": V})["Y"], V * 4)


def test_errors_of_equal_programs_name_their_own_places() -> None:
    texts = [
        f"program p(X: f32[i=N], K: i64[j=M]) -> (Y) {{{gap} Y[j] = X[K[j]] }}"
        for gap in ("", "\n\n\n")
    ]
    inputs = {"X": V, "K": np.array([7])}
    for text, place in zip(texts, ("1:53", "4:9"), strict=True):
        with pytest.raises(RangeError) as caught:
            el.compile(text).run(inputs)
        assert str(caught.value) == (f"<text>:{place}: index K[j] of X is 7, rank 0 has extent 5")


@pytest.mark.parametrize(
    ("second", "error", "message"),
    [
        (np.zeros(2, "f4"), ShapeError, "out for Z has shape (2,), not ()"),
        (np.zeros((), "i4"), DTypeError, "out for Z is int32, the result is float32"),
        (3.0, DTypeError, "out for Z is a float, not an array"),
        (np.broadcast_to(np.float32(0), ()), EinloomError, "out for Z is read-only"),
    ],
)
def test_no_out_is_touched_when_one_does_not_fit(
    second: Any, error: type[EinloomError], message: str
) -> None:
    text = "program p(X: f32[i=N]) -> (Y, Z) { Y[i] = X[i]; Z[] = sum[i] X[i] }"
    first = np.zeros(5, np.float32)
    with pytest.raises(error) as caught:
        el.compile(text)(V, out=(first, second))
    assert str(caught.value) == message
    assert not first.any()


def test_cells_of_a_ring_are_cleared() -> None:
    """A state of which only the last is read forgets what its slot held before."""
    module = el.parse(
        "program p(X: f32[t=T]) -> (Y) {\n"
        "  scan t < T from { S: f32[t=T+1, j=5][0, 2] = 1.0 } "
        "{ S[t+1, 3] = S[t, 2] + S[t, 3] * X[t] }\n"
        "  Y[j] = final(S)[j]\n}\n"
    )
    inputs = {"X": np.arange(1, 5, dtype=np.float32)}
    for results in (el.compile(module).run(inputs), el.interpret(module, inputs)):
        assert results["Y"].tolist() == [0, 0, 0, 24, 0]


def test_folds_without_laws_differ_by_the_order_of_their_indices() -> None:
    module = el.parse(
        "monoid m: f32 {\n  identity 0.0\n  combine(a, b) = a * 2.0 + b\n}\n"
        "program p(X: f32[i=I, j=I]) -> (D, E) {\n"
        "  D[] = m[i, j] X[j, i]\n  E[] = m[i, j] X[i, j]\n}\n"
    )
    inputs = {"X": np.arange(9, dtype=np.float32).reshape(3, 3)}
    expected = {"D": 946.0, "E": 502.0}
    assert el.compile(module).run(inputs) == expected
    assert el.interpret(module, inputs) == expected
