"""The rewrite driver: a worklist of statements, rules found by what they start with, a budget."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from einloom.ir.definitions import functions_of, monoids_of
from einloom.ir.errors import EinloomError
from einloom.ir.expressions import Expression, Index
from einloom.ir.infer import infer
from einloom.ir.node import Node
from einloom.ir.program import Einsum, Module, Scan, Statement
from einloom.ir.record import record
from einloom.ir.rewrite.graph import Graph, Slot
from einloom.ir.rewrite.indices import indices_used, with_bounds
from einloom.ir.rewrite.normalize import Normalizer
from einloom.ir.rewrite.rule import (
    Edit,
    ExpressionRule,
    Firing,
    Rule,
    RuleIndex,
    StatementRule,
    edit_of,
)
from einloom.ir.rewrite.scope import Scope, Typings, expression_cost
from einloom.ir.rewrite.sections import pruned
from einloom.ir.types import DType, Rank, TensorType
from einloom.ir.typing import Lookup, body_typings, reduced_dtypes, result_dtypes

DEFAULT_BUDGET = 1_000_000


@record
class Rewritten:
    """What rewriting gives: the module, how many rules fired, and whether the budget ran out."""

    module: Module
    firings: int
    exhausted: bool
    counts: Mapping[str, int]


def rewrite(
    module: Module,
    rules: Sequence[Rule],
    *,
    strict: bool = False,
    assume_no_overflow: bool = False,
    cost: Callable[[Expression], float] = expression_cost,
    hints: Mapping[str, int] | None = None,
    max_firings: int = DEFAULT_BUDGET,
    on_firing: Callable[[Firing], None] | None = None,
    note: Callable[[str, str], None] | None = None,
) -> Rewritten:
    """Apply rules to a module until none fires or `max_firings` have.

    The same input gives the same output: statements are visited in program order, those that a
    change may concern again, and the rules of one root in the order of the list.

    `strict`: only laws that hold bit for bit on floats. `hints`: likely sizes of symbols, for
    costs. `on_firing` hears of every replacement; `note(subject, text)` of what was dropped from
    the mapping and layout sections.
    """
    driver = _Driver(
        module, RuleIndex(tuple(rules)), strict, assume_no_overflow, cost, hints or {},
        max_firings, on_firing, note or (lambda subject, text: None),
    )  # fmt: skip
    return driver.run()


class _Driver:
    def __init__(
        self,
        module: Module,
        rules: RuleIndex,
        strict: bool,
        assume_no_overflow: bool,
        cost: Callable[[Expression], float],
        hints: Mapping[str, int],
        budget: int,
        on_firing: Callable[[Firing], None] | None,
        note: Callable[[str, str], None],
    ) -> None:
        self.module = module
        self.rules = rules
        self.strict = strict
        self.assume_no_overflow = assume_no_overflow
        self.cost = cost
        self.hints = hints
        self.budget = budget
        self.exhausted = False
        self.on_firing = on_firing
        self.note = note
        self.counts: dict[str, int] = {}
        self.graph = Graph(module, infer(module))
        self.lookup = Lookup(self.graph.types, set(), functions_of(module), monoids_of(module))
        self.typings = Typings(self.lookup)
        self.queue: list[tuple[int, int, Slot]] = []
        self.entered = 0

    def run(self) -> Rewritten:
        for slot in list(self.graph.slots()):
            self.enqueue(slot)
        while self.queue and not self.exhausted:
            _, _, slot = heapq.heappop(self.queue)
            slot.queued = False
            if slot.alive:
                self.visit(slot)
        firings = sum(self.counts.values())
        if not firings:
            return Rewritten(self.module, 0, self.exhausted, self.counts)
        result = replace(self.module, body=self.graph.rebuilt())
        result = pruned(result, self.graph, self.note)
        if result == self.module:
            result = self.module
        return Rewritten(result, firings, self.exhausted, self.counts)

    def enqueue(self, slot: Slot) -> None:
        """Visit a slot (again). What comes first in the program is visited first."""
        if slot.alive and not slot.queued:
            slot.queued = True
            self.entered += 1
            heapq.heappush(self.queue, (slot.order, self.entered, slot))

    # -- one statement

    def visit(self, slot: Slot) -> None:
        scope = Scope(
            slot, self.graph, self.typings, self.strict, self.assume_no_overflow, self.cost,
            self.hints,
        )  # fmt: skip
        fired = True
        while fired and slot.alive and not self.exhausted:
            self.expressions(slot, scope)
            fired = self.statement_rule(slot, scope)
        for other in self.graph.woken:
            self.enqueue(other)
        self.graph.woken.clear()

    def expressions(self, slot: Slot, scope: Scope) -> None:
        """Normalize the expressions of a statement."""
        if not self.rules.expressions:
            return
        normalizer = Normalizer(self.rules, scope, self.reporter(slot))
        statement = slot.statement
        new: Statement = statement
        if isinstance(statement, Einsum):
            condition = statement.condition
            new = _with(
                statement,
                body=normalizer.normal(statement.body),
                indices=tuple(normalizer.normal(e, inside_index=True) for e in statement.indices),
                condition=None if condition is None else normalizer.normal(condition),
            )
        elif isinstance(statement, Scan) and statement.until is not None:
            new = _with(statement, until=normalizer.normal(statement.until))
        if new is not statement:
            self.put(slot, new)

    def statement_rule(self, slot: Slot, scope: Scope) -> bool:
        """Apply the first statement rule that has something to do."""
        statement = slot.statement
        for rule in self.rules.statements.get(type(statement).__name__, ()):
            edit = edit_of(rule, statement, scope)
            if edit is not None and self.apply(rule, slot, edit):
                return True
        return False

    # -- changes

    def put(self, slot: Slot, statement: Statement) -> None:
        """Give a slot another statement, and visit those whom the change may concern."""
        before = slot.reads
        if isinstance(statement, Einsum):
            statement = with_bounds(statement, slot.extents, slot.region.scans, self.graph.types)
        self.graph.set(slot, statement)
        self.concerned(slot, before)

    def concerned(self, slot: Slot, reads_before: Iterable[str]) -> None:
        for name in slot.targets:
            for reader in self.graph.readers_of(name):
                self.enqueue(reader)
        for name in reads_before:
            if not slot.alive or name not in slot.reads:
                self.released(name)

    def released(self, name: str) -> None:
        """A tensor has lost a reader: it may be dead, or have a single reader now."""
        for definer in self.graph.definers.get(name, {}):
            self.enqueue(definer)
            owner = definer.region.owner
            while owner is not None:
                self.enqueue(owner)
                owner = owner.region.owner
        readers = self.graph.readers_of(name)
        if len(readers) == 1:
            for reader in readers:
                self.enqueue(reader)

    def apply(self, rule: StatementRule, slot: Slot, edit: Edit) -> bool:
        """Carry out an edit, unless a tensor would change its dtype. Whether it was."""
        old = slot.statement
        extents = {**slot.extents, **edit.extents}
        created: list[tuple[Einsum, dict[str, Expression], list[TensorType]]] = []
        for statement in edit.statements[:-1]:
            assert isinstance(statement, Einsum), "a rule puts only einsums in front"
            mine = {n: e for n, e in extents.items() if _uses(statement, n, slot)}
            dtypes = self.stored(statement)
            if dtypes is None:
                return False
            types = [_type_of(statement, dtype, mine) for dtype in dtypes]
            for target, type_ in zip(statement.targets, types, strict=True):
                self.graph.types[target.name] = type_
            created.append((statement, mine, types))
        last = edit.statements[-1] if edit.statements else None
        if isinstance(last, Einsum) and isinstance(old, Einsum):
            wanted = [self.graph.types[target.name].dtype for target in old.targets]
            if self.stored(last) != wanted:
                return False
        if not self.report(rule, slot, (old,), edit.statements):
            return False
        for text in edit.notes:
            self.note(slot.label, text)
        for statement, mine, _ in created:
            bounded = with_bounds(statement, mine, slot.region.scans, self.graph.types)
            new = self.graph.insert_before(slot, bounded)
            new.extents = mine
            self.enqueue(new)
        for dropped in edit.dropped:
            self.discard(dropped)
        if last is None:
            self.discard(slot)
            return True
        if isinstance(last, Einsum):
            slot.extents = {n: e for n, e in extents.items() if _uses(last, n, slot)}
        self.put(slot, last)
        return True

    def discard(self, slot: Slot) -> None:
        reads = [slot.reads, *(inner.reads for r in slot.regions for inner in r.slots)]
        self.graph.remove(slot)
        for name in dict.fromkeys(name for group in reads for name in group):
            self.released(name)
        owner = slot.region.owner
        if owner is not None:
            self.enqueue(owner)

    def stored(self, statement: Einsum) -> list[DType] | None:
        """What the targets of a statement store, or None where it has no typing."""
        try:
            if len(statement.targets) == 1 and not statement.reductions:
                typings = [self.typings.of(statement.body)]
            else:
                typings = body_typings(statement, self.lookup)
            typings = reduced_dtypes(statement, typings, self.lookup)
            return list(result_dtypes(statement, typings))
        except EinloomError:
            return None

    # -- reports

    def reporter(self, slot: Slot) -> Callable[[ExpressionRule, Expression, Expression], bool]:
        def report(rule: ExpressionRule, before: Expression, after: Expression) -> bool:
            return self.report(rule, slot, (before,), (after,))

        return report

    def report(
        self, rule: Rule, slot: Slot, before: tuple[Node, ...], after: tuple[Node, ...]
    ) -> bool:
        """Count a firing and tell of it; False when the budget is used up."""
        if self.budget <= 0:
            self.exhausted = True
            return False
        self.budget -= 1
        self.counts[rule.name] = self.counts.get(rule.name, 0) + 1
        if self.on_firing is not None:
            location = before[0].location or slot.statement.location
            self.on_firing(Firing(rule.name, slot.label, before, after, location))
        return True


def _with(statement: Statement, **changes: object) -> Statement:
    """A statement with fields replaced; itself where they are equal."""
    different = {
        name: value for name, value in changes.items() if getattr(statement, name) != value
    }
    return replace(statement, **different) if different else statement  # type: ignore[arg-type]


def _uses(statement: Einsum, index: str, slot: Slot) -> bool:
    return index in slot.region.scans or index in indices_used(statement)


def _type_of(statement: Einsum, dtype: DType, extents: Mapping[str, Expression]) -> TensorType:
    """The type of a tensor that a rule has made up: its left indices are plain."""
    ranks = [Rank(e.name, extents[e.name]) for e in statement.indices if isinstance(e, Index)]
    return TensorType(dtype, tuple(ranks))
