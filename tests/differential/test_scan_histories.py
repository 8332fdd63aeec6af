"""Tensors of a scan's body read at earlier iterations: compiled, interpreted, and NumPy loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einloom as el

Array = np.ndarray[Any, Any]

X = np.random.default_rng(0).integers(-4, 5, (5, 4)).astype(np.float64)


def _previous(x: Array) -> Array:
    y, b = np.zeros(len(x) + 1), np.zeros(len(x))
    for t in range(len(x)):
        b[t] = 2 * y[t] + x[t, 0]
        y[t + 1] = b[t] - (b[t - 1] if t else 7)
    return y


def _sums(x: Array) -> Array:
    y, b = np.zeros(len(x) + 1), np.zeros(len(x))
    for t in range(len(x)):
        b[t] = x[t].sum() + y[t]
        y[t + 1] = b[: t + 1].sum()
    return y


def _down(x: Array) -> Array:
    steps = len(x)
    y, b = np.zeros(steps + 1), np.zeros(steps)
    for t in reversed(range(steps)):
        b[t] = x[t, 1] + y[t + 1]
        y[t] = b[t] * 2 - (b[t + 1] if t + 1 < steps else 1)
    return y


def _rows(x: Array) -> Array:
    steps, width = x.shape
    y, b = np.zeros((steps + 1, width)), np.zeros((steps, width))
    for t in range(steps):
        for j in range(width):
            b[t, j] = y[t, j] + x[t, j] if x[t, j] > 0 else 0
        before = b[t - 1] if t else np.full(width, 3.0)
        y[t + 1] = b[t] - before[::-1]
    return y


def _nested(x: Array) -> Array:
    steps, width = x.shape
    y, b, c = np.zeros((steps + 1, width + 1)), np.zeros((steps, width)), np.zeros(width)
    for t in range(steps):
        z = np.ones(width + 1)
        for u in range(width):
            b[t, u] = x[t, u] + z[u]
            c[u] = x[t, u] * 2
            above = b[t - 1, u + 1] if t and u + 1 < width else 5
            left = b[t, u - 1] if u else 6
            z[u + 1] = b[t, u] + above - left - (c[u - 1] if u else 0)
        y[t + 1] = z + y[t]
    return y


def _nested_down(x: Array) -> Array:
    steps, width = x.shape
    y, b = np.zeros((steps + 1, width + 1)), np.zeros((steps, width))
    for t in range(steps):
        z = np.ones(width + 1)
        for u in reversed(range(width)):
            b[t, u] = x[t, u] + z[u + 1]
            above = b[t - 1, u - 1] if t and u else 5
            z[u] = b[t, u] + above - (b[t, u + 1] if u + 1 < width else 6)
        y[t + 1] = z + y[t]
    return y


def _ring(x: Array) -> Array:
    y, b = np.zeros(len(x) + 1), np.zeros(3)
    for t in range(len(x)):
        b[t % 3] = x[t, 0]
        y[t + 1] = b.sum()
    return y


def _spaced(x: Array) -> Array:
    y, b = np.zeros(len(x) + 1), np.zeros(2 * len(x))
    for t in range(len(x)):
        b[2 * t + 1] = x[t, 0]
        y[t + 1] = y[t] + b[2 * t] + 10 * b[2 * t + 1] + 100 * (b[2 * t - 1] if t else 0)
    return y


def _unreached(x: Array) -> Array:
    """Cells outside the condition hold the reducer's identity in iterations that ran, and the
    fill value before they run."""
    y, b = np.zeros(len(x) + 1), np.zeros((len(x), x.shape[1]))
    for t in range(len(x)):
        b[t] = 1
        for j in range(x.shape[1]):
            if x[t, j] > 0:
                b[t, j] *= x[t, j]
        y[t + 1] = b[t].sum() + (b[t - 1].sum() if t else 0)
    return y


CASES: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "previous": (
        """scan t < T from { Y: f64[t=T+1][0] = 0 } {
          B: f64[t=T][t] = 2 * Y[t] + X[t, 0]
          Y[t+1] = B[t] - B?(7)[t-1]
        }""",
        _previous,
    ),
    "up to now": (
        """scan t < T from { Y: f64[t=T+1][0] = 0 } {
          A[] = sum[j] X[t, j]
          B: f64[t=T][t] = A + Y[t]
          Y[t+1] = sum[s] B[s] if s <= t
        }""",
        _sums,
    ),
    "down": (
        """scan t < T down from { Y: f64[t=T+1][T] = 0 } {
          B: f64[t=T][t] = X[t, 1] + Y[t+1]
          Y[t] = B[t] * 2 - B?(1)[t+1]
        }""",
        _down,
    ),
    "rows": (
        """scan t < T from { Y: f64[t=T+1, j=J][0, j] = 0 } {
          B: f64[t=T, j=J][t, j] = Y[t, j] + X[t, j] if X[t, j] > 0
          Y[t+1, j] = B[t, j] - B?(3)[t-1, J - 1 - j]
        }""",
        _rows,
    ),
    "nested": (
        """scan t < T from { Y: f64[t=T+1, u=J+1][0, u] = 0 } {
          scan u < J from { Z: f64[u=J+1][0] = 1 } {
            B: f64[t=T, u=J][t, u] = X[t, u] + Z[u]
            C: f64[u=J][u] = X[t, u] * 2
            Z[u+1] = B[t, u] + B?(5)[t-1, u+1] - B?(6)[t, u-1] - C?(0)[u-1]
          }
          Y[t+1, u] = Z[u] + Y[t, u]
        }""",
        _nested,
    ),
    "nested down": (
        """scan t < T from { Y: f64[t=T+1, u=J+1][0, u] = 0 } {
          scan u < J down from { Z: f64[u=J+1][J] = 1 } {
            B: f64[t=T, u=J][t, u] = X[t, u] + Z[u+1]
            Z[u] = B[t, u] + B?(5)[t-1, u-1] - B?(6)[t, u+1]
          }
          Y[t+1, u] = Z[u] + Y[t, u]
        }""",
        _nested_down,
    ),
    "ring": (
        """scan t < T from { Y: f64[t=T+1][0] = 0 } {
          B: f64[s=3][t % 3] = X[t, 0]
          Y[t+1] = sum[s] B[s]
        }""",
        _ring,
    ),
    "spaced": (
        """scan t < T from { Y: f64[t=T+1][0] = 0 } {
          B: f64[s=2*T][2*t + 1] = X[t, 0]
          Y[t+1] = Y[t] + B[2*t] + 10 * B[2*t + 1] + 100 * B?(0)[2*t - 1]
        }""",
        _spaced,
    ),
    "unreached": (
        """scan t < T from { Y: f64[t=T+1][0] = 0 } {
          B: f64[t=T, j=J][t, j] = prod[k] X[t, k] if k == j and X[t, j] > 0
          Y[t+1] = sum[j] B[t, j] + B?(0)[t-1, j]
        }""",
        _unreached,
    ),
}


@pytest.mark.parametrize("length", [5, 1, 0])
@pytest.mark.parametrize("name", list(CASES))
def test_what_an_iteration_computes_stays(name: str, length: int) -> None:
    body, expected = CASES[name]
    module = el.parse(f"program p(X: f64[t=T, j=J]) -> (Y) {{\n{body}\n}}")
    x = X[:length]
    wanted = expected(x)
    np.testing.assert_array_equal(el.interpret(module, {"X": x})["Y"], wanted)
    np.testing.assert_array_equal(el.compile(module).run({"X": x})["Y"], wanted)
    np.testing.assert_array_equal(el.compile(module, pipeline="").run({"X": x})["Y"], wanted)


@pytest.mark.parametrize(
    ("first", "left", "read", "limit"),
    [
        ("", "t", "B?(0)[t+1]", "up to t"),
        ("", "t", "B[T-1]", "up to t"),
        ("", "t + 1", "B?(0)[t+2]", "up to t+1"),
        ("", "2*t", "B?(0)[2*t + 2]", "up to 2*t"),
        ("down", "t", "B?(0)[t-1]", "from t"),
        ("down", "2*t", "B?(0)[2*t - 1]", "from 2*t"),
    ],
)
def test_later_iterations_are_refused(first: str, left: str, read: str, limit: str) -> None:
    start, now, then = ("T", "t", "t+1") if first else ("0", "t+1", "t")
    text = f"""program p(X: f64[t=T]) -> (Y) {{
      scan t < T {first} from {{ Y: f64[t=T+1][{start}] = 0 }} {{
        B: f64[t=2*T+2][{left}] = X[t]
        Y[{now}] = Y[{then}] + {read}
      }}
    }}"""
    with pytest.raises(el.ParseError) as caught:
        el.parse(text)
    (problem,) = caught.value.diagnostics
    assert problem.message == (
        f"{read} is not known to be computed when iteration t of the scan reads it"
    )
    assert problem.suggestion == (
        f"iteration t reads B {limit}: shift the read, or restrict it with if"
    )
    where = problem.location
    assert where is not None and where.source.text[where.start : where.end] == read


def test_a_tensor_of_the_body_is_no_state() -> None:
    text = """program p(X: f64[t=T]) -> (Y) {
      scan t < T from { Y: f64[t=T+1][0] = 0 } {
        B: f64[t=T][t] = X[t] + B?(0)[t-1]
        Y[t+1] = B[t]
      }
    }"""
    with pytest.raises(el.ParseError) as caught:
        el.parse(text)
    assert caught.value.message == "definitions form a cycle: B -> B"
