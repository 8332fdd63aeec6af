"""Rules on statements, once the types are known: conditions, indices, paddings, reductions."""

from __future__ import annotations

from collections.abc import Iterator

from einloom.ir import extents as ext
from einloom.ir.errors import DTypeError, EinloomError, UnsupportedError
from einloom.ir.expressions import Access, Expression, Index, Literal, Symbol
from einloom.ir.names import nested_statements, own_names
from einloom.ir.node import Node
from einloom.ir.ops import MONOIDS
from einloom.ir.program import Call, Einsum, Scan
from einloom.ir.promotion import Typing
from einloom.ir.ranges import index_text
from einloom.ir.types import BOOL, DType, Modular, Scalar, TensorType
from einloom.ir.typing import Lookup, body_typings, fold_dtypes, typing_of
from einloom.ir.verify.complaints import Complaint, complaint
from einloom.ir.verify.parts import Parts, roots_of
from einloom.ir.verify.types import is_representable

KIND_ORDER = {"bool": 0, "signed": 1, "unsigned": 1, "float": 2, "complex": 3}


def conditions_are_boolean(parts: Parts) -> Iterator[Complaint]:
    """What stands after `if` and `until` is a bool."""
    lookup = parts.lookup()
    for place in parts.places:
        statement, condition, word = place.statement, None, "if"
        if isinstance(statement, Einsum):
            condition = statement.condition
        elif isinstance(statement, Scan):
            condition, word = statement.until, "until"
        if condition is None:
            continue
        found = _typing(condition, lookup, statement)
        if not isinstance(found, Typing):
            yield found
        elif found.dtype != Scalar("bool"):
            yield complaint(
                f"the condition after {word} must be a bool, it is {found.dtype}",
                condition,
                statement,
                hint="compare it with something: ... > 0",
                kind=DTypeError,
            )


def _own(scan: Scan) -> set[str]:
    return {name for first in scan.initial for name in own_names(first)}


def _typing(expression: Expression, lookup: Lookup, owner: Node) -> Typing | Complaint:
    try:
        return typing_of(expression, lookup)
    except EinloomError as error:
        first = error.diagnostics[0]
        found = complaint(first.message, expression, owner, hint=first.suggestion, kind=type(error))
        if first.location is None:
            return found
        return found[0], type(found[1])(first.message, first.location, first.suggestion)


def indices_are_integers(parts: Parts) -> Iterator[Complaint]:
    """What stands in the brackets of an access or a left side is an integer."""
    lookup = parts.lookup()
    for access, owner in parts.found(Access):
        for expression in access.indices:
            yield from _integer(expression, f"an index of {access.tensor}", lookup, access, owner)
    for statement, _ in parts.einsums:
        for expression in statement.indices:
            where = f"an index of {statement.targets[0].name}"
            yield from _integer(expression, where, lookup, statement, statement)


def _integer(
    expression: Expression, what: str, lookup: Lookup, access: Node, owner: Node
) -> Iterator[Complaint]:
    if isinstance(expression, Index | Symbol):
        return
    if isinstance(expression, Literal) and type(expression.value) is int:
        return
    found = _typing(expression, lookup, owner)
    if not isinstance(found, Typing):
        yield found
    elif not (isinstance(found.dtype, Scalar) and found.dtype.is_integer):
        yield complaint(
            f"{what} must be an integer, {index_text(expression)} is {found.dtype}",
            expression,
            access,
            owner,
            hint="cast it: i64(...)",
            kind=DTypeError,
        )


def bounds_are_used(parts: Parts) -> Iterator[Complaint]:
    """`where` bounds each index of the statement once, and no other."""
    for statement, place in parts.einsums:
        if not statement.bounds:
            continue
        used = {name for root in roots_of(statement) for name in ext.indices_in(root)}
        used |= {name for reduction in statement.reductions for name in reduction.indices}
        scans = {scan.index for scan in place.scans}
        seen: set[str] = set()
        for bound in statement.bounds:
            message = None
            if bound.index in scans:
                message = f"where bounds {bound.index}, which is the index of a scan"
            elif bound.index not in used:
                message = f"where bounds {bound.index}, which the statement does not use"
            elif bound.index in seen:
                message = f"where bounds {bound.index} twice"
            if message:
                yield complaint(message, bound, statement)
            seen.add(bound.index)


