"""The house: floors under one package, a wheel that holds them all, files of readable size."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("ir", "frontend", "passes", "backends")
LONGEST_MODULE = 500
LARGEST_BINARY = 1 << 20
# What a folder of the package may hold that the wheel does not carry.
EXPLANATIONS = (".md",)
NOT_SOURCES = {"build", "dist", "venv", "htmlcov", "__pycache__"}
# In the source archive, beside the package: what checks and explains it.
ARCHIVED = ("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "conftest.py", ".ci/run")


def settings() -> dict[str, Any]:
    """The whole of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def unpacked_archive() -> bool:
    """Whether this is a source archive, which cannot hold links to folders, not a checkout."""
    return (ROOT / "PKG-INFO").exists()


def listed_by_git() -> list[str] | None:
    """Files that are tracked or would be by `git add .`; None where git does not know."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        top = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    if Path(top.stdout.strip()).resolve() != ROOT:
        return None  # An archive that was unpacked inside somebody else's repository.
    return [name for name in done.stdout.split("\0") if name]


def listed_by_walk() -> list[str]:
    """Files under the root, without those that tools leave behind and without following links."""
    names = []
    for folder, folders, files in os.walk(ROOT):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        folders[:] = [
            name
            for name in folders
            if name not in links
            and name not in NOT_SOURCES
            and not name.endswith(".egg-info")
            and (name == ".ci" or not name.startswith("."))
        ]
        names += [os.path.relpath(os.path.join(folder, name), ROOT) for name in files + links]
    return names


def repository_files() -> list[PurePosixPath]:
    """Every file of the repository, relative to its root; a link is one file."""
    listed = listed_by_git()
    names = listed_by_walk() if listed is None else listed
    return sorted(
        {
            PurePosixPath(Path(name).as_posix())
            for name in names
            if (ROOT / name).is_file() or (ROOT / name).is_symlink()
        }
    )


def package_files() -> list[PurePosixPath]:
    """Files that belong in the wheel, by their place in it: `einloom/ir/program.py`."""
    places = []
    for file in repository_files():
        if (ROOT / file).is_symlink() or file.suffix in EXPLANATIONS:
            continue
        if file.parts[0] in FLOORS:
            places.append(PurePosixPath("einloom", file))
        elif file.parts[0] == "einloom":
            places.append(file)
    return sorted(places)


def packages_on_disk() -> list[str]:
    """Dotted names of all folders of the package that hold a module."""
    folders = {place.parent for place in package_files() if place.suffix == ".py"}
    return sorted(".".join(folder.parts) for folder in folders)


def difference(expected: list[str], found: list[str]) -> str:
    """Name what is missing and what is too much; empty when the lists hold the same."""
    lines = [f"missing: {name}" for name in sorted(set(expected) - set(found))]
    lines += [f"too much: {name}" for name in sorted(set(found) - set(expected))]
    return "\n".join(lines)


@pytest.mark.skipif(unpacked_archive(), reason="a source archive holds no links to folders")
@pytest.mark.parametrize("floor", FLOORS)
def test_floor_is_linked_into_the_package(floor: str) -> None:
    link = ROOT / "einloom" / floor
    assert link.is_symlink(), f"make it again: ln -s ../{floor} einloom/{floor}"
    assert os.readlink(link) == f"../{floor}"


def test_every_package_has_an_init() -> None:
    places = set(package_files())
    bare = [
        name
        for name in packages_on_disk()
        if PurePosixPath(*name.split("."), "__init__.py") not in places
    ]
    assert not bare, f"without __init__.py: {', '.join(bare)}"


def test_pyproject_lists_the_packages_on_disk() -> None:
    listed = settings()["tool"]["setuptools"]["packages"]
    wrong = difference(packages_on_disk(), listed)
    assert not wrong, f"[tool.setuptools] packages in pyproject.toml\n{wrong}"
    assert listed == sorted(listed), "keep [tool.setuptools] packages sorted"
    assert len(listed) == len(set(listed))


def test_pyproject_maps_every_floor_to_its_folder() -> None:
    expected = {"einloom": "einloom"} | {f"einloom.{floor}": floor for floor in FLOORS}
    assert settings()["tool"]["setuptools"]["package-dir"] == expected


def test_coverage_measures_every_floor() -> None:
    assert settings()["tool"]["coverage"]["run"]["source"] == ["einloom", *FLOORS]


def test_difference_names_both_sides() -> None:
    assert difference(["a", "b"], ["b", "c"]) == "missing: a\ntoo much: c"
    assert difference(["a"], ["a"]) == ""


def missing_build_tools() -> str:
    """Why a wheel cannot be built here without reaching a package registry; empty if it can."""
    if importlib.util.find_spec("build") is None:
        return "build is not installed"
    try:
        version = metadata.version("setuptools")
    except metadata.PackageNotFoundError:
        return "setuptools is not installed"
    # Older ones do not read the licence field of pyproject.toml.
    return "" if int(version.split(".")[0]) >= 77 else f"setuptools {version} is older than 77"


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel and a source archive, built from a clean copy of the repository."""
    if reason := missing_build_tools():
        message = f"{reason}; pip install -e '.[dev]' brings what this test needs"
        # On a build server a skip would hide that the wheel was never looked at.
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    copy = tmp_path_factory.mktemp("clean") / "einloom"
    for file in repository_files():
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, copy / file, follow_symlinks=False)
    output = copy.parent / "archives"
    command = ["-m", "build", "--no-isolation", "--wheel", "--sdist", "--outdir", str(output)]
    done = subprocess.run(
        [sys.executable, *command, str(copy)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (wheel,) = output.glob("*.whl")
    (source,) = output.glob("*.tar.gz")
    return wheel, source


def test_wheel_holds_the_package_files_and_no_others(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[0]) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    wrong = difference([str(place) for place in package_files()], names)
    assert not wrong, f"contents of the wheel\n{wrong}"


def test_wheel_carries_the_command_and_the_licence(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[0]) as wheel:
        texts = {name.split(".dist-info/")[-1]: name for name in wheel.namelist()}
        commands = wheel.read(texts["entry_points.txt"]).decode()
        licence = wheel.read(texts["licenses/LICENSE"]).decode()
    assert commands.split() == ["[console_scripts]", "einloom", "=", "einloom.cli:main"]
    assert licence == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_source_archive_holds_what_checks_and_explains(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[1]) as source:
        names = [name.split("/", 1)[-1] for name in source.getnames()]
    expected = [
        str(file)
        for file in repository_files()
        if file.parts[0] in ("tests", "examples", "docs", "benchmarks", *FLOORS)
        or str(file) in ARCHIVED
    ]
    expected = [name for name in expected if not (ROOT / name).is_symlink()]
    lacking = sorted(set(expected) - set(names))
    assert not lacking, f"the source archive lacks: {', '.join(lacking)}"


def test_no_module_is_longer_than_its_limit() -> None:
    lengths = {
        str(file): len((ROOT / file).read_text(encoding="utf-8").splitlines())
        for file in repository_files()
        if file.suffix == ".py"
    }
    long = [f"{name}: {count}" for name, count in lengths.items() if count > LONGEST_MODULE]
    assert not long, f"over {LONGEST_MODULE} lines, so more than one idea: {', '.join(long)}"


def test_no_large_binary_is_kept() -> None:
    large = [
        str(file)
        for file in repository_files()
        if not (ROOT / file).is_symlink()
        and (ROOT / file).stat().st_size > LARGEST_BINARY
        and b"\0" in (ROOT / file).read_bytes()
    ]
    assert not large, f"binary files over 1 MB: {', '.join(large)}"


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(file)
        for file in repository_files()
        if file.suffix == ".py"
        and not (ROOT / file).read_text(encoding="utf-8").startswith(('"""', 'r"""', "#!"))
    ]
    assert not silent, f"no docstring on the first line: {', '.join(silent)}"
