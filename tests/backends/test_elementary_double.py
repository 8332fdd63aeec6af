"""Elementary functions of f64 on samples, against NumPy's functions of long double."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from einloom.backends.cpu.elementary.table import DOUBLE
from einloom.ir.types import f64
from tests.backends.elementary_reference import (
    REFERENCES,
    Array,
    erf_of_long_doubles,
    evaluated,
    function_of,
    targets,
    worst,
)

Compile = Callable[..., Any]

pytestmark = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="long double is no longer than double here"
)

ENDS = (
    *(0.0, 5e-324, 2.0**-1022, 1e-300, 2.0**-54, 1e-8, 0.5, 0.55, 1.0, 2.0, 6.0, 20.0, 37.5, 40.0),
    *(709.782712893384, 709.78271289338405, 710.0, 708.39641853226408, 745.13321910194122, 746.0),
    *(1023.9999999999999, 1024.0, 1022.0, 1074.0, 1075.0, 1076.0, 1.7976931348623157e308),
    *(0.70710678118654746, 1.4142135623730951, 0.34657359027997264, float("inf"), float("nan")),
)


@pytest.fixture(scope="module")
def kernels(compiled: Compile) -> dict[str, Any]:
    functions = [function_of(name, f64) for name in DOUBLE]
    return {name: compiled(*functions, target=target) for name, target in targets().items()}


def sample(count: int, seed: int) -> Array:
    """Numbers of all sizes, of the sizes where functions bend, and near their ends."""
    random = np.random.default_rng(seed)
    ends = np.array(ENDS).view(np.int64)[:, None] + np.arange(-40, 41)
    near = ends.clip(0, 0x7FFFFFFFFFFFFFFF).ravel().view(np.float64)
    return np.concatenate(
        [
            random.integers(0, 2**64, count, dtype=np.uint64).view(np.float64),
            random.uniform(-750, 750, count),
            random.uniform(-7, 7, count),
            np.exp(random.uniform(-40, 3, count)) * random.choice([-1, 1], count),
            1 + random.normal(size=count) * 0.2,
            near,
            -near,
        ]
    )


def exact(op: str, x: Array) -> Array:
    function = erf_of_long_doubles if op == "erf" else REFERENCES[op]
    with np.errstate(all="ignore"):
        return np.asarray(function(x.astype(np.longdouble)))


def check(op: str, x: Array, kernels: dict[str, Any]) -> str:
    right = exact(op, x)
    messages = []
    for target, library in kernels.items():
        error, message = worst(op, (x,), evaluated(library, op, x), right)
        assert error <= DOUBLE[op].ulps, f"{target}: {message}"
        messages.append((error, message))
    return max(messages)[1]


@pytest.mark.parametrize("op", DOUBLE)
def test_samples(op: str, kernels: dict[str, Any]) -> None:
    check(op, sample(1 << 14, 0), kernels)


@pytest.mark.deep
@pytest.mark.parametrize("op", DOUBLE)
def test_many_samples(op: str, kernels: dict[str, Any]) -> None:
    """5 * 2^21 arguments for each target."""
    found = max(check(op, sample(1 << 18, seed), kernels) for seed in range(1, 9))
    print(f"largest error: {found}")
