"""Measurements as text: read back as written, refused when they are anything else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from einloom.backends.machine_model import MachineModel
from einloom.backends.measurements import (
    PRODUCT_DTYPES,
    TILE_DTYPES,
    DamagedError,
    Level,
    Measurements,
    Rate,
    _checksum,
    decoded,
    encoded,
)
from einloom.ir.types import bf16, f16, f32, f64, i32, i64

RATES = {"f32": 1e11, "f64": 5e10, "i32": 6e10, "i64": 2e10, "f16": 8e10, "bf16": 4e10}
MEASURED = Measurements(
    threads=4,
    tiles={name: Rate(RATES[name], 4 * RATES[name]) for name in TILE_DTYPES},
    products={name: Rate(0.8 * RATES[name], 2 * RATES[name]) for name in PRODUCT_DTYPES},
    untiled=Rate(2.5e10, 1e11),
    transposed=Rate(4e9, 6e9),
    levels=(
        Level("L1", 32768, Rate(2e11, 8e11), Rate(1e11, 4e11), Rate(1e10, 1e10)),
        Level("memory", None, Rate(1e10, 2e10), Rate(8e9, 8e9), Rate(4e9, 4e9)),
    ),
    launch_seconds=1e-6,
    parallel_seconds=5e-6,
)


def changed(**parts: Any) -> bytes:
    """The text with some parts of what was measured replaced, and the right checksum."""
    whole = json.loads(encoded(MEASURED, "here"))
    del whole["checksum"]
    for name, value in parts.items():
        if name in whole:
            whole[name] = value
        else:
            whole["measured"][name] = value
    return json.dumps({**whole, "checksum": _checksum(whole)}).encode()


def test_what_is_written_is_read_back() -> None:
    assert decoded(encoded(MEASURED, "here"), "here") == MEASURED
    assert changed() != encoded(MEASURED, "here")  # spaces do not count
    assert decoded(changed(), "here") == MEASURED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[]", "it holds no measurements"),
        (b"{}", "it holds no measurements"),
        (encoded(MEASURED, "here")[:-20], "it is not JSON"),
        (encoded(MEASURED, "here").replace(b'"threads": 4', b'"threads": 5'),
         "its checksum is wrong"),
        (encoded(MEASURED, "there"), "it was measured on another machine"),
        (changed(version=0), "it was written by another version of Einloom"),
        (changed(threads=0), "0 is no number that a machine has"),
        (changed(threads="4"), "a number is missing"),
        (changed(launch_seconds=0), "0 is no number that a machine has"),
        (changed(launch_seconds=float("inf")), "inf is no number that a machine has"),
        (changed(launch_seconds=float("nan")), "nan is no number that a machine has"),
        (changed(launch_seconds=True), "a number is missing"),
        (changed(tiles={}), "a number is missing"),
        (changed(tiles=3), "a number is missing"),
        (changed(untiled=[1.0, -1.0]), "-1.0 is no number that a machine has"),
        (changed(untiled=[1.0]), "a number is missing"),
        (changed(untiled=[10**400, 1]), "a number is missing"),
        (changed(levels=[]), "its last level is not memory"),
        (changed(measured=None), "a number is missing"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_a_reason(text: bytes, reason: str) -> None:
    with pytest.raises(DamagedError) as caught:
        decoded(text, "here")
    assert str(caught.value) == reason


def test_every_damaged_byte_is_noticed() -> None:
    text = encoded(MEASURED, "here")
    data = json.loads(text)
    for position in range(0, len(text), 7):
        damaged = text[:position] + bytes([text[position] ^ 1]) + text[position + 1 :]
        try:
            found = decoded(damaged, "here")
        except DamagedError:
            continue
        # White space and the spelling of a number may change without changing what is said.
        assert found == MEASURED and json.loads(damaged) == data


def test_the_model_of_a_measured_machine() -> None:
    model = MachineModel.from_measurements(MEASURED)
    assert [model.peak(d) for d in (f32, f64, i32, i64)] == [1e11, 5e10, 6e10, 2e10]
    # f16 and bf16 have no tile of their own: their products say what their peak must be.
    assert (model.peak(f16), model.peak(bf16)) == (8e10, 4e10)
    assert (model.packed, model.untiled, model.threads) == (0.8, 0.25, 4)
    assert model.scaling == pytest.approx((2 / 0.8 - 1) / 3)
    # A byte copied at 1e11 both ways takes 2e-11 s, of which reading takes 5e-12.
    (cache,) = model.caches
    assert (cache.size, cache.bandwidth, cache.scaling) == (32768, 2e11, 1.0)
    assert cache.written == pytest.approx(1 / 1.5e-11)
    assert (model.memory_scaling, model.transposed) == (0.0, 0.5)
    assert (model.memory_bandwidth, model.fresh_bandwidth) == (1e10, 4e9)
    assert (model.launch_seconds, model.parallel_seconds) == (1e-6, 5e-6)


def test_a_machine_of_one_thread_and_threads_that_hinder_each_other() -> None:
    alone = MachineModel.from_measurements(replace(MEASURED, threads=1))
    assert (alone.scaling, alone.speedup(1)) == (1.0, 1.0)
    slower = {name: Rate(1e10, 5e9) for name in PRODUCT_DTYPES}
    assert MachineModel.from_measurements(replace(MEASURED, products=slower)).scaling == 0.0
