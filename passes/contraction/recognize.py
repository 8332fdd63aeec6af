"""Recognizing contractions: a statement read as a network of factors, or the reason why not."""

from __future__ import annotations

from collections.abc import Mapping

from einloom.ir import extents as ext
from einloom.ir.definitions import functions_of, inline, monoids_of
from einloom.ir.errors import EinloomError
from einloom.ir.expressions import Access, Apply, Cast, Expression, Index
from einloom.ir.infer import EinsumTyping, Inference
from einloom.ir.node import postorder
from einloom.ir.ops import MONOIDS, is_flat
from einloom.ir.program import Einsum, Module, Reduction
from einloom.ir.promotion import Typing, compute_dtype, numpy_dtype
from einloom.ir.record import record
from einloom.ir.rewrite.laws import Status, absorbs, distributes, merges
from einloom.ir.types import COMPLEX, FLOAT, DType, Quantized, Scalar
from einloom.ir.typing import Lookup, typings_of
from einloom.passes.base import Context
from einloom.passes.contraction.network import Network

UNKNOWN_EXTENT = 64
"""The size assumed of an extent of which nothing is known."""


@record
class Contraction:
    """An einsum that may be split: `op` of `factors`, folded with `monoid`.

    Every factor has `dtype`, in which everything is computed. Index k of the network is `names[k]`
    of extent `extents[k]`. `sliceable`: reduced indices that a scan may run over. `annotate`: the
    result needs its dtype stated, because `dtype` is wider.
    """

    statement: Einsum
    op: str
    monoid: str
    factors: tuple[Expression, ...]
    dtype: DType
    names: tuple[str, ...]
    extents: tuple[Expression, ...]
    network: Network
    sliceable: frozenset[int]
    annotate: bool

    @property
    def name(self) -> str:
        return self.statement.targets[0].name


@record
class Refusal:
    """Why a product of factors with a fold around it is left as it is."""

    reason: str


