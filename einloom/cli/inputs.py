"""Inputs of a run: arrays from files, and seeded random ones where no file is named."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from einloom.ir.errors import EinloomError, ShapeError
from einloom.ir.record import record
from einloom.report import Quantity

if TYPE_CHECKING:
    from einloom.ir.expressions import Access, Expression
    from einloom.ir.infer import Inference
    from einloom.ir.program import Einsum, Input, Module
    from einloom.ir.types import DType, Scale, TensorType

Array = np.ndarray[Any, Any]

LARGEST_INTEGER = 9  # products of a few of them stay far from the limits of i8 and f16
STORED_SHARE = 0.1  # of a tensor whose format leaves out the fill value
LARGEST_SHARE_OF_MEMORY = 0.5


# ---- from files ---------------------------------------------------------------------------


def read_inputs(module: Module, files: Mapping[str, str]) -> dict[str, Any]:
    """The named inputs of a program. Raises EinloomError for a file that does not fit."""
    known = {item.name: item for item in module.inputs}
    found: dict[str, Any] = {}
    for name, text in files.items():
        if name not in known:
            near = get_close_matches(name, list(known), 1)
            hint = f"did you mean {near[0]}?" if near else f"its inputs: {', '.join(known)}"
            raise ShapeError(f"the program has no input {name}", suggestion=hint)
        item = known[name]
        number = None if os.path.exists(text) else _number(text)
        if item.type is None:
            if not isinstance(number, int):
                raise ShapeError(f"{name} is an extent: give a number, --input {name}=64")
            found[name] = number
        elif number is not None and not item.type.ranks:
            found[name] = number
        else:
            found[name] = _restored(read_array(name, text), item.type)
    return found


def read_array(name: str, path: str) -> Array:
    """The array of a .npy file; EinloomError where it cannot be read."""
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise EinloomError(f"cannot read {path} for {name}: {error.strerror or error}") from None
    except (ValueError, EOFError):
        # NumPy takes all that it cannot read for a pickle, and advises to load it unsafely.
        raise EinloomError(
            f"cannot read {path} for {name}: it is not an array in a .npy file",
            suggestion="it takes what numpy.save writes, without Python objects",
        ) from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise EinloomError(
            f"cannot read {path} for {name}: it holds several arrays",
            suggestion="save each of them in a .npy file",
        )
    return array


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return None


def _restored(array: Array, type_: TensorType) -> Array:
    """bf16 from its bytes: .npy files have no name for it."""
    from einloom.ir.promotion import numpy_dtype
    from einloom.ir.types import bf16

    if type_.dtype == bf16 and array.dtype == np.dtype("V2"):
        return array.view(numpy_dtype(bf16))
    return array


# ---- random -------------------------------------------------------------------------------


@record
class RandomInput:
    """A random input and the words for what it holds."""

    name: str
    value: Any
    description: str


def random_inputs(
    module: Module, sizes: Mapping[str, int], given: Mapping[str, Any], seed: int
) -> list[RandomInput]:
    """Every tensor input that is not given, the same for one seed and name.

    Floats are standard normal, integers small; an integer tensor that is an index stays inside
    what it indexes. Raises EinloomError where they would not fit into memory.
    """
    from einloom.ir.binding import size_of
    from einloom.ir.infer import infer

    inference = infer(module)
    limits = index_limits(module, inference, sizes)
    missing = [i for i in module.inputs if i.type is not None and i.name not in given]
    shapes = {
        item.name: tuple(size_of(e, sizes, item.location) for e in item.type.extents)
        for item in missing
        if item.type is not None
    }
    _check_memory(missing, shapes)
    made = []
    for item in missing:
        assert item.type is not None
        random = np.random.default_rng([seed, zlib.crc32(item.name.encode())])
        value, words = _random_tensor(item.type, shapes[item.name], limits.get(item.name), random)
        made.append(RandomInput(item.name, value, words))
    return made


def _check_memory(missing: list[Input], shapes: Mapping[str, tuple[int, ...]]) -> None:
    limit = LARGEST_SHARE_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    total = 0
    for item in missing:
        total += prod(shapes[item.name]) * 8
        if total > limit:
            shape = "x".join(map(str, shapes[item.name]))
            raise EinloomError(
                f"random inputs would need more than {Quantity(limit, 'bytes')}: "
                f"{item.name} alone is {shape}",
                suggestion="give smaller extents: --extent NAME=SIZE",
            )


def _random_tensor(
    type_: TensorType, shape: tuple[int, ...], limit: int | None, random: np.random.Generator
) -> tuple[Any, str]:
    from einloom.ir.promotion import numpy_dtype
    from einloom.ir.types import Quantized

    if isinstance(type_.dtype, Quantized):
        return _random_quantized(type_.dtype, shape, random), "random codes and scales"
    values, words = _random_values(type_.dtype, shape, limit, random)
    if any(level.kind != "dense" for level in type_.format):
        stored = random.random(shape) < STORED_SHARE
        fill = 0 if type_.fill is None else type_.fill.value
        values = np.where(stored, values, np.asarray(fill, numpy_dtype(type_.dtype)))
        words += f", {STORED_SHARE:.0%} of the cells stored"
    return values, words


def _random_values(
    dtype: DType, shape: tuple[int, ...], limit: int | None, random: np.random.Generator
) -> tuple[Array, str]:
    from einloom.ir.promotion import numpy_dtype
    from einloom.ir.types import BOOL, COMPLEX, FLOAT, UNSIGNED, Modular, Scalar, Tuple

    storage = numpy_dtype(dtype)
    if isinstance(dtype, Tuple):
        made = np.empty(shape, storage)
        words = []
        for k, item in enumerate(dtype.items):
            made[f"f{k}"], description = _random_values(item, shape, limit, random)
            words.append(description)
        return made, f"({', '.join(words)})"
    if isinstance(dtype, Modular):
        values = random.integers(0, dtype.modulus, shape, np.uint64)
        return values, f"whole numbers below {dtype.modulus}"
    assert isinstance(dtype, Scalar)
    if dtype.kind == BOOL:
        return np.asarray(random.integers(0, 2, shape), bool), "True and False"
    if dtype.kind == FLOAT:
        wide = np.float32 if dtype.bits <= 32 else np.float64
        return np.asarray(random.standard_normal(shape, wide)).astype(storage), "standard normal"
    if dtype.kind == COMPLEX:
        real, imaginary = random.standard_normal((2, *shape))
        return np.asarray(real + 1j * imaginary).astype(storage), "standard normal, complex"
    if limit is not None:
        highest = max(limit, 1)
        values = random.integers(0, highest, shape)
        return np.asarray(values, storage), f"indices below {highest}"
    lowest = 0 if dtype.kind == UNSIGNED else -LARGEST_INTEGER
    values = random.integers(lowest, LARGEST_INTEGER + 1, shape)
    return np.asarray(values, storage), f"whole numbers from {lowest} to {LARGEST_INTEGER}"


def _random_quantized(dtype: Any, shape: tuple[int, ...], random: np.random.Generator) -> Any:
    from einloom.ir.promotion import numpy_dtype
    from einloom.ir.quantized import QuantizedArray, block_shape, code_range

    ranges = [code_range(dtype, code) for code in dtype.codes]
    low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)

    def level(scale: Scale) -> Array:
        values = random.uniform(0.5, 1.5, block_shape(scale.block, shape))
        return np.asarray(values).astype(numpy_dtype(scale.dtype))

    return QuantizedArray(
        random.integers(low, high + 1, shape),
        tuple(level(scale) for scale in dtype.scales),
        None if dtype.offset is None else level(dtype.offset),
        None
        if dtype.selector is None
        else random.integers(0, len(dtype.codes), block_shape(dtype.selector, shape)),
    )


# ---- integer tensors that are indices -----------------------------------------------------


def index_limits(module: Module, inference: Inference, sizes: Mapping[str, int]) -> dict[str, int]:
    """For each integer input that is read as an index: values below this stay in range.

    An index `a * idx[t] + rest` with a > 0 bounds idx[t] by the extent, less the most that the
    rest can be. What cannot be analysed is held at 0.
    """
    from einloom.ir.expressions import Access
    from einloom.ir.names import nested_statements
    from einloom.ir.node import postorder
    from einloom.ir.program import Einsum

    inputs = {item.name for item in module.inputs}
    limits: dict[str, int] = {}
    for statement in nested_statements(module.body):
        if not isinstance(statement, Einsum):
            continue
        places = [
            pair
            for part in postorder(statement)
            if isinstance(part, Access)
            for pair in _places(part, inference)
        ]
        for target in statement.targets:
            extents = inference.tensors[target.name].extents
            places += list(zip(statement.indices, extents, strict=True))
        for index, extent in places:
            for access in postorder(index):
                if isinstance(access, Access) and access.tensor in inputs:
                    bound = _limit(index, extent, access, statement, inference, sizes)
                    limits[access.tensor] = min(bound, limits.get(access.tensor, bound))
    return limits


def _places(access: Access, inference: Inference) -> Iterator[tuple[Expression, Expression]]:
    """The index expressions of an access, each with the extent of the rank that it indexes."""
    extents = inference.tensors[access.tensor].extents
    if access.view == "final":
        extents = extents[1:]
    yield from zip(access.indices, extents, strict=True)


def _limit(
    index: Expression,
    extent: Expression,
    access: Access,
    statement: Einsum,
    inference: Inference,
    sizes: Mapping[str, int],
) -> int:
    from einloom.ir import extents as ext
    from einloom.ir.binding import size_of

    size = size_of(extent, sizes)
    form = ext.polynomial(index)
    factor = form.pop((access,), 0)
    rest = ext.expression_of(form)
    if factor <= 0:
        return 1
    ranges = ext.interval(rest, inference.einsums[statement].extents)
    if ranges is None or ext.reads_tensor(rest):
        return 1
    highest = size_of(ext.expression_of(ranges[1]), sizes)
    return max(1, (size - 1 - highest) // factor + 1)
