"""Packed contractions: values of indices within runs, maps that read cells twice or convert them,
runs of no terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.backends.cpu import compile as cpu
from einloom.backends.cpu.threads import ThreadPool
from einloom.ir.binding import bind
from einloom.ir.loops import LoopProgram
from einloom.passes.lowering import lower
from einloom.passes.lowering.products.blocking import Blocking

Array = np.ndarray[Any, Any]

TINY = Blocking(rows=4, vectors=2, lanes=4, depth=8, block_rows=64, block_columns=16)


def run(text: str, *arrays: Array, packed: str) -> tuple[LoopProgram, dict[str, Array]]:
    """A program with the contraction that defines `packed` in panels, and its results."""
    module = el.parse(text)
    named = dict(zip([item.name for item in module.inputs], arrays, strict=True))
    bound = bind(module, named)
    program = lower(module, blockings={packed: TINY})
    kernels = cpu.from_payload(cpu.compile_payload(program))
    assert kernels is not None
    given = {name: np.asarray(array) for name, array in bound.arrays.items()}
    prepared = kernels.prepare(given, bound.symbols)
    storages = prepared.allocate()
    for storage in storages:
        storage[...] = 99
    operands = [given[name] for name in prepared.inputs]
    prepared.run([*operands, *storages], ThreadPool(), 2)
    return program, {s.name: a for s, a in zip(prepared.storages, storages, strict=True)}


def numbers(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).integers(-4, 5, shape).astype("f8")


@pytest.mark.parametrize(
    ("body", "factors"),
    [  # rows i, j; columns m, n; terms k, l: each two would be one loop, but for the value of one
        ("(A[i,j,k,l] * iota(i)) * B[k,l,m,n]", {"i": 1}),
        ("(A[i,j,k,l] * iota(j)) * B[k,l,m,n]", {"j": 1}),
        ("A[i,j,k,l] * (B[k,l,m,n] * iota(m))", {"m": 1}),
        ("A[i,j,k,l] * (iota(n) * B[k,l,m,n])", {"n": 1}),
        ("(A[i,j,k,l] * iota(k)) * B[k,l,m,n]", {"k": 1}),
        ("A[i,j,k,l] * (B[k,l,m,n] * iota(l))", {"l": 1}),
        ("(A[i,j,k,l] * iota(i)) * (B[k,l,m,n] * iota(m))", {"i": 1, "m": 1}),
    ],
)
def test_values_of_indices_in_what_would_be_one_loop(body: str, factors: dict[str, int]) -> None:
    text = (
        "program p(A: f64[i=I,j=J,k=K,l=L], B: f64[k=K,l=L,m=M,n=N]) -> (Y) {\n"
        f"  Y[i,j,m,n] = sum[k,l] {body}\n}}"
    )
    a, b = numbers(3, 5, 2, 4), numbers(2, 4, 3, 7)
    ranges = {
        name: np.arange(size) for name, size in zip("ijklmn", (3, 5, 2, 4, 3, 7), strict=True)
    }
    named = [ranges[name] for name in factors]
    spec = ",".join(["ijkl", "klmn", *factors])
    _, made = run(text, a, b, packed="Y")
    np.testing.assert_array_equal(made["Y"], np.einsum(f"{spec}->ijmn", a, b, *named))


@pytest.mark.parametrize("name", "ijmn")
def test_values_of_indices_in_maps_of_a_product(name: str) -> None:
    """Alone, the product's rows are one loop, and so are its columns; not with this map."""
    text = (
        "program p(A: f64[i=I,j=J,k=K], B: f64[k=K,m=M,n=N]) -> (H, Y) {\n"
        "  kernel all {\n"
        "    H[i,j,m,n] = A[i,j,k] * B[k,m,n]\n"
        f"    Y[i,j,m,n] = H[i,j,m,n] + iota({name})\n"
        "  } -> (H, Y)\n}"
    )
    a, b = numbers(3, 5, 4), numbers(4, 3, 7)
    program, made = run(text, a, b, packed="H")
    assert len(program.functions) == 1
    h = np.einsum("ijk,kmn->ijmn", a, b)
    np.testing.assert_array_equal(made["H"], h)
    at = np.indices(h.shape)["ijmn".index(name)]
    np.testing.assert_array_equal(made["Y"], h + at)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("H[m,j] + H[j,m]", lambda h: h + h.T),
        ("H[j,m] - 2.0 * H[m,j]", lambda h: h.T - 2 * h),
        ("H[m,j] * H[m,m] + H[j,j]", lambda h: h * np.diag(h)[:, None] + np.diag(h)),
        ("H[m,j] * H[n,j]", lambda h: h[:, :, None] * h.T),
    ],
)
def test_cells_of_a_product_at_two_places(body: str, expected: Any) -> None:
    text = (
        "program p(A: f64[m=M,k=K], B: f64[k=K,j=M]) -> (Y) {\n"
        "  kernel all {\n    H[m,j] = A[m,k] * B[k,j]\n"
        f"    Y[{'m,j,n' if 'n' in body else 'm,j'}] = {body}\n  }} -> (Y)\n}}"
    )
    a, b = numbers(19, 6), numbers(6, 19)
    program, made = run(text, a, b, packed="H")
    assert len(program.functions) == 2
    np.testing.assert_array_equal(made["Y"], expected(a @ b))