class Recognizer:
    """Reads the statements of one module."""

    def __init__(self, module: Module, inference: Inference, context: Context) -> None:
        self.inference = inference
        self.context = context
        self.functions = functions_of(module)
        self.lookup = Lookup(inference.tensors, set(), self.functions, monoids_of(module))

    def read(self, statement: Einsum) -> Contraction | Refusal | None:
        """The contraction that a statement is, a refusal, or None where nothing could be split."""
        body = inline(statement.body, self.functions) if self.functions else statement.body
        if (
            len(statement.targets) != 1
            or not statement.reductions
            or not isinstance(body, Apply)
            or not is_flat(body.op)
        ):
            return None
        typing = self.inference.einsums[statement]
        numbers = _numbered(statement, typing)
        terms = tuple(_term(factor, numbers) for factor in body.arguments)
        if not _worthwhile(terms, statement, numbers):
            return None
        typings = typings_of(body, self.lookup)
        joined = typings[id(body)].dtype
        reason = self.refused(statement, typing, body.op, joined)
        if reason is not None:
            return Refusal(reason)
        dtype = _computed_dtype(statement.reductions, joined)
        assert dtype is not None, "refused otherwise"
        factors = tuple(_converted(factor, typings[id(factor)], dtype) for factor in body.arguments)
        network = self.network(statement, typing, body.arguments, dtype, numbers, terms)
        sliceable = self.sliceable(statement, typing, body, numbers, network.reduced)
        target = statement.targets[0]
        annotate = target.type is None and self.inference.tensors[target.name].dtype != dtype
        return Contraction(
            statement, body.op, statement.reductions[0].monoid, factors, dtype,
            tuple(numbers), tuple(typing.extents[name] for name in numbers), network,
            sliceable, annotate,
        )  # fmt: skip

    def network(
        self,
        statement: Einsum,
        typing: EinsumTyping,
        factors: tuple[Expression, ...],
        dtype: DType,
        numbers: Mapping[str, int],
        terms: tuple[tuple[int, ...], ...],
    ) -> Network:
        reduced = tuple(numbers[name] for r in statement.reductions for name in r.indices)
        folded = set(reduced)
        sizes = {number: self.likely(typing.extents[name]) for name, number in numbers.items()}
        kept = tuple(number for number in sizes if number not in folded)
        widths = tuple(self.width(factor) for factor in factors)
        return Network(terms, kept, reduced, sizes, widths, _width(dtype))

    def direct(self, statement: Einsum) -> tuple[tuple[str, ...], Network, DType]:
        """Index names, network and dtype of any statement of one target, split or not."""
        body = inline(statement.body, self.functions) if self.functions else statement.body
        flat = isinstance(body, Apply) and is_flat(body.op)
        factors = body.arguments if flat and isinstance(body, Apply) else (body,)
        typing = self.inference.einsums[statement]
        numbers = _numbered(statement, typing)
        terms = tuple(_term(factor, numbers) for factor in factors)
        dtype = compute_dtype(typing.dtypes[0])
        network = self.network(statement, typing, factors, dtype, numbers, terms)
        return tuple(numbers), network, dtype

    def refused(
        self, statement: Einsum, typing: EinsumTyping, op: str, joined: DType
    ) -> str | None:
        """Why the fold may not be moved into the product, if it may not."""
        monoid = statement.reductions[0].monoid
        if monoid not in MONOIDS:
            return f"{monoid} is defined by the program, and no law says what distributes over it"
        if any(r.monoid != monoid for r in statement.reductions):
            return "it folds with several reducers, whose order matters"
        if MONOIDS[monoid].paired:
            return f"{monoid} folds pairs, which no product distributes over"
        if statement.condition is not None:
            return "its iterations are restricted by a condition"
        reason = self.unlawful(op, monoid, joined, typing, statement)
        if reason is not None:
            return reason
        dtype = _computed_dtype(statement.reductions, joined)
        if dtype is None:
            accumulator = next(r.accumulator for r in statement.reductions if r.accumulator)
            return f"it folds {joined} in {accumulator}, which changes the values multiplied"
        reduced = {name for r in statement.reductions for name in r.indices}
        if any(reduced & set(ext.indices_in(e)) for e in statement.indices):
            return "its left side scatters over reduced indices"
        target = statement.targets[0]
        if not covers(statement, typing) and (
            MONOIDS[monoid].identity not in (0, False)
            or (target.type is not None and target.type.fill is not None)
        ):
            return "its left side leaves cells that hold the identity of the fold"
        if (
            target.name in self.inference.states
            and self.inference.tensors[target.name].dtype != dtype
        ):
            return f"it writes a scan state of another dtype than {dtype}, in which it is computed"
        return None

    def unlawful(
        self, op: str, monoid: str, dtype: DType, typing: EinsumTyping, statement: Einsum
    ) -> str | None:
        law = distributes(op, monoid, dtype)
        fold = MONOIDS[monoid].op
        if law == "no":
            return f"{op} does not distribute over {fold} on {dtype}"
        if not self.permits(law, dtype) or not self.permits(merges(monoid, dtype), dtype):
            if _is_floating(dtype):
                return f"strict keeps the order of {op} and {fold} on {dtype}"
            return f"{op} distributes over {fold} on {dtype} only where nothing overflows"
        if not self.permits(absorbs(op, monoid, dtype), dtype):
            reduced = [name for r in statement.reductions for name in r.indices]
            for name in reduced:
                if self.least(typing.extents[name]) < 1:
                    return (
                        f"index {name} may have extent 0, where {op} changes the identity of "
                        f"{monoid} on {dtype}"
                    )
        return None

    def permits(self, status: Status, dtype: DType) -> bool:
        """Whether a law of this status may be used on values of `dtype`."""
        if status == "ok":
            context = self.context
            return not context.strict if _is_floating(dtype) else context.assume_no_overflow
        return status == "exact"

    def sliceable(
        self,
        statement: Einsum,
        typing: EinsumTyping,
        body: Expression,
        numbers: Mapping[str, int],
        reduced: tuple[int, ...],
    ) -> frozenset[int]:
        """Reduced indices over which a scan can run.

        None inside a scan, whose inner states would be stored whole. None whose accesses must be
        found to agree at entry, since nothing compares the extents that a scan's index runs over.
        """
        if typing.scans:
            return frozenset()
        unequal: set[str] = set()
        for part in postorder(body):
            if isinstance(part, Access) and part.view == "" and part.padding is None:
                found = self.inference.tensors[part.tensor].extents
                for expression, extent in zip(part.indices, found, strict=True):
                    if isinstance(expression, Index) and expression.name not in unequal:
                        known = typing.extents[expression.name]
                        if known != extent and not ext.equal(known, extent):
                            unequal.add(expression.name)
        bounded = {bound.index for bound in statement.bounds}
        barred = {numbers[name] for name in unequal | bounded if name in numbers}
        return frozenset(reduced) - barred

    def likely(self, extent: Expression) -> int:
        """The size to reckon with: the extent, from the context's hints where it has symbols."""
        symbols = {
            name: self.context.extents.get(name, UNKNOWN_EXTENT) for name in ext.symbols_in(extent)
        }
        try:
            return max(0, ext.evaluate(extent, symbols))
        except EinloomError:
            return UNKNOWN_EXTENT

    def least(self, extent: Expression) -> int:
        """The smallest size that an extent can have."""
        form = ext.polynomial(extent)
        return form.get((), 0) if ext.nonnegative(form) else 0

    def width(self, factor: Expression) -> float:
        """Bytes that one element of a factor occupies: those of the tensors that it reads."""
        found = [
            _width(self.inference.tensors[part.tensor].dtype)
            for part in postorder(factor)
            if isinstance(part, Access)
        ]
        return sum(found)


