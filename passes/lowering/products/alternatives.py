"""Other ways to cut a packed contraction, for measuring which one is the fastest."""

from __future__ import annotations

from dataclasses import replace

from einloom.passes.lowering.products.blocking import DEPTH, Blocking

DEPTHS = (256, 384, DEPTH)
"""Terms of a block that are worth trying where there are that many."""
VECTORS = (2, 3)


def alternatives_of(blocking: Blocking, shape: tuple[int, int, int]) -> tuple[Blocking, ...]:
    """The blocking itself first, then those that differ from it in one respect.

    `shape`: rows, columns and terms of the product. They differ in the terms of a block, in the
    width of the register tile, and in the columns of a block.
    """
    _, columns, terms = shape
    found = [blocking]
    if blocking.depth >= min(DEPTHS) * blocking.terms:
        depths = [depth * blocking.terms for depth in DEPTHS]
        found += [replace(blocking, depth=depth) for depth in depths if depth <= 2 * terms]
    found += [_of_width(blocking, vectors) for vectors in VECTORS]
    if blocking.block_columns < columns:
        found.append(replace(blocking, block_columns=2 * blocking.block_columns))
    return tuple(dict.fromkeys(found))


def _of_width(blocking: Blocking, vectors: int) -> Blocking:
    """The blocking with another width of tiles; blocks stay about as wide, and whole tiles."""
    width = vectors * blocking.lanes
    across = max(1, blocking.block_columns // width)
    return replace(blocking, vectors=vectors, block_columns=across * width)
