"""The suite notices every deliberate breakage; a crash of the child counts as noticing."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einloom as el
import einloom.kernels as kernels
from tests.differential.mutations import MUTATIONS, Mutation, mutated
from tests.differential.templates import TEMPLATES
from tests.differential.test_programs import compiled, layouts, run_case

DTYPES = ("f32", "i32")
NOTICED, MISSED, FAILED = 1, 0, 3


def run_sample(forms: tuple[str, ...]) -> None:
    """The differential suite for some forms, and the edges that only some mutations touch."""
    for template in TEMPLATES:
        for dtype in template.dtypes:
            if template.form in forms and dtype in DTYPES:
                exe = compiled(template, dtype)
                for size, stride in layouts(full=False):
                    run_case(template, dtype, size, stride, exe)
    run_edges()


def run_edges() -> None:
    text = (
        "program edges(X: f32[i=I, j=J]) -> (V, P) {\n"
        "  (V, P)[i] = argmax[j] (X[i, j], iota(j))\n}\n"
    )
    rows = [[1, 2, 2], [np.nan, 3, np.nan], [-np.inf] * 3, [1, np.nan, 3]]
    ties = np.array(rows, np.float32)
    results = el.compile(text).run({"X": ties})
    np.testing.assert_array_equal(results["P"], ties.argmax(1))
    gather = el.compile("program gather(X: f32[v=V], I: i64[t=T]) -> (Y) {\n  Y[t] = X[I[t]]\n}\n")
    middle = np.zeros(64, np.float32)[16:48]
    for index in (-1, 32):
        with pytest.raises(el.RangeError):
            gather.run({"X": middle, "I": np.array([0, index])})


def in_child(work: Callable[[], Any]) -> int:
    """Run in a forked child: its exit status, or a negative signal number."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = FAILED
        try:
            os.environ["EINLOOM_CACHE"] = "0"
            el.cache_clear()
            work()
            status = MISSED
        except (AssertionError, el.EinloomError, pytest.fail.Exception):
            status = NOTICED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.__name__)
def test_every_breakage_is_noticed(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    lower = kernels.lowered
    monkeypatch.setattr(kernels, "lowered", lambda *a: mutated(lower(*a), mutation))
    status = in_child(lambda: run_sample(MUTATIONS[mutation]))
    assert status == NOTICED or status < 0, f"{mutation.__name__}: the suite did not notice"


def test_the_sample_passes_unbroken() -> None:
    forms = tuple({form for forms in MUTATIONS.values() for form in forms})
    assert in_child(lambda: run_sample(forms)) == MISSED
