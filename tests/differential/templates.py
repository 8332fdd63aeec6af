"""Programs in every statement form, each with what NumPy says it computes.

`{T}` stands for the dtype. Extents are symbols, so that one compiled kernel serves all sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Reference = Callable[[dict[str, Array]], dict[str, Array]]

FLOATS = ("f16", "bf16", "f32", "f64")
COMPLEX = ("c64", "c128")
INTEGERS = ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64")
ALL = ("bool", *INTEGERS, *FLOATS, *COMPLEX)
ORDERED = ("bool", *INTEGERS, *FLOATS)
NUMBERS = (*INTEGERS, *FLOATS, *COMPLEX)


@dataclass(frozen=True)
class Template:
    """One program. `inputs`: per input its ranks' symbols and its dtype (`{T}` or fixed).

    `bounds`: for an integer input used as an index, the symbol that it stays below.
    """

    form: str
    text: str
    inputs: dict[str, tuple[str, str]]
    dtypes: tuple[str, ...]
    reference: Reference
    bounds: dict[str, str] | None = None
    nonempty: str = ""

    @property
    def ranks(self) -> int:
        return max(len(symbols) for symbols, _ in self.inputs.values())


def _program(inputs: dict[str, tuple[str, str]], body: str, results: str) -> str:
    declared = ", ".join(
        f"{name}: {dtype}[{', '.join(f'{s.lower()}{k}={s}' for k, s in enumerate(symbols))}]"
        for name, (symbols, dtype) in inputs.items()
    )
    return f"program case({declared}) -> ({results}) {{\n{body}\n}}\n"


def template(
    form: str,
    inputs: dict[str, str],
    body: str,
    reference: Reference,
    dtypes: tuple[str, ...] = ALL,
    *,
    results: str = "Y",
    fixed: dict[str, str] | None = None,
    bounds: dict[str, str] | None = None,
    before: str = "",
    nonempty: str = "",
) -> Template:
    """`inputs` maps names to their ranks' symbols, one letter each; `fixed` their dtypes."""
    typed = {name: (s, (fixed or {}).get(name, "{T}")) for name, s in inputs.items()}
    text = before + _program(typed, body, results)
    return Template(form, text, typed, dtypes, reference, bounds, nonempty)


def wide(array: Array) -> Array:
    """The array in the dtype that a reference is computed in: f32 for halves, else its own."""
    if array.dtype.name in ("float16", "bfloat16"):
        return array.astype(np.float32)
    return array


def _sum(array: Array, axis: int | None = None) -> Array:
    """A sum that keeps the dtype: integers wrap, bool is `or`; floats are summed in f64."""
    if array.dtype == bool:
        return np.asarray(np.any(array, axis=axis))
    if array.dtype.kind == "f":
        return np.asarray(np.sum(array, axis=axis, dtype=np.float64))
    return np.asarray(np.sum(array, axis=axis, dtype=array.dtype))


def _contract(spec: str, *arrays: Array) -> Array:
    """numpy.einsum, in double precision for floats."""
    kind = arrays[0].dtype.kind
    if kind in "fc":
        arrays = tuple(a.astype(np.complex128 if kind == "c" else np.float64) for a in arrays)
    return np.asarray(np.einsum(spec, *arrays))


def _max(array: Array, axis: int) -> Array:
    lowest: Any
    if array.dtype.kind == "f":
        lowest = -np.inf
    else:
        lowest = False if array.dtype == bool else np.iinfo(array.dtype).min
    return np.asarray(np.max(array, axis=axis, initial=lowest))


def _shifted(x: Array, k: Array) -> Array:
    padded = np.concatenate([np.zeros(1, x.dtype), x, np.zeros(len(k), x.dtype)])
    out = np.zeros(len(x), x.dtype)
    with np.errstate(all="ignore"):
        for r in range(len(k)):
            out = out + padded[r : r + len(x)] * k[r]
    return out if len(k) else np.zeros(len(x), x.dtype)


def _scattered(a: dict[str, Array]) -> Array:
    out = np.zeros((5, a["X"].shape[1]), wide(a["X"]).dtype)
    np.add.at(out, a["I"], wide(a["X"]))
    return out


