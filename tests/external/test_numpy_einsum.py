"""NumPy's own einsum tests, from the installed wheel, with ours in the place of theirs.

Every test runs. One that fails stands in `numpy_einsum_exceptions.txt` with one of the reasons
below; one that stands there and passes is an error, too.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy
import pytest

import einloom

MODULE = "numpy._core.tests.test_einsum"
LIST = Path(__file__).with_name("numpy_einsum_exceptions.txt")
REASONS = (
    "dtype outside the IR (object, longdouble, clongdouble)",
    "NumPy-only path format",
    "NumPy-only message",
    "extension the issue asks for",
)


class NumPyWithOurs:
    """NumPy as the tests see it."""

    einsum = staticmethod(einloom.einsum)
    einsum_path = staticmethod(einloom.einsum_path)

    def __getattr__(self, name: str) -> Any:
        return getattr(numpy, name)


def load() -> types.ModuleType:
    """A copy of NumPy's test module in which `np.einsum` and `np.einsum_path` are ours."""
    spec = importlib.util.find_spec(MODULE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Parameters of tests are made from np.einsum while the module is loaded.
    with (
        mock.patch.object(numpy, "einsum", einloom.einsum),
        mock.patch.object(numpy, "einsum_path", einloom.einsum_path),
    ):
        spec.loader.exec_module(module)
    vars(module)["np"] = NumPyWithOurs()
    return module


def parameters(function: Callable[..., object]) -> Iterator[dict[str, Any]]:
    """The keyword arguments of every run that `pytest.mark.parametrize` asks for."""
    axes: list[list[dict[str, Any]]] = []
    for mark in getattr(function, "pytestmark", []):
        assert mark.name == "parametrize", mark
        names = [name.strip() for name in mark.args[0].split(",")]
        rows = [row if len(names) > 1 else (row,) for row in mark.args[1]]
        axes.append([dict(zip(names, row, strict=True)) for row in rows])
    for chosen in itertools.product(*axes):
        merged: dict[str, Any] = {}
        for part in chosen:
            merged.update(part)
        yield merged


def shown(value: Any) -> str:
    return str(getattr(value, "__name__", value))


def collect(
    module: types.ModuleType, instead: Mapping[str, Any] | None = None
) -> dict[str, Callable[[], object]]:
    """Every test of the module by name, ready to be called.

    `instead` replaces what `einsum_fn` is in the tests whose name ends so.
    """
    found: dict[str, Callable[[], object]] = {}
    owners: list[tuple[str, Any]] = [("", module)]
    owners += [(f"{n}.", v) for n, v in vars(module).items() if n.startswith("Test")]
    for prefix, owner in owners:
        for name, function in list(vars(owner).items()):
            if not name.startswith("test_"):
                continue
            for keywords in parameters(function):
                values = ", ".join(f"{k}={shown(v)}" for k, v in sorted(keywords.items()))
                full = f"{prefix}{name}[{values}]" if values else f"{prefix}{name}"
                for ending, function in (instead or {}).items():
                    if full.endswith(ending):
                        keywords["einsum_fn"] = function
                found[full] = runner(owner, name, keywords)
    return found


def runner(owner: Any, name: str, keywords: dict[str, Any]) -> Callable[[], object]:
    def run() -> object:
        holder = owner() if isinstance(owner, type) else owner
        return getattr(holder, name)(**keywords)

    return run


def exceptions() -> dict[str, str]:
    """The tests that may fail, with the reason of each."""
    found: dict[str, str] = {}
    for line in LIST.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, reason = line.partition(": ")
            assert reason in REASONS, f"{reason!r} is no reason"
            assert name not in found, f"{name} stands there twice"
            found[name] = reason
    return found


TESTS = collect(load())
EXCEPTIONS = exceptions()


def test_the_list_names_tests_that_exist() -> None:
    """A test that is gone from NumPy's suite goes from the list."""
    assert set(EXCEPTIONS) <= set(TESTS)


def test_the_suite_was_found() -> None:
    """All of the wheel's tests are collected: as many as pytest finds there."""
    assert len(TESTS) >= 76


# ---- no other library computes --------------------------------------------------------------

ELSEWHERE = (
    ("numpy", "einsum"),
    ("numpy", "dot"),
    ("numpy", "matmul"),
    ("numpy", "tensordot"),
    ("numpy", "inner"),
    ("numpy", "vdot"),
    ("numpy", "outer"),
    ("numpy", "kron"),
    ("numpy.linalg", "multi_dot"),
    ("numpy._core.einsumfunc", "c_einsum"),
    ("numpy._core.multiarray", "c_einsum"),
    ("opt_einsum", "contract"),
    ("opt_einsum.contract", "contract"),
)


class Intruder(AssertionError):
    """Our code asked another library to contract."""


def guarded(original: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function, which refuses calls that Einloom's modules have made."""

    def guard(*arguments: Any, **keywords: Any) -> Any:
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if module.partition(".")[0] == "einloom":
                raise Intruder(f"{module} reached {name}")
            frame = frame.f_back
        return original(*arguments, **keywords)

    return guard


@pytest.fixture
def nothing_else_contracts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ELSEWHERE:
        __import__(module)
        original = getattr(sys.modules[module], name)
        monkeypatch.setattr(sys.modules[module], name, guarded(original, f"{module}.{name}"))


@pytest.mark.usefixtures("nothing_else_contracts")
def test_the_guard_guards() -> None:
    """A call of numpy.dot that comes from a module of Einloom raises, and others do not."""
    assert numpy.dot(2, 3) == 6
    inside = {"__name__": "einloom.somewhere", "numpy": numpy}
    with pytest.raises(Intruder, match=r"einloom\.somewhere reached numpy\.dot"):
        exec("numpy.dot(2, 3)", inside)


# ---- the suite ------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_else_contracts")
@pytest.mark.parametrize("name", TESTS)
def test_numpy(name: str) -> None:
    """A test passes, or stands in the list; in both cases no other library contracts for us."""
    try:
        TESTS[name]()
    except Intruder:
        raise
    except Exception:
        if name not in EXCEPTIONS:
            raise
    else:
        assert name not in EXCEPTIONS, f"it passes: take it from {LIST.name}"


EXTENDED = [name for name, reason in EXCEPTIONS.items() if reason == REASONS[3]]


@pytest.mark.parametrize("name", EXTENDED)
def test_numpy_without_extensions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where NumPy demands an error for something that ours takes, the rest of the test passes."""
    for function in ("einsum", "einsum_path"):
        narrow = staticmethod(without_extensions(getattr(einloom, function)))
        monkeypatch.setattr(NumPyWithOurs, function, narrow)
    narrowed = {k: without_extensions(f) for k, f in PARAMETERS.items() if k in name}
    collect(load(), narrowed)[name]()


PARAMETERS = {"einsum_fn=einsum]": einloom.einsum, "einsum_fn=einsum_path]": einloom.einsum_path}


def without_extensions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Ours, but with NumPy's errors for repeated output labels and for integers beyond 0 to 51."""

    @functools.wraps(function)
    def narrow(*arguments: Any, **keywords: Any) -> Any:
        for argument in arguments:
            if isinstance(argument, str) and "->" in argument:
                output = argument.partition("->")[2].replace(".", "")
                if len(set(output)) < len(output):
                    raise ValueError("a label stands twice in the output")
            if isinstance(argument, list) and any(isinstance(x, int) and not 0 <= x < 52
                                                  for x in argument):  # fmt: skip
                raise ValueError("NumPy's integer labels are 0 to 51")
        return function(*arguments, **keywords)

    return narrow
