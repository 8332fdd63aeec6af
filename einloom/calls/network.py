"""The network that a spec is, straight from its labels: what may be split, and over which indices.

What the pass `contract` finds by reading a program is known of a spec before there is one. Only
the laws of its semiring are asked of the pass, on a small program of the same dtypes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from einloom.api import contract_options, new_context
from einloom.calls.request import Request
from einloom.calls.variants import recognized, sized
from einloom.frontend.einsum.program import RESULT, symbol_names, to_module
from einloom.frontend.einsum.semiring import Semiring
from einloom.frontend.einsum.spec import Binding, Form, Label, Spec
from einloom.ir.errors import EinloomError
from einloom.ir.infer import infer
from einloom.ir.promotion import numpy_dtype
from einloom.ir.record import record
from einloom.ir.types import DType, Scalar
from einloom.passes.contraction.network import Network

if TYPE_CHECKING:
    from einloom.passes.contraction.choose import Choice


@record
class SpecNetwork:
    """A spec that may be split: index k of the network is `labels[k]`.

    `dtype`: what is computed in. `sliceable`: reduced indices that a scan may run over.
    """

    network: Network
    labels: tuple[Label, ...]
    dtype: DType
    sliceable: frozenset[int]

    def choice(self, request: Request) -> Choice:
        """The plan that the pass `contract` takes. Raises PassError for a path that misfits."""
        from einloom.passes.contract import Contract

        options = Contract(**contract_options(request.contraction, request.memory_limit))
        return options.choice(self, new_context(request.strict, {}))


@record
class Laws:
    """What a semiring is on operands of some dtypes.

    `result`: the dtype of what a spec gives. `split`: the dtype to compute in where a spec may be
    split, None where no law permits it.
    """

    result: DType
    split: DType | None


def network_of(
    binding: Binding,
    dtypes: Sequence[Scalar],
    common: Scalar,
    request: Request,
    order: Sequence[int] | None = None,
) -> SpecNetwork | None:
    """The network of an expanded spec, numbered as `contract` does; None where nothing is split.

    Raises what type inference raises for a semiring that does not take these dtypes. `order`: of
    the ranks of the result in memory, see `to_module`.
    """
    spec = binding.spec
    laws = _laws(spec, dtypes, common, request)
    if laws is None:
        return _read(binding, dtypes, common, request, order)
    if laws.split is None or len(spec.inputs) < 2:
        return None
    output = spec.output if order is None else tuple(spec.output[k] for k in order)
    numbers = {label: k for k, label in enumerate(dict.fromkeys((*output, *spec.labels)))}
    number = numbers.__getitem__
    terms = tuple(tuple(dict.fromkeys(map(number, labels))) for labels in spec.inputs)
    reduced = tuple(range(len(output), len(numbers)))
    if not reduced:
        return None
    widths = {dtype: float(numpy_dtype(dtype).itemsize) for dtype in dict.fromkeys(dtypes)}
    extents = binding.extents
    network = Network(
        terms,
        tuple(range(len(output))),
        reduced,
        {k: extents[label] for label, k in numbers.items()},
        tuple(map(widths.__getitem__, dtypes)),
        float(numpy_dtype(laws.split).itemsize),
    )
    if len(terms) == 2 and not any(network.degrees[index] == 1 for index in reduced):
        return None  # two operands that share all that is folded are one step
    return SpecNetwork(network, tuple(numbers), laws.split, frozenset(reduced))


def result_dtype(spec: Spec, dtypes: Sequence[Scalar], common: Scalar, request: Request) -> DType:
    """The dtype of the result. Raises as `network_of`."""
    laws = _laws(spec, dtypes, common, request)
    if laws is not None:
        return laws.result
    module = to_module(spec, dtypes, semiring=request.semiring, dtype=common)
    return infer(module).tensors[RESULT].dtype


def _laws(spec: Spec, dtypes: Sequence[Scalar], common: Scalar, request: Request) -> Laws | None:
    """The laws of a spec; None where they do not follow from its dtypes alone."""
    if spec.repeats_output:
        return None  # what it leaves unwritten has a say
    folds = len(spec.output) < len(spec.labels)
    return _laws_of(request.semiring, tuple(dict.fromkeys(dtypes)), common, request.strict, folds)


@cache
def _laws_of(
    semiring: Semiring, dtypes: tuple[Scalar, ...], common: Scalar, strict: bool, folds: bool
) -> Laws | None:
    """The laws on these dtypes, read from a chain of matrices; None where it does not type."""
    if semiring.definitions:
        return None
    count = max(3, len(dtypes))
    labels = [Label(f"i{k}", f"i{k}") for k in range(count + 1)]
    terms = tuple((labels[k], labels[k + 1]) for k in range(count))
    output = (labels[0], labels[-1]) if folds else tuple(labels)
    spec = Spec(terms, output, "", Form.LISTS, True, (), None)
    each = (*dtypes, *dtypes[-1:] * (count - len(dtypes)))
    try:
        module = to_module(spec, each, semiring=semiring, dtype=common)
        result = infer(module).tensors[RESULT].dtype
    except EinloomError:
        return None  # so that the message speaks of the program that was meant
    found = recognized(module, Request(semiring=semiring, strict=strict))
    return Laws(result, None if found is None else found.dtype)


def _read(
    binding: Binding,
    dtypes: Sequence[Scalar],
    common: Scalar,
    request: Request,
    order: Sequence[int] | None,
) -> SpecNetwork | None:
    """The network as the pass `contract` reads it from the program of the spec."""
    spec = binding.spec
    module = to_module(spec, dtypes, semiring=request.semiring, dtype=common, order=order)
    found = recognized(module, request)
    if found is None:
        return None
    names = symbol_names(spec)
    network = sized(found, {names[label]: extent for label, extent in binding.extents.items()})
    labels = {label.name: label for label in spec.labels}
    # An index that no label names is the one of a diagonal, see `to_module`.
    named = tuple(labels.get(name) or Label(name, name) for name in found.names)
    return SpecNetwork(network, named, found.dtype, found.sliceable)
