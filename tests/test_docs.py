"""The manual runs: Python blocks, programs, commands and messages do what the pages say.

    python      run in order, one namespace per page; a `text` block after it is what it prints
    ein         a whole program: parsed, verified, printed, compiled, compared with the interpreter
    ein interpreted    the same without compiling
    ein error   a wrong program; the `text` block after it is the message
    console     `$ einloom ...` lines and what they print; `...` stands for anything

Other languages (`text`, `sh`, none) are shown only.
"""

from __future__ import annotations

import doctest
import importlib.util
import io
import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einloom as el
from einloom.cli import main
from einloom.cli.inputs import random_inputs
from einloom.ir.binding import bind
from einloom.ir.expressions import Expression
from einloom.ir.infer import infer
from einloom.ir.node import Node, postorder
from einloom.ir.program import Bound, Definition, Layout, Mapping, Statement
from einloom.ir.text import show
from tests.documents import Block, anchors, blocks, commands, links

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
LANGUAGES = {"", "python", "ein", "console", "text", "sh", "indented"}
EXTENTS = (3, 5, 2, 4)
LEVEL = ("einloom.ir.program", "einloom.ir.expressions")


def numbered(language: str, *words: str) -> list[Any]:
    return [
        pytest.param(block, id=block.place)
        for page in PAGES
        for block in blocks(page)
        if block.language == language and block.words == words
    ]


def following(block: Block) -> Block | None:
    """The `text` block right after a block, if there is one."""
    after = [b for b in blocks(block.page) if b.line > block.line]
    return after[0] if after and after[0].language == "text" else None


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where blocks run: an empty folder with the examples, and the settings of a new user."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "rank.ein").write_text(RANK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("EINLOOM_DEBUG", "EINLOOM_NUM_THREADS", "EINLOOM_CACHE", "EINLOOM_CACHE_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


RANK = "program rank(X: f32[n=N]) -> (Y) {\n  Y[n] = X[n] * 1.0 + 0.5\n}\n"


def same(shown: str, found: str) -> bool:
    """Whether a text is as shown, where `...` stands for anything."""
    checker = doctest.OutputChecker()
    return checker.check_output(shown.rstrip() + "\n", found.rstrip() + "\n", doctest.ELLIPSIS)


def difference(shown: str, found: str) -> str:
    return f"shown:\n{shown}\nfound:\n{found}"


# ---- Python -------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Path) -> None:
    namespace: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page):
        if block.language != "python":
            continue
        # The lines of a page stay those of the code, so that a failure points into the page.
        source = "\n" * (block.line - 1) + block.text
        code = compile(source, str(page), "exec", dont_inherit=True)
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(code, namespace)
        expected = following(block)
        if expected is not None:
            assert same(expected.text, printed.getvalue()), (
                f"{block.place}\n{difference(expected.text, printed.getvalue())}"
            )


# ---- programs -----------------------------------------------------------------------------


def sizes_of(module: el.Module) -> dict[str, int]:
    symbols = infer(module).symbols
    return {name: EXTENTS[k % len(EXTENTS)] for k, name in enumerate(symbols)}


