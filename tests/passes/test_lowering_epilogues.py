"""Statements fused with packed contractions, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import einloom as el
from einloom.backends.cpu import compile as cpu
from einloom.backends.cpu.threads import ThreadPool
from einloom.passes.lowering import lower
from einloom.passes.lowering.products.blocking import Blocking

TINY = Blocking(rows=4, vectors=2, lanes=4, depth=8, block_rows=64, block_columns=16)

KERNEL = """
program p(X: {d}[b=B,m=M,k=K], W: {d}[k=K,j=J], c: {d}[j=J], R: {d}[b=B,m=M,j=J]) -> ({out}) {{
  kernel all {{
    H[b,m,j] = X[b,m,k] * W[k,j]
    G[p,q,r] = exp(H[p,q,r] * 0.125) + c[r] * iota(p)
    S[q,p,r] = max(G[p,q,r], H[p,q,r]) + R[p,q,r]
    T[b,m]   = sum[j] S[m,b,j]
    U[b,m,j] = S[m,b,j] * T[b,m]
  }} -> ({out})
}}"""


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16"])
@pytest.mark.parametrize("out", ["S", "U", "H, U", "G, T", "S, T, U, H, G"])
def test_maps_of_a_product_are_computed_on_its_blocks(out: str, dtype: str) -> None:
    module = el.parse(KERNEL.format(d=dtype, out=out))
    program = lower(module, blockings={"H": TINY})
    product = program.functions[0]
    stored = {b.name for b in product.buffers if b.role == "out"}
    assert stored == ({"S"} | set(out.split(", "))) & {"H", "G", "S"}
    kernels = cpu.from_payload(cpu.compile_payload(program))
    assert kernels is not None
    rng = np.random.default_rng(7)
    tolerance = {"f32": 1e-5, "f64": 1e-13, "f16": 2e-2}[dtype]
    for b, m, k, j in [(2, 5, 9, 17), (3, 33, 20, 8), (1, 1, 1, 1), (2, 4, 0, 5), (0, 3, 3, 3)]:
        element = {"f32": "f4", "f64": "f8", "f16": "f2"}[dtype]
        x, w, c, r = (
            rng.uniform(0, 1, shape).astype(element)
            for shape in [(b, m, k), (k, j), (j,), (b, m, j)]
        )
        arrays = {"X": x, "W": w, "c": c, "R": r}
        prepared = kernels.prepare(arrays, {"B": b, "M": m, "K": k, "J": j})
        storages = prepared.allocate()
        prepared.run([*(arrays[n] for n in prepared.inputs), *storages], ThreadPool(), 2)
        made = {s.name: a for s, a in zip(prepared.storages, storages, strict=True)}
        x, w, c, r = (a.astype(np.float64) for a in (x, w, c, r))
        h = x @ w
        g = np.exp(h / 8) + c * np.arange(b)[:, None, None]
        s = (np.maximum(g, h) + r).transpose(1, 0, 2)
        t = s.sum(axis=2).T
        expected = {"H": h, "G": g, "S": s, "T": t, "U": s.transpose(1, 0, 2) * t[:, :, None]}
        for name in out.split(", "):
            np.testing.assert_allclose(made[name], expected[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "follower",
    [
        "G[m,j] = H[m,j] if j < m",
        "G[m,j] = H[m,0] + c[j]",
        "G[m,j,n] = H[m,j] * c[n]",
        "G[j] = max[m] H[m,j]",
        "G[m] = H[m,3]",
    ],
)
def test_what_reads_a_product_otherwise_runs_after_it(follower: str) -> None:
    module = el.parse(
        "program p(X: f64[m=M,k=K], W: f64[k=K,j=J], c: f64[j=J]) -> (G) {\n"
        f"  kernel all {{ H[m,j] = X[m,k] * W[k,j]\n {follower} }} -> (G)\n}}"
    )
    program = lower(module, blockings={"H": TINY})
    assert len(program.functions) == 2
    kernels = cpu.from_payload(cpu.compile_payload(program))
    assert kernels is not None
    rng = np.random.default_rng(8)
    arrays = {"X": rng.uniform(size=(7, 9)), "W": rng.uniform(size=(9, 11)), "c": np.ones(11)}
    prepared = kernels.prepare(arrays, {"M": 7, "K": 9, "J": 11})
    storages = prepared.allocate()
    prepared.run([*(arrays[n] for n in prepared.inputs), *storages], ThreadPool(), 1)
    made = {s.name: a for s, a in zip(prepared.storages, storages, strict=True)}
    (expected,) = el.interpret(module, arrays).values()
    np.testing.assert_allclose(made["G"], expected, rtol=1e-13)