def views_fit_their_tensors(parts: Parts) -> Iterator[Complaint]:
    """A padding is a value of the tensor; `final` of a whole state has no padding to need."""
    tensors = parts.types.tensors
    for access, owner in parts.found(Access):
        if access.padding is None or access.tensor not in tensors:
            continue
        dtype = tensors[access.tensor].dtype
        if access.view == "codes":
            dtype = Scalar("i64")
        elif access.view == "scales":
            dtype = Scalar("f32")
        if not is_representable(access.padding.value, dtype):
            yield complaint(
                f"the padding {access.padding} of {access.tensor} is no {dtype}",
                access,
                owner,
                kind=DTypeError,
            )


def accumulators_keep_the_kind(parts: Parts) -> Iterator[Complaint]:
    """An accumulator dtype holds what it folds: no float is summed in an integer."""
    lookup = parts.lookup()
    for statement, _ in parts.einsums:
        if all(reduction.accumulator is None for reduction in statement.reductions):
            continue
        typings = body_typings(statement, lookup)
        for reduction in reversed(statement.reductions):
            wanted = reduction.accumulator
            if wanted is not None:
                message = _accumulator_problem(reduction.monoid, wanted, typings)
                if message:
                    yield complaint(message, reduction, statement, kind=DTypeError)
                    break
            typings = fold_dtypes(reduction, typings, lookup.monoids)


def _accumulator_problem(monoid: str, wanted: DType, typings: list[Typing]) -> str | None:
    if monoid not in MONOIDS:
        return f"{monoid} folds in its own dtype, it takes no accumulator dtype"
    for typing in typings:
        value = typing.dtype
        if isinstance(value, Modular) or isinstance(wanted, Modular):
            if value != wanted and not (typing.weak and isinstance(wanted, Modular)):
                return f"{monoid}:{wanted} cannot fold {value}"
        elif not (isinstance(wanted, Scalar) and isinstance(value, Scalar)):
            return f"{monoid}:{wanted} cannot fold {value}"
        elif KIND_ORDER[wanted.kind] < KIND_ORDER[value.kind]:
            return f"{monoid}:{wanted} would lose the kind of what it folds, {value}"
        elif wanted.kind == BOOL and monoid in ("sum", "prod"):
            return None
    return None


def calls_take_whole_tensors(parts: Parts) -> Iterator[Complaint]:
    """A host function is handed tensors as they are; its version is not negative."""
    for place in parts.places:
        call = place.statement
        if not isinstance(call, Call):
            continue
        for argument in call.arguments:
            if argument.indices or argument.padding is not None or argument.view:
                yield complaint(
                    f"{call.function} is handed whole tensors, {argument} is not one",
                    argument,
                    call,
                    hint=f"compute it before the call and hand over its name: {argument.tensor}",
                )
        if call.version < 0:
            yield complaint(f"the version of {call.function} is negative", call)
        if place.scans and any(t.name in parts.types.states for t in call.targets):
            yield complaint(
                f"a call cannot write the state {call.targets[0].name}",
                call,
                hint="define a tensor by the call and the state from it",
                kind=UnsupportedError,
            )


def types_of_states_are_stated_once(parts: Parts) -> Iterator[Complaint]:
    """A state is typed where it gets its first value, and nowhere else."""
    for statement, _ in parts.einsums:
        for target in statement.targets:
            owner = parts.types.states.get(target.name)
            if owner is None or target.type is None or _is_first(statement, owner):
                continue
            yield complaint(
                f"the state {target.name} is typed again",
                target,
                statement,
                hint="state its type in from { ... } only",
            )


def _is_first(statement: Einsum, scan: Scan) -> bool:
    return any(first == statement for first in scan.initial)


def results_of_scans_with_until(parts: Parts) -> Iterator[Complaint]:
    """After a scan with `until` only the last state is known: its history is not read."""
    scans = [p.statement for p in parts.places if isinstance(p.statement, Scan)]
    ended = [scan for scan in scans if scan.until is not None]
    if not ended:
        return
    for scan in ended:
        inside = {id(part) for part in nested_statements([scan])}
        own = _own(scan)
        uses: list[tuple[str, Node | None]] = [
            (access.tensor, access)
            for access, owner in parts.found(Access)
            if access.view != "final" and access.tensor in own and id(owner) not in inside
        ]
        uses += [(name, None) for name in parts.module.outputs if name in own]
        for name, part in uses:
            type_: TensorType = parts.types.tensors[name]
            labels = ", ".join(rank.name for rank in type_.ranks[1:])
            yield complaint(
                f"the history of {name} is not known after a scan with until",
                part,
                scan,
                hint=f"read its last state: final({name})[{labels}]",
            )
