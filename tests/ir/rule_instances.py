"""Programs made from the left sides of rewrite rules, over several semirings.

`instance(rule, semiring, rng)` is a module in which the rule may fire, with ranks of extent 0, 1
and more, and with repeated labels; or None where the rule has no left side over the semiring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np

from einloom.ir.errors import EinloomError
from einloom.ir.expressions import (
    Access,
    Apply,
    Cast,
    Expression,
    Index,
    Literal,
    Pack,
    Project,
    Value,
)
from einloom.ir.infer import infer
from einloom.ir.ops import OPS, apply
from einloom.ir.program import Bound, Einsum, Input, Module, Reduction, Statement, Target
from einloom.ir.promotion import numpy_dtype
from einloom.ir.rewrite.patterns import AllOf, Applied, Found, Number, Pattern, Variable
from einloom.ir.rewrite.rule import ExpressionRule, Rule
from einloom.ir.rules.distributivity import pairs
from einloom.ir.rules.lattices import lattice_pairs
from einloom.ir.types import Rank, Scalar, TensorType, bool_, f16, f32, f64, i8, i32, i64, u8

LABELS = ("i", "j", "k")


@dataclass(frozen=True)
class Semiring:
    """A fold, a product that distributes over it, and the dtype both work on."""

    name: str
    fold: str
    product: str
    dtype: Scalar
    one: Value
    zero: Value


SEMIRINGS = (
    Semiring("+,* f64", "sum", "mul", f64, 1.0, 0.0),
    Semiring("+,* i64", "sum", "mul", i64, 1, 0),
    Semiring("max,+ f64", "max", "add", f64, 0.0, -np.inf),
    Semiring("min,+ f64", "min", "add", f64, 0.0, np.inf),
    Semiring("or,and", "any", "and", bool_, True, False),
)


# What operands are where dtypes are mixed: narrower ones wrap or round before they are widened.
NEIGHBOURS: dict[str, tuple[Scalar, ...]] = {
    "float": (f64, f32, f16, i8),
    "signed": (i64, i32, i8, u8),
    "bool": (bool_,),
}


@dataclass
class Builder:
    """One program in the making: its sizes, the inputs that its leaves read, its randomness.

    `mixed`: the operands have dtypes near that of the semiring.
    """

    semiring: Semiring
    rng: Random
    mixed: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, TensorType] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for label in LABELS:
            self.sizes.setdefault(label, self.rng.choice((0, 1, 2, 3)))

    def leaf(self, labels: tuple[str, ...] | None = None) -> Access:
        """A read of a new input, at labels that may repeat."""
        if labels is None:
            choices = ((), ("i",), ("j",), ("i", "j"), ("j", "i"), ("i", "i"), ("j", "j", "i"))
            labels = self.rng.choice(choices)
        name = f"A{len(self.inputs)}"
        ranks = tuple(Rank(f"r{n}", Literal(self.sizes[x])) for n, x in enumerate(labels))
        dtype = self.semiring.dtype
        if self.mixed:
            dtype = self.rng.choice(NEIGHBOURS[dtype.kind])
        self.inputs[name] = TensorType(dtype, ranks)
        return Access(name, tuple(Index(x) for x in labels))

    def times(self, *factors: Expression) -> Expression:
        """The product of the semiring."""
        return apply(self.semiring.product, *factors)

    def fold(self, *labels: str) -> tuple[Reduction, ...]:
        """One reduction of the semiring over labels, none where there is no label."""
        return (Reduction(self.semiring.fold, labels),) if labels else ()

    def einsum(
        self,
        name: str,
        left: tuple[str, ...],
        body: Expression,
        reductions: tuple[Reduction, ...] = (),
        condition: Expression | None = None,
        bounded: tuple[str, ...] = (),
    ) -> Einsum:
        """A statement; `bounded` labels get their extents from `where`."""
        bounds = tuple(Bound(label, Literal(self.sizes[label])) for label in bounded)
        indices = tuple(Index(label) for label in left)
        return Einsum((Target(name),), indices, body, reductions, condition, bounds)

    def module(self, *statements: Statement, outputs: tuple[str, ...] = ("T",)) -> Module:
        """The program of these statements."""
        inputs = tuple(Input(name, type_) for name, type_ in self.inputs.items())
        return Module("instance", inputs, outputs, statements)

    def whole(self, expression: Expression) -> Module:
        """A program that computes an expression of i and j, and folds j away."""
        statement = self.einsum("T", ("i",), expression, self.fold("j"), bounded=("i", "j"))
        return self.module(statement)


def arrays_for(module: Module, rng: Random, special: bool = False) -> dict[str, Any]:
    """Inputs: small whole numbers in the integer dtypes and half of the time in floats.

    `special`: NaN, infinities and zeros of both signs among the floats.
    """
    generator = np.random.default_rng(rng.getrandbits(32))
    found = {}
    for item in module.inputs:
        assert item.type is not None
        shape = [int(extent.value) for extent in item.type.extents]  # type: ignore[attr-defined]
        dtype = numpy_dtype(item.type.dtype)
        if dtype.kind == "b":
            values = generator.integers(0, 2, shape).astype(dtype)
        elif dtype.kind in "iu":
            far = rng.random() < 0.5 and dtype.itemsize == 1
            values = generator.integers(-200 if far else -4, 200 if far else 5, shape).astype(dtype)
        else:
            values = generator.standard_normal(shape).astype(dtype)
            if rng.random() < 0.5:
                values = np.round(values * 3)
            if special:
                odd = generator.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], shape)
                values = np.where(generator.random(shape) < 0.4, odd, values).astype(dtype)
        found[item.name] = values
    return found


# ---- expressions from patterns ------------------------------------------------------------


def from_pattern(pattern: Pattern, builder: Builder, bound: dict[str, Expression]) -> Expression:
    """An expression that a pattern matches."""
    rng = builder.rng
    match pattern:
        case Variable(name):
            if name not in bound:
                bound[name] = builder.leaf()
            return bound[name]
        case Number(value, _, test):
            candidates: list[Value] = [-0.0, 0.0, 1.0, 2.0, True, False, 0.25, -4.0, 3]
            chosen = value if value is not None else rng.choice([2.0, 0.25, -4.0, 3, 1])
            if test is not None:
                chosen = next(c for c in candidates if test(c) and (value is None or c == value))
            cast = rng.random() < 0.3 and not isinstance(chosen, bool)
            literal = Literal(chosen)
            return Cast(builder.semiring.dtype, literal) if cast else literal
        case Applied(op, arguments, rest):
            parts = [from_pattern(argument, builder, bound) for argument in arguments]
            if rest is not None:
                parts += [builder.leaf() for _ in range(rng.randint(0, 2))]
            if OPS[op].law("commutative"):
                rng.shuffle(parts)
            return apply(op, *parts)
        case AllOf(op, inner, least):
            parts = [from_pattern(inner, builder, {}) for _ in range(least + rng.randint(0, 1))]
            parts += [builder.leaf() for _ in range(rng.randint(1, 2))]
            rng.shuffle(parts)
            return apply(op, *parts)
    raise AssertionError(f"no instances of {pattern}")


def is_written_out(pattern: Pattern) -> bool:
    """Whether a pattern consists of parts that `from_pattern` makes."""
    if isinstance(pattern, Found):
        return False
    parts = list(getattr(pattern, "arguments", ()))
    parts += [pattern.pattern] if isinstance(pattern, AllOf) else []
    return all(is_written_out(part) for part in parts)


# ---- expressions for patterns that are functions ------------------------------------------

Maker = Callable[[Builder], Expression]


def _shuffled(builder: Builder, op: str, *parts: Expression) -> Expression:
    more = [builder.leaf() for _ in range(builder.rng.randint(0, 1))]
    arguments = [*parts, *more]
    builder.rng.shuffle(arguments)
    return apply(op, *arguments)


def _twice(op: str) -> Maker:
    def make(builder: Builder) -> Expression:
        x = builder.leaf()
        return _shuffled(builder, op, x, x)

    return make


def _absorbed(op: str, other: str) -> Maker:
    def make(builder: Builder) -> Expression:
        x = builder.leaf()
        return _shuffled(builder, op, x, apply(other, builder.leaf(), x))

    return make


def _with_end(op: str, lowest: bool) -> Maker:
    def make(builder: Builder) -> Expression:
        ends: dict[str, tuple[Value, Value]] = {
            "float": (-np.inf, np.inf),
            "signed": (-(2**63), 2**63 - 1),
            "bool": (False, True),
        }
        end = ends[builder.semiring.dtype.kind][0 if lowest else 1]
        return apply(op, builder.leaf(), Literal(end))

    return make


def _common(product: str, total: str) -> Maker:
    def make(builder: Builder) -> Expression:
        x = builder.leaf()
        terms = [_shuffled(builder, product, x, builder.leaf()) for _ in range(2)]
        return _shuffled(builder, total, *terms)

    return make


def _spread(product: str, total: str) -> Maker:
    def make(builder: Builder) -> Expression:
        inner = apply(total, builder.leaf(), builder.leaf())
        return _shuffled(builder, product, builder.leaf(), inner)

    return make


def _negated(op: str) -> Maker:
    return lambda b: Apply("not", (Apply(op, (b.leaf(), b.leaf())),))


def _truth(builder: Builder) -> Expression:
    if builder.semiring.dtype == bool_:
        return builder.leaf()
    return Apply("lt", (builder.leaf(), builder.leaf()))


def _all_negated(op: str) -> Maker:
    return lambda b: Apply(
        "not", (apply(op, Apply("not", (_truth(b),)), Apply("not", (_truth(b),))),)
    )


def _with_negation(op: str) -> Maker:
    def make(builder: Builder) -> Expression:
        x = _truth(builder)
        return _shuffled(builder, op, x, Apply("not", (x,)))

    return make


def _all_constants(builder: Builder) -> Expression:
    names = [name for name in OPS if name != "stored"]
    op = OPS[builder.rng.choice(names)]
    values: dict[str, list[Value]] = {
        "float": [0.5, -2.0, 3.0, 0.0, -0.0],
        "signed": [1, 2, 3, 0, 5],
        "bool": [True, False],
    }
    choices = values[builder.semiring.dtype.kind]
    count = op.arity or builder.rng.randint(2, 4)
    parts: list[Expression] = []
    for _ in range(count):
        literal = Literal(builder.rng.choice(choices))
        strong = builder.rng.random() < 0.5
        parts.append(Cast(builder.semiring.dtype, literal) if strong else literal)
    return apply(op.name, *parts)


def _cast_to_own(builder: Builder) -> Expression:
    return Cast(builder.semiring.dtype, builder.leaf())


def _cast_through(builder: Builder) -> Expression:
    between = builder.rng.choice((f64, i64))
    to = builder.rng.choice((f64, i64, i8, bool_))
    return Cast(to, Cast(between, builder.leaf()))


def _cast_narrowing(builder: Builder) -> Expression:
    between = builder.rng.choice((i8, Scalar("u16"), Scalar("i32")))
    to = builder.rng.choice((i8, Scalar("u8")))
    return Cast(to, Cast(between, builder.leaf()))


def _component(builder: Builder) -> Expression:
    items = (builder.leaf(), builder.leaf())
    return Project(Pack(items), builder.rng.randint(0, 1))


MAKERS: dict[str, Maker] = {
    "operation_on_constants_is_its_value": _all_constants,
    "component_of_a_written_tuple": _component,
    "conversion_to_the_own_dtype_changes_nothing": _cast_to_own,
    "conversion_through_a_wider_dtype_is_direct": _cast_through,
    "conversions_that_drop_bits_are_one": _cast_narrowing,
    "max_with_the_lowest_value_is_dropped": _with_end("max", lowest=True),
    "max_with_the_highest_value_is_it": _with_end("max", lowest=False),
    "min_with_the_highest_value_is_dropped": _with_end("min", lowest=False),
    "min_with_the_lowest_value_is_it": _with_end("min", lowest=True),
    "de_morgan_for_and": _all_negated("and"),
    "de_morgan_for_or": _all_negated("or"),
    "and_of_a_value_and_its_negation_is_false": _with_negation("and"),
    "or_of_a_value_and_its_negation_is_true": _with_negation("or"),
    **{
        f"{op}_of_equal_values_is_one_of_them": _twice(op)
        for op in ("max", "min", "and", "or", "bitand", "bitor")
    },
    **{f"{op}_absorbs_{other}": _absorbed(op, other) for op, other in lattice_pairs()},
    **{f"common_{p}_is_taken_out_of_{t}": _common(p, t) for p, t in pairs()},
    **{f"{p}_is_spread_over_{t}": _spread(p, t) for p, t in pairs()},
    **{
        f"not_{op}_is_{opposite}": _negated(op)
        for op, opposite in (
            ("eq", "ne"), ("ne", "eq"), ("lt", "ge"), ("ge", "lt"), ("gt", "le"), ("le", "gt"),
        )
    },
}  # fmt: skip


def expression_instance(rule: ExpressionRule, builder: Builder) -> Module:
    """A program whose statement computes a left side of the rule."""
    if rule.name in MAKERS:
        return builder.whole(MAKERS[rule.name](builder))
    return builder.whole(from_pattern(rule.pattern, builder, {}))


def instance(rule: Rule, semiring: Semiring, rng: Random, mixed: bool) -> Module | None:
    """A program in which the rule may fire, or None where it has none over the semiring.

    `mixed`: operands of several dtypes now and then.
    """
    from tests.ir.einsum_instances import PROGRAMS

    builder = Builder(semiring, rng, mixed=mixed and rng.random() < 0.4)
    if rule.name in PROGRAMS:
        module = PROGRAMS[rule.name](builder)
        return module if module is None or rng.random() < 0.7 else onto_a_diagonal(module)
    assert isinstance(rule, ExpressionRule), f"no instances of {rule.name}"
    return expression_instance(rule, builder)


def onto_a_diagonal(module: Module) -> Module:
    """The same with the vector T written onto a diagonal, which leaves most cells unreached."""
    last = module.body[-1]
    if not isinstance(last, Einsum) or last.indices != (Index("i"),):
        return module
    try:
        type_ = infer(module).tensors["T"]
    except EinloomError:  # an operation that the dtype does not have
        return module
    extent = type_.ranks[0].extent
    square = TensorType(type_.dtype, (Rank("p", extent), Rank("q", extent)))
    last = replace(last, targets=(Target("T", square),), indices=(Index("i"), Index("i")))
    return replace(module, body=(*module.body[:-1], last))
