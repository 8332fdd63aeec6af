"""The edges of the Python API: what it takes, what it refuses and says, what it keeps."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.ir.errors import LONGEST_LINE
from einloom.passes.fuse import Fuse

SOFTMAX = """program softmax(X: f64[i=N]) -> (Y) {
  E[i] = exp(X[i])
  S = sum[i] E[i]
  Y[i] = E[i] / S
}
"""
DOUBLE = "program double(X: f64[n=N], m: extent) -> (Y) {\n  Y[n] = X[n] * 2.0\n}\n"
A, B = el.TensorSpec((200, 30), "f64"), el.TensorSpec((30, 500), "f64")


def said(error: Any, work: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(el.EinloomError) as caught:
        work(*arguments, **options)
    assert isinstance(caught.value, error)
    return str(caught.value)


def test_cost_and_explain_take_the_shapes_compiled_for() -> None:
    product = el.compile("ij,jk->ik", A, B)
    sizes = dict(zip(("N_i", "N_j", "N_k"), (200, 30, 500), strict=True))
    assert product.sizes(None) == sizes
    assert product.cost() == product.cost(sizes)
    assert product.cost() != product.cost(dict.fromkeys(sizes, 64))
    assert str(product.explain()) == str(product.explain(sizes))
    assert product.sizes({"N_j": 7}) == {**sizes, "N_j": 7}
    assert el.compile(SOFTMAX).sizes(None) == {"N": 64}
    assert el.compile(SOFTMAX, extents={"N": 5}).sizes(None) == {"N": 5}


def test_a_pickled_executable_explains_itself_as_before() -> None:
    network = el.compile("ij,jk,kl->il", A, B, el.TensorSpec((500, 2), "f64"))
    assert network.notes
    again = pickle.loads(pickle.dumps(network))
    assert again.notes == network.notes
    assert again.extents == network.extents
    assert str(again.explain()) == str(network.explain())


@pytest.mark.parametrize(
    "pipeline", [["simplify", "fuse"], ("simplify", Fuse()), "simplify, fuse"], ids=str
)
def test_pipelines_are_texts_or_lists(pipeline: Any) -> None:
    softmax = el.compile(SOFTMAX, pipeline=pipeline)
    assert list(softmax.stages) == ["input", "simplify", "fuse"]
    x = np.linspace(-1, 1, 5)
    np.testing.assert_allclose(softmax(x), np.exp(x) / np.exp(x).sum())


def test_pipelines_that_are_none() -> None:
    assert said(el.PassError, el.compile, SOFTMAX, pipeline=3) == (
        "a pipeline is made of a list of passes, not of type int\n"
        "  hint: read a text by Pipeline.parse(text)"
    )
    assert said(el.PassError, el.compile, SOFTMAX, pipeline=[3]) == (
        "3 is no pass\n  hint: give passes, or texts such as 'simplify'"
    )
    assert said(el.PassError, el.Pipeline, "simplify") == (
        "a pipeline is made of a list of passes, not of type str\n"
        "  hint: read a text by Pipeline.parse(text)"
    )
    assert said(el.PassError, el.Pipeline.parse, ["simplify"]) == (
        "Pipeline.parse reads a text, not a value of type list\n"
        "  hint: make a list of passes a pipeline by Pipeline([...])"
    )
    assert said(el.PassError, el.Pipeline(["simplify"]).run, "x") == (
        "a pipeline runs on a module, not on a value of type str\n"
        "  hint: read a program by einloom.parse(text) or einloom.load(path)"
    )


def test_what_is_no_program() -> None:
    assert said(el.ParseError, el.parse, None) == (
        "parse takes the text of a program, not a value of type NoneType\n"
        "  hint: read a file by load(path)"
    )
    assert (
        said(el.ParseError, el.load, None)
        == "load takes the path of a file, not a value of type NoneType"
    )
    assert said(el.ParseError, el.compile, None) == (
        "compile takes a module, a program text, a path or an einsum spec, "
        "not a value of type NoneType\n"
        "  hint: for example compile('ij,jk->ik', a, b), or compile(load('softmax.ein'))"
    )
    assert said(el.ParseError, el.interpret, SOFTMAX, {}) == (
        "interpret takes a module, not a value of type str\n"
        "  hint: read one by parse(text) or load(path)"
    )


def test_inputs_go_in_by_name() -> None:
    message = (
        "inputs are given by name, not as a value of type list\n"
        "  hint: pass a dictionary: {'X': X, 'm': m}"
    )
    assert said(el.DTypeError, el.compile(DOUBLE).run, [np.ones(3)]) == message
    assert said(el.DTypeError, el.interpret, el.parse(DOUBLE), [np.ones(3)]) == message


@pytest.mark.parametrize("threads", ["a", 1.5, [1]])
def test_threads_are_a_whole_number(threads: Any) -> None:
    assert said(el.DTypeError, el.set_num_threads, threads) == (
        f"the number of threads is {threads!r}, not a whole number\n"
        "  hint: give one from 1 on, or None for the default"
    )


def test_a_string_that_ends_in_ein_is_a_path(tmp_path: Path) -> None:
    file = tmp_path / "softmax.ein"
    file.write_text(SOFTMAX)
    for path in (str(file), file):
        assert el.compile(path).module == el.parse(SOFTMAX)
    missing = str(tmp_path / "none.ein")
    message = f"cannot read {missing}: No such file or directory"
    assert said(el.EinloomError, el.compile, missing) == message
    assert said(el.ParseError, el.compile, str(file), A) == (
        "operands and semiring go with an einsum spec, not with a program\n"
        "  hint: compile(program), then call the executable with its arrays"
    )


def test_a_spec_may_end_like_a_path() -> None:
    x, y = np.ones((2, 3, 4)), np.ones((5, 4))
    product = el.compile("...ei,ni->...ein", x, y)
    np.testing.assert_allclose(product(x, y), np.einsum("...ei,ni->...ein", x, y))


def test_a_huge_name_keeps_messages_short() -> None:
    text = SOFTMAX.replace("exp(X[i])", "A" * 10_000_000 + "[i]")
    lines = said(el.EinloomError, el.parse, text).splitlines()
    assert lines[0].endswith("A is not defined")
    assert "AAA...AAA" in lines[0]
    assert max(map(len, lines)) <= LONGEST_LINE
    many = el.ParseError("word " * 1_000_000, suggestion="B" * 1_000_000)
    assert [len(line) for line in str(many).splitlines()] == [999, len("  hint: ") + 399]
    assert len(many.message) == 5_000_000


def test_messages_of_usual_length_stay_whole() -> None:
    message = " ".join(["x" * 400, "y" * 400])
    assert str(el.ParseError(message)) == message


def test_an_executable_shows_what_it_takes_and_gives() -> None:
    assert repr(el.compile(DOUBLE)) == (
        "<Executable double(X: f64[n=N], m: extent) -> (Y: f64[n=N])>"
    )


def test_one_is_singular() -> None:
    softmax = el.compile(SOFTMAX)
    x = np.ones(3)
    assert said(el.ShapeError, softmax) == "softmax takes 1 input (X), 0 are given"
    assert said(el.ShapeError, el.compile(DOUBLE), x) == (
        "double takes 2 inputs (X, m), 1 is given"
    )
    assert said(el.ShapeError, softmax, x, out=(x, x)) == "out has 2 arrays, the program 1 result"
    first = said(el.ShapeError, softmax, np.ones((3, 3))).splitlines()[0]
    assert first.endswith("X takes 1 rank [i], the array has 2: shape (3, 3)")


@pytest.mark.parametrize(
    ("semiring", "hint"),
    [
        ("min,plus", "unknown operation 'plus' in a semiring\n  hint: did you mean 'add'?"),
        ("max,times", "unknown operation 'times' in a semiring\n  hint: did you mean 'mul'?"),
        ("plus,*", "unknown reducer 'plus' in a semiring\n  hint: did you mean 'sum'?"),
        (
            "max,qqq",
            "unknown operation 'qqq' in a semiring\n"
            "  hint: an operation of two operands, such as '+', '*', 'min', 'max', 'and'",
        ),
    ],
)
def test_semirings_by_other_names(semiring: str, hint: str) -> None:
    x = np.ones((2, 2))
    assert said(el.ParseError, el.einsum, "ij,jk->ik", x, x, semiring=semiring) == hint
    assert said(el.ParseError, el.compile, "ij,jk->ik", x, x, semiring=semiring) == hint


@pytest.mark.parametrize("limit", [-5, float("nan"), "much", True, [1]])
def test_memory_limits_that_are_none(limit: Any) -> None:
    x = np.ones((2, 2))
    message = (
        f"memory_limit is {limit!r}\n"
        "  hint: give the elements that an intermediate may have, or 'max_input'"
    )
    for work in (el.einsum, el.compile):
        assert said(el.ParseError, work, "ij,jk->ik", x, x, memory_limit=limit) == message


@pytest.mark.parametrize("limit", [5, 5.5, np.int64(5), float("inf"), "max_input", None])
def test_memory_limits(limit: Any) -> None:
    x = np.arange(9.0).reshape(3, 3)
    expected = x @ x @ x
    found = el.compile("ij,jk,kl->il", x, x, x, memory_limit=limit)(x, x, x)
    np.testing.assert_allclose(found, expected)
    found = el.einsum("ij,jk,kl->il", x, x, x, memory_limit=limit)
    np.testing.assert_allclose(found, expected)


def test_the_names_of_the_package() -> None:
    names = dir(el)
    assert set(el.__all__) <= set(names)
    assert [n for n in names if n not in el.__all__ and not n.startswith("__")] == []


# ---- optimize -------------------------------------------------------------------------------

FINDERS = (
    "one of auto, greedy, optimal, dp, branch-all, branch-2, branch-1, random-greedy, left, "
    "auto-hq, dynamic-programming, eager, opportunistic, random-greedy-128"
)
ELEMENTS = "give the elements that an intermediate may have, or 'max_input'"
GROUPS = "write groups of operand positions, [(1, 2), (0, 1)]"
FORMS = "give True, False, the name of a path finder, or a path"


@pytest.mark.parametrize(
    ("optimize", "message"),
    [
        (
            ("greedy", float("inf")),
            f"the memory limit of optimize is inf\n  hint: {ELEMENTS}",
        ),
        (("greedy", None), f"the memory limit of optimize is None\n  hint: {ELEMENTS}"),
        (("greedy", [1]), f"the memory limit of optimize is [1]\n  hint: {ELEMENTS}"),
        (("x", 3), f"unknown path finder 'x'\n  hint: {FINDERS}"),
        ("bogus", f"unknown path finder 'bogus'\n  hint: {FINDERS}"),
        (("greedy",), f"['greedy'] is not a contraction path\n  hint: {GROUPS}"),
        ([(0, "a")], f"[(0, 'a')] is not a contraction path\n  hint: {GROUPS}"),
        ([(0, 1.5)], f"[(0, 1.5)] is not a contraction path\n  hint: {GROUPS}"),
        ([(0, float("inf"))], f"[(0, inf)] is not a contraction path\n  hint: {GROUPS}"),
        ([0, 1], f"[0, 1] is not a contraction path\n  hint: {GROUPS}"),
        ([()], "a group of the contraction path is empty"),
        ([(-1, 0)], "positions of a contraction path count from 0"),
        (3, f"optimize is of type int\n  hint: {FORMS}"),
        ({}, f"optimize is of type dict\n  hint: {FORMS}"),
        (b"greedy", f"optimize is of type bytes\n  hint: {FORMS}"),
    ],
)
@pytest.mark.parametrize("work", [el.einsum, el.compile, el.einsum_path])
def test_what_optimize_is_not(work: Any, optimize: Any, message: str) -> None:
    x = np.ones((2, 2))
    assert said(el.ParseError, work, "ij,jk,kl->il", x, x, x, optimize=optimize) == message


@pytest.mark.parametrize(
    "optimize",
    [
        "auto", "eager", True, False, None, ("greedy", 1), ("greedy", -1), ("dp", "max_input"),
        [(1, 2), (0, 1)], ["einsum_path", (0, 1), (0, 1)],
    ],
)  # fmt: skip
def test_compile_takes_what_einsum_takes(optimize: Any) -> None:
    x = np.arange(4.0).reshape(2, 2)
    found = el.compile("ij,jk,kl->il", x, x, x, optimize=optimize)(x, x, x)
    np.testing.assert_array_equal(found, x @ x @ x)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"optimize": "greedy"}, "optimize"),
        ({"optimize": None}, "optimize"),
        ({"memory_limit": 5}, "memory_limit"),
        ({"optimize": False, "memory_limit": "max_input"}, "optimize and memory_limit"),
    ],
)
@pytest.mark.parametrize("pipeline", ["", "simplify, contract", []])
def test_a_pipeline_leaves_no_room_for_other_options(
    options: dict[str, Any], named: str, pipeline: Any
) -> None:
    x = np.ones((2, 2))
    assert said(TypeError, el.compile, "ij,jk->ik", x, x, pipeline=pipeline, **options) == (
        f"compile takes pipeline or {named}, not both\n"
        "  hint: state them in the pipeline: contract{method=..., memory_limit=...}"
    )


def test_short_dtypes_count_bits_here_and_bytes_in_einsum() -> None:
    assert el.TensorSpec((), "i8").dtype == np.int8
    ones = np.ones(2, np.int8)
    assert el.einsum("i->", ones, dtype="i8").dtype == np.int64
    assert np.einsum("i->", ones, dtype="i8").dtype == np.int64


def test_results_are_written_into_out_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    exe = el.compile(
        el.parse(
            "program p(A: f64[i=I,k=K], B: f64[k=K,j=J]) -> (C, D) {\n"
            "  C[i,j] = A[i,k] * B[k,j]\n  D[i,j] = C[i,j] + 1.0\n}"
        )
    )
    rng = np.random.default_rng(0)
    a, b = rng.random((300, 40)), rng.random((40, 300))
    copied: list[object] = []
    copyto = np.copyto

    def noted(target: Any, *arguments: Any, **named: Any) -> None:
        copied.append(target)
        copyto(target, *arguments, **named)

    monkeypatch.setattr(np, "copyto", noted)

    def check(c: Any, d: Any, copies: int, a: Any = a, b: Any = b) -> None:
        copied.clear()
        expected = a @ b
        first, second = exe(a, b, out=(c, d))
        assert first is c and second is d and len(copied) == copies
        np.testing.assert_allclose(c, expected, rtol=1e-12)
        np.testing.assert_allclose(d, expected + 1, rtol=1e-12)

    c, d = np.empty((2, 300, 300))
    check(c, d, 0)
    check(np.empty((300, 300), order="F"), d, 2)
    wide = np.empty((300, 600))
    check(wide[:, :300], wide[:, 300:], 2)
    square = rng.random((300, 300))
    check(square, d, 1, a=square, b=square.T[:, ::-1])
    with pytest.raises(el.ShapeError, match=r"out for D has shape \(3,\), not \(300, 300\)"):
        exe(a, b, out=(c, np.empty(3)))
    before = c.copy()
    with pytest.raises(el.EinloomError, match="out for D is float32"):
        exe(a, b + 1, out=(c, np.empty((300, 300), np.float32)))
    np.testing.assert_array_equal(c, before)
