"""Random calls of `einsum` with arguments that make no sense: every error is an EinloomError."""

from __future__ import annotations

import datetime
import random
from typing import Any

import numpy as np
import pytest

import einloom as el

OPERANDS: list[Any] = [
    None, 1, 2.5, 1j, True, "x", b"x", [], [1], [[1, 2], [3]], (1, 2), {}, {1}, object(),
    np.array(None), np.array(["a"]), np.zeros(2, "M8[s]"), np.zeros(2, "m8[s]"),
    np.zeros(2, [("a", "f8")]), np.zeros(2, "V3"), np.float32(1), range(3), iter([1]), len,
    np.ones(0), np.ma.ones(2), ..., "i->i", 10**400, float("nan"), slice(3), el.TensorSpec((2,)),
    memoryview(b"abc"), bytearray(b"ab"), np.ones(2, object), datetime.date(2020, 1, 1), type, np,
]  # fmt: skip
SENSIBLE: list[Any] = [np.ones(2), np.ones((2, 2))]
SPECS: list[Any] = [
    "i->i", "ij,jk->ik", "i,i->", "i", "", "->", ",", "ii", "i->ii", "...", "a b, b c -> a c",
    "i,j->ij", b"i->", "ij->ji", 3, None, "i->j", "i,,->i",
]  # fmt: skip
KEYWORDS: dict[str, list[Any]] = {
    "out": [None, np.ones(2), np.float64(1), 3, "x", [1.0], np.ma.ones(2), np.ones(2, object)],
    "dtype": ["f8", "i8", "zz", {"a": 1}, {"names": ["a"], "formats": ["f8"]}, 3, object, "V3",
              [("a", "f8")], "M8[s]", None, type],
    "order": ["K", "C", None, 3, ["C"], np.ones(2)],
    "casting": ["safe", None, 3, ["safe"], np.ones(2)],
    "precision": ["high", 3, ["x"], np.ones(2)],
    "semiring": ["min,+", ",", ",,", "+,min", "a", "", 3, ["min"], np.ones(2), "sum,", "sum,exp",
                 "argmax,add", "any,mul"],
    "optimize": [True, False, None, "x", 3, [], ["einsum_path"], [(0,)], [("a",)], [0], [[0, 1]],
                 ("greedy", 1e9), ("greedy", float("nan")), ("greedy", "x"), np.ones(2), {},
                 [(0, 0)], [()], [(0.5,)], [(10**30,)], len, [np.ones(2)]],
    "memory_limit": [None, 1, 0, -5, 2.5, "x", "max_input", float("nan"), float("inf"),
                     np.ones(2), [1], 10**30],
    "target": ["cpu", "x", 3, ["cpu"], None, np.ones(2)],
}  # fmt: skip
OF_PATHS = ("optimize", "memory_limit", "semiring", "dtype")


def arguments(source: random.Random) -> list[Any]:
    def operand() -> Any:
        return source.choice(SENSIBLE if source.random() < 0.6 else OPERANDS)

    if source.random() < 0.8:
        return [source.choice(SPECS), *(operand() for _ in range(source.randint(0, 3)))]
    found: list[Any] = []
    for _ in range(source.randint(0, 3)):
        found += [operand(), source.choice([[0], [0, 1], ["a"], [...], source.choice(OPERANDS)])]
    return found + ([source.choice([[0], [], [1, 0]])] if source.random() < 0.5 else [])


@pytest.mark.parametrize("seed", range(8))
def test_every_error_is_ours(seed: int) -> None:
    """Neither einsum nor einsum_path lets another exception out; some calls succeed."""
    source = random.Random(seed)
    succeeded = 0
    for _ in range(500):
        given = arguments(source)
        keywords = {k: source.choice(v) for k, v in KEYWORDS.items() if source.random() < 0.12}
        function: Any = source.choice([el.einsum, el.einsum, el.einsum_path])
        if function is el.einsum_path:
            keywords = {k: v for k, v in keywords.items() if k in OF_PATHS}
        try:
            function(*given, **keywords)
        except el.EinloomError as error:
            assert error.message
        except Exception as error:
            error.add_note(f"{function.__name__}(*{given!r}, **{keywords!r})")
            raise
        else:
            succeeded += 1
    assert succeeded > 5
