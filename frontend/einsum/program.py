"""From a spec to a program: one einsum statement over symbolic extents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from einloom.frontend.einsum.semiring import SUM_PRODUCT, Semiring
from einloom.frontend.einsum.spec import Label, Spec
from einloom.ir.expressions import Access, Apply, Cast, Expression, Index, Literal, Symbol
from einloom.ir.names import unique_name
from einloom.ir.ops import apply, is_flat
from einloom.ir.program import Bound, Einsum, Input, Module, Reduction, Target
from einloom.ir.promotion import promote_all
from einloom.ir.types import DType, Rank, TensorType

RESULT = "result"


def operand_name(position: int) -> str:
    """The input that holds an operand: `x0`, `x1`, ..."""
    return f"x{position}"


def canonical(spec: Spec) -> Spec:
    """The spec with its labels renamed `i0`, `i1`, ... in order of appearance.

    Specs that say the same in other letters come out equal, and share their machine code.
    """
    names = {label: Label(f"i{k}", label.text) for k, label in enumerate(spec.labels)}
    inputs = tuple(tuple(names[label] for label in labels) for labels in spec.inputs)
    return replace(spec, inputs=inputs, output=tuple(names[label] for label in spec.output))


def to_module(
    spec: Spec,
    dtypes: Sequence[DType],
    *,
    semiring: Semiring = SUM_PRODUCT,
    dtype: DType | None = None,
    order: Sequence[int] | None = None,
    operand_orders: Sequence[Sequence[int] | None] | None = None,
) -> Module:
    """The program of an expanded spec for operands of the given dtypes.

    All operands are converted to `dtype`, or to their common dtype, so that the result does not
    depend on the order of contraction. `order` permutes the ranks of the result as it is stored:
    rank k of the program's result is rank `order[k]` of the spec's output; `operand_orders` does
    the same for operands.
    """
    common = dtype if dtype is not None else promote_all(dtypes)
    names = _index_names(spec)
    symbols = _symbols(spec, names)
    stored = [
        labels if permuted is None else tuple(labels[k] for k in permuted)
        for labels, permuted in zip(
            spec.inputs, operand_orders or (None,) * len(spec.inputs), strict=True
        )
    ]
    inputs = tuple(
        Input(operand_name(k), _type(labels, operand, symbols, names))
        for k, (labels, operand) in enumerate(zip(stored, dtypes, strict=True))
    )
    factors = [
        _converted(Access(operand_name(k), tuple(names[label] for label in labels)), d, common)
        for k, (labels, d) in enumerate(zip(stored, dtypes, strict=True))
    ]
    output = [spec.output[k] for k in order] if order is not None else list(spec.output)
    kept = set(output)
    reduced = tuple(names[label].name for label in spec.labels if label not in kept)
    bounds: tuple[Bound, ...] = ()
    if not reduced and len(kept) < len(output) and semiring.reducer != "sum":
        # Cells off the diagonal hold the identity of the reducer, so one has to be there.
        alone = unique_name("one", [index.name for index in names.values()])
        reduced, bounds = (alone,), (Bound(alone, Literal(1)),)
    statement = Einsum(
        (Target(RESULT),),
        tuple(names[label] for label in output),
        _product(semiring.product, factors),
        (Reduction(semiring.reducer, reduced),) if reduced else (),
        bounds=bounds,
    )
    return Module("einsum", inputs, (RESULT,), (statement,), semiring.definitions)


def _product(op: str, factors: Sequence[Expression]) -> Expression:
    """The factors under an operation of any number of arguments, or of two, from the left."""
    if is_flat(op):
        return apply(op, *factors)
    return reduce(lambda left, right: Apply(op, (left, right)), factors)


def symbol_names(spec: Spec) -> dict[Label, str]:
    """The symbol of the program that stands for each label's extent."""
    return {label: symbol.name for label, symbol in _symbols(spec, _index_names(spec)).items()}


def _index_names(spec: Spec) -> dict[Label, Index]:
    return {label: Index(label.name) for label in spec.labels}


def _symbols(spec: Spec, names: dict[Label, Index]) -> dict[Label, Symbol]:
    """`N_i` for label i, unless a label is called that."""
    taken = {index.name for index in names.values()}
    found: dict[Label, Symbol] = {}
    for label in names:
        name = f"N_{label.name}"
        while name in taken:
            name += "_"
        found[label] = Symbol(name)
    return found


def _type(
    labels: Sequence[Label],
    dtype: DType,
    symbols: dict[Label, Symbol],
    names: dict[Label, Index],
) -> TensorType:
    ranks: list[Rank] = []
    repeated = len(set(labels)) < len(labels)
    for label in labels:
        name = names[label].name
        if repeated:
            name = unique_name(name, [rank.name for rank in ranks])
        ranks.append(Rank(name, symbols[label]))
    return TensorType(dtype, tuple(ranks))


def _converted(access: Expression, dtype: DType, common: DType) -> Expression:
    return access if dtype == common else Cast(common, access)
