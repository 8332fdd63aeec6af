"""Making a tree fit a memory limit: slices over reduced indices, and intermediates left out."""

from __future__ import annotations

from collections.abc import Iterator

from einloom.passes.contraction.cost import finite, operations
from einloom.passes.contraction.network import Indices, Network, Tree, inlined, tree_of

MOST_SLICED = 8
CONSIDERED = 8
SLICED_FACTORS = 1000
"""Beyond this many factors slices are not looked for: each look costs a pass over the tree."""


def fitting(tree: Tree, limit: int | None, sliceable: frozenset[int]) -> Iterator[
    tuple[Tree, Indices]
]:  # fmt: skip
    """Trees whose intermediates have at most `limit` elements, each with its sliced indices.

    The tree itself where it fits. Otherwise, for growing sets of sliced indices, what is still
    too large after slicing is computed where it is used, at the cost of repeated operations.
    """
    if limit is None or tree.largest <= limit:
        yield tree, ()
        return
    yield without_large(tree, limit), ()
    sliced: Indices = ()
    current = tree
    while len(sliced) < MOST_SLICED and len(tree.network.terms) <= SLICED_FACTORS:
        index = _next_slice(current, limit, sliceable, tree.network, sliced)
        if index is None:
            return
        sliced = (*sliced, index)
        current = sliced_tree(tree, sliced)
        fits = current.largest <= limit
        yield (current if fits else without_large(current, limit)), sliced
        if fits:
            return


def sliced_tree(tree: Tree, sliced: Indices) -> Tree:
    """The tree of one slice, factors meeting in the same order."""
    return tree_of(tree.network.without(sliced), tree.path)


def without_large(tree: Tree, limit: int) -> Tree:
    """The tree with every intermediate of more than `limit` elements inlined in its consumer."""
    count = len(tree.network.terms)
    large = {
        count + position
        for position, step in enumerate(tree.intermediates())
        if tree.network.size(step.kept) > limit
    }
    return inlined(tree, large)


def _next_slice(
    tree: Tree, limit: int, sliceable: frozenset[int], whole: Network, sliced: Indices
) -> int | None:
    """The index whose slices cost the fewest operations for what they shrink; None: there is none.

    Candidates are the reduced indices of intermediates that are too large.
    """
    network = tree.network
    found: dict[int, float] = {}
    for step in tree.intermediates():
        size = network.size(step.kept)
        if size > limit:
            for index in step.kept:
                if index in sliceable and network.sizes[index] > 1:
                    found[index] = found.get(index, 0.0) + finite(size)
    if not found:
        return None
    likely = sorted(found, key=lambda i: (-found[i], -network.sizes[i], i))[:CONSIDERED]

    def cost(index: int) -> tuple[int, int, int]:
        chosen = (*sliced, index)
        trial = sliced_tree(tree, (index,))
        return max(trial.largest, limit), operations(trial) * whole.size(chosen), index

    return min(likely, key=cost)
