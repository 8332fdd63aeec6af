"""Sizes of register tiles and cache blocks, from what the machine has and what is computed."""

from __future__ import annotations

from einloom.ir.machine import SMALLEST, Machine
from einloom.ir.record import record

WIDE_REGISTERS = 32
"""A processor with this many vector registers holds tiles of eight rows and three vectors."""
DEPTH = 512
"""Terms of a block: enough for the traffic of the result to be small beside the arithmetic."""
SHALLOW = (16, 64)
"""Depths for products of few terms, whose blocks then have more columns."""
PANELS_SHARE = 0.3
"""Of the second cache, what the panels of a block may take."""
MOST_COLUMNS = 1024
"""Columns of a block: what is computed on its cells afterwards finds them in a cache."""
MANY_COLUMNS = 4096
"""Columns from which a product of few rows or few terms is packed, too."""
MOST_ROWS = 512
"""Rows of a block of the result, at most."""


@record
class Blocking:
    """How a product of M rows, N columns and K terms is cut.

    A register tile has `rows` rows of `vectors` vectors of `lanes` columns, fewer vectors in a
    last panel whose columns those hold. A block of terms has `depth` of them. A block of the
    result, the unit of parallel work, has at most `block_rows` rows, a multiple of `rows`, and
    `block_columns` columns whose packed terms fit the second cache. `terms`: how many of them one
    dot instruction multiplies, for which panels keep as many side by side.
    `thin`: a block has the rows of one tile, so that columns which lie side by side are read
    where they are: a panel would be read once. `streamed`: the result is too large for the
    caches, and is written past them.
    """

    rows: int
    vectors: int
    lanes: int
    depth: int
    block_rows: int
    block_columns: int
    terms: int = 1
    thin: bool = False
    streamed: bool = False

    @property
    def columns(self) -> int:
        """Columns of a register tile, and of a panel."""
        return self.vectors * self.lanes


@record
class Tiling:
    """How a map that transposes is cut.

    Blocks have `written` cells along the rank that is written side by side, and `read` along the
    one that is read so. They are copied in square tiles of `lanes` by `lanes`, or cell by cell
    where that is 1.
    """

    lanes: int
    written: int
    read: int


@record
class Parts:
    """A reduction to few cells is folded in parts along one of its indices, for threads to share
    (`passes/lowering/parts.py`)."""

    index: str


@record
class Running:
    """A fold whose terms refer to another fold of the same data runs along with it
    (`passes/lowering/running.py`): the data is too long to be read again from the cache."""


@record
class Streaming:
    """A result too large for the caches is written past them where its loops only write it
    (`passes/lowering/streams.py`)."""


Cut = Blocking | Tiling | Parts | Running | Streaming
"""How a statement is cut; one that has none is lowered rank by rank."""


def blocking_for(
    machine: Machine, element: int, rows: int, columns: int, terms: int, together: int = 1
) -> Blocking | None:
    """The blocking of a product whose widest dtype has `element` bytes.

    `together`: the terms that one instruction multiplies, which have `element` bytes together.

    None where the product is too small or too narrow for packing to pay.
    """
    if unfit(machine, element, rows, columns, terms) is not None:
        return None
    lanes = machine.lanes(element)
    tallest = 8 if machine.vector_registers >= WIDE_REGISTERS else 4
    height = next(h for h in (2, 4, 8) if h >= min(rows, tallest))
    vectors = _vectors(columns, lanes) if together == 1 else _whole_vectors(columns, lanes)
    width = vectors * lanes
    depth = next((d for d in SHALLOW if terms <= d * together), DEPTH)
    fitting = int(PANELS_SHARE * machine.second_cache) // (depth * element * width)
    fitting = min(fitting, MOST_COLUMNS // width)
    thin = rows <= height and together == 1
    wide = max(1, fitting) * width
    return Blocking(height, vectors, lanes, depth * together, MOST_ROWS, wide, together, thin)


def unfit(machine: Machine, element: int, rows: int, columns: int, terms: int) -> str | None:
    """Why packing a product of these sizes does not pay; None where it does."""
    lanes = machine.lanes(element)
    if rows * columns * terms < SMALLEST:
        return f"{rows * columns * terms} multiplications are fewer than {SMALLEST}"
    if rows < 2:
        return "it has a single row"
    if columns < lanes:
        return f"{columns} columns do not fill a vector of {lanes}"
    if (rows < 4 or terms < 8) and columns < MANY_COLUMNS:
        few = f"{rows} rows" if rows < 4 else f"{terms} terms"
        return f"{few} are few, and so are {columns} columns"
    return None


def _vectors(columns: int, lanes: int) -> int:
    """Three vectors reuse a row most; two where so few columns would leave most of them over."""
    return 3 if columns >= 2 * 3 * lanes or 2 * lanes < columns <= 3 * lanes else 2


def _whole_vectors(columns: int, lanes: int) -> int:
    """The same where all tiles have one width: two if three would compute a tenth more in vain."""
    wide, narrow = (-(-columns // (v * lanes)) * v for v in (3, 2))
    return 3 if wide <= 1.1 * narrow else 2
