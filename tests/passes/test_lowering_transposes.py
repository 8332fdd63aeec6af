"""Maps that read one way and write another, cut into blocks and square tiles."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import permutations
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.backends.cpu.compile import compile_payload, from_payload
from einloom.backends.cpu.threads import shared_pool
from einloom.ir.loops import Transpose
from einloom.ir.machine import Machine
from einloom.ir.node import postorder
from einloom.ir.promotion import numpy_dtype
from einloom.ir.text import parse, parse_loops, show
from einloom.ir.types import Scalar
from einloom.ir.verify import verify_loops
from einloom.passes.lowering import OperandLayout, lower
from einloom.passes.lowering.products.blocking import Blocking, Streaming, Tiling
from einloom.passes.lowering.products.plan import blockings_of
from tests.differential.test_mutations import MISSED, in_child
from tests.differential.test_protected import at_page_end

Array = np.ndarray[Any, Any]

WIDE, NARROW = Machine(64, 32), Machine(32, 16)
SIZES = (0, 1, 3, 4, 5, 8, 9, 13)
DTYPES = (
    "bool", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "f16", "bf16", "f32", "f64",
    "c64", "c128",
)  # fmt: skip


def program(ranks: str, result: str, body: str, dtype: str = "f32") -> str:
    typed = ", ".join(f"{r}={r.upper()}" for r in ranks)
    return f"program p(A: {dtype}[{typed}]) -> (T) {{\n  T[{', '.join(result)}] = {body}\n}}\n"


def copying(ranks: str, result: str, dtype: str = "f32") -> str:
    return program(ranks, result, f"A[{', '.join(ranks)}]", dtype)


class Compiled:
    """A program with its tiles, for any sizes."""

    def __init__(self, text: str, tiling: Tiling) -> None:
        self.ranks = text.split("[")[1].split("]")[0].replace(" ", "").split(",")
        lowered = lower(parse(text), blockings={"T": tiling})
        verify_loops(lowered)
        assert parse_loops(show(lowered)) == lowered
        self.squares = sum(isinstance(part, Transpose) for part in postorder(lowered))
        self.kernels = from_payload(compile_payload(lowered))

    def __call__(self, array: Array, threads: int = 1, **others: Array) -> Array:
        assert self.kernels is not None
        symbols = {
            r.split("=")[1]: n for r, n in zip(self.ranks, array.shape, strict=True) if "=" in r
        }
        prepared = self.kernels.prepare({"A": array, **others}, symbols)
        (result,) = prepared.allocate()
        result.view(np.uint8)[...] = 0x55
        prepared.run([array, *others.values(), result], shared_pool(), threads)
        return result


def numbers(shape: tuple[int, ...], dtype: str) -> Array:
    """All different, as far as the dtype goes."""
    kind = numpy_dtype(Scalar(dtype))
    count = int(np.prod(shape))
    if dtype == "bool":
        return np.random.default_rng(count).integers(0, 2, shape).astype(bool)
    values = np.arange(count) % 251 - (0 if kind.kind == "u" else 100)
    factor = 1 + 2j if kind.kind == "c" else 1
    return (values * factor).astype(kind).reshape(shape)


PERMUTATIONS = [
    ("abcd"[:rank], "".join(order))
    for rank in (2, 3, 4)
    for order in permutations("abcd"[:rank])
    if order[-1] != "abcd"[rank - 1]
]


@pytest.mark.parametrize(("ranks", "result"), PERMUTATIONS, ids=[r for _, r in PERMUTATIONS])
def test_every_permutation_at_every_edge(ranks: str, result: str) -> None:
    """With blocks so small that there are several, the last of them of every size."""
    compiled = Compiled(copying(ranks, result), Tiling(4, 8, 8))
    assert compiled.squares == 1
    order = [ranks.index(name) for name in result]
    rng = np.random.default_rng(len(result))
    shapes = [tuple(rng.choice(SIZES, len(ranks))) for _ in range(30)]
    shapes += [(17, *(2,) * (len(ranks) - 2), 35), (35, *(1,) * (len(ranks) - 2), 16)]
    for shape in shapes:
        array = numbers(shape, "f32")
        for threads in (1, 2):
            np.testing.assert_array_equal(compiled(array, threads), array.transpose(order))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype: str) -> None:
    compiled = Compiled(copying("ij", "ji", dtype), Tiling(8, 16, 16))
    assert compiled.squares == (dtype not in ("c64", "c128"))
    for shape in ((0, 3), (7, 9), (8, 8), (41, 23), (64, 100)):
        array = numbers(shape, dtype)
        np.testing.assert_array_equal(compiled(array), array.T)


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
@pytest.mark.parametrize("source", ["i8", "f32", "f64"])
def test_sides_of_squares_and_rows_of_any_stride(lanes: int, source: str) -> None:
    compiled = Compiled(copying("ij", "ji", source), Tiling(lanes, 32, 16))
    whole = numbers((90, 131), source)
    for view in (whole, whole[::-2], whole[:33], whole[:, 3:50], whole[5:6]):
        np.testing.assert_array_equal(compiled(view), view.T)
    stretched = np.broadcast_to(whole[7], (40, 131))
    np.testing.assert_array_equal(compiled(stretched), stretched.T)


@pytest.mark.parametrize(
    ("source", "body", "target"),
    [
        ("i8", "f32(A[i, j])", "f4"), ("f64", "f32(A[i, j])", "f4"), ("f32", "i16(A[i, j])", "i2"),
        ("bool", "f64(A[i, j])", "f8"), ("i32", "bool(A[i, j])", "?"),
        ("f16", "f32(A[i, j])", "f4"), ("f64", "f64(i32(A[i, j]))", "f8"),
        ("i64", "u8(A[i, j])", "u1"),
    ],
)  # fmt: skip
def test_casts(source: str, body: str, target: str) -> None:
    compiled = Compiled(program("ij", "ji", body, source), Tiling(8, 16, 16))
    assert compiled.squares == 1
    array = numbers((19, 33), source)
    if source == "f64":
        array = array + 0.375
    expected = array.T.astype("i4") if "i32(" in body else array.T
    found = compiled(array)
    assert found.dtype == np.dtype(target)
    np.testing.assert_array_equal(found, expected.astype(target))


EXTREMES = [np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0, -0.0, 127.5, 128.0, -129.0, 255.9, 256.0,
            65520.0, 2.0**31, -(2.0**31), 2.0**63, -(2.0**63), 2.0**64, 1e-40, 6e-8]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "body"),
    [
        ("f64", "i8(A[i, j])"), ("f64", "u64(A[i, j])"), ("f32", "i64(A[i, j])"),
        ("f32", "bool(A[i, j])"), ("f16", "u8(A[i, j])"), ("bf16", "f16(A[i, j])"),
        ("f64", "bf16(A[i, j])"), ("i32", "f32(i8(A[i, j]))"), ("f64", "i8(i64(A[i, j]))"),
        ("u8", "i64(bool(A[i, j]))"), ("f32", "f64(f16(A[i, j]))"),
    ],
)  # fmt: skip
def test_casts_that_change_the_value(source: str, body: str) -> None:
    """One after the other, on vectors as on scalars: wrapped, saturated, rounded."""
    text = program("ij", "ji", body, source)
    compiled = Compiled(text, Tiling(8, 16, 16))
    assert compiled.squares == 1
    kind = numpy_dtype(Scalar(source))
    rng = np.random.default_rng(17)
    with np.errstate(all="ignore"):
        if kind.kind in "iu":
            array = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, (19, 33), kind, True)
        else:
            array = rng.choice(EXTREMES, (19, 33)).astype(kind)
        found, (expected,) = compiled(array), el.interpret(parse(text), {"A": array}).values()
    assert found.dtype == expected.dtype
    if "bf16(" in body:  # NumPy does not know its NaN
        found, expected = found.astype("f4"), expected.astype("f4")
    np.testing.assert_array_equal(found, expected)


def test_bodies_that_compute() -> None:
    text = (
        "program p(A: f64[i=I, j=J], B: f64[j=J, i=I], C: f64[i=I]) -> (T) {\n"
        "  T[j, i] = A[i, j] * 2.0 + B[j, i] - C[i]\n}\n"
    )
    compiled = Compiled(text, Tiling(1, 8, 4))
    assert compiled.squares == 0
    for shape in ((0, 4), (1, 1), (7, 8), (33, 21)):
        rng = np.random.default_rng(shape[0])
        a, b, c = rng.normal(size=shape), rng.normal(size=shape[::-1]), rng.normal(size=shape[0])
        np.testing.assert_array_equal(compiled(a, B=b, C=c), a.T * 2 + b - c)
        np.testing.assert_array_equal(compiled(a, 2, B=b, C=c), a.T * 2 + b - c)


# ---- what is cut, and how -----------------------------------------------------------------

LARGE = dict.fromkeys("ABCDIJK", 256)


@pytest.mark.parametrize(
    ("text", "machine", "sizes", "expected"),
    [
        (copying("ij", "ji"), WIDE, {}, Tiling(16, 128, 64)),
        (copying("ij", "ji"), NARROW, {}, Tiling(8, 128, 64)),
        (copying("ij", "ji"), Machine(), {}, Tiling(4, 128, 64)),
        (copying("ij", "ji", "f64"), WIDE, {}, Tiling(8, 128, 64)),
        (copying("ij", "ji", "f64"), Machine(), {}, Tiling(2, 128, 64)),
        (copying("ij", "ji", "i8"), WIDE, {}, Tiling(16, 128, 32)),
        (copying("ij", "ji", "c128"), WIDE, {}, Tiling(1, 32, 32)),
        (program("ij", "ji", "f64(A[i, j])"), WIDE, {}, Tiling(8, 128, 64)),
        (program("ij", "ji", "exp(A[i, j])"), WIDE, {}, Tiling(1, 32, 32)),
        (program("ij", "ji", "exp(A[i, j])"), WIDE, {"I": 31, "J": 4000}, None),
        (copying("ij", "ji"), WIDE, {"I": 20, "J": 4000}, Tiling(4, 128, 64)),
        (copying("ij", "ji"), WIDE, {"I": 40000, "J": 3}, None),
        (copying("ij", "ji"), WIDE, {"I": 100, "J": 100}, None),
        (copying("ijk", "kji"), WIDE, {"J": 1}, Tiling(16, 128, 64)),
        (copying("ijk", "jik"), WIDE, {}, None),
        (copying("ij", "ij"), WIDE, {}, None),
        (program("ij", "ji", "A[i, j] if i < j"), WIDE, {}, None),
        (program("ij", "ji", "A?(0.0)[i + 1, j] where i < I, j < J"), WIDE, {}, None),
        (program("ij", "ji", "A?(0.0)[i, j] where i < I + 3, j < J"), WIDE, {}, None),
        (program("ijk", "ki", "sum[j] A[i, j, k]").replace("sum", "max"), WIDE, {}, None),
    ],
)
def test_what_is_cut(
    text: str, machine: Machine, sizes: Mapping[str, int], expected: Tiling | None
) -> None:
    found = blockings_of(parse(text), {}, {**LARGE, **sizes}, machine)
    cuts = {name: cut for name, cut in found.items() if not isinstance(cut, Streaming)}
    assert cuts == ({} if expected is None else {"T": expected})


def test_only_unit_strides_are_relied_on() -> None:
    text = parse(copying("ij", "ji"))
    strided = {"A": OperandLayout((None, None))}
    assert blockings_of(text, strided, LARGE, WIDE) == {}
    assert blockings_of(text, {"A": OperandLayout((None, 4), False)}, LARGE, WIDE) != {}


def test_ranks_that_lie_as_one_are_one() -> None:
    """`ab` and `cd` are merged, so that narrow ranks still fill whole tiles."""
    text = parse(copying("abcd", "cdab"))
    few = dict.fromkeys("ABCD", 12)
    assert blockings_of(text, {}, few, WIDE) == {"T": Tiling(16, 128, 64)}
    apart = {"A": OperandLayout((None, None, None, 4), True, (True, False, False, False))}
    assert blockings_of(text, apart, few, WIDE) == {"T": Tiling(4, 128, 64)}
    for layouts in ({}, apart):
        lowered = lower(text, layouts, blockings={"T": Tiling(4, 8, 8)})
        kernels = from_payload(compile_payload(lowered))
        assert kernels is not None
        for shape in ((3, 5, 4, 7), (2, 1, 9, 1), (1, 0, 2, 3)):
            array = numbers(shape, "f32")
            prepared = kernels.prepare({"A": array}, dict(zip("ABCD", shape, strict=True)))
            (found,) = prepared.allocate()
            prepared.run([array, found], shared_pool(), 2)
            np.testing.assert_array_equal(found, array.transpose(2, 3, 0, 1))


# ---- the ways in --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(150, 300), (2, 9000), (131, 257)])
def test_einsum(shape: tuple[int, int]) -> None:
    array = numbers(shape, "f64")
    out = np.empty(shape[::-1])
    assert el.einsum("ij->ji", array, out=out) is out
    np.testing.assert_array_equal(out, array.T)
    found = el.einsum("ij->ji", array, order="C")
    assert found.flags.c_contiguous and not np.shares_memory(found, array)
    np.testing.assert_array_equal(found, array.T)
    cube = array.reshape(5, -1, shape[1] // 2) if shape[0] % 5 == 0 else array[None]
    np.testing.assert_array_equal(el.einsum("ijk->kji", cube, order="C"), cube.transpose(2, 1, 0))


def test_programs_and_unaligned_operands() -> None:
    executable = el.compile(copying("ijk", "kji"))
    array = numbers((40, 7, 90), "f32")
    record = np.zeros(array.shape, np.dtype([("pad", "i1"), ("value", "f4")]))
    record["value"] = array
    raw = np.zeros(array.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(array.shape)
    unaligned[...] = array
    for operand in (array, record["value"], unaligned, np.asfortranarray(array), array[::-1]):
        np.testing.assert_array_equal(executable(operand), operand.transpose(2, 1, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
def test_nothing_outside_the_operands_is_touched() -> None:
    def work() -> None:
        for dtype in ("i8", "f32", "f64", "c128"):
            executable = el.compile(copying("ij", "ji", dtype))
            for shape in ((128, 129), (131, 257), (4, 5000), (5000, 5), (16, 1024)):
                array = at_page_end(numbers(shape, dtype))
                out = at_page_end(numbers(shape[::-1], dtype))
                executable(array, out=out)

    assert in_child(work) == MISSED, "a kernel touched memory outside an operand"


# ---- packing of factors whose terms lie side by side ----------------------------------------

TINY = Blocking(rows=4, vectors=2, lanes=4, depth=8, block_rows=64, block_columns=16)


@pytest.mark.parametrize(("dtype", "squares"), [("f64", 1), ("i32", 1), ("f16", 2), ("bf16", 2)])
def test_factors_are_packed_through_squares(dtype: str, squares: int) -> None:
    """The left factor is read in place, unless its dtype is not the one computed in."""
    text = (
        f"program p(A: {dtype}[b=B, i=I, j=J], C: {dtype}[b=B, k=K, j=J]) -> (T) {{\n"
        "  T[b, i, k] = A[b, i, j] * C[b, k, j]\n}\n"
    )
    lowered = lower(parse(text), blockings={"T": TINY})
    verify_loops(lowered)
    assert sum(isinstance(part, Transpose) for part in postorder(lowered)) == squares
    kernels = from_payload(compile_payload(lowered))
    assert kernels is not None
    rng = np.random.default_rng(7)
    for b, i, k, j in ((2, 5, 9, 3), (1, 4, 8, 4), (2, 13, 17, 21), (1, 1, 1, 40), (3, 3, 19, 0)):
        kind = numpy_dtype(Scalar(dtype))
        left = rng.integers(-3, 4, (b, i, j)).astype(kind)
        right = rng.integers(-3, 4, (b, k, j)).astype(kind)
        expected = left.astype(np.float64) @ right.astype(np.float64).transpose(0, 2, 1)
        prepared = kernels.prepare({"A": left, "C": right}, {"B": b, "I": i, "J": j, "K": k})
        for threads in (1, 2):
            (found,) = prepared.allocate()
            prepared.run([left, right, found], shared_pool(), threads)
            np.testing.assert_array_equal(found.astype(np.float64), expected)
