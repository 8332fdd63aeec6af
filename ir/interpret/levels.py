"""The reductions of a statement as levels of folds, and the order in which it is evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from einloom.ir import extents as ext
from einloom.ir.definitions import combine
from einloom.ir.expressions import Access, Expression, Index
from einloom.ir.interpret.compile import plan
from einloom.ir.interpret.folds import DefinedFold, Fold, builtin_fold
from einloom.ir.interpret.storage import Frame
from einloom.ir.interpret.values import Array, Value, array_of, components, converted
from einloom.ir.program import Einsum, Monoid, Reduction
from einloom.ir.promotion import Typing
from einloom.ir.record import record
from einloom.ir.types import TensorType, Tuple, bool_
from einloom.ir.typing import Lookup, fold_dtypes

MOST_AXES = 60
"""NumPy has at most 64; indices beyond stand still and are looped over."""


@record
class Level:
    """One reduction, or several nested ones that are one: `sum[i] sum[j]` is `sum[i, j]`."""

    indices: tuple[str, ...]
    fold: Fold


def levels_of(statement: Einsum, body: Sequence[Typing], lookup: Lookup) -> list[Level]:
    """The levels, the outermost first; `body` are the typings of the body's components."""
    typings = list(body)
    levels: list[Level] = []
    for reduction in reversed(merged(statement.reductions, lookup.monoids)):
        after = fold_dtypes(reduction, typings, lookup.monoids)
        if reduction.monoid in lookup.monoids:
            fold: Fold = defined_fold(lookup.monoids[reduction.monoid], lookup)
        else:
            working = [t.dtype for t in typings]
            if reduction.accumulator is not None:
                working = [reduction.accumulator]
            elif reduction.monoid in ("any", "all"):
                working = [bool_]
            fold = builtin_fold(reduction.monoid, working)
        levels.insert(0, Level(reduction.indices, fold))
        typings = after
    return levels


def merged(reductions: Sequence[Reduction], monoids: Mapping[str, Monoid]) -> list[Reduction]:
    """Neighbours with one builtin monoid and accumulator made one."""
    result: list[Reduction] = []
    for reduction in reductions:
        last = result[-1] if result else None
        if (
            last is not None
            and last.monoid == reduction.monoid
            and last.accumulator == reduction.accumulator
            and reduction.monoid not in monoids
        ):
            indices = last.indices + reduction.indices
            result[-1] = Reduction(last.monoid, indices, last.accumulator, location=last.location)
        else:
            result.append(reduction)
    return result


def defined_fold(monoid: Monoid, lookup: Lookup) -> DefinedFold:
    """The fold of a monoid that the module defines."""
    parts = monoid.dtype.items if isinstance(monoid.dtype, Tuple) else (monoid.dtype,)
    sides = {side: TensorType(monoid.dtype) for side in ("left value", "right value")}
    left, right = (Access(side) for side in sides)
    expression = combine(monoid, left, right)
    combining = plan(expression, lookup, (), sides)
    identity = plan(monoid.identity, lookup, ())

    def value_of(parts: Sequence[Value]) -> Value:
        return tuple(parts) if isinstance(monoid.dtype, Tuple) else parts[0]

    def parts_of(value: Value) -> list[Array]:
        whole = converted(value, monoid.dtype)
        items = components(whole) if isinstance(monoid.dtype, Tuple) else (whole,)
        return [array_of(item) for item in items]

    def run(frame: Frame, left: list[Array], right: list[Array]) -> list[Array]:
        given = dict(zip(sides, (value_of(left), value_of(right)), strict=True))
        return parts_of(combining.run(Frame(frame.storages, frame.symbols, {}, locals=given)))

    first = parts_of(identity.run(Frame({}, {}, {})))
    return DefinedFold(tuple(parts), tuple(first), run)


# ---- the iteration space ------------------------------------------------------------------


def mapped_indices(statement: Einsum, scans: Sequence[str]) -> list[str]:
    """The indices of the left side that nothing reduces, in order of appearance."""
    reduced = {name for reduction in statement.reductions for name in reduction.indices}
    names: dict[str, None] = {}
    for expression in statement.indices:
        names.update(dict.fromkeys(ext.indices_in(expression)))
    return [name for name in names if name not in reduced and name not in scans]


def is_direct(indices: Sequence[Expression], own: Sequence[str]) -> bool:
    """Whether each index of a left side is a plain index of its own, or one single value."""
    plain = [e.name for e in indices if isinstance(e, Index) and e.name in own]
    if len(set(plain)) != len(plain):
        return False
    return all(isinstance(e, Index) or not set(ext.indices_in(e)) & set(own) for e in indices)


@record
class Box:
    """A part of the iteration space, and the outermost level that it completes.

    `completes` is k where this is the last box of levels k, k+1, ...; the number of levels
    where it is not even the last of the innermost one.
    """

    ranges: dict[str, tuple[int, int]]
    completes: int


def boxes(
    mapped: Sequence[str],
    levels: Sequence[Sequence[str]],
    sizes: Mapping[str, int],
    chunks: Mapping[str, int],
) -> Iterator[Box]:
    """Cut the space into boxes of the given chunks, in iteration order.

    Levels with an empty range are one empty box, so that their identity is folded outwards.
    """
    cuts: list[list[tuple[int, int]]] = []
    names = [*mapped, *(name for level in levels for name in level)]
    for name in names:
        size, step = sizes[name], max(1, chunks[name])
        pieces = [(k, min(k + step, size)) for k in range(0, size, step)]
        cuts.append(pieces if pieces or name in mapped else [(0, 0)])
    ends = [len(mapped)]
    for level in levels:
        ends.append(ends[-1] + len(level))
    for positions in product(*(range(len(pieces)) for pieces in cuts)):
        completes = len(levels)
        while completes:
            begin, end = ends[completes - 1], ends[completes]
            if any(positions[k] + 1 < len(cuts[k]) for k in range(begin, end)):
                break
            completes -= 1
        ranges = {name: cuts[k][positions[k]] for k, name in enumerate(names)}
        yield Box(ranges, completes)