@pytest.mark.parametrize("block", numbered("ein"))
def test_a_program_compiles_and_runs_as_interpreted(
    block: Block, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = el.parse(block.text)
    assert el.parse(show(module)) == module
    file = folder / "program.ein"
    file.write_text(block.text, encoding="utf-8")
    extents = [f"--extent={name}={size}" for name, size in sizes_of(module).items()]
    assert main(["run", str(file), "--check", *extents]) == 0, capsys.readouterr().err
    checked = capsys.readouterr().out.split("agrees\n")[1].splitlines()
    assert [line.split("\t")[0].split(".")[0] for line in checked]
    assert all(line.endswith("\tyes") for line in checked)


@pytest.mark.parametrize("block", numbered("ein", "interpreted"))
def test_a_program_is_interpreted(block: Block) -> None:
    module = el.parse(block.text)
    assert el.parse(show(module)) == module
    sizes = sizes_of(module)
    arrays = {item.name: item.value for item in random_inputs(module, sizes, {}, 0)}
    arrays |= {item.name: sizes[item.name] for item in module.inputs if item.type is None}
    results = el.interpret(module, arrays)
    assert set(results) == set(module.outputs)
    assert bind(module, arrays).symbols == sizes
    with pytest.raises(el.UnsupportedError):
        el.compile(module).run(arrays)


@pytest.mark.parametrize("block", numbered("ein", "error"))
def test_a_wrong_program_gets_its_message(block: Block) -> None:
    with pytest.raises(el.EinloomError) as caught:
        el.parse(block.text)
    message = following(block)
    assert message is not None, f"{block.place}: no message is shown"
    assert same(message.text, str(caught.value)), difference(message.text, str(caught.value))


def test_the_language_page_shows_every_form() -> None:
    """Every kind of statement, definition and expression, and both sections."""
    programs = [b for b in blocks(DOCS / "language.md") if b.language == "ein"]
    shown = {
        type(part)
        for block in programs
        if "error" not in block.words
        for part in postorder(el.parse(block.text))
    }
    bases: tuple[type[Node], ...] = (Statement, Definition, Expression)
    forms = {cls for base in bases for cls in base.__subclasses__() if cls.__module__ in LEVEL}
    forms |= {Mapping, Layout, Bound}
    # A call needs its host function: first-steps.md runs one.
    assert {cls.__name__ for cls in forms - shown} == {"Call"}
    assert "= call sort@1(X)" in (DOCS / "first-steps.md").read_text(encoding="utf-8")


def test_the_program_of_the_readme_is_the_example() -> None:
    programs = [b for b in blocks(PAGES[0]) if b.language == "" and b.text.startswith("program")]
    assert [el.parse(block.text) for block in programs] == [el.load("examples/attention.ein")]


# ---- commands -----------------------------------------------------------------------------


def executed(line: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit status and both streams of `NAME=value ... einloom ...`, in the order printed."""
    words = shlex.split(line)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        monkeypatch.setenv(name, value)
    assert words[0] == "einloom", f"not a command of Einloom: {line}"
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        status = main(words[1:])
    return status, printed.getvalue()


@pytest.mark.parametrize("block", numbered("console"))
def test_commands_print_what_is_shown(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in commands(block):
        with monkeypatch.context() as settings:
            status, printed = executed(command.line, settings)
        assert same(command.shown, printed), f"{command.place}\n" + difference(
            command.shown, printed
        )
        failed = any(line.startswith("error: ") for line in command.shown.splitlines())
        assert status == (1 if failed else 0), f"{command.place}: exit status {status}"


def readme_commands() -> Iterator[str]:
    for block in blocks(PAGES[0]):
        if block.language == "indented":
            for line in block.text.splitlines():
                yield from (part for part in line.split(" && ") if part.startswith("einloom "))


@pytest.mark.parametrize("line", list(readme_commands()))
def test_commands_of_the_readme_run(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status, printed = executed(line, monkeypatch)
    assert status == 0, printed
    assert printed


# ---- the pages ----------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: no file {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: no heading {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_are_in_a_known_language(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.place}: {block.language}"
        if block.language == "ein":
            assert block.words in ((), ("interpreted",), ("error",)), block.place


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date() -> None:
    pages = generator().pages()
    assert set(pages) >= {"passes.md", "operations.md", "rules.md"}
    for name, text in pages.items():
        current = (DOCS / name).read_text(encoding="utf-8")
        assert current == text, f"docs/{name} is out of date: run python docs/generate.py"


def test_every_page_is_in_the_index() -> None:
    listed = {link.partition("#")[0] for link in links(DOCS / "README.md")}
    assert {page.name for page in DOCS.glob("*.md")} - {"README.md"} <= listed


def test_a_wrong_page_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: a command that prints something else, a program that is wrong."""
    page = tmp_path / "page.md"
    page.write_text("```console\n$ einloom opt rank.ein\nprogram other\n```\n")
    (block,) = blocks(page)
    with pytest.raises(AssertionError, match="program other"):
        test_commands_print_what_is_shown(block, monkeypatch)
    assert np.all([not same("1 2 3", "1 2 4"), same("1 ... 4", "1 2 4"), not same("1", "1 2")])
