"""The rule on integer literals: each fits the dtype that it takes from what it meets."""

from __future__ import annotations

from collections.abc import Iterator

from einloom.ir.definitions import combine, inline
from einloom.ir.errors import DTypeError
from einloom.ir.expressions import Access, Apply, Expression, Literal
from einloom.ir.node import Node, child_nodes
from einloom.ir.ops import OPS
from einloom.ir.program import Function, Input, Scan
from einloom.ir.promotion import value_typing
from einloom.ir.types import DType, TensorType, i64, u64
from einloom.ir.typing import Lookup, literal_fits, typings_of
from einloom.ir.verify.complaints import Complaint, complaint
from einloom.ir.verify.parts import Parts, roots_of

Read = tuple[Expression, bool, Node, Lookup]
"""An expression, whether it is an index, its owner, and what its names stand for."""


def literals_fit_their_dtypes(parts: Parts) -> Iterator[Complaint]:
    """An integer literal is a value of the dtype that it takes: no 300 is added to an i8."""
    # every integer dtype holds the others
    found = [(x.value, owner) for x, owner in parts.found(Literal) if not isinstance(owner, Input)]
    owners = [o for value, o in found if type(value) is int and not 0 <= value < 128]
    if not owners:
        return
    suspects = {id(owner) for owner in owners}
    anywhere = any(isinstance(owner, Function) for owner in owners)
    for root, is_index, owner, lookup in _reads(parts):
        if not anywhere and id(owner) not in suspects:
            continue
        for literal, dtype in _taken(root, is_index, lookup):
            if not literal_fits(literal.value, dtype):
                yield complaint(
                    f"the literal {literal.value} does not fit {dtype}",
                    literal,
                    owner,
                    hint="cast what it meets to a wider dtype, for example i64(x)"
                    if dtype not in (i64, u64)
                    else "no integer dtype is wider; f64 holds it rounded",
                    kind=DTypeError,
                )


def _reads(parts: Parts) -> Iterator[Read]:
    lookup = parts.lookup()
    for statement, _ in parts.einsums:
        for k, root in enumerate(roots_of(statement)):
            yield root, k < len(statement.indices), statement, lookup
    for place in parts.places:
        if isinstance(place.statement, Scan) and place.statement.until is not None:
            yield place.statement.until, False, place.statement, lookup
    for monoid in parts.monoids.values():
        sides = {name: TensorType(monoid.dtype) for name in (monoid.left, monoid.right)}
        inside = Lookup(sides, set(), parts.functions, parts.monoids)
        combined = combine(monoid, Access(monoid.left), Access(monoid.right))
        yield combined, False, monoid, inside


def _taken(root: Expression, is_index: bool, lookup: Lookup) -> Iterator[tuple[Literal, DType]]:
    """The integer literals of an expression, each with the dtype that it takes."""
    from einloom.ir.interpret.operations import argument_dtype, joined_typing

    root = inline(root, lookup.functions)
    typings = typings_of(root, lookup)
    seen: set[tuple[int, bool]] = set()
    stack: list[tuple[Node, bool, DType | None]] = [(root, is_index, None)]
    while stack:
        part, in_index, dtype = stack.pop()
        if isinstance(part, Literal):
            if type(part.value) is int:
                taken = i64 if in_index else dtype
                yield part, value_typing(part.value).dtype if taken is None else taken
            continue
        if (id(part), in_index) in seen:
            continue
        seen.add((id(part), in_index))
        inside = list(child_nodes(part))
        wanted: list[DType | None] = [None] * len(inside)
        if isinstance(part, Apply) and not in_index:
            op, arguments = OPS[part.op], [typings[id(x)] for x in part.arguments]
            if op.rule == "select":
                wanted = [None, *([joined_typing(arguments[1:]).dtype] * 2)]
            else:
                wanted = [argument_dtype(op, arguments)] * len(inside)
        below = isinstance(part, Access) or (in_index and isinstance(part, Apply))
        stack += [(x, below, w) for x, w in zip(reversed(inside), reversed(wanted), strict=True)]
