"""Entry into a program: what binds, what is converted, and every complaint."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from einloom.ir.binding import bind
from einloom.ir.errors import DTypeError, EinloomError, RangeError, ShapeError
from einloom.ir.quantized import QuantizedArray
from einloom.ir.text import parse

TEXT = """program p(A: f32[i=N, j=M], B: f32[j=M, k=N*2], T: extent) -> (C) {
  C[i, k] = A[i, j] * B[j, k] * T
}"""


def arrays(n: int = 2, m: int = 3) -> dict[str, Any]:
    return {"A": np.ones((n, m), np.float32), "B": np.ones((m, 2 * n), np.float32), "T": 4}


def test_symbols_and_arrays() -> None:
    given = arrays()
    bound = bind(parse(TEXT), given)
    assert bound.symbols == {"N": 2, "M": 3, "T": 4}
    assert list(bound.arrays) == ["A", "B"]
    assert bound.arrays["A"] is given["A"]


def test_views_of_any_layout_are_taken_as_they_are() -> None:
    given = arrays()
    given["A"] = np.ones((3, 2), np.float32).T[::-1]
    given["T"] = np.int32(7)
    bound = bind(parse(TEXT), given)
    assert bound.arrays["A"] is given["A"] and bound.symbols["T"] == 7


def message(text: str, given: dict[str, Any], kind: type[EinloomError]) -> str:
    with pytest.raises(kind) as raised:
        bind(parse(text), given)
    return raised.value.message


def test_names() -> None:
    given = arrays()
    del given["B"]
    with pytest.raises(ShapeError) as raised:
        bind(parse(TEXT), given)
    assert str(raised.value) == (
        "<text>:1:29: the input B is missing\n"
        "  program p(A: f32[i=N, j=M], B: f32[j=M, k=N*2], T: extent) -> (C) {\n"
        "                              ^\n"
        "  hint: the program takes A, B, T"
    )
    given = {**arrays(), "beta": np.ones(3)}
    assert message(TEXT, given, ShapeError) == "the program has no input beta"
    module = parse("program p(weights: f32[i=N]) -> (C) { C[i] = weights[i] }")
    with pytest.raises(ShapeError) as near:
        bind(module, {"weight": np.ones(3, np.float32)})
    assert str(near.value) == ("the program has no input weight\n  hint: did you mean weights?")


@pytest.mark.parametrize(
    ("name", "value", "kind", "expected"),
    [
        ("A", np.ones((2, 3)), DTypeError, "A is declared f32, the array is float64"),
        ("A", np.ones(3, np.float32), ShapeError,
         "A takes 2 ranks [i, j], the array has 1: shape (3,)"),
        ("A", np.ones((2, 4), np.float32), ShapeError,
         "M is 4 in rank j of A, but 3 in rank j of B"),
        ("A", np.ones((5, 3), np.float32), ShapeError,
         "rank k of B must have extent 10, it has 4 (N is 5 in rank i of A)"),
        ("T", 2.5, DTypeError, "T is an extent, so it takes one integer"),
        ("T", True, DTypeError, "T is an extent, so it takes one integer"),
        ("T", [1], DTypeError, "T is an extent, so it takes one integer"),
        ("T", -1, ShapeError, "the extent T is -1"),
        ("A", np.ma.masked_array(np.ones((2, 3), np.float32)), DTypeError, "A is a masked array"),
        ("A", QuantizedArray(np.ones((2, 3), np.int8)), DTypeError,
         "A is declared f32, a quantized array is given"),
        ("A", [[1, 2, 3], [4, 5]], ShapeError, None),
        ("A", [[1, 2, "x"], [3, 4, 5]], DTypeError,
         "A is declared f32, which does not hold the values given"),
        ("A", [[1e300] * 3] * 2, DTypeError,
         "A is declared f32, which does not hold the values given"),
        ("A", [[1j] * 3] * 2, DTypeError,
         "A is declared f32, which does not hold the values given"),
    ],
)  # fmt: skip
def test_complaints(name: str, value: object, kind: type[EinloomError], expected: str) -> None:
    given = {**arrays(), name: value}
    found = message(TEXT, given, kind)
    if expected is None:
        assert found.startswith("A is no rectangular array of f32: ")
    else:
        assert found == expected


def test_a_complaint_points_at_the_input_and_says_how_to_convert() -> None:
    with pytest.raises(DTypeError) as raised:
        bind(parse(TEXT), {**arrays(), "B": np.ones((3, 4))})
    assert str(raised.value) == (
        "<text>:1:29: B is declared f32, the array is float64\n"
        "  program p(A: f32[i=N, j=M], B: f32[j=M, k=N*2], T: extent) -> (C) {\n"
        "                              ^\n"
        "  hint: convert it: B.astype('float32')"
    )


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("i8", [1, -128, 127], np.array([1, -128, 127], np.int8)),
        ("u64", [2**64 - 1], np.array([2**64 - 1], np.uint64)),
        ("f32", [0.1, 2, True], np.array([0.1, 2, 1], np.float32)),
        ("f16", [1, 2], np.array([1, 2], np.float16)),
        ("c64", [1, 2.5j], np.array([1, 2.5j], np.complex64)),
        ("bool", [True, False], np.array([True, False])),
        ("zq<17>", [16, 0], np.array([16, 0], np.uint64)),
        ("f64", [], np.zeros(0)),
        ("i32", [], np.zeros(0, np.int32)),
        ("f32", np.arange(3, dtype=">f4"), np.arange(3, dtype=np.float32)),
        ("bf16", [1.5, 3], np.array([1.5, 3], ml_dtypes.bfloat16)),
        ("(f32, i64)", [(1.5, 2)], np.array([(1.5, 2)], "f4,i8")),
    ],
)
def test_python_numbers_are_converted_where_they_fit(
    dtype: str, value: object, expected: np.ndarray[Any, Any]
) -> None:
    text = f"program p(X: {dtype}[i=N]) -> (X) {{ Y[i] = X[i] }}"
    found = bind(parse(text), {"X": value}).arrays["X"]
    assert isinstance(found, np.ndarray) and found.dtype == expected.dtype
    assert found.dtype.isnative and found.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("i8", [128]), ("u8", [-1]), ("i32", [1.0]), ("bool", [1]), ("f32", [1e39]),
     ("i64", [2**63]), ("zq<17>", [-1]), ("u64", [2**64])],
)  # fmt: skip
def test_python_numbers_that_do_not_fit_are_refused(dtype: str, value: list[object]) -> None:
    text = f"program p(X: {dtype}[i=N]) -> (Y) {{ Y[i] = X[i] }}"
    expected = f"X is declared {dtype}, which does not hold the values given"
    assert message(text, {"X": value}, DTypeError) == expected


def test_residues_are_below_the_modulus() -> None:
    text = "program p(X: zq<17>[i=N]) -> (Y) { Y[i] = X[i] }"
    found = message(text, {"X": np.array([3, 17], np.uint64)}, RangeError)
    assert found == "X holds 17, its dtype zq<17> ends before 17"


def test_sizes_that_follow_from_nothing_or_are_negative() -> None:
    text = "program p(X: f32[i=2*N]) -> (Y) { Y[i] = X[i] }"
    found = message(text, {"X": np.ones(4, np.float32)}, ShapeError)
    assert found == "the size of N does not follow from the inputs"
    text = "program p(X: f32[i=N]) -> (Y) { Y: f32[i=N-3][i] = X[i+3] }"
    found = message(text, {"X": np.ones(2, np.float32)}, ShapeError)
    assert found == "rank i of Y has extent -1"
    text = "program p(X: f32[i=N]) -> (Y) { Y = sum[j] 1.0 where j < N - 3 }"
    found = message(text, {"X": np.ones(2, np.float32)}, ShapeError)
    assert found == "index j has extent -1"
    text = "program p(N: extent) -> (Y) { Y: f32[i=4//N][i] = 1.0 }"
    assert message(text, {"N": 0}, ShapeError) == "an extent divides by zero"


def test_what_inference_left_open_is_checked() -> None:
    text = "program p(A: f32[i=N], B: f32[i=M]) -> (C) { C[i] = A[i] * B[i] }"
    ones = np.ones(3, np.float32)
    assert bind(parse(text), {"A": ones, "B": ones}).symbols == {"N": 3, "M": 3}
    found = message(text, {"A": ones, "B": ones[:2]}, ShapeError)
    assert found == "index i has extent N in A, but M in B: 3 and 2"
