"""Packed contractions against NumPy: every role of an index, edges of every block, all dtypes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from itertools import product as every
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.backends.cpu import compile as cpu
from einloom.backends.cpu.launcher import Kernels
from einloom.backends.cpu.threads import ThreadPool
from einloom.ir.extents import evaluate
from einloom.ir.loops import For, Load
from einloom.ir.machine import Machine
from einloom.ir.node import Node, postorder
from einloom.ir.program import Module
from einloom.ir.promotion import numpy_dtype
from einloom.passes.lowering import OperandLayout, lower
from einloom.passes.lowering.products.blocking import Blocking, blocking_for
from einloom.passes.lowering.products.plan import blockings_of

Array = np.ndarray[Any, Any]

# Blocks so small that a few dozen cells reach every edge of every loop.
TINY = Blocking(rows=4, vectors=2, lanes=4, depth=8, block_rows=64, block_columns=16)
ONE_VECTOR = Blocking(rows=8, vectors=1, lanes=8, depth=16, block_rows=64, block_columns=8)

PRODUCT = "program p(A: f32[i=I,k=K], B: f32[k=K,j=J]) -> (Y) { Y[i,j] = A[i,k]*B[k,j] }"
FORMS: dict[str, tuple[str, Callable[..., Array]]] = {
    "plain": ("A[i,k] * B[k,j]", lambda a, b: np.einsum("ik,kj->ij", a, b)),
    "right transposed": ("A[i,k] * B[j,k]", lambda a, b: np.einsum("ik,jk->ij", a, b)),
    "left transposed": ("A[k,i] * B[k,j]", lambda a, b: np.einsum("ki,kj->ij", a, b)),
    "both transposed": ("A[k,i] * B[j,k]", lambda a, b: np.einsum("ki,jk->ij", a, b)),
    "flipped": ("B[j,k] * A[i,k]", lambda b, a: np.einsum("ik,jk->ij", a, b)),
}
SHAPES: dict[str, tuple[str, ...]] = {
    "plain": ("ik", "kj"),
    "right transposed": ("ik", "jk"),
    "left transposed": ("ki", "kj"),
    "both transposed": ("ki", "jk"),
    "flipped": ("jk", "ik"),
}
SIZES = [
    {"i": i, "j": j, "k": k}
    for i, j, k in [
        (1, 1, 1),
        (4, 8, 8),
        (5, 9, 9),
        (3, 7, 17),
        (64, 16, 24),
        (65, 33, 1),
        (67, 17, 25),
        (0, 5, 5),
        (5, 0, 5),
        (5, 5, 0),
    ]
]


def compiled(
    module: Module,
    blocking: Blocking,
    layouts: Mapping[str, OperandLayout] | None = None,
) -> Kernels:
    """Machine code of a program whose every result is a packed contraction."""
    program = lower(module, layouts, blockings=dict.fromkeys(module.outputs, blocking))
    assert any(is_packed(part) for f in program.functions for part in postorder(f))
    kernels = cpu.from_payload(cpu.compile_payload(program))
    assert kernels is not None
    return kernels


def is_packed(part: Node) -> bool:
    return isinstance(part, Load) and part.buffer.startswith("right")


def run(kernels: Kernels, arrays: Mapping[str, Array], symbols: Mapping[str, int],
        threads: int = 1) -> Array:  # fmt: skip
    prepared = kernels.prepare(dict(arrays), dict(symbols))
    storages = prepared.allocate()
    prepared.run([*(arrays[n] for n in prepared.inputs), *storages], ThreadPool(), threads)
    return storages[-1]


def numbers(shape: tuple[int, ...], dtype: Any, seed: int) -> Array:
    """Small integers, whose sums of products are exact in every dtype but the 8-bit ones."""
    return np.random.default_rng(seed).integers(0, 4, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["f32", "f64", "i8", "u16", "i32", "i64", "f16", "bf16"])
@pytest.mark.parametrize("form", FORMS)
def test_every_orientation_size_and_dtype(form: str, dtype: str) -> None:
    body, reference = FORMS[form]
    names = ("B", "A") if form == "flipped" else ("A", "B")
    ranks = {
        name: ", ".join(f"{r}={r.upper()}" for r in labels)
        for name, labels in zip(names, SHAPES[form], strict=True)
    }
    inputs = ", ".join(f"{name}: {dtype}[{ranks[name]}]" for name in names)
    module = el.parse(f"program p({inputs}) -> (Y) {{ Y[i,j] = {body} }}")
    kernels = compiled(module, TINY)
    (type_, *_) = (item.type for item in module.inputs)
    assert type_ is not None
    element = numpy_dtype(type_.dtype)
    for seed, sizes in enumerate(SIZES):
        operands = [
            numbers(tuple(sizes[r] for r in labels), element, 2 * seed + k)
            for k, labels in enumerate(SHAPES[form])
        ]
        found = run(
            kernels,
            dict(zip(names, operands, strict=True)),
            {name.upper(): size for name, size in sizes.items()},
        )
        wide = [x.astype(np.int64) for x in operands]
        np.testing.assert_array_equal(found, reference(*wide).astype(element), err_msg=str(sizes))


STRUCTURES = {
    # einsum: (left, right, result), with indices in several roles
    "batch": ("bik", "bkj", "bij"),
    "batch inside": ("ibk", "kbj", "ibj"),
    "batch last": ("ikb", "kjb", "ijb"),
    "two rows": ("aik", "kj", "aij"),
    "two rows apart": ("aik", "kj", "iaj"),
    "two columns": ("ik", "kjc", "ijc"),
    "two columns apart": ("ik", "ckj", "ijc"),
    "two terms": ("ikl", "klj", "ij"),
    "two terms apart": ("kil", "ljk", "ij"),
    "three terms": ("iklm", "mjlk", "ij"),
    "result transposed": ("ik", "kj", "ji"),
    "everything": ("baikl", "lcbkj", "bcaij"),
}


EXTENTS = [(5, 9, 3, 2), (8, 16, 8, 1), (17, 3, 11, 3), (4, 5, 2, 0)]


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_many_indices_in_every_role(structure: str, strided: bool) -> None:
    left, right, result = STRUCTURES[structure]

    def tensor(name: str, labels: str) -> str:
        return f"{name}: f64[{', '.join(f'{r}={r.upper()}' for r in labels)}]"

    module = el.parse(
        f"program p({tensor('A', left)}, {tensor('B', right)}) -> (Y) "
        f"{{ Y[{','.join(result)}] = A[{','.join(left)}] * B[{','.join(right)}] }}"
    )
    layouts = {
        name: OperandLayout((None,) * len(labels)) for name, labels in (("A", left), ("B", right))
    }
    kernels = compiled(module, TINY, layouts if strided else None)
    for seed, (i, j, k, other) in enumerate(
        [(5, 9, 3, 2), (8, 16, 8, 1), (17, 3, 11, 3), (4, 5, 2, 0)]
    ):
        sizes = {"i": i, "j": j, "k": k, **dict.fromkeys("abclm", other)}
        a, b = (
            numbers(tuple(sizes[r] for r in labels), np.float64, 2 * seed + n)
            for n, labels in enumerate((left, right))
        )
        if strided:
            a, b = (np.repeat(x, 2, axis=-1)[..., ::2] for x in (a, b))
        found = run(kernels, {"A": a, "B": b}, {n.upper(): s for n, s in sizes.items()})
        np.testing.assert_array_equal(found, np.einsum(f"{left},{right}->{result}", a, b))


SEMIRINGS: dict[str, tuple[str, Callable[[Array, Array], Array]]] = {
    "max plus": ("max[k] A[i,k] + B[k,j]", lambda a, b: np.max(a[:, :, None] + b, axis=1)),
    "min plus": ("min[k] A[i,k] + B[k,j]", lambda a, b: np.min(a[:, :, None] + b, axis=1)),
    "max min": ("max[k] min(A[i,k], B[k,j])", lambda a, b: np.max(np.minimum(a[:, :, None], b), 1)),
    "max times": ("max[k] A[i,k] * B[k,j]", lambda a, b: np.max(a[:, :, None] * b, axis=1)),
    "distance": ("sum[k] A[i,k] - B[k,j]", lambda a, b: np.sum(a[:, :, None] - b, axis=1)),
    "quotient": ("sum[k] B[k,j] / A[i,k]", lambda a, b: np.sum(b / a[:, :, None], axis=1)),
    "prologue": (
        "exp(A[i,k] - 3) * abs(B[k,j])",
        lambda a, b: np.exp(a - 3) @ np.abs(b),
    ),
    "factors on one side": (
        "A[i,k] * B[k,j] * B[k,j]",
        lambda a, b: a @ (b * b),
    ),
}


@pytest.mark.parametrize("name", SEMIRINGS)
def test_semirings_and_values_computed_while_packing(name: str) -> None:
    body, reference = SEMIRINGS[name]
    module = el.parse(f"program p(A: f64[i=I,k=K], B: f64[k=K,j=J]) -> (Y) {{ Y[i,j] = {body} }}")
    rng = np.random.default_rng(3)
    for blocking in (TINY, ONE_VECTOR):
        kernels = compiled(module, blocking)
        for i, j, k in [(5, 9, 9), (8, 8, 16), (67, 17, 33)]:
            a, b = rng.uniform(1, 2, (i, k)), rng.uniform(-1, 1, (k, j))
            found = run(kernels, {"A": a, "B": b}, {"I": i, "J": j, "K": k})
            np.testing.assert_allclose(found, reference(a, b), rtol=1e-12)


def test_gathers_and_shifts_are_packed() -> None:
    module = el.parse(
        "program p(X: f64[b=B,w=W], F: f64[r=R,j=J], idx: i64[i=I]) -> (Y, Z) {\n"
        "  Y[b,p,j] = X?(0)[b, 2*p + r - 1] * F[r,j] where b < B, p < ceil(W/2)\n"
        "  Z[i,j] = sum[r] F[r, idx[i]] * F[r,j]\n"
        "}"
    )
    kernels = compiled(module, TINY)
    rng = np.random.default_rng(4)
    x, f = rng.standard_normal((3, 21)), rng.standard_normal((5, 19))
    index = rng.integers(0, 19, 13)
    arrays = {"X": x, "F": f, "idx": index}
    prepared = kernels.prepare(arrays, {"B": 3, "W": 21, "R": 5, "J": 19, "I": 13})
    storages = prepared.allocate()
    prepared.run([*(arrays[n] for n in prepared.inputs), *storages], ThreadPool(), 1)
    made = {s.name: a for s, a in zip(prepared.storages, storages, strict=True)}
    padded = np.pad(x, ((0, 0), (1, 8)))
    windows = np.stack([padded[:, 2 * p : 2 * p + 5] for p in range(11)], axis=1)
    np.testing.assert_allclose(made["Y"], windows @ f, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(made["Z"], f[:, index].T @ f, rtol=1e-12, atol=1e-12)


def test_the_number_of_threads_changes_no_bit() -> None:
    module = el.parse(PRODUCT)
    kernels = compiled(module, TINY)
    rng = np.random.default_rng(5)
    a = rng.standard_normal((150, 70), dtype=np.float32)
    b = rng.standard_normal((70, 130), dtype=np.float32)
    symbols = {"I": 150, "K": 70, "J": 130}
    alone = run(kernels, {"A": a, "B": b}, symbols)
    for threads in (2, 3, 8):
        assert run(kernels, {"A": a, "B": b}, symbols, threads).tobytes() == alone.tobytes()


def test_nan_and_infinity_stay_in_their_cells() -> None:
    module = el.parse(PRODUCT)
    kernels = compiled(module, TINY)
    a, b = np.ones((9, 11), np.float32), np.ones((11, 13), np.float32)
    a[8, 10], b[0, 12], b[3, 0] = np.nan, np.inf, -np.inf
    found = run(kernels, {"A": a, "B": b}, {"I": 9, "K": 11, "J": 13})
    with np.errstate(invalid="ignore"):
        expected = np.einsum("ik,kj->ij", a, b)
    np.testing.assert_array_equal(found, expected)


def test_sums_of_many_terms_stay_accurate() -> None:
    module = el.parse(PRODUCT)
    machine = Machine(32, 16)
    blocking = blocking_for(machine, 4, 8, 32, 1 << 17)
    assert blocking is not None
    kernels = compiled(module, blocking)
    a = np.random.default_rng(6).uniform(0, 1, (8, 1 << 17)).astype(np.float32)
    b = np.ones((1 << 17, 32), np.float32)
    found = run(kernels, {"A": a, "B": b}, {"I": 8, "K": 1 << 17, "J": 32})
    exact = a.astype(np.float64).sum(axis=1)[:, None]
    # A running sum of so many terms would be off by some 2e-4.
    assert np.max(np.abs(found / exact - 1)) < 2e-5


@pytest.mark.parametrize("vector_bytes,registers", [(16, 16), (32, 16), (64, 32), (16, 32)])
def test_blockings_fit_their_machines(vector_bytes: int, registers: int) -> None:
    for element, columns in every((1, 2, 4, 8), (64, 100, 1000)):
        machine = Machine(vector_bytes, registers)
        blocking = blocking_for(machine, element, 1000, columns, 1000)
        assert blocking is not None
        sums = blocking.rows * blocking.vectors
        assert sums + blocking.vectors + 1 <= registers
        assert blocking.block_columns % blocking.columns == 0
        assert blocking.block_rows % blocking.rows == 0


def planned(text: str, **sizes: int) -> dict[str, Blocking]:
    found = blockings_of(el.parse(text), {}, sizes, Machine(64, 32))
    return {name: cut for name, cut in found.items() if isinstance(cut, Blocking)}


def test_what_is_packed() -> None:
    assert set(planned(PRODUCT, I=64, J=64, K=64)) == {"Y"}
    assert planned(PRODUCT, I=64, J=96, K=64)["Y"].vectors == 3
    assert planned(PRODUCT, I=64, J=64, K=64)["Y"].vectors == 2
    assert planned(PRODUCT, I=3, J=6400, K=640)["Y"].rows == 4
    assert planned(PRODUCT, I=2, J=1 << 20, K=2)["Y"].rows == 2
    assert planned(PRODUCT, I=640, J=640, K=10)["Y"].depth == 16


@pytest.mark.parametrize(
    "text",
    [
        "program p(A: f32[i=64,k=64], B: f32[k=64]) -> (Y) { Y[i] = A[i,k]*B[k] }",
        "program p(A: f32[i=8,k=8], B: f32[k=8,j=8]) -> (Y) { Y[i,j] = A[i,k]*B[k,j] }",
        "program p(A: c64[i=64,k=64], B: c64[k=64,j=64]) -> (Y) { Y[i,j] = A[i,k]*B[k,j] }",
        "program p(A: f32[i=64,k=64], B: f32[k=64,j=64]) -> (Y) "
        "{ Y[i,j] = A[i,k]*B[k,j] if k < i }",
        "program p(A: f32[i=64,k=64], B: f32[i=64,k=64]) -> (Y) { Y[i] = A[i,k]*B[i,k] }",
        "program p(A: f32[i=64,k=64], B: f32[k=64,j=64]) -> (Y) "
        "{ Y[i,i] = sum[k,j] A[i,k]*B[k,j] }",
    ],
)
def test_what_is_not_packed(text: str) -> None:
    assert planned(text) == {}


def test_the_loops_of_a_packed_product_are_parallel_over_blocks() -> None:
    sizes = {"I": 512, "K": 512, "J": 512}
    module = el.parse(PRODUCT)
    blockings = blockings_of(module, {}, sizes, Machine(64, 32, 32 << 10, 1 << 20))
    program = lower(module, blockings=blockings)
    (outer,) = program.functions[0].body
    assert isinstance(outer, For) and outer.kind == "parallel"
    slices = program.launches[0].slices
    assert slices is not None and evaluate(slices, sizes) >= 8


def test_ranks_of_extent_1_do_not_make_strangers_neighbours() -> None:
    rng = np.random.default_rng(9)
    whole = rng.random((64, 5, 1, 10))[..., :3]
    cases: list[tuple[str, Array, Array]] = [
        ("iabc,abcj->ij", whole, rng.random((5, 1, 3, 64))),
        ("abck,kj->abcj", rng.random((5, 64, 10, 64))[:, :1, :3], rng.random((64, 64))),
        ("iab,abj->ij", rng.random((64, 64, 1, 10))[..., 0], rng.random((64, 1, 64))),
        ("iab,abj->ij", np.broadcast_to(rng.random((1, 1, 1)), (64, 64, 1)), np.ones((64, 1, 64))),
        ("iabc,abcj->ij", np.repeat(whole, 2, axis=1)[:, ::2], rng.random((5, 1, 3, 64))),
        ("abi,abj->ij", rng.random((8, 16, 70))[:, ::2, ::2], rng.random((8, 16, 40))[:, 1::2]),
    ]
    for spec, a, b in cases:
        expected = np.einsum(spec, a, b)
        np.testing.assert_allclose(el.einsum(spec, a, b), expected, rtol=1e-12, err_msg=spec)
        flipped = np.asfortranarray(b)
        np.testing.assert_allclose(el.einsum(spec, a, flipped), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "dtypes,body",
    [
        (("i8", "i64", "i8"), "sum[k] A[i,k] + B[k,j] + C[i,k]"),
        (("i8", "i64", "i8"), "max[k] A[i,k] * B[k,j] * C[i,k]"),
        (("i8", "f32", "i8"), "sum[k] A[i,k] * B[k,j] * C[i,k]"),
        (("u8", "i8", "u8"), "sum[k] A[i,k] * B[k,j] * C[i,k]"),
        (("i32", "i32", "i32"), "max:i8[k] A[i,k] * B[k,j]"),
        (("i32", "i32", "i32"), "min:i8[k] A[i,k] * B[k,j] * C[i,k]"),
        (("i16", "i16", "i16"), "sum:i32[k] A[i,k] * B[k,j] * C[i,k]"),
    ],
)
def test_products_are_computed_in_the_dtypes_of_the_program(
    dtypes: tuple[str, str, str], body: str
) -> None:
    a, b, c = dtypes
    module = el.parse(
        f"program p(A: {a}[i=40,k=50], B: {b}[k=50,j=60], C: {c}[i=40,k=50]) -> (Y) "
        f"{{ Y[i,j] = {body} }}"
    )
    rng = np.random.default_rng(10)
    arrays = {
        item.name: rng.integers(0, 120, (50, 60) if item.name == "B" else (40, 50)).astype(
            numpy_dtype(item.type.dtype)
        )
        for item in module.inputs
        if item.type is not None
    }
    (expected,) = el.interpret(module, arrays).values()
    for blocking in (TINY, ONE_VECTOR):
        found = run(compiled(module, blocking), arrays, {})
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("machine", [Machine(16, 16), Machine(32, 16), Machine(64, 32)])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_real_blockings_at_the_edges_of_their_blocks(machine: Machine, dtype: str) -> None:
    module = el.parse(PRODUCT.replace("f32", dtype))
    blocking = blocking_for(machine, numpy_dtype(module_dtype(module)).itemsize, 100, 100, 1000)
    assert blocking is not None
    kernels = compiled(module, blocking)
    rows, columns, depth = blocking.rows, blocking.columns, blocking.depth
    for i, j, k in [
        (rows - 1, columns + 1, depth - 1),
        (64 + 1, blocking.block_columns + 1, 7),
        (65, columns, depth + 5),
        (2 * rows, 2 * columns - 1, 2 * depth),
    ]:
        a, b = numbers((i, k), numpy_dtype(module_dtype(module)), i), numbers((k, j), "f8", j)
        b = b.astype(a.dtype)
        found = run(kernels, {"A": a, "B": b}, {"I": i, "J": j, "K": k})
        np.testing.assert_array_equal(found, a @ b)


def module_dtype(module: Module) -> Any:
    (type_, *_) = (item.type for item in module.inputs)
    assert type_ is not None
    return type_.dtype


def test_packed_products_run_on_threads_with_small_stacks() -> None:
    rng = np.random.default_rng(11)
    a, b = rng.random((600, 600), np.float32), rng.random((600, 600), np.float32)
    found: list[Array] = []
    before = threading.stack_size(256 << 10)
    try:
        thread = threading.Thread(
            target=lambda: found.append(el.einsum("ki,jk->ij", a, b, order="F"))
        )
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    np.testing.assert_allclose(found[0], a.T @ b.T, rtol=1e-4)
