"""Rules on types: dtypes, extents, formats, fill values, encryption, constants' data."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from einloom.ir import extents as ext
from einloom.ir.errors import DTypeError, ShapeError
from einloom.ir.expressions import Apply, Cast, Expression, Literal, Symbol, Value
from einloom.ir.formats import format_problems
from einloom.ir.names import counted
from einloom.ir.node import Node, postorder
from einloom.ir.program import Bound, Constant, Scan, Target
from einloom.ir.promotion import numpy_dtype
from einloom.ir.types import (
    BOOL,
    COMPLEX,
    FLOAT,
    SCALARS,
    DType,
    Modular,
    Quantized,
    Rank,
    Scalar,
    Scale,
    TensorType,
    Tuple,
)
from einloom.ir.verify.complaints import Complaint, complaint
from einloom.ir.verify.parts import Parts

LARGEST_MODULUS = 2**63
WIDEST_CODE = 16  # bits
LARGEST_TABLE = 2**WIDEST_CODE
INTEGER_OPS = ("add", "sub", "neg", "mul", "floordiv", "ceildiv", "mod", "max", "min")
_INTEGER_CODE = re.compile(r"[iu]([1-9][0-9]*)")
_FLOAT_CODE = re.compile(r"e([1-9][0-9]*)m([0-9]+)")


def typed_parts(parts: Parts) -> Iterator[tuple[TensorType, Node, str]]:
    """Every tensor type that the module states: where, and the name of the tensor."""
    for item in parts.module.inputs:
        if item.type is not None:
            yield item.type, item, item.name
    for target, owner in parts.found(Target):
        if target.type is not None:
            yield target.type, owner, target.name
    for constant, owner in parts.found(Constant):
        yield constant.type, owner, constant.name


# ---- dtypes -------------------------------------------------------------------------------


def dtypes_are_valid(parts: Parts) -> Iterator[Complaint]:
    """Scalars are of the table, moduli in range, tuples not empty, codes legal."""
    listed = f"dtypes are {', '.join(SCALARS)}"
    for scalar, owner in parts.found(Scalar):
        if scalar.name not in SCALARS:
            message = f"unknown dtype {scalar.name}"
            yield complaint(message, scalar, owner, hint=listed, kind=DTypeError)
    for modular, owner in parts.found(Modular):
        if not 2 <= modular.modulus < LARGEST_MODULUS:
            yield complaint(
                f"the modulus of zq<{modular.modulus}> must be at least 2 and below 2^63",
                modular,
                owner,
                kind=DTypeError,
            )
    for pair, owner in parts.found(Tuple):
        if not pair.items:
            message = "a tuple dtype has at least one component"
            yield complaint(message, pair, owner, kind=DTypeError)
        elif any(isinstance(item, Quantized) for item in pair.items):
            yield complaint(
                "a tuple cannot hold a quantized dtype",
                pair,
                owner,
                hint="store it as a tensor of its own",
                kind=DTypeError,
            )
    for quantized, owner in parts.found(Quantized):
        for message, hint in quantized_problems(quantized):
            yield complaint(message, quantized, owner, hint=hint, kind=DTypeError)


def quantized_problems(dtype: Quantized) -> Iterator[tuple[str, str | None]]:
    """What is wrong with a quantized dtype, apart from its blocks."""
    if not dtype.codes:
        yield "a quantized dtype needs a code", "q<i4, ...>"
    for code in dtype.codes:
        integer, floating = _INTEGER_CODE.fullmatch(code), _FLOAT_CODE.fullmatch(code)
        bits = 0
        if integer:
            bits = int(integer[1]) if len(integer[1]) < 9 else WIDEST_CODE + 1
        elif floating:
            long = len(code) > 12
            bits = WIDEST_CODE + 1 if long else 1 + int(floating[1]) + int(floating[2])
        elif code != "table":
            yield f"unknown code {code}", "codes are i4, u3, e4m3 and table(...)"
        if bits > WIDEST_CODE:
            yield f"the code {code} is wider than {WIDEST_CODE} bits", None
    if dtype.table and "table" not in dtype.codes:
        yield "the values of a table are given, but no code is a table", "q<table(0.0, 1.0), ...>"
    if "table" in dtype.codes and not 2 <= len(dtype.table) <= LARGEST_TABLE:
        yield f"a table has 2 to {LARGEST_TABLE} values, this one has {len(dtype.table)}", None
    if any(isinstance(entry.value, complex) for entry in dtype.table):
        yield "the values of a table are real", None
    if dtype.selector is None and len(dtype.codes) > 1:
        yield f"{len(dtype.codes)} codes need a selector", "name its block: select=1x32"
    if dtype.selector is not None and len(dtype.codes) == 1:
        yield "a selector needs several codes to choose from", "q<i4|e2m1, select=1x32>"
    scaled = [("a scale", scale.dtype) for scale in dtype.scales]
    if dtype.offset is not None:
        scaled.append(("an offset", dtype.offset.dtype))
    for what, scalar in scaled:
        if scalar.name in SCALARS and scalar.kind in (BOOL, COMPLEX):
            yield f"{what} cannot be {scalar}", f"{what[2:].strip()}s are floats or integers"


def blocks_fit_the_ranks(parts: Parts) -> Iterator[Complaint]:
    """A block of scales, offsets or selectors has one extent per rank; 0 is a whole rank."""
    for type_, owner, name in typed_parts(parts):
        dtype = type_.dtype
        if not isinstance(dtype, Quantized):
            continue
        scales: list[Scale] = [*dtype.scales, *([dtype.offset] if dtype.offset else [])]
        blocks = [scale.block for scale in scales]
        if dtype.selector is not None:
            blocks.append(dtype.selector)
        for block in blocks:
            if block and len(block) != len(type_.ranks):
                shown = "x".join(map(str, block))
                yield complaint(
                    f"the block {shown} of {name} has {counted(len(block), 'extent')}, "
                    f"{name} has {counted(len(type_.ranks), 'rank')}",
                    type_,
                    owner,
                    kind=ShapeError,
                )
            elif any(size < 0 for size in block):
                yield complaint(f"a block of {name} is negative", type_, owner, kind=ShapeError)


# ---- extents, formats, attributes ---------------------------------------------------------


def extents_are_integers(parts: Parts) -> Iterator[Complaint]:
    """Extents are non-negative integers or integer expressions of symbols."""
    stated: list[tuple[Expression, Node, Node]] = []
    stated += [(rank.extent, rank, owner) for rank, owner in parts.found(Rank)]
    stated += [(bound.extent, bound, owner) for bound, owner in parts.found(Bound)]
    for place in parts.places:
        if isinstance(place.statement, Scan):
            stated.append((place.statement.extent, place.statement, place.statement))
    for extent, part, owner in stated:
        wrong = next((p for p in postorder(extent) if not _is_extent(p)), None)
        if wrong is not None:
            yield complaint(
                f"{wrong} cannot stand in an extent",
                wrong,
                extent,
                part,
                owner,
                hint="extents are integers, symbols, and + - * // % ceil(a/b) of them",
                kind=ShapeError,
            )
            continue
        form = ext.polynomial(extent)
        if set(form) == {()} and form[()] < 0:
            message = f"the extent {extent} is negative"
            yield complaint(message, extent, part, owner, kind=ShapeError)


def _is_extent(part: Node) -> bool:
    if isinstance(part, Literal):
        return isinstance(part.value, int) and not isinstance(part.value, bool)
    return isinstance(part, Symbol) or (isinstance(part, Apply) and part.op in INTEGER_OPS)


def formats_fit_the_ranks(parts: Parts) -> Iterator[Complaint]:
    """Levels are known, take their parameters, and are as many as the ranks."""
    for type_, owner, name in typed_parts(parts):
        for message, hint in format_problems(type_.format, len(type_.ranks)):
            yield complaint(f"{name}: {message}", type_, owner, hint=hint)


def fills_are_representable(parts: Parts) -> Iterator[Complaint]:
    """The fill value is a value of the dtype, up to rounding."""
    for type_, owner, name in typed_parts(parts):
        if type_.fill is not None and not is_representable(type_.fill.value, type_.dtype):
            yield complaint(
                f"the fill value {type_.fill} of {name} is no {type_.dtype}",
                type_.fill,
                type_,
                owner,
                kind=DTypeError,
            )


def is_representable(value: Value, dtype: DType) -> bool:
    """Whether a literal is a value of the dtype; rounding is fine, overflow is not."""
    if isinstance(dtype, Tuple):
        return all(is_representable(value, item) for item in dtype.items)
    if isinstance(dtype, Quantized):
        return not isinstance(value, complex)
    if isinstance(dtype, Modular):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and 0 <= int(value.real) < dtype.modulus
    assert isinstance(dtype, Scalar)
    if dtype.kind == BOOL:
        return isinstance(value, bool)
    if dtype.kind in (FLOAT, COMPLEX):
        if isinstance(value, complex) and dtype.kind == FLOAT:
            return False
        return _is_in_range(value, dtype)
    if not isinstance(value, int):
        return False
    limits = np.iinfo(numpy_dtype(dtype))
    return int(limits.min) <= value <= int(limits.max)


def _is_in_range(value: Value, dtype: Scalar) -> bool:
    """Whether no finite component of a number becomes infinite in a floating dtype."""
    for component in (value.real, value.imag):
        try:
            number = float(component)
        except OverflowError:
            return False
        if not math.isfinite(number):
            continue
        with np.errstate(over="ignore"):
            rounded = np.asarray(number).astype(numpy_dtype(dtype))
        if not np.isfinite(rounded.astype(np.complex128)):
            return False
    return True


def encrypted_tensors_are_numbers(parts: Parts) -> Iterator[Complaint]:
    """Only integers, floats, complex numbers and residues can be encrypted."""
    for type_, owner, name in typed_parts(parts):
        dtype = type_.dtype
        numeric = isinstance(dtype, Modular) or (isinstance(dtype, Scalar) and dtype.kind != BOOL)
        if type_.encrypted and not numeric:
            yield complaint(
                f"{name} is encrypted, and {dtype} cannot be",
                type_,
                owner,
                hint="encrypt numbers: i64, f64, c128, zq<...>",
                kind=DTypeError,
            )


def casts_are_between_numbers(parts: Parts) -> Iterator[Complaint]:
    """A cast names a dtype that has values of its own."""
    for cast, owner in parts.found(Cast):
        if isinstance(cast.dtype, Quantized):
            yield complaint(
                "nothing can be cast to a quantized dtype",
                cast,
                owner,
                hint="compute codes and scales as tensors of their own",
                kind=DTypeError,
            )


def constants_have_all_their_data(parts: Parts) -> Iterator[Complaint]:
    """A constant has constant extents and as many bytes as its type says."""
    for constant, owner in parts.found(Constant):
        type_, name = constant.type, constant.name
        if isinstance(type_.dtype, Quantized):
            message = f"the constant {name} cannot be quantized"
            hint = "give its codes and scales as constants of their own"
            yield complaint(message, constant, owner, hint=hint, kind=DTypeError)
            continue
        sizes = [ext.polynomial(extent) for extent in type_.extents]
        if any(set(size) - {()} for size in sizes):
            message = f"the constant {name} has an extent that is no number"
            yield complaint(message, constant, owner, kind=ShapeError)
            continue
        if constant.path is not None:
            if len(constant.data) != 32:
                message = f"the digest of {constant.path} has {len(constant.data)} bytes, not 32"
                yield complaint(message, constant, owner)
            continue
        count = math.prod(size.get((), 0) for size in sizes)
        needed = count * numpy_dtype(type_.dtype).itemsize
        if len(constant.data) != needed:
            yield complaint(
                f"the constant {name} has {len(constant.data)} bytes, its type {type_} "
                f"needs {needed}",
                constant,
                owner,
                kind=ShapeError,
            )


def ranks_have_names(parts: Parts) -> Iterator[Complaint]:
    """A rank has a label, so that layouts and messages can speak of it."""
    for rank, owner in parts.found(Rank):
        if not rank.name:
            yield complaint("a rank has no name", rank, owner)
