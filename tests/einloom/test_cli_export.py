"""`einloom compile --emit so|obj|asm|llvm|header` with `--cpu`, `--arch` and `--name`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from einloom.backends.cpu.export.processors import host_architecture
from einloom.cli import main

Capture = pytest.CaptureFixture[str]
PROGRAM = """\
program scaled(A: f32[i=N, j=M]) -> (B) {
  B[i] = sum[j] exp(A[i, j])
}
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("EINLOOM_DEBUG", "EINLOOM_NUM_THREADS", "EINLOOM_CACHE"):
        monkeypatch.delenv(name, raising=False)
    Path("scaled.ein").write_text(PROGRAM)


def command(*words: str) -> int:
    return main(["compile", "scaled.ein", *words])


def test_a_shared_library_and_its_header(capsys: Capture) -> None:
    if not any(shutil.which(name) for name in ("cc", "clang", "ld", "ld.lld")):
        pytest.skip("there is no linker")
    assert command("--emit", "so", "-o", "made/libscaled.so") == 0
    assert sorted(os.listdir("made")) == ["libscaled.h", "libscaled.so"]
    data = Path("made/libscaled.so").read_bytes()
    assert data[:4] == b"\x7fELF" and int.from_bytes(data[16:18], "little") == 3  # shared
    header = Path("made/libscaled.h").read_text()
    assert "int32_t scaled(const struct scaled_arguments *arguments);" in header
    assert command("--emit", "header") == 0
    captured = capsys.readouterr()
    assert captured.out == header and captured.err == ""


def test_a_spec_has_a_library_too(capsys: Capture) -> None:
    words = ["compile", "ij,jk->ik", "--dtype", "x0=f64", "--dtype", "x1=f64", "--emit", "header"]
    assert main([*words, "--name", "product"]) == 0
    header = capsys.readouterr().out
    assert "int32_t product(const struct product_arguments *arguments);" in header
    assert header.count("const double *data;") == 2


@pytest.mark.parametrize(("architecture", "machine"), [("x86-64", 62), ("aarch64", 183)])
def test_objects(architecture: str, machine: int, capsys: Capture) -> None:
    if architecture == "x86-64" != host_architecture():
        pytest.skip("objects for x86-64 are made on x86-64")
    assert command("--emit", "obj", "--arch", architecture, "-o", "scaled.o") == 0
    data = Path("scaled.o").read_bytes()
    assert data[:4] == b"\x7fELF" and int.from_bytes(data[18:20], "little") == machine
    assert sorted(os.listdir(".")) == ["scaled.ein", "scaled.o"]
    assert capsys.readouterr().out == ""
    if shutil.which("nm") is not None and machine == 62:
        words = ["nm", "--defined-only", "--extern-only", "--format=posix", "scaled.o"]
        listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert [line.split()[0] for line in listed.splitlines()] == ["scaled", "scaled_message"]


def test_text_for_another_architecture(capsys: Capture) -> None:
    assert command("--emit", "asm", "--arch", "aarch64") == 0
    assembly = capsys.readouterr().out
    assert ".4s" in assembly and "x30" in assembly and "%xmm" not in assembly
    assert command("--emit", "llvm", "--arch", "aarch64", "--optimized") == 0
    optimized = capsys.readouterr().out
    assert 'target triple = "aarch64-' in optimized and "i32 @scaled(" in optimized
    assert command("--emit", "llvm", "--cpu", "armv8-a") == 0
    assert capsys.readouterr().out != optimized


def test_without_a_processor_it_is_the_kernels_of_this_machine(capsys: Capture) -> None:
    assert command("--emit", "llvm") == 0
    text = capsys.readouterr().out
    assert "define i32 @kernel." in text and "@scaled(" not in text


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (
            ["--emit", "so"],
            2,
            "einloom compile: error: a shared library and its header are files: name one with "
            "-o lib.so\n",
        ),
        (
            ["--emit", "loops", "--cpu", "native"],
            2,
            "einloom compile: error: --cpu goes with --emit llvm, asm, obj, so, header\n",
        ),
        (
            ["--emit", "so", "-o", "scaled.dll"],
            1,
            "error: scaled.dll is no name of a library\n"
            "  hint: a shared library ends in .so, an object file in .o\n",
        ),
        (
            ["--emit", "asm", "--cpu", "x86-64-v33"],
            1,
            "error: unknown processor 'x86-64-v33'\n  hint: did you mean x86-64-v3?\n",
        ),
        (
            ["--emit", "asm", "--arch", "mips"],
            1,
            "error: unknown architecture 'mips'\n  hint: architectures: x86-64, aarch64\n",
        ),
    ],
)
def test_what_is_wrong(words: list[str], status: int, message: str, capsys: Capture) -> None:
    assert command(*words) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", message)
    assert os.listdir(".") == ["scaled.ein"]


def test_no_linker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command("--emit", "so", "-o", "lib.so") == 1
    assert capsys.readouterr().err.startswith("error: a shared library needs a linker, and there")
    assert os.listdir(".") == ["scaled.ein"]


def test_a_library_never_replaces_its_program(capsys: Capture) -> None:
    if not any(shutil.which(name) for name in ("cc", "clang", "ld", "ld.lld")):
        pytest.skip("there is no linker")
    Path("lib.h").write_text(PROGRAM)
    assert main(["compile", "lib.h", "--emit", "so", "-o", "lib.so"]) == 1
    assert capsys.readouterr().err.startswith("error: lib.h is an input and would be overwritten")
    assert Path("lib.h").read_text() == PROGRAM and not Path("lib.so").exists()
