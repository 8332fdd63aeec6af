"""Golden programs: what a pipeline makes of a program, and what is said of a wrong one.

`golden/*.ein`: `# run: <pipeline>` (`# strict` may follow), a program, `# ---`, the program after
the pipeline. `golden/errors/*.ein`: a program, `# ---`, the class of the error and its message.
`pytest --update-golden` rewrites what stands below `# ---`; read the diff.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.cli.inputs import random_inputs
from einloom.ir.infer import infer
from einloom.ir.text import parse, show
from einloom.ir.verify import verify
from einloom.passes import Context, Pipeline

FOLDER = Path(__file__).parent / "golden"
GOLDEN = sorted(FOLDER.glob("*.ein"))
ERRORS = sorted((FOLDER / "errors").glob("*.ein"))
RUN, STRICT, LINE = "# run: ", "# strict\n", "# ---\n"
EXTENTS = (3, 5, 2, 4)


def split(path: Path) -> tuple[str, str]:
    """What stands above and below the line."""
    text = path.read_text(encoding="utf-8")
    given, line, expected = text.partition(LINE)
    assert line or not expected, path
    return given, expected


def after_pipeline(given: str) -> el.Module:
    first, _, rest = given.partition("\n")
    assert first.startswith(RUN), first
    module = parse(given)
    verify(module)
    context = Context(strict=rest.startswith(STRICT))
    done = Pipeline.parse(first.removeprefix(RUN)).run(module, context, verify_each=True)
    assert isinstance(done, el.Module)
    return done


def message_of(given: str) -> str:
    with pytest.raises(el.EinloomError) as caught:
        el.parse(given)
    return f"{type(caught.value).__name__}\n{caught.value}\n"


def compare(path: Path, given: str, found: str, expected: str, update: bool) -> None:
    if update:
        path.write_text(f"{given}{LINE}{found}", encoding="utf-8")
    else:
        assert found == expected


def by_name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", GOLDEN, ids=by_name)
def test_a_pipeline_makes_what_is_expected(path: Path, update_golden: bool) -> None:
    given, expected = split(path)
    compare(path, given, show(after_pipeline(given)), expected, update_golden)


@pytest.mark.parametrize("path", GOLDEN, ids=by_name)
def test_printing_and_parsing_are_inverse(path: Path) -> None:
    for text in split(path):
        module = parse(text)
        assert parse(show(module)) == module
    assert show(parse(split(path)[1])) == split(path)[1]


def results(module: el.Module, arrays: dict[str, Any]) -> dict[str, Any]:
    with np.errstate(all="ignore"):
        return el.interpret(module, arrays)


@pytest.mark.parametrize("path", GOLDEN, ids=by_name)
def test_a_golden_program_means_the_same_as_before(path: Path) -> None:
    """So that an update cannot make a wrong rewrite the expected one."""
    given, expected = split(path)
    before, after = parse(given), parse(expected)
    symbols = infer(before).symbols
    sizes = {name: EXTENTS[k % len(EXTENTS)] for k, name in enumerate(symbols)}
    arrays = {item.name: item.value for item in random_inputs(before, sizes, {}, 0)}
    arrays |= {item.name: sizes[item.name] for item in before.inputs if item.type is None}
    right, found = results(before, arrays), results(after, arrays)
    assert list(found) == list(right)
    for name, value in right.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", ERRORS, ids=by_name)
def test_a_wrong_program_gets_its_message(path: Path, update_golden: bool) -> None:
    given, expected = split(path)
    compare(path, given, message_of(given), expected, update_golden)


def test_each_pass_has_golden_programs() -> None:
    pipelines = [path.read_text(encoding="utf-8").split("\n")[0] for path in GOLDEN]
    for name in ("simplify", "contract", "fuse"):
        assert sum(name in pipeline for pipeline in pipelines) >= 4, name
    assert len(ERRORS) >= 10
