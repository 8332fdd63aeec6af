"""Options that hold for a block of code: threads, precision, strictness."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from einloom.ir.errors import ParseError
from einloom.ir.record import record

PRECISIONS = ("highest", "high", "medium")


@record
class Options:
    """`threads`: None takes the pool's number. `precision`: of f32 products. `strict`: no
    reordering of floating-point sums and no law that only holds up to rounding."""

    threads: int | None = None
    precision: str = "highest"
    strict: bool = False


DEFAULT = Options()
CURRENT: ContextVar[Options] = ContextVar("einloom_options", default=DEFAULT)


def current() -> Options:
    return CURRENT.get()


@contextmanager
def options(
    *, threads: int | None = None, precision: str | None = None, strict: bool | None = None
) -> Iterator[Options]:
    """Set options for the calls in a `with` block; what is not given stays.

    >>> with options(threads=1) as now:
    ...     now.threads
    1
    """
    check_precision(precision)
    if threads is not None and threads < 1:
        raise ParseError(f"threads is {threads}; it must be at least 1")
    now = current()
    changed = replace(
        now,
        threads=now.threads if threads is None else threads,
        precision=now.precision if precision is None else precision,
        strict=now.strict if strict is None else strict,
    )
    token = CURRENT.set(changed)
    try:
        yield changed
    finally:
        CURRENT.reset(token)


def check_precision(precision: str | None) -> None:
    """Raises ParseError unless it is None or one of `PRECISIONS`."""
    if precision is None:
        return
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ParseError(
            f"unknown precision {precision!r}", suggestion=f"one of {', '.join(PRECISIONS)}"
        )
