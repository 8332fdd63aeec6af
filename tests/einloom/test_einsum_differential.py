"""Generated calls of `einsum` against NumPy: specs, dtypes, layouts, orders, sizes 0 and 1."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import einloom as el

Array = np.ndarray[Any, Any]

DTYPES = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
ROUNDING = {"f2": 2.0**-10, "f4": 2.0**-23, "f8": 2.0**-52, "c8": 2.0**-23, "c16": 2.0**-52}
SAMPLE, DEEP = 300, 10_000
GROUP = 25


def strided(array: Array, step: int) -> Array:
    whole = np.zeros([2 * extent for extent in array.shape], array.dtype)
    every: tuple[Any, ...] = (..., *(slice(None, None, 2) for _ in array.shape))
    turned: tuple[Any, ...] = (..., *(slice(None, None, step) for _ in array.shape))
    view: Array = whole[every][turned]
    view[...] = array
    return view


def unaligned(array: Array) -> Array:
    record = np.zeros(array.shape, [("pad", "u1"), ("value", array.dtype)])
    record["value"] = array
    return np.asarray(record["value"])


def read_only(array: Array) -> Array:
    array = array.copy()
    array.flags.writeable = False
    return array


def reordered(array: Array) -> Array:
    ranks = list(range(array.ndim))
    random.Random(array.size).shuffle(ranks)
    return array.transpose(ranks).copy().transpose([int(k) for k in np.argsort(ranks)])


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "C": lambda a: a,
    "F": np.asfortranarray,
    "strided": lambda a: strided(a, 1),
    "reversed": lambda a: strided(a, -1),
    "unaligned": unaligned,
    "read-only": read_only,
    "reordered": reordered,
    "byte order": lambda a: a.astype(a.dtype.newbyteorder()),
}


@dataclass
class Call:
    spec: str
    operands: list[Array]
    layouts: list[str]
    keywords: dict[str, Any]

    def __str__(self) -> str:
        shown = [f"{a.dtype}{list(a.shape)} {x}" for a, x in zip(self.operands, self.layouts)]  # noqa: B905
        return f"{self.spec}  {'; '.join(shown)}  {self.keywords}"


def generated(seed: int) -> Call:
    """A call that NumPy may or may not take: a few labels, mostly distinct, some ellipses."""
    source, numbers = random.Random(seed), np.random.default_rng(seed)
    letters = "abcdef"[: source.randint(1, 6)]
    odd = source.random() < 0.4
    sizes = {x: source.choice([0, 1, 1, 2, 3, 4] if odd else [2, 3, 4, 5]) for x in letters}
    dots = source.random() < 0.25
    hidden = [source.choice([1, 2, 3]) for _ in range(source.randint(0, 2))]
    one_dtype = source.choice(DTYPES) if source.random() < 0.6 else None
    terms: list[str] = []
    operands: list[Array] = []
    layouts: list[str] = []
    for _ in range(source.choice([1, 1, 2, 2, 2, 3, 4])):
        term = [source.choice(letters) for _ in range(source.randint(0, 4))]
        if source.random() < 0.7:
            term = list(dict.fromkeys(term))
        shape = [sizes[x] for x in term]
        if len(set(term)) == len(term) and source.random() < 0.3:
            shape = [1 if source.random() < 0.3 else extent for extent in shape]
        text = "".join(term)
        if dots:
            place, kept = source.randint(0, len(term)), source.randint(0, len(hidden))
            own = [1 if source.random() < 0.2 else x for x in hidden[len(hidden) - kept :]]
            shape[place:place] = own
            text = f"{text[:place]}...{text[place:]}"
        terms.append(text)
        values = random_values(numbers, one_dtype or source.choice(DTYPES), shape)
        layouts.append(source.choice(list(LAYOUTS)))
        operands.append(LAYOUTS[layouts[-1]](values))
    spec = ",".join(terms)
    if source.random() < 0.85:
        used = [x for x in dict.fromkeys(spec) if x.isalpha() and source.random() < 0.5]
        source.shuffle(used)
        if dots:
            used.insert(source.randint(0, len(used)), "...")
        spec += "->" + "".join(used)
    keywords: dict[str, Any] = {"order": source.choice(["K", "C", "F", "A"])}
    if source.random() < 0.3:
        keywords["optimize"] = source.choice([True, False, "greedy", "optimal"])
    return Call(spec, operands, layouts, keywords)


def random_values(numbers: np.random.Generator, dtype: str, shape: list[int]) -> Array:
    """Small numbers; floats are halves, so that products of a few of them are exact."""
    if dtype == "?":
        return numbers.integers(0, 2, shape).astype(dtype)
    if dtype[0] in "iu":
        return numbers.integers(0 if dtype[0] == "u" else -4, 5, shape).astype(dtype)
    values = numbers.integers(-4, 5, shape) / 2
    if dtype[0] == "c":
        values = values + 1j * numbers.integers(-4, 5, shape) / 2
    return np.asarray(values).astype(dtype)


def outcome(function: Callable[..., Any], call: Call, **keywords: Any) -> Any:
    try:
        return function(call.spec, *call.operands, **keywords)
    except (ValueError, TypeError) as error:
        return error


def wide(array: Array) -> Array:
    return array.astype("c16" if array.dtype.kind == "c" else "f8")


def check(call: Call) -> str:
    """Compare one call with NumPy; returns a word for the kind of its result."""
    theirs = outcome(np.einsum, call, order=call.keywords["order"])
    ours = outcome(el.einsum, call, **call.keywords)
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        assert isinstance(theirs, Exception) and isinstance(ours, el.EinloomError), (theirs, ours)
        return "error"
    assert type(ours) is type(theirs)
    assert ours.shape == theirs.shape
    in_place = isinstance(theirs, np.ndarray) and np.shares_memory(theirs, call.operands[0])
    # Empty arrays share no memory, but NumPy gives a view of one, too.
    viewed = isinstance(ours, np.ndarray) and np.may_share_memory(ours, call.operands[0])
    viewed = viewed or (len(call.operands) == 1 and ours.dtype == theirs.dtype)
    assert viewed or not in_place or call.keywords["order"] in "CF"
    if not viewed:
        theirs = theirs.astype(theirs.dtype.newbyteorder("="))
    assert ours.dtype == theirs.dtype
    if theirs.dtype.kind not in "fc":
        np.testing.assert_array_equal(ours, theirs)
        return "exact"
    exact = np.einsum(call.spec, *map(wide, call.operands))
    size = np.einsum(call.spec, *[np.abs(wide(a)) for a in call.operands])
    terms = max(1, max((a.size for a in call.operands), default=1))
    bound = ROUNDING[theirs.dtype.str[1:]] * (terms + len(call.operands)) * size
    assert (np.abs(wide(np.asarray(ours)) - exact) <= bound + 1e-300).all()
    return "float"


def check_all(seeds: range) -> Counter[str]:
    found: Counter[str] = Counter()
    for seed in seeds:
        call = generated(seed)
        try:
            found[check(call)] += 1
        except Exception as error:
            error.add_note(f"seed {seed}: {call}")
            raise
        found.update(call.layouts)
    return found


@pytest.mark.parametrize("start", range(0, SAMPLE, GROUP))
def test_generated_calls(start: int) -> None:
    """The sample; every group holds all kinds of results."""
    found = check_all(range(start, start + GROUP))
    assert found["float"] > 0
    assert found["exact"] > 0


@pytest.mark.deep
@pytest.mark.parametrize("start", range(SAMPLE, DEEP, 500))
def test_generated_calls_deep(start: int) -> None:
    """The full count; every layout of operands occurs."""
    found = check_all(range(start, start + 500))
    assert not [layout for layout in LAYOUTS if found[layout] < 5]
