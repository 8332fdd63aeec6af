"""Every operation of the table on every dtype, natively, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from einloom.ir.errors import DTypeError
from einloom.ir.expressions import Apply, Cast, Expression, Literal, Local, Symbol
from einloom.ir.loops import Buffer, For, Load, LoopFunction, Store
from einloom.ir.ops import OPS, Op
from einloom.ir.promotion import Typing, from_numpy, numpy_dtype, op_typing, promote
from einloom.ir.types import (
    DType,
    Modular,
    Scalar,
    bf16,
    bool_,
    c64,
    c128,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    u8,
    u16,
    u32,
    u64,
)

Compile = Callable[..., Any]
Array = np.ndarray[Any, Any]

INTEGERS = (i8, i16, i32, i64, u8, u16, u32, u64)
FLOATS = (f16, bf16, f32, f64)
ALL = (bool_, *INTEGERS, *FLOATS, c64, c128)
BITS_EQUAL = frozenset(OPS) - {
    *("pow", "sqrt", "rsqrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh"),
    *("erf", "sigmoid"),
}
# LLVM, NumPy and the C library each err by a few units in the last place.
MOST_ULPS = 8


def edge_values(dtype: DType, seed: int = 0) -> Array:
    """Values at the edges of a dtype, and some random ones of every magnitude."""
    random = np.random.default_rng(seed)
    kind = numpy_dtype(dtype)
    if dtype == bool_:
        return np.array([False, True, True, False])
    assert isinstance(dtype, Scalar)
    if dtype.is_integer:
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
        edges = [low, low + 1, -2, -1, 0, 1, 2, 3, 7, high - 1, high]
        near = random.integers(max(low, -20), 20, 12)
        wide = random.integers(low, high, 12, dtype=kind, endpoint=True)
        inside = [x for x in edges if low <= x <= high]
        return np.concatenate([np.array(inside, kind), near.astype(kind), wide])
    if dtype.kind == "complex":
        part = edge_values(f32 if dtype == c64 else f64, seed)
        other = random.permutation(part)
        return (part + 1j * np.where(np.isfinite(other), other, 1)).astype(kind)
    edges_of_floats = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -1.5, 3.0, np.inf, -np.inf, np.nan, 1e-40]
    values = np.concatenate(
        [edges_of_floats, random.normal(size=12), random.normal(size=12) * 50, [1e30, -1e-30, 88.0]]
    )
    with np.errstate(all="ignore"):
        return values.astype(kind)


def operands(dtypes: tuple[DType, ...]) -> list[Array]:
    """All combinations of the edge values of two dtypes; three are cycled."""
    values = [edge_values(dtype, seed) for seed, dtype in enumerate(dtypes)]
    if len(values) == 1:
        return values
    first, second = (np.ascontiguousarray(x) for x in np.meshgrid(*values[:2], indexing="ij"))
    grid = [first.ravel(), second.ravel()]
    return grid + [np.resize(x, first.size) for x in values[2:]]


def elementwise(name: str, value: Expression, inputs: tuple[DType, ...], result: DType) -> Any:
    """`for i < n: R[i] = value`, where the value reads X0, X1, ... at i."""
    buffers = [Buffer(f"X{k}", dtype, (None,)) for k, dtype in enumerate(inputs)]
    loop = For("i", Literal(0), Symbol("n"), (Store("R", (Local("i"),), value),))
    return LoopFunction(name, (*buffers, Buffer("R", result, (None,), "out")), ("n",), (loop,))


def read(position: int) -> Load:
    return Load(f"X{position}", (Local("i"),))


def typing(op: Op, dtypes: tuple[DType, ...]) -> DType | None:
    """The dtype of an operation's result, None where it does not take the dtypes."""
    try:
        return op_typing(op.name, op.rule, [Typing(dtype) for dtype in dtypes]).dtype
    except DTypeError:
        return None


