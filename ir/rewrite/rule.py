"""What a rewrite rule is: data that says a law, where to look for it, and what to put there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field

from einloom.ir.errors import Location
from einloom.ir.expressions import Expression
from einloom.ir.node import Node
from einloom.ir.program import Statement
from einloom.ir.record import record
from einloom.ir.rewrite.graph import Slot
from einloom.ir.rewrite.laws import EXACT, Validity
from einloom.ir.rewrite.patterns import Match, Pattern
from einloom.ir.rewrite.scope import Scope

Condition = Callable[[Match, Scope], bool]


@record
class Rule:
    """One law of the algebra, used from left to right.

    `name` is a sentence, `law` the equation and why it holds, `source` where it is from.
    `roots`: the operations, or node classes, that its left side can start with. It fires where
    its pattern matches, all `conditions` hold, and the replacement is not None. A match binds
    the whole left side as `root`.
    """

    name: str
    law: str
    roots: tuple[str, ...]
    source: str = "the law table of ir/ops.py"
    conditions: tuple[Condition, ...] = ()


@record
class ExpressionRule(Rule):
    """A law of scalar algebra. The driver refuses a replacement of another typing.

    `validity`: on which values the law holds; it is asked of the arguments' dtypes, or with
    `on_result` of the result's. `in_indices`: the rule also works in index positions, where
    arithmetic is on whole numbers without wrapping.
    """

    pattern: Pattern = field(kw_only=True)
    replacement: Callable[[Match, Scope], Expression | None] = field(kw_only=True)
    validity: Validity = EXACT
    in_indices: bool = False


@record
class Edit:
    """What a statement becomes: `statements` in its place, the last one at its own slot.

    No statements: it is removed. `extents`: of indices that the old statement did not have.
    `dropped`: other slots that go. `notes`: decisions to record.
    """

    statements: tuple[Statement, ...]
    extents: Mapping[str, Expression] = field(default_factory=dict)
    dropped: tuple[Slot, ...] = ()
    notes: tuple[str, ...] = ()


@record
class StatementRule(Rule):
    """A law of einsum algebra: one statement, with what defines its operands, becomes others.

    `pattern` yields all matches; the first that satisfies the conditions is used.
    The driver keeps the extents of indices explicit, and refuses an edit after which a tensor
    would be stored with another dtype.
    """

    pattern: Callable[[Statement, Scope], Iterable[Match]] = field(kw_only=True)
    replacement: Callable[[Match, Scope], Edit | None] = field(kw_only=True)


@record
class Firing:
    """One use of a rule: what stood there, what stands there now, and in which statement."""

    rule: str
    statement: str
    before: tuple[Node, ...]
    after: tuple[Node, ...]
    location: Location | None

    def __str__(self) -> str:
        where = f"{self.location}: " if self.location is not None else ""
        before = "; ".join(str(node) for node in self.before)
        after = "; ".join(str(node) for node in self.after) or "(nothing)"
        return f"{where}{self.statement}: {self.rule}: {before}  ->  {after}"


class RuleIndex:
    """Rules by what their left sides start with, in the order of the list."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.expressions: dict[str, list[ExpressionRule]] = {}
        self.statements: dict[str, list[StatementRule]] = {}
        for rule in rules:
            for root in rule.roots:
                if isinstance(rule, ExpressionRule):
                    self.expressions.setdefault(root, []).append(rule)
                elif isinstance(rule, StatementRule):
                    self.statements.setdefault(root, []).append(rule)


def first_match(rule: ExpressionRule, expression: Expression, scope: Scope) -> Expression | None:
    """What a rule makes of an expression at its root, or None where it does not apply."""
    match = rule.pattern.match(expression, scope, {"root": expression})
    if match is None or not all(condition(match, scope) for condition in rule.conditions):
        return None
    return rule.replacement(match, scope)


def edit_of(rule: StatementRule, statement: Statement, scope: Scope) -> Edit | None:
    """What a rule makes of a statement, or None where it does not apply."""
    for match in rule.pattern(statement, scope):
        if all(condition(match, scope) for condition in rule.conditions):
            edit = rule.replacement(match, scope)
            if edit is not None:
                return edit
    return None
