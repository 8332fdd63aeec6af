"""What a rule may ask while it looks at a statement: dtypes, extents, laws, costs, definitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from einloom.ir.errors import EinloomError
from einloom.ir.expressions import Apply, Cast, Expression, Pack, Project
from einloom.ir.node import child_nodes, postorder
from einloom.ir.ops import OPS, apply, is_flat
from einloom.ir.promotion import Typing, op_typing, promote_typings
from einloom.ir.rewrite.laws import Status, Validity, status
from einloom.ir.types import DType, Scalar, Tuple
from einloom.ir.typing import Lookup, typing_of

if TYPE_CHECKING:
    from einloom.ir.rewrite.graph import Graph, Slot

LIKELY_EXTENT = 64
# Rules of the op table by which the result has the promoted dtype of the operands.
SAME_AS_OPERANDS = ("arithmetic", "no-bool", "no-complex", "power", "ordered", "bitwise", "select")


def expression_cost(expression: Expression) -> float:
    """Arithmetic per element by the op table, in additions; a value used twice counts once."""
    total = 0.0
    for part in postorder(expression):
        if isinstance(part, Apply) and part.op in OPS:
            times = len(part.arguments) - 1 if is_flat(part.op) else 1
            total += OPS[part.op].cost * times
        elif isinstance(part, Apply | Cast):
            total += 1.0
    return total


@dataclass
class Typings:
    """Typings of expressions, remembered by digest: they depend on the tensors' types only."""

    lookup: Lookup
    known: dict[bytes, Typing] = field(default_factory=dict)

    def of(self, root: Expression) -> Typing:
        """The typing of an expression. Raises DTypeError for one without."""
        known = self.known
        if root.digest in known:
            return known[root.digest]
        stack: list[Expression] = [root]
        while stack:
            current = stack[-1]
            if current.digest in known:
                stack.pop()
                continue
            waiting = []
            if isinstance(current, Apply | Pack | Project | Cast):
                waiting = [
                    child
                    for child in child_nodes(current)
                    if isinstance(child, Expression) and child.digest not in known
                ]
            if waiting:
                stack.extend(waiting)
                continue
            stack.pop()
            known[current.digest] = self._one(current)
        return known[root.digest]

    def _one(self, current: Expression) -> Typing:
        match current:
            case Apply() if current.op in OPS:
                op = OPS[current.op]
                arguments = [self.known[x.digest] for x in current.arguments]
                return op_typing(op.name, op.rule, arguments)
            case Cast():
                return Typing(current.dtype)
            case Pack():
                items = [self.known[item.digest] for item in current.items]
                return Typing(Tuple(tuple(t.dtype for t in items)), all(t.weak for t in items))
        return typing_of(current, self.lookup)


@dataclass
class Scope:
    """One statement's surroundings, as rules see them.

    `extents`: of its own indices and of the enclosing scans'. `hints`: likely sizes of symbols.
    """

    slot: Slot
    graph: Graph
    typings: Typings
    strict: bool = False
    assume_no_overflow: bool = False
    cost: Callable[[Expression], float] = expression_cost
    hints: Mapping[str, int] = field(default_factory=dict)

    @property
    def extents(self) -> Mapping[str, Expression]:
        return self.slot.extents

    def typing(self, expression: Expression) -> Typing | None:
        """The typing of an expression, or None where it has none."""
        try:
            return self.typings.of(expression)
        except EinloomError:
            return None

    def dtype(self, expression: Expression) -> DType | None:
        """The dtype of an expression, or None where it has none."""
        typing = self.typing(expression)
        return None if typing is None else typing.dtype

    def operand_dtype(self, expression: Expression) -> DType | None:
        """The dtype that the root of an expression computes in.

        Comparisons give booleans, but compute in the promoted dtype of what they compare; a
        choice computes in the dtype of what it chooses from.
        """
        if not isinstance(expression, Apply) or expression.op not in OPS:
            return self.dtype(expression)
        arguments = expression.arguments[1 if expression.op == "select" else 0 :]
        try:
            if OPS[expression.op].rule in SAME_AS_OPERANDS:
                return self.typings.of(expression).dtype
            found = self.typings.of(arguments[0])
            for argument in arguments[1:]:
                found = promote_typings(found, self.typings.of(argument))
        except EinloomError:
            return None
        return found.dtype

    def same_typing(self, expression: Expression, other: Expression) -> bool:
        """Whether two expressions have a typing, and the same one, weakness included."""
        typing = self.typing(expression)
        return typing is not None and typing == self.typing(other)

    def allows(self, of: Status, dtype: DType) -> bool:
        """Whether a law of this status may be used on `dtype` here."""
        if of != "ok":
            return of == "exact"
        if isinstance(dtype, Scalar) and dtype.is_integer:
            return self.assume_no_overflow
        return not self.strict

    def may_use(self, validity: Validity, expression: Expression) -> bool:
        """Whether a law of this validity may be used at the root of an expression."""
        dtype = self.operand_dtype(expression)
        return dtype is not None and self.allows(validity.on(dtype), dtype)

    def holds(self, op: str, kind: str, dtype: DType) -> bool:
        """Whether a law of an operation may be used on `dtype` here."""
        return self.allows(status(op, kind, dtype), dtype)

    def flat(self, op: str, *arguments: Expression) -> Expression | None:
        """`op` applied to arguments, None where merging a nested `op` would change a value.

        `(a + b) + c` is written `a + b + c`, which is computed in the dtype of all three: that is
        another value if `a + b` alone is narrower, and on floats if it does not come first.
        """
        if not arguments:
            return None
        nested = [
            place
            for place, x in enumerate(arguments)
            if isinstance(x, Apply) and x.op == op and is_flat(op)
        ]
        result = apply(op, *arguments)
        if nested and len(arguments) > 1:
            whole = self.dtype(result)
            if whole is None or any(self.dtype(arguments[k]) != whole for k in nested):
                return None
            if nested != [0] and not self.holds(op, "associative", whole):
                return None
        return result

    def size(self, extent: Expression) -> float:
        """A likely value of an extent, for costs."""
        from einloom.ir.extents import evaluate, symbols_in

        bound = {name: self.hints.get(name, LIKELY_EXTENT) for name in symbols_in(extent)}
        try:
            return float(evaluate(extent, bound))
        except EinloomError:
            return float(LIKELY_EXTENT)
