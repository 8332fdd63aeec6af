"""Patterns of expressions: what the left side of a rewrite rule is written in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from einloom.ir.expressions import Apply, Cast, Expression, Literal, Value
from einloom.ir.ops import OPS, is_flat
from einloom.ir.record import record
from einloom.ir.rewrite.values import converted

if TYPE_CHECKING:
    from einloom.ir.rewrite.scope import Scope

Match = Mapping[str, Any]
"""What the variables of a pattern stand for."""

# Flat operations longer than this are searched for single arguments only, not for pairs.
MOST_PAIRED_ARGUMENTS = 64


class Pattern(Protocol):
    """Something that expressions are matched with."""

    def match(self, expression: Expression, scope: Scope, bound: Match) -> Match | None:
        """`bound` with the variables of this pattern added, or None where it does not match."""
        ...


@record
class Variable:
    """Any expression; the same one wherever the name comes again."""

    name: str

    def match(self, expression: Expression, scope: Scope, bound: Match) -> Match | None:
        if self.name in bound:
            return bound if bound[self.name] == expression else None
        return {**bound, self.name: expression}


@record
class Number:
    """A literal, or a cast of one, that equals `value`; any value if that is None.

    `name` binds the Python value. Zeros of both signs match 0, unless `test` tells them apart.
    """

    value: Value | None = None
    name: str | None = None
    test: Callable[[Value], bool] | None = None

    def match(self, expression: Expression, scope: Scope, bound: Match) -> Match | None:
        found = constant_value(expression)
        if found is None or (self.value is not None and found != self.value):
            return None
        if self.test is not None and not self.test(found):
            return None
        return bound if self.name is None else {**bound, self.name: found}


@record
class Applied:
    """An operation of which some arguments are described.

    Arguments stand in order unless the operation is commutative. Of a flat operation they are
    any of the arguments, and `rest` binds the tuple of the others; without `rest` there are none.
    """

    op: str
    arguments: tuple[Pattern, ...]
    rest: str | None = None

    def match(self, expression: Expression, scope: Scope, bound: Match) -> Match | None:
        if not isinstance(expression, Apply) or expression.op != self.op:
            return None
        given = expression.arguments
        if is_flat(self.op):
            if self.rest is None and len(given) != len(self.arguments):
                return None
            if len(given) > MOST_PAIRED_ARGUMENTS and len(self.arguments) > 1:
                return None
            return next(self._any_order(given, scope, bound), None)
        if len(given) != len(self.arguments):
            return None
        for order in (given, given[::-1]) if OPS[self.op].law("commutative") else (given,):
            found: Match | None = bound
            for pattern, argument in zip(self.arguments, order, strict=True):
                found = None if found is None else pattern.match(argument, scope, found)
            if found is not None:
                return found
        return None

    def _any_order(
        self, given: tuple[Expression, ...], scope: Scope, bound: Match
    ) -> Iterator[Match]:
        """Depth first over the choices of one argument for each pattern."""
        stack: list[tuple[Match, tuple[int, ...]]] = [(bound, ())]
        while stack:
            found, used = stack.pop()
            if len(used) == len(self.arguments):
                if self.rest is not None:
                    others = tuple(x for k, x in enumerate(given) if k not in used)
                    found = {**found, self.rest: others}
                yield found
                continue
            pattern = self.arguments[len(used)]
            for place in range(len(given) - 1, -1, -1):
                if place not in used:
                    more = pattern.match(given[place], scope, found)
                    if more is not None:
                        stack.append((more, (*used, place)))


@record
class AllOf:
    """A flat operation, its arguments split into those that match and the others.

    `taken` binds the tuple of those that match `pattern`, at least `least`; `rest` the others.
    """

    op: str
    pattern: Pattern
    least: int = 1
    taken: str = "taken"
    rest: str = "rest"

    def match(self, expression: Expression, scope: Scope, bound: Match) -> Match | None:
        if not isinstance(expression, Apply) or expression.op != self.op:
            return None
        taken: list[Expression] = []
        rest: list[Expression] = []
        for argument in expression.arguments:
            matched = self.pattern.match(argument, scope, {}) is not None
            (taken if matched else rest).append(argument)
        if len(taken) < self.least:
            return None
        return {**bound, self.taken: tuple(taken), self.rest: tuple(rest)}


@record
class Found:
    """What a function finds in an expression, for forms that the other patterns cannot say."""

    find: Callable[[Expression, Scope], Match | None]

    def match(self, expression: Expression, scope: Scope, bound: Match) -> Match | None:
        found = self.find(expression, scope)
        return None if found is None else {**bound, **found}


def constant_value(expression: Expression) -> Value | None:
    """The value of a literal, or of a cast of one that keeps it."""
    if isinstance(expression, Literal):
        return expression.value
    if isinstance(expression, Cast) and isinstance(expression.value, Literal):
        return converted(expression.value.value, expression.dtype)
    return None


def is_negative_zero(value: Value) -> bool:
    """Whether a value is -0.0, the exact identity of floating addition."""
    return isinstance(value, float) and value == 0 and math.copysign(1.0, value) < 0
