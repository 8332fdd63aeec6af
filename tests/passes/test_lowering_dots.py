"""Products of narrow dtypes by dot instructions against NumPy: edges of every block, full range."""

from __future__ import annotations

from dataclasses import replace
from itertools import product as every
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

import einloom as el
from einloom.backends.cpu import compile as cpu
from einloom.backends.cpu.threads import ThreadPool
from einloom.ir.loops import Dot
from einloom.ir.machine import Machine
from einloom.ir.node import postorder
from einloom.ir.program import Module
from einloom.passes.lowering import OperandLayout, lower
from einloom.passes.lowering.products.blocking import Blocking
from einloom.passes.lowering.products.plan import blockings_of
from tests.passes.test_lowering_products import SHAPES, SIZES, STRUCTURES, run

Array = np.ndarray[Any, Any]

# Blocks so small that a few dozen cells reach every edge of every loop.
TINY = Blocking(4, 2, 4, depth=8, block_rows=64, block_columns=16, terms=4)
WIDE = Blocking(8, 3, 16, depth=64, block_rows=64, block_columns=48, terms=4)
PAIRS = Blocking(4, 2, 4, depth=8, block_rows=64, block_columns=16, terms=2)
MACHINE = Machine(64, 32, 32 << 10, 1 << 20, byte_dots=True, bfloat_dots=True)
BODIES = {
    "plain": ("A[i,k]", "B[k,j]"),
    "right transposed": ("A[i,k]", "B[j,k]"),
    "left transposed": ("A[k,i]", "B[k,j]"),
    "both transposed": ("A[k,i]", "B[j,k]"),
    "flipped": ("B[j,k]", "A[i,k]"),
}
NUMPY = {"i8": np.int8, "u8": np.uint8}


def compiled(module: Module, blocking: Blocking, layouts: Any = None) -> Any:
    program = lower(module, layouts, blockings=dict.fromkeys(module.outputs, blocking))
    assert any(isinstance(part, Dot) for f in program.functions for part in postorder(f))
    kernels = cpu.from_payload(cpu.compile_payload(program))
    assert kernels is not None
    return kernels


def tensor(name: str, dtype: str, labels: str) -> str:
    return f"{name}: {dtype}[{', '.join(f'{r}={r.upper()}' for r in labels)}]"


def bytes_of(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    """Numbers of the full range, the least and the greatest among them often."""
    rng = np.random.default_rng(seed)
    low, high = np.iinfo(NUMPY[dtype]).min, np.iinfo(NUMPY[dtype]).max
    plain = rng.integers(low, high, shape, NUMPY[dtype], endpoint=True)
    return np.where(rng.random(shape) < 0.4, rng.choice([low, high], shape), plain).astype(
        NUMPY[dtype]
    )


@pytest.mark.parametrize(
    "form,left,right,blocking",
    [
        *((form, *dtypes, TINY) for form in BODIES for dtypes in every(NUMPY, NUMPY)),
        *((form, "i8", "i8", WIDE) for form in BODIES),
    ],
)
def test_bytes_in_every_orientation_and_size(
    form: str, left: str, right: str, blocking: Blocking
) -> None:
    first, second = BODIES[form]
    names = ("B", "A") if form == "flipped" else ("A", "B")
    inputs = [tensor(n, d, s) for n, d, s in zip(names, (left, right), SHAPES[form], strict=True)]
    module = el.parse(
        f"program p({', '.join(inputs)}) -> (Y) {{ Y[i,j] = i32({first}) * i32({second}) }}"
    )
    kernels = compiled(module, blocking)
    for seed, sizes in enumerate([*SIZES, {"i": 9, "j": 49, "k": 131}]):
        operands = [
            bytes_of(tuple(sizes[r] for r in labels), dtype, 2 * seed + n)
            for n, (labels, dtype) in enumerate(zip(SHAPES[form], (left, right), strict=True))
        ]
        symbols = {name.upper(): size for name, size in sizes.items()}
        found = run(kernels, dict(zip(names, operands, strict=True)), symbols)
        a, b = SHAPES[form]
        wide = [x.astype(np.int64) for x in operands]
        expected = np.einsum(f"{a},{b}->ij", *wide)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected, err_msg=str(sizes))


