"""Operands that no compiled form takes as they lie: they are copied."""

from __future__ import annotations

import numpy as np
import pytest

import einloom as el
from einloom.cache import memory_cache, plan_cache
from einloom.calls.variants import MOST_VARIANTS, Variant, copies_needed
from einloom.kernels import LayoutClass, kernels_for

UNIT: LayoutClass = ((None, 4), True, (True, False))


@pytest.mark.parametrize(
    ("compiled", "given", "copied"),
    [
        (UNIT, UNIT, False),
        (UNIT, ((None, None), True, (True, False)), True),  # the stride of the last rank
        (UNIT, ((None, 4), False, (True, False)), True),  # alignment
        (UNIT, ((None, 4), True, (False, False)), True),  # two ranks that lie as one
        (((None, None), True, (True, False)), UNIT, False),
        (((None, 4), False, (True, False)), UNIT, False),
        (((None, 4), True, (False, False)), UNIT, False),
    ],
)
def test_code_that_relies_on_more_than_an_operand_has(
    compiled: LayoutClass, given: LayoutClass, copied: bool
) -> None:
    module = el.parse("program p(X: f32[i=I, j=J]) -> (Y) {\n  Y[i] = sum[j] X[i, j]\n}")
    kernels = kernels_for(module, {"X": UNIT}, False, ())
    variant = Variant(None, (UNIT, compiled), (), kernels)
    assert copies_needed(variant, (UNIT, given)) == ((1,) if copied else ())


VIEWS = {  # which ranks of the operand are cut short, so that it does not lie as one with the next
    "whole": (slice(None), slice(None), slice(None)),
    "ranks 0 and 1 apart": (slice(None), slice(40), slice(None)),
    "ranks 1 and 2 apart": (slice(None), slice(None), slice(30)),
    "all apart": (slice(None), slice(40), slice(30)),
}


@pytest.mark.parametrize("last", VIEWS)
def test_more_layouts_than_forms(last: str) -> None:
    """Large enough that ranks that lie as one are one loop of a packed contraction."""
    assert len(VIEWS) > MOST_VARIANTS
    memory_cache().clear()
    plan_cache().clear()
    rng = np.random.default_rng(31)
    whole = rng.integers(-4, 5, (8, 50, 40)).astype("f4")
    right = rng.integers(-4, 5, (8, 50, 40, 24)).astype("f4")
    for name in [*(n for n in VIEWS if n != last), last]:
        a = whole[VIEWS[name]]
        b = right[0, 0, : a.shape[2]]
        expected = np.tensordot(a, b, 1)
        np.testing.assert_array_equal(el.einsum("abc,cd->abd", a, b), expected, err_msg=name)
