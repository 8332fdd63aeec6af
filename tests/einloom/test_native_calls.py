"""Calls that run without Python code give what Python gives: results and errors."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.backends.cpu.entry.known import MISSED
from einloom.cache import plan_cache
from einloom.calls.native import RUNS, NativeCalls, native_calls
from tests.einloom.known_calls import USUAL, at_once, known_results, learned, outcome, same

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def calls() -> Iterator[NativeCalls]:
    """The entries, loaded."""
    found = native_calls()
    if not found.loaded:
        found.load()
    if not found.loaded:
        pytest.skip("no layout of this interpreter is known")
    plan_cache().clear()
    yield found


# ---- results ------------------------------------------------------------------------------

LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "C": lambda x: x.copy("C"),
    "F": lambda x: x.copy("F"),
    "reversed": lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1] if x.ndim else x,
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x,
    "stretched": lambda x: np.broadcast_to(x[:1], x.shape) if x.ndim else x,
}
SPECS = {
    "i,i->": ((8,), (8,)),
    "ij,jk->ik": ((4, 5), (5, 3)),
    "ij,jk->ki": ((4, 5), (5, 3)),
    "ij,ij->": ((1, 7), (1, 7)),
    "ij->j": ((3, 4),),
    "i,j->ij": ((3,), (4,)),
    "i,j->ji": ((3,), (0,)),
    "ij,j->i": ((3, 0), (0,)),
    "ij,jk,kl->il": ((2, 3), (3, 4), (4, 2)),
    ",->": ((), ()),
    "bij,bjk->bik": ((2, 3, 4), (2, 4, 5)),
    "i->ii": ((3,),),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "c16", "i8", "i4", "u1", "?"])
@pytest.mark.parametrize("spec", SPECS)
def test_results(spec: str, dtype: str, layout: str) -> None:
    """The entry gives what Python gives, scalars included, with and without `out`."""
    source = np.random.default_rng(0)
    whole = [source.integers(0, 3, shape).astype(dtype) for shape in SPECS[spec]]
    operands = [LAYOUTS[layout](array) for array in whole]
    first = learned(spec, *operands)
    found = at_once(spec, *operands)
    assert same(found, first)
    if spec != "i->ii":
        np.testing.assert_array_equal(found, np.einsum(spec, *operands))
    out = np.empty(np.shape(first), first.dtype)
    kept = learned(spec, *operands, out=out)
    out[...] = 0
    assert at_once(spec, *operands, out=out) is out
    np.testing.assert_array_equal(out, kept)


def test_special_values() -> None:
    a = np.array([np.nan, np.inf, -0.0, 1e308])
    first = learned("i,i->i", a, a[::-1])
    assert same(at_once("i,i->i", a, a[::-1]), first)


def test_other_operands_of_the_same_layout() -> None:
    """Known are dtypes, extents and strides, not the arrays."""
    source = np.random.default_rng(1)
    a = source.standard_normal((4, 4))
    learned("ij,jk->ik", a, a)
    for _ in range(20):
        a, b = source.standard_normal((2, 4, 4))
        np.testing.assert_allclose(at_once("ij,jk->ik", a, b), a @ b, rtol=1e-12)


def test_what_the_entry_leaves_to_python() -> None:
    """A call that differs in anything but the addresses of its operands."""
    a = np.ones((4, 4))
    learned("ij,jk->ik", a, a)
    assert at_once("ij,jk->ik", a, a) is not MISSED
    wide = np.ones((4, 8))
    bytes_ = np.zeros(129, np.uint8)
    crooked = bytes_[1:].view(np.float64).reshape(4, 4)
    for b in (
        a.T, wide[:, ::2], np.ones((4, 3)), np.ones((4, 4, 1)), np.ones(4), a.astype("f4"),
        a.astype(">f8"), a.view(np.matrix), np.ma.masked_array(a), a.tolist(), 1.0, None, crooked,
    ):  # fmt: skip
        assert native_calls().einsum(("ij,jk->ik", a, b), None, *USUAL) is MISSED
        assert native_calls().einsum(("ij,jk->ik", b, a), None, *USUAL) is MISSED
    for option in range(len(USUAL)):
        changed = (*USUAL[:option], object(), *USUAL[option + 1 :])
        assert native_calls().einsum(("ij,jk->ik", a, a), None, *changed) is MISSED
    for options in ({"strict": True}, {"threads": 1}, {"precision": "high"}):
        with el.options(**options):
            assert at_once("ij,jk->ik", a, a) is MISSED
    assert at_once("ij,jk->ik", a, a) is not MISSED


def test_outputs_that_the_entry_leaves_to_python() -> None:
    a = np.arange(16.0).reshape(4, 4)
    expected = a @ a
    learned("ij,jk->ik", a, a, out=np.empty((4, 4)))
    assert at_once("ij,jk->ik", a, a, out=np.empty((4, 4))) is not MISSED
    frozen = np.empty((4, 4))
    frozen.flags.writeable = False
    memory = np.empty((8, 4))
    memory[4:] = a
    crooked = np.zeros(129, np.uint8)[1:].view(np.float64).reshape(4, 4)
    for out in (frozen, np.empty((4, 3)), np.empty((4, 4), "f4"), np.empty((4, 8))[:, ::2], crooked,
                np.empty((4, 4)).T, np.empty((4, 4)).view(np.matrix)):  # fmt: skip
        assert at_once("ij,jk->ik", a, a, out=out) is MISSED
    overlapping = memory[3:7]
    assert at_once("ij,jk->ik", memory[4:], a, out=overlapping) is MISSED
    assert at_once("ij,jk->ik", a, memory[4:], out=overlapping) is MISSED
    np.testing.assert_array_equal(el.einsum("ij,jk->ik", a, memory[4:], out=overlapping), expected)
    memory[4:] = a
    beside = memory[:4]
    assert at_once("ij,jk->ik", a, memory[4:], out=beside) is beside
    np.testing.assert_array_equal(beside, expected)
    memory[:4] = a  # beside it on the other side, where not a byte may be missing
    assert at_once("ij,jk->ik", memory[:4], a, out=memory[4:]) is not MISSED
    np.testing.assert_array_equal(memory[4:], expected)
    same_array = a.copy()
    assert at_once("ij,jk->ik", same_array, a, out=same_array) is MISSED
    with pytest.raises(el.EinloomError, match="out is read-only"):
        el.einsum("ij,jk->ik", a, a, out=frozen)


def test_an_output_that_numpy_warns_of_is_left_to_python() -> None:
    """What `broadcast_arrays` makes: a call by Python warns, one without would not."""
    a = np.ones((1, 4))
    plain = np.lib.stride_tricks.as_strided(np.empty(4), (1, 4), (0, 8))
    warned, _ = np.broadcast_arrays(np.empty(4), np.empty((1, 4)))
    assert warned.strides == plain.strides
    learned("ij,ij->ij", a, a, out=plain)
    assert at_once("ij,ij->ij", a, a, out=plain) is plain
    assert at_once("ij,ij->ij", a, a, out=warned) is MISSED


@pytest.mark.parametrize("options", [{"strict": True}, {"precision": "medium"}])
def test_calls_under_options_are_not_written_down(options: dict[str, Any]) -> None:
    """What is known has no part in options, so that a usual call would run another's kernels."""
    a = np.ones((4, 4), np.float32)
    with el.options(**options):
        learned("ij,jk->ik", a, a)
        assert at_once("ij,jk->ik", a, a) is MISSED
    assert at_once("ij,jk->ik", a, a) is MISSED


