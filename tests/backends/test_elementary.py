"""Elementary functions of f32: their stated bounds, and that loops over them are vector code."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from einloom.backends.cpu import jit
from einloom.backends.cpu.codegen import emit
from einloom.backends.cpu.elementary.table import DOUBLE, SINGLE
from einloom.backends.cpu.target import Target, baseline
from einloom.ir.expressions import Apply, Literal, Local, Symbol
from einloom.ir.loops import Buffer, For, Load, LoopFunction, LoopProgram, Store
from einloom.ir.ops import OPS
from einloom.ir.types import Scalar, f32, f64
from tests.backends.elementary_reference import (
    Array,
    bit_patterns,
    errors,
    evaluated,
    function_of,
    reference,
    surroundings,
    targets,
    worst,
)

Compile = Callable[..., Any]

UNARY = [name for name in SINGLE if OPS[name].arity == 1]
BINARY = [name for name in SINGLE if OPS[name].arity == 2]
X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
# A prime, so that every exponent and all ends of mantissas are met.
STRIDE = 4099


@pytest.fixture(scope="module")
def kernels(compiled: Compile) -> dict[str, Any]:
    """All functions of f32 for every target."""
    functions = [function_of(name, f32, OPS[name].arity or 2) for name in SINGLE]
    return {name: compiled(*functions, target=target) for name, target in targets().items()}


def check(kernels: dict[str, Any], op: str, *arrays: Array) -> None:
    exact = reference(op, *arrays)
    for target, library in kernels.items():
        error, message = worst(op, arrays, evaluated(library, op, *arrays), exact)
        assert error <= SINGLE[op].ulps, f"{target}: {message}"


def test_every_function_of_the_table_is_generated() -> None:
    inexact = {op.name for op in OPS.values() if op.cost >= 20 and op.rule != "no-complex"}
    assert set(SINGLE) == inexact


@pytest.mark.parametrize("op", UNARY)
def test_a_sample_of_all_arguments(op: str, kernels: dict[str, Any]) -> None:
    check(kernels, op, bit_patterns(2**32 // STRIDE, step=STRIDE))


@pytest.mark.parametrize("op", UNARY)
def test_ends_and_bends(op: str, kernels: dict[str, Any]) -> None:
    check(kernels, op, surroundings())


SPECIAL = np.array(
    [
        *(0.0, 1.0, 2.0, 3.0, 0.5, 1.5, 2.5, 2.0**24, 2.0**24 - 1, 2.0**23 - 0.5, 2.0**31, 1e30),
        *(np.inf, np.nan, 1e-45, 1e-38, 3.4028235e38, 1 + 2.0**-23, 1 - 2.0**-24, 127.0, 149.0),
    ],
    np.float32,
)


@pytest.mark.parametrize("op", BINARY)
def test_special_cases_of_two_arguments(op: str, kernels: dict[str, Any]) -> None:
    values = np.concatenate([SPECIAL, -SPECIAL])
    a, b = (np.ascontiguousarray(x.ravel()) for x in np.meshgrid(values, values))
    check(kernels, op, a, b)


def pairs(op: str, count: int, seed: int) -> list[tuple[Array, Array]]:
    """Arguments of every size, and such that powers are neither 0 nor infinite."""
    random = np.random.default_rng(seed)
    bits = random.integers(0, 2**32, (2, count), dtype=np.uint64).astype(np.uint32)
    anything = (bits[0].view(np.float32), bits[1].view(np.float32))
    normal = random.normal(size=(2, count)).astype(np.float32)
    if op != "pow":
        return [anything, (normal[0], normal[1])]
    bases = [
        np.exp(random.uniform(-87, 88, count)).astype(np.float32),
        (1 + random.normal(size=count) * 1e-3).astype(np.float32),
    ]
    results = random.uniform(-150, 128, count)
    with np.errstate(all="ignore"):
        fitting = [(x, (results / np.log2(x, dtype=np.float64)).astype(np.float32)) for x in bases]
    whole = random.integers(-40, 40, count).astype(np.float32)
    return [anything, *fitting, (normal[0], whole)]


@pytest.mark.parametrize("op", BINARY)
def test_samples_of_two_arguments(op: str, kernels: dict[str, Any]) -> None:
    for arrays in pairs(op, 1 << 17, seed=0):
        check(kernels, op, *arrays)


# ---- all arguments ------------------------------------------------------------------------


def most(kernels: dict[str, Any], op: str, chunks: Callable[[int], Any], count: int) -> None:
    """Check `count` chunks of arguments on this machine, two at a time, and print the worst."""

    def work(number: int) -> tuple[float, str]:
        found = (0.0, "")
        for arrays in chunks(number):
            result = evaluated(kernels["host"], op, *arrays)
            found = max(found, worst(op, arrays, result, reference(op, *arrays)))
        return found

    with ThreadPoolExecutor(2) as pool:
        error, message = max(pool.map(work, range(count)))
    print(f"largest error: {message}")
    assert error <= SINGLE[op].ulps, message


@pytest.mark.deep
@pytest.mark.parametrize("op", UNARY)
def test_all_arguments(op: str, kernels: dict[str, Any]) -> None:
    """Every f32, in chunks of 2^24, each taken in pieces that fit the caches."""
    piece, chunk = 1 << 17, 1 << 24

    def chunks(number: int) -> Any:
        return ((bit_patterns(piece, number * chunk + k),) for k in range(0, chunk, piece))

    most(kernels, op, chunks, 2**32 // chunk)


@pytest.mark.deep
@pytest.mark.parametrize("op", BINARY)
def test_many_pairs(op: str, kernels: dict[str, Any]) -> None:
    """2^27 pairs of each kind that `pairs` makes."""
    most(kernels, op, lambda number: pairs(op, 1 << 17, number), 1 << 10)


# ---- literal exponents --------------------------------------------------------------------


def literal_powers(exponents: tuple[float, ...]) -> list[LoopFunction]:
    functions = []
    for exponent in exponents:
        buffers = (Buffer("A", f32, (4,)), Buffer("R", f32, (4,), "out"))
        value = Apply("pow", (Load("A", (Local("i"),)), Literal(exponent)))
        loop = For("i", Literal(0), Symbol("n"), (Store("R", (Local("i"),), value),))
        functions.append(LoopFunction(f"power {exponent}", buffers, ("n",), (loop,)))
    return functions


EXPONENTS = (
    2,
    2.0,
    1,
    0,
    3,
    7.0,
    64,
    65,
    -1,
    -2,
    -3.0,
    -64,
    0.5,
    -0.5,
    1.5,
    2.25,
    1e30,
    float("inf"),
)


def test_literal_exponents(compiled: Compile) -> None:
    kernels = compiled(*literal_powers(EXPONENTS))
    x = np.concatenate([bit_patterns(2**32 // 65537, step=65537), surroundings(20)])
    for exponent in EXPONENTS:
        found = evaluated(kernels, f"power {exponent}", x)
        with np.errstate(all="ignore"):
            exact = np.power(x.astype(np.float64), np.full(x.shape, float(exponent)))
        error, message = worst("pow", (x,), found, exact)
        assert error <= SINGLE["pow"].ulps, f"{message}, the exponent being {exponent}"


def test_a_square_is_a_product() -> None:
    target = baseline(X86)
    text = emit(LoopProgram(tuple(literal_powers((2, 0.5)))), target)
    squared, root = text.split("define ")[1:]
    assert squared.count("fmul") == 1 and "double" not in squared
    assert "llvm.sqrt.f32" in root and "double" not in root


# ---- the code -----------------------------------------------------------------------------

MACHINES = {
    "%zmm": Target(X86, frozenset({"avx512f", "avx512vl", "avx512dq", "avx512bw", "fma", "avx2"})),
    "%ymm": Target(X86, frozenset({"avx2", "fma"})),
    "%xmm": baseline(X86),
    "v0.4s": baseline(ARM),
}
CALL = re.compile(r"^\t(?:callq|jmp|bl|b)\t([A-Za-z_]\w*)", re.MULTILINE)


@pytest.mark.parametrize("register", MACHINES)
@pytest.mark.parametrize("dtype", (f32, f64), ids=lambda dtype: dtype.name)
def test_loops_become_vector_code_without_calls(register: str, dtype: Scalar) -> None:
    target = MACHINES[register]
    packed = re.compile(
        r"^\tv?(?:mul|fn?m(?:add|sub)\d*)p[sd]\t" if "%" in register else r"^\tfmla?\tv",
        re.MULTILINE,
    )
    for op in SINGLE if dtype == f32 else DOUBLE:
        program = LoopProgram((function_of(op, dtype, OPS[op].arity or 2),))
        text = jit.assembly(emit(program, target), target)
        assert CALL.findall(text) == [], op
        lines = [line for line in text.splitlines() if packed.match(line)]
        # Shorter vectors may follow for what the longest leave over.
        assert sum("%" not in register or register in line for line in lines) >= 3, op


def vector_function(op: str, arity: int, lanes: int) -> LoopFunction:
    """`function_of` with explicit vectors; n is a multiple of `lanes`."""
    buffers = [Buffer(f"X{k}", f32, (4,)) for k in range(arity)]
    value = Apply(op, tuple(Load(f"X{k}", (Local("i"),), lanes) for k in range(arity)))
    body = (Store("R", (Local("i"),), value),)
    loop = For("i", Literal(0), Symbol("n"), body, step=lanes)
    return LoopFunction(op, (*buffers, Buffer("R", f32, (4,), "out")), ("n",), (loop,))


@pytest.mark.parametrize("lanes", (2, 8, 16))
def test_explicit_vectors_give_the_same_bits(lanes: int, kernels: Any, compiled: Compile) -> None:
    vectors = compiled(*(vector_function(op, OPS[op].arity or 2, lanes) for op in SINGLE))
    x = surroundings(63)
    x = np.ascontiguousarray(x[: x.size // lanes * lanes])
    for op in SINGLE:
        arrays = (x, np.roll(x, 1000))[: OPS[op].arity]
        found, expected = (evaluated(k, op, *arrays) for k in (vectors, kernels["host"]))
        np.testing.assert_array_equal(found, expected, err_msg=op)


def test_results_do_not_depend_on_the_place_in_a_loop(kernels: dict[str, Any]) -> None:
    """What is left over by the vector loop is computed by the same operations."""
    x = np.linspace(0.01, 3, 67, dtype=np.float32)
    for op in UNARY:
        whole = evaluated(kernels["host"], op, x)
        single = [evaluated(kernels["host"], op, x[k : k + 1])[0] for k in range(x.size)]
        np.testing.assert_array_equal(whole, single, err_msg=op)


def test_the_measure_of_errors() -> None:
    one = np.float32(1)
    up, down = np.nextafter(one, np.float32(2)), np.nextafter(one, np.float32(0))
    found = np.array([one, up, down, np.inf, np.nan, 0.0, 1e-45, np.nan], np.float32)
    exact = np.array([1, 1, 1, 2.0**128, np.nan, -0.0, 0.0, 1])
    expected = [0, 1, 0.5, 0, 0, np.inf, 1, np.inf]
    np.testing.assert_array_equal(errors(found, exact), expected)
