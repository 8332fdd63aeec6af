"""Every rewrite rule on programs made from its left side, checked by the interpreter.

A cell of the table is a rule over a semiring. It must fire there, unless IDLE says that the rule
has nothing to do over it; then it must not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import pytest

from einloom.ir.errors import EinloomError
from einloom.ir.interpret import interpret
from einloom.ir.program import Module
from einloom.ir.rewrite import rewrite
from einloom.ir.rewrite.rule import Rule
from einloom.ir.rules import ALL_RULES
from einloom.ir.text import parse
from einloom.ir.verify import verify
from tests.ir.rule_instances import SEMIRINGS, Semiring, arrays_for, instance

SEED = 20250920
DEFAULT_TRIES = 6
DEEP_TRIES = 24


@dataclass
class Tally:
    """What became of the instances of one cell."""

    checked: int = 0
    fired: int = 0


def agree(before: object, after: object, exact: bool) -> bool:
    """Whether two results are equal: bit for bit but for the NaN, or up to rounding."""
    a, b = np.asarray(before), np.asarray(after)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if exact and a.dtype.kind == "f":
        same = (a == b) & (np.signbit(a) == np.signbit(b))
        return bool(np.all(same | (np.isnan(a) & np.isnan(b))))
    if a.dtype.kind == "f":
        tolerance = {2: 2e-2, 4: 1e-5, 8: 1e-9}[a.dtype.itemsize]
        return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))
    return bool(np.array_equal(a, b))


def cheapest_first(_: object) -> float:
    """A cost that falls with every call, so that rules guarded by costs fire."""
    cheapest_first.calls -= 1.0  # type: ignore[attr-defined]
    return float(cheapest_first.calls)  # type: ignore[attr-defined]


cheapest_first.calls = 0.0  # type: ignore[attr-defined]


def fire(rule: Rule, module: Module, strict: bool = False) -> tuple[Module, int]:
    """A module after one rule alone, and how often it fired."""
    guarded = "spread_over" in rule.name
    done = (
        rewrite(module, [rule], strict=strict, cost=_reversed_cost)
        if guarded
        else rewrite(module, [rule], strict=strict)
    )
    return done.module, done.firings


def _reversed_cost(expression: object) -> float:
    """The opposite of the usual cost: what spreads a product is cheaper."""
    from einloom.ir.expressions import Expression
    from einloom.ir.rewrite import expression_cost

    assert isinstance(expression, Expression)
    return -expression_cost(expression)


def check(rule: Rule, module: Module, rng: Random, strict: bool = False) -> int:
    """Assert that a rule keeps what a module computes; how often it fired."""
    after, firings = fire(rule, module, strict)
    if not firings:
        assert after == module
        return 0
    verify(after)
    assert parse(str(after)) == after
    arrays = arrays_for(module, rng, special=strict)
    expected, found = interpret(module, arrays), interpret(after, arrays)
    assert list(found) == list(expected)
    for name in expected:
        assert agree(expected[name], found[name], exact=strict), (
            f"{rule.name} changes {name} from {expected[name]!r} to {found[name]!r}\n"
            f"{module}\n{after}\n{arrays}"
        )
    return firings


def trial(rule: Rule, semiring: Semiring, rng: Random, strict: bool = False) -> Tally:
    """One instance: made, rewritten, run before and after."""
    module = instance(rule, semiring, rng)
    if module is None:
        return Tally()
    try:
        verify(module)
    except EinloomError:  # an operation that the dtype does not have
        return Tally()
    return Tally(1, check(rule, module, rng, strict))


def run_cells(tries: int, strict: bool = False) -> dict[tuple[str, str], Tally]:
    """All rules over all semirings, `tries` instances each."""
    table: dict[tuple[str, str], Tally] = {}
    for rule in ALL_RULES:
        for semiring in SEMIRINGS:
            rng = Random(f"{SEED}/{rule.name}/{semiring.name}")
            tally = table[rule.name, semiring.name] = Tally()
            for _ in range(tries):
                one = trial(rule, semiring, rng, strict)
                tally.checked += one.checked
                tally.fired += one.fired
    return table
