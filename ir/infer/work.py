"""Inference of single statements: names, ranks, extents, dtypes; scans are in `scans.py`."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from einloom.ir import extents as ext
from einloom.ir.definitions import functions_of, monoids_of
from einloom.ir.errors import (
    Diagnostic,
    EinloomError,
    Location,
    ParseError,
    ShapeError,
    UnsupportedError,
)
from einloom.ir.expressions import Access, Expression, Index
from einloom.ir.infer import scans
from einloom.ir.infer.cycles import cycle_through
from einloom.ir.infer.result import UNKNOWN, EinsumTyping, Equality, Unresolved
from einloom.ir.names import counted, unique_name, written_names
from einloom.ir.node import postorder
from einloom.ir.program import (
    Call,
    Constant,
    Einsum,
    Function,
    Kernel,
    Module,
    Monoid,
    Scan,
    Statement,
    Target,
)
from einloom.ir.promotion import Typing
from einloom.ir.ranges import check_reach, is_injective
from einloom.ir.types import DType, Rank, TensorType
from einloom.ir.typing import Lookup, body_typings, reduced_dtypes, result_dtypes

MOST_NAMES = 8  # in a hint
MOST_HINTS = 20  # near matches are looked for this often, so that a flood of errors stays quick


@dataclass
class Work:
    """The state of one inference.

    `trying`: a trial pass over a scan, whose complaints are thrown away. `remembered`: the types
    of the states that the pass before it arrived at, and whether they are weak still.
    `literals`: the dtypes of the literals that states without a declaration begin with.
    `rewritten`: those of them that this pass has seen a write of.
    """

    module: Module
    tensors: MutableMapping[str, TensorType] = field(default_factory=dict)
    einsums: dict[Einsum, EinsumTyping] = field(default_factory=dict)
    checks: list[Equality] = field(default_factory=list)
    states: MutableMapping[str, Scan] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    hidden: MutableMapping[str, Scan] = field(default_factory=dict)
    diagnostics: dict[tuple[type[EinloomError], Diagnostic], None] = field(default_factory=dict)
    symbols: dict[str, None] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    monoids: dict[str, Monoid] = field(default_factory=dict)
    later: set[str] = field(default_factory=set)
    cycles: set[frozenset[str]] = field(default_factory=set)
    open_states: list[str] = field(default_factory=list)
    weak_states: set[str] = field(default_factory=set)
    literals: dict[str, DType] = field(default_factory=dict)
    rewritten: set[str] = field(default_factory=set)
    remembered: dict[str, tuple[TensorType, bool]] = field(default_factory=dict)
    trying: bool = False

    def run(self) -> None:
        self.functions = functions_of(self.module)
        self.monoids = monoids_of(self.module)
        for item in self.module.inputs:
            if item.type is None:
                self.symbols[item.name] = None
                continue
            for rank in item.type.ranks:
                self.symbols.update(dict.fromkeys(sorted(ext.symbols_in(rank.extent))))
            self.declare(item.name, item.type, item.location)
        self.later = {name for s in self.module.body for name in written_names(s)}
        for statement in self.module.body:
            self.statement(statement, {})
        for name in self.module.outputs:
            if name in self.hidden:
                self.complain(ParseError, *self.hidden_message(name, self.module.location))
            elif name not in self.tensors and name not in self.broken:
                message = f"result {name} is not defined"
                hint = self.near(name) or self.defined_hint()
                self.complain(ParseError, message, self.module.location, hint)

    def trial(self) -> Work:
        """A copy whose findings are thrown away, but for the types of the states."""
        return Work(
            self.module,
            ChainMap({}, self.tensors),
            states=ChainMap({}, self.states),
            broken=set(self.broken),
            hidden=ChainMap({}, self.hidden),
            symbols=self.symbols,
            functions=self.functions,
            monoids=self.monoids,
            later=self.later,
            open_states=list(self.open_states),
            remembered=dict(self.remembered),
            trying=True,
        )

    # -- complaints

    def complain(
        self,
        kind: type[EinloomError],
        message: str,
        where: Location | None,
        hint: str | None = None,
    ) -> None:
        self.diagnostics[kind, Diagnostic(message, where, hint)] = None

    def near(self, name: str) -> str | None:
        if self.trying or len(self.diagnostics) >= MOST_HINTS:
            return None
        match = get_close_matches(name, [*self.tensors, *self.symbols], 1)
        return f"did you mean {match[0]}?" if match else None

    def defined_hint(self) -> str:
        """What could stand for a result that is like no name."""
        inputs = {item.name for item in self.module.inputs}
        names = [n for n in self.tensors if n not in inputs and n not in self.hidden]
        if not names:
            return "define it by a statement of the program"
        rest = ", ..." if len(names) > MOST_NAMES else ""
        return f"the program defines {', '.join(names[:MOST_NAMES])}{rest}"

    def hidden_message(self, name: str, where: Location | None) -> tuple[str, Location | None, str]:
        index = self.hidden[name].index
        return (
            f"{name} is defined inside the scan over {index} and is not visible after it",
            where,
            f"make {name} a state of the scan, or compute it after the scan from its states",
        )

    def declare(self, name: str, type_: TensorType, where: Location | None) -> None:
        if name in self.tensors and name not in self.open_states:
            self.complain(
                ParseError,
                f"{name} is defined twice",
                where,
                "a tensor is defined once; give the second one another name",
            )
        labels = [rank.name for rank in type_.ranks]
        for label in dict.fromkeys(x for x in labels if labels.count(x) > 1):
            self.complain(ParseError, f"rank {label} appears twice in the type of {name}", where)
        self.tensors[name] = type_

    # -- statements

    def statement(self, statement: Statement, scope: dict[str, Expression]) -> None:
        match statement:
            case Einsum():
                try:
                    self.einsum(statement, scope)
                except Unresolved:
                    self.give_up(statement)
                except EinloomError as error:
                    self.failed(error, statement)
            case Scan():
                scans.scan(self, statement, scope)
            case Kernel():
                for inner in statement.body:
                    if isinstance(inner, Kernel):
                        self.complain(
                            UnsupportedError,
                            f"kernel {inner.name} stands inside kernel {statement.name}",
                            inner.location,
                            "kernels do not nest: put its statements into the outer one",
                        )
                        self.broken.update(written_names(inner))
                    else:
                        self.statement(inner, scope)
            case Constant():
                self.declare(statement.name, statement.type, statement.location)
            case Call():
                self.call(statement)

    def call(self, statement: Call) -> None:
        for argument in statement.arguments:
            try:
                self.known(argument)
            except Unresolved:
                continue
        for target in statement.targets:
            if target.type is None:
                self.broken.add(target.name)
                self.complain(
                    ParseError,
                    f"the result {target.name} of a call needs a type",
                    statement.location,
                    f"{target.name}: f32[...] = call ...",
                )
            else:
                self.declare(target.name, target.type, statement.location)

    def failed(self, error: EinloomError, statement: Statement) -> None:
        """Record an error raised while a statement was typed, and go on with the next one."""
        where = error.diagnostics[0].location or statement.location
        self.complain(type(error), error.message, where, error.diagnostics[0].suggestion)
        self.give_up(statement)

    def give_up(self, statement: Statement) -> None:
        self.broken.update(n for n in written_names(statement) if n not in self.tensors)

    def known(self, access: Access) -> TensorType:
        """The type of the tensor that is read; complains and raises Unresolved otherwise."""
        name = access.tensor
        if name in self.broken:
            raise Unresolved
        if name in self.hidden:
            self.complain(ParseError, *self.hidden_message(name, access.location))
            raise Unresolved
        if name in self.tensors:
            return self.tensors[name]
        message, hint = f"{name} is not defined", self.near(name)
        if name in self.later:
            message = f"{name} is used before it is defined"
            hint = "statements run in order: move its definition up"
            patient = not self.trying and len(self.diagnostics) < MOST_HINTS
            cycle = cycle_through(self.module, name, access) if patient else []
            if frozenset(cycle) in self.cycles:
                raise Unresolved
            if cycle:
                self.cycles.add(frozenset(cycle))
                message = f"definitions form a cycle: {' -> '.join(cycle)}"
                hint = "a tensor cannot depend on itself; iterate with a scan"
        self.complain(ParseError, message, access.location, hint)
        raise Unresolved

    def dimensions(self, access: Access) -> tuple[Expression, ...]:
        """The extents of what an access indexes; complains about a wrong number of indices."""
        type_, name = self.known(access), access.tensor
        found = type_.extents
        if access.view == "final":
            if name not in self.states or name in self.open_states:
                message, hint = f"{name} is not the state of a scan", f"read it as {name}[...]"
                if name in self.states:
                    message = f"final({name}) is read inside the scan that computes it"
                    scan = self.states[name]
                    known = f"{scan.index}+1" if scan.down else scan.index
                    hint = f"read a state that is known by then: {name}[{known}, ...]"
                self.complain(ParseError, message, access.location, hint)
                raise Unresolved
            found = found[1:]
        if len(found) != len(access.indices):
            self.complain(
                ShapeError,
                f"{name} has {counted(len(found), 'rank')}, "
                f"{counted(len(access.indices), 'index', 'indices')} "
                f"{'is' if len(access.indices) == 1 else 'are'} given",
                access.location,
                f"its type is {type_}",
            )
            raise Unresolved
        return found

    def survey(self, statement: Einsum) -> tuple[list[Access], list[str]]:
        """What a statement reads, and its indices in order of first appearance."""
        accesses: list[Access] = []
        names: dict[str, None] = {}
        roots = [*statement.indices, statement.body]
        if statement.condition is not None:
            roots.append(statement.condition)
        for root in roots:
            for part in postorder(root):
                if isinstance(part, Access):
                    accesses.append(part)
                elif isinstance(part, Index):
                    names[part.name] = None
        names.update(dict.fromkeys(n for r in statement.reductions for n in r.indices))
        return accesses, list(names)

    def extents(
        self, statement: Einsum, scope: dict[str, Expression], accesses: list[Access]
    ) -> dict[str, Expression]:
        """The extent of each index: from `where`, the target's annotation, then accesses.

        An index that none of them settles takes its extent from the state it writes.
        """
        found: dict[str, tuple[Expression, str]] = {}

        def settle(index: str, extent: Expression, origin: str, where: Location | None) -> None:
            if index in scope or extent == UNKNOWN:
                return
            if index not in found:
                found[index] = (ext.simplify(extent), origin)
                return
            known, first = found[index]
            same = known == extent or ext.equal(known, extent)
            if same is True:
                return
            extent = ext.simplify(extent)
            message = f"index {index} has extent {known} in {first}, but {extent} in {origin}"
            if same is False:
                self.complain(ShapeError, message, where)
                raise Unresolved
            self.checks.append(Equality(known, extent, message, where))

        for bound in statement.bounds:
            settle(bound.index, bound.extent, "where", bound.location or statement.location)
        for target in statement.targets:
            if target.type is not None:
                for expression, extent in zip(statement.indices, target.type.extents, strict=False):
                    if isinstance(expression, Index):
                        settle(expression.name, extent, target.name, statement.location)
        for access in accesses:
            for expression, extent in zip(access.indices, self.dimensions(access), strict=True):
                if isinstance(expression, Index) and access.padding is None:
                    settle(expression.name, extent, access.tensor, access.location)
        for target in statement.targets:
            if target.name in self.open_states:
                type_ = self.tensors[target.name]
                for expression, extent in zip(statement.indices, type_.extents, strict=False):
                    if isinstance(expression, Index) and expression.name not in found:
                        settle(expression.name, extent, target.name, statement.location)
        return {**scope, **{name: extent for name, (extent, _) in found.items()}}

    def einsum(self, statement: Einsum, scope: dict[str, Expression]) -> EinsumTyping:
        accesses, names = self.survey(statement)
        extents = self.extents(statement, scope, accesses)
        for name in names:
            if name not in extents and self.trying:
                extents[name] = UNKNOWN
            elif name not in extents:
                self.complain(
                    ParseError,
                    f"the extent of index {name} is unknown",
                    statement.location,
                    f"read a tensor at plain {name}, annotate the result, "
                    f"or add: where {name} < ...",
                )
                raise Unresolved
        self.reduced(statement, scope, names)
        results = self.typings(statement)
        typing = EinsumTyping(extents, tuple(scope), tuple(result.dtype for result in results))
        for target, result in zip(statement.targets, results, strict=True):
            self.target(statement, target, result, typing)
        if not self.trying:
            check_reach(statement, accesses, extents, self.dimensions, self.tensors)
        self.einsums[statement] = typing
        return typing

    def reduced(self, statement: Einsum, scope: dict[str, Expression], names: list[str]) -> None:
        """Every index is mapped by the left side, reduced once, or belongs to a scan."""
        plain = {e.name for e in statement.indices if isinstance(e, Index)}
        left = {name for e in statement.indices for name in ext.indices_in(e)}
        seen: set[str] = set()
        for reduction in statement.reductions:
            for name in reduction.indices:
                why = (
                    "is the index of a scan" if name in scope
                    else "is an index of the result" if name in plain
                    else "is reduced twice" if name in seen else None
                )  # fmt: skip
                if why is not None:
                    where = reduction.location or statement.location
                    self.complain(ParseError, f"index {name} {why}", where)
                    raise Unresolved
                seen.add(name)
        for name in names:
            if name not in left and name not in seen and name not in scope:
                self.complain(
                    ParseError,
                    f"index {name} is neither on the left side nor reduced",
                    statement.location,
                    f"write the reducer, for example sum[{name}] or max[{name}]",
                )
                raise Unresolved

    def lookup(self) -> Lookup:
        return Lookup(self.tensors, self.weak_states, self.functions, self.monoids)

    def typings(self, statement: Einsum) -> list[Typing]:
        """The typing of each target: what it stores, weak where only literals went into it."""
        lookup = self.lookup()
        found = reduced_dtypes(statement, body_typings(statement, lookup), lookup)
        weak = all(typing.weak for typing in found)
        return [Typing(dtype, weak) for dtype in result_dtypes(statement, found)]

    def target(
        self, statement: Einsum, target: Target, result: Typing, typing: EinsumTyping
    ) -> None:
        name = target.name
        if name in self.open_states:
            scans.write_state(self, statement, name, result, typing)
            return
        if target.type is not None:
            type_ = target.type
            if len(type_.ranks) != len(statement.indices):
                self.complain(
                    ShapeError,
                    f"{name} is declared with {counted(len(type_.ranks), 'rank')} and defined "
                    f"with {counted(len(statement.indices), 'index', 'indices')}",
                    statement.location,
                )
                raise Unresolved
        else:
            type_ = TensorType(result.dtype, self.ranks(statement, name, result.dtype, typing))
        reduced = {index for reduction in statement.reductions for index in reduction.indices}
        mapped = [index for index in typing.own_indices() if index not in reduced]
        if not is_injective(statement.indices, mapped, typing.extents):
            self.complain(
                ParseError,
                f"several iterations may write one cell of {name}",
                statement.location,
                "say how they combine with a reducer, for example sum[...]",
            )
            raise Unresolved
        self.declare(name, type_, statement.location)

    def ranks(
        self, statement: Einsum, name: str, dtype: DType, typing: EinsumTyping
    ) -> tuple[Rank, ...]:
        """The ranks that an unannotated left side gives its result."""
        ranks: list[Rank] = []
        for position, expression in enumerate(statement.indices):
            if not isinstance(expression, Index):
                self.complain(
                    ShapeError,
                    f"the extent of rank {position} of {name} is unknown",
                    statement.location,
                    f"declare it: {name}: {dtype}[rank=extent, ...][...] = ...",
                )
                raise Unresolved
            label = unique_name(expression.name, [rank.name for rank in ranks])
            ranks.append(Rank(label, typing.extents[expression.name]))
        return tuple(ranks)
