"""Reads the manual's Markdown: fenced and indented blocks, each with its line and its language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = "```"


@dataclass(frozen=True)
class Block:
    """One block of a page.

    `language` and `words` are the fence's info string: "ein error" is the language `ein` with
    the word `error`. `line` counts from 1 and is that of the block's first line of text.
    """

    page: Path
    language: str
    words: tuple[str, ...]
    text: str
    line: int

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A line `$ einloom ...` of a console block, and what is shown below it."""

    line: str
    shown: str
    place: str


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page in order; an indented block has the language `indented`."""
    lines = page.read_text(encoding="utf-8").splitlines()
    position = 0
    while position < len(lines):
        line = lines[position]
        if line.startswith(FENCE):
            end = lines.index(FENCE, position + 1)
            language, *words = line.removeprefix(FENCE).split() or [""]
            text = "".join(f"{inner}\n" for inner in lines[position + 1 : end])
            yield Block(page, language, tuple(words), text, position + 2)
            position = end
        elif line.startswith("    ") and (position == 0 or not lines[position - 1].strip()):
            end = position
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            text = "".join(f"{inner[4:]}\n" for inner in lines[position:end])
            yield Block(page, "indented", (), text, position + 1)
            position = end - 1
        position += 1


def commands(block: Block) -> Iterator[Command]:
    """The commands of a console block."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert not parts[0], f"{block.place}: a console block starts with $"
    line = block.line
    for part in parts[1:]:
        typed, _, shown = part.partition("\n")
        yield Command(typed, shown, f"{block.page.name}:{line}")
        line += part.count("\n")


def links(page: Path) -> Iterator[str]:
    """The targets of the links of a page, outside of its blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    yield from re.findall(r"\]\(([^)]+)\)", text)


def anchors(page: Path) -> set[str]:
    """What a link to a heading of this page may name, by GitHub's rule."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
