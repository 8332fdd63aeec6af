"""How native code addresses memory: strides, alignment, vectors, and nothing beyond the end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from einloom.ir.errors import BackendError, UnsupportedError
from einloom.ir.expressions import Apply, Cast, Expression, Literal, Local, Symbol
from einloom.ir.loops import (
    Across,
    Buffer,
    Carried,
    For,
    Let,
    Load,
    LoopFunction,
    Splat,
    Store,
    Vector,
)
from einloom.ir.ops import OPS
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import (
    DType,
    Scalar,
    Tuple,
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
    u64,
)

Compile = Callable[..., Any]
Array = np.ndarray[Any, Any]

DTYPES = (bool_, i8, i16, i32, i64, u64, f16, bf16, f32, f64, c64, c128)
ZERO, ONE = Literal(0), Literal(1)
ROW, COLUMN = Local("i"), Local("j")
LANES = 8


def op(name: str, *arguments: Expression) -> Apply:
    return Apply(name, arguments)


def copy(name: str, dtype: DType, strides: tuple[int | None, ...], aligned: bool) -> LoopFunction:
    """`R[i, j] = A[i, j]`, the inner loop vectorised where it can be."""
    store = Store("R", (ROW, COLUMN), Load("A", (ROW, COLUMN)))
    inner = For("j", ZERO, Symbol("m"), (store,), "vector")
    buffers = (
        Buffer("A", dtype, strides, aligned=aligned),
        Buffer("R", dtype, strides, "out", aligned),
    )
    return LoopFunction(name, buffers, ("n", "m"), (For("i", ZERO, Symbol("n"), (inner,)),))


def random_array(dtype: Scalar, shape: tuple[int, ...]) -> Array:
    values = np.random.default_rng(0).integers(0, 2 if dtype == bool_ else 100, shape)
    return values.astype(numpy_dtype(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_strides_of_every_kind(dtype: Scalar, compiled: Compile) -> None:
    size = numpy_dtype(dtype).itemsize
    kernels = compiled(
        copy("runtime", dtype, (None, None), True),
        copy("dense", dtype, (None, size), True),
        copy("loose", dtype, (None, None), False),
    )
    whole = random_array(dtype, (12, 40))
    layouts = {
        "dense": whole,
        "transposed": whole.T,
        "backwards": whole[::-1, ::-1],
        "stepped": whole[1::3, 2::5],
        "broadcast": np.broadcast_to(whole[3], (5, 40)),
        "no rows": whole[:0],
        "no columns": whole[:, 5:5],
        "one": whole[:1, :1],
    }
    for label, array in layouts.items():
        names = ["runtime", "loose"] + (["dense"] if array.strides[1] == size else [])
        for name in names:
            found = np.zeros((array.shape[0] * 2, array.shape[1]), array.dtype)[::-2]
            if name != "dense":
                found = np.zeros((array.shape[1] * 3, array.shape[0]), array.dtype)[1::3].T
            assert kernels(name, [array, found], array.shape) == 0
            np.testing.assert_array_equal(found, array, err_msg=f"{label} {name} {dtype.name}")


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_unaligned_buffers(dtype: Scalar, compiled: Compile) -> None:
    kind = numpy_dtype(dtype)
    kernels = compiled(copy("f", dtype, (None, kind.itemsize), False))
    whole = random_array(dtype, (3, 37))
    for shift in (1, 3):
        source, target = (np.zeros(whole.nbytes + 16, np.uint8) for _ in range(2))
        array = source[shift : shift + whole.nbytes].view(kind).reshape(whole.shape)
        array[...] = whole
        found = target[shift + 1 :][: whole.nbytes].view(kind).reshape(whole.shape)
        assert kernels("f", [array, found], whole.shape) == 0
        np.testing.assert_array_equal(found, whole)


def test_fixed_strides_are_constants_of_the_code(compiled: Compile) -> None:
    kernels = compiled(copy("f", f64, (80, 16), True))
    whole, found = np.arange(50.0).reshape(5, 10), np.zeros((5, 10))
    assert kernels("f", [whole[:, ::2], found[:, ::2]], (5, 5)) == 0
    np.testing.assert_array_equal(found[:, ::2], whole[:, ::2])
    assert not found[:, 1::2].any()
    # Strides that are given at run time are not looked at, since these are known.
    found[:] = 0
    assert kernels("f", [whole[::2], found[::2]], (2, 5)) == 0
    np.testing.assert_array_equal(found[:2, ::2], whole[:2, ::2])


def test_gather_through_an_index_of_any_integer_dtype(compiled: Compile) -> None:
    functions = []
    for dtype in (i8, i32, i64, u8, u64):
        index = op("add", Load("K", (ROW,)), ONE)
        loop = For("i", ZERO, Symbol("n"), (Store("R", (ROW,), Load("A", (index,))),))
        buffers = (
            Buffer("K", dtype, (None,)),
            Buffer("A", f64, (None,)),
            Buffer("R", f64, (None,), "out"),
        )
        functions.append(LoopFunction(dtype.name, buffers, ("n",), (loop,)))
    kernels = compiled(*functions)
    a = np.arange(300.0)
    for dtype in (i8, i32, i64, u8, u64):
        positions = np.array([0, 5, 100, 126 if dtype == i8 else 200], numpy_dtype(dtype))
        found = np.zeros(4)
        assert kernels(dtype.name, [positions, a, found], [4]) == 0
        np.testing.assert_array_equal(found, positions + 1.0)


def test_in_place(compiled: Compile) -> None:
    """One buffer, read and written."""
    store = Store("A", (ROW,), op("mul", Load("A", (ROW,)), Literal(2)))
    shift = Store("A", (ROW,), Load("A", (op("sub", ROW, ONE),)))
    functions = [
        LoopFunction(
            name,
            (Buffer("A", f32, (4,), "inout"),),
            ("n",),
            (For("i", Literal(start), Symbol("n"), (body,), "serial"),),
        )
        for name, body, start in (("double", store, 0), ("smear", shift, 1))
    ]
    kernels = compiled(*functions)
    a = np.arange(100, dtype=np.float32)
    assert kernels("double", [a], [100]) == 0
    np.testing.assert_array_equal(a, 2 * np.arange(100))
    a[0] = -1
    assert kernels("smear", [a], [100]) == 0
    assert (a == -1).all()  # each turn reads what the last one wrote


def test_a_tuple_buffer_is_refused_by_name(compiled: Compile) -> None:
    buffers = (Buffer("A", Tuple((f32, i64)), (16,)),)
    with pytest.raises(UnsupportedError) as error:
        compiled(LoopFunction("f", buffers, (), ()))
    assert error.value.message == "the CPU backend does not compute in Tuple dtypes (buffer A)"


# ---- explicit vectors ---------------------------------------------------------------------


def vector_function(name: str, value: Expression, inputs: int, dtype: Scalar) -> LoopFunction:
    """`for i < n step 8: R[i:i+8] = value` of X0[i:i+8], X1[i:i+8]."""
    size = numpy_dtype(dtype).itemsize
    buffers = [Buffer(f"X{k}", dtype, (size,)) for k in range(inputs)]
    loop = For("i", ZERO, Symbol("n"), (Store("R", (ROW,), value),), step=LANES)
    return LoopFunction(name, (*buffers, Buffer("R", dtype, (size,), "out")), ("n",), (loop,))


def lanes_of(position: int) -> Load:
    return Load(f"X{position}", (ROW,), LANES)


@pytest.mark.parametrize("dtype", (f32, f64, i32, i64, u8, f16, bf16), ids=lambda x: x.name)
def test_operations_on_explicit_vectors(dtype: Scalar, compiled: Compile) -> None:
    names = ["add", "sub", "mul", "max", "min", "neg", "abs", "sign", "floordiv", "mod"]
    names += ["sqrt", "exp", "sigmoid", "erf", "floor"] if dtype.kind == "float" else ["pow", "shl"]
    functions = []
    for name in names:
        arity = OPS[name].arity or 2
        value = op(name, *(lanes_of(k) for k in range(arity)))
        functions.append(vector_function(name, value, arity, dtype))
    chosen = op("select", op("lt", lanes_of(0), lanes_of(1)), lanes_of(0), Literal(5))
    functions.append(vector_function("select", chosen, 2, dtype))
    mixed = op("mul", Splat(Load("X0", (ZERO,)), LANES), op("add", lanes_of(0), ONE))
    functions.append(vector_function("splat", mixed, 1, dtype))
    kernels = compiled(*functions)
    arrays = [random_array(dtype, (32,)), random_array(dtype, (32,))[::-1].copy() % 7]
    inner = np.float32 if dtype in (f16, bf16) else numpy_dtype(dtype)
    a, b = (x.astype(inner) for x in arrays)
    with np.errstate(all="ignore"):
        expected = {name: OPS[name].numpy(*((a, b)[: OPS[name].arity or 2])) for name in names}
    expected["select"] = np.where(a < b, a, np.asarray(5, inner))
    expected["splat"] = a[0] * (a + np.asarray(1, inner))
    for name, answer in expected.items():
        found = np.zeros(32, numpy_dtype(dtype))
        inputs = 1 if name == "splat" else 2 if name == "select" else OPS[name].arity or 2
        assert kernels(name, [*arrays[:inputs], found], [32]) == 0
        with np.errstate(over="ignore"):
            rounded = answer.astype(found.dtype).astype(np.float64)
        np.testing.assert_allclose(
            found.astype(np.float64),
            rounded,
            rtol=1e-6 if name in ("exp", "sqrt", "sigmoid", "erf") else 0,
            err_msg=name,
        )


@pytest.mark.parametrize("dtype", (f32, f64, i32, i64, u8), ids=lambda x: x.name)
def test_across_lanes(dtype: Scalar, compiled: Compile) -> None:
    names = ["add", "mul", "max", "min"] + (["bitxor"] if dtype.is_integer else [])
    size = numpy_dtype(dtype).itemsize
    functions = []
    for name in names:
        buffers = (Buffer("X0", dtype, (size,)), Buffer("R", dtype, (), "out"))
        body = (Let("i", ZERO), Store("R", (), Across(name, lanes_of(0))))
        functions.append(LoopFunction(name, buffers, (), body, reassociate=False))
    kernels = compiled(*functions)
    array = (random_array(dtype, (LANES,)) % 11).astype(numpy_dtype(dtype)) + numpy_dtype(
        dtype
    ).type(1)
    for name in names:
        found = np.zeros((), numpy_dtype(dtype))
        assert kernels(name, [array, found]) == 0
        expected = array[0]
        with np.errstate(all="ignore"):
            for x in array[1:]:
                expected = OPS[name].numpy(expected, x)
        assert found == expected, name


def test_vectors_are_carried_and_cast(compiled: Compile) -> None:
    """A sum of squares in eight partial sums, each f64, of f32 values."""
    square = op("mul", *(Cast(Vector(f64, LANES), lanes_of(0)),) * 2)
    loop = For(
        "i",
        ZERO,
        Symbol("n"),
        (),
        step=LANES,
        carried=(Carried("acc", Vector(f64, LANES), Literal(0.0)),),
        yields=(op("add", Local("acc"), square),),
    )
    store = Store("R", (), Across("add", Local("acc")))
    buffers = (Buffer("X0", f32, (4,)), Buffer("R", f64, (), "out"))
    kernels = compiled(LoopFunction("f", buffers, ("n",), (loop, store)))
    array, found = np.arange(64, dtype=np.float32), np.zeros(())
    assert kernels("f", [array, found], [64]) == 0
    assert found == sum(x * x for x in range(64))


def test_vectors_of_complex_numbers_are_refused(compiled: Compile) -> None:
    with pytest.raises(UnsupportedError) as error:
        compiled(vector_function("f", lanes_of(0), 1, c64))
    assert error.value.message == (
        "the CPU backend has no explicit vectors of complex numbers (buffer X0)"
    )


def test_a_vector_needs_a_dense_last_dimension(compiled: Compile) -> None:
    buffers = (Buffer("X0", f32, (None,)), Buffer("R", f32, (4,), "out"))
    body = (Let("i", ZERO), Store("R", (ZERO,), lanes_of(0)))
    with pytest.raises(BackendError, match="whose last dimension is not dense"):
        compiled(LoopFunction("f", buffers, (), body))


# ---- protected pages ----------------------------------------------------------------------

# Runs in a child process, which a read or write beyond a buffer kills.
CHILD = """
import ctypes, mmap, sys
import numpy as np
from einloom.backends.cpu import jit
from einloom.backends.cpu.codegen import emit
from einloom.backends.cpu.target import host
from einloom.ir.expressions import Apply, Literal, Local, Symbol
from einloom.ir.loops import Buffer, Carried, For, Load, LoopFunction, LoopProgram, Store
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import bf16, c64, f16, f32, f64, i8

