"""What was measured on a machine: rates of arithmetic and of memory, and how they are written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from einloom.ir.record import record

FORMAT = "einloom measurements of a machine"
VERSION = 1
TILE_DTYPES = ("f32", "f64", "i32", "i64")
"""Dtypes whose multiply-adds are measured in a register tile."""
PRODUCT_DTYPES = (*TILE_DTYPES, "f16", "bf16")
"""Dtypes of which a packed product is measured."""
MOST_LEVELS, MOST_THREADS = 8, 4096
LEAST, MOST = 1e-12, 1e18
"""What no number of a measurement is below or above, in its unit."""


class DamagedError(ValueError):
    """A text that holds no measurements of this machine; the words say why."""


@record
class Rate:
    """Operations or bytes per second, on one thread and on all threads together."""

    one: float
    together: float


@record
class Level:
    """A level of memory and its speed, in bytes per second.

    `size`: bytes that one of it holds; None for memory itself. `read`: bytes read. `copy`: bytes
    read and bytes written, added. `fresh`: bytes written to an array that was allocated just
    before.
    """

    name: str
    size: int | None
    read: Rate
    copy: Rate
    fresh: Rate


@record
class Measurements:
    """A machine as its own kernels see it.

    `tiles`: operations per second of the inner loop of a product on operands in the first cache,
    by dtype, a multiply-add being two. `products`: the same of whole packed products. `untiled`:
    of an f32 product that is neither packed nor cut into tiles. `transposed`: bytes per second
    read and written by an f32 transposition in memory. `launch_seconds`: one kernel of a program.
    `parallel_seconds`: sharing one kernel out to all threads, which ran another just before.
    """

    threads: int
    tiles: Mapping[str, Rate]
    products: Mapping[str, Rate]
    untiled: Rate
    transposed: Rate
    levels: tuple[Level, ...]
    launch_seconds: float
    parallel_seconds: float


def encoded(measured: Measurements, fingerprint: str) -> bytes:
    """Measurements as JSON, with the machine they belong to and a checksum."""
    data = {
        "threads": measured.threads,
        "tiles": {name: _pair(rate) for name, rate in measured.tiles.items()},
        "products": {name: _pair(rate) for name, rate in measured.products.items()},
        "untiled": _pair(measured.untiled),
        "transposed": _pair(measured.transposed),
        "levels": [
            {
                "name": level.name,
                "size": level.size,
                "read": _pair(level.read),
                "copy": _pair(level.copy),
                "fresh": _pair(level.fresh),
            }
            for level in measured.levels
        ],
        "launch_seconds": measured.launch_seconds,
        "parallel_seconds": measured.parallel_seconds,
    }
    whole = {"format": FORMAT, "version": VERSION, "fingerprint": fingerprint, "measured": data}
    return json.dumps({**whole, "checksum": _checksum(whole)}, indent=1).encode() + b"\n"


def decoded(text: bytes, fingerprint: str) -> Measurements:
    """What `encoded` wrote on this machine. Raises DamagedError for anything else."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        raise DamagedError("it is not JSON") from None
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise DamagedError("it holds no measurements")
    if whole.get("version") != VERSION:
        raise DamagedError("it was written by another version of Einloom")
    checksum = whole.pop("checksum", None)
    try:
        if checksum != _checksum(whole):
            raise DamagedError("its checksum is wrong")
    except RecursionError:
        raise DamagedError("its checksum is wrong") from None
    if whole.get("fingerprint") != fingerprint:
        raise DamagedError("it was measured on another machine")
    try:
        return _read(whole["measured"])
    except DamagedError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError):
        raise DamagedError("a number is missing") from None


def _read(data: Any) -> Measurements:
    levels = tuple(
        Level(
            str(level["name"]),
            None if level["size"] is None else _whole(level["size"], 1 << 50),
            *(_rate(level[name]) for name in ("read", "copy", "fresh")),
        )
        for level in data["levels"][:MOST_LEVELS]
    )
    if not levels or levels[-1].size is not None or any(x.size is None for x in levels[:-1]):
        raise DamagedError("its last level is not memory")
    return Measurements(
        _whole(data["threads"], MOST_THREADS),
        {name: _rate(data["tiles"][name]) for name in TILE_DTYPES},
        {name: _rate(data["products"][name]) for name in PRODUCT_DTYPES},
        _rate(data["untiled"]),
        _rate(data["transposed"]),
        levels,
        _number(data["launch_seconds"]),
        _number(data["parallel_seconds"]),
    )


def _pair(rate: Rate) -> list[float]:
    return [rate.one, rate.together]


def _rate(data: Any) -> Rate:
    one, together = data
    return Rate(_number(one), _number(together))


def _number(data: Any) -> float:
    if not isinstance(data, int | float) or isinstance(data, bool):
        raise TypeError(data)
    if not (math.isfinite(data) and LEAST <= data <= MOST):
        raise DamagedError(f"{data} is no number that a machine has")
    return float(data)


def _whole(data: Any, most: int) -> int:
    if not isinstance(data, int) or isinstance(data, bool):
        raise TypeError(data)
    if not 1 <= data <= most:
        raise DamagedError(f"{data} is no number that a machine has")
    return data


def _checksum(whole: Mapping[str, Any]) -> str:
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=16).hexdigest()
