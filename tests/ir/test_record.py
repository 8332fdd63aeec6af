"""Records behave as frozen dataclasses do."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from typing import Any

import pytest

from einloom.ir.record import record


@record
class Point:
    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list, compare=False)
    note: str = field(default="", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("left of the axis")


@record
class Named(Point):
    name: str = "n"


@dataclass(frozen=True)
class Reference:
    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list, compare=False)
    note: str = field(default="", kw_only=True, repr=False)


def test_construction_defaults_and_repr_are_those_of_a_dataclass() -> None:
    cases: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((1,), {}),
        ((1, 3), {"note": "n"}),
        ((), {"y": 4, "x": 1}),
    ]
    for arguments, named in cases:
        made, reference = Point(*arguments, **named), Reference(*arguments, **named)
        for item in fields(reference):
            assert getattr(made, item.name) == getattr(reference, item.name)
        assert repr(made) == repr(reference).replace("Reference", "Point")
    assert Point(1).tags is not Point(1).tags


@pytest.mark.parametrize("arguments", [(), (1, 2, [], 4)])
def test_wrong_arguments_are_type_errors(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=r"__init__\(\)"):
        Point(*arguments)


def test_equality_and_hash_follow_the_compared_fields_and_the_class() -> None:
    assert Point(1, tags=["a"]) == Point(1, tags=["b"])
    assert hash(Point(1, tags=["a"])) == hash(Point(1, tags=["b"]))
    assert Point(1) != Point(2)
    assert Point(1) != Point(1, note="other")
    assert Point(1) != Named(1)
    assert Named(1, name="a") != Named(1, name="b")


def test_fields_cannot_be_assigned_or_deleted() -> None:
    point = Point(1)
    with pytest.raises(FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del point.x
    assert point.x == 1


def test_post_init_replace_patterns_and_pickle() -> None:
    with pytest.raises(ValueError, match="left of the axis"):
        Point(-1)
    assert replace(Point(1), y=5) == Point(1, 5)
    assert pickle.loads(pickle.dumps(Named(1, name="a"))) == Named(1, name="a")
    match Point(3, 4):
        case Point(x, y):
            assert (x, y) == (3, 4)