beyond = int(sys.argv[1])
libc = ctypes.CDLL(None)
libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
PAGE = mmap.PAGESIZE
kept = []

def guarded(count, dtype, at_end):
    memory = mmap.mmap(-1, 3 * PAGE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    kept.append(memory)
    for page in (0, 2):
        assert libc.mprotect(base + page * PAGE, PAGE, 0) == 0
    size = count * dtype.itemsize
    offset = 2 * PAGE - size if at_end else PAGE
    return np.frombuffer(memory, dtype, count, offset)

i, n = Local("i"), Symbol("n")
functions = []
dtypes = {"i8": i8, "f16": f16, "bf16": bf16, "f32": f32, "f64": f64, "c64": c64}
for name, dtype in dtypes.items():
    size = numpy_dtype(dtype).itemsize
    for label, stride in (("dense", size), ("runtime", None)):
        buffers = (Buffer("A", dtype, (stride,)), Buffer("R", dtype, (stride,), "out"))
        value = Apply("add", (Load("A", (i,)), Literal(1)))
        loop = For("i", Literal(0), n, (Store("R", (i,), value),), "vector")
        functions.append(LoopFunction(f"map {label} {name}", buffers, ("n",), (loop,)))
        update = Apply("add", (Local("acc"), Load("A", (i,))))
        loop = For("i", Literal(0), n, (), "vector", 1,
                   (Carried("acc", dtype, Literal(0)),), (update,))
        buffers = (buffers[0], Buffer("R", dtype, (), "out"))
        body = (loop, Store("R", (), Local("acc")))
        functions.append(LoopFunction(f"sum {label} {name}", buffers, ("n",), body))
program = LoopProgram(tuple(functions))
library = jit.load_object(jit.compile_object(emit(program, host())))
pointer, number = ctypes.c_void_p, ctypes.c_int64
entry = ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, number, number, pointer)

def run(name, arrays, count):
    bases = (pointer * 2)(*(x.__array_interface__["data"][0] for x in arrays))
    numbers = (number * 3)(count, *(x.itemsize for x in arrays))
    assert entry(library.entry(name))(bases, numbers, 0, 0, (number * 2)()) == 0

for name, dtype in dtypes.items():
    kind = numpy_dtype(dtype)
    for count in (0, 1, 2, 3, 7, 15, 16, 17, 31, 33, 63, 65, 127, 130):
        for at_end in (True, False):
            for label in ("dense", "runtime"):
                for form in ("map", "sum"):
                    a = guarded(count, kind, at_end)
                    a[...] = np.ones(count, kind)
                    r = guarded(count if form == "map" else 1, kind, at_end)
                    run(f"{form} {label} {name}", (a, r), count + beyond)
                    expected = np.full(count, 2) if form == "map" else np.full(1, count)
                    assert (r == expected.astype(kind)).all(), (name, count, form, r)
        kept.clear()
print("fine")
"""


def test_nothing_is_touched_beyond_a_buffer() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "0"], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr[-2000:]


def test_the_protected_pages_would_catch_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "1"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode < 0, "one element too many should have crashed the child"
