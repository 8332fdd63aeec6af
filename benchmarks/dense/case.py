"""What a case is: operands, an exact result, our call, the forms that peers have, and its bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Prepare = Callable[..., Callable[[], Any]]
"""`prepare(arrays, out)`: our call, ready; `out` is None where both sides allocate."""

BLOCK = 1 << 18
MEMORY_ALLOWANCE = 64 << 20
"""Bytes that a case may hold beside its inputs and its output."""


@dataclass(frozen=True)
class Operand:
    """One input: random numbers of [low, high), or whole numbers of them.

    `axes` and `steps` make the operand a view of an array that is drawn with shape `shape`:
    transposed first, then every `steps[k]`-th element of rank k taken.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    low: float = -1.0
    high: float = 1.0
    axes: tuple[int, ...] | None = None
    steps: tuple[int, ...] | None = None

    def base(self, random: np.random.Generator) -> Array:
        """The array in memory. Filled block by block, so that drawing it takes no memory."""
        array = np.empty(self.shape, self.dtype)
        flat = array.reshape(-1)
        for start in range(0, flat.size, BLOCK):
            part = flat[start : start + BLOCK]
            if array.dtype.kind == "f":
                part[:] = random.random(part.size, array.dtype.type)
                part *= self.high - self.low
                part += self.low
            else:
                part[:] = random.integers(int(self.low), int(self.high), part.size)
        return array

    def view(self, base: Any) -> Any:
        """The operand as a view of its base, for NumPy arrays and those of jax."""
        if self.axes is not None:
            base = base.transpose(self.axes)
        if self.steps is not None:
            base = base[tuple(slice(None, None, step) for step in self.steps)]
        return base

    @property
    def is_view(self) -> bool:
        return self.axes is not None or self.steps is not None


@dataclass(frozen=True)
class Form:
    """One way in which a library computes a case.

    `make(library)` gives a function of the operands; with `into`, of an array that receives the
    result and the operands.
    """

    label: str
    make: Callable[[Any], Callable[..., Any]]
    into: bool = False


@dataclass(frozen=True)
class Bar:
    """What a case must reach.

    Either `ratio`: the time of the quickest of `peers` over ours; or `seconds`: our own time.
    """

    peers: tuple[str, ...] = ()
    ratio: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.seconds:
            return f"≤ {self.seconds * 1e6:g} µs"
        match self.peers:
            case ("machine",):
                return f"≥ {self.ratio:g} of the machine"
            case ("highest",):
                return f"≥ {self.ratio:g} of highest"
            case (one,):
                return f"≥ {self.ratio:g} of {one}"
            case _:
                return f"≥ {self.ratio:g}"


@dataclass(frozen=True)
class Limit:
    """What the machine itself could do: `kind` is read, copy, fma or amx.

    `amount`: floating-point operations, for fma (of `dtype`) and amx; the bytes of a read or a
    copy are those of the operands.
    """

    kind: str
    amount: float = 0.0
    dtype: str = "float32"


@dataclass(frozen=True)
class Case:
    """One row. `depth`: numbers that are summed for an element of the result; `rounding`: the
    unit of rounding of a result (0: exact); `reference`: the result in float64 or integers."""

    name: str
    operands: tuple[Operand, ...]
    result: tuple[tuple[int, ...], str]
    reference: Callable[..., Any]
    ours: Prepare
    forms: Mapping[str, tuple[Form, ...]]
    bars: tuple[Bar, ...] = ()
    any_bar: bool = False
    depth: int = 1
    rounding: float = 0.0
    flops: float = 0.0
    limit: Limit | None = None
    highest: Prepare | None = None
    needs: str | None = None

    def draw(self, seed: int = 0) -> list[Array]:
        """The operands' bases, in memory."""
        random = np.random.default_rng(seed)
        return [operand.base(random) for operand in self.operands]

    def arrays(self, bases: list[Array]) -> list[Array]:
        return [o.view(base) for o, base in zip(self.operands, bases, strict=True)]

    def empty(self) -> Array:
        shape, dtype = self.result
        return np.empty(shape, dtype)

    @property
    def result_bytes(self) -> int:
        shape, dtype = self.result
        return math.prod(shape) * np.dtype(dtype).itemsize

    @property
    def input_bytes(self) -> int:
        """Bytes of what the operands' bases occupy."""
        return sum(math.prod(o.shape) * np.dtype(o.dtype).itemsize for o in self.operands)

    @property
    def tolerance(self) -> float:
        """The largest error of a right result: rounding grows with the root of the depth."""
        return 4 * self.rounding * math.sqrt(max(1, self.depth))


def error_of(found: Any, expected: Array) -> float:
    """Norm of the difference over the norm of the expected result; inf for a wrong shape."""
    array = np.asarray(found)
    if array.shape != expected.shape:
        return math.inf
    if expected.dtype.kind in "iu":
        return 0.0 if np.array_equal(array, expected) else math.inf
    top = below = 0.0
    for start in range(0, max(1, array.shape[0] if array.ndim else 1), 256):
        mine = np.asarray(array[start : start + 256] if array.ndim else array, np.float64)
        theirs = expected[start : start + 256] if expected.ndim else expected
        top += float(np.square(mine - theirs).sum())
        below += float(np.square(theirs).sum())
    error = math.sqrt(top / below) if below else math.sqrt(top)
    return error if math.isfinite(error) else math.inf
