"""The list of cases: every row that the dense CPU code has to show."""

from __future__ import annotations

from benchmarks.dense.case import Case
from benchmarks.dense.contractions import big_products, dot, integers, other_products, transposes
from benchmarks.dense.fused import fused
from benchmarks.dense.small import network, tiny


def all_cases(most: int | None = None) -> list[Case]:
    """All cases in the order of the table; `most` caps every extent, to try the machinery."""

    def cap(extent: int) -> int:
        return extent if most is None else min(extent, most)

    found = [
        *big_products(cap),
        *other_products(cap),
        dot(cap),
        *integers(cap),
        *transposes(cap),
        *fused(cap),
        *tiny(),
        *network(cap),
    ]
    names = [case.name for case in found]
    assert len(set(names)) == len(names), "two cases have one name"
    return found
