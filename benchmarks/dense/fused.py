"""Cases that are small programs: what compilers fuse, and the semiring product."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.dense.case import Array, Bar, Case, Form, Operand, Prepare
from benchmarks.dense.contractions import ROUNDING, ours_einsum

COMPILERS = (Bar(("torch.compile", "jax"), 1.3),)
SINGLE = ROUNDING["float32"]
# exp, erf and division add their own roundings to those of the sums.
ELEMENTWISE_DEPTH = 16


def ours_program(text: str) -> Prepare:
    def prepare(arrays: Sequence[Array], out: Array | None) -> Callable[[], Any]:
        import einloom as el

        executable = el.compile(text)
        if out is None:
            return partial(executable, *arrays)
        return partial(executable, *arrays, out=out)

    return prepare


def function_forms(
    numpy: Callable[[Any], Callable[..., Any]] | None,
    torch: Callable[[Any], Callable[..., Any]],
    jax: Callable[[Any], Callable[..., Any]],
) -> dict[str, tuple[Form, ...]]:
    """The same function in three libraries; in torch allocating, and into a given array."""

    def into(library: Any) -> Callable[..., Any]:
        function = torch(library)
        return lambda out, *xs: out.copy_(function(*xs))

    return {
        "numpy": () if numpy is None else (Form("function", numpy),),
        "torch": (Form("function", torch), Form("function into", into, True)),
        "jax": (Form("function", jax),),
    }


def error_function(x: Array) -> Array:
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x))


def gelu(m: int, k: int, n: int, name: str) -> Case:
    """Bias, GELU by the error function, and a residual after a product."""
    text = f"""
program gelu(X: f32[m={m}, k={k}], W: f32[k={k}, n={n}], B: f32[n={n}], R: f32[m={m}, n={n}]) -> (Y) {{
  P[m, n] = X[m, k] * W[k, n]
  H[m, n] = P[m, n] + B[n]
  Y[m, n] = 0.5 * H[m, n] * (1.0 + erf(H[m, n] * {math.sqrt(0.5)})) + R[m, n]
}}
"""  # noqa: E501

    def exact(x: Array, w: Array, b: Array, r: Array) -> Array:
        h = x.astype(np.float64) @ w.astype(np.float64) + b
        return np.asarray(0.5 * h * (1 + error_function(h * math.sqrt(0.5))) + r)

    def torch_function(torch: Any) -> Callable[..., Any]:
        gelu = torch.nn.functional.gelu
        return lambda x, w, b, r: gelu(torch.addmm(b, x, w)) + r

    def jax_function(jax: Any) -> Callable[..., Any]:
        return lambda x, w, b, r: jax.nn.gelu(x @ w + b, approximate=False) + r

    return Case(
        name,
        (Operand((m, k)), Operand((k, n)), Operand((n,)), Operand((m, n))),
        ((m, n), "float32"),
        exact,
        ours_program(text),
        # NumPy has no erf, and the form by tanh is another function.
        function_forms(None, torch_function, jax_function),
        COMPILERS,
        depth=k + ELEMENTWISE_DEPTH,
        rounding=SINGLE,
        flops=2.0 * m * k * n,
    )


def layernorm(rows: int, columns: int) -> Case:
    text = f"""
program layernorm(X: f32[row={rows}, col={columns}], G: f32[col={columns}], B: f32[col={columns}]) -> (Y) {{
  S[row]      = sum[col] X[row, col]
  M[row]      = S[row] / {columns}.0
  Q[row]      = sum[col] (X[row, col] - M[row]) * (X[row, col] - M[row])
  I[row]      = rsqrt(Q[row] / {columns}.0 + 1e-5)
  Y[row, col] = (X[row, col] - M[row]) * I[row] * G[col] + B[col]
}}
"""  # noqa: E501

    def exact(x: Array, g: Array, b: Array) -> Array:
        wide = x.astype(np.float64)
        centred = wide - wide.mean(1, keepdims=True)
        scale = np.sqrt(np.square(centred).mean(1, keepdims=True) + 1e-5)
        return np.asarray(centred / scale * g + b)

    def numpy_function(np: Any) -> Callable[..., Any]:
        def function(x: Array, g: Array, b: Array) -> Any:
            centred = x - x.mean(1, keepdims=True)
            scale = np.sqrt(np.einsum("ij,ij->i", centred, centred) / columns + 1e-5)
            centred /= scale[:, None]
            centred *= g
            centred += b
            return centred

        return function

    def torch_function(torch: Any) -> Callable[..., Any]:
        norm = torch.nn.functional.layer_norm
        return lambda x, g, b: norm(x, (columns,), g, b, 1e-5)

    def jax_function(jax: Any) -> Callable[..., Any]:
        def function(x: Any, g: Any, b: Any) -> Any:
            mean = x.mean(1, keepdims=True)
            variance = x.var(1, keepdims=True)
            return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * g + b

        return function

    return Case(
        "layernorm 4096x1024",
        (Operand((rows, columns)), Operand((columns,)), Operand((columns,))),
        ((rows, columns), "float32"),
        exact,
        ours_program(text),
        function_forms(numpy_function, torch_function, jax_function),
        COMPILERS,
        depth=columns,
        rounding=SINGLE,
        flops=8.0 * rows * columns,
    )


def softmax(rows: int, columns: int) -> Case:
    text = f"""
