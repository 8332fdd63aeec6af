"""Choosing a plan: candidates from the finders, made to fit, compared by the cost model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from einloom.ir.errors import PassError
from einloom.ir.record import record
from einloom.ir.types import DType
from einloom.passes.contraction.cost import CostModel, Plan, PlanCost, measured
from einloom.passes.contraction.memory import fitting
from einloom.passes.contraction.network import Network, Path, tree_of, unsplit
from einloom.passes.contraction.paths import FINDERS, candidate_paths, reachable
from einloom.passes.contraction.trees import MOST_OPERANDS, shaped

Method = Literal[
    "auto", "greedy", "optimal", "dp", "branch-all", "branch-2", "branch-1", "random-greedy",
    "left", "none", "given",
]  # fmt: skip


@record
class Choice:
    """A plan, its cost, and how many others were compared with it."""

    plan: Plan
    cost: PlanCost
    compared: int


@record
class Wish:
    """What the user asks for: see the options of `Contract`."""

    method: Method = "auto"
    path: Path = ()
    memory_limit: int | None = None
    seed: int = 0


def choose(
    network: Network, wish: Wish, sliceable: frozenset[int], dtype: DType, model: CostModel
) -> Choice:
    """The cheapest plan that the wish allows. Raises PassError for a path that does not fit."""
    best: Choice | None = None
    compared = 0
    for plan in _plans(network, wish, sliceable):
        compared += 1
        cost = measured(plan, dtype, model)
        # The order of candidates decides between equals, so that the choice is reproducible.
        if best is None or (cost.seconds, cost.operations) < (
            best.cost.seconds, best.cost.operations,
        ):  # fmt: skip
            best = Choice(plan, cost, compared)
    assert best is not None, "every method gives at least one plan"
    return Choice(best.plan, best.cost, compared)


def _plans(network: Network, wish: Wish, sliceable: frozenset[int]) -> Iterator[Plan]:
    for finder, path in _paths(network, wish):
        tree = shaped(tree_of(network, path))
        for fitted, sliced in fitting(tree, wish.memory_limit, sliceable):
            again = fitted if fitted is tree else shaped(fitted)
            yield Plan(network, again, finder, sliced)
    few = len(network.terms) <= MOST_OPERANDS
    if wish.method == "none" or (few and wish.method == "auto"):
        yield Plan(network, shaped(unsplit(network)), "none")


def _paths(network: Network, wish: Wish) -> Iterator[tuple[str, Path]]:
    method = wish.method
    if method == "none":
        return
    if method == "given":
        yield "given", checked_path(wish.path, len(network.terms))
    elif method != "auto" and (finder := reachable(method, network)) is not None:
        yield finder, FINDERS[finder](network, wish.seed)
    else:
        yield from candidate_paths(network, wish.seed, wish.memory_limit is not None)


def parse_path(text: str) -> list[tuple[int, ...]]:
    """A path as text, `(0, 1), (0, 1)`: in each group, positions in the list of what is left.

    What a group makes goes to the end of the list, as in NumPy and opt_einsum. Raises PassError.
    """
    found = re.sub(r"\s", "", text)
    if not re.fullmatch(r"(\(\d+(,\d+)*,?\),?)*", found):
        raise PassError(
            f"{text!r} is not a contraction path",
            suggestion='write groups of positions, for example "(1, 2), (0, 1)"',
        )
    groups = re.findall(r"\(([\d,]+)\)", found)
    return [tuple(int(item) for item in group.split(",") if item) for group in groups]


def checked_path(path: Path, factors: int) -> Path:
    """A path of list positions as one of node numbers. Raises PassError where it does not fit."""
    left = list(range(factors))
    nodes: list[tuple[int, ...]] = []
    for group in path:
        if len(set(group)) < len(group) or not group:
            raise PassError(f"group {_shown(group)} of the path names a position twice")
        wrong = [item for item in group if item >= len(left)]
        if wrong:
            raise PassError(
                f"group {_shown(group)} of the path asks for position {wrong[0]}, "
                f"but {len(left)} operand{'s are' if len(left) > 1 else ' is'} left",
                suggestion="positions count from 0, and each group's result goes to the end",
            )
        nodes.append(tuple(left[item] for item in sorted(group)))
        for item in sorted(group, reverse=True):
            del left[item]
        left.append(factors + len(nodes) - 1)
    if len(left) > 1:
        raise PassError(
            f"the path leaves {len(left)} operands",
            suggestion=f"end it with ({', '.join(str(k) for k in range(len(left)))})",
        )
    return nodes


def list_positions(path: Path, factors: int) -> list[tuple[int, ...]]:
    """A path of node numbers as one of list positions, as NumPy and opt_einsum write it."""
    left = list(range(factors))
    found: list[tuple[int, ...]] = []
    for number, group in enumerate(path):
        places = sorted(left.index(node) for node in group)
        for place in reversed(places):
            del left[place]
        left.append(factors + number)
        found.append(tuple(places))
    return found


def _shown(group: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, group))})"