def _masked(a: dict[str, Array]) -> Array:
    x = wide(a["X"])
    return np.where(a["M"][:, None], x, x.dtype.type(0))


def _first(rows: Array, find: Callable[[Array, int], Array]) -> Array:
    """The position that `find` gives in each row, 0 in an empty one."""
    return find(rows, 1) if rows.shape[1] else np.zeros(rows.shape[0], np.int64)


def _doubled(array: Array) -> Array:
    return array + array


def _halves(a: dict[str, Array]) -> Array:
    """A running sum whose state is stored, so that halves round at every step."""
    x = a["X"]
    out = [np.zeros(x.shape[1:], x.dtype)]
    with np.errstate(all="ignore"):
        for row in x:
            out.append((wide(out[-1]) + wide(row)).astype(x.dtype))
    return np.stack(out)


def _folded(x: Array) -> Array:
    state = np.zeros(x.shape[1:], x.dtype)
    with np.errstate(all="ignore"):
        for row in x:
            state = state[::-1] + row
    return state


def _max_of_sums(x: Array) -> Array:
    """Rows without an element below the diagonal do not count."""
    below = _sum(np.tril(x, -1), 1)[1:] if x.shape[1] else _sum(x[:0], 1)
    return _max(below, 0)


LSE = (
    "monoid lse: (f64, f64) {\n"
    "  identity (-inf, 0.0)\n"
    "  combine(a, b) = (max(a.0, b.0), "
    "select(a.0 == -inf, 0.0, a.1 * exp(a.0 - max(a.0, b.0))) + "
    "select(b.0 == -inf, 0.0, b.1 * exp(b.0 - max(a.0, b.0))))\n"
    "}\n"
)


def _logsumexp(x: Array) -> Array:
    x = x.astype(np.float64)
    if x.shape[1] == 0:
        return np.full(x.shape[0], -np.inf)
    top = x.max(1, keepdims=True)
    return np.asarray(np.log(np.exp(x - top).sum(1)) + top[:, 0])


