"""Tables that commands print: one form for people, one for programs that read them."""

from __future__ import annotations

import math
from typing import Literal

from einloom.ir.record import record

Unit = Literal["count", "bytes", "seconds", "ratio"]


@record
class Quantity:
    """A number with a unit: whole in a pipe, rounded with a prefix for people."""

    value: float
    unit: Unit = "count"

    def plain(self) -> str:
        """The number itself: bytes, seconds, operations."""
        whole = float(self.value).is_integer() and abs(self.value) < 2**63
        if whole and self.unit != "seconds":
            return str(int(self.value))
        return f"{self.value:.6g}"

    def __str__(self) -> str:
        match self.unit:
            case "bytes":
                return _scaled(self.value, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))
            case "seconds":
                return _seconds(self.value)
            case "ratio":
                return f"{self.value:.3g}"
        return _scaled(self.value, 1000, ("", "k", "M", "G", "T", "P"))


Cell = str | Quantity


@record
class Table:
    """Rows under named columns; `numbers` are the columns that align to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: tuple[int, ...] = ()
    header: bool = True

    def plain(self) -> str:
        """Tab-separated lines, the names of the columns first; cells hold no tabs or newlines."""
        lines = [self.columns] if self.header else []
        texts = [tuple(_flat(cell) for cell in row) for row in self.rows]
        return "".join("\t".join(line) + "\n" for line in [*lines, *texts])


@record
class Report:
    """Several tables."""

    tables: tuple[Table, ...]

    def plain(self) -> str:
        """The tables one after the other; where there are several, each under `# title`."""
        if len(self.tables) == 1:
            return self.tables[0].plain()
        return "\n".join(f"# {table.title}\n{table.plain()}" for table in self.tables)

    def __str__(self) -> str:
        """The tables in columns, for `print`."""
        return "\n\n".join(_aligned(table) for table in self.tables)


def _aligned(table: Table) -> str:
    rows = [table.columns, *(tuple(str(c) for c in row) for row in table.rows)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(table.columns))]
    lines = [table.title]
    for row in rows if table.header else rows[1:]:
        cells = [
            cell.rjust(width) if k in table.numbers else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _flat(cell: Cell) -> str:
    text = cell.plain() if isinstance(cell, Quantity) else cell
    return " ".join(text.split())


def _scaled(value: float, base: int, prefixes: tuple[str, ...]) -> str:
    amount = float(value)
    for prefix in prefixes:
        # 999.7 would round to a fourth digit
        if abs(amount) < base - 0.5 or prefix == prefixes[-1]:
            break
        amount /= base
    text = f"{amount:.0f}" if prefix == prefixes[0] or abs(amount) >= 100 else f"{amount:.3g}"
    return f"{text} {prefix}".rstrip()


def _seconds(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g} s"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"
