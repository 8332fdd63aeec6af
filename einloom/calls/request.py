"""The keyword arguments of `einsum`, checked and in one hashable form."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from operator import index
from typing import Any

import numpy as np

from einloom.api import check_target, find_dtype, read_memory_limit
from einloom.frontend.einsum.memory_order import checked_order
from einloom.frontend.einsum.semiring import SUM_PRODUCT, Semiring, find_semiring
from einloom.ir.errors import DTypeError, EinloomError, ParseError
from einloom.ir.record import record
from einloom.options import check_precision

CASTINGS = ("no", "equiv", "safe", "same_kind", "unsafe")

METHODS = (
    "auto", "greedy", "optimal", "dp", "branch-all", "branch-2", "branch-1", "random-greedy",
    "left",
)  # fmt: skip
"""Path finders of the pass `contract` that take no argument."""

SYNONYMS = {
    "auto-hq": "auto",
    "dynamic-programming": "dp",
    "eager": "greedy",
    "opportunistic": "greedy",
    "random-greedy-128": "random-greedy",
}
"""What opt_einsum calls some of them."""

Path = tuple[tuple[int, ...], ...]


class PathError(ParseError, RuntimeError):
    """A contraction path that does not fit its operands; NumPy raises RuntimeError for it."""


@record
class Request:
    """What a call of `einsum` asks for, besides its spec and operands.

    `method` and `path` are options of the pass `contract`. `optimizes`: the caller asked for an
    optimised path, with which NumPy is lenient about the dtype of `out`. `rounding`: products of
    f32 may round their factors to bf16.
    """

    dtype: Any = None
    order: str = "K"
    casting: str = "safe"
    semiring: Semiring = SUM_PRODUCT
    method: str = "auto"
    path: Path | None = None
    optimizes: bool = False
    memory_limit: int | str | None = None
    strict: bool = False
    rounding: bool = False

    @property
    def contraction(self) -> Any:
        """The `optimize` argument of `compile_module`."""
        if self.path is not None:
            return self.path
        return False if self.method == "none" else self.method


def read_request(
    *,
    dtype: Any,
    order: Any,
    casting: Any,
    precision: Any,
    semiring: Any,
    optimize: Any,
    memory_limit: Any,
    target: Any,
    strict: bool,
) -> Request:
    """Keyword arguments as they came. Raises ParseError, DTypeError or UnsupportedError."""
    check_target(target)
    check_precision(precision)
    if not isinstance(casting, str) or casting not in CASTINGS:
        raise ParseError(f"unknown casting {casting!r}", suggestion=f"one of {', '.join(CASTINGS)}")
    method, path, limit = read_optimize(optimize)
    memory_limit = limit if memory_limit is None else read_memory_limit(memory_limit)
    return Request(
        dtype=None if dtype is None else read_dtype(dtype),
        order=checked_order(order),
        casting=casting,
        semiring=find_semiring(semiring),
        method=method,
        path=path,
        optimizes=optimize is not None and optimize is not False and not _is(optimize, "auto"),
        memory_limit=max(1, int(memory_limit)) if _is_count(memory_limit) else memory_limit,
        strict=strict,
        rounding=precision == "medium" and not strict,
    )


def read_dtype(dtype: Any) -> np.dtype[Any]:
    """A dtype as NumPy reads it, so that `"i8"` has eight bytes; else one of the IR, as `"f32"`.

    Raises DTypeError for one that is neither, or that kernels do not compute with.
    """
    if isinstance(dtype, str):
        try:
            dtype = np.dtype(dtype)
        except TypeError:
            return find_dtype(dtype)
    found = find_dtype(dtype)
    if found.names is not None:
        raise DTypeError(
            f"dtype {found} has fields, which are not multiplied", suggestion="give a plain dtype"
        )
    return found


def read_optimize(optimize: Any) -> tuple[str, Path | None, int | str | None]:
    """Method, path and memory limit of an `optimize` argument, in all the forms of NumPy's.

    `True`, `False`, a finder's name, `(name, limit)`, or a path such as
    `["einsum_path", (0, 1), (0, 1)]`. Raises ParseError, and PathError for a malformed path.
    """
    if optimize is None or optimize is False:
        return "none", None, None
    if optimize is True:
        return "auto", None, None
    if isinstance(optimize, str):
        return _method(optimize), None, None
    if isinstance(optimize, Sequence) and not isinstance(optimize, bytes | bytearray | memoryview):
        steps = list(optimize)
        if len(steps) == 2 and isinstance(steps[0], str) and steps[0] != "einsum_path":
            return _method(steps[0]), None, _limit(steps[1])
        if steps and _is(steps[0], "einsum_path"):
            steps = steps[1:]
        return "given", _path(steps), None
    raise ParseError(
        f"optimize is of type {type(optimize).__name__}",
        suggestion="give True, False, the name of a path finder, or a path",
    )


def _method(name: str) -> str:
    name = SYNONYMS.get(name, name)
    if name not in METHODS:
        raise ParseError(
            f"unknown path finder {name!r}",
            suggestion=f"one of {', '.join([*METHODS, *SYNONYMS])}",
        )
    return name


def _limit(limit: Any) -> int | str:
    """The limit of `(name, limit)`. Raises ParseError for one that is no number of elements."""
    if _is(limit, "max_input"):
        return "max_input"
    if not _is_count(limit):
        raise ParseError(
            f"the memory limit of optimize is {limit!r}",
            suggestion="give the elements that an intermediate may have, or 'max_input'",
        )
    return max(1, int(limit))


def _path(steps: list[Any]) -> Path:
    try:
        path = tuple(tuple(index(position) for position in step) for step in steps)
    except (TypeError, ValueError):
        raise PathError(
            f"{steps!r} is not a contraction path",
            suggestion="write groups of operand positions, [(1, 2), (0, 1)]",
        ) from None
    if not all(path):
        raise PathError("a group of the contraction path is empty")
    if any(position < 0 for step in path for position in step):
        raise PathError("positions of a contraction path count from 0")
    return path


def check_path(path: Path, operands: int) -> None:
    """Raises PathError unless the path contracts this many operands to one."""
    from einloom.passes.contraction.choose import checked_path

    try:
        checked_path(path, operands)
    except EinloomError as error:
        raise PathError(error.message, suggestion=error.diagnostics[0].suggestion) from None


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _is(value: Any, word: str) -> bool:
    return isinstance(value, str) and value == word
