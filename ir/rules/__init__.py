"""The rules of the algebra, one file per topic; the lists below are what passes choose from."""

from __future__ import annotations

from einloom.ir.rewrite.rule import Rule
from einloom.ir.rules.arithmetic import ARITHMETIC
from einloom.ir.rules.casts import CASTS
from einloom.ir.rules.choices import CHOICES
from einloom.ir.rules.constants import CONSTANTS
from einloom.ir.rules.dead_code import DEAD_CODE
from einloom.ir.rules.distributivity import DISTRIBUTIVITY
from einloom.ir.rules.domains import DOMAINS
from einloom.ir.rules.equal_statements import EQUAL_STATEMENTS
from einloom.ir.rules.lattices import LATTICES
from einloom.ir.rules.nesting import DENESTING, NESTING
from einloom.ir.rules.neutral import NEUTRAL
from einloom.ir.rules.propagation import PROPAGATION
from einloom.ir.rules.reductions import REDUCTIONS
from einloom.ir.rules.truth import TRUTH

SCALAR_RULES: tuple[Rule, ...] = (
    *CONSTANTS,
    *NEUTRAL,
    *LATTICES,
    *ARITHMETIC,
    *TRUTH,
    *CHOICES,
    *CASTS,
    *DISTRIBUTIVITY,
)
"""Laws of scalar expressions."""

EINSUM_RULES: tuple[Rule, ...] = (*PROPAGATION, *DOMAINS, *REDUCTIONS)
"""Laws of statements that make the program smaller."""

NEST_RULES: tuple[Rule, ...] = NESTING
"""A producer becomes part of its only consumer."""

DENEST_RULES: tuple[Rule, ...] = DENESTING
"""A product under a fold is split where that costs less. Never together with NEST_RULES."""

COMMON_RULES: tuple[Rule, ...] = EQUAL_STATEMENTS
"""Equal statements are computed once."""

DEAD_RULES: tuple[Rule, ...] = DEAD_CODE
"""What nobody reads is not computed."""

ALL_RULES: tuple[Rule, ...] = (
    *SCALAR_RULES,
    *EINSUM_RULES,
    *NEST_RULES,
    *DENEST_RULES,
    *COMMON_RULES,
    *DEAD_RULES,
)
"""Every rule, for the manual and the tests."""