program softmax(X: f32[row={rows}, col={columns}]) -> (Y) {{
  G[row]      = max[col] X[row, col]
  N[row, col] = exp(X[row, col] - G[row])
  D[row]      = sum[col] N[row, col]
  Y[row, col] = N[row, col] / D[row]
}}
"""

    def numpy_function(np: Any) -> Callable[..., Any]:
        def function(x: Array) -> Any:
            shifted = x - x.max(1, keepdims=True)
            np.exp(shifted, out=shifted)
            shifted /= shifted.sum(1, keepdims=True)
            return shifted

        return function

    forms = function_forms(
        numpy_function,
        lambda torch: lambda x: torch.softmax(x, 1),
        lambda jax: lambda x: jax.nn.softmax(x, 1),
    )
    own = Form("softmax out=", lambda torch: lambda out, x: torch.softmax(x, 1, out=out), True)
    return Case(
        "softmax 4096x4096",
        (Operand((rows, columns), low=-8.0, high=8.0),),
        ((rows, columns), "float32"),
        lambda x: numpy_function(np)(x.astype(np.float64)),
        ours_program(text),
        {**forms, "torch": (*forms["torch"], own)},
        COMPILERS,
        depth=columns,
        rounding=SINGLE,
        flops=5.0 * rows * columns,
    )


def rmsnorm(m: int, k: int, n: int) -> Case:
    """A row's root mean square divides it, a weight scales it, then a product."""
    text = f"""
program rmsnorm(X: f32[m={m}, k={k}], G: f32[k={k}], W: f32[k={k}, n={n}]) -> (Y) {{
  Q[m]    = X[m, k] * X[m, k]
  I[m]    = rsqrt(Q[m] / {k}.0 + 1e-6)
  N[m, k] = X[m, k] * I[m] * G[k]
  Y[m, n] = N[m, k] * W[k, n]
}}
"""

    def normed(np: Any) -> Callable[..., Any]:
        def function(x: Array, g: Array, w: Array) -> Any:
            scale = np.sqrt(np.einsum("ij,ij->i", x, x) / k + 1e-6)
            return (x / scale[:, None] * g) @ w

        return function

    def torch_function(torch: Any) -> Callable[..., Any]:
        return lambda x, g, w: torch.nn.functional.rms_norm(x, (k,), g, 1e-6) @ w

    def jax_function(jax: Any) -> Callable[..., Any]:
        def function(x: Any, g: Any, w: Any) -> Any:
            return (x * jax.lax.rsqrt((x * x).mean(1, keepdims=True) + 1e-6) * g) @ w

        return function

    return Case(
        "RMSNorm+matmul 1024x1024x1024",
        (Operand((m, k)), Operand((k,)), Operand((k, n))),
        ((m, n), "float32"),
        lambda *xs: normed(np)(*[x.astype(np.float64) for x in xs]),
        ours_program(text),
        function_forms(normed, torch_function, jax_function),
        COMPILERS,
        depth=k + ELEMENTWISE_DEPTH,
        rounding=SINGLE,
        flops=2.0 * m * k * n,
    )


def max_plus(n: int) -> Case:
    """The product of the (max, +) semiring."""
    rows = 8  # of a chunk, so that the broadcast sums stay in the caches

    def broadcast(np: Any) -> Callable[..., Any]:
        def function(out: Array, a: Array, b: Array) -> Any:
            turned = np.ascontiguousarray(b.T)
            for start in range(0, len(a), rows):
                sums = a[start : start + rows, None, :] + turned[None]
                np.max(sums, axis=2, out=out[start : start + rows])
            return out

        return function

    def row_by_row(np: Any) -> Callable[..., Any]:
        def function(out: Array, a: Array, b: Array) -> Any:
            for i in range(len(a)):
                np.max(a[i, :, None] + b, axis=0, out=out[i])
            return out

        return function

    def loops(numba: Any) -> Callable[..., Any]:
        def function(out: Array, a: Array, b: Array) -> Array:
            for i in numba.prange(a.shape[0]):
                row = out[i]
                row[:] = -np.inf
                for k in range(a.shape[1]):
                    x = a[i, k]
                    for j in range(b.shape[1]):
                        found = x + b[k, j]
                        row[j] = found if found > row[j] else row[j]
            return out

        compiled: Callable[..., Any] = numba.njit(parallel=True, fastmath=True)(function)
        return compiled

    def fused(jax: Any) -> Callable[..., Any]:
        return lambda a, b: (a[:, :, None] + b[None]).max(1)

    def exact(a: Array, b: Array) -> Any:
        out = np.empty((n, n))
        return broadcast(np)(out, a.astype(np.float64), b.astype(np.float64))

    return Case(
        "ij,jk->ik 1024^3 (max,+)",
        (Operand((n, n)), Operand((n, n))),
        ((n, n), "float32"),
        exact,
        ours_einsum("ij,jk->ik", semiring="max-plus"),
        {
            "numpy": (
                Form("broadcast, 8 rows", broadcast, True),
                Form("broadcast, 1 row", row_by_row, True),
            ),
            "numba": (Form("parallel loops", loops, True),),
            "jax": (Form("broadcast", fused),),
        },
        (Bar(("numpy",), 10.0), Bar(("numba",), 1.2)),
        rounding=SINGLE,
        flops=2.0 * n**3,
    )


def fused(cap: Callable[[int], int]) -> list[Case]:
    return [
        gelu(cap(1024), cap(256), cap(1024), "bias+GELU+residual 1024x256x1024"),
        gelu(cap(512), cap(768), cap(3072), "bias+GELU+residual 512x768x3072"),
        layernorm(cap(4096), cap(1024)),
        softmax(cap(4096), cap(4096)),
        rmsnorm(cap(1024), cap(1024), cap(1024)),
        max_plus(cap(1024)),
    ]
