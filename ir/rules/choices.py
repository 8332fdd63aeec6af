"""Laws of `select(condition, a, b)`."""

from __future__ import annotations

from einloom.ir.rewrite.patterns import Applied, Number, Variable
from einloom.ir.rewrite.rule import ExpressionRule
from einloom.ir.rules.arithmetic import applied, value_of
from einloom.ir.rules.conditions import computed_like_root

A, B, C, D = Variable("a"), Variable("b"), Variable("c"), Variable("d")
SOURCE = "the truth table of if-then-else"


CHOICES = (
    ExpressionRule(
        "choice_on_true_is_the_first",
        "select(True, a, b) = a",
        ("select",),
        source=SOURCE,
        pattern=Applied("select", (Number(test=bool), A, B)),
        replacement=value_of("a"),
    ),
    ExpressionRule(
        "choice_on_false_is_the_second",
        "select(False, a, b) = b",
        ("select",),
        source=SOURCE,
        pattern=Applied("select", (Number(test=lambda value: not value), A, B)),
        replacement=value_of("b"),
    ),
    ExpressionRule(
        "choice_between_equals_is_one_of_them",
        "select(c, a, a) = a",
        ("select",),
        source=SOURCE,
        pattern=Applied("select", (C, A, A)),
        replacement=value_of("a"),
    ),
    ExpressionRule(
        "choice_on_a_negation_swaps",
        "select(not c, a, b) = select(c, b, a)",
        ("select",),
        source=SOURCE,
        pattern=Applied("select", (Applied("not", (C,)), A, B)),
        replacement=applied("select", "c", "b", "a"),
    ),
    ExpressionRule(
        "choice_inside_the_first_of_one_condition",
        "select(c, select(c, a, b), d) = select(c, a, d)",
        ("select",),
        source=SOURCE,
        pattern=Applied("select", (C, Applied("select", (C, A, B)), D)),
        replacement=applied("select", "c", "a", "d"),
        conditions=(computed_like_root("a"),),
    ),
    ExpressionRule(
        "choice_inside_the_second_of_one_condition",
        "select(c, a, select(c, b, d)) = select(c, a, d)",
        ("select",),
        source=SOURCE,
        pattern=Applied("select", (C, A, Applied("select", (C, B, D)))),
        replacement=applied("select", "c", "a", "d"),
        conditions=(computed_like_root("d"),),
    ),
)
