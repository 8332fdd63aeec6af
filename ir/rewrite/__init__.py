"""Rewriting: rules as data, applied on a worklist with a def-use index that is kept up to date."""

from __future__ import annotations

from einloom.ir.rewrite.driver import DEFAULT_BUDGET, Rewritten, rewrite
from einloom.ir.rewrite.rule import Edit, ExpressionRule, Firing, Rule, StatementRule
from einloom.ir.rewrite.scope import Scope, expression_cost

__all__ = [
    "DEFAULT_BUDGET",
    "Edit",
    "ExpressionRule",
    "Firing",
    "Rewritten",
    "Rule",
    "Scope",
    "StatementRule",
    "expression_cost",
    "rewrite",
]
