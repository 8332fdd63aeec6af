"""Machine code from LLVM text: vector instructions, loading, lifetime, threads, damage."""

from __future__ import annotations

import contextlib
import gc
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einloom.backends.cpu import jit
from einloom.backends.cpu.codegen import emit
from einloom.backends.cpu.library import Library
from einloom.backends.cpu.target import Target, baseline, host, host_fingerprint
from einloom.ir.errors import BackendError, UnsupportedError
from einloom.ir.expressions import Apply, Expression, Literal, Local, Symbol
from einloom.ir.loops import Buffer, Carried, For, Load, LoopFunction, LoopProgram, Store
from einloom.ir.ops import OPS
from einloom.ir.promotion import Typing, op_typing
from einloom.ir.types import DType, Scalar, c64, c128, f16, f32, f64, i32, i64

Compile = Callable[..., Any]
X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
WIDE = Target(X86, frozenset({"avx512f", "avx512vl", "avx512dq", "avx512bw", "fma", "avx2"}))
HASWELL = Target(X86, frozenset({"avx2", "fma", "f16c"}))
ZERO, N = Literal(0), Symbol("n")
I_, J_, K_ = Local("i"), Local("j"), Local("k")

on_linux_x86 = pytest.mark.skipif(
    not (sys.platform == "linux" and host().architecture == "x86_64"),
    reason="other systems load code through LLVM's own engine",
)


def op(name: str, *arguments: Expression) -> Apply:
    return Apply(name, arguments)


def reduction(name: str, terms: tuple[Expression, ...]) -> LoopFunction:
    """`R = sum of the product of terms`, which read A and B at i."""
    value = terms[0] if len(terms) == 1 else Apply("mul", terms)
    loop = For(
        "i",
        ZERO,
        N,
        (),
        carried=(Carried("acc", f32, Literal(0.0)),),
        yields=(op("add", Local("acc"), value),),
    )
    buffers = (Buffer("A", f32, (4,)), Buffer("B", f32, (4,)), Buffer("R", f32, (), "out"))
    return LoopFunction(name, buffers, ("n",), (loop, Store("R", (), Local("acc"))))


def matrix_product() -> LoopFunction:
    """C[i, j] += A[i, k] * B[k, j], with j innermost."""
    term = op("mul", Load("A", (I_, K_)), Load("B", (K_, J_)))
    store = Store("C", (I_, J_), op("add", Load("C", (I_, J_)), term))
    columns = For("j", ZERO, Symbol("columns"), (store,), "vector")
    inner = For("k", ZERO, Symbol("inner"), (columns,))
    rows = For("i", ZERO, Symbol("rows"), (inner,), "parallel")
    buffers = (
        Buffer("A", f32, (None, 4)),
        Buffer("B", f32, (None, 4)),
        Buffer("C", f32, (None, 4), "inout"),
    )
    return LoopFunction("product", buffers, ("rows", "inner", "columns"), (rows,))


def elementwise() -> LoopFunction:
    value = op("add", op("mul", Load("A", (I_,)), Load("A", (I_,))), Literal(1.0))
    buffers = (Buffer("A", f64, (8,)), Buffer("R", f64, (8,), "out"))
    loop = For("i", ZERO, N, (Store("R", (I_,), value),))
    return LoopFunction("map", buffers, ("n",), (loop,))


PROGRAM = LoopProgram(
    (
        reduction("sum", (Load("A", (I_,)),)),
        reduction("dot", (Load("A", (I_,)), Load("B", (I_,)))),
        matrix_product(),
        elementwise(),
    )
)


def body_of(assembly: str, name: str) -> str:
    """The instructions of one kernel."""
    (body,) = re.findall(
        rf"^kernel\.{name}:\n(.*?)^\.Lfunc_end", assembly, re.DOTALL | re.MULTILINE
    )
    return str(body)


@pytest.mark.parametrize(("target", "register"), [(WIDE, "%zmm"), (HASWELL, "%ymm")])
def test_loops_become_vector_instructions(target: Target, register: str) -> None:
    text = jit.assembly(emit(PROGRAM, target), target)
    for name, instruction in (
        ("sum", "vaddps"),
        ("dot", "vfmadd[0-9]+ps"),
        ("product", "vfmadd[0-9]+ps"),
        ("map", "vmulpd"),
    ):
        assert re.search(rf"\t{instruction}\t.*{register}", body_of(text, name)), name
    # What is no reduction keeps NumPy's two roundings, and no loop asks whether buffers overlap.
    assert "vfmadd" not in body_of(text, "map")


