"""The table of operations: name, arity, NumPy function, dtype rule, laws, cost.

Passes ask this table for laws; none of them matches on a name. A law carries whether it
holds on floats: "exact" (bit for bit, NaN and infinities included), "ok" (up to rounding,
assuming finite values: the `float-ok` laws that `strict` turns off) or "no".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from einloom.ir.expressions import Apply, Expression, Value
from einloom.ir.record import record

Array = Any


@record
class Law:
    """One law of an operation.

    `kind`: commutative, associative, idempotent, involution, identity, annihilator,
    distributes, right-distributes (`(a + b) / c = a / c + b / c`), undoes
    (`(a + b) - b = a`), turns-sums (`exp(a + b) = exp(a) * exp(b)`). `operand`: the identity or
    annihilator value, or the name of the operation distributed over, undone, or of what sums turn
    into. `floats`: see the module. What
    holds on wrapping integers and complex numbers beyond that is told by `ir/rewrite/laws.py`.
    """

    kind: str
    operand: Value | str | None = None
    floats: str = "exact"


@record
class Op:
    """One primitive operation.

    `arity` None means two or more (associative and commutative, kept flat).
    `rule` names how the result dtype follows from the arguments', see `ir/promotion.py`.
    `cost` is in units of one addition, per element.
    """

    name: str
    arity: int | None
    numpy: Callable[..., Array]
    rule: str
    symbol: str | None = None
    laws: tuple[Law, ...] = ()
    cost: float = 1.0

    def law(self, kind: str) -> Law | None:
        return next((law for law in self.laws if law.kind == kind), None)

    def distributes_over(self, other: str) -> Law | None:
        return next((x for x in self.laws if x.kind == "distributes" and x.operand == other), None)


def _ac(floats: str) -> tuple[Law, ...]:
    return Law("commutative"), Law("associative", floats=floats)


@np.errstate(all="ignore")
def _erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(np.asarray(x).dtype)


def _sigmoid(x: Array) -> Array:
    # exp of a non-positive number only, so that neither branch overflows
    e = np.exp(-np.abs(x))
    one = np.asarray(1, dtype=np.asarray(x).dtype)
    return np.where(x >= 0, one / (one + e), e / (one + e))


def _rsqrt(x: Array) -> Array:
    return np.asarray(1, dtype=np.asarray(x).dtype) / np.sqrt(x)


def _ceildiv(a: Array, b: Array) -> Array:
    if np.result_type(a, b).kind == "f":
        return -np.floor_divide(-a, b)
    return np.floor_divide(a, b) + (np.remainder(a, b) != 0)  # no -a: it wraps


_LATTICE = (*_ac("exact"), Law("idempotent"))

_TABLE = (
    # arithmetic
    Op("add", None, np.add, "arithmetic", "+", (
        *_ac("ok"), Law("identity", 0, floats="ok"),
        Law("distributes", "max", floats="ok"), Law("distributes", "min", floats="ok"))),
    Op("sub", 2, np.subtract, "no-bool", "-", (Law("undoes", "add", floats="ok"),)),
    Op("mul", None, np.multiply, "arithmetic", "*", (
        *_ac("ok"), Law("identity", 1), Law("annihilator", 0, floats="ok"),
        Law("distributes", "add", floats="ok"))),
    Op("div", 2, np.true_divide, "divide", "/", (
        Law("right-distributes", "add", floats="ok"),), cost=8.0),
    Op("floordiv", 2, np.floor_divide, "no-complex", "//", cost=16.0),
    Op("ceildiv", 2, _ceildiv, "no-complex", cost=16.0),
    Op("mod", 2, np.remainder, "no-complex", "%", cost=16.0),
    Op("pow", 2, np.power, "power", "**", cost=40.0),
    Op("neg", 1, np.negative, "no-bool", "-", (Law("involution"),)),
    Op("abs", 1, np.abs, "magnitude"),
    Op("sign", 1, np.sign, "no-bool"),
    Op("conj", 1, np.conjugate, "arithmetic", laws=(Law("involution"),)),
    Op("real", 1, np.real, "component"),
    Op("imag", 1, np.imag, "component"),
    # order
    Op("max", None, np.maximum, "ordered", None, (*_LATTICE, Law("distributes", "min"))),
    Op("min", None, np.minimum, "ordered", None, (*_LATTICE, Law("distributes", "max"))),
    Op("eq", 2, np.equal, "compare", "==", (Law("commutative"),)),
    Op("ne", 2, np.not_equal, "compare", "!=", (Law("commutative"),)),
    Op("lt", 2, np.less, "order", "<"),
    Op("le", 2, np.less_equal, "order", "<="),
    Op("gt", 2, np.greater, "order", ">"),
    Op("ge", 2, np.greater_equal, "order", ">="),
    # truth
    Op("and", None, np.logical_and, "logical", "and", (
        *_LATTICE, Law("identity", True), Law("annihilator", False), Law("distributes", "or"))),
    Op("or", None, np.logical_or, "logical", "or", (
        *_LATTICE, Law("identity", False), Law("annihilator", True), Law("distributes", "and"))),
    Op("not", 1, np.logical_not, "logical", "not"),
    Op("select", 3, np.where, "select"),
    # bits
    Op("bitand", None, np.bitwise_and, "bitwise", "&", (*_LATTICE, Law("distributes", "bitor"),
        Law("distributes", "bitxor"))),
    Op("bitor", None, np.bitwise_or, "bitwise", "|", (
        *_LATTICE, Law("identity", 0), Law("distributes", "bitand"))),
    Op("bitxor", None, np.bitwise_xor, "bitwise", "^", (*_ac("exact"), Law("identity", 0))),
    Op("bitnot", 1, np.bitwise_not, "bitwise", "~", (Law("involution"),)),
    Op("shl", 2, np.left_shift, "shift", "<<"),
    Op("shr", 2, np.right_shift, "shift", ">>"),
    # rounding and classes
    Op("floor", 1, np.floor, "rounding"),
    Op("ceil", 1, np.ceil, "rounding"),
    Op("trunc", 1, np.trunc, "rounding"),
    Op("round", 1, np.rint, "rounding"),
    Op("isnan", 1, np.isnan, "class"),
    Op("isinf", 1, np.isinf, "class"),
    Op("isfinite", 1, np.isfinite, "class"),
    # transcendental
    Op("sqrt", 1, np.sqrt, "float", cost=8.0),
    Op("rsqrt", 1, _rsqrt, "real-float", cost=10.0),
    Op("exp", 1, np.exp, "float", laws=(Law("turns-sums", "mul", floats="ok"),), cost=20.0),
    Op("exp2", 1, np.exp2, "real-float", laws=(Law("turns-sums", "mul", floats="ok"),), cost=20.0),
    Op("expm1", 1, np.expm1, "real-float", cost=25.0),
    Op("log", 1, np.log, "float", cost=20.0),
    Op("log2", 1, np.log2, "real-float", cost=20.0),
    Op("log10", 1, np.log10, "real-float", cost=20.0),
    Op("log1p", 1, np.log1p, "real-float", cost=25.0),
    Op("sin", 1, np.sin, "float", cost=25.0),
    Op("cos", 1, np.cos, "float", cost=25.0),
    Op("tan", 1, np.tan, "real-float", cost=30.0),
    Op("asin", 1, np.arcsin, "real-float", cost=30.0),
    Op("acos", 1, np.arccos, "real-float", cost=30.0),
    Op("atan", 1, np.arctan, "real-float", cost=30.0),
    Op("atan2", 2, np.arctan2, "real-float", cost=35.0),
    Op("sinh", 1, np.sinh, "real-float", cost=30.0),
    Op("cosh", 1, np.cosh, "real-float", cost=30.0),
    Op("tanh", 1, np.tanh, "real-float", cost=30.0),
    Op("erf", 1, _erf, "real-float", cost=30.0),
    Op("sigmoid", 1, _sigmoid, "real-float", cost=25.0),
    # structure: `stored(S[i])` is whether the format of S stores the cell (differs from fill)
    Op("stored", 1, np.not_equal, "stored"),
)  # fmt: skip

OPS: dict[str, Op] = {op.name: op for op in _TABLE}
INFIX: dict[str, Op] = {op.symbol: op for op in _TABLE if op.symbol and op.arity != 1}


@record
class ReducerOp:
    """A builtin monoid: folding with `op` from its identity.

    `identity` is a value, or "lowest"/"highest" of the dtype. A paired reducer (argmax,
    argmin) folds tuples (value, index): ties take the smallest index, NaN wins.
    """

    name: str
    op: str
    identity: Value | str
    paired: bool = False


MONOIDS: dict[str, ReducerOp] = {
    monoid.name: monoid
    for monoid in (
        ReducerOp("sum", "add", 0),
        ReducerOp("prod", "mul", 1),
        ReducerOp("max", "max", "lowest"),
        ReducerOp("min", "min", "highest"),
        ReducerOp("all", "and", True),
        ReducerOp("any", "or", False),
        ReducerOp("xor", "bitxor", 0),
        ReducerOp("argmax", "max", "lowest", paired=True),
        ReducerOp("argmin", "min", "highest", paired=True),
    )
}


@cache
def is_flat(op: str) -> bool:
    """Whether applications of `op` are n-ary and flat."""
    return op in OPS and OPS[op].arity is None


def apply(op: str, *arguments: Expression) -> Expression:
    """`op` applied, with nested applications of a flat operation merged into one.

    A flat operation of one argument is that argument.
    """
    if is_flat(op):
        if any(isinstance(x, Apply) and x.op == op for x in arguments):
            arguments = tuple(
                inner
                for x in arguments
                for inner in (x.arguments if isinstance(x, Apply) and x.op == op else (x,))
            )
        if len(arguments) == 1:
            return arguments[0]
    return Apply(op, tuple(arguments))
