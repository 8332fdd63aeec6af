"""Inference of scans: the types of the states, by trial passes until nothing changes.

A state's first value (`RM[0, p] = -inf`) often leaves its dtype and extents open; they follow
from the body, which reads the state. The outermost scan is passed over, everything inside
included, until no state changes; then once more for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from einloom.ir import extents as ext
from einloom.ir.errors import DTypeError, EinloomError, ParseError, ShapeError, UnsupportedError
from einloom.ir.expressions import Access, Expression, Index, Literal
from einloom.ir.infer.result import UNKNOWN, EinsumTyping, Equality, Unresolved
from einloom.ir.names import nested_statements, own_names, unique_name, written_names
from einloom.ir.node import postorder
from einloom.ir.ops import apply
from einloom.ir.program import Einsum, Scan
from einloom.ir.promotion import Typing, promote_typings
from einloom.ir.types import DType, Rank, Scalar, TensorType

if TYPE_CHECKING:
    from einloom.ir.infer.work import Work

DEEPEST = 32  # scans inside scans


def scan(work: Work, statement: Scan, scope: dict[str, Expression]) -> None:
    """Type a scan and everything in it; its states are readable afterwards."""
    index = statement.index
    if index in scope:
        message = f"a scan over {index} stands inside a scan over {index}"
        work.complain(ParseError, message, statement.location, "give one of them another index")
        work.give_up(statement)
        return
    if len(scope) >= DEEPEST:
        message = f"scans nest at most {DEEPEST} deep"
        work.complain(UnsupportedError, message, statement.location)
        work.give_up(statement)
        return
    own = own_states(work, statement)
    if own is None:
        work.give_up(statement)
        return
    if not work.trying:
        settle(work, statement, scope, own)
    inner = {**scope, index: ext.simplify(statement.extent)}
    opened = one_pass(work, statement, scope, inner, own)
    if not work.trying:
        check_updated(work, statement, opened)
        check_until(work, statement, inner)
    for name in opened:
        work.open_states.remove(name)
        if UNKNOWN in work.tensors[name].extents and not work.trying:
            work.broken.add(name)
    for name in written_names(statement):
        if name in work.tensors and name not in work.states:
            work.hidden.setdefault(name, statement)


def own_states(work: Work, statement: Scan) -> list[str] | None:
    """The states that this scan declares: what `from` defines and no outer scan does."""
    names = [n for s in statement.initial for n in own_names(s) if n not in work.open_states]
    for name in names:
        if names.count(name) > 1 or name in work.tensors:
            work.complain(
                ParseError,
                f"{name} is defined twice",
                statement.location,
                "a state has one first value; give the second one another name",
            )
            return None
    return names


def settle(work: Work, statement: Scan, scope: dict[str, Expression], own: list[str]) -> None:
    """Pass over the scan quietly until the types of all states in it no longer change."""
    if all(name in work.remembered for name in own) and own:
        return
    inner = {**scope, statement.index: ext.simplify(statement.extent)}
    parts = list(nested_statements([statement]))
    for _ in range(2 + sum(len(part.initial) for part in parts if isinstance(part, Scan))):
        trial = work.trial()
        one_pass(trial, statement, scope, inner, own)
        if trial.remembered == work.remembered:
            return
        work.remembered = trial.remembered


def one_pass(
    work: Work,
    statement: Scan,
    scope: dict[str, Expression],
    inner: dict[str, Expression],
    own: list[str],
) -> list[str]:
    """Declare the states, type `from` and the body, and return the states declared."""
    for first in statement.initial:
        try:
            open_states(work, statement, first, scope, own)
        except Unresolved:
            work.give_up(first)
        except EinloomError as error:
            work.failed(error, first)
    opened = [name for name in own if name in work.tensors]
    work.open_states.extend(opened)
    complaints = len(work.diagnostics)
    unsettled = {name for name in opened if UNKNOWN in work.tensors[name].extents}
    for first in statement.initial:
        names = set(own_names(first))
        if not names & work.broken and (work.trying or not names & unsettled):
            work.statement(first, scope)
    for part in statement.body:
        work.statement(part, inner)
    for name in sorted(unsettled):
        # A trial pass that failed leaves extents open: then its error says more than this one.
        if not work.trying and len(work.diagnostics) == complaints:
            dtype = work.tensors[name].dtype
            work.complain(
                ParseError,
                f"the extents of the state {name} cannot be derived",
                statement.location,
                f"declare it: {name}: {dtype}[rank=extent, ...][0, ...] = ...",
            )
    for name in opened:
        work.remembered[name] = (work.tensors[name], name in work.weak_states)
    return opened


def open_states(
    work: Work, scan: Scan, statement: Einsum, scope: dict[str, Expression], own: list[str]
) -> None:
    """Declare the states that a statement of `from` defines, as far as they are known."""
    names = [target.name for target in statement.targets]
    if not any(name in own for name in names):
        return
    extents = work.extents(statement, scope, work.survey(statement)[0])
    for target, result in zip(statement.targets, work.typings(statement), strict=True):
        name = target.name
        if name not in own:
            continue
        work.states[name] = scan
        if target.type is not None:
            check_declared(work, scan, statement, name, target.type)
            work.tensors[name] = target.type
            continue
        is_weak = result.weak
        if is_weak and work.trying:
            work.literals[name] = result.dtype
        if name in work.remembered:
            work.tensors[name], is_weak = work.remembered[name]
        else:
            ranks = state_ranks(scan, statement, extents)
            work.tensors[name] = TensorType(result.dtype, ranks)
        if is_weak and work.trying:
            work.weak_states.add(name)


def check_declared(work: Work, scan: Scan, statement: Einsum, name: str, type_: TensorType) -> None:
    """A declared state has one rank more than its values, as long as the scan plus one."""
    states = ext.simplify(apply("add", scan.extent, Literal(1)))
    if type_.ranks and ext.equal(type_.extents[0], states) is True:
        return
    found = str(type_.extents[0]) if type_.ranks else "missing"
    work.complain(
        ShapeError,
        f"rank 0 of the state {name} must have extent {states}, it is {found}",
        statement.location,
        "a state holds its first value and one for each iteration",
    )
    raise Unresolved


def state_ranks(scan: Scan, statement: Einsum, extents: dict[str, Expression]) -> tuple[Rank, ...]:
    """The ranks of an undeclared state; UNKNOWN extents are found by the trial passes."""
    ranks = [Rank(scan.index, ext.simplify(apply("add", scan.extent, Literal(1))))]
    for expression in statement.indices[1:]:
        label = expression.name if isinstance(expression, Index) else "rank"
        extent = extents.get(label, UNKNOWN) if isinstance(expression, Index) else UNKNOWN
        ranks.append(Rank(unique_name(label, [rank.name for rank in ranks]), extent))
    return tuple(ranks)


def write_state(
    work: Work, statement: Einsum, name: str, result: Typing, typing: EinsumTyping
) -> None:
    """Check a write to a state and take from it what is still open in the state's type."""
    type_ = work.tensors[name]
    if len(type_.ranks) != len(statement.indices):
        work.complain(
            ShapeError,
            f"the state {name} has {len(type_.ranks)} ranks, its left side here has "
            f"{len(statement.indices)}",
            statement.location,
            f"its first rank is the iteration: {name}[{work.states[name].index}+1, ...]",
        )
        raise Unresolved
    ranks = list(type_.ranks)
    for position, expression in enumerate(statement.indices):
        if not isinstance(expression, Index) or expression.name in typing.scans:
            continue
        mine, known = typing.extents[expression.name], ranks[position].extent
        if known == UNKNOWN:
            ranks[position] = Rank(ranks[position].name, mine)
        elif mine not in (UNKNOWN, known):
            same = ext.equal(known, mine)
            message = f"rank {ranks[position].name} of {name} has extent {known}, here {mine}"
            if same is False:
                work.complain(ShapeError, message, statement.location)
                raise Unresolved
            if same is None:
                work.checks.append(Equality(known, mine, message, statement.location))
    dtype = state_dtype(work, statement, name, result)
    work.tensors[name] = TensorType(
        dtype, tuple(ranks), type_.format, type_.fill, type_.encrypted, location=type_.location
    )


