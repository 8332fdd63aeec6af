"""Maps that read one way and write another: square tiles, so that cache lines are used whole.

In `T[j, i] = A[i, j]` one side's cells lie side by side along `i` and the other's along `j`.
Both ranks are cut into blocks. A plain copy goes through registers, a square of vectors at a
time (the statement `transpose`); any other body is computed cell by cell, block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from einloom.ir import extents as ext
from einloom.ir.definitions import inline
from einloom.ir.expressions import Access, Apply, Expression, Index, Literal, Local
from einloom.ir.loops import Carried, For, If, Let, LoopStatement, Store
from einloom.ir.machine import Machine
from einloom.ir.node import postorder
from einloom.ir.ops import apply
from einloom.ir.record import record
from einloom.ir.types import COMPLEX, Scalar, i64
from einloom.passes.lowering.copies import MOST_LANES, Copy, cell_of, copy_of, is_direct, transposed
from einloom.passes.lowering.order import moves_by_one
from einloom.passes.lowering.products.blocking import Tiling
from einloom.passes.lowering.products.factors import Run, accesses_of, element_bytes, runs_of
from einloom.passes.lowering.products.panels import Variables, run_extent, spread
from einloom.passes.lowering.products.tiles import shifted

if TYPE_CHECKING:
    from einloom.passes.lowering.nests import Nest

MakeBlock = Callable[[Expression, Expression], list[LoopStatement]]
"""What is done with a block of a rank: its first cell and how many it has."""

WRITTEN, READ, NARROW = 128, 64, 32
"""Cells of a block both ways, and of narrow dtypes: measured on 64 MB, whose rows lie on pages of
their own. What a block touches stays in the second cache until it has been used whole."""
FEWEST_LANES, MOST_COVERED = 4, 1.25
"""Lanes of the tiles where those of whole registers would copy more than so many times the cells.
There are two sizes of tiles in all, since each is compiled for itself."""
CELLS = 32
"""Cells both ways of a block that is computed cell by cell: 16 KiB of c128, in the first cache."""


@record
class Transposition:
    """A map whose cells are written side by side along `written` and read so along `read`.

    `outer`: the other indices of the result, in its order. `copy`: what the map copies, where
    that is all it does.
    """

    outer: tuple[Run, ...]
    written: Run
    read: Run
    copy: Copy | None


def transposition_of(nest: Nest) -> Transposition | None:
    """What a nest transposes, or None where it does something else."""
    statement, context = nest.statement, nest.builder.context
    if not _is_plain(nest):
        return None
    (target,) = statement.targets
    body = inline(statement.body, context.functions)
    reads = list(dict.fromkeys(part for part in postorder(body) if isinstance(part, Access)))
    sites = [*reads, Access(target.name, statement.indices)]
    if not all(is_direct(site, context) for site in sites):
        return None
    written = _unit(sites[-1], nest)
    if written is None:
        return None
    units = [_unit(site, nest) for site in reads if Index(written) in site.indices]
    read = next((unit for unit in units if unit not in (None, written)), None)
    if read is None:
        return None
    names = [e.name for e in statement.indices if isinstance(e, Index)]
    runs = runs_of(names, accesses_of(nest, statement, body), body)
    last = {run[-1]: run for run in runs}
    if written not in last or read not in last:
        return None
    copy = copy_of(body, context) if _scalar(target.name, nest).kind != COMPLEX else None
    outer = tuple(run for run in runs if run[-1] not in (written, read))
    return Transposition(outer, last[written], last[read], copy)


def tiling_for(nest: Nest, sizes: Mapping[str, int], machine: Machine) -> Tiling | None:
    """The tiles of a nest that transposes, for the registers of a machine.

    None where it does not, or is too small or too narrow for tiles.
    """
    found = transposition_of(nest)
    if found is None:
        return None
    body = inline(nest.statement.body, nest.builder.context.functions)
    tensors = {part.tensor for part in postorder(body) if isinstance(part, Access)}
    tensors.add(nest.statement.targets[0].name)
    element = element_bytes(_scalar(tensor, nest) for tensor in sorted(tensors))
    sides = [ext.evaluate(_size(nest, run), sizes) for run in (found.written, found.read)]
    lanes = min(MOST_LANES, machine.lanes(element))
    if found.copy is None or lanes < 2:
        return Tiling(1, CELLS, CELLS) if min(sides) >= CELLS else None
    covered = prod(-(-side // lanes) * lanes for side in sides)
    if covered > MOST_COVERED * prod(sides):
        lanes = min(lanes, FEWEST_LANES)
    read = READ if element >= 4 else NARROW
    return Tiling(lanes, WRITTEN, read) if min(sides) >= lanes else None


def _is_plain(nest: Nest) -> bool:
    """Whether each cell of one tensor is computed by itself, at the top of a function."""
    statement = nest.statement
    indices = statement.indices
    plain = (
        nest.sliced
        and not nest.place.inside
        and not nest.scatters
        and not nest.fills
        and not statement.reductions
        and statement.condition is None
        and len(statement.targets) == 1
    )
    return plain and all(isinstance(e, Index) for e in indices) and len(set(indices)) > 1


def _unit(site: Access, nest: Nest) -> str | None:
    """The last index of an access, if its cells lie side by side along it."""
    last = site.indices[-1] if site.indices else None
    if not isinstance(last, Index):
        return None
    by_one = moves_by_one(site.tensor, site.indices, last.name, nest.builder.context)
    return last.name if by_one else None


def _scalar(tensor: str, nest: Nest) -> Scalar:
    dtype = nest.builder.context.type_of(tensor).dtype
    assert isinstance(dtype, Scalar)
    return dtype


def transposing_loops(
    nest: Nest, transposition: Transposition, tiling: Tiling
) -> list[LoopStatement]:
    """One parallel loop over the blocks of the rank along which is written."""
    return _Blocks(nest, transposition, tiling).loops()


@dataclass
class _Blocks:
    nest: Nest
    transposition: Transposition
    tiling: Tiling

    def loops(self) -> list[LoopStatement]:
        """Blocks of the written rank at each of the outermost cells, shared out to threads.

        The last block takes what is left over, so that a block is shorter than others only where
        it is alone.
        """
        nest, transposition, side = self.nest, self.transposition, Literal(self.tiling.written)
        builder, outer = nest.builder, transposition.outer
        unit, first = builder.fresh("unit"), builder.fresh("first")
        total = run_extent(nest, transposition.written)
        whole = Apply("floordiv", (_size(nest, transposition.written), side))
        blocks = apply("max", whole, Literal(1))
        body: list[LoopStatement] = []
        block: Expression = Local(unit)
        variables: Variables = {}
        if outer:
            cell, block = self.split(unit, builder.scalar(blocks), body)
            variables = spread(nest, outer[:1], cell, body)
        body.append(Let(first, Apply("mul", (block, side))))
        rest = Apply("sub", (total, Local(first)))
        is_last = Apply("lt", (rest, Literal(2 * self.tiling.written)))
        count = builder.bind(Apply("select", (is_last, rest, side)), "count", body)
        names = [(run, builder.fresh(run[-1])) for run in outer[1:]]
        for run, name in names:
            variables.update(spread(nest, (run,), Local(name), []))
        inside = self.block(variables, Local(first), count)
        for run, name in reversed(names):
            inside = [For(name, Literal(0), run_extent(nest, run), tuple(inside))]
        units = apply("mul", blocks, *(_size(nest, run) for run in outer[:1]))
        loop = For(unit, Literal(0), builder.scalar(units), (*body, *inside), "parallel")
        return [loop]

    def split(
        self, unit: str, blocks: Expression, out: list[LoopStatement]
    ) -> tuple[Expression, Expression]:
        """The outermost cell and the block that a unit is; no division where blocks are alone."""
        cell, block = self.nest.builder.fresh("cell"), self.nest.builder.fresh("block")
        quotient = Apply("floordiv", (Local(unit), blocks))
        out.append(
            If(
                Apply("gt", (blocks, Literal(1))),
                (),
                (),
                (Carried(cell, i64, Local(unit)), Carried(block, i64, Literal(0))),
                (quotient, Apply("mod", (Local(unit), blocks))),
            )
        )
        return Local(cell), Local(block)

    # -- one block of the written rank

    def block(
        self, variables: Variables, first: Expression, count: Expression
    ) -> list[LoopStatement]:
        lanes, read = self.tiling.lanes, self.transposition.read
        if self.transposition.copy is None or lanes < 2:
            side = self.tiling.read
            return [
                self.in_steps(
                    read, side, lambda at, size: self.cells(variables, first, count, at, size)
                )
            ]
        total = run_extent(self.nest, read)
        fits = apply("and", *(Apply("ge", (extent, Literal(lanes))) for extent in (count, total)))
        tiles = self.tiles(variables, first, count)
        return [
            If(fits, tuple(tiles), tuple(self.cells(variables, first, count, Literal(0), total)))
        ]

    def in_steps(self, run: Run, side: int, make: MakeBlock) -> LoopStatement:
        """A loop over blocks of a rank, the last of which may be shorter."""
        builder = self.nest.builder
        step, at = builder.fresh("step"), builder.fresh("at")
        body: list[LoopStatement] = [Let(at, Apply("mul", (Local(step), Literal(side))))]
        left = Apply("sub", (run_extent(self.nest, run), Local(at)))
        size = builder.bind(apply("min", left, Literal(side)), "size", body)
        body.extend(make(Local(at), size))
        steps = Apply("ceildiv", (_size(self.nest, run), Literal(side)))
        return For(step, Literal(0), builder.scalar(steps), tuple(body))

    def cells(
        self,
        variables: Variables,
        first: Expression,
        count: Expression,
        at: Expression,
        size: Expression,
    ) -> list[LoopStatement]:
        """One cell after the other: `count` from `first` along the written rank, for each of
        `size` from `at` along the other."""
        nest, transposition = self.nest, self.transposition
        row, column = nest.builder.fresh("row"), nest.builder.fresh("column")
        here = {
            **variables,
            **spread(nest, (transposition.read,), apply("add", at, Local(row)), []),
            **spread(nest, (transposition.written,), apply("add", first, Local(column)), []),
        }
        inside: list[LoopStatement] = []
        nest.store(here, nest.body(here, inside), inside)
        across = For(column, Literal(0), count, tuple(inside), "vector")
        return [For(row, Literal(0), size, (across,))]

    # -- square tiles

    def tiles(
        self, variables: Variables, first: Expression, count: Expression
    ) -> list[LoopStatement]:
        """Tiles all over the block. A last one that sticks out is moved back: it writes some
        cells a second time, with the same values."""
        builder, lanes = self.nest.builder, self.tiling.lanes
        total = run_extent(self.nest, self.transposition.read)

        def some(at: Expression, size: Expression) -> list[LoopStatement]:
            down, across = builder.fresh("down"), builder.fresh("across")
            inside: list[LoopStatement] = []
            step = Literal(lanes)
            here = apply("add", at, Apply("mul", (Local(across), step)))
            row = apply("min", here, Apply("sub", (total, step)))
            column = apply("min", Apply("mul", (Local(down), step)), Apply("sub", (count, step)))
            row_at = builder.bind(row, "row", inside)
            column_at = builder.bind(apply("add", first, column), "column", inside)
            self.tile(variables, row_at, column_at, inside)
            inner = For(across, Literal(0), Apply("ceildiv", (size, step)), tuple(inside))
            return [For(down, Literal(0), Apply("ceildiv", (count, step)), (inner,))]

        return [self.in_steps(self.transposition.read, self.tiling.read, some)]

    def tile(
        self, variables: Variables, row: Expression, column: Expression, out: list[LoopStatement]
    ) -> None:
        """One square: read along the read rank, written along the other."""
        nest, transposition, lanes = self.nest, self.transposition, self.tiling.lanes
        assert transposition.copy is not None
        (target,) = nest.statement.targets
        dtype = _scalar(target.name, nest)
        builder, indices = nest.builder, nest.statement.indices

        def at(down: int, across: int) -> Variables:
            return {
                **variables,
                **spread(nest, (transposition.read,), shifted(row, across), []),
                **spread(nest, (transposition.written,), shifted(column, down), []),
            }

        rows = [at(k, 0) for k in range(lanes)]
        columns = transposed(builder, transposition.copy, rows, dtype, out)
        write = builder.buffer(target.name, write=True)
        for k, value in enumerate(columns):
            out.append(Store(write, cell_of(indices, at(0, k)), value))


def _size(nest: Nest, run: Run) -> Expression:
    return apply("mul", *(nest.typing.extents[name] for name in run))
