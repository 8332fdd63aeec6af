"""Environment variables: defaults, legal values, and the words said about the others."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from einloom import config
from einloom.backends.cpu import threads
from einloom.ir.errors import EinloomError

READERS: dict[str, Callable[[], object]] = {
    "EINLOOM_CACHE_SIZE": config.cache_limit_bytes,
    "EINLOOM_CACHE": config.disk_cache_enabled,
    "EINLOOM_NUM_THREADS": config.num_threads,
    "EINLOOM_DEBUG": config.debug_level,
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in config.VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


@pytest.mark.parametrize("unset", [None, ""])
def test_defaults(monkeypatch: pytest.MonkeyPatch, unset: str | None) -> None:
    if unset is not None:
        for variable in config.VARIABLES:
            monkeypatch.setenv(variable.name, unset)
    monkeypatch.setenv("HOME", "/home/ada")
    assert config.cache_folder() == Path("/home/ada/.cache/einloom")
    assert config.cache_limit_bytes() == 1024**3
    assert config.disk_cache_enabled() is True
    assert config.num_threads() is None
    assert config.debug_level() == 0


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("EINLOOM_CACHE_SIZE", "0", 0),
        ("EINLOOM_CACHE_SIZE", " 500000 ", 500_000),
        ("EINLOOM_CACHE_SIZE", str(2**60), 2**60),
        ("EINLOOM_CACHE", "0", False),
        ("EINLOOM_CACHE", "1", True),
        ("EINLOOM_NUM_THREADS", "1", 1),
        ("EINLOOM_NUM_THREADS", "1024", 1024),
        ("EINLOOM_DEBUG", "0", 0),
        ("EINLOOM_DEBUG", "4", 4),
    ],
)
def test_legal_values(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object) -> None:
    monkeypatch.setenv(name, text)
    read = READERS[name]()
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("EINLOOM_CACHE_SIZE", "-1"),
        ("EINLOOM_CACHE_SIZE", "1GiB"),
        ("EINLOOM_CACHE_SIZE", "1_000"),
        ("EINLOOM_CACHE_SIZE", "1e9"),
        ("EINLOOM_CACHE_SIZE", str(2**60 + 1)),
        ("EINLOOM_CACHE_SIZE", "9" * 5000),
        ("EINLOOM_CACHE", "off"),
        ("EINLOOM_CACHE", "2"),
        ("EINLOOM_NUM_THREADS", "0"),
        ("EINLOOM_NUM_THREADS", "1025"),
        ("EINLOOM_NUM_THREADS", "two"),
        ("EINLOOM_NUM_THREADS", "\N{ARABIC-INDIC DIGIT TWO}"),
        ("EINLOOM_DEBUG", "5"),
        ("EINLOOM_DEBUG", "\udcff"),
        ("EINLOOM_DEBUG", "   "),
    ],
)
def test_illegal_values_name_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(EinloomError) as caught:
        READERS[name]()
    message = str(caught.value)
    assert message.startswith(f"the environment variable {name} is ")
    assert len(message) < 400
    example = message.split(f"hint: {name}=")[1].split(",")[0]
    monkeypatch.setenv(name, example)
    READERS[name]()


def test_exact_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINLOOM_NUM_THREADS", "many")
    with pytest.raises(EinloomError) as caught:
        config.num_threads()
    assert str(caught.value) == (
        "the environment variable EINLOOM_NUM_THREADS is 'many'; "
        "it takes a whole number from 1 to 1024\n"
        "  hint: EINLOOM_NUM_THREADS=2, or unset it for its default: "
        "the number of CPUs that the process may run on"
    )


def test_values_are_read_at_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for level in ("1", "3"):
        monkeypatch.setenv("EINLOOM_DEBUG", level)
        assert config.debug_level() == int(level)


def test_cache_folder_prefers_its_own_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert config.cache_folder() == Path("/caches/einloom")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/ones/are/ignored")
    assert config.cache_folder() == Path("/home/ada/.cache/einloom")
    monkeypatch.setenv("EINLOOM_CACHE_DIR", "/fast/disk")
    assert config.cache_folder() == Path("/fast/disk")
    monkeypatch.setenv("EINLOOM_CACHE_DIR", "~/kernels")
    assert config.cache_folder() == Path("/home/ada/kernels")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EINLOOM_CACHE_DIR", "here")
    assert config.cache_folder() == tmp_path / "here"


def test_unknown_user_in_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINLOOM_CACHE_DIR", "~nobody-has-this-name/cache")
    with pytest.raises(EinloomError) as caught:
        config.cache_folder()
    assert str(caught.value) == (
        "the environment variable EINLOOM_CACHE_DIR is '~nobody-has-this-name/cache': "
        "no such user has a home folder; it takes a path\n"
        "  hint: EINLOOM_CACHE_DIR=~/.cache/einloom, or unset it for its default: "
        "einloom in $XDG_CACHE_HOME, or ~/.cache/einloom"
    )


def test_user_without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user: int) -> object:
        raise KeyError(user)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert config.cache_folder() is None


def test_every_variable_read_is_listed() -> None:
    """No module but config.py looks at the environment by name."""
    root = Path(config.__file__).parent
    readers = []
    for folder, _, names in os.walk(root, followlinks=True):
        for name in names:
            if name.endswith(".py") and name != "config.py":
                text = Path(folder, name).read_text(encoding="utf-8")
                if "os.environ" in text or "os.getenv" in text:
                    readers.append(name)
    assert readers == []


def test_one_limit_of_threads() -> None:
    assert config.MOST_THREADS == threads.MOST_THREADS
