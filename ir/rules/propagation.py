"""Reads of copies and of uniform tensors, and index expressions in normal form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from einloom.ir import extents as ext
from einloom.ir.expressions import Access, Cast, Expression, Index, Literal, Value
from einloom.ir.node import postorder
from einloom.ir.program import Constant, Einsum
from einloom.ir.promotion import numpy_dtype
from einloom.ir.ranges import is_inside
from einloom.ir.rewrite.graph import Slot
from einloom.ir.rewrite.indices import plain_left, rebuild_in_context
from einloom.ir.rewrite.patterns import Found, Match, constant_value
from einloom.ir.rewrite.rule import ExpressionRule
from einloom.ir.rewrite.scope import Scope
from einloom.ir.rewrite.values import literal_of
from einloom.ir.types import Quantized, Scalar, TensorType

# A constant that is larger is not searched for a single value.
MOST_BYTES_SEARCHED = 1 << 20


def definition_of(expression: Expression, scope: Scope) -> tuple[Access, Slot] | None:
    """A plain read, and the statement before it that defines what it reads."""
    if not isinstance(expression, Access) or expression.view:
        return None
    slot = scope.graph.visible(expression.tensor, scope.slot)
    return None if slot is None else (expression, slot)


# ---- copies -------------------------------------------------------------------------------


def copied(statement: object) -> Access | None:
    """What a statement copies: `B[i, j] = A[j, i]`, also a part, but not `B[i, i] = A[i, i]`."""
    if not isinstance(statement, Einsum) or len(statement.targets) != 1:
        return None
    body = statement.body
    if not isinstance(body, Access) or body.view or body.padding is not None:
        return None
    if statement.reductions or statement.condition is not None:
        return None
    return body if plain_left(statement) is not None else None


def _read_of_a_copy(expression: Expression, scope: Scope) -> Match | None:
    found = definition_of(expression, scope)
    if found is None:
        return None
    access, slot = found
    original = copied(slot.statement)
    if original is None:
        return None
    return {"access": access, "original": original, "copy": slot.statement}


def stores_the_same(match: Match, scope: Scope) -> bool:
    """The copy has the dtype, the format and the fill of what it copies."""
    original = scope.graph.types[match["original"].tensor]
    copy = scope.graph.types[match["access"].tensor]
    return not isinstance(original.dtype, Quantized) and _storage(original) == _storage(copy)


def _storage(type_: TensorType) -> tuple[object, ...]:
    return type_.dtype, type_.format, type_.fill, type_.encrypted


def stays_in_range(match: Match, scope: Scope) -> bool:
    """What was out of the copy's range is out of the original's.

    A plain index of the reader runs over the copy's rank. Any other is only safe where the copy
    permutes whole ranks.
    """
    plain = all(isinstance(e, Index) for e in match["access"].indices)
    whole = all(isinstance(e, Index) for e in match["original"].indices)
    return whole or (plain and match["access"].padding is None)


def _read_of_the_original(match: Match, scope: Scope) -> Expression:
    access, original, copy = match["access"], match["original"], match["copy"]
    values: Mapping[str, Expression] = {
        e.name: value
        for e, value in zip(copy.indices, access.indices, strict=True)
        if isinstance(e, Index)
    }

    def change(current: Expression) -> Expression:
        return values.get(current.name, current) if isinstance(current, Index) else current

    indices = tuple(rebuild_in_context(e, change, change) for e in original.indices)
    moved: Access = replace(access, tensor=original.tensor, indices=indices)
    return moved


# ---- uniform tensors ----------------------------------------------------------------------


def _read_of_a_uniform_tensor(expression: Expression, scope: Scope) -> Match | None:
    found = definition_of(expression, scope)
    if found is None or found[0].padding is not None:
        return None
    access, slot = found
    dtype = scope.graph.types[access.tensor].dtype
    value = uniform_value(slot.statement)
    if value is None or not isinstance(dtype, Scalar):
        return None
    literal = literal_of(value, dtype)
    if literal is None:
        return None
    return {"access": access, "value": Cast(dtype, literal)}


def uniform_value(statement: object) -> Value | None:
    """The one value of all cells of a tensor, or None."""
    if isinstance(statement, Einsum):
        if len(statement.targets) != 1 or statement.reductions or statement.condition is not None:
            return None
        return None if plain_left(statement) is None else constant_value(statement.body)
    if isinstance(statement, Constant) and statement.path is None:
        return _single_value(statement)
    return None


def _single_value(statement: Constant) -> Value | None:
    import numpy as np

    dtype, data = statement.type.dtype, statement.data
    if not isinstance(dtype, Scalar) or not 0 < len(data) <= MOST_BYTES_SEARCHED:
        return None
    size = numpy_dtype(dtype).itemsize
    if data != data[:size] * (len(data) // size):
        return None
    value = np.frombuffer(data[:size], numpy_dtype(dtype).newbyteorder("<"))[0]
    return value.item() if dtype.name != "bf16" else float(value)


def is_inside_its_ranks(match: Match, scope: Scope) -> bool:
    """The read is proved to be in range: it could not have been refused."""
    access: Access = match["access"]
    limits = scope.graph.types[access.tensor].extents
    return all(
        (isinstance(e, Index) or is_inside(e, limit, scope.extents))
        for e, limit in zip(access.indices, limits, strict=True)
    )


# ---- index expressions --------------------------------------------------------------------


def _reducible_index(expression: Expression, scope: Scope) -> Match | None:
    if not isinstance(expression, Access):
        return None
    indices = tuple(_shorter(e) for e in expression.indices)
    return {"access": expression, "indices": indices} if indices != expression.indices else None


def _shorter(index: Expression) -> Expression:
    if isinstance(index, Index | Literal):
        return index
    simple = ext.simplify(index)
    return simple if _size(simple) < _size(index) else index


def _size(expression: Expression) -> int:
    return sum(1 for _ in postorder(expression))


def plain_index_runs_over_the_rank(match: Match, scope: Scope) -> bool:
    """An index that becomes plain has the extent of the rank, which plain indices must have."""
    access: Access = match["access"]
    limits = scope.graph.types[access.tensor].extents
    limits = limits[1:] if access.view == "final" else limits
    for old, new, limit in zip(access.indices, match["indices"], limits, strict=True):
        if new != old and isinstance(new, Index):
            extent = scope.extents.get(new.name)
            if extent is None or ext.equal(extent, limit) is not True:
                return False
    return True


PROPAGATION = (
    ExpressionRule(
        "index_expression_in_normal_form",
        "A[i + 1 - 1] = A[i] where i runs over the whole rank",
        ("Access",),
        source="polynomials over indices and extents, ir/extents.py",
        pattern=Found(_reducible_index),
        conditions=(plain_index_runs_over_the_rank,),
        replacement=lambda match, scope: replace(match["access"], indices=match["indices"]),
        in_indices=True,
    ),
    ExpressionRule(
        "read_of_a_copy_reads_the_original",
        "B[i, j] = A[j, i] makes B[p, q] equal A[q, p]",
        ("Access",),
        source="substitution of equals",
        pattern=Found(_read_of_a_copy),
        conditions=(stores_the_same, stays_in_range),
        replacement=_read_of_the_original,
        in_indices=True,
    ),
    ExpressionRule(
        "read_of_a_uniform_tensor_is_its_value",
        "T[i] = c makes T[p] equal c, converted to the dtype of T",
        ("Access",),
        source="substitution of equals; ones operands of arXiv 2509.20020",
        pattern=Found(_read_of_a_uniform_tensor),
        conditions=(is_inside_its_ranks,),
        replacement=lambda match, scope: match["value"],
    ),
)
