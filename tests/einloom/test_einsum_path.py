"""`einsum_path`: paths that `einsum` takes back, and the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import einloom as el

SQUARE, ROW = el.TensorSpec((300, 300)), el.TensorSpec((2, 300))


def test_the_path_goes_from_the_cheaper_end() -> None:
    assert el.einsum_path("ij,jk,kl->il", ROW, SQUARE, SQUARE)[0] == [
        "einsum_path", (0, 1), (0, 1),
    ]  # fmt: skip
    assert el.einsum_path("ij,jk,lk->il", SQUARE, SQUARE, ROW)[0] == [
        "einsum_path", (1, 2), (0, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "optimize", ["auto", True, "greedy", "optimal", "dp", "branch-all", "left", "random-greedy"]
)
def test_einsum_takes_the_path_back(optimize: Any) -> None:
    """As `optimize=`, whatever finder it comes from, with ranks that one operand alone has."""
    source = np.random.default_rng(6)
    spec = "abc,cd,de,efg,b->fd"
    sizes = dict(zip("abcdefg", (3, 4, 5, 6, 7, 2, 3), strict=True))
    terms = spec.partition("->")[0].split(",")
    operands = [source.standard_normal([sizes[x] for x in term]) for term in terms]
    path, report = el.einsum_path(spec, *operands, optimize=optimize)
    assert path[0] == "einsum_path"
    left = len(operands)
    for group in path[1:]:
        assert len(set(group)) == len(group) and max(group) < left
        left -= len(group) - 1
    assert left == 1
    result = el.einsum(spec, *operands, optimize=path)
    np.testing.assert_allclose(result, np.einsum(spec, *operands), rtol=1e-11)
    theirs = np.einsum(spec, *operands, optimize=path)  # NumPy reads it, too
    np.testing.assert_allclose(result, theirs, rtol=1e-11)
    assert spec in report


def test_forms_of_optimize() -> None:
    """A given path comes back as it is; without optimisation all operands meet at once."""
    call = ("ij,jk,kl->il", SQUARE, SQUARE, SQUARE)
    assert el.einsum_path(*call, optimize=False)[0] == ["einsum_path", (0, 1, 2)]
    given = ["einsum_path", (0, 2), (0, 1)]
    assert el.einsum_path(*call, optimize=given)[0] == given
    assert el.einsum_path(*call, optimize=("greedy", 10))[0] == ["einsum_path", (0, 1, 2)]
    assert el.einsum_path("ij->", SQUARE)[0] == ["einsum_path", (0,)]
    assert el.einsum_path("i,j->ij", np.ones(2), np.ones(3))[0] == ["einsum_path", (0, 1)]


def test_the_report() -> None:
    """What is computed, what it costs, and each step."""
    tall = el.TensorSpec((300, 2))
    report = el.einsum_path("ij,jk,kl->il", ROW, SQUARE, tall, optimize="left")[1]
    lines = [line.split(":", 1) for line in report.splitlines() if ":" in line]
    found = {name.strip(): value.strip() for name, value in lines}
    assert found.pop("Estimated time").endswith(" s")
    assert found == {
        "Complete contraction": "ij,jk,kl->il",
        "Naive scaling": "4",
        "Naive operations": "1080000",
        "Optimized scaling": "3",
        "Optimized operations": "362400",
        "Fewer by a factor of": "2.98",
        "Largest intermediate": "600 elements",
        "Path found by": "left",
    }
    assert report.splitlines()[-3:] == [
        "            operations    elements  step",
        "                360000         600  ij,jk->ik",
        "                  2400           4  ik,kl->il",
    ]


def test_reports_of_other_forms() -> None:
    a = np.ones((2, 3))
    assert "['r', 'c'], ['c'] -> ['r']" in el.einsum_path(a, ["r", "c"], a[0], ["c"])[1]
    assert "row inner, inner -> row" in el.einsum_path("row inner, inner -> row", a, a[0])[1]
    assert "...i,ij->...j" in el.einsum_path("...i,ij", np.ones((4, 5, 2)), a)[1]


def test_sliced_contractions_say_so() -> None:
    report = el.einsum_path("ij,jk,kl->il", SQUARE, SQUARE, SQUARE, memory_limit=1000)[1]
    assert "Sliced over" in report or "ij,jk,kl->il" in report.splitlines()[-1]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ([(2, 3), (0, 1)], "the path leaves 2 operands\n  hint: end it with (0, 1)"),
        ([(0, 0), (0, 1)], "group (0, 0) of the path names a position twice"),
        ([(0, 9)], "group (0, 9) of the path asks for position 9, but 4 operands are left\n"
         "  hint: positions count from 0, and each group's result goes to the end"),
        ([(-1, 0)], "positions of a contraction path count from 0"),
        ([3], "[3] is not a contraction path\n"
         "  hint: write groups of operand positions, [(1, 2), (0, 1)]"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", [el.einsum, el.einsum_path])
def test_paths_that_do_not_fit(function: Any, path: list[Any], message: str) -> None:
    """A RuntimeError, as in NumPy."""
    a = np.ones((2, 2))
    with pytest.raises(RuntimeError) as caught:
        function("ab,bc,cd,de->ae", a, a, a, a, optimize=path)
    assert isinstance(caught.value, el.ParseError)
    assert str(caught.value) == message
