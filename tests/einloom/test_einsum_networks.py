"""Networks of specs: as the pass `contract` reads them from a program; steps that are shared."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.cache import plan_cache
from einloom.calls import einsum as calls
from einloom.calls import network, steps
from einloom.calls.build import MOST_FACTORS, common_dtype
from einloom.calls.operands import ir_dtype
from einloom.calls.request import Request
from einloom.frontend.einsum.parse import parse_spec
from einloom.frontend.einsum.semiring import NAMED
from einloom.ir.errors import EinloomError

DTYPES = ["f4", "f8", "f2", "c8", "c16", "i4", "i8", "u1", "i1", "?"]
MANY = MOST_FACTORS + 4


def outcome(read: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return read(*arguments)
    except EinloomError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(4))
def test_a_network_is_what_the_pass_reads(seed: int) -> None:
    """For random specs, dtypes, semirings and sizes: the same network, refusal or error."""
    source = random.Random(seed)
    seen = {"network": 0, "none": 0, "error": 0}
    for _ in range(250):
        letters = "abcdefg"[: source.randint(1, 7)]
        terms = [
            "".join(source.choices(letters, k=source.randint(0, 4)))
            for _ in range(source.randint(1, 6))
        ]
        labels = sorted(set("".join(terms)))
        output = "".join(source.sample(labels, source.randint(0, len(labels))))
        output += output[: source.random() < 0.1]
        sizes = {letter: source.choice([0, 1, 2, 3, 5]) for letter in letters}
        spec = parse_spec(f"{','.join(terms)}->{output}", [len(term) for term in terms])
        binding = spec.bind([tuple(sizes[letter] for letter in term) for term in terms])
        given = [np.dtype(source.choice(DTYPES[: source.choice([1, 2, 10])])) for _ in terms]
        named = source.choice(["sum-product", *NAMED])
        request = Request(semiring=NAMED[named], strict=source.random() < 0.3, casting="unsafe")
        dtypes = [ir_dtype(dtype, "operand") for dtype in given]
        order = source.sample(range(len(output)), len(output))
        arguments = binding, dtypes, common_dtype(dtypes, given, request), request, order
        expected = outcome(network._read, arguments)
        found = outcome(network.network_of, arguments)
        assert found == expected, (terms, output, given, request, order)
        if expected is None or isinstance(expected, str):
            seen["none" if expected is None else "error"] += 1
            continue
        assert list(found.network.sizes.items()) == list(expected.network.sizes.items())
        seen["network"] += 1
    assert min(seen.values()) > 10, seen


def test_a_diagonal_of_a_semiring_whose_cells_hold_an_identity() -> None:
    """Nothing is folded, but for an index of one value that no label names."""
    a = np.array([[True, False, True], [False, True, True]])
    call = ("ij,i,j->iij", a, a[:, 0], a[1])
    path, _ = el.einsum_path(*call, semiring="or-and")
    assert path == ["einsum_path", (0, 1, 2)]
    expected = np.zeros((2, 2, 3), bool)
    for i in range(2):
        expected[i, i] = a[i] & a[i, 0] & a[1]
    np.testing.assert_array_equal(el.einsum(*call, semiring="or-and", optimize=path), expected)
    vectors = [np.array([True, False])] * MANY
    many = el.einsum(",".join("i" * MANY) + "->ii", *vectors, semiring="or-and")
    np.testing.assert_array_equal(many, np.diag(vectors[0]))


def ring(count: int, first: int) -> str:
    """A ring of matrices, by letters from `first` on."""
    names = [chr(0x4E00 + first + k) for k in range(count)]
    return ",".join(a + b for a, b in zip(names, names[1:] + names[:1], strict=True)) + "->"


def test_steps_are_shared_by_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second network of the same shapes makes no plan for a step; nor for another semiring's."""
    plan_cache().clear()
    made: list[Any] = []
    planned = steps._Builder.planned

    def counted(self: Any, *arguments: Any) -> Any:
        made.append(self.request.semiring.reducer)
        return planned(self, *arguments)

    monkeypatch.setattr(steps._Builder, "planned", counted)
    operands = [np.random.default_rng(k).standard_normal((3, 3)) / 2 for k in range(MANY)]
    product = np.linalg.multi_dot(operands)
    assert el.einsum(ring(MANY, 0), *operands) == pytest.approx(np.trace(product))
    assert made, "the steps of the first network have plans"
    made.clear()
    assert el.einsum(ring(MANY, 50), *operands[::-1]) == pytest.approx(
        np.trace(np.linalg.multi_dot(operands[::-1]))
    )
    assert made == []
    longest = operands[0]
    for matrix in operands[1:]:
        longest = (longest[:, :, None] + matrix[None]).max(1)
    result = el.einsum(ring(MANY, 0), *operands, semiring="max-plus")
    assert result == pytest.approx(longest.diagonal().max())
    assert set(made) == {"max"}


def test_a_call_along_a_path_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the path is a list, as `einsum_path` returns it."""
    operands = [np.full((2, 2), 0.5)] * MANY
    path, _ = el.einsum_path(ring(MANY, 7), *operands)
    first = el.einsum(ring(MANY, 7), *operands, optimize=path)

    def refuse(*_: Any) -> None:
        raise AssertionError("the call was read again")

    monkeypatch.setattr(calls, "read_call", refuse)
    assert el.einsum(ring(MANY, 7), *operands, optimize=list(path)) == first
    with pytest.raises(AssertionError, match="read again"):
        el.einsum(ring(MANY, 7), *operands, optimize=[(0, 1)] * (MANY - 1))


def test_who_gave_an_extent() -> None:
    """An operand of extent 1 is stretched, so it is not the one that another disagrees with."""
    with pytest.raises(el.EinloomError) as raised:
        el.einsum("j,ij,jk->ik", np.ones(1), np.ones((2, 4)), np.ones((3, 2)))
    assert "rank 'j' is 3 in operand 2, but 4 in operand 1" in str(raised.value)
