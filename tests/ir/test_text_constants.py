"""Constants in the text: elements are NumPy's, and every bit pattern survives."""

from __future__ import annotations

from random import Random

import ml_dtypes
import numpy as np
import pytest

from einloom.ir.expressions import Literal, Symbol
from einloom.ir.program import Constant
from einloom.ir.text import parse, show
from einloom.ir.types import Rank, Scalar, TensorType


def constant(type_: str, data: str) -> Constant:
    return only_constant(f"const W: {type_} = {data}")


def only_constant(text: str) -> Constant:
    (statement,) = parse(f"program p(A: f32[i=N]) -> () {{\n{text}\n}}").body
    assert isinstance(statement, Constant)
    return statement


def test_elements_are_what_numpy_makes_of_them() -> None:
    rng = np.random.default_rng(7)
    for name, dtype in (("f16", np.float16), ("f32", np.float32), ("f64", np.float64)):
        values = rng.standard_normal((3, 4)) * 10.0 ** rng.integers(-4, 4, (3, 4))
        made = constant(f"{name}[i=3, j=4]", str(values.tolist()))
        assert made.data == values.astype(dtype).tobytes()
    made = constant("bf16[i=3]", "[0.1, -2, 1e30]")
    assert made.data == np.array([0.1, -2, 1e30]).astype(ml_dtypes.bfloat16).tobytes()
    made = constant("i16[i=2, j=2]", "[[1, -2], [32767, -32768]]")
    assert made.data == np.array([[1, -2], [32767, -32768]], np.int16).tobytes()
    made = constant("c64[i=3]", "[1.5 - 2j, 3, -4.0j]")
    assert made.data == np.array([1.5 - 2j, 3, complex(0, -4)], np.complex64).tobytes()
    made = constant("bool[i=2]", "[True, False]")
    assert made.data == b"\x01\x00"
    made = constant("zq<97>[]", "96")
    assert made.data == (96).to_bytes(8, "little")
    pairs = np.array([(1.0, 2), (-np.inf, 3)], [("f0", np.float32), ("f1", np.int64)])
    made = constant("(f32, i64)[i=2]", "[(1, 2), (-inf, 3)]")
    assert made.data == pairs.tobytes()
    assert constant("f32[i=0, j=3]", "[]").data == constant("f32[i=2, j=0]", "[[], []]").data == b""


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_all_bit_patterns_of_small_floats_round_trip(name: str) -> None:
    data = np.arange(2**16, dtype=np.uint16).tobytes()
    whole = Constant("W", TensorType(Scalar(name), (Rank("i", Literal(2**16)),)), data)
    text = show(whole)
    assert "bytes" not in text
    assert only_constant(text) == whole


def test_bit_patterns_of_wide_floats_round_trip() -> None:
    data = Random(11).randbytes(8 * 5000)
    for name, count in (("f32", 10000), ("f64", 5000), ("c64", 5000), ("c128", 2500)):
        whole = Constant("W", TensorType(Scalar(name), (Rank("i", Literal(count)),)), data)
        text = show(whole)
        assert "bytes" not in text
        assert only_constant(text) == whole


def test_short_decimals_stay_short() -> None:
    assert show(constant("f32[i=3]", "[0.1, 1e10, 3]")).endswith("[0.1, 10000000000.0, 3.0]")
    assert show(constant("f16[i=2]", "[0.1, 2048]")).endswith("[0.1, 2048.0]")


def test_bytes_that_have_no_elements_print_in_hexadecimal() -> None:
    ranks = (Rank("i", Literal(2)),)
    for whole in (
        Constant("W", TensorType(Scalar("bool"), ranks), b"\x02\x01"),
        Constant("W", TensorType(Scalar("i16"), ranks), b"\x02\x01"),
        Constant("W", TensorType(Scalar("i8"), (Rank("i", Symbol("N")),)), b"\x02\x01"),
    ):
        assert show(whole).endswith(' = bytes "0201"')
        assert only_constant(show(whole)) == whole
