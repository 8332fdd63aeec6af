"""Every rewrite rule on programs made from its left side, checked by the interpreter.

A cell of the table is a rule over a semiring. It must fire there, unless IDLE says that the rule
has nothing to do over it; then it must not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import pytest

from einloom.ir.errors import EinloomError
from einloom.ir.expressions import Expression
from einloom.ir.interpret import interpret
from einloom.ir.program import Module
from einloom.ir.rewrite import ExpressionRule, Rule, expression_cost, rewrite
from einloom.ir.rewrite.laws import EXACT
from einloom.ir.rules import ALL_RULES
from einloom.ir.text import parse
from einloom.ir.verify import verify
from tests.ir.rule_instances import SEMIRINGS, Semiring, arrays_for, instance

SEED = 20250920


@dataclass
class Tally:
    """What became of the instances of one cell."""

    checked: int = 0
    fired: int = 0


def agree(before: object, after: object, exact: bool) -> bool:
    """Whether two results are equal: bit for bit but for the NaN, or up to rounding."""
    a, b = np.asarray(before), np.asarray(after)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if exact and a.dtype.kind == "f":
        same = (a == b) & (np.signbit(a) == np.signbit(b))
        return bool(np.all(same | (np.isnan(a) & np.isnan(b))))
    if a.dtype.kind == "f":
        tolerance = {2: 2e-2, 4: 1e-5, 8: 1e-9}[a.dtype.itemsize]
        return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))
    return bool(np.array_equal(a, b))


def fire(rule: Rule, module: Module, strict: bool = False) -> tuple[Module, int]:
    """A module after one rule alone, and how often it fired."""
    guarded = "spread_over" in rule.name
    done = (
        rewrite(module, [rule], strict=strict, cost=_reversed_cost)
        if guarded
        else rewrite(module, [rule], strict=strict)
    )
    return done.module, done.firings


def _reversed_cost(expression: object) -> float:
    """The opposite of the usual cost: what spreads a product is cheaper."""
    assert isinstance(expression, Expression)
    return -expression_cost(expression)


def check(rule: Rule, module: Module, rng: Random, strict: bool = False) -> int:
    """Assert that a rule keeps what a module computes; how often it fired."""
    after, firings = fire(rule, module, strict)
    if not firings:
        assert after == module
        return 0
    verify(after)
    assert parse(str(after)) == after
    arrays = arrays_for(module, rng, special=strict)
    try:
        expected = interpret(module, arrays)
    except EinloomError:  # a literal that does not fit what it meets
        return 0
    found = interpret(after, arrays)
    assert list(found) == list(expected)
    for name in expected:
        assert agree(expected[name], found[name], exact=strict), (
            f"{rule.name} changes {name} from {expected[name]!r} to {found[name]!r}\n"
            f"{module}\n{after}\n{arrays}"
        )
    return firings


def trial(
    rule: Rule, semiring: Semiring, rng: Random, strict: bool = False, mixed: bool = True
) -> Tally:
    """One instance: made, rewritten, run before and after."""
    module = instance(rule, semiring, rng, mixed)
    if module is None:
        return Tally()
    try:
        verify(module)
    except EinloomError:  # an operation that the dtype does not have
        return Tally()
    return Tally(1, check(rule, module, rng, strict))


# ---- the table ----------------------------------------------------------------------------

FLOATS = ("+,* f64", "max,+ f64", "min,+ f64")
INTEGERS, BOOLEANS = "+,* i64", "or,and"

# Where a rule has nothing to do, and why.
IDLE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("floats have no bits to combine", r"bit(and|or|xor|not)", FLOATS),
    ("truth values have no sign", r"^neg|_neg$|minus_|subtract|difference", (BOOLEANS,)),
    ("truth values have no sign", r"^signs_in|ignores_the_sign", (BOOLEANS,)),
    ("powers of truth values are integers", r"^(first|second)_power", (BOOLEANS,)),
    ("integers have one zero", r"negative_zero", (INTEGERS, BOOLEANS)),
    ("integers divide to floats", r"^dividing|quotient_cancel", (INTEGERS, BOOLEANS)),
    ("roots are of floats", r"square_root", (INTEGERS, BOOLEANS)),
    ("about integers", r"of_an_integer_is|whole_quotient|remainder_by_one|drop_bits", FLOATS),
    ("truth values are no integers", r"(floor|ceil|trunc|round)_of_an|drop_bits", (BOOLEANS,)),
    ("truth values are no integers", r"whole_quotient", (BOOLEANS,)),
    ("about truth values", r"^not_of_not", (*FLOATS, INTEGERS)),
    ("floats have signs", r"^unsigned_value", FLOATS),
    ("integer sums wrap, so + does not distribute over max", r"add_is_(spread|taken)", (INTEGERS,)),
    ("integer sums wrap, so + does not distribute over max", r"common_add", (INTEGERS,)),
    ("+ is not idempotent", r"^idempotent_fold", (FLOATS[0], INTEGERS)),
    ("the fold is another one", r"^(sum|product)_over", (FLOATS[1], FLOATS[2], BOOLEANS)),
)


def is_idle(rule: str, semiring: str) -> bool:
    """Whether a rule has nothing to do over a semiring."""
    return any(re.search(pattern, rule) and semiring in where for _, pattern, where in IDLE)


def cells() -> Iterator[tuple[Rule, Semiring]]:
    """All cells of the table."""
    for rule in ALL_RULES:
        for semiring in SEMIRINGS:
            yield rule, semiring


def fill(rule: Rule, semiring: Semiring, wanted: int, most: int, strict: bool = False) -> Tally:
    """Instances of one cell until the rule has fired on `wanted` of them."""
    rng = Random(f"{SEED}/{rule.name}/{semiring.name}")
    tally = Tally()
    mixed = not is_idle(rule.name, semiring.name)
    for _ in range(most):
        if tally.fired >= wanted:
            break
        one = trial(rule, semiring, rng, strict, mixed)
        tally.checked += one.checked
        tally.fired += one.fired > 0
    return tally


def printed(table: dict[tuple[str, str], Tally]) -> str:
    """The table: on how many programs a rule fired, of how many that were made; - : idle."""
    names = [semiring.name for semiring in SEMIRINGS]
    lines = [f"{'':58}" + "".join(f"{name:>11}" for name in names)]
    for rule in ALL_RULES:
        row = ""
        for name in names:
            tally = table[rule.name, name]
            row += f"{'-' if is_idle(rule.name, name) else f'{tally.fired}/{tally.checked}':>11}"
        lines.append(f"{rule.name:58}{row}")
    checked = sum(tally.checked for tally in table.values())
    fired = sum(tally.fired for tally in table.values())
    lines.append(f"{len(ALL_RULES)} rules, {checked} programs, {fired} rewritten and compared")
    return "\n".join(lines)


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.name)
def test_a_rule_keeps_what_programs_compute(rule: Rule) -> None:
    for semiring in SEMIRINGS:
        if is_idle(rule.name, semiring.name):
            assert fill(rule, semiring, 1, 3).fired == 0, f"not idle over {semiring.name}"
        else:
            assert fill(rule, semiring, 1, 60).fired == 1, f"never fires over {semiring.name}"


def test_strict_rules_keep_every_bit() -> None:
    """NaN, infinities and zeros of both signs among the operands."""
    fired = 0
    for rule, semiring in cells():
        if semiring.name == FLOATS[0]:
            fired += fill(rule, semiring, 2, 3, strict=True).fired
    assert fired > 100


@pytest.mark.deep
def test_every_cell_many_times(capsys: pytest.CaptureFixture[str]) -> None:
    table = {}
    for rule, semiring in cells():
        idle = is_idle(rule.name, semiring.name)
        wanted, most = (1, 10) if idle else (18, 400)
        table[rule.name, semiring.name] = fill(rule, semiring, wanted, most)
        fill(rule, semiring, wanted // 3, 20, strict=True)
    with capsys.disabled():
        print("\n" + printed(table))
    empty = [key for key, tally in table.items() if not is_idle(*key) and not tally.fired]
    busy = [key for key, tally in table.items() if is_idle(*key) and tally.fired]
    assert not empty
    assert not busy
    assert sum(tally.fired for tally in table.values()) >= 10_000


# ---- broken rules are caught --------------------------------------------------------------

BREAKABLE = (
    ("index_that_the_domain_fixes_is_substituted", "value_is_in_range"),
    ("index_that_the_domain_fixes_is_substituted", "unreached_cells_stay"),
    ("idempotent_fold_over_an_unused_index_is_dropped", "index_has_iterations"),
    ("fold_over_one_value_is_that_value", "unreached_cells_stay"),
    ("fold_over_nothing_is_its_identity", "all_cells_become_reached"),
    ("einsum_with_one_reader_is_nested_into_it", "product_distributes_over_the_fold"),
    ("einsum_with_one_reader_is_nested_into_it", "outer_domain_allows_it"),
    ("product_under_a_fold_is_denested", "inner_is_computed_alike"),
    ("read_of_a_copy_reads_the_original", "stays_in_range"),
    ("index_expression_in_normal_form", "plain_index_runs_over_the_rank"),
    ("common_mul_is_taken_out_of_add", "terms_are_computed_alike"),
)


def find_fault(rule: Rule, strict: bool = False) -> bool:
    """Whether the check that rules are put through fails for this one."""
    for semiring in SEMIRINGS:
        rng = Random(f"{SEED}/{rule.name}/{semiring.name}")
        for _ in range(150):
            try:
                trial(rule, semiring, rng, strict)
            except (AssertionError, EinloomError):
                return True
    return False


@pytest.mark.parametrize(("name", "condition"), BREAKABLE)
def test_a_rule_without_one_of_its_conditions_is_caught(name: str, condition: str) -> None:
    rule = next(rule for rule in ALL_RULES if rule.name == name)
    left = tuple(c for c in rule.conditions if getattr(c, "__name__", "") != condition)
    assert len(left) == len(rule.conditions) - 1
    assert find_fault(replace(rule, conditions=left))


@pytest.mark.parametrize(
    "name",
    [
        "add_with_its_identity_is_dropped",
        "zero_minus_a_value_is_its_negation",
        "mul_with_its_annihilator_is_it",
        "eq_of_a_value_and_itself_is_true",
        "max_absorbs_min",
    ],
)
def test_a_rule_that_claims_to_be_exact_is_caught(name: str) -> None:
    rule = next(rule for rule in ALL_RULES if rule.name == name)
    assert isinstance(rule, ExpressionRule)
    assert find_fault(replace(rule, validity=EXACT), strict=True)


# ---- the list -----------------------------------------------------------------------------


def test_rules_have_names_of_their_own_that_are_sentences() -> None:
    names = [rule.name for rule in ALL_RULES]
    assert len(set(names)) == len(names) >= 100
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+){2,}", name) for name in names)


def test_rules_say_their_law_and_its_source() -> None:
    for rule in ALL_RULES:
        assert len(rule.law) > 8 and len(rule.source) > 10, rule.name
