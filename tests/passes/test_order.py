"""Order constraints between passes, and the enumeration of legal orders."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, pairwise, permutations
from typing import ClassVar

import pytest

from einloom.ir.errors import PassError
from einloom.passes import Pass, Pipeline
from einloom.passes.order import ORDER, Before, Requires, legal_orders


@dataclass(frozen=True)
class Idle(Pass):
    """Do nothing."""

    name: ClassVar[str] = "idle"


# ---- order --------------------------------------------------------------------------------

QUANTIZE = Before("a", "b", why="b uses what a makes")
NEEDS = Requires("c", "a", why="c reads the tiles of a")


@dataclass(frozen=True)
class A(Idle):
    """First."""

    name: ClassVar[str] = "a"


@dataclass(frozen=True)
class B(Idle):
    """Second."""

    name: ClassVar[str] = "b"


@dataclass(frozen=True)
class C(Idle):
    """Third."""

    name: ClassVar[str] = "c"


def test_a_broken_constraint_gives_its_reason_and_a_legal_order() -> None:
    with pytest.raises(PassError) as caught:
        Pipeline([B(), A()], constraints=(QUANTIZE, NEEDS))
    assert str(caught.value) == (
        "a must stand before b: b uses what a makes\n  hint: this order is legal: a, b"
    )
    with pytest.raises(PassError) as caught:
        Pipeline([C()], constraints=(QUANTIZE, NEEDS))
    assert str(caught.value) == "c needs a before it: c reads the tiles of a"
    with pytest.raises(PassError) as caught:
        Pipeline([C(), B(), A()], constraints=(QUANTIZE, NEEDS))
    assert caught.value.message == (
        "a must stand before b: b uses what a makes; c needs a before it: c reads the tiles of a"
    )
    Pipeline([A(), C(), B()], constraints=(QUANTIZE, NEEDS))
    Pipeline([B()], constraints=(QUANTIZE, NEEDS))


def test_legal_orders_are_all_that_break_nothing() -> None:
    constraints = (QUANTIZE, NEEDS, Before("d", "c", why="d makes room for c"))
    names = ["a", "b", "c", "d", "b"]
    expected = {
        order
        for order in permutations(names)
        if all(constraint.broken_by(order) is None for constraint in constraints)
    }
    found = list(legal_orders(names, constraints))
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert 1 < len(expected) < 60


def test_legal_orders_come_one_at_a_time() -> None:
    names = [f"n{k}" for k in range(40)]
    chain = [Before(a, b, why="a chain") for a, b in pairwise(names)]
    assert next(legal_orders(names[::-1], chain)) == tuple(names)
    assert len(list(islice(legal_orders(names, chain[:20]), 100))) == 100
    assert list(legal_orders(["a", "b"], (QUANTIZE, Before("b", "a", why="a cycle")))) == []
    assert list(legal_orders([], ORDER)) == [()]


def test_constraints_have_reasons() -> None:
    assert all(len(constraint.why) > 10 for constraint in ORDER)
