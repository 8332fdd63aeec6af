"""Which order passes may stand in: constraints as data with reasons, and all legal orders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from einloom.ir.errors import PassError
from einloom.ir.record import record


@record
class Before:
    """Where both stand in a pipeline, every `first` precedes every `second`."""

    first: str
    second: str
    why: str

    def broken_by(self, order: Sequence[str]) -> str | None:
        """What is wrong with an order of passes, or None."""
        if self.first not in order or self.second not in order:
            return None
        last = len(order) - 1 - list(reversed(order)).index(self.first)
        if last < order.index(self.second):
            return None
        return f"{self.first} must stand before {self.second}: {self.why}"


@record
class Requires:
    """A pass that only works when another one has run before it."""

    name: str
    needs: str
    why: str

    def broken_by(self, order: Sequence[str]) -> str | None:
        """What is wrong with an order of passes, or None."""
        if self.name not in order or self.needs in order[: order.index(self.name)]:
            return None
        return f"{self.name} needs {self.needs} before it: {self.why}"


Constraint = Before | Requires

ORDER: tuple[Constraint, ...] = (
    Before(
        "contract",
        "fuse",
        why="contract splits statements and knows no kernels, so it would tear apart what fuse "
        "has grouped",
    ),
)


def check_order(order: Sequence[str], constraints: Sequence[Constraint] = ORDER) -> None:
    """Refuse an order that breaks a constraint. Raises PassError with all reasons."""
    faults = [fault for c in constraints if (fault := c.broken_by(order)) is not None]
    if faults:
        raise PassError("; ".join(faults), suggestion=_repaired(order, constraints))


def _repaired(order: Sequence[str], constraints: Sequence[Constraint]) -> str | None:
    legal = next(legal_orders(order, constraints), None)
    return None if legal is None else f"this order is legal: {', '.join(legal)}"


def legal_orders(
    names: Sequence[str], constraints: Sequence[Constraint] = ORDER
) -> Iterator[tuple[str, ...]]:
    """Every distinct order of the passes `names` that breaks no constraint, one at a time.

    They come in lexicographic order of the places in `names`, so the first is the legal order
    nearest to the given one. A prefix that no legal order starts with is left at once, so what
    is asked for costs no more than a few steps per name, whatever the number of orders.

    >>> list(legal_orders(["b", "a"], [Before("a", "b", why="b uses what a makes")]))
    [('a', 'b')]
    """
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    if not _solvable(counts, constraints):
        return
    prefix: list[str] = []
    choices = [iter(list(counts))]
    while choices:
        if len(prefix) == len(names):
            yield tuple(prefix)
        chosen = next((n for n in choices[-1] if _may_follow(n, prefix, counts, constraints)), None)
        if chosen is None:
            choices.pop()
            if prefix:
                counts[prefix.pop()] += 1
            continue
        prefix.append(chosen)
        counts[chosen] -= 1
        choices.append(iter(list(counts)))


def _may_follow(
    name: str, prefix: list[str], left: dict[str, int], constraints: Sequence[Constraint]
) -> bool:
    """Whether `name` may come next: all that must precede it has been used up."""
    if left[name] == 0:
        return False
    for constraint in constraints:
        if isinstance(constraint, Before):
            if constraint.second == name and left.get(constraint.first, 0):
                return False
        elif constraint.name == name and constraint.needs not in prefix:
            return False
    return True


def _solvable(counts: dict[str, int], constraints: Sequence[Constraint]) -> bool:
    """Whether some order is legal: taking what may come next never gets stuck."""
    left, prefix = dict(counts), list[str]()
    total = sum(left.values())
    while len(prefix) < total:
        name = next((n for n in left if _may_follow(n, prefix, left, constraints)), None)
        if name is None:
            return False
        prefix.append(name)
        left[name] -= 1
    return True
