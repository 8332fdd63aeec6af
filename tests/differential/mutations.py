"""Deliberate breakages of lowered programs, which the differential suite must notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from einloom.ir.expressions import Apply, Cast, Expression, Literal
from einloom.ir.loops import Carried, Check, For, If, Launch, Load, LoopProgram, Store
from einloom.ir.node import Node, rebuild
from einloom.ir.types import Scalar

Mutation = Callable[[Node], Node]


def drop_the_remainder_of_blocks(node: Node) -> Node:
    """Only full blocks of accumulators are computed."""
    if isinstance(node, Launch):
        scalars = tuple(
            Apply("floordiv", e.arguments) if isinstance(e, Apply) and e.op == "ceildiv" else e
            for e in node.scalars
        )
        return replace(node, scalars=scalars)
    return node


def swap_two_indices_of_loads(node: Node) -> Node:
    if isinstance(node, Load) and len(node.indices) > 1:
        first, second, *rest = node.indices
        return replace(node, indices=(second, first, *rest))
    return node


def swap_two_indices_of_stores(node: Node) -> Node:
    if isinstance(node, Store) and len(node.indices) > 1:
        first, second, *rest = node.indices
        return replace(node, indices=(second, first, *rest))
    return node


def fold_from_one(node: Node) -> Node:
    """Every accumulator starts at 1 instead of the identity."""
    if isinstance(node, Carried) and isinstance(node.initial, Cast):
        return replace(node, initial=Cast(node.initial.dtype, Literal(1)))
    return node


def skip_the_last_iteration(node: Node) -> Node:
    if isinstance(node, For) and node.carried:
        upper: Expression = Apply("sub", (node.upper, Literal(1)))
        return replace(node, upper=upper)
    return node


def ignore_conditions(node: Node) -> Node:
    if isinstance(node, If) and node.otherwise:
        return replace(node, condition=Literal(True))
    return node


def pad_with_one(node: Node) -> Node:
    """Padded reads give 1 outside."""
    if isinstance(node, If) and node.carried and node.carried[0].name.startswith("padded"):
        carried = tuple(replace(c, initial=Literal(1)) for c in node.carried)
        return replace(node, carried=carried)
    return node


def keep_one_state_too_few(node: Node) -> Node:
    """A scan whose history is not read keeps a single state."""
    if isinstance(node, Apply) and node.op == "mod" and node.arguments[1] == Literal(2):
        return replace(node, arguments=(node.arguments[0], Literal(1)))
    return node


def run_scans_backwards(node: Node) -> Node:
    if isinstance(node, For) and node.kind == "serial" and not node.carried:
        return replace(node, step=-node.step)
    return node


def last_of_equals_wins(node: Node) -> Node:
    """argmax takes the last of several largest values."""
    swapped = {"gt": "ge", "lt": "le"}
    if isinstance(node, Apply) and node.op == "or":
        arguments = tuple(
            replace(a, op=swapped[a.op]) if isinstance(a, Apply) and a.op in swapped else a
            for a in node.arguments
        )
        return replace(node, arguments=arguments)
    return node


def forget_the_nan_rule(node: Node) -> Node:
    """argmax no longer lets the first NaN win."""
    if isinstance(node, Apply) and node.op == "isnan":
        return Literal(False)
    return node


def drop_range_checks(node: Node) -> Node:
    if isinstance(node, Check):
        return replace(node, condition=Literal(True))
    return node


def accumulate_in_half(node: Node) -> Node:
    """Accumulators round to f16 at every step."""
    if isinstance(node, For) and node.carried:
        yields = tuple(Cast(Scalar("f16"), value) for value in node.yields)
        return replace(node, yields=yields)
    return node


def forget_the_first_term(node: Node) -> Node:
    """Sums of two terms lose their first one."""
    if isinstance(node, Apply) and node.op == "mul" and len(node.arguments) == 2:
        return replace(node, arguments=(node.arguments[1], node.arguments[1]))
    return node


MUTATIONS: dict[Mutation, tuple[str, ...]] = {
    drop_the_remainder_of_blocks: ("contraction",),
    swap_two_indices_of_loads: ("map",),
    swap_two_indices_of_stores: ("map",),
    fold_from_one: ("reduce",),
    skip_the_last_iteration: ("reduce",),
    ignore_conditions: ("condition",),
    pad_with_one: ("padding",),
    keep_one_state_too_few: ("scan final",),
    run_scans_backwards: ("scan",),
    last_of_equals_wins: (),
    forget_the_nan_rule: (),
    drop_range_checks: (),
    accumulate_in_half: ("reduce",),
    forget_the_first_term: ("map",),
}
"""Each breakage with the forms of the suite that must notice it; `()`: its edge cases."""


def mutated(program: LoopProgram, mutation: Mutation) -> LoopProgram:
    return rebuild(program, mutation)
