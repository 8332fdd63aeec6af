"""Cases whose time is overhead: tiny calls, and a network of 300 small tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.dense.case import Array, Bar, Case, Form, Operand, Prepare
from benchmarks.dense.contractions import ROUNDING, ours_einsum, wide_reference

SINGLE = ROUNDING["float32"]
ROWS, COLUMNS, BOND = 10, 30, 2


def ours_cached(spec: str) -> Prepare:
    def prepare(arrays: Sequence[Array], out: Array | None) -> Callable[[], Any]:
        import einloom as el

        executable = el.compile(spec, *arrays)
        return (
            partial(executable, *arrays) if out is None else partial(executable, *arrays, out=out)
        )

    return prepare


def tiny() -> list[Case]:
    """`i,i->` of 8 and a 4x4 matmul, as a cached expression and as a string call."""
    found = []
    for spec, shape, name in (("i,i->", (8,), "i,i-> 8"), ("ij,jk->ik", (4, 4), "ij,jk->ik 4x4")):
        operands = (Operand(shape), Operand(shape))
        result = (() if spec == "i,i->" else shape, "float32")
        for kind, limit in (("cached", 1e-6), ("string", 3e-6)):
            cached = kind == "cached"
            found.append(
                Case(
                    f"{name} {kind}",
                    operands,
                    result,
                    wide_reference(spec),
                    ours_cached(spec) if cached else ours_einsum(spec),
                    tiny_forms(spec, shape, cached),
                    (Bar(seconds=limit),),
                    depth=64,  # small sums may cancel
                    rounding=SINGLE,
                    flops=2.0 * shape[0] ** len(shape) * (shape[0] if len(shape) > 1 else 1),
                )
            )
    return found


def tiny_forms(spec: str, shape: tuple[int, ...], cached: bool) -> dict[str, tuple[Form, ...]]:
    direct = (
        Form("np.dot", lambda np: np.dot)
        if len(shape) == 1
        else Form("np.matmul", lambda np: np.matmul)
    )
    string = Form("einsum", lambda np: partial(np.einsum, spec))
    return {
        "numpy": (string, direct) if cached else (string,),
        "opt_einsum": (
            Form("expression", lambda oe: oe.contract_expression(spec, shape, shape))
            if cached
            else Form("contract", lambda oe: partial(oe.contract, spec)),
        ),
        "torch": (Form("einsum", lambda torch: partial(torch.einsum, spec)),),
        "jax": (Form("einsum", lambda jax: partial(jax.numpy.einsum, spec)),),
    }


def grid(rows: int, columns: int) -> list[list[str]]:
    """Labels of the tensors of a grid, row by row: each bond has one."""
    names: list[list[list[str]]] = [[[] for _ in range(columns)] for _ in range(rows)]
    count = 0
    for i in range(rows):
        for j in range(columns):
            for y, x in ((i + 1, j), (i, j + 1)):
                if y < rows and x < columns:
                    label = chr(0x4E00 + count)
                    count += 1
                    names[i][j].append(label)
                    names[y][x].append(label)
    return [["".join(cell) for cell in row] for row in names]


def swept(rows: int, columns: int, arrays: Sequence[Array]) -> Array:
    """The value of the grid in float64, by moving a boundary of open bonds cell by cell.

    The state has one rank per column (the bond down) and one for the bond to the right.
    """
    labels = grid(rows, columns)
    state = np.ones((1,) * columns + (1,))
    for i in range(rows):
        for j in range(columns):
            cell = arrays[i * columns + j].astype(np.float64)
            # Ranks of a cell, as `grid` gives them: up and left were named before down and right.
            has = (i > 0, j > 0, i + 1 < rows, j + 1 < columns)
            assert len(labels[i][j]) == sum(has)
            up, left, down, right = (BOND if h else 1 for h in has)
            cell = cell.reshape(up, left, down, right)
            state = np.tensordot(state, cell, ((j, columns), (0, 1)))
            state = np.moveaxis(state, columns - 1, j)
    return np.asarray(state.reshape(()))


def ours_with_path(spec: str) -> Prepare:
    """A path found anew in every call, then the contraction along it."""

    def prepare(arrays: Sequence[Array], out: Array | None) -> Callable[[], Any]:
        import einloom as el

        def call() -> Any:
            path, _ = el.einsum_path(spec, *arrays)
            return el.einsum(spec, *arrays, optimize=path)

        return call

    return prepare


def ours_path(spec: str) -> Prepare:
    def prepare(arrays: Sequence[Array], out: Array | None) -> Callable[[], Any]:
        import einloom as el

        def call() -> float:
            el.einsum_path(spec, *arrays)
            return 0.0

        return call

    return prepare


def network(cap: Callable[[int], int]) -> list[Case]:
    """A 10x30 grid of bond 2: path and run, then each of them apart."""
    # The narrow side is columns here, so that the exact sweep is over 2^10 states.
    rows, columns = cap(COLUMNS), cap(ROWS)
    labels = [label for row in grid(rows, columns) for label in row]
    spec = ",".join(labels) + "->"
    # Entries whose mean keeps the value of the whole near 1.
    bonds = rows * (columns - 1) + columns * (rows - 1)
    mean = 2.0 ** (-bonds / (rows * columns))
    operands = tuple(Operand((BOND,) * len(label), low=0.0, high=2 * mean) for label in labels)

    def path_and_run(oe: Any) -> Callable[..., Any]:
        return partial(oe.contract, spec)

    def run(oe: Any) -> Callable[..., Any]:
        path, _ = oe.contract_path(spec, *[o.shape for o in operands], shapes=True)
        return partial(oe.contract, spec, optimize=path)

    def path(oe: Any) -> Callable[..., Any]:
        def find(*arrays: Array) -> float:
            oe.contract_path(spec, *arrays)
            return 0.0

        return find

    def value(*arrays: Array) -> Array:
        return swept(rows, columns, arrays)

    def nothing(*arrays: Array) -> Array:
        return np.zeros(())

    def case(
        name: str, ours: Prepare, make: Callable[[Any], Any], bars: tuple[Bar, ...], exact: Any
    ) -> Case:
        form = (Form("contract with NumPy", make),)
        depth = len(labels) ** 2
        return Case(
            name, operands, ((), "float32"), exact, ours, {"opt_einsum": form}, bars,
            depth=depth, rounding=SINGLE,
        )  # fmt: skip

    bar = (Bar(("opt_einsum",), 1.0),)
    return [
        case("network 10x30 path and run", ours_with_path(spec), path_and_run, bar, value),
        case("network 10x30 path only", ours_path(spec), path, (), nothing),
        case("network 10x30 run only", ours_einsum(spec), run, (), value),
    ]