def state_dtype(work: Work, statement: Einsum, name: str, result: Typing) -> DType:
    """The dtype of a state after a write.

    One that begins with a literal takes the dtype of what the body writes to it. Raises
    DTypeError where an undeclared state would silently lose the kind of a value.
    """
    known, computed = work.tensors[name].dtype, result.dtype
    if name in work.literals:
        if statement in work.states[name].initial:
            return known
        before = Typing(work.literals[name], weak=True)
        if name in work.rewritten:
            before = Typing(known, name in work.weak_states)
        joined = promote_typings(before, result)
        work.rewritten.add(name)
        if not joined.weak:
            work.weak_states.discard(name)
        return joined.dtype
    declared = any(
        target.name == name and target.type is not None
        for first in work.states[name].initial
        for target in first.targets
    )
    if work.trying or declared or not isinstance(known, Scalar):
        return known
    if isinstance(computed, Scalar) and _loses_kind(computed, known):
        raise DTypeError(
            f"the state {name} is {known}, a value of it is {computed}",
            location=statement.location,
            suggestion=f"declare it: {name}: {computed}[...][...] = ..., or cast the value",
        )
    return known


def _loses_kind(value: Scalar, stored: Scalar) -> bool:
    order = {"bool": 0, "signed": 1, "unsigned": 1, "float": 2, "complex": 3}
    return order[value.kind] > order[stored.kind]


def check_updated(work: Work, statement: Scan, opened: list[str]) -> None:
    written = {name for part in statement.body for name in written_names(part)}
    for name in opened:
        if name not in written and name not in work.broken:
            index = statement.index
            place = index if statement.down else f"{index}+1"
            work.complain(
                ParseError,
                f"the state {name} is never updated in the scan",
                statement.location,
                f"add a statement {name}[{place}, ...] = ... to its body",
            )


def check_until(work: Work, statement: Scan, inner: dict[str, Expression]) -> None:
    if statement.until is None:
        return
    for part in postorder(statement.until):
        if isinstance(part, Access):
            try:
                work.dimensions(part)
            except Unresolved:
                continue
    for name in ext.indices_in(statement.until):
        if name not in inner:
            work.complain(
                ParseError,
                f"until cannot use index {name}",
                statement.location,
                "reduce it in a statement of the body first",
            )