def test_sums_of_extremes_wrap() -> None:
    """-128 * -128 summed 2^17 + 1 times is 2^31 + 2^14, which i32 holds as a negative number."""
    module = el.parse(
        "program p(A: i8[i=I,k=K], B: i8[k=K,j=J]) -> (Y) { Y[i,j] = i32(A[i,k]) * i32(B[k,j]) }"
    )
    terms = (1 << 17) + 1
    a, b = np.full((5, terms), -128, np.int8), np.full((terms, 17), -128, np.int8)
    b[:, 3] = 127
    for blocking in (WIDE, replace(WIDE, depth=1536)):
        kernels = compiled(module, blocking)
        found = run(kernels, {"A": a, "B": b}, {"I": 5, "K": terms, "J": 17})
        expected = np.full((5, 17), terms * 2**14, np.int64)
        expected[:, 3] = terms * -128 * 127
        np.testing.assert_array_equal(found, expected.astype(np.int32))
        assert found[0, 0] == -(2**31) + 2**14


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_many_indices_in_every_role(structure: str, strided: bool) -> None:
    left, right, result = STRUCTURES[structure]
    module = el.parse(
        f"program p({tensor('A', 'i8', left)}, {tensor('B', 'i8', right)}) -> (Y) "
        f"{{ Y[{','.join(result)}] = i32(A[{','.join(left)}]) * i32(B[{','.join(right)}]) }}"
    )
    layouts = {
        name: OperandLayout((None,) * len(labels)) for name, labels in (("A", left), ("B", right))
    }
    kernels = compiled(module, TINY, layouts if strided else None)
    for seed, (i, j, k, other) in enumerate([(5, 9, 3, 2), (8, 16, 8, 1), (17, 3, 11, 3)]):
        sizes = {"i": i, "j": j, "k": k, **dict.fromkeys("abclm", other)}
        a, b = (
            bytes_of(tuple(sizes[r] for r in labels), "i8", 2 * seed + n)
            for n, labels in enumerate((left, right))
        )
        if strided:
            a, b = (np.repeat(x, 2, axis=-1)[..., ::2] for x in (a, b))
        found = run(kernels, {"A": a, "B": b}, {n.upper(): s for n, s in sizes.items()})
        wide = [x.astype(np.int64) for x in (a, b)]
        np.testing.assert_array_equal(found, np.einsum(f"{left},{right}->{result}", *wide))


@pytest.mark.parametrize(
    "operands,body,result",
    [
        (("i8", "i8"), "A[i,k] * B[k,j]", np.int8),
        (("u8", "u8"), "A[i,k] * B[k,j]", np.uint8),
        (("i8", "i8"), "i16(A[i,k]) * i16(B[k,j])", np.int16),
        (("u8", "i8"), "i32(A[i,k]) * i32(i16(B[k,j]))", np.int32),
        (("u8", "u8"), "u32(A[i,k]) * u32(u16(B[k,j]))", np.uint32),
        (("i8", "i8"), "i32(A[i,k]) * B[k,j]", np.int32),
        (("i8", "i8"), "i32(A[i,k] * A[i,k]) * i32(B[k,j])", np.int32),
    ],
)
def test_conversions_and_narrower_results(
    operands: tuple[str, str], body: str, result: Any
) -> None:
    inputs = f"{tensor('A', operands[0], 'ik')}, {tensor('B', operands[1], 'kj')}"
    module = el.parse(f"program p({inputs}) -> (Y) {{ Y[i,j] = {body} }}")
    kernels = compiled(module, TINY)
    a, b = bytes_of((13, 39), operands[0], 1), bytes_of((39, 21), operands[1], 2)
    found = run(kernels, {"A": a, "B": b}, {"I": 13, "K": 39, "J": 21})
    first = a * a if "A[i,k] * A" in body else a
    expected = first.astype(np.int64) @ b.astype(np.int64)
    assert found.dtype == result
    np.testing.assert_array_equal(found, expected.astype(result))


def test_padding_and_gathers_are_packed() -> None:
    module = el.parse(
        "program p(X: i8[b=B,w=W], F: i8[r=R,j=J], idx: i64[i=I]) -> (Y, Z) {\n"
        "  Y[b,p,j] = i32(X?(0)[b, 2*p + r - 1]) * i32(F[r,j]) where b < B, p < ceil(W/2)\n"
        "  Z[i,j] = sum[r] i32(F[r, idx[i]]) * i32(F[r,j])\n"
        "}"
    )
    kernels = compiled(module, TINY)
    x, f = bytes_of((3, 21), "i8", 3), bytes_of((5, 19), "i8", 4)
    index = np.random.default_rng(5).integers(0, 19, 13)
    arrays = {"X": x, "F": f, "idx": index}
    prepared = kernels.prepare(arrays, {"B": 3, "W": 21, "R": 5, "J": 19, "I": 13})
    storages = prepared.allocate()
    prepared.run([*(arrays[n] for n in prepared.inputs), *storages], ThreadPool(), 1)
    made = {s.name: a for s, a in zip(prepared.storages, storages, strict=True)}
    padded = np.pad(x, ((0, 0), (1, 8))).astype(np.int64)
    windows = np.stack([padded[:, 2 * p : 2 * p + 5] for p in range(11)], axis=1)
    wide = f.astype(np.int64)
    np.testing.assert_array_equal(made["Y"], windows @ wide)
    np.testing.assert_array_equal(made["Z"], wide[:, index].T @ wide)


