"""Programs made from the left sides of the rules on statements; see rule_instances.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from einloom.ir.expressions import Access, Apply, Cast, Expression, Index, Literal
from einloom.ir.ops import apply
from einloom.ir.program import Einsum, Module, Reduction, Scan, Target
from einloom.ir.types import Rank, TensorType, bool_, f16, f64, i8, i64
from tests.ir.rule_instances import Builder

I, J, K = Index("i"), Index("j"), Index("k")  # noqa: E741


def _compare(op: str, left: Expression, right: Expression) -> Expression:
    return Apply(op, (left, right))


# ---- domains ------------------------------------------------------------------------------


def always_true(b: Builder) -> Module:
    true = b.rng.choice(
        (
            _compare("lt", J, Literal(b.sizes["j"])),
            _compare("ge", J, Literal(0)),
            _compare("le", J, Literal(b.sizes["j"] - 1)),
            _compare("gt", Literal(b.sizes["j"]), J),
        )
    )
    parts = [true, _compare("lt", I, J)] if b.rng.random() < 0.5 else [true]
    left, fold = (("i",), b.fold("j")) if b.rng.random() < 0.5 else (("i", "j"), ())
    return b.module(b.einsum("T", left, b.leaf(("i", "j")), fold, apply("and", *parts)))


def fixed_index(b: Builder) -> Module:
    """One index equals another, a number or a sum; alone, or beside other conditions and folds."""
    rng = b.rng
    b.sizes["k"] = rng.choice((b.sizes["i"], b.sizes["j"], b.sizes["k"]))
    value = rng.choice((I, J, Literal(rng.randint(0, 2)), Apply("add", (J, Literal(1)))))
    sides = [K, value]
    rng.shuffle(sides)
    parts = [_compare("eq", *sides)]
    if rng.random() < 0.4:
        parts.append(_compare("lt", I, J))
    rng.shuffle(parts)
    other = rng.choice((b.semiring.fold, "max" if b.semiring.fold != "max" else "min"))
    outer, inner = Reduction(other, ("j",)), Reduction(b.semiring.fold, ("k",))
    reductions = rng.choice(
        (b.fold("j", "k"), (outer, inner), (inner, outer), (*b.fold("k"), *b.fold("j")))
    )
    body = b.times(b.leaf(("i", "k")), b.leaf(("k", "j")))
    condition = apply("and", *parts)
    if rng.random() < 0.3:
        return b.module(b.einsum("T", ("i", "j"), body, b.fold("k"), condition))
    return b.module(b.einsum("T", ("i",), body, _accumulated(b, reductions), condition))


def _choice(b: Builder, chosen: Expression) -> Expression:
    condition = b.rng.choice((_compare("eq", I, J), _compare("lt", I, J), _compare("ne", J, I)))
    return Apply("select", (condition, chosen, _constant(b, b.semiring.zero)))


def _constant(b: Builder, value: bool | int | float | complex) -> Expression:
    return Cast(b.semiring.dtype, Literal(value)) if b.rng.random() < 0.5 else Literal(value)


def chosen_identity(b: Builder) -> Module:
    condition = _compare("le", I, J) if b.rng.random() < 0.3 else None
    body = _choice(b, b.leaf(("i", "j")))
    return b.module(b.einsum("T", ("i",), body, b.fold("j"), condition))


def indicator(b: Builder) -> Module:
    delta = _choice(b, _constant(b, b.semiring.one))
    if b.semiring.product == "mul" and b.rng.random() < 0.4:
        delta = Cast(b.semiring.dtype, _compare("eq", I, J))
    if b.semiring.product == "and" and b.rng.random() < 0.4:
        delta = _compare("eq", I, J)
    factors = [delta, b.leaf(("i", "j")), b.leaf(("j",))][: b.rng.randint(2, 3)]
    b.rng.shuffle(factors)
    return b.module(b.einsum("T", ("i",), b.times(*factors), b.fold("j"), bounded=("i", "j")))


# ---- folds --------------------------------------------------------------------------------


def over_nothing(b: Builder) -> Module:
    b.sizes["j"] = 0
    condition = _compare("lt", I, J) if b.rng.random() < 0.3 else None
    body = b.times(b.leaf(("i", "j")), b.leaf(("k", "j")))
    return b.module(b.einsum("T", ("i",), body, b.fold("k", "j"), condition))


def adjacent(b: Builder) -> Module:
    reductions = (*b.fold("j"), *b.fold("k"))
    condition = _compare("lt", J, K) if b.rng.random() < 0.3 else None
    body = b.times(b.leaf(("i", "j")), b.leaf(("k", "j")))
    return b.module(b.einsum("T", ("i",), body, reductions, condition))


def _accumulated(b: Builder, reductions: tuple[Reduction, ...]) -> tuple[Reduction, ...]:
    """Folds with an accumulator dtype now and then."""
    if b.semiring.dtype == bool_ or b.rng.random() < 0.7:
        return reductions
    wide = b.semiring.dtype if b.rng.random() < 0.5 else i8
    return tuple(replace(r, accumulator=wide) for r in reductions)


def over_one(b: Builder) -> Module:
    b.sizes["j"] = 1
    condition = _compare("lt", I, Literal(1)) if b.rng.random() < 0.4 else None
    scalar = b.rng.random() < 0.3 and b.semiring.dtype in (i64, f64)
    body = b.times(b.leaf(("i", "j")), b.leaf(("k", "j")), *((J,) if scalar else ()))
    reductions = b.rng.choice((b.fold("k", "j"), (*b.fold("k"), *b.fold("j"))))
    if b.rng.random() < 0.5:
        body = b.times(b.leaf(("i", "j")), b.leaf(("j", "j")))
        reductions = b.fold("j")
    return b.module(b.einsum("T", ("i",), body, _accumulated(b, reductions), condition))


def _unused(b: Builder, monoid: str) -> Module:
    condition = _compare("lt", I, Literal(1)) if b.rng.random() < 0.3 else None
    used = b.rng.random() < 0.6
    labels = ("j", "k") if used else ("k",)
    body = b.leaf(("i", "j")) if used else b.leaf(("i",))
    reductions: tuple[Reduction, ...] = (Reduction(monoid, labels),)
    if used and b.rng.random() < 0.3:
        reductions = (Reduction(monoid, ("k",)), Reduction(monoid, ("j",)))
    reductions = _accumulated(b, reductions)
    return b.module(b.einsum("T", ("i",), body, reductions, condition, bounded=("k",)))


def unused_idempotent(b: Builder) -> Module | None:
    return _unused(b, b.semiring.fold) if b.semiring.fold != "sum" else None


def unused_sum(b: Builder) -> Module | None:
    return _unused(b, "sum") if b.semiring.fold == "sum" else None


def unused_product(b: Builder) -> Module | None:
    return _unused(b, "prod") if b.semiring.product == "mul" else None


# ---- nesting ------------------------------------------------------------------------------


def nested(b: Builder) -> Module:
    """A producer and its reader: with a factor, alone, folded again, or read on a diagonal."""
    rng = b.rng
    inner = b.times(b.leaf(("i", "k")), b.leaf(("k", "j")))
    fold = rng.choice((b.fold("k"), b.fold("k"), b.fold("k"), (Reduction("min", ("k",)),), ()))
    first = b.einsum("P", ("i", "j"), inner, fold)
    if not first.reductions:
        first = b.einsum("P", ("i", "j"), b.times(b.leaf(("i", "j")), b.leaf(("j",))))
    # The reader uses k for something else, so that the folded index must be renamed.
    reader = rng.choice((("i", "k"), ("k", "i"), ("i", "i")))
    if "k" in reader:
        b.sizes["k"] = b.sizes["j"] if reader == ("i", "k") else b.sizes["i"]
    if reader == ("k", "i") or reader == ("i", "i"):
        b.sizes["j"] = b.sizes["i"]
    return _rebuilt(b, first, reader)


def _rebuilt(b: Builder, first: Einsum, reader: tuple[str, ...]) -> Module:
    rng = b.rng
    b.inputs.clear()
    if first.reductions:
        body = b.times(b.leaf(("i", "k")), b.leaf(("k", "j")))
    else:
        body = b.times(b.leaf(("i", "j")), b.leaf(("j",)))
    first = replace(first, body=body)
    if rng.random() < 0.2:  # stored in another dtype than it is computed in
        ranks = tuple(Rank(x, Literal(b.sizes[x])) for x in ("i", "j"))
        narrow = TensorType(f16 if b.semiring.dtype == f64 else i8, ranks)
        first = replace(first, targets=(Target("P", narrow),))
    read = Access("P", tuple(Index(x) for x in reader))
    with_factor = rng.random() < 0.7
    outer = b.times(read, b.leaf(("k",) if "k" in reader else ("i",))) if with_factor else read
    other = rng.choice((b.semiring.fold, b.semiring.fold, "max"))
    labels = ("k",) if "k" in reader and rng.random() < 0.7 else ()
    left = tuple(dict.fromkeys(x for x in reader if x not in labels))
    condition = _compare("lt", I, Literal(1)) if rng.random() < 0.2 else None
    reductions = (Reduction(other, labels),) if labels else ()
    second = b.einsum("T", left, outer, reductions, condition)
    return b.module(first, second)


def denested(b: Builder) -> Module:
    for label in b.sizes:
        b.sizes[label] = b.rng.choice((0, 2, 3, 3))
    factors = [b.leaf(("i", "k")), b.leaf(("k",)), b.leaf(("i", "j")), b.leaf(("j", "j"))]
    b.rng.shuffle(factors)
    factors = factors[: b.rng.randint(2, 4)]
    reductions = b.rng.choice((b.fold("j", "k"), (*b.fold("j"), *b.fold("k"))))
    body = b.times(*factors)
    return b.module(b.einsum("T", ("i",), body, reductions, bounded=("i", "j", "k")))


# ---- propagation --------------------------------------------------------------------------


def _permuted_copy(b: Builder) -> tuple[Einsum, Expression]:
    copy = b.einsum("P", ("j", "i"), b.leaf(("i", "j")))
    if b.rng.random() < 0.3:  # stored in another dtype
        ranks = tuple(Rank(x, Literal(b.sizes[x])) for x in ("j", "i"))
        copy = replace(copy, targets=(Target("P", TensorType(f16, ranks)),))
    return copy, Access("P", (J, I))


def _copy_of_a_diagonal(b: Builder) -> tuple[Einsum, Expression]:
    return b.einsum("P", ("i",), b.leaf(("i", "i"))), Access("P", (I,))


def _copy_of_a_slice(b: Builder) -> tuple[Einsum, Expression]:
    b.sizes["i"] = max(b.sizes["i"], 1)
    row = replace(b.leaf(("i", "j")), indices=(Literal(0), J))
    return b.einsum("P", ("j",), row), Access("P", (J,))


def _copy_of_a_middle(b: Builder) -> tuple[Einsum, Expression]:
    """The read is out of range of the copy at its end, where the original has a value."""
    b.sizes["k"] = b.sizes["i"] + 2
    part = replace(b.leaf(("k",)), indices=(Apply("add", (I, Literal(1))),))
    copy = b.einsum("P", ("i",), part, bounded=("i",))
    return copy, Access("P", (Apply("add", (I, Literal(1))),), Literal(False))


def _scatter(b: Builder) -> tuple[Einsum, Expression]:
    """`P[i, i] = A[i, i]` is no copy: P is zero off its diagonal."""
    b.sizes["j"] = b.sizes["i"]
    square = b.leaf(("i", "i"))
    extent = Literal(b.sizes["i"])
    type_ = TensorType(b.semiring.dtype, (Rank("p", extent), Rank("q", extent)))
    return Einsum((Target("P", type_),), (I, I), square), Access("P", (J, I))


COPIES = (_permuted_copy, _copy_of_a_diagonal, _copy_of_a_slice, _copy_of_a_middle, _scatter)


def read_of_a_copy(b: Builder) -> Module:
    """Copies that permute, slice or take a diagonal, and one that only looks like a copy."""
    copy, read = b.rng.choice(COPIES)(b)
    body = b.times(read, b.leaf(("i", "j")))
    return b.module(copy, b.einsum("T", ("i",), body, b.fold("j")))


def read_of_a_uniform_tensor(b: Builder) -> Module:
    value = _constant(b, b.rng.choice((b.semiring.one, True, 1)))
    uniform = b.einsum("P", ("i", "j"), value, bounded=("i", "j"))
    if b.rng.random() < 0.3:
        uniform = b.einsum("P", ("i", "j"), value, (), _compare("lt", I, J), ("i", "j"))
    body = b.times(Access("P", (I, J)), b.leaf(("i", "j")))
    return b.module(uniform, b.einsum("T", ("i",), body, b.fold("j")))


def index_in_normal_form(b: Builder) -> Module:
    original = b.leaf(("i", "j"))
    shorter = b.rng.random() < 0.3
    index = Apply("sub", (Apply("add", (J, Literal(1))), Literal(1)))
    read = replace(original, indices=(I, index))
    if shorter and b.sizes["j"] > 0:
        b.sizes["j"] -= 1  # a plain index would have to run over the whole rank
    return b.module(b.einsum("T", ("i",), read, b.fold("j"), bounded=("i", "j")))


# ---- whole statements ---------------------------------------------------------------------


def equal_statements(b: Builder) -> Module:
    x, y = b.leaf(("i", "j")), b.leaf(("j", "k"))
    first = b.einsum("P", ("i", "k"), b.times(x, y), b.fold("j"))
    names = {"i": "p", "j": "q", "k": "r"}

    def renamed(access: Access) -> Access:
        return replace(
            access,
            indices=tuple(Index(names[e.name]) for e in access.indices if isinstance(e, Index)),
        )

    factors = [renamed(y), renamed(x)] if b.rng.random() < 0.5 else [renamed(x), renamed(y)]
    left = (Index("p"), Index("r"))
    second = Einsum((Target("Q"),), left, b.times(*factors), (Reduction(b.semiring.fold, ("q",)),))
    if b.rng.random() < 0.3:  # transposed: not the same tensor
        second = replace(second, indices=left[::-1])
        last = b.times(Access("P", (I, K)), Access("Q", (K, I)))
    else:
        last = b.times(Access("P", (I, K)), Access("Q", (I, K)))
    return b.module(first, second, b.einsum("T", ("i",), last, b.fold("k")))


def unread(b: Builder) -> Module:
    dead = b.einsum("P", ("i",), b.leaf(("i", "j")), b.fold("j"))
    deader = b.einsum("Q", ("i",), Access("P", (I,)))
    return b.module(dead, deader, b.einsum("T", ("i",), b.leaf(("i", "j")), b.fold("j")))


def unread_state(b: Builder) -> Module:
    def state(name: str, source: Access) -> tuple[Einsum, Einsum]:
        step = Apply("add", (Index("t"), Literal(1)))
        begin = Einsum((Target(name),), (Literal(0), I), source)
        update = b.times(Access(name, (Index("t"), I)), source)
        return begin, Einsum((Target(name),), (step, I), update)

    live, dead = state("S", b.leaf(("i",))), state("D", b.leaf(("i",)))
    scan = Scan("t", Literal(b.rng.randint(0, 3)), (live[0], dead[0]), (dead[1], live[1]))
    last = b.einsum("T", ("i",), Access("S", (I,), view="final"))
    return b.module(scan, last)


PROGRAMS: dict[str, Callable[[Builder], Module | None]] = {
    "condition_that_always_holds_is_dropped": always_true,
    "index_that_the_domain_fixes_is_substituted": fixed_index,
    "choice_of_the_identity_is_a_domain": chosen_identity,
    "factor_of_one_or_zero_is_a_domain": indicator,
    "fold_over_nothing_is_its_identity": over_nothing,
    "adjacent_folds_with_one_monoid_merge": adjacent,
    "fold_over_one_value_is_that_value": over_one,
    "idempotent_fold_over_an_unused_index_is_dropped": unused_idempotent,
    "sum_over_an_unused_index_multiplies": unused_sum,
    "product_over_an_unused_index_is_a_power": unused_product,
    "einsum_with_one_reader_is_nested_into_it": nested,
    "product_under_a_fold_is_denested": denested,
    "read_of_a_copy_reads_the_original": read_of_a_copy,
    "read_of_a_uniform_tensor_is_its_value": read_of_a_uniform_tensor,
    "index_expression_in_normal_form": index_in_normal_form,
    "equal_statement_is_computed_once": equal_statements,
    "statement_without_a_reader_is_dropped": unread,
    "state_without_a_reader_is_dropped": unread_state,
}
