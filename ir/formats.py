"""Level formats: the kinds of levels a tensor may be stored in, their parameters, shorthands.

A format lists one level per rank, in the order of the ranks (Chou, Kjolstad, Amarasinghe,
"Format abstraction for sparse tensor algebra compilers", 2018). Block levels come last, one
for each rank: rank k is split, its own level keeps `i // n` and its block keeps `i % n`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from einloom.ir.names import counted
from einloom.ir.record import record
from einloom.ir.types import Level


@record
class LevelKind:
    """One kind of level. `parameters` names its parameters; `example` shows how it is written;
    `leads`: whether it may be the first level."""

    name: str
    parameters: tuple[str, ...] = ()
    example: str = ""
    leads: bool = True


LEVEL_KINDS: dict[str, LevelKind] = {
    kind.name: kind
    for kind in (
        LevelKind("dense"),  # every coordinate
        LevelKind("compressed"),  # positions and sorted coordinates
        LevelKind("singleton", leads=False),  # one coordinate for each one of the level above
        LevelKind("hashed"),  # a hash table from coordinate to position
        LevelKind("bitmap"),  # one bit per coordinate
        LevelKind("block", ("size",), "block<16>", leads=False),  # dense inside a block
        LevelKind("nm", ("kept", "of"), "nm<2:4>"),  # n kept out of every m
        LevelKind("run"),  # runs of equal values
        LevelKind("band"),  # an interval of coordinates
    )
}

SHORTHANDS: dict[str, Callable[[int, tuple[int, ...]], tuple[Level, ...]]] = {
    # the level list of a shorthand, for a number of ranks and its parameters
    "csr": lambda ranks, parameters: (Level("dense"), Level("compressed")),
    "dcsr": lambda ranks, parameters: (Level("compressed"), Level("compressed")),
    "coo": lambda ranks, parameters: (Level("compressed"), *[Level("singleton")] * (ranks - 1)),
    "csf": lambda ranks, parameters: (Level("compressed"),) * ranks,
    "bcsr": lambda ranks, parameters: (
        Level("dense"),
        Level("compressed"),
        *(Level("block", (size,)) for size in parameters),
    ),
}


def format_problems(levels: tuple[Level, ...], ranks: int) -> Iterator[tuple[str, str | None]]:
    """What is wrong with a format of a tensor of `ranks` ranks: message and suggestion."""
    if not levels:
        return
    for level in levels:
        yield from _level_problems(level)
    if any(level.kind not in LEVEL_KINDS for level in levels):
        return
    if not LEVEL_KINDS[levels[0].kind].leads:
        hint = "begin with dense or compressed"
        yield f"the first level of a format cannot be {levels[0].kind}", hint
    for above, level in pairwise(levels):
        if level.kind == "singleton" and above.kind not in ("compressed", "singleton", "hashed"):
            message = f"a singleton level cannot stand under a {above.kind} one"
            yield message, "write it as (compressed, singleton)"
    own = [level for level in levels if level.kind != "block"]
    blocks = len(levels) - len(own)
    if len(own) != ranks:
        count = counted(len(own), "level") + (" (blocks not counted)" if blocks else "")
        of = counted(ranks, "rank")
        yield f"the format has {count} for {of}", "write one level for each rank"
    elif blocks and (blocks != ranks or levels[: len(own)] != tuple(own)):
        example = ", ".join(["dense"] * ranks + ["block<4>"] * ranks)
        yield "block levels come last, one for each rank", f"({example})"


def _level_problems(level: Level) -> Iterator[tuple[str, str | None]]:
    kind = LEVEL_KINDS.get(level.kind)
    if kind is None:
        yield f"unknown level {level.kind}", f"the levels are {', '.join(LEVEL_KINDS)}"
        return
    if len(level.parameters) != len(kind.parameters):
        takes = ", ".join(kind.parameters) or "no parameters"
        yield f"level {kind.name} takes {takes}", kind.example or kind.name
        return
    if any(parameter < 1 for parameter in level.parameters):
        yield f"the parameters of level {kind.name} are at least 1", kind.example
    elif kind.name == "nm" and level.parameters[0] > level.parameters[1]:
        kept, of = level.parameters
        yield f"nm<{kept}:{of}> keeps more than there is", kind.example