def test_another_architecture() -> None:
    target = baseline(ARM)
    text = emit(PROGRAM, target)
    assert re.search(r"\tfmla\tv\d+\.4s", body_of(jit.assembly(text, target), "product"))
    data = jit.compile_object(text, target)
    assert data[:4] == b"\x7fELF"
    assert int.from_bytes(data[18:20], "little") == 183  # EM_AARCH64


def test_an_architecture_that_is_not_built() -> None:
    with pytest.raises(UnsupportedError) as error:
        baseline("sparc-unknown-linux")
    assert str(error.value) == (
        "the CPU backend does not generate code for sparc\n  hint: it does for aarch64 and x86_64"
    )


def test_optimized_text_is_llvm_ir() -> None:
    text = jit.optimized(emit(PROGRAM, WIDE), WIDE)
    assert "<16 x float>" in text and re.search(r"define .*i32 @kernel\.dot\(", text)


def test_text_that_llvm_refuses_is_an_internal_error() -> None:
    with pytest.raises(
        BackendError, match="LLVM refuses the generated text: LLVM IR parsing error"
    ):
        jit.compile_object("define nonsense")
    wrong = "define i32 @f() {\n  %x = add i32 %y, 1\n  %y = add i32 %x, 1\n  ret i32 %x\n}\n"
    with pytest.raises(BackendError, match="internal: LLVM refuses the generated text"):
        jit.compile_object(wrong)


# ---- loading ------------------------------------------------------------------------------


