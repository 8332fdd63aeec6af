"""Measuring this machine with kernels of our own: what `einloom doctor --measure` runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from einloom.backends.measurements import PRODUCT_DTYPES, TILE_DTYPES, Measurements, Rate
from einloom.executable import Executable
from einloom.kernels import default_threads, kernel_pool

if TYPE_CHECKING:
    from einloom.backends.cpu.probes import Probes

PRODUCT = 576
"""Rows, columns and terms of the product that is measured: more than a block of terms, and a
multiple of all register tiles."""
UNTILED = 128
"""The same for the product that is not packed."""
TRANSPOSED = 3072
"""Rows and columns of the matrix that is transposed."""
TINY, REPEATS = 8, 50
"""Elements of each operand, and kernels, of the program whose launches are measured, and runs."""


def measure() -> Measurements:
    """The rates of this machine, on one thread and on as many as kernels may use: some seconds.

    Raises BackendError where no code can be compiled. Other work on the machine makes the
    numbers of memory worse; others count the time that a processor gave to them.
    """
    from einloom.backends.cpu.probes import cache_sizes, new_probes

    threads = default_threads()
    pool = kernel_pool()
    probes = new_probes(pool, threads)
    sizes = cache_sizes()
    named = [(f"L{k}", size, threads if k > 2 else 1) for k, size in enumerate(sizes, 1)]
    levels = [probes.level(*level) for level in [*named, ("memory", None, threads)]]
    launch = launch_seconds()
    return Measurements(
        threads=threads,
        tiles={dtype: probes.tile(dtype) for dtype in TILE_DTYPES},
        products={dtype: product_rate(probes, dtype, PRODUCT) for dtype in PRODUCT_DTYPES},
        untiled=product_rate(probes, "f32", UNTILED, strict=True),
        transposed=transposed_rate(probes),
        levels=tuple(levels),
        launch_seconds=launch,
        parallel_seconds=probes.sharing(),
    )


def product_rate(probes: Probes, dtype: str, size: int, strict: bool = False) -> Rate:
    """Operations per second of `ij,jk->ik`; with `strict` it is neither packed nor tiled."""
    from einloom.api import TensorSpec, compile

    spec = TensorSpec((size, size), dtype)
    operand = np.ones((size, size), spec.dtype)
    executable = compile("ij,jk->ik", spec, spec, strict=strict)
    runs = [runner(executable, [operand, operand]) for _ in range(probes.threads)]
    operations = 2.0 * size**3
    together = probes.together(runs)
    from einloom.backends.cpu.probes import typical

    return Rate(operations / typical(runs[0]), probes.threads * operations / together)


def transposed_rate(probes: Probes) -> Rate:
    """Bytes per second that `ij->ji` reads and writes, in memory."""
    from einloom.api import TensorSpec, compile
    from einloom.backends.cpu.probes import typical

    executable = compile("ij->ji", TensorSpec((TRANSPOSED, TRANSPOSED)))
    operand = np.ones((TRANSPOSED, TRANSPOSED), np.float32)
    runs = [runner(executable, [operand]) for _ in range(probes.threads)]
    moved = 2.0 * operand.nbytes
    together = probes.together(runs)
    return Rate(moved / typical(runs[0]), probes.threads * moved / together)


def launch_seconds() -> float:
    """What a kernel adds to a program: a chain of tiny statements, each a kernel of its own."""
    from einloom.api import compile

    lines = [f"  T{k + 1}[i] = T{k}[i] + 1.0" for k in range(TINY)]
    text = f"program tiny(T0: f32[i={TINY}]) -> (T{TINY}) {{\n" + "\n".join(lines) + "\n}"
    run = runner(compile(text, pipeline=()), [np.ones(TINY, np.float32)])

    def repeated() -> None:
        for _ in range(REPEATS):
            run()

    from einloom.backends.cpu.probes import typical

    return typical(repeated) / REPEATS / TINY


def runner(executable: Executable, operands: list[Any]) -> Callable[[], None]:
    """Runs all kernels of a program on one thread, on the same operands and results each time."""

    named = dict(zip(executable.inputs, operands, strict=True))
    tensors, symbols = executable.tensors(named)
    prepared = executable.prepared(tensors, symbols)
    arrays = [*(tensors[name] for name in prepared.inputs), *prepared.allocate()]
    pool = kernel_pool()
    return lambda: prepared.run(arrays, pool, 1)