# ---- arguments of all kinds ---------------------------------------------------------------


def kinds() -> dict[str, Any]:
    class Own(np.ndarray[Any, Any]):
        pass

    whole = np.arange(9.0).reshape(3, 3)
    return {
        "array": whole, "transposed": whole.T, "list": whole.tolist(), "number": 2.0, "none": None,
        "own": whole.view(Own), "masked": np.ma.masked_array(whole), "swapped": whole.astype(">f8"),
        "object": whole.astype(object), "text": np.array([["a"] * 3] * 3), "vector": whole[0],
        "scalar": np.float64(3), "half": whole.astype("f2"), "wide": np.ones((3, 4)),
        "empty": np.ones((0, 3)), "dates": whole.astype("i8").astype("M8[s]"),
        "cube": np.ones((3, 3, 3)),
    }  # fmt: skip


@pytest.mark.parametrize("keyword", ["", "out"])
def test_every_kind_of_argument(keyword: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is known and one that goes through Python come to the same."""
    spec = "ij,jk->ik"
    whole = np.ones((3, 3))
    learned(spec, whole, whole)
    learned(spec, whole, whole, out=np.ones((3, 3)))
    calls: list[tuple[Any, ...]] = [
        (given, a, b)
        for given in (spec, spec + " ", spec.encode(), None, "ij,jk")
        for a in kinds().values()
        for b in kinds().values()
    ]
    outs: list[Any] = list(kinds().values()) if keyword else [None]
    for number, call in enumerate(calls):
        options = {"out": outs[number % len(outs)]} if keyword else {}
        run = partial(el.einsum, *call, **options)
        found = [outcome(run) for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(native_calls(), "einsum", lambda *arguments: MISSED)
            assert found == [outcome(run)] * 2


# ---- executables --------------------------------------------------------------------------

SOFTMAX = (
    "program softmax(X: f32[p=P, m=M]) -> (Y, D) {\n"
    "  G[p] = max[m] X[p, m]\n  N[p, m] = exp(X[p, m] - G[p])\n"
    "  D[p] = sum[m] N[p, m]\n  Y[p, m] = N[p, m] / D[p]\n}\n"
)


def test_executables() -> None:
    """One result or several, ranks of all numbers, and `out`."""
    x = np.random.default_rng(2).standard_normal((5, 7)).astype(np.float32)
    exe = el.compile(SOFTMAX)
    first = exe(x)
    assert known_results(exe, x) is MISSED
    for _ in range(RUNS):
        exe(x)
    found = known_results(exe, x)
    assert type(found) is tuple and all(map(same, found, first))
    exe = el.compile("ij,jk->ik", x, x.T)
    expected = exe(x, x.T)
    out = np.empty((5, 5), np.float32)
    for _ in range(RUNS):
        exe(x, x.T)
        exe(x, x.T, out=out)
    assert same(known_results(exe, x, x.T), expected)
    out[...] = 0
    assert known_results(exe, x, x.T, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert known_results(exe, x, x.T, out=(out,)) is MISSED
    exe = el.compile("i,i->", x[0], x[0])
    for _ in range(RUNS):
        scalar = exe(x[0], x[0])
    assert same(known_results(exe, x[0], x[0]), scalar) and type(scalar) is np.ndarray


def test_outputs_of_executables_that_python_writes() -> None:
    """Kernels write contiguous results: all others are copies."""
    a, b = np.arange(12.0).reshape(3, 4), np.arange(20.0).reshape(4, 5)
    exe = el.compile("ij,jk->ik", a, b)
    crooked = np.zeros(129, np.uint8)[1:121].view(np.float64).reshape(3, 5)
    for out in (
        np.empty((3, 5), order="F"), np.empty((6, 5))[::2], np.empty((3, 5))[:, ::-1], crooked,
        np.empty((3, 5), np.complex128), np.empty((3, 5), ">f8"),
    ):  # fmt: skip
        for _ in range(RUNS + 2):
            out[...] = 0
            assert exe(a, b, out=out) is out
            np.testing.assert_array_equal(out, a @ b)
        assert known_results(exe, a, b, out=out) is MISSED


def test_errors_of_executables_stay() -> None:
    a = np.ones((4, 4))
    exe = el.compile("ij,jk->ik", a, a)
    wrong: list[tuple[Any, ...]] = [(a,), (a, a[:3]), (a, None), ()]
    before = [outcome(partial(exe, *operands)) for operands in wrong]
    for _ in range(RUNS + 1):
        exe(a, a)
    assert known_results(exe, a, a) is not MISSED
    after = [outcome(partial(exe, *operands)) for operands in wrong]
    assert before == after and all(issubclass(kind, el.EinloomError) for kind, _ in after)


@pytest.mark.parametrize(
    ("text", "operands"),
    [
        ("program p(X: f64[i=I], n: extent) -> (Y) {\n  Y[i] = X[i] + n\n}\n", (np.ones(3), 3)),
        ("program p(X: f64[v=V], I: i64[t=T]) -> (Y) {\n  Y[t] = X[I[t]]\n}\n",
         (np.ones(3), np.arange(2))),
        ("program p(X: f64[i=I]) -> (X) {\n}\n", (np.ones(3),)),
    ],
)  # fmt: skip
def test_executables_that_python_runs(text: str, operands: tuple[Any, ...]) -> None:
    """Extents, indices that may lie outside, inputs that are results."""
    try:
        exe = el.compile(text)
    except el.EinloomError:
        pytest.skip("the language has no such program")
    results = [exe(*operands) for _ in range(RUNS + 2)]
    assert known_results(exe, *operands) is MISSED
    for result in results:
        np.testing.assert_array_equal(result, results[0])


def test_executables_pickle_after_calls() -> None:
    a = np.arange(16.0).reshape(4, 4)
    exe = el.compile("ij,jk->ik", a, a)
    for _ in range(RUNS + 1):
        exe(a, a)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(exe))(a, a), a @ a)


# ---- the function itself ------------------------------------------------------------------


def test_einsum_is_still_a_function() -> None:
    assert inspect.isfunction(el.einsum)
    assert pickle.loads(pickle.dumps(el.einsum)) is el.einsum
    assert (el.einsum.__module__, el.einsum.__name__) == ("einloom.calls.einsum", "einsum")
    assert (el.einsum.__doc__ or "").startswith("Einstein summation")
    parameters = inspect.signature(el.einsum).parameters
    assert list(parameters)[:4] == ["arguments", "out", "dtype", "order"]
    assert tuple(x.default for x in list(parameters.values())[2:]) == USUAL
