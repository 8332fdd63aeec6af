"""Shaping a tree: elementwise products merged into their consumers, ranks put in good order."""

from __future__ import annotations

from collections.abc import Iterator

from einloom.passes.contraction.network import Indices, Step, Tree, inlined

MOST_OPERANDS = 16
"""Factors of one loop nest made by merging: what registers and compile time can bear."""


def shaped(tree: Tree) -> Tree:
    """The tree as it is emitted."""
    return ordered(merged(tree))


def merged(tree: Tree) -> Tree:
    """Products that fold nothing, computed inside a consumer with the same loops.

    Such an intermediate saves no operation and costs a write and a read of all its elements.
    """
    count = len(tree.network.terms)
    arity = [1] * count + [len(step.operands) for step in tree.steps]
    doomed: set[int] = set()
    for position, step in enumerate(tree.steps):
        node, loops = count + position, len(step.space)
        for operand in step.operands:
            if operand < count:
                continue
            inner = tree.steps[operand - count]
            # What is kept by an operand is among the loops, so equal numbers are equal sets.
            if inner.reduced or len(inner.operands) < 2 or len(inner.kept) != loops:
                continue
            total = arity[node] + arity[operand] - 1
            if total <= MOST_OPERANDS:
                arity[node] = total
                doomed.add(operand)
    return inlined(tree, doomed)


def ordered(tree: Tree) -> Tree:
    """The ranks of every intermediate in the order that suits its consumer.

    Ranks follow the consumer's result: those that all operands share, then its rows, then its
    columns, so that the last rank is contiguous. Operands stand as the user wrote what they are
    made of. Where the consumer folds, the operand that
    carries the last rank of the result has the folded ranks before its columns, the others have
    them last, as in a matrix product of row-major matrices.
    """
    count = len(tree.network.terms)
    first = list(range(count))
    steps: list[Step] = []
    for step in tree.steps:
        operands = tuple(sorted(step.operands, key=first.__getitem__))
        first.append(first[operands[0]])
        steps.append(Step(operands, step.kept, step.reduced))
    for position in range(len(steps) - 1, -1, -1):
        step = steps[position]
        folded = _fold_order(tree, step)
        if folded != step.reduced:
            steps[position] = step = Step(step.operands, step.kept, folded)
        for operand in step.operands:
            if operand >= count:
                inner = steps[operand - count]
                kept = _operand_order(set(inner.kept), step.kept, folded)
                steps[operand - count] = Step(inner.operands, kept, inner.reduced)
    return Tree(tree.network, tuple(steps))


def _fold_order(tree: Tree, step: Step) -> Indices:
    """Folded indices in the order of the last factor that has them, else as they came."""
    if len(step.reduced) < 2:
        return step.reduced
    count = len(tree.network.terms)
    position: dict[int, int] = {}
    for operand in reversed(step.operands):
        if operand < count:
            for index in tree.network.terms[operand]:
                position.setdefault(index, len(position))
    return tuple(sorted(step.reduced, key=lambda index: position.get(index, len(position))))


def _operand_order(own: set[int], result: Indices, folded: Indices) -> Indices:
    kept = [index for index in result if index in own]
    inner = [index for index in folded if index in own]
    columns = 0
    for index in reversed(result):
        if index not in own:
            break
        columns += 1
    cut = len(kept) - columns
    return (*kept[:cut], *inner, *kept[cut:])


def every_path(count: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """All binary trees over `count` factors: 1, 3, 15, 105, ... of them."""
    stack: list[tuple[tuple[int, ...], tuple[tuple[int, int], ...]]] = [(tuple(range(count)), ())]
    seen: set[frozenset[frozenset[int]]] = set()
    while stack:
        alive, path = stack.pop()
        if len(alive) < 2:
            shape = _leaf_sets(count, path)
            if shape not in seen:
                seen.add(shape)
                yield path
            continue
        pairs = [(a, b) for k, a in enumerate(alive) for b in alive[k + 1 :]]
        for a, b in reversed(pairs):
            rest = tuple(node for node in alive if node not in (a, b))
            stack.append(((*rest, count + len(path)), (*path, (a, b))))


def _leaf_sets(count: int, path: tuple[tuple[int, int], ...]) -> frozenset[frozenset[int]]:
    """What identifies a tree, whatever the order in which its steps are listed."""
    leaves = [frozenset([k]) for k in range(count)]
    for a, b in path:
        leaves.append(leaves[a] | leaves[b])
    return frozenset(leaves)