def test_a_transposed_map_of_a_product_is_computed_on_its_blocks() -> None:
    text = (
        "program p(A: f64[m=M,k=K], B: f64[k=K,j=M], C: f64[m=M,j=M]) -> (Y) {\n"
        "  kernel all {\n    H[m,j] = A[m,k] * B[k,j]\n"
        "    Y[m,j] = H[j,m] + C[m,j]\n  } -> (Y)\n}"
    )
    a, b, c = numbers(19, 6), numbers(6, 19), numbers(19, 19)
    program, made = run(text, a, b, c, packed="H")
    assert len(program.functions) == 1
    np.testing.assert_array_equal(made["Y"], (a @ b).T + c)


@pytest.mark.parametrize("stored", ["Y", "H, Y", "H, G, Y"])
def test_maps_see_what_is_stored_of_a_product(stored: str) -> None:
    """What a tensor's dtype cannot hold is lost to its readers, whether it is stored or not."""
    text = (
        f"program p(A: f64[m=M,k=K], B: f64[k=K,j=J]) -> ({stored}) {{\n"
        "  kernel all {\n"
        "    H: f32[m=M, j=J][m,j] = A[m,k] * B[k,j]\n"
        "    G: i8[m=M, j=J][m,j] = i8(H[m,j])\n"
        "    Y: f64[m=M, j=J][m,j] = f64(H[m,j]) + f64(G[m,j]) / 2.0\n"
        f"  }} -> ({stored})\n}}"
    )
    a, b = numbers(19, 6) + 2.0**-40, numbers(6, 19) * 3
    program, made = run(text, a, b, packed="H")
    assert len(program.functions) == 1
    h = (a @ b).astype("f4")
    g = np.clip(np.trunc(h), -128, 127).astype("i1")
    assert (h != a @ b).any() and (np.abs(h) > 127).any()
    np.testing.assert_array_equal(made["Y"], h.astype("f8") + g / 2)


@pytest.mark.parametrize("sizes", [(3, 0), (0, 3), (0, 0), (3, 5), (1, 9)])
@pytest.mark.parametrize("fold", ["sum", "max"])
def test_runs_of_terms_of_which_one_is_empty(fold: str, sizes: tuple[int, int]) -> None:
    """The terms are two runs, since only one factor has them side by side."""
    text = (
        "program p(A: f64[i=I,k=K,l=L], B: f64[l=L,k=K,j=J]) -> (Y) {\n"
        f"  Y[i,j] = {fold}[k,l] A[i,k,l] {'*' if fold == 'sum' else '+'} B[l,k,j]\n}}"
    )
    rows, columns = sizes
    a, b = numbers(5, rows, columns), numbers(columns, rows, 9)
    program, made = run(text, a, b, packed="Y")
    assert "step" in str(program)
    if fold == "sum":
        expected = np.einsum("ikl,lkj->ij", a, b)
    else:
        cells = a[:, :, :, None] + b.transpose(1, 0, 2)[None]
        expected = cells.max((1, 2), initial=-np.inf)
    np.testing.assert_array_equal(made["Y"], expected)
