"""Definitions in the text: inlining functions and looking up monoids."""

from __future__ import annotations

from collections.abc import Mapping

from einloom.ir.errors import ParseError
from einloom.ir.expressions import Apply, Cast, Expression, Local, Pack, Project
from einloom.ir.node import Node, rebuild
from einloom.ir.ops import MONOIDS, OPS, apply
from einloom.ir.program import Function, Module, Monoid, Parameter


def functions_of(module: Module) -> dict[str, Function]:
    return {d.name: d for d in module.definitions if isinstance(d, Function)}


def monoids_of(module: Module) -> dict[str, Monoid]:
    return {d.name: d for d in module.definitions if isinstance(d, Monoid)}


def substitute(body: Expression, values: Mapping[str, Expression]) -> Expression:
    """`body` with its locals replaced; projections of tuples written out are resolved."""

    def change(current: Node) -> Node:
        if isinstance(current, Local):
            return values.get(current.name, current)
        return resolve_projection(current)

    return rebuild(body, change)


def resolve_projection(current: Node) -> Node:
    if isinstance(current, Project) and isinstance(current.value, Pack):
        return current.value.items[current.item]
    return current


def inline(expression: Expression, functions: Mapping[str, Function]) -> Expression:
    """`expression` with every application of a definition expanded to primitives.

    Definitions may use earlier definitions only, so expansion ends; shared arguments stay
    shared. Raises ParseError where the number of arguments is wrong or the name is unknown.
    """

    def change(current: Node) -> Node:
        if not isinstance(current, Apply):
            return resolve_projection(current)
        if current.op not in functions:
            if current.op not in OPS:
                raise ParseError(f"unknown operation {current.op!r}", location=current.location)
            return apply(current.op, *current.arguments).at(current.location)
        return call(functions[current.op], current, functions)

    return rebuild(expression, change)


def call(function: Function, site: Apply, functions: Mapping[str, Function]) -> Expression:
    """The body of `function` for the arguments at `site`, converted to declared dtypes."""
    if len(site.arguments) != len(function.parameters):
        raise ParseError(
            f"{function.name} takes {len(function.parameters)} arguments, "
            f"{len(site.arguments)} are given",
            location=site.location,
        )
    body = inline(function.body, functions_before(function, functions))
    values = {
        parameter.name: converted(parameter, argument)
        for parameter, argument in zip(function.parameters, site.arguments, strict=True)
    }
    return substitute(body, values)


def functions_before(function: Function, functions: Mapping[str, Function]) -> dict[str, Function]:
    """Definitions that stand before `function`: the ones it may use."""
    names = list(functions)
    return {name: functions[name] for name in names[: names.index(function.name)]}


def converted(parameter: Parameter, argument: Expression) -> Expression:
    return argument if parameter.dtype is None else Cast(parameter.dtype, argument)


def combine(monoid: Monoid, left: Expression, right: Expression) -> Expression:
    """`combine(left, right)` of a user-defined monoid, functions not yet inlined."""
    return substitute(monoid.combine, {monoid.left: left, monoid.right: right})


def is_reducer(name: str, monoids: Mapping[str, Monoid]) -> bool:
    return name in MONOIDS or name in monoids
