"""Arithmetic on extents: normal forms of index expressions, proofs and evaluation.

An integer expression is put in normal form as a polynomial with integer coefficients over
*atoms*: symbols, indices, and quotients, remainders, reads... that are opaque to the algebra.
Two expressions with one normal form are equal; symbols and extents are never negative.
"""

from __future__ import annotations

from collections.abc import Mapping

from einloom.ir.errors import EinloomError
from einloom.ir.expressions import Access, Apply, Expression, Index, Literal, Symbol
from einloom.ir.integers import INTEGER_OPS, integer_op
from einloom.ir.node import postorder
from einloom.ir.ops import apply

Monomial = tuple[Expression, ...]
"""A product of atoms, sorted by digest; the empty tuple is 1."""

Polynomial = dict[Monomial, int]

MAX_TERMS = 256


def constant(value: int) -> Literal:
    return Literal(value)


def polynomial(expression: Expression) -> Polynomial:
    """The normal form of an integer expression."""
    done: dict[int, Polynomial] = {}
    for current in postorder(expression):
        if isinstance(current, Expression):
            done[id(current)] = _combine(current, done)
    return done[id(expression)]


def _combine(current: Expression, done: dict[int, Polynomial]) -> Polynomial:
    if isinstance(current, Literal) and isinstance(current.value, int):
        return {(): int(current.value)} if current.value else {}
    if not isinstance(current, Apply):
        return {(current,): 1}
    parts = [done[id(argument)] for argument in current.arguments]
    match current.op:
        case "add":
            return _sum(parts)
        case "sub":
            return _sum([parts[0], _scaled(parts[1], -1)])
        case "neg":
            return _scaled(parts[0], -1)
        case "mul":
            product = parts[0]
            for part in parts[1:]:
                if len(product) * len(part) > MAX_TERMS:
                    return {(current,): 1}
                product = _product(product, part)
            return product
    folded = _fold(current, parts)
    return folded if folded is not None else {(_rebuilt(current, parts),): 1}


