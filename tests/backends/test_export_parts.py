"""Parts of the export: sizes in machine code, names for C, headers, and other architectures."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import einloom as el
from einloom.backends.cpu import jit
from einloom.backends.cpu.builder import FunctionBuilder, ModuleBuilder
from einloom.backends.cpu.export.c_names import c_identifier, entry_name, member_name
from einloom.backends.cpu.export.sizes import SizeEmitter
from einloom.backends.cpu.target import host
from einloom.exporting import library
from einloom.ir.errors import ShapeError
from einloom.ir.expressions import Apply, Expression, Literal, Symbol
from einloom.ir.extents import evaluate

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ("N", "M", "K")

expressions = st.recursive(
    st.one_of(
        st.sampled_from(NAMES).map(Symbol),
        st.integers(-9, 9).map(Literal),
        st.sampled_from([2**31, 2**62, -(2**63)]).map(Literal),
    ),
    lambda inner: st.one_of(
        st.tuples(
            st.sampled_from(["add", "sub", "mul", "floordiv", "ceildiv", "mod", "max", "min"]),
            st.tuples(inner, inner),
        ).map(lambda parts: Apply(*parts)),
        inner.map(lambda x: Apply("neg", (x,))),
    ),
    max_leaves=8,
)
values = st.one_of(st.integers(0, 20), st.sampled_from([2**31, 2**40, 2**62, 2**63 - 1]))


@settings(max_examples=150, deadline=None)
@given(expressions, st.lists(st.tuples(values, values, values), min_size=6, max_size=6))
def test_sizes_are_those_of_unbounded_integers_or_flagged(
    expression: Expression, points: list[tuple[int, int, int]]
) -> None:
    module = ModuleBuilder(host())
    builder = FunctionBuilder(module)
    symbols = {}
    for k, name in enumerate(NAMES):
        place = builder.value(f"getelementptr inbounds i8, ptr %in, i64 {8 * k}")
        symbols[name] = builder.value(f"load i64, ptr {place}, align 8")
    sizes = SizeEmitter(builder, symbols)
    value = sizes.emit(expression)
    flag = sizes.take_flag() or "false"
    builder.line(f"store i64 {value}, ptr %out, align 8")
    builder.line(f"ret i32 {builder.convert('zext', 'i1', flag, 'i32')}")
    text = ["define i32 @kernel.f(ptr %in, ptr %out) {", "entry:", *builder.lines, "}"]
    module.add("\n".join(text))
    code = jit.load_object(jit.compile_object(module.text()))
    function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)(code.entry("f"))
    for point in points:
        given_values, found = (ctypes.c_int64 * 3)(*point), ctypes.c_int64()
        flagged = function(ctypes.addressof(given_values), ctypes.addressof(found))
        try:
            wanted = evaluate(expression, dict(zip(NAMES, point, strict=True)))
        except ShapeError:
            # a division by zero that the algebra finds needless may be dropped
            continue
        # What overflows on the way is flagged, too, so only this direction is sure.
        if not flagged:
            assert found.value == wanted


def test_what_is_fine_is_not_flagged() -> None:
    """Flags are taken once, and nothing but arithmetic raises one."""
    sizes = SizeEmitter(FunctionBuilder(ModuleBuilder(host())), {"N": "17"})
    assert sizes.emit(Symbol("N")) == "17"
    assert sizes.emit(Literal(3)) == "3"
    assert sizes.take_flag() is None
    sizes.emit(Apply("ceildiv", (Symbol("N"), Literal(4))))
    assert sizes.take_flag() is not None
    assert sizes.take_flag() is None


# ---- names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("A", "A"),
        ("double", "double_"),
        ("class", "class_"),
        ("λ", "x_"),
        ("3d", "x3d"),
        ("_a__b", "x_a_b"),
        ("a.b c", "a_b_c"),
        ("", "x"),
        ("int64_t", "int64_t_"),
        ("uint_least16_t", "uint_least16_t_"),
        ("INT8_MAX", "INT8_MAX_"),
        ("UINT64_C", "UINT64_C_"),
        ("SIZE_MAX", "SIZE_MAX_"),
        ("INT8", "INT8"),
        ("int_t", "int_t"),
        ("NULL", "NULL_"),
        ("typeof_unqual", "typeof_unqual_"),
    ],
)
def test_identifiers(name: str, wanted: str) -> None:
    assert c_identifier(name) == wanted


def test_entries_stand_in_for_no_function_of_c() -> None:
    assert entry_name("conv") == "conv"
    assert [entry_name(name) for name in ("exp", "expf", "main", "free", "pthread_join")] == [
        "exp_program", "expf_program", "main_program", "free_program", "pthread_join_program",
    ]  # fmt: skip
    assert entry_name("exp", "my_exp") == "my_exp"
    assert member_name("A", {"A", "A_1"}) == "A_2"


# ---- headers ------------------------------------------------------------------------------

ODD = """program double(`*/int`: f32[i=N], `class`: c64[i=N], threads: bool[i=N], A: (f32, i8)[i=N],
                        Z: zq<7>[i=N], N: extent, H: bf16) -> (`class`, B) {
  B[i] = select(threads[i], `*/int`[i], f32(H))
}"""


# Everything that <stdint.h> defines may not be the name of anything.
CLASHING = """program uint8_t(
  int64_t: f32[i=N], INT8_MAX: f32[i=N], NULL: f32[i=N], int32_t: extent) -> (Z) {
  Z[i] = int64_t[i] + INT8_MAX[i] + NULL[i] * int32_t
}"""
TEXTS = {"odd": ODD, "clashing": CLASHING}


@pytest.mark.parametrize("program", [*sorted(p.name for p in EXAMPLES.glob("*.ein")), *TEXTS])
def test_headers_are_c_and_cpp(program: str, tmp_path: Path) -> None:
    text = el.compile(TEXTS[program] if program in TEXTS else EXAMPLES / program)
    (tmp_path / "library.h").write_text(library(text).header, encoding="utf-8")
    (tmp_path / "use.c").write_text(
        '#include <stddef.h>\n#include "library.h"\n#include "library.h"\nint x;\n'
    )
    ran = 0
    for name, standards in (("gcc", ["c99", "c11"]), ("g++", ["c++11", "c++17"])):
        if shutil.which(name) is None:
            continue
        for standard in standards:
            language = "c++" if "+" in standard else "c"
            command = [name, "-Wall", "-Wextra", "-Werror", "-pedantic", f"-std={standard}"]
            command += ["-fsyntax-only", "-x", language, "use.c"]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            ran += 1
    if not ran:
        pytest.skip("there is neither gcc nor g++")


def test_a_header_states_types_ranks_and_codes() -> None:
    text = library(el.compile(EXAMPLES / "rnn.ein")).header
    assert (
        "    /* input X: f32[t=T, b=B, d=D] */\n    struct {\n        const float *data;\n" in text
    )
    assert "        int64_t extents[3];\n        const int64_t *strides;\n    } X;" in text
    assert "    /* result L: f32[b=B, h=H] */\n    struct {\n        float *data;\n" in text
    assert "int32_t rnn(const struct rnn_arguments *arguments);" in text
    assert "const char *rnn_message(int32_t code);" in text
    assert "rank b of H0 must have extent B, the extent of rank b of X" in text


# ---- other architectures ------------------------------------------------------------------


def test_objects_for_both_architectures() -> None:
    executable = el.compile(EXAMPLES / "attention.ein")
    for architecture, machine in (("x86-64", 62), ("aarch64", 183)):
        if architecture == "x86-64" != host().architecture.replace("_", "-"):
            continue
        data = library(executable, architecture=architecture).object_code()
        assert data[:6] == b"\x7fELF\x02\x01"
        assert int.from_bytes(data[16:18], "little") == 1  # relocatable
        assert int.from_bytes(data[18:20], "little") == machine


def test_assembly_has_the_registers_of_its_architecture() -> None:
    executable = el.compile(EXAMPLES / "attention.ein")
    arm = library(executable, architecture="aarch64")
    assert "fmla\tv" in arm.assembly() and ".4s" in arm.assembly()
    assert "cpuid" not in arm.text and 'target triple = "aarch64-' in arm.text
    if host().architecture != "x86_64":
        return
    for cpu, registers, absent in (
        ("x86-64", ("%xmm", "%ymm", "%zmm"), ()),
        ("x86-64-v3", ("%ymm", "%zmm"), ()),
        ("armv8-a", (), ("%xmm",)),
    ):
        text = library(executable, cpu).assembly()
        assert all(register in text for register in registers)
        assert not any(register in text for register in absent)


def test_the_entry_is_made_for_every_processor() -> None:
    """What runs before the processor is known has no wide registers."""
    if host().architecture != "x86_64":
        pytest.skip("the levels are those of x86-64")
    text = library(el.compile(EXAMPLES / "attention.ein")).assembly()
    functions: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line and not line[0].isspace() and line.split("#")[0].strip().endswith(":"):
            label = line.split(":")[0].strip('"')
            name = name if label.startswith(".L") else label
        functions[name] = functions.get(name, "") + line + "\n"
    kernels = {n for n in functions if n.startswith("kernel.")}
    assert {n.rsplit(".", 1)[1] for n in kernels} == {"x86_64_v3", "x86_64_v4"}
    assert {"attention", "attention_message", "einloom.launch", "einloom.level"} <= set(functions)
    for function, body in functions.items():
        level = function.rsplit(".", 1)[-1]
        if function not in kernels:
            assert "%ymm" not in body and "%zmm" not in body and "\tv" not in body, function
        elif level == "x86_64_v3":
            assert "%ymm" in body and "%zmm" not in body
        else:
            assert "%zmm" in body
