"""Finds the operations that update an accumulator, the only ones whose order may change.

In a function that allows reassociation, a flat operation that folds a carried value with new
terms, and is what the loop yields, may be reordered and fused with a product: LLVM then keeps
several partial results in vector registers. All other arithmetic keeps NumPy's bits.
"""

from __future__ import annotations

from collections.abc import Iterable

from einloom.backends.cpu.emit_arithmetic import Flags
from einloom.ir.expressions import Apply, Cast, Expression, Local
from einloom.ir.loops import Carried, If, Let, Load, LoopStatement, Store
from einloom.ir.ops import is_flat

_UPDATE = Flags(real="reassoc contract")
_TERM = Flags(real="contract")  # a product that may fuse with the sum that it is added to


def carried_updates(
    carried: Iterable[Carried], yields: Iterable[Expression], body: Iterable[LoopStatement]
) -> dict[bytes, Flags]:
    """Flags by digest of the operations in a loop's body that update its carried values.

    Looks through `select`, casts, `let` and the carried values of an `if` in the body.
    """
    names = {item.name for item in carried}
    lets: dict[str, Expression] = {}
    branches: dict[str, list[Expression]] = {}
    for statement in body:
        if isinstance(statement, Let):
            lets[statement.name] = statement.value
        elif isinstance(statement, If):
            for k, item in enumerate(statement.carried):
                if isinstance(item.initial, Local) and item.initial.name in names:
                    names.add(item.name)
                both = (statement.then_yields, statement.otherwise_yields)
                branches[item.name] = [side[k] for side in both if len(side) > k]
    found: dict[bytes, Flags] = {}
    pending = list(yields)
    visited: set[bytes] = set()
    while pending:
        current = pending.pop()
        if current.digest in visited:
            continue
        visited.add(current.digest)
        match current:
            case Local() if current.name in lets:
                pending.append(lets[current.name])
            case Local():
                pending.extend(branches.get(current.name, ()))
            case Cast():
                pending.append(current.value)
            case Apply() if current.op == "select":
                pending.extend(current.arguments[1:])
            case Apply() if _folds(current, names):
                found.update(_marks(current, lets))
    return found


def stored_updates(statement: Store) -> dict[bytes, Flags]:
    """The same for `A[i] = A[i] + ...`, an accumulator that lives in memory."""
    value = statement.value
    if not (isinstance(value, Apply) and is_flat(value.op)):
        return {}
    for argument in value.arguments:
        same = isinstance(argument, Load) and argument.buffer == statement.buffer
        if same and argument.indices == statement.indices:  # type: ignore[attr-defined]
            return _marks(value, {})
    return {}


def _folds(update: Apply, names: set[str]) -> bool:
    """Whether an operation folds one of the carried values with other terms."""
    return is_flat(update.op) and any(
        isinstance(argument, Local) and argument.name in names for argument in update.arguments
    )


def _marks(update: Apply, lets: dict[str, Expression]) -> dict[bytes, Flags]:
    marks = {update.digest: _UPDATE}
    if update.op == "add":
        for argument in update.arguments:
            term = lets.get(argument.name, argument) if isinstance(argument, Local) else argument
            if isinstance(term, Apply) and term.op == "mul":
                marks[term.digest] = _TERM
    return marks
