"""Quantized tensors: every small float code against ml_dtypes, blocks against plain loops."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from einloom.ir.errors import DTypeError, EinloomError, RangeError, ShapeError
from einloom.ir.expressions import Literal
from einloom.ir.interpret import interpret
from einloom.ir.quantized import QuantizedArray, codes_of, decode, scales_of
from einloom.ir.text import parse
from einloom.ir.types import Quantized, Scale, f16, f32, i8


@pytest.mark.parametrize(
    ("code", "peer", "bits"),
    [
        ("e4m3", ml_dtypes.float8_e4m3fn, 8),
        ("e5m2", ml_dtypes.float8_e5m2, 8),
        ("e3m4", ml_dtypes.float8_e3m4, 8),
        ("e2m1", ml_dtypes.float4_e2m1fn, 4),
        ("e2m3", ml_dtypes.float6_e2m3fn, 6),
        ("e3m2", ml_dtypes.float6_e3m2fn, 6),
    ],
)
def test_every_float_code(code: str, peer: type, bits: int) -> None:
    codes = np.arange(2**bits, dtype=np.uint8)
    result = decode(Quantized((code,)), QuantizedArray(codes))
    expected = codes.view(peer).astype(np.float32)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(np.signbit(result), np.signbit(expected))


def test_wide_float_codes_follow_ieee() -> None:
    codes = np.arange(2**16, dtype=np.uint16)
    half = decode(Quantized(("e5m10",)), QuantizedArray(codes))
    np.testing.assert_array_equal(half, codes.view(np.float16).astype(np.float32))
    brain = decode(Quantized(("e8m7",)), QuantizedArray(codes))
    np.testing.assert_array_equal(brain, codes.view(ml_dtypes.bfloat16).astype(np.float32))


def test_blocks_scales_and_offset() -> None:
    dtype = Quantized(("i4",), (), (Scale(f16, (1, 3)), Scale(f32)), Scale(i8, (0, 1)))
    random = np.random.default_rng(1)
    codes = random.integers(-8, 8, (4, 7)).astype(np.int8)
    scale = random.standard_normal((4, 3)).astype(np.float16)
    whole = np.array(0.5, np.float32)
    offset = random.integers(-3, 4, (1, 7)).astype(np.int8)
    array = QuantizedArray(codes, (scale, whole), offset)
    result, scales = decode(dtype, array), scales_of(dtype, array)
    for i in range(4):
        for j in range(7):
            factor = np.float32(scale[i, j // 3])
            expected = np.float32(int(codes[i, j]) - int(offset[0, j])) * factor * whole
            assert result[i, j] == expected
            assert scales[i, j] == factor * whole
    assert codes_of(dtype, array).dtype == np.int64
    np.testing.assert_array_equal(codes_of(dtype, array), codes)


def test_tables_and_selectors() -> None:
    table = tuple(Literal(x) for x in (-1.0, 0.0, 0.25, 8.0))
    dtype = Quantized(("table", "i3"), table, (), None, (2,))
    codes = np.array([3, 2, -4, 3, 1], np.int8)
    array = QuantizedArray(codes, selector=np.array([0, 1, 0], np.uint8))
    assert decode(dtype, array).tolist() == [8.0, 0.25, -4.0, 3.0, 0.0]


TEXT = """
program p(W: q<i4, scale=f16@1x2, offset=i8>[i=N, j=M], x: f32[j=M]) -> (Y, C, S, Z) {
  Y[i] = W[i, j] * x[j]
  C[i, j] = codes(W)[i, j]
  S[i, j] = scales(W)[i, j]
  Z: f32[i=N, j=M][i, j] = W?(7)[i, j + 1]
}
"""


def test_programs_read_real_values_codes_and_scales() -> None:
    random = np.random.default_rng(2)
    codes = random.integers(-8, 8, (3, 5)).astype(np.int8)
    scale = random.standard_normal((3, 3)).astype(np.float16)
    x = random.standard_normal(5).astype(np.float32)
    given = QuantizedArray(codes, (scale,), np.array(1, np.int8))
    result = interpret(parse(TEXT), {"W": given, "x": x})
    spread = np.repeat(scale, 2, 1)[:, :5]
    real = (codes.astype(np.float32) - 1) * spread.astype(np.float32)
    np.testing.assert_allclose(result["Y"], real @ x, rtol=1e-5)
    np.testing.assert_array_equal(result["C"], codes)
    np.testing.assert_array_equal(result["S"], spread)
    assert result["C"].dtype == np.int64 and result["S"].dtype == np.float16
    np.testing.assert_array_equal(result["Z"][:, :4], real[:, 1:])
    np.testing.assert_array_equal(result["Z"][:, 4], 7)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (np.zeros((3, 5), np.int8), DTypeError,
         "W is declared q<i4, scale=f16@1x2, offset=i8>, ndarray is given"),
        (QuantizedArray(np.zeros((3, 5))), DTypeError, "the codes of W are float64, not integers"),
        (QuantizedArray(np.zeros((3, 5), np.int8)), ShapeError,
         "W has 0 levels of scales, its dtype has 1"),
        (QuantizedArray(np.zeros((3, 5), np.int8), (np.zeros((3, 2), np.float16),)), ShapeError,
         "scale 0 of W has shape (3, 2), it must be (3, 3)"),
        (QuantizedArray(np.zeros((3, 5), np.int8), (np.zeros((3, 3)),)), DTypeError,
         "scale 0 of W is float64, it must be float16"),
        (QuantizedArray(np.zeros((3, 5), np.int8), (np.zeros((3, 3), np.float16),)), ShapeError,
         "W needs an offset"),
        (QuantizedArray(np.full((3, 5), 8), (np.zeros((3, 3), np.float16),),
                        np.zeros((), np.int8)), RangeError,
         "code 8 of W at [0, 0] is outside q<i4, scale=f16@1x2, offset=i8>"),
        (QuantizedArray(np.zeros(3, np.int8)), ShapeError,
         "W takes 2 ranks [i, j], the array has 1: shape (3,)"),
    ],
)  # fmt: skip
def test_components_that_do_not_fit(given: object, kind: type[EinloomError], message: str) -> None:
    with pytest.raises(kind) as raised:
        interpret(parse(TEXT), {"W": given, "x": np.zeros(5, np.float32)})
    assert raised.value.message == message
