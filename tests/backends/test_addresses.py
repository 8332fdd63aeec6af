"""Reading where an array begins, against NumPy's own interface."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from einloom.backends.cpu import addresses


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3),
        np.zeros(10)[4:],
        np.zeros(10)[::-1],
        np.zeros((4, 5)).T[1:, 2:],
        np.zeros(()),
        np.zeros((0, 3)),
        np.zeros(4, [("pad", "u1"), ("value", "f8")])["value"],
        np.broadcast_to(np.zeros(1), (5, 6)),
        np.frombuffer(b"12345678", np.uint8)[3:],
    ],
)
def test_addresses(array: np.ndarray) -> None:
    """For views, broadcasts, empty arrays and foreign memory."""
    expected = array.__array_interface__["data"][0]
    assert addresses.address_of(array) == expected
    assert addresses.from_interface(array) == expected


def test_the_probe_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the object is laid out in another way, the interface is asked instead."""
    assert addresses.direct_read_works()
    monkeypatch.setattr(addresses, "HEAD", addresses.HEAD + 8)
    assert not addresses.direct_read_works()
    assert addresses._chosen() is addresses.from_interface
    monkeypatch.undo()
    monkeypatch.setattr(sys.implementation, "name", "other")
    assert not addresses.direct_read_works()