def _fold(current: Apply, parts: list[Polynomial]) -> Polynomial | None:
    """Quotients and remainders that come out even, or of constants."""
    if current.op in INTEGER_OPS and all(set(part) <= {()} for part in parts):
        values = [part.get((), 0) for part in parts]
        if current.op in ("floordiv", "ceildiv", "mod") and values[1] == 0:
            return None
        value = INTEGER_OPS[current.op](*values)
        return {(): value} if value else {}
    if current.op in ("floordiv", "ceildiv", "mod"):
        divisor = parts[1]
        if set(divisor) == {()}:
            by = divisor[()]
            if all(coefficient % by == 0 for coefficient in parts[0].values()):
                exact = {m: c // by for m, c in parts[0].items()}
                return {} if current.op == "mod" else exact
        elif len(divisor) == 1 and len(parts[0]) >= 1:
            ((monomial, by),) = divisor.items()
            quotient = _divided(parts[0], monomial, by)
            if quotient is not None:
                return {} if current.op == "mod" else quotient
    return None


def _divided(form: Polynomial, factor: Monomial, by: int) -> Polynomial | None:
    """`form / (by * factor)` where every term is a multiple, else None."""
    exact: Polynomial = {}
    for monomial, coefficient in form.items():
        rest = _without(monomial, factor)
        if rest is None or coefficient % by:
            return None
        exact[rest] = coefficient // by
    return exact


def _without(monomial: Monomial, factor: Monomial) -> Monomial | None:
    left = list(monomial)
    for atom in factor:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def _rebuilt(current: Apply, parts: list[Polynomial]) -> Expression:
    return Apply(current.op, tuple(expression_of(part) for part in parts))


def _sum(parts: list[Polynomial]) -> Polynomial:
    total: Polynomial = {}
    for part in parts:
        for monomial, coefficient in part.items():
            total[monomial] = total.get(monomial, 0) + coefficient
    return {monomial: c for monomial, c in total.items() if c}


def _scaled(part: Polynomial, by: int) -> Polynomial:
    return {monomial: by * c for monomial, c in part.items()} if by else {}


def _product(left: Polynomial, right: Polynomial) -> Polynomial:
    return _sum(
        [
            {tuple(sorted(a + b, key=lambda atom: atom.digest)): x * y}
            for a, x in left.items()
            for b, y in right.items()
        ]
    )


def expression_of(form: Polynomial) -> Expression:
    """The canonical expression of a normal form: terms by degree, constant last."""
    if not form:
        return Literal(0)
    ordered = sorted(
        form.items(), key=lambda item: (-len(item[0]), [_order(atom) for atom in item[0]])
    )
    positive = [(m, c) for m, c in ordered if c > 0]
    negative = [(m, c) for m, c in ordered if c < 0]
    result: Expression | None = None
    if positive:
        result = apply("add", *(_term(m, c) for m, c in positive))
    for monomial, coefficient in negative:
        if result is None:
            result = _term(monomial, coefficient)
        else:
            result = Apply("sub", (result, _term(monomial, -coefficient)))
    assert result is not None
    return result


def _order(atom: Expression) -> tuple[str, bytes]:
    return (atom.name if isinstance(atom, Symbol | Index) else "~", atom.digest)


def _term(monomial: Monomial, coefficient: int) -> Expression:
    if not monomial:
        return Literal(coefficient)
    ordered = sorted(monomial, key=_order)
    return apply("mul", *([Literal(coefficient)] if coefficient != 1 else []), *ordered)


def simplify(expression: Expression) -> Expression:
    """The canonical form of an integer expression."""
    if isinstance(expression, Literal | Symbol | Index):
        return expression
    return expression_of(polynomial(expression))


def difference(left: Expression, right: Expression) -> Polynomial:
    return _sum([polynomial(left), _scaled(polynomial(right), -1)])


def equal(left: Expression, right: Expression) -> bool | None:
    """Whether two extents are equal: True, False, or None where it depends on symbols."""
    if left == right:
        return True
    delta = difference(left, right)
    if not delta:
        return True
    return False if set(delta) == {()} else None


def nonnegative(form: Polynomial) -> bool:
    """Whether a form is provably >= 0, given that every atom is."""
    return all(c >= 0 and all(_atom_nonnegative(x) for x in m) for m, c in form.items())


def _atom_nonnegative(atom: Expression) -> bool:
    if isinstance(atom, Symbol | Index):
        return True
    if isinstance(atom, Apply) and atom.op in ("floordiv", "ceildiv", "mod"):
        return all(nonnegative(polynomial(argument)) for argument in atom.arguments)
    return False


def at_most(left: Expression, right: Expression) -> bool:
    """Whether left <= right is provable for non-negative symbols and indices."""
    return nonnegative(difference(right, left))


def interval(
    expression: Expression, extents: Mapping[str, Expression]
) -> tuple[Polynomial, Polynomial] | None:
    """Lowest and highest value of an index expression over its index ranges [0, extent).

    None where the expression is not affine in the indices with constant-sign coefficients.
    The result holds for non-empty ranges.
    """
    low: list[Polynomial] = []
    high: list[Polynomial] = []
    for monomial, coefficient in polynomial(expression).items():
        indices = [atom for atom in monomial if isinstance(atom, Index)]
        others = tuple(atom for atom in monomial if not isinstance(atom, Index))
        if any(_mentions_index(atom) for atom in others):
            bounds = _atom_interval(monomial, coefficient, extents)
            if bounds is None:
                return None
            low.append(bounds[0])
            high.append(bounds[1])
            continue
        if not indices:
            low.append({monomial: coefficient})
            high.append({monomial: coefficient})
            continue
        if any(index.name not in extents for index in indices):
            return None
        top: Polynomial = {others: coefficient}
        for index in indices:
            top = _product(top, _sum([polynomial(extents[index.name]), {(): -1}]))
        (low if coefficient < 0 else high).append(top)
    return _sum(low), _sum(high)


def _atom_interval(
    monomial: Monomial, coefficient: int, extents: Mapping[str, Expression]
) -> tuple[Polynomial, Polynomial] | None:
    """Bounds of `c * (e % n)` and `c * (e // n)` for constant-sign pieces."""
    if len(monomial) != 1 or coefficient < 0:
        return None
    atom = monomial[0]
    if not isinstance(atom, Apply) or atom.op not in ("mod", "floordiv"):
        return None
    value, divisor = atom.arguments
    if atom.op == "mod":
        return {}, _scaled(_sum([polynomial(divisor), {(): -1}]), coefficient)
    inner = interval(value, extents)
    if inner is None or not nonnegative(inner[0]):
        return None
    top = simplify(Apply("floordiv", (expression_of(inner[1]), divisor)))
    return {}, _scaled(polynomial(top), coefficient)


def _mentions_index(atom: Expression) -> bool:
    return any(isinstance(part, Index) for part in postorder(atom))


def evaluate(expression: Expression, symbols: Mapping[str, int]) -> int:
    """The integer that an extent expression stands for, with its symbols bound."""
    done: dict[int, int] = {}
    for current in postorder(expression):
        if isinstance(current, Literal):
            done[id(current)] = int(current.value)  # type: ignore[arg-type]
        elif isinstance(current, Symbol):
            done[id(current)] = symbols[current.name]
        elif isinstance(current, Apply):
            values = [done[id(argument)] for argument in current.arguments]
            done[id(current)] = integer_op(current.op, values)
        else:
            raise EinloomError(f"{current} is not an extent", location=current.location)
    return done[id(expression)]


def symbols_in(expression: Expression) -> set[str]:
    return {part.name for part in postorder(expression) if isinstance(part, Symbol)}


def indices_in(expression: Expression) -> list[str]:
    """Index variables of an expression, in order of first appearance."""
    found: dict[str, None] = {}
    for part in postorder(expression):
        if isinstance(part, Index):
            found.setdefault(part.name)
    return list(found)


def reads_tensor(expression: Expression) -> bool:
    return any(isinstance(part, Access) for part in postorder(expression))
