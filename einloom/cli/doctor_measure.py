"""`einloom doctor --measure`: what this machine was measured to do, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einloom.report import Cell, Quantity, Table

if TYPE_CHECKING:
    from einloom.backends.measurements import Measurements, Rate
    from einloom.machine_file import Stored


def measure_and_store(faults: list[str]) -> tuple[list[Table], list[str]]:
    """Tables of what was measured now, and remarks; a file that cannot be written is a fault."""
    from einloom.ir.errors import EinloomError
    from einloom.machine_file import store
    from einloom.measuring import measure

    measured = measure()
    remarks: list[str] = []
    try:
        remarks.append(f"the measurements are in {store(measured)}")
    except EinloomError as error:
        faults.append(str(error))
    return measured_tables(measured), remarks


def measured_tables(measured: Measurements) -> list[Table]:
    """Arithmetic, memory, and fixed costs."""
    together = f"{measured.threads} threads" if measured.threads > 1 else "all threads"
    arithmetic: list[tuple[Cell, ...]] = [
        (f"{dtype} multiply-adds in registers", *_operations(rate))
        for dtype, rate in measured.tiles.items()
    ]
    arithmetic += [
        (f"{dtype} product, packed", *_operations(rate))
        for dtype, rate in measured.products.items()
    ]
    arithmetic.append(("f32 product, not packed", *_operations(measured.untiled)))
    memory: list[tuple[Cell, ...]] = []
    for level in measured.levels:
        size: Cell = "-" if level.size is None else Quantity(level.size, "bytes")
        rates = (level.read, level.copy, level.fresh)
        cells = [cell for rate in rates for cell in _bytes(rate)]
        memory.append((level.name, size, *cells))
    none = ("-", "-")
    memory.append(("transposed", "-", *none, *_bytes(measured.transposed), *none))
    fixed: list[tuple[Cell, ...]] = [
        ("starting a kernel", Quantity(measured.launch_seconds, "seconds")),
        ("sharing it out to threads", Quantity(measured.parallel_seconds, "seconds")),
    ]
    deeds = [f"{deed}, {who}" for deed in ("read", "copy", "fresh") for who in ("one", "all")]
    return [
        Table("operations per second", ("what", "1 thread", together), tuple(arithmetic), (1, 2)),
        Table("bytes per second", ("level", "size", *deeds), tuple(memory), tuple(range(1, 8))),
        Table("fixed costs", ("what", "seconds"), tuple(fixed), (1,), header=False),
    ]


def stored_row(found: Stored) -> tuple[str, str]:
    """Whether this machine was measured, as a row of the table of the machine."""
    if found.measured is None:
        return "measured", "no: einloom doctor --measure" if found.fault is None else "not usable"
    return "measured", f"yes, on {found.measured.threads} threads: {found.path}"


def _operations(rate: Rate) -> tuple[Cell, Cell]:
    return Quantity(round(rate.one)), Quantity(round(rate.together))


def _bytes(rate: Rate) -> tuple[Cell, Cell]:
    return Quantity(round(rate.one), "bytes"), Quantity(round(rate.together), "bytes")
