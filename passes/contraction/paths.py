"""Candidate paths: opt_einsum's finders, left to right, and a linear-time one for huge networks."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from einloom.passes.contraction.network import Network, Path
from einloom.passes.contraction.trees import MOST_OPERANDS, every_path

Finder = Callable[[Network, int], Path]

ENUMERATED = 4
"""Up to this many factors all trees are compared, which needs no search (and no import)."""

RANDOM_TRIALS = 16
GREEDY_WORK = 2_000_000
"""opt_einsum's greedy search is quadratic in the factors that share an index: how much is fine."""

REACH = {"optimal": 7, "branch-all": 7, "dp": 12, "branch-2": 12, "branch-1": 200, "left": 300}
"""Finders whose work grows fast, and the number of factors up to which they take under a second."""

INSTEAD = {"optimal": "dp", "branch-all": "branch-2", "branch-2": "branch-1"}
"""What stands in for a finder beyond its reach; else the candidates of `auto` do."""


def reachable(method: str, network: Network) -> str | None:
    """The finder to use for a wish: itself, what stands in for it, or None."""
    wanted: str | None = method
    while wanted is not None and not within_reach(wanted, network):
        wanted = INSTEAD.get(wanted)
    return wanted


def within_reach(method: str, network: Network) -> bool:
    """Whether a finder ends in reasonable time on a network."""
    count = len(network.terms)
    if method in ("greedy", "random-greedy"):
        return count <= 4000 and sum(d * d for d in network.degrees.values()) <= GREEDY_WORK
    return count <= REACH.get(method, count)


def candidate_paths(network: Network, seed: int, limited: bool) -> Iterator[tuple[str, Path]]:
    """Paths worth comparing, each with the name of its finder; the same ones every time.

    `limited`: memory is limited, so that paths with small intermediates are of interest.
    """
    count = len(network.terms)
    if count <= ENUMERATED:
        for enumerated in every_path(count):
            yield "enumeration", enumerated
        return
    if not within_reach("greedy", network):
        yield "linear", linear(network, seed)
        return
    yield "greedy", greedy(network, seed)
    if count <= 9:
        yield "dp", dynamic(network, seed)
        if limited:
            yield "dp-size", smallest(network, seed)
    if count <= 8:
        yield "branch-2", branch_two(network, seed)
    if count <= 100:
        for trial, path in enumerate(random_paths(network, seed)):
            yield f"random-greedy-{trial}", path
    if count <= 64:
        yield "left", left_to_right(network, seed)


# ---- our own ------------------------------------------------------------------------------


def left_to_right(network: Network, seed: int) -> Path:
    """((x0 x1) x2) x3 ..."""
    count = len(network.terms)
    if count < 2:
        return []
    return [(0, 1), *((k, count + k - 2) for k in range(2, count))]


def linear(network: Network, seed: int) -> Path:
    """A path in time linear in the network, but for a sort, whatever its size.

    Factors with the same indices meet first, several at a time; then indices are eliminated one
    after the other, those in the fewest factors first; what is left over (outer products and
    scalars) meets last, small ones first.
    """
    work = _Elimination(network)
    work.meet_alike()
    degrees = network.degrees
    for index in sorted(network.reduced, key=lambda i: (degrees[i], i)):
        work.eliminate(index)
    work.meet_alike()
    work.meet_rest()
    return work.path


