"""What a library refuses, what cannot be exported, and what a failing export leaves behind."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.backends.cpu.export import processors
from einloom.backends.cpu.export.linking import find_linker
from einloom.backends.cpu.export.processors import find_processor, host_architecture
from einloom.ir.errors import BackendError, EinloomError, UnsupportedError
from tests.backends.exported import Call, Tensor, exported, run

MATMUL = """program product(A: f32[i=N, j=M], B: f32[j=M, k=4]) -> (C) {
  C[i, k] = sum[j] A[i, j] * B[j, k]
}"""
needs_linker = pytest.mark.skipif(
    all(shutil.which(name) is None for name in ("cc", "clang", "ld", "ld.lld")),
    reason="there is no linker on this machine",
)


def matrices(n: int = 3, m: int = 5) -> dict[str, Any]:
    a, b = np.ones((n, m), np.float32), np.ones((m, 4), np.float32)
    return {"A": a, "B": b, "C": np.zeros((n, 4), np.float32)}


@needs_linker
def test_shapes_pointers_and_layouts_are_checked(tmp_path: Path) -> None:
    library = exported(tmp_path, MATMUL)
    good = matrices()
    a, c = good["A"], good["C"]
    row = "rank k of B must have extent 4"
    wrong: list[tuple[dict[str, Any], int, str]] = [
        ({}, 0, "done"),
        (
            {"B": np.ones((6, 4), np.float32)},
            100,
            "rank j of B must have extent M, the extent of rank j of A",
        ),
        ({"B": np.ones((5, 5), np.float32)}, 101, row),
        (
            {"C": np.zeros((2, 4), np.float32)},
            102,
            "rank i of C must have extent N, the extent of rank i of A",
        ),
        ({"A": Tensor(a, (-3, 5))}, 104, "the extent N (rank i of A) is negative"),
    ]
    null = "the arguments, or the data of a tensor with elements, are a null pointer"
    layout = "a tensor is not aligned to its elements, or its last rank is not contiguous"
    wrong += [
        ({"A": Tensor(a, null=True)}, 1, null),
        ({"C": Tensor(c, null=True)}, 1, null),
        ({"A": Tensor(np.ones(64, np.float32), (3, 5), offset=2)}, 2, layout),
        ({"A": Tensor(np.ones((6, 10), np.float32), (3, 5), (10, 2))}, 2, layout),
        ({"C": Tensor(np.zeros((6, 10), np.float32), (3, 4), (1, 3))}, 2, layout),
        (
            {
                "A": Tensor(np.ones((3, 4), np.float32), (3, 2), (4, 2)),
                "B": np.ones((2, 4), np.float32),
            },
            2,
            layout,
        ),
    ]
    calls = [Call(library, "product", {**good, **change}) for change, _, _ in wrong]
    calls.append(Call(library, "product", good, null=True))
    found = [(answer.code, answer.message) for answer in run(tmp_path, *calls)]
    assert found == [(code, message) for _, code, message in wrong] + [(1, null)]


@needs_linker
def test_null_data_and_odd_strides_of_single_ranks_are_fine(tmp_path: Path) -> None:
    library = exported(tmp_path, MATMUL)
    empty = {**matrices(0), "A": Tensor(np.zeros((0, 5), np.float32), null=True)}
    single = {**matrices(2, 1), "A": Tensor(np.ones((2, 1), np.float32), (2, 1), (1, 99))}
    first, second = run(tmp_path, *(Call(library, "product", x) for x in (empty, single)))
    assert (first.code, second.code) == (0, 0)
    assert (second.arrays["C"] == 1).all()


@needs_linker
def test_extents_that_do_not_fit(tmp_path: Path) -> None:
    program = """program sizes(N: extent, D: extent) -> (Y) {
      A[i, j] = iota(i) * 1.0 where i < N, j < N
      B[k] = sum[i, j] A[i, j] where k < N // D
      Y = sum[k] B[k]
    }"""
    library = exported(tmp_path, program)
    sizes = [(6, 2), (5, 0), (-1, 1), (2**40, 1), (2**30, 2**30), (2**62, 2**62)]
    members: list[dict[str, Any]] = [
        {"N": n, "D": d, "Y": np.zeros((), np.float64)} for n, d in sizes
    ]
    answers = run(tmp_path, *(Call(library, "sizes", x) for x in members))
    assert [answer.code for answer in answers[:2]] == [0, 5]
    assert answers[1].message == "an extent does not fit 64 bits, or divides by zero"
    assert 100 <= answers[2].code < 1000 and answers[2].message.endswith(" is negative")
    assert [(answer.code, answer.message) for answer in answers[3:]] == [(3, "out of memory")] * 3
    assert answers[0].arrays["Y"] == 6 * 15 * 3


@needs_linker
def test_a_processor_that_lacks_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reserved bit of CPUID, which no processor sets, stands for a feature of every level."""
    if host_architecture() != "x86-64":
        pytest.skip("the check is that of x86-64")
    bits = {**processors.BITS, "sse2": ((7, 0, 3), 0)}
    for module in ("processors", "dispatch"):
        monkeypatch.setattr(f"einloom.backends.cpu.export.{module}.BITS", bits)
    library = exported(tmp_path, MATMUL)
    (answer,) = run(tmp_path, Call(library, "product", matrices()))
    assert answer.code == 4
    assert answer.message == "this processor, or the system, lacks features of x86-64-v3"
    assert (answer.arrays["C"] == 0).all()