def reference(op: Op, dtype: DType, arrays: list[Array], result: DType) -> Array:
    """NumPy's answer. f16 and bf16 are computed in f32 and rounded, as the table says."""
    if op.rule == "rounding" and dtype not in FLOATS:
        return arrays[0]  # NumPy turns them into floats; what is whole stays as it is here
    if dtype in (f16, bf16):
        arrays = [array.astype(np.float32) for array in arrays]
    elif op.rule in ("float", "real-float") and dtype not in (*FLOATS, c64, c128):
        wide = np.float64 if result == f64 else np.float32
        arrays = [array.astype(wide) for array in arrays]
    if isinstance(dtype, Scalar) and dtype.is_integer:
        if op.name == "pow":
            return integer_powers(*arrays)
        if op.name == "ceildiv":  # the table's -(-a // b) wraps for unsigned and the least integer
            inexact = (np.remainder(*arrays) != 0).astype(arrays[0].dtype)
            return np.asarray(np.floor_divide(*arrays) + inexact)
    return np.asarray(op.numpy(*arrays))


def integer_powers(base: Array, exponent: Array) -> Array:
    """Powers that wrap; a negative one is what 1 / base ** n truncates to, 0 for base 0."""
    bits = 8 * base.itemsize
    answers = []
    for b, e in zip(base.tolist(), exponent.tolist(), strict=True):
        if e >= 0:
            answers.append(pow(b, e, 2**bits))
        else:
            answers.append({1: 1, -1: -1 if e % 2 else 1}.get(b, 0) % 2**bits)
    return np.array(answers, np.uint64).astype(f"u{base.itemsize}").view(base.dtype)


def assert_same(found: Array, expected: Array, exact: bool, context: str) -> None:
    """Equal bit for bit (any NaN is as good as another), or within a few last places."""
    assert found.dtype == expected.dtype, context
    if found.dtype.kind == "c":
        assert_complex(found, expected, exact, context)
        return
    kind = found.dtype
    if kind.kind not in "fV":
        np.testing.assert_array_equal(found, expected, err_msg=context)
        return
    # ml_dtypes' bfloat16 has the kind V, and its NaNs are not seen as such
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    if exact:
        np.testing.assert_array_equal(found, expected, err_msg=context)
        numbers = ~np.isnan(expected)
        signs = np.signbit(found[numbers]), np.signbit(expected[numbers])
        np.testing.assert_array_equal(signs[0], signs[1], err_msg=context)
        return
    information = ml_dtypes.finfo(kind)  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(
        found,
        expected,
        rtol=MOST_ULPS * float(information.eps),
        atol=MOST_ULPS * float(information.smallest_subnormal),
        err_msg=context,
    )


def assert_complex(found: Array, expected: Array, exact: bool, context: str) -> None:
    """Complex numbers are compared by their distance, relative to their size."""
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected), err_msg=context)
    np.testing.assert_array_equal(np.isfinite(found), finite, err_msg=context)
    eps = float(np.finfo(found.dtype).eps)
    wide = found.astype(np.complex128)[finite], expected.astype(np.complex128)[finite]
    tiny = float(np.finfo(found.dtype).smallest_normal)
    with np.errstate(all="ignore"):
        error = np.abs(wide[0] - wide[1]) / (np.abs(wide[1]) + tiny)
    assert np.all(error <= (4 if exact else 64) * eps), f"{context}: {error.max()}"


@pytest.mark.parametrize("dtype", ALL, ids=lambda dtype: dtype.name)
def test_operation_is_numpys(dtype: Scalar, compiled: Compile) -> None:
    cases = {}
    for op in OPS.values():
        arity = op.arity or 2
        result = None if op.name == "stored" else typing(op, (dtype,) * arity)
        if result is not None:
            value = Apply(op.name, tuple(read(k) for k in range(arity)))
            cases[op.name] = (elementwise(op.name, value, (dtype,) * arity, result), arity, result)
    assert len(cases) >= 25
    kernels = compiled(*(function for function, _, _ in cases.values()))
    for name, (_, arity, result) in cases.items():
        arrays = operands((dtype,) * arity)
        with np.errstate(all="ignore"):
            expected = reference(OPS[name], dtype, arrays, result).astype(numpy_dtype(result))
        found = np.zeros(expected.shape, numpy_dtype(result))
        assert kernels(name, [*arrays, found], [found.size]) == 0
        context = f"{name} of {dtype.name}"
        if name in ("max", "min") and found.dtype.kind in "fV":
            found, expected = found + 0, expected + 0  # NumPy takes either zero of 0.0 and -0.0
        # NumPy has |z| from its own vector code, in which the last place may differ
        exact = name in BITS_EQUAL and (name, dtype.kind) != ("abs", "complex")
        assert_same(found, expected, exact, context)


