"""`einloom opt --bisect` and `einloom reduce`, on passes and kernels that are broken on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from einloom.api import parse
from einloom.cli import main
from einloom.cli.shrinking import cleaned, shrink
from einloom.ir.expressions import Apply, Literal
from einloom.ir.node import Node, postorder, rebuild
from einloom.ir.program import Module
from einloom.passes import registry
from einloom.passes.base import Context, Pass

Capture = pytest.CaptureFixture[str]

PROGRAM = """\
program p(A: f32[i=16, j=8], B: f32[j=8, k=8], c: f32[k=8]) -> (D, E, F) {
  C[i, k] = A[i, j] * B[j, k]
  D[i, k] = C[i, k] + c[k]
  E[i, k] = tanh(D[i, k] - 2.0) * 3.0
  F[i]    = sum[k] E[i, k]
}
"""


@dataclass(frozen=True)
class MinusIsPlus(Pass):
    """Replaces differences by sums: wrong wherever there is one."""

    name: ClassVar[str] = "minus-is-plus"

    def run(self, module: Module, context: Context) -> Module:
        def change(node: Node) -> Node:
            if isinstance(node, Apply) and node.op == "sub":
                return Apply("add", node.arguments)
            return node

        return rebuild(module, change)


@dataclass(frozen=True)
class FailsOnTanh(Pass):
    """Raises for programs with a tanh in them."""

    name: ClassVar[str] = "fails-on-tanh"

    def run(self, module: Module, context: Context) -> Module:
        if any(isinstance(p, Apply) and p.op == "tanh" for p in postorder(module)):
            raise LookupError("no rule for tanh")
        return module


@dataclass(frozen=True)
class LosesAResult(Pass):
    """Drops the last result."""

    name: ClassVar[str] = "loses-a-result"

    def run(self, module: Module, context: Context) -> Module:
        return replace(module, outputs=module.outputs[:-1])


@pytest.fixture(autouse=True)
def broken_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    broken = (MinusIsPlus, FailsOnTanh, LosesAResult)
    monkeypatch.setattr(registry, "ALL_PASSES", (*registry.ALL_PASSES, *broken))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EINLOOM_DEBUG", raising=False)
    Path("p.ein").write_text(PROGRAM)
    yield


# ---- bisect -------------------------------------------------------------------------------


def test_bisect_accepts_right_passes(capsys: Capture) -> None:
    assert main(["opt", "p.ein", "--bisect", "--verify-each"]) == 0
    captured = capsys.readouterr()
    rows = [line.split("\t") for line in captured.out.splitlines()]
    assert [row[:2] for row in rows[1:]] == [["1", "simplify"], ["2", "contract"], ["3", "fuse"]]
    assert rows[3][2].startswith("the same (max error ")
    assert captured.err.endswith("note: no pass changes a result\n")


def test_bisect_names_the_first_wrong_pass(capsys: Capture) -> None:
    pipeline = "simplify{algebra=false}, minus-is-plus, fuse"
    assert main(["opt", "p.ein", "--bisect", "--passes", pipeline]) == 1
    captured = capsys.readouterr()
    last = captured.out.splitlines()[-1].split("\t")
    assert last[:2] == ["2", "minus-is-plus"]
    assert last[2].startswith("E differs by ") and "; F differs by " in last[2]
    assert "error: pass 2, minus-is-plus, is the first one at fault: E differs by " in captured.err


def test_bisect_names_a_pass_that_raises(capsys: Capture) -> None:
    assert main(["opt", "p.ein", "--bisect", "--passes", "simplify, fails-on-tanh, fuse"]) == 1
    last = capsys.readouterr().out.splitlines()[-1].split("\t")
    assert last == [
        "2",
        "fails-on-tanh",
        "internal error in pass fails-on-tanh: LookupError: no rule for tanh",
    ]


def test_bisect_names_a_pass_that_loses_a_result(capsys: Capture) -> None:
    assert main(["opt", "p.ein", "--bisect", "--passes", "loses-a-result, simplify"]) == 1
    last = capsys.readouterr().out.splitlines()[-1].split("\t")
    assert last == ["1", "loses-a-result", "the results are now D, E"]


def test_bisect_disables_and_stops(capsys: Capture) -> None:
    words = ["opt", "p.ein", "--bisect", "--passes", "simplify, minus-is-plus"]
    assert main([*words, "--disable", "minus-is-plus"]) == 0
    assert main([*words, "--stop-after", "simplify"]) == 0
    capsys.readouterr()
    assert main([*words, "--disable", "minus"]) == 1
    assert capsys.readouterr().err.splitlines()[-2].startswith("error: unknown pass 'minus'")


# ---- reduce -------------------------------------------------------------------------------


def reduced(capsys: Capture, *words: str) -> Module:
    assert main(["reduce", "p.ein", *words]) == 0
    return parse(capsys.readouterr().out)


def test_reduce_keeps_what_fails(capsys: Capture) -> None:
    small = reduced(capsys, "--passes", "minus-is-plus")
    assert len(small.outputs) == 1 and len(small.body) == 1
    operations = [p.op for p in postorder(small) if isinstance(p, Apply)]
    assert operations == ["sub"]
    extents = {p.value for p in postorder(small) if isinstance(p, Literal)}
    assert extents <= {1, 2.0}


def test_reduce_keeps_a_pass_raising(capsys: Capture) -> None:
    small = reduced(capsys, "--passes", "simplify, fails-on-tanh")
    assert [p.op for p in postorder(small) if isinstance(p, Apply)] == ["tanh"]
    assert len(small.inputs) == 1


def test_reduce_says_when_nothing_fails(capsys: Capture) -> None:
    assert main(["reduce", "p.ein", "--passes", "simplify"]) == 1
    assert capsys.readouterr().err == (
        "error: p does not fail: no pass changes a result or raises\n"
        "  hint: --compiled looks at the backend, too\n"
    )


def test_reduce_looks_at_the_backend(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from einloom.executable import Executable

    right = Executable.run

    def wrong(self: Executable, arrays: Any) -> Any:
        results = right(self, arrays)
        if any(isinstance(p, Apply) and p.op == "tanh" for p in postorder(self.module)):
            results = {name: array + 1 for name, array in results.items()}
        return results

    monkeypatch.setattr(Executable, "run", wrong)
    assert main(["reduce", "p.ein", "--compiled", "-o", "small.ein"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(
        "note: it fails like this: the backend computes something else; "
        "4 statements shrunk to 1 statement\n"
    )
    small = parse(Path("small.ein").read_text())
    assert [p.op for p in postorder(small) if isinstance(p, Apply)] == ["tanh"]


def test_reduce_takes_no_inputs(capsys: Capture) -> None:
    assert main(["reduce", "p.ein", "--input", "A=a.npy"]) == 2
    assert capsys.readouterr().err.startswith("einloom reduce: error: --input: inputs are random")


def test_shrinking_stops_at_its_deadline() -> None:
    module = parse(PROGRAM)
    assert shrink(module, lambda _: True, deadline=0.0) is module


def test_shrinking_ends_at_a_smallest_program() -> None:
    import time

    small = shrink(parse(PROGRAM), lambda _: True, time.monotonic() + 60)
    assert len(small.body) == 1
    assert not any(isinstance(p, Apply) for p in postorder(small))


def test_cleaning_keeps_what_results_need() -> None:
    text = """
fn square(x) = x * x
fn half(x) = x / 2.0

program p(A: f32[i=N], B: f32[i=N], M: extent) -> (D) {
  C[i] = square(A[i]) + B[i]
  D[i] = half(A[i])
  E: f32[m=M] = 1.0
}
"""
    found = cleaned(parse(text))
    assert [d.name for d in found.definitions] == ["half"]  # type: ignore[attr-defined]
    assert [i.name for i in found.inputs] == ["A"]
    assert len(found.body) == 1
