"""Expression rules applied everywhere in an expression, from the leaves up, to a fixed point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from einloom.ir.expressions import (
    Access,
    Apply,
    Expression,
    Index,
    Literal,
    Local,
    Symbol,
)
from einloom.ir.node import child_nodes, with_children
from einloom.ir.ops import OPS
from einloom.ir.rewrite.laws import EXACT
from einloom.ir.rewrite.rule import ExpressionRule, RuleIndex, first_match
from einloom.ir.rewrite.scope import Scope
from einloom.ir.rewrite.values import fits
from einloom.ir.types import Scalar, i8

Report = Callable[[ExpressionRule, Expression, Expression], bool]
"""Told of each replacement; False when the budget is used up, which refuses the replacement."""


@dataclass
class Normalizer:
    """Rewrites the expressions of one statement. Equal parts are rewritten once.

    A part inside an index expression is kept apart from the same part elsewhere, because there
    only the rules with `in_indices` apply.
    """

    rules: RuleIndex
    scope: Scope
    report: Report
    done: dict[tuple[bytes, bool], Expression] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Whether some rule starts with a leaf; mostly none does, and leaves need no visit.
        names = ("Index", "Literal", "Symbol", "Local")
        self.leaves = any(name in self.rules.expressions for name in names)

    def normal(self, root: Expression, inside_index: bool = False) -> Expression:
        """`root` with all rules applied until none fires."""
        # Entries: an expression to visit, or ("build", it), or ("same", it, what it became).
        stack: list[tuple[str, Expression, bool, Expression | None]] = [
            ("visit", root, inside_index, None)
        ]
        while stack:
            task, current, inside, became = stack.pop()
            key = (current.digest, inside)
            if key in self.done:
                continue
            if task == "visit":
                below = inside or isinstance(current, Access)
                stack.append(("build", current, inside, None))
                for child in child_nodes(current):
                    if isinstance(child, Index | Literal | Symbol | Local) and not self.leaves:
                        self.done[(child.digest, below)] = child
                    elif isinstance(child, Expression) and (child.digest, below) not in self.done:
                        stack.append(("visit", child, below, None))
            elif task == "build":
                new = self._built(current, inside)
                fired = self._fired(new, inside)
                if fired is None:
                    self.done[key] = new
                    self.done[(new.digest, inside)] = new
                else:
                    stack.append(("same", current, inside, fired))
                    stack.append(("visit", fired, inside, None))
            else:
                assert became is not None
                self.done[key] = self.done[(became.digest, inside)]
        return self.done[(root.digest, inside_index)]

    def _built(self, current: Expression, inside: bool) -> Expression:
        """`current` on its rewritten children. Flat operations stay flat."""
        below = inside or isinstance(current, Access)
        if not isinstance(current, Apply) or inside:
            children = [x for x in child_nodes(current) if isinstance(x, Expression)]
            if all(self.done[(child.digest, below)] is child for child in children):
                return current
            return with_children(
                current,
                lambda x: self.done[(x.digest, below)] if isinstance(x, Expression) else x,
            )
        old = current.arguments
        new = tuple(self.done[(x.digest, False)] for x in old)
        if all(a is b for a, b in zip(old, new, strict=True)):
            return current
        new = tuple(self._fitting(current, a, b) for a, b in zip(old, new, strict=True))
        merged = self.scope.flat(current.op, *new)
        if merged is None:
            # Merging would change a value: those arguments stay as they were.
            kept = (
                a if isinstance(b, Apply) and b.op == current.op else b
                for a, b in zip(old, new, strict=True)
            )
            merged = self.scope.flat(current.op, *kept)
        return current if merged is None else merged.at(current.location)

    def _fitting(self, parent: Apply, old: Expression, new: Expression) -> Expression:
        """What an argument became, or the argument itself where it became too large a number.

        A computed value wraps when it meets a narrower dtype, a written one is refused there.
        """
        if not isinstance(new, Literal) or type(new.value) is not int or isinstance(old, Literal):
            return new
        # Inside a definition nobody knows yet what it will meet.
        dtype = self.scope.operand_dtype(parent) if parent.op in OPS else i8
        if isinstance(dtype, Scalar) and dtype.is_integer and not fits(new.value, dtype):
            return old
        return new

    def _fired(self, expression: Expression, inside: bool) -> Expression | None:
        root = expression.op if isinstance(expression, Apply) else type(expression).__name__
        rules = self.rules.expressions.get(root)
        if rules is None:
            return None
        for rule in rules:
            if inside and not rule.in_indices:
                continue
            new = first_match(rule, expression, self.scope)
            if new is None or new == expression:
                continue
            if rule.validity != EXACT and not self.scope.may_use(rule.validity, expression):
                continue
            if not inside and not self.scope.same_typing(expression, new):
                continue
            if new.location is None:
                new = new.at(expression.location)
            if self.report(rule, expression, new):
                return new
        return None