class _Elimination:
    """Bucket elimination over live nodes."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.path: list[tuple[int, ...]] = []
        self.references = dict(network.degrees)
        self.alive: dict[int, frozenset[int]] = {}
        self.holders: dict[int, dict[int, None]] = {index: {} for index in self.references}
        for node, term in enumerate(network.terms):
            self.live(node, frozenset(i for i in term if self.references[i] > 1))

    def live(self, node: int, indices: frozenset[int]) -> None:
        self.alive[node] = indices
        for index in indices:
            self.holders[index][node] = None

    def meet(self, group: list[int]) -> int:
        """Contract live nodes; indices that nothing else has are gone afterwards."""
        inside: dict[int, int] = {}
        for node in group:
            for index in self.alive.pop(node):
                inside[index] = inside.get(index, 0) + 1
                del self.holders[index][node]
        for index, count in inside.items():
            self.references[index] -= count - 1
        made = len(self.network.terms) + len(self.path)
        self.path.append(tuple(sorted(group)))
        self.live(made, frozenset(i for i in inside if self.references[i] > 1))
        return made

    def meet_alike(self) -> None:
        groups: dict[frozenset[int], list[int]] = {}
        for node, indices in self.alive.items():
            groups.setdefault(indices, []).append(node)
        for group in groups.values():
            while len(group) > 1:
                cut = range(0, len(group), MOST_OPERANDS)
                chunks = [group[k : k + MOST_OPERANDS] for k in cut]
                group = [self.meet(chunk) if len(chunk) > 1 else chunk[0] for chunk in chunks]

    def eliminate(self, index: int) -> None:
        bucket = list(self.holders[index])
        if len(bucket) > 1:
            bucket.sort(key=lambda node: (len(self.alive[node]), node))
            merged = bucket[0]
            for node in bucket[1:]:
                merged = self.meet([merged, node])

    def meet_rest(self) -> None:
        heap = [(self.network.size(i), node) for node, i in self.alive.items()]
        heapq.heapify(heap)
        while len(heap) > 1:
            (_, first), (_, second) = heapq.heappop(heap), heapq.heappop(heap)
            made = self.meet([first, second])
            heapq.heappush(heap, (self.network.size(self.alive[made]), made))


# ---- opt_einsum's -------------------------------------------------------------------------


def greedy(network: Network, seed: int) -> Path:
    return _greedy(network, network.sizes)


def random_paths(network: Network, seed: int) -> Iterator[Path]:
    """Greedy paths for jittered sizes: variety without touching a global random state."""
    source = random.Random(seed)
    trials = RANDOM_TRIALS if len(network.terms) <= 30 else RANDOM_TRIALS // 2
    for _ in range(trials):
        jitter = {i: source.lognormvariate(0.0, 0.7) for i in sorted(network.sizes)}
        yield _greedy(network, {i: max(1, round(s * jitter[i])) for i, s in network.sizes.items()})


def random_greedy(network: Network, seed: int) -> Path:
    """The jittered greedy path with the fewest operations."""
    from einloom.passes.contraction.cost import operations
    from einloom.passes.contraction.network import tree_of

    candidates = [greedy(network, seed), *random_paths(network, seed)]
    return min(candidates, key=lambda path: operations(tree_of(network, path)))


def _greedy(network: Network, sizes: Mapping[int, int]) -> Path:
    from opt_einsum.paths import ssa_greedy_optimize

    terms, output = _sets(network)
    # A size of 0 would make every choice look equal.
    path: Path = ssa_greedy_optimize(terms, output, {i: max(1, s) for i, s in sizes.items()})
    return path


def _found(network: Network, find: Any) -> Path:
    from opt_einsum.paths import linear_to_ssa

    terms, output = _sets(network)
    sizes = {index: max(1, size) for index, size in network.sizes.items()}
    path: Path = linear_to_ssa(find(terms, output, sizes, None))
    return path


def _sets(network: Network) -> tuple[list[Any], Any]:
    """Factors as the finders take them, once folded over the indices that they alone have."""
    degrees = network.degrees
    terms = [frozenset(i for i in term if degrees[i] > 1) for term in network.terms]
    return terms, frozenset(network.output)


def optimal(network: Network, seed: int) -> Path:
    from opt_einsum import paths

    return _found(network, paths.optimal)


def dynamic(network: Network, seed: int) -> Path:
    from opt_einsum import paths

    return _found(network, paths.DynamicProgramming(minimize="flops"))


def smallest(network: Network, seed: int) -> Path:
    """The path whose largest intermediate is smallest."""
    from opt_einsum import paths

    return _found(network, paths.DynamicProgramming(minimize="size"))


def branch_all(network: Network, seed: int) -> Path:
    from opt_einsum import paths

    return _found(network, paths.BranchBound(nbranch=None))


def branch_two(network: Network, seed: int) -> Path:
    from opt_einsum import paths

    return _found(network, paths.BranchBound(nbranch=2))


def branch_one(network: Network, seed: int) -> Path:
    from opt_einsum import paths

    return _found(network, paths.BranchBound(nbranch=1))


FINDERS: dict[str, Finder] = {
    "greedy": greedy,
    "optimal": optimal,
    "dp": dynamic,
    "branch-all": branch_all,
    "branch-2": branch_two,
    "branch-1": branch_one,
    "random-greedy": random_greedy,
    "left": left_to_right,
    "linear": linear,
}
