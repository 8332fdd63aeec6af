"""The cost model: operations and bytes counted by hand, and a roofline that behaves like one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from einloom.backends.cost import Cache, MachineModel, cost_of, element_bits
from einloom.ir.errors import ShapeError
from einloom.ir.text import parse
from einloom.ir.types import DType, bf16, c64, c128, f16, f32, f64, i8, i64

SIZES = {"N": 10, "M": 20, "K": 30}


def costs(text: str, **sizes: int) -> list[tuple[str, int, float, float]]:
    found = cost_of(parse(text), {**SIZES, **sizes})
    return [(c.name, c.flops, c.bytes_read, c.bytes_written) for c in found]


def one(inputs: str, statement: str) -> tuple[int, float, float]:
    ((_, *numbers),) = costs(f"program p({inputs}) -> (R) {{\n  {statement}\n}}")
    return tuple(numbers)  # type: ignore[return-value]


A, B = "A: f32[i=N, j=M]", "B: f32[j=M, k=K]"


@pytest.mark.parametrize(
    ("inputs", "statement", "flops", "read", "written"),
    [
        (f"{A}, {B}", "R[i, k] = sum[j] A[i, j] * B[j, k]", 2 * 6000, 4 * (200 + 600), 4 * 300),
        (f"{A}, {B}", "R[i, k] = max[j] A[i, j] + B[j, k]", 2 * 6000, 4 * (200 + 600), 4 * 300),
        (A, "R[i] = sum[j] A[i, j]", 200, 800, 40),
        (A, "R[i, j] = A[i, j]", 0, 800, 800),
        (A, "R[i, j] = exp(A[i, j] - 1.0)", 400, 800, 800),
        (A, "R[i, j] = A[i, j] * A[i, j] * A[i, j]", 400, 800, 800),
        (A, "R[i] = A[i, 3]", 0, 40, 40),
        # The outer fold runs over what the inner one leaves: 200 additions, 10 maxima.
        (A, "R[] = max[i] sum[j] A[i, j]", 210, 800, 4),
        # Reading a tensor in two ways touches it once; operations on addresses do not count.
        ("A: f32[i=N, j=N]", "R[i, j] = A[i, j] + A[j, i]", 100, 400, 400),
        ("X: f32[i=N + 2]", "R[i] = sum[t] X[i + t] where i < N, t < 3", 30, 4 * 12, 40),
        ("W: f32[v=N, d=M], t: i64[k=K]", "R[k, d] = W[t[k], d]", 0, 800 + 240, 2400),
        (A, "R: f64[i=N, j=M] = f64(A[i, j])", 0, 800, 1600),
        ("Z: c64[i=N]", "R[i] = Z[i] * Z[i]", 10, 80, 80),
    ],
)
def test_statements_counted_by_hand(
    inputs: str, statement: str, flops: int, read: float, written: float
) -> None:
    assert one(inputs, statement) == (flops, read, written)


def test_a_scan_counts_its_body_once_per_iteration() -> None:
    text = """program p(X: f32[i=N]) -> (Y) {
      scan t < K from { S[0, i] = X[i] } { S[t+1, i] = S[t, i] * 2.0 }
      Y[i] = final(S)[i]
    }"""
    assert costs(text) == [
        ("S", 0, 40, 40),
        ("S", 30 * 10, 30 * 40, 30 * 40),
        ("Y", 0, 40, 40),
    ]
    first, repeated, _ = cost_of(parse(text), SIZES)
    assert (first.times, repeated.times) == (1, 30)


def test_what_stays_inside_a_kernel_is_not_moved() -> None:
    plain = "T[i] = X[i] * 2.0\n Y[i] = T[i] + 1.0"
    text = "program p(X: f32[i=N]) -> (Y) {\n %s\n}"
    assert costs(text % plain) == [("T", 10, 40, 40), ("Y", 10, 40, 40)]
    fused = f"kernel k {{ {plain} }} -> (Y)"
    assert costs(text % fused) == [("T", 10, 40, 0), ("Y", 10, 0, 40)]
    apart = sum(c.seconds for c in cost_of(parse(text % plain), SIZES))
    together = sum(c.seconds for c in cost_of(parse(text % fused), SIZES))
    assert apart - together > 0.9 * MachineModel().launch_seconds


def test_definitions_are_counted_by_what_they_do() -> None:
    text = """fn gelu(x) = x * 0.5 * (1.0 + erf(x * 0.7))
    program p(X: f32[i=N]) -> (R) { R[i] = gelu(X[i]) }"""
    assert costs(text) == [("R", 10 * 5, 40, 40)]


def test_intensity() -> None:
    (cost,) = cost_of(
        parse(f"program p({A}, {B}) -> (R) {{ R[i, k] = sum[j] A[i, j] * B[j, k] }}"), SIZES
    )
    assert cost.intensity == pytest.approx(12000 / (4 * 1100))
    (empty,) = cost_of(parse("program p(X: f32[i=N]) -> (R) { R[i] = X[i] }"), {"N": 0})
    assert empty.intensity == 0


def test_a_size_that_is_missing() -> None:
    with pytest.raises(ShapeError) as caught:
        cost_of(parse(f"program p({A}) -> (R) {{ R[i] = sum[j] A[i, j] }}"), {"N": 3})
    assert str(caught.value) == "no size is given for M\n  hint: give one, for example M=64"


@pytest.mark.parametrize(
    ("dtype", "bits"), [("f16", 16.0), ("bool", 8.0), ("zq<97>", 64.0), ("(f32, i64)", 96.0)]
)
def test_bits_of_an_element(dtype: str, bits: float) -> None:
    module = parse(f"program p(X: {dtype}[i=N]) -> (R) {{ R[i] = X[i] }}")
    type_ = module.inputs[0].type
    assert type_ is not None
    assert element_bits(type_.dtype) == bits


# ---- the machine --------------------------------------------------------------------------

MACHINE = MachineModel(
    threads=2,
    f32_peak=100.0,
    f64_peak=50.0,
    packed=0.5,
    untiled=0.25,
    scaling=1.0,
    caches=(Cache(10, 1000.0), Cache(100, 100.0, 50.0, 0.5)),
    memory_bandwidth=10.0,
    memory_written=2.0,
    memory_scaling=0.0,
    fresh_bandwidth=5.0,
    launch_seconds=0.5,
    parallel_seconds=0.25,
    parallel_operations=1000.0,
)


def seconds(
    operations: float = 0.0,
    bytes_moved: float = 0.0,
    fresh_bytes: float = 0.0,
    dtype: DType = f32,
    launches: int = 0,
    serial: bool = False,
    bytes_written: float = 0.0,
    packed: float = 0.0,
) -> float:
    return MACHINE.seconds(
        operations=operations, bytes_moved=bytes_moved, footprint=bytes_moved,
        fresh_bytes=fresh_bytes, dtype=dtype, launches=launches, serial=serial,
        bytes_written=bytes_written, packed=packed,
    )  # fmt: skip


def test_the_slower_of_computing_and_moving_decides() -> None:
    assert seconds(operations=500, bytes_moved=50) == 20.0
    assert seconds(operations=5, bytes_moved=50) == 0.5


def test_packed_contractions_are_nearer_to_the_peak_than_other_code() -> None:
    assert seconds(operations=100) == 100 / (100 * 0.25)
    assert seconds(operations=100, packed=1.0) == 100 / (100 * 0.5)
    assert seconds(operations=100, packed=0.5) == 100 / (100 * 0.5 * 0.5)


def test_threads_share_large_work_only() -> None:
    assert seconds(operations=999) == 39.96
    assert seconds(operations=1000) == 20.0
    assert seconds(operations=1000, serial=True) == 40.0
    assert seconds(operations=1000, launches=1) == 20.75  # starting it, and sharing it out
    assert seconds(operations=1000, launches=1, serial=True) == 40.5


def test_what_moves_many_bytes_is_shared_out_without_operations() -> None:
    assert seconds(bytes_moved=7992, launches=1) == 799.7
    assert seconds(bytes_moved=8000, launches=1) == 800.75


def test_memory_levels() -> None:
    assert seconds(bytes_moved=7) == 0.007
    assert seconds(bytes_moved=8) == 0.08  # a cache is not a kernel's own to the last byte
    assert seconds(bytes_moved=75) == 0.75
    assert seconds(bytes_moved=1000) == 100.0


def test_writes_are_slower_than_reads() -> None:
    assert seconds(bytes_moved=60, bytes_written=20) == 0.4 + 0.4
    assert seconds(bytes_moved=1000, bytes_written=400) == 60.0 + 200.0


def test_transpositions_move_more_slowly() -> None:
    text = f"program p({A}) -> (R) {{ R[j, i] = A[i, j] }}"
    machine = replace(MACHINE, launch_seconds=0.0, parallel_seconds=0.0, transposed=0.25)
    plain, turned = (
        cost_of(parse(text), {"N": 100, "M": 100}, machine, None, names)[0].seconds
        for names in ((), ("R",))
    )
    assert turned == 4 * plain > 0


def test_threads_have_the_first_caches_each_and_share_the_last() -> None:
    machine = replace(MACHINE, threads=4, caches=(Cache(10, 1000.0), Cache(40, 100.0, None, 0.5)))
    assert [machine.bandwidth(size, 4) for size in (30, 31)] == [4000.0, 10.0]
    assert machine.bandwidth(30, 1) == 100.0
    assert machine.bandwidth(7, 1) == 1000.0


def test_fixed_costs() -> None:
    assert seconds(launches=3) == 1.5
    assert seconds(fresh_bytes=100) == 0.0  # it fits the last cache
    assert seconds(fresh_bytes=150) == 10.0


def test_the_roofline_is_no_slower_than_the_estimate() -> None:
    computing, moving = MACHINE.bounds(
        operations=500, bytes_moved=50, footprint=50, dtype=f32, serial=False
    )
    assert (computing, moving) == (5.0, 0.5)


def test_another_number_of_threads() -> None:
    assert MACHINE.on(2) is MACHINE
    assert (MACHINE.on(1).speedup(1), MACHINE.on(4).threads) == (1.0, 4)


@pytest.mark.parametrize(
    ("dtype", "peak"), [(f32, 100.0), (f16, 100.0), (bf16, 100.0), (f64, 50.0), (c64, 25.0),
                        (c128, 12.5)]
)  # fmt: skip
def test_peaks(dtype: DType, peak: float) -> None:
    assert MACHINE.peak(dtype) == peak
    assert MachineModel().peak(i8) > MachineModel().peak(i64)


def product_seconds(body: str, packed: bool) -> float:
    text = f"program p({A}, {B}) -> (R) {{ R[i, k] = {body} }}"
    sizes = {"N": 512, "M": 512, "K": 512}
    (cost,) = cost_of(parse(text), sizes, MACHINE.on(1), {"R": 1.0} if packed else {})
    return cost.seconds


def test_a_statement_that_is_packed_is_estimated_so() -> None:
    product = "sum[j] A[i, j] * B[j, k]"
    fixed = MACHINE.launch_seconds
    operations = 2 * 512**3
    assert product_seconds(product, packed=False) == operations / 25 + fixed
    assert product_seconds(product, packed=True) == operations / 50 + fixed
    # An addition and a maximum are two instructions where a multiply-add is one.
    assert product_seconds("max[j] A[i, j] + B[j, k]", True) == operations / 25 + fixed
    # What one factor computes is computed once for each of its cells.
    assert product_seconds("sum[j] exp(A[i, j]) * B[j, k]", True) == operations / 50 + fixed


def test_statements_of_a_kernel_have_its_threads_and_those_of_a_scan_one() -> None:
    text = """program p(X: f32[i=N]) -> (Y, Z) {
      kernel k { T[i] = X[i] * 2.0
        Y[i] = T[i] * 2.0 } -> (Y)
      scan t < 1 from { S[0, i] = X[i] * 2.0 } { S[t+1, i] = S[t, i] * 2.0 }
      Z[i] = final(S)[i] * 2.0
    }"""
    fast = replace(MACHINE, caches=(Cache(1 << 40, 1e30),))
    found = [c.seconds for c in cost_of(parse(text), {"N": 1000}, fast)]
    shared, alone = 1000 / 50, 1000 / 25
    assert found == pytest.approx([shared + 0.75, shared, alone + 0.5, alone, shared + 0.75])


def test_estimates_are_finite_and_grow_with_the_work() -> None:
    text = f"program p({A}, {B}) -> (R) {{ R[i, k] = sum[j] A[i, j] * B[j, k] }}"
    times = [
        cost_of(parse(text), {"N": n, "M": n, "K": n})[0].seconds for n in (0, 1, 10, 100, 1000)
    ]
    assert all(math.isfinite(t) and t > 0 for t in times)
    assert times == sorted(times)