@needs_linker
def test_the_highest_level_of_the_processor_runs(tmp_path: Path) -> None:
    """Every level gets a program of its own, so that the result tells which one ran."""
    if host_architecture() != "x86-64":
        pytest.skip("the levels are those of x86-64")
    from einloom.backends.cpu.export.library import library_of
    from einloom.backends.cpu.export.linking import link
    from einloom.backends.cpu.target import host

    def program(number: int) -> str:
        return f"program level(A: f32[i=N]) -> (B) {{ B[i] = A[i] * {number}.0 }}"

    levels = find_processor("x86-64").levels
    assert [level.name for level in levels] == ["x86-64", "x86-64-v3", "x86-64-v4"]
    numbers = {level.features: k + 2 for k, level in enumerate(levels)}
    module = el.compile(program(2)).module
    library = library_of(
        module,
        lambda target: el.compile(program(numbers[target.features])).loops(),
        {},
        find_processor("x86-64"),
    )
    path = tmp_path / "levels.so"
    path.write_bytes(link(library.object_code(), "x86-64", path.name))
    members = {"A": np.ones(3, np.float32), "B": np.zeros(3, np.float32)}
    (answer,) = run(tmp_path, Call(path, "level", members))
    highest = max(k for k, level in enumerate(levels) if level.checked <= host().features)
    assert (answer.code, answer.arrays["B"].tolist()) == (0, [highest + 2.0] * 3)


# ---- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpu": "x86-64-v5"}, "unknown processor 'x86-64-v5'\n  hint: did you mean x86-64-v4?"),
        (
            {"cpu": "pentium"},
            "unknown processor 'pentium'\n  hint: processors: x86-64, x86-64-v2, x86-64-v3, "
            "x86-64-v4, armv8-a, native",
        ),
        (
            {"cpu": "armv8-a", "architecture": "x86-64"},
            "the processor armv8-a is of the architecture aarch64, not x86-64",
        ),
        (
            {"architecture": "arm"},
            "unknown architecture 'arm'\n  hint: architectures: x86-64, aarch64",
        ),
        (
            {"name": "exp"},
            "'exp' cannot be the name of a C function here\n  hint: letters, digits and single "
            "underscores, a letter first, and no name of C",
        ),
    ],
)
def test_options_that_are_none(options: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        el.compile(MATMUL).export(tmp_path / "lib.o", **options)
    assert str(caught.value) == message
    assert os.listdir(tmp_path) == []


def test_quantized_inputs_are_refused(tmp_path: Path) -> None:
    text = "program q(W: q<i4, scale=f32>[i=N]) -> (Y) { Y[i] = W[i] * 2.0 }"
    with pytest.raises(UnsupportedError, match="the input W is quantized, and a library for C"):
        el.compile(text).export(tmp_path / "lib.o")


@pytest.mark.parametrize("name", ["lib.dll", "lib", "lib.so.a", ".so"])
def test_names_that_are_no_libraries(name: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError) as caught:
        el.compile(MATMUL).export(tmp_path / name)
    assert str(caught.value) == (
        f"{tmp_path / name} is no name of a library\n"
        "  hint: a shared library ends in .so, an object file in .o"
    )


# ---- linkers and files --------------------------------------------------------------------


def test_no_linker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if host_architecture() != "x86-64":
        pytest.skip("the names are those of x86-64")
    with pytest.raises(BackendError) as caught:
        el.compile(MATMUL).export(tmp_path / "lib.so")
    assert str(caught.value) == (
        "a shared library needs a linker, and there is none of cc, clang, ld, ld.lld\n"
        "  hint: install a C compiler (Debian: gcc), or write an object file: --emit obj"
    )
    el.compile(MATMUL).export(tmp_path / "lib.o")
    assert sorted(os.listdir(tmp_path)) == ["lib.h", "lib.o"]


def test_a_linker_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'no crt for you' >&2\nexit 3\n")
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError) as caught:
        el.compile(MATMUL).export(tmp_path / "lib.so")
    assert str(caught.value) == (
        f"{compiler} could not link the library:\n  no crt for you\n"
        "  hint: --emit obj writes the object file, to be linked by hand"
    )
    assert os.listdir(tmp_path) == ["cc"]


def test_a_linker_alone_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linker = shutil.which("ld") or shutil.which("ld.lld")
    if linker is None:
        pytest.skip("there is no linker beside the compiler")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / Path(linker).name).symlink_to(linker)
    monkeypatch.setenv("PATH", str(tools))
    assert find_linker(host_architecture()).compiler is False
    program = MATMUL.replace("A[i, j] *", "exp(A[i, j] - A[i, j]) *")
    library = exported(tmp_path, program)
    (answer,) = run(tmp_path, Call(library, "product", matrices()))
    assert (answer.code, answer.arrays["C"].tolist()) == (0, [[5.0] * 4] * 3)


def test_both_files_or_none(tmp_path: Path) -> None:
    (tmp_path / "lib.h").mkdir()
    with pytest.raises(EinloomError, match=f"cannot write {tmp_path}"):
        el.compile(MATMUL).export(tmp_path / "lib.o")
    assert os.listdir(tmp_path) == ["lib.h"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EinloomError, match=r"cannot write .*file: "):
        el.compile(MATMUL).export(tmp_path / "file" / "lib.o")
    assert os.listdir(tmp_path) == ["file"]


def test_levels_of_native_are_checked() -> None:
    if host_architecture() != "x86-64":
        with pytest.raises(UnsupportedError, match="native libraries are made on x86-64 only"):
            find_processor("native")
        return
    (level,) = find_processor("native").levels
    assert level.checked == level.features - find_processor("x86-64").levels[0].features
    wider = replace(level, features=level.features | {"avx512f"})
    assert wider.saved == 0xE6
