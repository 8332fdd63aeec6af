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