@pytest.mark.parametrize("left", ALL, ids=lambda dtype: dtype.name)
def test_mixed_dtypes_meet_in_the_joined_one(left: Scalar, compiled: Compile) -> None:
    functions, cases = [], []
    for right in ALL:
        joined = promote(left, right)
        for name in ("add", "eq", "lt", "select"):
            if OPS[name].rule == "order" and joined in (c64, c128):
                continue
            arguments: tuple[Expression, ...] = (read(0), read(1))
            if name == "select":
                arguments = (Apply("eq", (read(0), Literal(0))), *arguments)
            result = bool_ if OPS[name].rule in ("compare", "order") else joined
            label = f"{name}.{right.name}"
            functions.append(elementwise(label, Apply(name, arguments), (left, right), result))
            cases.append((label, name, right, joined, result))
    kernels = compiled(*functions)
    for label, name, right, joined, result in cases:
        arrays = operands((left, right))
        inner = np.float32 if joined in (f16, bf16) else numpy_dtype(joined)
        with np.errstate(all="ignore"):
            a, b = (array.astype(inner) for array in arrays)
            if name == "select":
                expected = np.where(arrays[0] == 0, a, b)
            elif result == bool_ and joined == f64 and left.is_integer and right.is_integer:
                expected = OPS[name].numpy(*(x.astype(object) for x in arrays))  # as numbers
            else:
                expected = np.asarray(OPS[name].numpy(a, b))
            expected = expected.astype(numpy_dtype(result))
        found = np.zeros(expected.shape, expected.dtype)
        assert kernels(label, [*arrays, found], [found.size]) == 0
        assert_same(found, expected, True, f"{name} of {left.name} and {right.name}")


def test_literals_are_weak(compiled: Compile) -> None:
    """A literal takes the dtype that it meets, and raises the kind only."""
    cases: dict[str, tuple[Expression, DType, Callable[[Array], Any]]] = {
        "f32+f": (Apply("add", (read(0), Literal(0.1))), f32, lambda x: x + 0.1),
        "i8+i": (Apply("add", (read(0), Literal(100))), i8, lambda x: x + 100),
        "u8*i": (Apply("mul", (Literal(3), read(0))), u8, lambda x: 3 * x),
        "i32+f": (Apply("add", (read(0), Literal(0.5))), i32, lambda x: x + 0.5),
        "bool+i": (Apply("add", (read(0), Literal(2))), bool_, lambda x: x + 2),
        "f32*c": (Apply("mul", (read(0), Literal(2j))), f32, lambda x: x * 2j),
        "u8<i": (Apply("lt", (read(0), Literal(-1))), u8, lambda x: x < -1),
        "i8<i": (Apply("lt", (read(0), Literal(300))), i8, lambda x: x < 300),
        "300>i8": (Apply("gt", (Literal(300), read(0))), i8, lambda x: x.astype(int) < 300),
        "i8==i": (Apply("eq", (read(0), Literal(300))), i8, lambda x: x == 300),
        "f32**2": (Apply("pow", (read(0), Literal(2))), f32, lambda x: x**2),
        "i32**13": (Apply("pow", (read(0), Literal(13))), i32, lambda x: x**13),
        "i32**0": (Apply("pow", (read(0), Literal(0))), i32, lambda x: x**0),
    }
    functions = []
    results = {}
    for name, (value, dtype, numpy) in cases.items():
        array = edge_values(dtype)
        array = array[np.isfinite(array)]
        with np.errstate(all="ignore"):
            results[name] = array, np.asarray(numpy(array))
        functions.append(elementwise(name, value, (dtype,), from_numpy(results[name][1].dtype)))
    kernels = compiled(*functions)
    for name, (array, expected) in results.items():
        found = np.zeros(expected.shape, expected.dtype)
        assert kernels(name, [array, found], [found.size]) == 0
        assert_same(found, expected, True, name)