TEMPLATES: tuple[Template, ...] = (
    # maps
    template("map", {"X": ""}, "  Y[] = X[] + X[]", lambda a: {"Y": wide(a["X"]) + wide(a["X"])}),
    template(
        "map",
        {"X": "A", "Z": "A"},
        "  Y[i] = X[i] * Z[i]",
        lambda a: {"Y": wide(a["X"]) * wide(a["Z"])},
    ),
    template("map", {"X": "AB"}, "  Y[j, i] = X[i, j]", lambda a: {"Y": wide(a["X"]).T}),
    template(
        "map",
        {"X": "ABC", "Z": "CB"},
        "  Y[i, j, k] = X[i, j, k] + Z[k, j]",
        lambda a: {"Y": wide(a["X"]) + wide(a["Z"]).T[None]},
    ),
    template(
        "map",
        {"X": "ABCDE"},
        "  Y[m, i, l, j, k] = X[i, j, k, l, m]",
        lambda a: {"Y": wide(a["X"]).transpose(4, 0, 3, 1, 2)},
    ),
    # reductions
    template("reduce", {"X": "A"}, "  Y[] = sum[i] X[i]", lambda a: {"Y": _sum(wide(a["X"]))}),
    template(
        "reduce", {"X": "AB"}, "  Y[i] = sum[j] X[i, j]", lambda a: {"Y": _sum(wide(a["X"]), 1)}
    ),
    template(
        "reduce",
        {"X": "AB"},
        "  Y[j] = max[i] X[i, j]",
        lambda a: {"Y": _max(wide(a["X"]), 0)},
        ORDERED,
    ),
    template(
        "reduce",
        {"X": "ABC"},
        "  Y[k, i] = sum[j] X[i, j, k]",
        lambda a: {"Y": _sum(wide(a["X"]), 1).T},
    ),
    template(
        "nested reduce",
        {"X": "ABC"},
        "  Y[j] = max[i] sum[k] X[i, j, k]",
        lambda a: {"Y": _max(_sum(wide(a["X"]), 2), 0)},
        ORDERED,
    ),
    template(
        "nested reduce",
        {"X": "AB"},
        "  Y[] = max[i] sum[j] X[i, j] if j < i",
        lambda a: {"Y": _max_of_sums(wide(a["X"]))},
        ORDERED,
    ),
    # contractions
    template(
        "contraction",
        {"X": "A", "Z": "A"},
        "  Y[] = X[i] * Z[i]",
        lambda a: {"Y": _contract("i,i->", wide(a["X"]), wide(a["Z"]))},
    ),
    template(
        "contraction",
        {"X": "AB", "Z": "BC"},
        "  Y[i, k] = X[i, j] * Z[j, k]",
        lambda a: {"Y": _contract("ij,jk->ik", wide(a["X"]), wide(a["Z"]))},
    ),
    template(
        "contraction",
        {"X": "ABC", "Z": "ADC"},
        "  Y[b, i, k] = X[b, i, j] * Z[b, k, j]",
        lambda a: {"Y": _contract("bij,bkj->bik", wide(a["X"]), wide(a["Z"]))},
    ),
    template(
        "contraction",
        {"X": "AB", "Z": "BC", "V": "CD"},
        "  Y[i, l] = X[i, j] * Z[j, k] * V[k, l]",
        lambda a: {"Y": _contract("ij,jk,kl->il", *(wide(a[n]) for n in "XZV"))},
    ),
    # diagonals
    template(
        "diagonal read", {"X": "AA"}, "  Y[i] = X[i, i]", lambda a: {"Y": np.diagonal(wide(a["X"]))}
    ),
    template(
        "diagonal write", {"X": "A"}, "  Y[i, i] = X[i]", lambda a: {"Y": np.diag(wide(a["X"]))}
    ),
    # domains
    template(
        "condition",
        {"X": "AB"},
        "  Y[i, j] = X[i, j] if j <= i",
        lambda a: {"Y": np.tril(wide(a["X"]))},
    ),
    template(
        "condition",
        {"X": "AB"},
        "  Y[i] = sum[j] X[i, j] if j < i",
        lambda a: {"Y": _sum(np.tril(wide(a["X"]), -1), 1)},
    ),
    template(
        "condition",
        {"X": "AB", "M": "A"},
        "  Y[j] = sum[i] X[i, j] if M[i]",
        lambda a: {"Y": _sum(_masked(a), 0)},
        fixed={"M": "bool"},
    ),
    template(
        "padding",
        {"X": "A", "Z": "B"},
        "  Y[p] = sum[r] X?(0)[p + r - 1] * Z[r] where p < A",
        lambda a: {"Y": _shifted(wide(a["X"]), wide(a["Z"]))},
        NUMBERS,
    ),
    template(
        "affine",
        {"X": "A"},
        "  Y[p] = X[2*p] where p < ceil(A/2)",
        lambda a: {"Y": wide(a["X"])[::2]},
    ),
    # gathers and scatters
    template(
        "gather",
        {"X": "AB", "I": "C"},
        "  Y[t, j] = X[I[t], j]",
        lambda a: {"Y": wide(a["X"])[a["I"]]},
        fixed={"I": "i64"},
        bounds={"I": "A"},
        nonempty="A",
    ),
    template(
        "gather",
        {"X": "A", "I": "CD"},
        "  Y[] = sum[t, u] X[I[t, u]]",
        lambda a: {"Y": _sum(wide(a["X"])[a["I"]])},
        fixed={"I": "i32"},
        bounds={"I": "A"},
        nonempty="A",
    ),
    template(
        "scatter",
        {"X": "AB", "I": "A"},
        "  Y: {T}[v=5, d=B][I[t], d] = sum[t] X[t, d]",
        lambda a: {"Y": _scattered(a)},
        fixed={"I": "i64"},
        bounds={"I": "5"},
    ),
    template(
        "scatter",
        {"X": "A"},
        "  Y: {T}[v=2*A][2*i + 1] = X[i]",
        lambda a: {"Y": np.stack([np.zeros_like(wide(a["X"])), wide(a["X"])], 1).ravel()},
    ),
    # scans
    template(
        "scan",
        {"X": "AB"},
        "  scan t < A from { Y[0, j] = X?(0)[0, j] - X?(0)[0, j] where j < B } "
        "{ Y[t+1, j] = Y[t, j] + X[t, j] }",
        lambda a: {"Y": _halves(a)},
        NUMBERS,
    ),
    template(
        "scan final",
        {"X": "AB"},
        "  scan t < A from { S: {T}[t=A+1, j=B][0, j] = 0 } "
        "{ S[t+1, j] = S[t, j] + X[t, j] }\n"
        "  Y[j] = final(S)[j]",
        lambda a: {"Y": _halves(a)[-1]},
        NUMBERS,
    ),
    template(
        "scan final",
        {"X": "AB"},
        "  scan t < A from { S: {T}[t=A+1, j=B][0, j] = 0 } "
        "{ S[t+1, j] = S[t, B - 1 - j] + X[t, j] }\n"
        "  Y[j] = final(S)[j]",
        lambda a: {"Y": _folded(a["X"])},
        ("i32", "i64", "u8", "f32", "f64"),
    ),
    template(
        "scan down",
        {"X": "A"},
        "  scan t < A down from { Y: {T}[t=A+1][A] = 0 } { Y[t] = Y[t+1] + X[t] }",
        lambda a: {"Y": _halves({"X": a["X"][::-1]})[::-1]},
        NUMBERS,
    ),
    template(
        "scan until",
        {"X": "A"},
        "  scan t < A from { S: i64[t=A+1][0] = 0 } { S[t+1] = S[t] + 1 } until X[t]\n"
        "  Y[] = final(S)[]",
        lambda a: {"Y": np.asarray(np.argmax(a["X"]) + 1 if a["X"].any() else len(a["X"]))},
        ("bool",),
    ),
    # tuples
    template(
        "tuple",
        {"X": "AB"},
        "  (Y, P)[i] = argmax[j] (X[i, j], iota(j))",
        lambda a: {"Y": _max(wide(a["X"]), 1), "P": _first(wide(a["X"]), np.argmax)},
        ORDERED,
        results="Y, P",
    ),
    template(
        "tuple",
        {"X": "AB"},
        "  (Y, P)[j] = argmin[i] (X[i, j], iota(i))",
        lambda a: {"P": _first(wide(a["X"]).T, np.argmin)},
        ORDERED,
        results="P",
    ),
    # definitions
    template(
        "function",
        {"X": "A", "Z": "A"},
        "  Y[i] = mix(X[i], Z[i])",
        lambda a: {"Y": wide(a["X"]) * wide(a["Z"]) + wide(a["X"])},
        before="fn mix(a, b) = a * b + a\n",
    ),
    template(
        "monoid",
        {"X": "AB"},
        "  (V, E)[i] = lse[j] (X[i, j], 1.0)\n  Y[i] = V[i] + log(E[i])",
        lambda a: {"Y": _logsumexp(a["X"])},
        ("f32", "f64"),
        before=LSE,
    ),
    # kernels
    template(
        "kernel",
        {"X": "AB", "Z": "BC"},
        "  kernel k {\n    S[i, k] = sum[j] X[i, j] * Z[j, k]\n"
        "    Y[i, k] = S[i, k] + S[i, k]\n  } -> (Y)",
        lambda a: {"Y": _doubled(_contract("ij,jk->ik", wide(a["X"]), wide(a["Z"])))},
    ),
    template(
        "kernel",
        {"X": "AB"},
        "  kernel k {\n    S[i] = sum[j] X[i, j]\n    D[i, j] = X[i, j] - S[i]\n"
        "    Y[i] = max[j] D[i, j]\n  } -> (Y)",
        lambda a: {"Y": _max(_centred(a["X"]), 1)},
        (*INTEGERS, "f32", "f64"),
    ),
)


def _centred(x: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(x - _sum(x, 1)[:, None].astype(x.dtype))