@pytest.mark.parametrize("body", ["A[i,k] * B[k,j]", "f32(A[i,k]) * f32(B[k,j])"])
def test_bfloats_are_summed_in_f32(body: str) -> None:
    module = el.parse(f"program p(A: bf16[i=I,k=K], B: bf16[k=K,j=J]) -> (Y) {{ Y[i,j] = {body} }}")
    rng = np.random.default_rng(6)
    for blocking in (PAIRS, replace(WIDE, terms=2)):
        kernels = compiled(module, blocking)
        for i, j, k in [(1, 1, 1), (5, 9, 9), (67, 17, 25), (65, 50, 131), (5, 0, 5), (5, 5, 0)]:
            a, b = rng.standard_normal((i, k)), rng.standard_normal((k, j))
            a, b = a.astype(bfloat16), b.astype(bfloat16)
            found = run(kernels, {"A": a, "B": b}, {"I": i, "J": j, "K": k})
            wide = [x.astype(np.float64) for x in (a, b)]
            exact, scale = wide[0] @ wide[1], np.abs(wide[0]) @ np.abs(wide[1])
            step = 2.0**-8 * np.abs(exact) if found.dtype == bfloat16 else 0.0
            assert np.all(np.abs(found.astype(np.float64) - exact) <= step + k * 2e-7 * scale)


def test_what_is_lost_of_the_least_bfloats() -> None:
    """Subnormal factors and products may count as zero, which is less than 2^-126 for each term."""
    module = el.parse(
        "program p(A: bf16[i=I,k=K], B: bf16[k=K,j=J]) -> (Y) { Y[i,j] = f32(A[i,k])*f32(B[k,j]) }"
    )
    kernels = compiled(module, PAIRS)
    a, b = np.full((5, 9), 2.0**-130, bfloat16), np.ones((9, 9), bfloat16)
    a[3], b[:, 4] = 2.0**-70, 2.0**-70
    found = run(kernels, {"A": a, "B": b}, {"I": 5, "K": 9, "J": 9})
    exact = a.astype(np.float64) @ b.astype(np.float64)
    assert np.all(np.abs(found - exact) <= 9 * 2.0**-126 + 1e-6 * exact)


def test_the_number_of_threads_changes_no_bit() -> None:
    module = el.parse(
        "program p(A: bf16[i=I,k=K], B: bf16[k=K,j=J]) -> (Y) { Y[i,j] = A[i,k]*B[k,j] }"
    )
    kernels = compiled(module, PAIRS)
    rng = np.random.default_rng(7)
    a, b = (rng.standard_normal(s).astype(bfloat16) for s in ((150, 70), (70, 130)))
    symbols = {"I": 150, "K": 70, "J": 130}
    alone = run(kernels, {"A": a, "B": b}, symbols)
    for threads in (2, 3, 8):
        assert run(kernels, {"A": a, "B": b}, symbols, threads).tobytes() == alone.tobytes()


def test_factors_of_f32_are_rounded_once() -> None:
    module = el.parse(
        "program p(A: f32[i=I,k=K], B: f32[k=K,j=J]) -> (Y, Z)"
        "{ Y[i,j] = A[i,k]*B[k,j]\n Z[i,j] = sum[k] A[i,k]*B[j,k] }"
    )
    kernels = compiled(module, PAIRS)
    rng = np.random.default_rng(8)
    for n in (1, 5, 67, 131):
        a = rng.standard_normal((n, n)).astype(np.float32)
        arrays = {"A": a, "B": a[::-1].copy()}
        prepared = kernels.prepare(arrays, {"I": n, "J": n, "K": n})
        storages = prepared.allocate()
        prepared.run([*(arrays[x] for x in prepared.inputs), *storages], ThreadPool(), 1)
        first, second = (arrays[x].astype(bfloat16).astype(np.float64) for x in "AB")
        scale = np.abs(first) @ np.abs(second)
        made = {s.name: found for s, found in zip(prepared.storages, storages, strict=True)}
        assert np.all(np.abs(made["Y"] - first @ second) <= n * 2e-7 * scale)
        scale = np.abs(first) @ np.abs(second.T)
        assert np.all(np.abs(made["Z"] - first @ second.T) <= n * 2e-7 * scale)