def test_a_literal_alone_takes_the_buffers_dtype(compiled: Compile) -> None:
    value = {f"{dtype.name}": dtype for dtype in ALL}
    functions = [elementwise(name, Literal(1.5), (), dtype) for name, dtype in value.items()]
    big = elementwise("big", Literal(2**64 - 1), (), u64)
    kernels = compiled(*functions, big)
    for name, dtype in value.items():
        found = np.zeros(3, numpy_dtype(dtype))
        assert kernels(name, [found], [3]) == 0
        np.testing.assert_array_equal(found, np.full(3, 1.5).astype(found.dtype), err_msg=name)
    found = np.zeros(1, np.uint64)
    assert kernels("big", [found], [1]) == 0
    assert found[0] == 2**64 - 1


def test_symbols_are_weak_integers(compiled: Compile) -> None:
    kernels = compiled(elementwise("scaled", Apply("mul", (read(0), Symbol("n"))), (f32,), f32))
    array, found = np.array([0.5, 1.25, 2], np.float32), np.zeros(3, np.float32)
    assert kernels("scaled", [array, found], [3]) == 0
    np.testing.assert_array_equal(found, [1.5, 3.75, 6])


MODULI = (2, 3, 97, 2**16 + 1, 2**32 - 5, 2**32, 2**61 - 1, 2**62, 2**63 - 25, 2**40 + 15)


def test_modular_arithmetic(compiled: Compile) -> None:
    functions = []
    for q in MODULI:
        for name in ("add", "sub", "mul", "neg", "eq"):
            arity = OPS[name].arity or 2
            dtype = Modular(q)
            value = Apply(name, tuple(read(k) for k in range(arity)))
            result = bool_ if name == "eq" else dtype
            functions.append(elementwise(f"{name}{q}", value, (dtype,) * arity, result))
        literal = Apply("add", (read(0), Literal(-5)))
        functions.append(elementwise(f"literal{q}", literal, (Modular(q),), Modular(q)))
        functions.append(elementwise(f"cast{q}", Cast(Modular(q), read(0)), (i64,), Modular(q)))
    kernels = compiled(*functions)
    random = np.random.default_rng(0)
    for q in MODULI:
        values = [0, 1, q - 1, q // 2, *random.integers(0, q, 30, dtype=np.uint64).tolist()]
        pairs = [(a, b) for a in values for b in values]
        a, b = (np.array(column, np.uint64) for column in zip(*pairs, strict=True))
        answers = {
            "add": [(x + y) % q for x, y in pairs],
            "sub": [(x - y) % q for x, y in pairs],
            "mul": [x * y % q for x, y in pairs],
            "eq": [x == y for x, y in pairs],
            "neg": [-x % q for x, _ in pairs],
            "literal": [(x - 5) % q for x, _ in pairs],
        }
        for name, expected in answers.items():
            found: Array = np.zeros(len(pairs), np.bool_ if name == "eq" else np.uint64)
            inputs = [a, b] if name in ("add", "sub", "mul", "eq") else [a]
            assert kernels(f"{name}{q}", [*inputs, found], [len(pairs)]) == 0
            assert found.tolist() == expected, f"{name} modulo {q}"
        integers = edge_values(i64)
        found = np.zeros(integers.size, np.uint64)
        assert kernels(f"cast{q}", [integers, found], [integers.size]) == 0
        assert found.tolist() == [x % q for x in integers.tolist()]


def test_flat_operations_take_many_arguments(compiled: Compile) -> None:
    four = tuple(read(k) for k in range(4))
    names = ("add", "mul", "max", "bitxor", "and")
    kernels = compiled(
        *(
            elementwise(name, Apply(name, four), (i32,) * 4, bool_ if name == "and" else i32)
            for name in names
        )
    )
    arrays = [np.roll(edge_values(i32), k) for k in range(4)]
    for name in names:
        expected = OPS[name].numpy(
            OPS[name].numpy(OPS[name].numpy(*arrays[:2]), arrays[2]), arrays[3]
        )
        found = np.zeros_like(expected)
        assert kernels(name, [*arrays, found], [found.size]) == 0
        np.testing.assert_array_equal(found, expected, err_msg=name)
