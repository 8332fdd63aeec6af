"""What a program computes, as one number or as a record, on seeded probes of small sizes.

Probes depend on the seed and on the positions of inputs and symbols, never on names, so that
equal meanings give equal hashes across renamings and across everything a pass may do.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einloom.ir import extents as ext
from einloom.ir.errors import EinloomError
from einloom.ir.exact import Inexact, over_field
from einloom.ir.expressions import Access, Expression, Index, Symbol
from einloom.ir.infer import Inference, infer
from einloom.ir.names import nested_statements
from einloom.ir.node import postorder
from einloom.ir.program import Call, Einsum, Module
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import BOOL, COMPLEX, DType, Modular, Quantized, Scalar, Tuple

Array = NDArray[Any]

PROBES = 2
TRIES = 64  # draws of sizes, until the equalities between extents hold
SMALL, LARGE = (2, 6), (65, 71)  # ranges that sizes are drawn from, the upper end excluded
FEW_POINTS = 2**16  # of one statement's iteration space: what a probe is drawn for
MOST_POINTS = 2**22  # a larger probe is not run


def meaning_hash(module: Module, seed: int = 0, *, probes_of: Module | None = None) -> str | None:
    """A hash of what an exact program computes, as 32 hexadecimal digits.

    Exact: integers, booleans and residues throughout, and floats that are only added,
    subtracted, multiplied and divided by numbers or extents (read modulo 2^61-1). Two equal
    programs have one hash, two others different ones but for a chance of about 1e-15 per probe.
    The order and the dtypes of inputs and results count, no name does.

    `probes_of`: the program whose probes are used, by default the module itself. Give the
    program before a pass when hashing the one after it, so that a check or an index that the
    pass removed does not change the probes.

    None for a program that is not exact, has host functions, or is too large to be probed.
    """
    origin = probes_of or module
    hasher = blake2b(digest_size=16)
    for name in module.outputs:
        hasher.update(b"%s;" % str(infer(module).tensors[name].dtype).encode())
    for probe in range(PROBES):
        random = np.random.default_rng([seed, probe])
        sizes = draw_sizes(origin, random, enlarged=probe > 0)
        if sizes is None or max(points(m, sizes) for m in (origin, module)) > MOST_POINTS:
            return None
        try:
            arrays = inputs(over_field(origin, sizes), sizes, random)
            results = _run(over_field(module, sizes), arrays, origin)
        except Inexact:
            return None
        if results is None:
            return None
        for name in module.outputs:
            array = np.ascontiguousarray(results[name])
            hasher.update(str(array.shape).encode() + array.tobytes())
    return hasher.hexdigest()


def probe_record(
    module: Module, seed: int = 0, *, probes_of: Module | None = None
) -> dict[str, Array]:
    """What a program computes on one probe: the results by name, to be compared within a
    tolerance. Floats are drawn between 0.5 and 2, so that logarithms and divisions have values.

    `probes_of`: as for `meaning_hash`. Raises the error of the interpreter where the program
    cannot run on a probe.
    """
    from einloom.ir.interpret import interpret

    origin = probes_of or module
    random = np.random.default_rng([seed, 0])
    sizes = draw_sizes(origin, random)
    if sizes is None:
        raise EinloomError("no small sizes satisfy the equalities between the extents")
    return interpret(module, _renamed(inputs(origin, sizes, random), origin, module))


def _run(module: Module, arrays: Mapping[str, object], origin: Module) -> dict[str, Array] | None:
    """The results on one probe; None where a read goes out of range."""
    from einloom.ir.interpret import interpret

    if any(isinstance(s, Call) for s in nested_statements(module.body)):
        return None
    try:
        return interpret(module, _renamed(arrays, origin, module))
    except EinloomError:
        return None


def _renamed(arrays: Mapping[str, object], origin: Module, module: Module) -> dict[str, object]:
    """The inputs of one program under the names of another one, by position."""
    names = zip(origin.inputs, module.inputs, strict=True)
    return {mine.name: arrays[theirs.name] for theirs, mine in names}


# ---- sizes --------------------------------------------------------------------------------


def draw_sizes(
    module: Module, random: np.random.Generator, enlarged: bool = False
) -> dict[str, int] | None:
    """Small sizes for the symbols that keep every equality between extents and leave no
    extent negative; None where none are found.

    `enlarged`: one symbol is larger than the blocks that passes cut ranks into, where the
    program stays small enough.
    """
    inference = infer(module)
    order = _in_order_of_inputs(module)
    symbols = sorted(inference.symbols, key=lambda name: order.get(name, len(order)))
    groups = _equal_symbols(inference, symbols)
    leaders = [name for name in symbols if groups[name] == name]
    small: dict[str, int] | None = None
    for attempt in range(TRIES):
        drawn = {name: int(random.integers(*SMALL)) for name in leaders}
        if enlarged and leaders and attempt < TRIES // 2:
            drawn[leaders[int(random.integers(len(leaders)))]] = int(random.integers(*LARGE))
        sizes = {name: drawn[groups[name]] for name in symbols}
        if not _is_possible(inference, sizes):
            continue
        if points(module, sizes) <= FEW_POINTS:
            return sizes
        if small is None or points(module, sizes) < points(module, small):
            small = sizes
    return small


def _is_possible(inference: Inference, sizes: Mapping[str, int]) -> bool:
    extents = {extent for type_ in inference.tensors.values() for extent in type_.extents}
    try:
        return all(
            ext.evaluate(check.left, sizes) == ext.evaluate(check.right, sizes)
            for check in inference.checks
        ) and all(ext.evaluate(extent, sizes) >= 0 for extent in extents)
    except EinloomError:
        return False


def _in_order_of_inputs(module: Module) -> dict[str, int]:
    """Symbols by the position at which the inputs first mention them."""
    order: dict[str, int] = {}
    for item in module.inputs:
        if item.type is None:
            order.setdefault(item.name, len(order))
        else:
            for extent in item.type.extents:
                for part in postorder(extent):
                    if isinstance(part, Symbol):
                        order.setdefault(part.name, len(order))
    return order


def _equal_symbols(inference: Inference, symbols: list[str]) -> dict[str, str]:
    """For each symbol the first one that it must equal by a check of two plain symbols."""
    leader = {name: name for name in symbols}
    for check in inference.checks:
        if isinstance(check.left, Symbol) and isinstance(check.right, Symbol):
            a, b = leader.get(check.left.name), leader.get(check.right.name)
            if a is None or b is None:
                continue
            first, second = sorted((a, b), key=symbols.index)
            leader = {name: first if led == second else led for name, led in leader.items()}
    return leader


def points(module: Module, sizes: Mapping[str, int]) -> int:
    """The largest iteration space of a statement, scans around it included."""
    return max(
        (
            prod(max(0, ext.evaluate(extent, sizes)) for extent in typing.extents.values())
            for typing in infer(module).einsums.values()
        ),
        default=0,
    )


# ---- inputs -------------------------------------------------------------------------------


def inputs(
    module: Module, sizes: Mapping[str, int], random: np.random.Generator
) -> dict[str, object]:
    """An array for every input. Integers that serve as indices stay inside what they index."""
    limits = _index_limits(module, sizes)
    arrays: dict[str, object] = {}
    for item in module.inputs:
        if item.type is None:
            arrays[item.name] = sizes[item.name]
        else:
            shape = tuple(ext.evaluate(extent, sizes) for extent in item.type.extents)
            arrays[item.name] = _draw(item.type.dtype, shape, limits.get(item.name), random)
    return arrays


def _index_limits(module: Module, sizes: Mapping[str, int]) -> dict[str, int]:
    """For each tensor that is read inside an index, the smallest extent that it indexes."""
    tensors = infer(module).tensors
    limits: dict[str, int] = {}

    def note(indices: tuple[Expression, ...], extents: tuple[Expression, ...]) -> None:
        for index, extent in zip(indices, extents, strict=False):
            for part in postorder(index):
                if isinstance(part, Access):
                    size = ext.evaluate(extent, sizes)
                    limits[part.tensor] = min(limits.get(part.tensor, size), size)

    for statement in nested_statements(module.body):
        if not isinstance(statement, Einsum):
            continue
        for part in postorder(statement):
            if isinstance(part, Access) and not all(isinstance(i, Index) for i in part.indices):
                extents = tensors[part.tensor].extents
                note(part.indices, extents[1:] if part.view == "final" else extents)
        for target in statement.targets:
            note(statement.indices, tensors[target.name].extents)
    return limits


def _draw(
    dtype: DType, shape: tuple[int, ...], limit: int | None, random: np.random.Generator
) -> Array:
    if isinstance(dtype, Tuple):
        result = np.empty(shape, numpy_dtype(dtype))
        for k, item in enumerate(dtype.items):
            result[f"f{k}"] = _draw(item, shape, None, random)
        return result
    if isinstance(dtype, Modular):
        top = dtype.modulus if limit is None else max(1, min(dtype.modulus, limit))
        return random.integers(0, top, shape, np.uint64)
    if isinstance(dtype, Quantized):
        raise EinloomError(f"a probe has no values of {dtype}")
    assert isinstance(dtype, Scalar)
    stored = numpy_dtype(dtype)
    if dtype.kind == BOOL:
        return random.integers(0, 2, shape).astype(stored)
    if dtype.is_integer:
        if limit is not None:
            return random.integers(0, max(1, min(limit, np.iinfo(stored).max)), shape).astype(
                stored
            )
        info = np.iinfo(stored)
        wide = random.integers(info.min, info.max, shape, stored, endpoint=True)
        small = random.integers(0, 6, shape).astype(stored)
        # small values meet ties and stay below extents, large ones wrap
        return np.where(random.integers(0, 2, shape) == 1, wide, small).astype(stored)
    values = random.uniform(0.5, 2.0, shape)
    if dtype.kind == COMPLEX:
        return (values + 1j * random.uniform(0.5, 2.0, shape)).astype(stored)
    return values.astype(stored)
