"""How every contraction and transposition of a module is cut, with the reasons, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from einloom.ir.expressions import Access, Expression
from einloom.ir.infer import infer
from einloom.ir.machine import SMALLEST, SMALLEST_COPY, Machine
from einloom.ir.names import nested_statements
from einloom.ir.node import postorder
from einloom.ir.program import Einsum, Module, Scan
from einloom.ir.record import record
from einloom.passes.lowering.context import context_of
from einloom.passes.lowering.function import FunctionBuilder, OperandLayout, Place
from einloom.passes.lowering.nests import Nest
from einloom.passes.lowering.products.blocking import (
    Blocking,
    Tiling,
)
from einloom.passes.lowering.products.factors import product_or_reason
from einloom.passes.lowering.products.panels import columns_in_place, read_in_place
from einloom.passes.lowering.products.plan import (
    MOST_INTERMEDIATE_CELLS,
    candidates_of,
    cut_of,
    shape_of,
    work_of,
)


@record
class Decision:
    """How the statement that defines a tensor is cut, or why it is not.

    `shape`: rows, columns and terms of a product; None of anything else. `packed`: the tensors
    that are packed into panels, and `in_place` those that are read where they lie. `reason` is
    empty where it is cut.
    """

    tensor: str
    cut: Blocking | Tiling | None
    reason: str
    shape: tuple[int, int, int] | None = None
    packed: tuple[str, ...] = ()
    in_place: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Of what the register tiles of a packed product compute, the share that is wanted."""
        if not isinstance(self.cut, Blocking) or self.shape is None:
            return 0.0
        rows, columns, _ = self.shape
        step = self.cut.lanes if self.cut.terms == 1 else self.cut.columns
        return _filled(rows, self.cut.rows) * _filled(columns, step)


def decisions_of(
    module: Module,
    layouts: Mapping[str, OperandLayout],
    sizes: Mapping[str, int],
    machine: Machine,
) -> Iterator[Decision]:
    """The decision on every contraction of two factors or more, and every transposition cut.

    The arguments are those of `blockings_of`, which takes the same decisions.
    """
    inference = infer(module)
    context = context_of(module, inference, layouts)
    candidates = set(candidates_of(module, inference, sizes))
    for outer in module.body:
        for statement in nested_statements([outer]):
            if not isinstance(statement, Einsum):
                continue
            if statement.reductions and len(_reads(statement.body)) < 2:
                continue
            name = statement.targets[0].name
            if statement not in candidates:
                if statement.reductions:
                    yield Decision(name, None, _left_out(isinstance(outer, Scan)))
                continue
            work = work_of(statement, inference, sizes)
            if work < (SMALLEST if statement.reductions else SMALLEST_COPY):
                if statement.reductions:
                    few = f"{work} multiplications are fewer than {SMALLEST}"
                    yield Decision(name, None, few)
                continue
            builder = FunctionBuilder(name, context)
            nest = Nest(builder, statement, inference.einsums[statement], Place({}, {}))
            found = _decision(nest, name, sizes, machine)
            if found.cut is not None or statement.reductions:
                yield found


def _decision(nest: Nest, name: str, sizes: Mapping[str, int], machine: Machine) -> Decision:
    cut = cut_of(nest, sizes, machine)
    product = product_or_reason(nest) if nest.statement.reductions else ""
    if isinstance(product, str):
        return Decision(name, None, cut) if isinstance(cut, str) else Decision(name, cut, "")
    shape = shape_of(nest, product, sizes)
    if isinstance(cut, str):
        return Decision(name, None, cut, shape)
    left, right = _tensors(product.left.value), _tensors(product.right.value)
    if isinstance(cut, Blocking) and cut.terms > 1:
        return Decision(name, cut, "", shape, (*right, *left))
    left_stays = read_in_place(nest, product.left, product.reduced[-1][-1])
    right_stays = isinstance(cut, Blocking) and cut.thin and columns_in_place(nest, product.right)
    sides = ((left, left_stays), (right, right_stays))
    packed = [name for names, stays in reversed(sides) if not stays for name in names]
    in_place = [name for names, stays in sides if stays for name in names]
    return Decision(name, cut, "", shape, tuple(packed), tuple(in_place))


def _left_out(in_scan: bool) -> str:
    if in_scan:
        return "it stands in a scan"
    return f"intermediates of its kernel have more than {MOST_INTERMEDIATE_CELLS} cells"


def _reads(value: Expression) -> list[Access]:
    """The accesses of an expression, each once."""
    return list(dict.fromkeys(part for part in postorder(value) if isinstance(part, Access)))


def _tensors(value: Expression) -> tuple[str, ...]:
    return tuple(dict.fromkeys(access.tensor for access in _reads(value)))


def _filled(count: int, step: int) -> float:
    return count / (-(-count // step) * step) if count else 0.0
