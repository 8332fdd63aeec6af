"""Cases that are one einsum: products, strided and integer ones, dots, transposes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.dense.case import Array, Bar, Case, Form, Limit, Operand, Prepare

ROUNDING = {"float32": 2.0**-24, "float64": 2.0**-53}
LIBRARIES = ("numpy", "opt_einsum", "torch", "torch.compile", "jax")
NAMES = {"float32": "f32", "float64": "f64", "int64": "i64", "int32": "i32"}
# What torch and JAX users know: three products of bf16 parts, and one.
LEVELS = {"high": (2.0**-16, 3), "medium": (2.0**-8, 1)}

Swap = Callable[[Any, Any], tuple[Any, Any]]


def ours_einsum(spec: str, **options: Any) -> Prepare:
    def prepare(arrays: Sequence[Array], out: Array | None) -> Callable[[], Any]:
        import einloom as el

        given = options if out is None else {**options, "out": out}
        return partial(el.einsum, spec, *arrays, **given)

    return prepare


def einsum_forms(spec: str, swap: Swap | None = None) -> dict[str, tuple[Form, ...]]:
    """How the libraries compute a spec; `swap` gives the operands of an equal matmul."""
    numpy = [Form("einsum", lambda np: lambda *xs: np.einsum(spec, *xs, optimize=True))]
    torch = [Form("einsum", lambda torch: partial(torch.einsum, spec))]
    jax = [Form("einsum", lambda jax: partial(jax.numpy.einsum, spec))]
    if swap is not None:
        # for the types: lambdas below see a function, not an optional one
        turned: Swap = swap
        numpy.append(
            Form("matmul", lambda np: lambda out, *xs: np.matmul(*turned(*xs), out=out), True)
        )
        torch.append(
            Form("matmul", lambda torch: lambda out, *xs: torch.matmul(*turned(*xs), out=out), True)
        )
        jax.append(Form("matmul", lambda jax: lambda *xs: jax.numpy.matmul(*turned(*xs))))
    return {
        "numpy": tuple(numpy),
        "opt_einsum": (Form("contract", lambda oe: partial(oe.contract, spec)),),
        "torch": tuple(torch),
        "jax": tuple(jax),
    }


def wide_reference(spec: str) -> Callable[..., Any]:
    """The spec in float64, or in exact integers."""

    def reference(*arrays: Array) -> Any:
        kind = np.float64 if arrays[0].dtype.kind == "f" else np.int64
        return np.asarray(np.einsum(spec, *[a.astype(kind) for a in arrays], optimize=True))

    return reference


def extents_of(spec: str, shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    terms = spec.split("->")[0].split(",")
    return {
        label: extent
        for term, shape in zip(terms, shapes, strict=True)
        for label, extent in zip(term, shape, strict=True)
    }


def product(
    name: str,
    spec: str,
    extents: Mapping[str, int],
    bars: tuple[Bar, ...],
    *,
    dtype: str = "float32",
    swap: Swap | None = None,
    operands: tuple[Operand, ...] | None = None,
    flops: float | None = None,
) -> Case:
    """A sum of products, with a multiply-add counted as two operations."""
    left, right = spec.split("->")
    terms = left.split(",")
    whole = operands or tuple(Operand(tuple(extents[c] for c in t), dtype) for t in terms)
    summed = math.prod(size for label, size in extents.items() if label not in right)
    work = 2.0 * math.prod(extents.values()) if flops is None else flops
    return Case(
        name,
        whole,
        (tuple(extents[c] for c in right), dtype),
        wide_reference(spec),
        ours_einsum(spec),
        einsum_forms(spec, swap),
        bars,
        depth=summed,
        rounding=ROUNDING[dtype],
        flops=work,
        limit=Limit("fma", work, dtype),
    )


def as_given(a: Any, b: Any) -> tuple[Any, Any]:
    return a, b


def last_two_swapped(a: Any, b: Any) -> tuple[Any, Any]:
    return a, b.swapaxes(-1, -2)


def against(ratio: float) -> tuple[Bar, ...]:
    return (Bar(LIBRARIES, ratio),)


def at_level(case: Case, level: str) -> Case:
    """The same contraction at a lower precision, where the AMX rate is the measure."""
    rounding, products = LEVELS[level]
    spec = case.name.split()[0]
    return Case(
        f"{case.name} {level}",
        case.operands,
        case.result,
        case.reference,
        ours_einsum(spec, precision=level),
        {},
        (Bar(("machine",), 0.8), Bar(("highest",), 1.0)),
        depth=case.depth,
        rounding=rounding,
        flops=case.flops,
        limit=Limit("amx", case.flops * products),
        highest=ours_einsum(spec),
        needs="amx",
    )


def big_products(cap: Callable[[int], int]) -> list[Case]:
    """Square products and the four-rank one, in both dtypes; then in f32 at lower precision."""
    found: list[Case] = []
    for dtype in ("float32", "float64"):
        for given in (512, 1024, 2048):
            n = cap(given)
            sizes = {"i": n, "j": n, "k": n}
            name = f"ij,jk->ik {given}^3 {NAMES[dtype]}"
            found.append(
                product(name, "ij,jk->ik", sizes, against(0.95), dtype=dtype, swap=as_given)
            )
        n = cap(48)
        name = f"abcd,cdef->abef 48^4 {NAMES[dtype]}"
        four = product(
            name, "abcd,cdef->abef", dict.fromkeys("abcdef", n), against(0.95), dtype=dtype
        )
        found.append(four)
    singles = [case for case in found if case.rounding == ROUNDING["float32"]]
    return found + [at_level(case, level) for level in LEVELS for case in singles]


def other_products(cap: Callable[[int], int]) -> list[Case]:
    """Batched, strided, chained and skew products."""
    b, n = cap(64), cap(128)
    batched = product(
        "bij,bjk->bik 64x128^3",
        "bij,bjk->bik",
        {"b": b, "i": n, "j": n, "k": n},
        against(1.1),
        swap=as_given,
    )
    scores = product(
        "bhqd,bhkd->bhqk 8,8,256,64",
        "bhqd,bhkd->bhqk",
        {"b": cap(8), "h": cap(8), "q": cap(256), "k": cap(256), "d": cap(64)},
        against(1.1),
        swap=last_two_swapped,
    )
    i, j, k, m = cap(96), cap(128), cap(160), cap(128)
    strided = product(
        "ijk,ijl->kl strided 96x128,160,128",
        "ijk,ijl->kl",
        {"i": i, "j": j, "k": k, "l": m},
        against(1.2),
        # Ranks i and j in different orders, and every other element: nothing fuses for free.
        operands=(
            Operand((j, i, k), axes=(1, 0, 2)),
            Operand((i, j, 2 * m), steps=(1, 1, 2)),
        ),
    )
    p, q, r = cap(512), cap(2048), cap(64)
    chain = product(
        "ij,jk,kl->il chain 512x2048x64x512",
        "ij,jk,kl->il",
        {"i": p, "j": q, "k": r, "l": p},
        against(1.2),
        flops=2.0 * (p * q * r + p * r * p),
    )
    skew = product(
        "ij,jk->ik skew 2x2 by 2x2^22",
        "ij,jk->ik",
        {"i": 2, "j": 2, "k": cap(1 << 22)},
        against(1.2),
        swap=as_given,
    )
    return [batched, scores, strided, chain, skew]


def dot(cap: Callable[[int], int]) -> Case:
    n = cap(4096)
    spec = "ij,ij->"
    forms = einsum_forms(spec)
    vdot = Form("vdot", lambda np: np.vdot)
    flat = Form("dot", lambda torch: lambda a, b: torch.dot(a.reshape(-1), b.reshape(-1)))
    return Case(
        "ij,ij-> 4096^2",
        # Positive numbers: sums that cancel would measure the numbers, not the summation.
        (Operand((n, n), low=0.0), Operand((n, n), low=0.0)),
        ((), "float32"),
        wide_reference(spec),
        ours_einsum(spec),
        {**forms, "numpy": (*forms["numpy"], vdot), "torch": (*forms["torch"], flat)},
        (Bar(("machine",), 0.95), Bar(LIBRARIES, 1.2)),
        any_bar=True,
        depth=n * n,
        rounding=ROUNDING["float32"],
        flops=2.0 * n * n,
        limit=Limit("read"),
    )


def integers(cap: Callable[[int], int]) -> list[Case]:
    """Products of integers, the last of i8 into i32."""
    spec = "ij,jk->ik"
    found = []
    for dtype in ("int64", "int32"):
        n = cap(512)
        found.append(
            Case(
                f"ij,jk->ik 512^3 {NAMES[dtype]}",
                (Operand((n, n), dtype, -100, 100), Operand((n, n), dtype, -100, 100)),
                ((n, n), dtype),
                wide_reference(spec),
                ours_einsum(spec),
                einsum_forms(spec, as_given),
                against(3.0),
                flops=2.0 * n**3,
            )
        )
    n = cap(1024)
    found.append(
        Case(
            "ij,jk->ik 1024^3 i8 into i32",
            (Operand((n, n), "int8", -128, 128), Operand((n, n), "int8", -128, 128)),
            ((n, n), "int32"),
            wide_reference(spec),
            ours_einsum(spec, dtype="int32"),
            byte_forms(spec),
            against(3.0),
            flops=2.0 * n**3,
        )
    )
    return found


def byte_forms(spec: str) -> dict[str, tuple[Form, ...]]:
    """Products of i8 into i32: the casts that a library needs are inside."""

    def cast_first(oe: Any) -> Callable[..., Any]:
        return lambda *xs: oe.contract(spec, *[x.astype(np.int32) for x in xs])

    def exact_floats(np: Any) -> Callable[..., Any]:
        # |sum| <= 1024 * 128 * 128 = 2^24, which f32 holds exactly.
        return lambda a, b: np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(np.int32)

    def preferred(jax: Any) -> Callable[..., Any]:
        return partial(jax.numpy.einsum, spec, preferred_element_type="int32")

    return {
        "numpy": (
            Form("einsum", lambda np: lambda *xs: np.einsum(spec, *xs, dtype=np.int32)),
            Form("matmul of f32", exact_floats),
        ),
        "opt_einsum": (Form("contract", cast_first),),
        "torch": (Form("_int_mm", lambda torch: torch._int_mm),),
        "jax": (Form("einsum", preferred),),
    }


def transposes(cap: Callable[[int], int]) -> list[Case]:
    """Orders of ranks reversed, 64 MB each; the result is written, not a view."""
    return [
        transpose(f"{spec} 64 MB", spec, (cap(extent),) * ranks)
        for spec, extent, ranks in (("abcd->dcba", 64, 4), ("ijk->kji", 256, 3))
    ]


def transpose(name: str, spec: str, shape: tuple[int, ...]) -> Case:
    axes = tuple(reversed(range(len(shape))))

    def contiguous(np: Any) -> Callable[..., Any]:
        return lambda x: np.ascontiguousarray(x.transpose(axes))

    def copied(np: Any) -> Callable[..., Any]:
        return lambda out, x: np.copyto(out, x.transpose(axes))

    def moved(torch: Any) -> Callable[..., Any]:
        return lambda out, x: out.copy_(x.permute(axes))

    return Case(
        name,
        (Operand(shape),),
        (shape[::-1], "float32"),
        lambda x: np.ascontiguousarray(x.transpose(axes), dtype=np.float64),
        ours_einsum(spec, order="C"),
        {
            "numpy": (Form("copyto", copied, True), Form("ascontiguousarray", contiguous)),
            "opt_einsum": (
                Form("contract", lambda oe: lambda x: np.ascontiguousarray(oe.contract(spec, x))),
            ),
            "torch": (
                Form("copy_", moved, True),
                Form("contiguous", lambda torch: lambda x: x.permute(axes).contiguous()),
            ),
            "jax": (Form("transpose", lambda jax: lambda x: jax.numpy.transpose(x, axes)),),
        },
        (Bar(("machine",), 0.95), Bar(LIBRARIES, 1.3)),
        any_bar=True,
        rounding=ROUNDING["float32"],
        limit=Limit("copy"),
    )
