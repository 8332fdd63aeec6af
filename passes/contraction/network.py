"""Networks and contraction trees: which factors meet in which order, over numbered indices.

Indices are integers here, because sets of small integers iterate in one order in every process,
which makes every choice reproducible.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from einloom.ir.record import record

Indices = tuple[int, ...]
Path = Sequence[tuple[int, ...]]
"""Groups of nodes that meet: factors are 0 to n-1, group k makes node n+k."""


MANY = 500
"""Extents whose product is computed by powers: one after the other takes quadratic time."""


@record
class Network:
    """What is to be contracted.

    `terms`: the distinct indices of each factor, in the order in which its memory is laid out.
    `output`: the kept indices. `reduced`: all others. `sizes`: the likely extent of each index.
    `factor_bytes`: bytes that reading one element of a factor moves. `element_bytes`: bytes of an
    element of an intermediate.
    """

    terms: tuple[Indices, ...]
    output: Indices
    reduced: Indices
    sizes: Mapping[int, int]
    factor_bytes: tuple[float, ...]
    element_bytes: float

    def size(self, indices: Iterable[int]) -> int:
        """Elements of a tensor with these indices."""
        sizes = [*map(self.sizes.__getitem__, indices)]
        if len(sizes) < MANY:
            return math.prod(sizes)
        return math.prod(size**count for size, count in Counter(sizes).items())

    @cached_property
    def term_sizes(self) -> tuple[int, ...]:
        """Elements of each factor."""
        return tuple(map(self.size, self.terms))

    @cached_property
    def degrees(self) -> dict[int, int]:
        """In how many factors each index stands; the output counts as one more."""
        found: dict[int, int] = dict.fromkeys((*self.output, *self.reduced), 0)
        for term in self.terms:
            for index in term:
                found[index] += 1
        for index in self.output:
            found[index] += 1
        return found

    def without(self, fixed: Iterable[int]) -> Network:
        """The network of one slice, in which the given reduced indices have one value each."""
        gone = set(fixed)
        return replace(
            self,
            terms=tuple(tuple(i for i in term if i not in gone) for term in self.terms),
            reduced=tuple(index for index in self.reduced if index not in gone),
        )


@record
class Step:
    """One statement of a tree: the product of `operands`, folded over `reduced`.

    Operands are nodes: factors 0 to n-1, and step k is node n+k. `kept` is in memory order.
    """

    operands: tuple[int, ...]
    kept: Indices
    reduced: Indices = ()

    @property
    def space(self) -> Indices:
        """The indices of its loops."""
        return self.kept + self.reduced


@record
class Tree:
    """Steps in the order in which they run; the last one gives the result.

    Every node but the last is the operand of exactly one step.
    """

    network: Network
    steps: tuple[Step, ...]

    @property
    def path(self) -> tuple[tuple[int, ...], ...]:
        return tuple(step.operands for step in self.steps)

    def indices(self, node: int) -> Indices:
        """The indices of a node, in memory order."""
        count = len(self.network.terms)
        return self.network.terms[node] if node < count else self.steps[node - count].kept

    def intermediates(self) -> tuple[Step, ...]:
        """The steps whose results are temporary: all but the last."""
        return self.steps[:-1]

    @cached_property
    def elements(self) -> tuple[int, ...]:
        """Elements of each step's result."""
        return tuple([self.network.size(step.kept) for step in self.steps])

    @cached_property
    def largest(self) -> int:
        """Elements of the largest intermediate; 0 when there is none."""
        return max(self.elements[:-1], default=0)


def closes(inside: int, references: int) -> bool:
    """Whether an index may be folded away by a step.

    `inside` of the step's operands carry it, and so do `references` live nodes in all, the result
    being one. It closes when nothing outside needs it: then the product distributes.
    """
    return inside == references


def tree_of(network: Network, path: Path) -> Tree:
    """The tree of a path. Indices are folded as early as distributivity allows.

    A factor's own reduced indices are folded before it meets another one, unless they have extent
    1. The path must leave one node. The work is linear in the sum of the nodes' rank counts.
    """
    builder = _Builder(network)
    for group in path:
        builder.meet(group)
    return Tree(network, tuple(builder.finished()))


def unsplit(network: Network) -> Tree:
    """The tree of one step: all factors in one loop nest."""
    step = Step(tuple(range(len(network.terms))), network.output, network.reduced)
    return Tree(network, (step,))


class _Builder:
    """Builds the steps of a tree while it counts who still needs each index."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.references = dict(network.degrees)
        self.steps: list[Step] = []
        self.nodes: list[int] = [-1] * len(network.terms)  # the node of each path entry

    def indices(self, node: int) -> Indices:
        count = len(self.network.terms)
        return self.network.terms[node] if node < count else self.steps[node - count].kept

    def meet(self, group: tuple[int, ...]) -> None:
        operands = tuple(self.entry(item) for item in group)
        if len(operands) == 1:
            self.nodes.append(operands[0])  # `entry` has folded what there is to fold
            return
        self.nodes.append(self.step(operands))

    def entry(self, item: int) -> int:
        """The node of a path entry; a factor is first folded over indices that it alone has."""
        if item < len(self.network.terms) and self.nodes[item] < 0:
            term = self.network.terms[item]
            own = [index for index in term if closes(1, self.references[index])]
            folds = own and self.network.size(own) != 1
            self.nodes[item] = self.step((item,)) if folds else item
        return self.nodes[item]

    def step(self, operands: tuple[int, ...]) -> int:
        inside: dict[int, int] = {}
        for operand in operands:
            for index in self.indices(operand):
                inside[index] = inside.get(index, 0) + 1
        kept: list[int] = []
        reduced: list[int] = []
        references = self.references
        for index, count in inside.items():
            if closes(count, references[index]):
                reduced.append(index)
            else:
                kept.append(index)
                references[index] -= count - 1
        self.steps.append(Step(operands, tuple(kept), tuple(reduced)))
        return len(self.network.terms) + len(self.steps) - 1

    def finished(self) -> list[Step]:
        """The steps; the last one keeps the output and folds indices that no factor has."""
        last = self.steps[-1]
        missing = [i for i in self.network.reduced if self.network.degrees[i] == 0]
        self.steps[-1] = replace(
            last, kept=self.network.output, reduced=last.reduced + tuple(missing)
        )
        return self.steps


def inlined(tree: Tree, doomed: set[int]) -> Tree:
    """The tree with some intermediates written out where they are used.

    `doomed` are nodes of steps, not the last one. Their factors and folds move into the step
    that uses them, which stays right because the product distributes over the fold.
    """
    if not doomed:
        return tree
    count = len(tree.network.terms)
    renamed: dict[int, int] = {}
    opened: dict[int, tuple[list[int], list[int]]] = {}
    steps: list[Step] = []
    for position, step in enumerate(tree.steps):
        operands: list[int] = []
        reduced = list(step.reduced)
        for operand in step.operands:
            if operand in opened:
                inner, folded = opened.pop(operand)
                operands += inner
                reduced += folded
            else:
                operands.append(renamed.get(operand, operand))
        if count + position in doomed:
            opened[count + position] = (operands, reduced)
        else:
            renamed[count + position] = count + len(steps)
            steps.append(Step(tuple(operands), step.kept, tuple(reduced)))
    return Tree(tree.network, tuple(steps))
