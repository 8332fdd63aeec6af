"""What every test shares: `--update-golden`, and the guard against a module under two names."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

FLOORS = ("ir", "frontend", "passes", "backends")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-golden`, which rewrites expected texts instead of comparing them."""
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite the expected text of tests/golden/*.ein with what the program prints now",
    )


@pytest.fixture(scope="session")
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten: true under `pytest --update-golden`."""
    return bool(request.config.getoption("--update-golden"))


def bare_floors() -> list[str]:
    """Modules that were imported by a floor's folder name instead of through `einloom`."""
    return sorted(name for name in sys.modules if name.split(".", 1)[0] in FLOORS)


def two_names_message(modules: list[str]) -> str:
    """Say which modules now exist twice, and what to write instead."""
    names = ", ".join(modules)
    return (
        f"imported by a folder's name: {names}. Such a module is a second copy, and its classes "
        f"are not those of einloom.{modules[0]}: write `import einloom.{modules[0]}`"
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run when collecting imported a floor by its folder's name."""
    if modules := bare_floors():
        raise pytest.UsageError(two_names_message(modules))


@pytest.fixture(scope="session", autouse=True)
def one_name_per_module() -> Iterator[None]:
    """Fail the run when a test imported a floor by its folder's name."""
    yield
    if modules := bare_floors():
        pytest.fail(two_names_message(modules))
