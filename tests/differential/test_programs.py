"""Compiled programs against NumPy and against the interpreter, with a table of what was covered."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import einloom as el
from tests.differential.operands import SIZES, STRIDES, operands
from tests.differential.templates import TEMPLATES, Template, wide

Array = np.ndarray[Any, Any]
Cell = tuple[str, str, str, int, str]
COVERED: Counter[Cell] = Counter()

EPSILON = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-23, "float64": 2.0**-52}


def cases() -> list[tuple[int, str]]:
    return [(k, dtype) for k, t in enumerate(TEMPLATES) for dtype in t.dtypes]


def layouts(full: bool) -> Iterator[tuple[str, str]]:
    """Pairs of size class and stride class: all of them, or each class at least once."""
    sizes, strides = list(SIZES), list(STRIDES)
    if full:
        yield from ((size, stride) for size in sizes for stride in strides)
        return
    for k in range(max(len(sizes), len(strides))):
        yield sizes[k % len(sizes)], strides[k % len(strides)]
        yield sizes[(k + 3) % len(sizes)], strides[k % len(strides)]


def tolerance(result: Array, arrays: dict[str, Array]) -> float:
    """Rounding errors of a sum over all elements of an operand, in units of its largest term."""
    name = {"complex64": "float32", "complex128": "float64"}.get(
        result.dtype.name, result.dtype.name
    )
    if name not in EPSILON:
        return 0.0
    length = max([4, *(a.size for a in arrays.values())])
    inputs = {a.dtype.name for a in arrays.values()}
    coarse = max([EPSILON[name], *(EPSILON[i] for i in inputs if i in EPSILON)])
    return float(coarse * 8 + EPSILON["float32" if coarse > EPSILON["float32"] else name] * length)


def assert_same(result: Array, expected: Array, allowed: float, what: str) -> None:
    assert result.shape == expected.shape, f"{what}: {result.shape} != {expected.shape}"
    if allowed == 0.0:
        np.testing.assert_array_equal(result, expected.astype(result.dtype), err_msg=what)
        return
    result, expected = (a.astype(np.complex128) for a in (wide(result), wide(expected)))
    scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0)))
    np.testing.assert_allclose(result, expected, rtol=0, atol=allowed * scale, err_msg=what)


def run_case(template: Template, dtype: str, size: str, stride: str, exe: el.Executable) -> bool:
    seed = zlib.crc32(f"{template.text} {dtype} {size} {stride}".encode())
    arrays = operands(template, dtype, size, stride, seed)
    if arrays is None:
        return False
    before = {name: array.copy() for name, array in arrays.items()}
    results = exe.run(arrays)
    what = f"{template.form} {dtype} {size} {stride}\n{template.text}"
    with np.errstate(all="ignore"):
        expected = template.reference(arrays)
    reference = el.interpret(exe.stages["input"], arrays)
    for name, array in expected.items():
        allowed = tolerance(results[name], arrays)
        assert_same(results[name], np.asarray(array), allowed, f"NumPy: {what}")
        assert_same(results[name], np.asarray(reference[name]), allowed, f"interpreter: {what}")
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name], err_msg=f"{name} was modified")
    COVERED[(template.form, dtype, stride, template.ranks, emptiness(size))] += 1
    return True


def compiled(template: Template, dtype: str) -> el.Executable:
    return el.compile(template.text.replace("{T}", dtype))


@pytest.mark.parametrize(("position", "dtype"), cases())
def test_compiled_equals_numpy_and_interpreter(position: int, dtype: str) -> None:
    """One program and dtype in every size class and stride class, with no legal cell left out."""
    template = TEMPLATES[position]
    exe = compiled(template, dtype)
    ran = {
        (emptiness(size), stride)
        for size, stride in layouts(full=True)
        if run_case(template, dtype, size, stride, exe)
    }
    assert ran == legal_cells(template)


def legal_cells(template: Template) -> set[tuple[str, str]]:
    """What a program must have run on: a gather from an empty tensor is no legal program."""
    kinds = {"some", "one", "inner 0", "empty"}
    if "A" in template.nonempty:
        kinds -= {"empty"}
    return {(kind, stride) for kind in kinds for stride in STRIDES}


def emptiness(size: str) -> str:
    return size if size in ("empty", "inner 0", "one") else "some"


@pytest.mark.deep
def test_table_of_coverage() -> None:
    """All cases in one process, which prints what was covered."""
    COVERED.clear()
    for position, dtype in cases():
        test_compiled_equals_numpy_and_interpreter(position, dtype)
    print(coverage_table())
    print(f"{COVERED.total()} cases compiled, interpreted and checked against NumPy")
    assert COVERED.total() >= 20_000


def coverage_table() -> str:
    """Cases per form and dtype, per form and rank count, and per stride and size class."""
    forms = sorted({cell[0] for cell in COVERED})
    dtypes = sorted({cell[1] for cell in COVERED})
    lines = [f"{'form':16}" + "".join(f"{d:>6}" for d in dtypes)]
    for form in forms:
        counts = [sum(n for c, n in COVERED.items() if c[:2] == (form, d)) for d in dtypes]
        lines.append(f"{form:16}" + "".join(f"{n or '-':>6}" for n in counts))
    lines.append(f"{'form':16}" + "".join(f"{n:>6}" for n in range(6)) + "   ranks")
    for form in forms:
        counts = [sum(n for c, n in COVERED.items() if (c[0], c[3]) == (form, r)) for r in range(6)]
        lines.append(f"{form:16}" + "".join(f"{n or '-':>6}" for n in counts))
    lines.append(f"{'stride':16}" + "".join(f"{e:>9}" for e in ("empty", "inner 0", "one", "some")))
    for stride in STRIDES:
        counts = [
            sum(n for c, n in COVERED.items() if c[2] == stride and c[4] == e)
            for e in ("empty", "inner 0", "one", "some")
        ]
        lines.append(f"{stride:16}" + "".join(f"{n or '-':>9}" for n in counts))
    return "\n".join(lines)
