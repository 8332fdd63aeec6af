"""Register tiles of a product of few rows: whole panels of columns are read where they lie."""

from __future__ import annotations

from dataclasses import dataclass

from einloom.ir.expressions import Access, Apply, Expression, Literal, Local
from einloom.ir.loops import For, If, Let, Load, LoopStatement
from einloom.ir.ops import apply
from einloom.passes.lowering.copies import cell_of
from einloom.passes.lowering.products.panels import Side, pack, spread
from einloom.passes.lowering.products.tiles import RegisterTiles, shifted


@dataclass
class ThinTiles(RegisterTiles):
    """Tiles whose columns are packed only in a last panel that is not full: `right` holds one."""

    reads_from: Expression | None = None

    def loops(self) -> list[LoopStatement]:
        panel, column = self.nest.builder.fresh("panel"), self.nest.builder.fresh("column")
        width = Literal(self.blocking.columns)
        self.reads_from = Local(column)
        whole = self.down(Literal(0), Local(column))
        self.reads_from = None
        rest = Side(
            self.columns.runs,
            apply("add", self.columns.first, Local(column)),
            Apply("sub", (self.columns.count, Local(column))),
            self.columns.last,
        )
        packed = pack(
            self.nest, self.product.right, rest, self.terms, self.batch, self.right,
            self.blocking.columns, self.blocking.lanes,
        )  # fmt: skip
        last = [packed, *self.down(Literal(0), Local(column))]
        fits = Apply("le", (apply("add", Local(column), width), self.columns.count))
        body = (
            Let(column, Apply("mul", (Local(panel), width))),
            If(fits, tuple(whole), tuple(last)),
        )
        return [For(panel, Literal(0), Apply("ceildiv", (self.columns.count, width)), body)]

    def right_vector(
        self, panel: Expression, term: Expression, vector: int, out: list[LoopStatement]
    ) -> Expression:
        if self.reads_from is None:
            return super().right_vector(panel, term, vector, out)
        nest, lanes, access = self.nest, self.blocking.lanes, self.product.right.value
        assert isinstance(access, Access)
        position = apply("add", self.columns.first, self.reads_from)
        variables = {
            **self.batch,
            **spread(nest, self.columns.runs, shifted(position, vector * lanes), out),
            **self.terms.at(nest, term, out),
        }
        cell = cell_of(access.indices, variables)
        return nest.builder.bind(
            Load(nest.builder.buffer(access.tensor), cell, lanes), "right", out
        )