def covers(statement: Einsum, typing: EinsumTyping) -> bool:
    """Whether every cell of the result is written: the left side is distinct plain indices."""
    own = [e for e in statement.indices if set(ext.indices_in(e)) - set(typing.scans)]
    return all(isinstance(e, Index) for e in own) and len(set(own)) == len(own)


def _numbered(statement: Einsum, typing: EinsumTyping) -> dict[str, int]:
    """The statement's own indices: those of the left side first, then as they come."""
    scans = set(typing.scans)
    left = [name for e in statement.indices for name in ext.indices_in(e) if name not in scans]
    names = dict.fromkeys(left)
    names.update(dict.fromkeys(typing.own_indices()))
    return {name: number for number, name in enumerate(names)}


def _term(factor: Expression, numbers: Mapping[str, int]) -> tuple[int, ...]:
    names: list[str] | None = None
    if isinstance(factor, Access):  # the usual factor, read without a walk
        names = [e.name for e in factor.indices if isinstance(e, Index)]
        names = list(dict.fromkeys(names)) if len(names) == len(factor.indices) else None
    names = names if names is not None else ext.indices_in(factor)
    return tuple(numbers[name] for name in names if name in numbers)


def _worthwhile(
    terms: tuple[tuple[int, ...], ...], statement: Einsum, numbers: Mapping[str, int]
) -> bool:
    """Whether there is something to split: three factors, or one with an index of its own."""
    if len(terms) > 2:
        return True
    reduced = {numbers[name] for r in statement.reductions for name in r.indices}
    return any(
        index in reduced and sum(index in term for term in terms) == 1
        for term in terms
        for index in term
    )


def _computed_dtype(reductions: tuple[Reduction, ...], joined: DType) -> DType | None:
    """The dtype to compute in: the accumulator's where multiplying in it is as good, else None."""
    dtype = joined
    for accumulator in [r.accumulator for r in reductions if r.accumulator is not None]:
        if accumulator == dtype:
            continue
        if not isinstance(accumulator, Scalar) or not isinstance(dtype, Scalar):
            return None
        wider = accumulator.bits >= dtype.bits
        floating = accumulator.kind == dtype.kind and accumulator.kind in (FLOAT, COMPLEX)
        # Residues modulo a smaller power of two: multiplying and adding commute with wrapping.
        wrapping = accumulator.is_integer and dtype.is_integer and accumulator.bits <= dtype.bits
        only_rings = all(r.monoid == "sum" for r in reductions)
        if not (floating and wider) and not (wrapping and only_rings):
            return None
        dtype = accumulator
    return compute_dtype(dtype)


def _converted(factor: Expression, typing: Typing, dtype: DType) -> Expression:
    if typing.dtype == dtype and not typing.weak:
        return factor
    return Cast(dtype, factor, location=factor.location)


def _is_floating(dtype: DType) -> bool:
    return isinstance(dtype, Scalar) and dtype.kind in (FLOAT, COMPLEX)


def _width(dtype: DType) -> float:
    if isinstance(dtype, Quantized):
        return 1.0  # a code takes about a byte
    return float(numpy_dtype(dtype).itemsize)
