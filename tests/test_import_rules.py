"""The import rules: floors import downwards only, and heavy libraries only when first needed."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("ir", "frontend", "passes", "backends")
MAY_IMPORT = {
    "einloom": {"einloom", "frontend", "passes", "backends", "ir"},
    "frontend": {"frontend", "ir"},
    "passes": {"passes", "ir"},
    "backends": {"backends", "ir"},
    "ir": {"ir"},
}
IR_LIBRARIES = {"numpy", "ml_dtypes", "networkx", "lark"}
# All else is imported inside the function that needs it, or under TYPE_CHECKING.
LIBRARIES_AT_LOAD = {"numpy", "ml_dtypes"}
NOT_LOADED_BY_EINLOOM = ("lark", "llvmlite", "networkx", "opt_einsum", "rich")
# Distributions whose import name is not their own name.
IMPORT_NAMES = {"scikit-learn": "sklearn"}


class ImportOf(NamedTuple):
    """One imported dotted name, the line it stands on, and whether loading the file runs it."""

    name: str
    line: int
    at_load: bool


def is_type_checking(test: ast.expr) -> bool:
    """Whether a condition is `TYPE_CHECKING` or `typing.TYPE_CHECKING`."""
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def absolute_name(name: str, level: int, module: str, is_package: bool) -> str:
    """Resolve a relative import of `name` (`level` leading dots) seen in `module`."""
    if level == 0:
        return name
    parts = module.split(".")
    base = parts[: len(parts) - level + is_package]
    return ".".join([*base, *filter(None, [name])])


def names_of(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Absolute dotted names that one node imports; none when it imports nothing."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=source, names=names, level=level):
            base = absolute_name(source or "", level, module, is_package)
            yield from (f"{base}.{alias.name}" for alias in names)
        case ast.Call(
            func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            level = len(name) - len(name.lstrip("."))
            yield absolute_name(name.lstrip("."), level, module, is_package)


def imports_of(source: str, module: str, is_package: bool) -> list[ImportOf]:
    """Every import in a source text, in the order of its lines."""
    found: list[ImportOf] = []
    stack: list[tuple[ast.AST, bool]] = [(ast.parse(source), True)]
    while stack:
        node, at_load = stack.pop()
        for name in names_of(node, module, is_package):
            assert isinstance(node, ast.stmt | ast.expr)
            found.append(ImportOf(name, node.lineno, at_load))
        if isinstance(node, ast.If) and is_type_checking(node.test):
            stack += [(child, False) for child in node.body]
            stack += [(child, at_load) for child in node.orelse]
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            at_load = False
        stack += [(child, at_load) for child in ast.iter_child_nodes(node)]
    return sorted(found, key=lambda one: (one.line, one.name))


def floor_of(name: str) -> str:
    """The floor that a dotted name under `einloom` stands on; the front door's is `einloom`."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else "einloom"


def breaches(
    source: str, module: str, *, is_package: bool = False, declared: frozenset[str] = frozenset()
) -> list[str]:
    """Import rules that a source text breaks, one line each.

    `module` is the absolute name of the text (`einloom.ir.program`), `declared` the import names of
    the libraries that the project's dependencies and extras name.
    """
    floor = floor_of(module)
    lines = []
    for name, line, at_load in imports_of(source, module, is_package):
        top = name.split(".")[0]
        if top in FLOORS:
            fault = f"imports {name} by its folder's name; it is einloom.{name}"
        elif top == "einloom":
            if floor_of(name) in MAY_IMPORT[floor]:
                continue
            fault = f"{floor} may not import {floor_of(name)} ({name}); floors import downwards"
        elif top in sys.stdlib_module_names:
            continue
        elif floor == "ir" and top not in IR_LIBRARIES:
            fault = f"ir may not import {top}; only {', '.join(sorted(IR_LIBRARIES))}"
        elif top not in declared:
            fault = f"imports {top}, which pyproject.toml does not name"
        elif at_load and top not in LIBRARIES_AT_LOAD:
            fault = f"imports {top} while loading; import it inside the function that needs it"
        else:
            continue
        lines.append(f"{module}:{line}: {fault}")
    return lines