def test_rounding_is_asked_for() -> None:
    module = el.parse(
        "program p(A: f32[i=I,k=K], B: bf16[k=K,j=J]) -> (Y) { Y[i,j] = A[i,k] * f32(B[k,j]) }"
    )
    sizes = {"I": 96, "J": 96, "K": 96}
    for machine, rounding, terms in [
        (MACHINE, True, 2),
        (MACHINE, False, 1),
        (replace(MACHINE, bfloat_dots=False), True, 1),
    ]:
        cut = blockings_of(module, {}, sizes, machine, rounding)["Y"]
        assert isinstance(cut, Blocking) and cut.terms == terms


def planned(body: str, dtypes: tuple[str, str], machine: Machine, **sizes: int) -> int:
    inputs = f"{tensor('A', dtypes[0], 'ik')}, {tensor('B', dtypes[1], 'kj')}"
    module = el.parse(f"program p({inputs}) -> (Y) {{ Y[i,j] = {body} }}")
    cut = blockings_of(module, {}, {"I": 96, "J": 96, "K": 96, **sizes}, machine)["Y"]
    assert isinstance(cut, Blocking)
    return cut.terms


WIDENED = "i32(A[i,k]) * i32(B[k,j])"
PLAIN = "A[i,k] * B[k,j]"


@pytest.mark.parametrize(
    "body,dtypes,terms",
    [
        (WIDENED, ("i8", "i8"), 4),
        (WIDENED, ("u8", "i8"), 4),
        (PLAIN, ("i8", "i8"), 4),
        ("i32(u16(A[i,k])) * i32(B[k,j])", ("i8", "i8"), 1),  # -1 becomes 65535
        ("i64(A[i,k]) * i64(B[k,j])", ("i8", "i8"), 1),
        (WIDENED, ("i16", "i8"), 1),
        ("max[k] i32(A[i,k]) * i32(B[k,j])", ("i8", "i8"), 1),
        ("sum[k] i32(A[i,k]) - i32(B[k,j])", ("i8", "i8"), 1),
        (PLAIN, ("bf16", "bf16"), 2),
        ("f32(A[i,k]) * f32(B[k,j])", ("bf16", "bf16"), 2),
        (PLAIN, ("f32", "f32"), 1),
        (PLAIN, ("f16", "f16"), 1),
        (PLAIN, ("bf16", "f32"), 1),
    ],
)
def test_what_is_computed_by_dots(body: str, dtypes: tuple[str, str], terms: int) -> None:
    assert planned(body, dtypes, MACHINE) == terms
    assert planned(body, dtypes, Machine(64, 32)) == 1


def test_blockings_of_dots() -> None:
    assert planned(WIDENED, ("i8", "i8"), replace(MACHINE, byte_dots=False)) == 1
    assert planned(PLAIN, ("bf16", "bf16"), replace(MACHINE, bfloat_dots=False)) == 1
    assert planned(WIDENED, ("i8", "i8"), MACHINE, K=3, J=8192) == 1
    module = el.parse(
        "program p(A: i8[i=I,k=K], B: i8[k=K,j=J]) -> (Y) { Y[i,j] = i32(A[i,k]) * i32(B[k,j]) }"
    )
    cut = blockings_of(module, {}, {"I": 960, "J": 960, "K": 4000}, MACHINE)["Y"]
    assert isinstance(cut, Blocking)
    assert (cut.lanes, cut.depth, cut.terms) == (16, 2048, 4)
    # the panels of a block have as many bytes as those of f32
    assert cut.depth * cut.block_columns <= 0.3 * MACHINE.second_cache


@pytest.mark.parametrize("strict", [False, True])
def test_subnormal_factors_count_at_most_as_zero(strict: bool) -> None:
    """What docs/einsum.md says of them: VDPBF16PS drops them, strict code never does."""
    exe = el.compile(
        "program p(A: bf16[i=I,k=K], B: bf16[k=K,j=J]) -> (Y) "
        "{ Y[i,j] = f32(A[i,k]) * f32(B[k,j]) }",
        strict=strict,
    )
    a, b = np.full((64, 64), 2.0**-130), np.full((64, 64), 2.0**100)
    a[::2, ::2] = 2.0**-120
    found = exe(a.astype(bfloat16), b.astype(bfloat16))
    dropped = np.where(a < 2.0**-126, 0.0, a) @ b
    assert ((dropped <= found) & (found <= a @ b)).all()
    assert not strict or (found == a @ b).all()
