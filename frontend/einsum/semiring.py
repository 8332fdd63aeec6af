"""Semirings: what einsum adds and multiplies with, by name or defined by the user."""

from __future__ import annotations

from difflib import get_close_matches

from einloom.ir.errors import ParseError
from einloom.ir.ops import INFIX, MONOIDS, OPS
from einloom.ir.program import Definition, Module
from einloom.ir.record import record


@record
class Semiring:
    """`reducer` folds (a monoid's name), `product` combines (an operation's name).

    Both may be defined by `definitions`, which then come with the program.
    """

    reducer: str
    product: str
    definitions: tuple[Definition, ...] = ()


SUM_PRODUCT = Semiring("sum", "mul")

NAMED: dict[str, Semiring] = {
    "sum-product": SUM_PRODUCT,
    "plus-times": SUM_PRODUCT,
    "max-plus": Semiring("max", "add"),
    "min-plus": Semiring("min", "add"),
    "max-times": Semiring("max", "mul"),
    "min-times": Semiring("min", "mul"),
    "max-min": Semiring("max", "min"),
    "min-max": Semiring("min", "max"),
    "or-and": Semiring("any", "and"),
    "xor-and": Semiring("xor", "bitand"),
}
"""Semirings by name. `tropical` is not among them: authors disagree whether it is min or max."""


SPOKEN = {
    "reducer": {"plus": "sum", "add": "sum", "+": "sum", "times": "prod", "mul": "prod",
                "*": "prod", "or": "any", "and": "all"},
    "operation": {"plus": "add", "sum": "add", "times": "mul", "prod": "mul", "product": "mul",
                  "any": "or", "all": "and"},
}  # fmt: skip
"""What else people call reducers and operations, for hints."""

_EXAMPLES = {
    "reducer": f"reducers: {', '.join(MONOIDS)}",
    "operation": "an operation of two operands, such as '+', '*', 'min', 'max', 'and'",
}


def define_semiring(reducer: str, product: str, definitions: str = "") -> Semiring:
    """A semiring from names, and from definitions in the program language.

    >>> define_semiring("max", "+").product
    'add'

    `definitions` is text such as `monoid lse: f32 { ... }` or `fn f(a, b) = ...`.
    Raises ParseError for a name that is neither builtin nor defined, and what the verifier raises
    for wrong definitions, laws of a monoid that do not hold among them.
    """
    found: tuple[Definition, ...] = ()
    if definitions:
        from einloom.ir.text import parse_definitions
        from einloom.ir.verify import verify

        found = parse_definitions(definitions)
        verify(Module("definitions", (), (), (), found))
    names = {getattr(d, "name", "") for d in found}
    product = INFIX[product].name if product in INFIX else product
    for name, known, noun in ((reducer, MONOIDS, "reducer"), (product, OPS, "operation")):
        if name not in known and name not in names:
            spoken = SPOKEN[noun].get(name)
            near = [spoken] if spoken else get_close_matches(name, [*known, *names], 1)
            raise ParseError(
                f"unknown {noun} {name!r} in a semiring",
                suggestion=f"did you mean {near[0]!r}?" if near else _EXAMPLES[noun],
            )
    return Semiring(reducer, product, found)


def find_semiring(semiring: Semiring | str | None) -> Semiring:
    """The semiring that a `semiring=` argument stands for.

    A name of `NAMED`, `"reducer,product"` such as `"min,+"`, a Semiring, or None for
    sum-product. Raises ParseError for anything else.
    """
    if semiring is None:
        return SUM_PRODUCT
    if isinstance(semiring, Semiring):
        return semiring
    if not isinstance(semiring, str):
        raise ParseError(
            f"a semiring is a name or a Semiring, not of type {type(semiring).__name__}",
            suggestion="for example semiring='min,+', or einloom.define_semiring('min', '+')",
        )
    if semiring in NAMED:
        return NAMED[semiring]
    reducer, comma, product = semiring.partition(",")
    if comma:
        return define_semiring(reducer.strip(), product.strip())
    near = get_close_matches(semiring, NAMED, 1)
    raise ParseError(
        f"unknown semiring {semiring!r}",
        suggestion=f"did you mean {near[0]!r}?"
        if near
        else f'known: {", ".join(NAMED)}; or "reducer,operation" such as "min,+"',
    )