def declared_libraries() -> frozenset[str]:
    """Import names of all dependencies and extras in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        requirements += extra
    names = {re.split(r"[<>=!~;\[ ]", requirement)[0] for requirement in requirements}
    return frozenset(IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names)


def source_files() -> list[tuple[str, Path]]:
    """Every module of the package as (absolute name, file), each floor through its own folder."""
    files = []
    for path in (path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] == "einloom" and parts[1] in FLOORS:
            continue  # The same file again, seen through the symlink.
        if parts[0] in FLOORS:
            parts = ("einloom", *parts)
        files.append((".".join(parts).removesuffix(".__init__"), path))
    return sorted(files)


def test_every_floor_is_walked() -> None:
    floors = {floor_of(module) for module, _ in source_files()}
    assert floors == set(MAY_IMPORT)


def test_no_module_is_walked_twice() -> None:
    files = [path.resolve() for _, path in source_files()]
    assert len(files) == len(set(files))


def test_import_rules_hold() -> None:
    declared = declared_libraries()
    found = []
    for module, path in source_files():
        is_package = path.name == "__init__.py"
        text = path.read_text(encoding="utf-8")
        found += breaches(text, module, is_package=is_package, declared=declared)
    assert not found, "\n".join(found)


BREACHES = {
    # A floor reaching up or sideways, in every spelling that Python has for it.
    "ir.a: import einloom.passes.b": "ir may not import passes (einloom.passes.b)",
    "ir.a: from einloom import backends": "ir may not import backends (einloom.backends)",
    "ir.a: import einloom": "ir may not import einloom (einloom)",
    "ir.a: from einloom.config import b": "ir may not import einloom (einloom.config.b)",
    "ir.a: from .. import passes": "ir may not import passes (einloom.passes)",
    "ir.a.b: from ...passes import c": "ir may not import passes (einloom.passes.c)",
    "ir.a: importlib.import_module('einloom.cli')": "ir may not import einloom (einloom.cli)",
    "ir.a: import_module('..passes', p)": "ir may not import passes (einloom.passes)",
    "ir.a: __import__('einloom.passes')": "ir may not import passes (einloom.passes)",
    "ir.a: if TYPE_CHECKING: import einloom.passes": "ir may not import passes (einloom.passes)",
    "passes.a: import einloom.frontend": "passes may not import frontend (einloom.frontend)",
    "passes.a: import einloom.backends": "passes may not import backends (einloom.backends)",
    "frontend.a: import einloom.passes": "frontend may not import passes (einloom.passes)",
    "frontend.a: import einloom.backends": "frontend may not import backends (einloom.backends)",
    "backends.a: from ..passes import b": "backends may not import passes (einloom.passes.b)",
    "backends.a: def f(): import einloom.frontend": (
        "backends may not import frontend (einloom.frontend)"
    ),
    "cli: from ir.program import Module": (
        "imports ir.program.Module by its folder's name; it is einloom.ir.program.Module"
    ),
    # A library that the floor, or the whole project, does not have.
    "ir.a: def f(): import rich": "ir may not import rich; only lark, ml_dtypes, networkx, numpy",
    "passes.a: def f(): import pandas": "imports pandas, which pyproject.toml does not name",
    # A library that loading Einloom must not load.
    "ir.a: import networkx as nx": "imports networkx while loading",
    "ir.a: from lark import Lark": "imports lark while loading",
    "cli: import rich.table": "imports rich while loading",
    "passes.a: class A: from opt_einsum import paths": "imports opt_einsum while loading",
    "backends.a: from llvmlite import ir": "imports llvmlite while loading",
    "backends.a: if not TYPE_CHECKING: import llvmlite": "imports llvmlite while loading",
    "backends.a: with b: import llvmlite": "imports llvmlite while loading",
}

PERMITTED = [
    "cli: from einloom import backends, frontend, ir, passes",
    "cli: from . import config",
    "passes.a: from ..ir.program import Module",
    "passes.a: from . import b",
    "backends.cpu.a: from ..cost import b",
    "ir.a: from __future__ import annotations",
    "ir.a: import numpy as np, ml_dtypes, os.path",
    "ir.a: def f(): import networkx, lark.lexer",
    "passes.a: async def f(): from opt_einsum import paths",
    "backends.a: def f(): from llvmlite import ir",
    "backends.a: if TYPE_CHECKING: from llvmlite import ir",
    "lab.a: def f(): import sklearn.decomposition",
]


@pytest.mark.parametrize(("case", "fault"), BREACHES.items())
def test_a_breach_is_reported(case: str, fault: str) -> None:
    module, source = case.split(": ", 1)
    found = breaches(f"\n{source}", f"einloom.{module}", declared=declared_libraries())
    assert [line.split("; import it inside")[0].split("; floors")[0] for line in found] == [
        f"einloom.{module}:2: {fault}"
    ]


@pytest.mark.parametrize("case", PERMITTED)
def test_what_the_rules_permit_is_not_reported(case: str) -> None:
    module, source = case.split(": ", 1)
    assert breaches(source, f"einloom.{module}", declared=declared_libraries()) == []


def test_else_of_type_checking_is_run_while_loading() -> None:
    source = "if typing.TYPE_CHECKING:\n    import rich\nelse:\n    import rich"
    assert breaches(source, "einloom.cli", declared=declared_libraries()) == [
        "einloom.cli:4: imports rich while loading; import it inside the function that needs it"
    ]


def test_relative_import_in_a_package_starts_at_the_package() -> None:
    source = "from .. import passes"
    assert breaches(source, "einloom.ir.text", is_package=True) == []
    assert breaches(source, "einloom.ir", is_package=True) == [
        "einloom.ir:1: ir may not import passes (einloom.passes); floors import downwards"
    ]


def loaded_by(statement: str) -> list[str]:
    """Which heavy libraries a fresh interpreter holds after one statement."""
    program = (
        f"import json, sys\n{statement}\n"
        f"print(json.dumps([name for name in {NOT_LOADED_BY_EINLOOM!r} if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stdout)
    return loaded


def test_importing_einloom_loads_no_heavy_library() -> None:
    assert loaded_by("import einloom") == []


def test_a_heavy_library_is_noticed() -> None:
    assert loaded_by("import einloom, lark") == ["lark"]
