"""Names, numbers and dtypes that a text form is likely to get wrong."""

from __future__ import annotations

import struct

from einloom.ir.expressions import Literal
from einloom.ir.types import Quantized, Scalar, Scale, f32

AWKWARD_NAMES = (
    "if", "where", "from", "until", "and", "nan", "inf", "True", "cast", "max", "sum", "argmax",
    "call", "scan", "kernel", "const", "program", "fn", "monoid", "mapping", "layout", "on",
    "iota", "final", "f32", "zq", "q", "extent", "fill", "enc", "down", "tile", "loops",
    "/layer.0/Add:0", "a b", "1abc", "x`y", "back\\slash", "line\nbreak", "tab\t", "\x00", "é",
    "e\u0301", "λ", "变量", "²", "a.b", "-", "bytes", "blob", "sha256", "identity", "complex",
)  # fmt: skip

FLOATS = (
    0.0, -0.0, 1.0, -1.5, 0.1, 1e-30, 1e300, 5e-324, float("inf"), float("-inf"), float("nan"),
    struct.unpack("<d", bytes.fromhex("010000000000f87f"))[0],  # a NaN with a payload
    struct.unpack("<d", bytes.fromhex("000000000000f8ff"))[0],  # a NaN with its sign set
)  # fmt: skip
INTEGERS = (0, 1, -1, 7, 2**31, -(2**63), 2**64 - 1, 10**40)
COMPLEXES = (2j, -2j, 1 + 2j, complex(-0.0, 0.0), complex(0.0, -0.0), complex(float("nan"), 1.0))

QUANTIZED = (
    Quantized(("i4",), (), (Scale(Scalar("f16"), (1, 32)), Scale(f32)), Scale(Scalar("i8"))),
    Quantized(("i4", "e2m1"), (), (Scale(f32, (0, 16)),), None, (1, 32)),
    Quantized(("table",), (Literal(0.0), Literal(-1.0)), (Scale(f32),)),
)
