"""Quantized inputs beside tensors that are named like their components, compiled."""

from __future__ import annotations

import numpy as np

import einloom as el
from einloom.ir.quantized import QuantizedArray

TEXT = """program p(W: q<i4, scale=f32@1x4>[i=2, j=8], `W.codes`: f32[i=2, j=8],
              `W.scales`: f32[i=2], `W.codes_1`: f32[i=2]) -> (Y, Z, A, `W.scales_1`) {
  Y[i] = sum[j] W[i, j] * `W.codes`[i, j]
  Z[i] = `W.scales`[i] * `W.codes_1`[i]
  A[i] = sum[j] codes(W)[i, j] + scales(W)[i, j]
  `W.scales_1`[i] = Z[i] + 1
}"""


def test_components_do_not_collide_with_tensors() -> None:
    source = np.random.default_rng(0)
    codes = source.integers(-8, 8, (2, 8)).astype(np.int8)
    scales = np.array([[0.5, 2.0], [4.0, -1.0]], np.float32)
    of_codes = source.integers(-4, 5, (2, 8)).astype(np.float32)
    of_scales, more = np.array([3, 5], np.float32), np.array([7, 9], np.float32)
    arrays = {
        "W": QuantizedArray(codes, (scales,)),
        "W.codes": of_codes,
        "W.scales": of_scales,
        "W.codes_1": more,
    }
    spread = np.repeat(scales, 4, axis=1)
    expected = {
        "Y": (codes * spread * of_codes).sum(1),
        "Z": of_scales * more,
        "A": (codes + spread).sum(1),
        "W.scales_1": of_scales * more + 1,
    }
    module = el.parse(TEXT)
    for found in (el.interpret(module, arrays), el.compile(module).run(arrays)):
        assert list(found) == list(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)