def executable_mappings() -> list[str]:
    """Anonymous executable memory of this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if "x" in line.split()[1] and len(line.split()) == 5]


def test_an_entry_that_is_not_there(compiled: Compile) -> None:
    kernels = compiled(elementwise())
    with pytest.raises(BackendError) as error:
        kernels.library.entry("other")
    assert str(error.value) == "internal: the compiled code has no kernel other"


@on_linux_x86
def test_code_is_executable_and_not_writable(compiled: Compile) -> None:
    library = compiled(elementwise()).library
    address = library.entry("map")
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(x, 16) for x in line.split()[0].split("-"))
        if low <= address < high:
            assert line.split()[1] == "r-xp"
            return
    pytest.fail("the code lies in no mapping")


@on_linux_x86
def test_code_is_freed_with_its_library() -> None:
    data = jit.compile_object(emit(PROGRAM, host()))
    before = len(executable_mappings())
    libraries = [jit.load_object(data) for _ in range(20)]
    assert all(library.entry("sum") for library in libraries)
    gone = weakref.ref(libraries[0])
    code = weakref.ref(libraries[0]._code)
    del libraries
    gc.collect()
    assert gone() is None and code() is None
    assert len(executable_mappings()) <= before


@on_linux_x86
def test_loading_does_not_import_llvmlite(tmp_path: Path) -> None:
    data = jit.compile_object(emit(PROGRAM, host()))
    (tmp_path / "code.o").write_bytes(data)
    script = (
        "import sys; from einloom.backends.cpu import jit;"
        "data = open(sys.argv[1], 'rb').read();"
        "assert jit.load_object(data).entry('dot');"
        "from einloom.backends.cpu.target import host_fingerprint; assert host_fingerprint();"
        "assert 'llvmlite' not in sys.modules"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "code.o")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@on_linux_x86
def test_damaged_objects_are_refused() -> None:
    data = jit.compile_object(emit(PROGRAM, host()))
    for wrong in (b"", b"nonsense", b"\0" * 1000, data[:63], data[: len(data) // 2]):
        with pytest.raises(BackendError, match="the compiled code is damaged: "):
            jit.load_object(wrong)
    random = np.random.default_rng(0)
    for _ in range(300):
        array = bytearray(data)
        for position in random.integers(0, len(data), 3):
            array[position] = random.integers(0, 256)
        with contextlib.suppress(BackendError):
            jit.load_object(bytes(array))  # never called, so what it computes does not matter


@on_linux_x86
def test_an_object_for_another_machine_is_refused() -> None:
    target = baseline(ARM)
    data = jit.compile_object(emit(PROGRAM, target), target)
    with pytest.raises(BackendError, match="it is not a relocatable object for x86-64"):
        jit.load_object(data)


@on_linux_x86
def test_a_function_that_the_system_lacks() -> None:
    text = (
        "declare void @no_such_function()\n"
        "define void @f() {\n  call void @no_such_function()\n  ret void\n}\n"
    )
    with pytest.raises(BackendError) as error:
        jit.load_object(jit.compile_object(text))
    assert str(error.value) == (
        "the compiled code calls no_such_function, which the C library of this system does not have"
    )


def test_llvms_engine_loads_the_same_object(compiled: Compile) -> None:
    kernels = compiled(elementwise())
    kernels.library = Library(jit._EngineCode(jit.compile_object(kernels.text)))
    a, found = np.arange(10.0), np.zeros(10)
    assert kernels("map", [a, found], [10]) == 0
    np.testing.assert_array_equal(found, a * a + 1)
    with pytest.raises(BackendError, match="has no kernel other"):
        kernels.library.entry("other")


def test_many_threads_compile_and_run_at_once(compiled: Compile) -> None:
    failures: list[str] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for turn in range(4):
            value = op("mul", Load("A", (I_,)), Literal(number * 10 + turn))
            buffers = (Buffer("A", i64, (8,)), Buffer("R", i64, (8,), "out"))
            loop = For("i", ZERO, N, (Store("R", (I_,), value),))
            kernels = compiled(LoopFunction("f", buffers, ("n",), (loop,)))
            a, found = np.arange(100), np.zeros(100, np.int64)
            if kernels("f", [a, found], [100]) or (found != a * (number * 10 + turn)).any():
                failures.append(f"{number} {turn}")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# ---- what the code needs ------------------------------------------------------------------

# The C library's functions that generated code may call. Anything else, such as compiler-rt's
# __extendhfsf2, might not be there where the code runs.
REAL = "exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan atan2 sinh cosh tanh erf"
ROUNDING = "pow fmod hypot floor ceil trunc rint sincos ldexp fmaximum fminimum"
COMPLEX = "cexp clog csqrt csin ccos cpow"
ALLOWED = {
    *(name + suffix for name in f"{REAL} {ROUNDING} {COMPLEX}".split() for suffix in ("", "f")),
    *("malloc", "free", "memset", "memcpy", "memmove"),
}


def every_operation() -> LoopProgram:
    """Each operation on each of some dtypes."""
    functions = []
    dtypes: tuple[Scalar, ...] = (i32, f16, f32, f64, c64, c128)
    for dtype in dtypes:
        for name, item in OPS.items():
            arity = item.arity or 2
            try:
                result: DType = op_typing(name, item.rule, [Typing(dtype)] * arity).dtype
            except Exception:
                continue
            if name == "stored":
                continue
            buffers = (Buffer("A", dtype, (None,)), Buffer("R", result, (None,), "out"))
            value = Apply(name, (Load("A", (I_,)),) * arity)
            loop = For("i", ZERO, N, (Store("R", (I_,), value),))
            functions.append(LoopFunction(f"{name} {dtype.name}", buffers, ("n",), (loop,)))
    return LoopProgram(tuple(functions))


@pytest.mark.parametrize("target", [baseline(X86), baseline(ARM)], ids=lambda t: t.triple)
def test_code_calls_the_c_library_only(target: Target) -> None:
    text = jit.assembly(emit(every_operation(), target), target)
    called = set(re.findall(r"\t(?:callq|jmp|bl|b)\t([A-Za-z_]\w*)(?:@PLT)?$", text, re.MULTILINE))
    assert {"cexp", "pow"} <= called
    assert called - ALLOWED == set()


@on_linux_x86
def test_the_least_x86_runs_the_same_code(compiled: Compile) -> None:
    """Without any of this machine's features: SSE2, and f16 by integer code."""
    value = op("add", op("floor", Load("A", (I_,))), Literal(0.25))
    buffers = (Buffer("A", f16, (2,)), Buffer("R", f16, (2,), "out"))
    loop = For("i", ZERO, N, (Store("R", (I_,), value),))
    function = LoopFunction("f", buffers, ("n",), (loop,))
    kernels = compiled(function, target=baseline(host().triple))
    a = np.linspace(-5, 5, 77).astype(np.float16)
    found = np.zeros_like(a)
    assert kernels("f", [a, found], [77]) == 0
    np.testing.assert_array_equal(found, np.floor(a) + np.float16(0.25))


# ---- targets ------------------------------------------------------------------------------


def test_targets_are_their_features() -> None:
    assert HASWELL.feature_text == "+avx2,+f16c,+fma"
    assert HASWELL.without("f16c", "mmx").feature_text == "+avx2,+fma"
    assert Target("arm64-apple-darwin", frozenset()).architecture == "aarch64"
    assert host().features
    assert host_fingerprint() == host_fingerprint()
    assert any(word in host_fingerprint() for word in ("x86_64", "aarch64", "arm64", "AMD64"))
