"""Random networks of factors, as programs, as arrays, and as arguments of NumPy's einsum."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from einloom.ir.expressions import Access, Index, Symbol
from einloom.ir.ops import apply
from einloom.ir.program import Einsum, Input, Module, Reduction, Target
from einloom.ir.promotion import from_numpy
from einloom.ir.types import Rank, TensorType

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class RandomNetwork:
    """Factors with labels 0, 1, ... of given sizes, and the labels of the result."""

    terms: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    sizes: tuple[int, ...]

    def module(self, dtype: np.dtype[Any], op: str = "mul", monoid: str = "sum") -> Module:
        """`R[out] = monoid[rest] x0[...] op x1[...] ...` over symbolic extents."""
        ours = from_numpy(dtype)
        inputs = []
        for k, term in enumerate(self.terms):
            ranks = tuple(Rank(f"r{p}", Symbol(f"N{label}")) for p, label in enumerate(term))
            inputs.append(Input(f"x{k}", TensorType(ours, ranks)))
        used = dict.fromkeys(label for term in self.terms for label in term)
        reduced = tuple(f"i{label}" for label in used if label not in self.output)
        factors = [
            Access(f"x{k}", tuple(Index(f"i{label}") for label in term))
            for k, term in enumerate(self.terms)
        ]
        statement = Einsum(
            (Target("R"),),
            tuple(Index(f"i{label}") for label in self.output),
            apply(op, *factors),
            (Reduction(monoid, reduced),) if reduced else (),
        )
        return Module("network", tuple(inputs), ("R",), (statement,))

    def symbols(self, factor: int = 1) -> dict[str, int]:
        """The size of every symbol, or a multiple of it for the pass to reckon with."""
        return {f"N{label}": size * factor for label, size in enumerate(self.sizes)}

    def arrays(self, dtype: np.dtype[Any], seed: int) -> dict[str, Array]:
        """Small whole numbers, so that integer and floating results are exact."""
        source = np.random.default_rng(seed)
        return {
            f"x{k}": source.integers(-3, 4, [self.sizes[label] for label in term]).astype(dtype)
            for k, term in enumerate(self.terms)
        }

    def by_numpy(self, arrays: dict[str, Array]) -> Array:
        """NumPy's einsum, which finds its own path."""
        arguments: list[Any] = []
        for k, term in enumerate(self.terms):
            arguments += [arrays[f"x{k}"], list(term)]
        found: Array = np.asarray(np.einsum(*arguments, list(self.output), optimize="greedy"))
        return found


def random_network(seed: int, empty: bool = False) -> RandomNetwork:
    """3 to 12 factors of 0 to 4 ranks: hyper-edges, repeated labels, batch labels, outer products.

    `empty`: sizes may be 0.
    """
    source = random.Random(seed)
    count = source.randint(3, 12)
    labels = source.randint(2, min(count + 3, 11))
    sizes = tuple(source.choice((0, 1, 2, 3) if empty else (1, 2, 2, 3)) for _ in range(labels))
    terms: list[tuple[int, ...]] = []
    for _ in range(count):
        rank = source.choice((0, 1, 1, 2, 2, 2, 3, 4))
        repeats = source.random() < 0.15
        some = source.choices(range(labels), k=rank) if repeats else source.sample(
            range(labels), min(rank, labels)
        )  # fmt: skip
        terms.append(tuple(some))
    if source.random() < 0.3:  # one label in every factor
        terms = [term if 0 in term else (*term, 0) for term in terms]
    used = sorted({label for term in terms for label in term})
    output = source.sample(used, source.randint(0, min(3, len(used))))
    return RandomNetwork(tuple(terms), tuple(output), sizes)
