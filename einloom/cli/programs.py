"""The program that a command is given: a file, standard input or an einsum spec, and its sizes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einloom.cli.failures import UsageError
from einloom.ir.errors import EinloomError, ShapeError
from einloom.ir.record import record

if TYPE_CHECKING:
    from einloom.ir.program import Module

DEFAULT_EXTENT = 64


@record
class Given:
    """A program and what the command line says about it.

    `extents`: sizes of symbols. `assumed`: names, as the user knows them, whose size nobody
    gave and that stand at `DEFAULT_EXTENT`. `arrays`: inputs from files.
    """

    module: Module
    extents: Mapping[str, int]
    arrays: Mapping[str, Any] = field(default_factory=dict)
    assumed: Sequence[str] = ()


def given_program(arguments: Any) -> Given:
    """Read PROGRAM with the options of `add_program`, and of `add_inputs` where it has them."""
    inputs = dict(getattr(arguments, "input", []))
    text = arguments.program
    if text != "-" and is_spec(text):
        return _from_spec(text, arguments, inputs)
    for option in ("shape", "dtype"):
        if getattr(arguments, option):
            raise UsageError(f"--{option} goes with an einsum spec; a program states its types")
    module = _from_file(text)
    from einloom.cli.inputs import read_inputs

    arrays = read_inputs(module, inputs)
    sizes, assumed = resolve_extents(module, dict(arguments.extent), arrays)
    return Given(module, sizes, arrays, assumed)


def is_spec(text: str) -> bool:
    """Whether PROGRAM is an einsum spec: it names no file, and no file would be called so."""
    if text.endswith(".ein") or Path(text).exists():
        return False
    return "->" in text or "," in text


def _from_file(text: str) -> Module:
    from einloom import api
    from einloom.ir.text import parse
    from einloom.ir.verify import verify

    if text == "-":
        module = parse(sys.stdin.buffer.read(), "<stdin>")
        verify(module)
        return module
    if not Path(text).exists():
        raise EinloomError(
            f"there is no file {text}",
            suggestion="an einsum spec has an arrow: einloom run 'ij,jk->ik'",
        )
    return api.load(text)


# ---- sizes of symbols ---------------------------------------------------------------------


def resolve_extents(
    module: Module, given: Mapping[str, int], arrays: Mapping[str, Any]
) -> tuple[dict[str, int], list[str]]:
    """The size of every symbol: from the command line, from arrays, or the default.

    Also returns the names that stand at the default. Raises ShapeError for a name that is no
    symbol, and for an array that contradicts the command line.
    """
    from einloom.ir.expressions import Symbol
    from einloom.ir.infer import infer

    symbols = list(infer(module).symbols)
    symbols += [item.name for item in module.inputs if item.type is None]
    symbols = list(dict.fromkeys(symbols))
    for name in given:
        if name not in symbols:
            raise _unknown_symbol(name, symbols)
    sizes = dict(given)
    origins = {name: f"--extent says {size}" for name, size in given.items()}
    for item in module.inputs:
        if item.name not in arrays:
            continue
        if item.type is None:
            found = {item.name: arrays[item.name]}
        else:
            shape = getattr(arrays[item.name], "shape", ())
            found = {
                rank.extent.name: size
                for rank, size in zip(item.type.ranks, shape, strict=False)
                if isinstance(rank.extent, Symbol)
            }
        for name, size in found.items():
            if sizes.setdefault(name, size) != size:
                where = f"{item.name} has shape {shape}" if item.type else f"it is {size}"
                raise ShapeError(f"{name} does not fit: {where}, but {origins[name]}")
            origins.setdefault(name, f"the input {item.name} says {size}")
    assumed = [name for name in symbols if name not in sizes]
    return {**sizes, **dict.fromkeys(assumed, DEFAULT_EXTENT)}, assumed


def _unknown_symbol(name: str, symbols: Sequence[str]) -> ShapeError:
    near = get_close_matches(name, symbols, 1)
    if not symbols:
        hint = "all its extents are numbers"
    else:
        hint = f"did you mean {near[0]}?" if near else f"its symbols are: {', '.join(symbols)}"
    return ShapeError(f"the program has no symbol {name}", suggestion=hint)


# ---- einsum specs -------------------------------------------------------------------------


def _from_spec(text: str, arguments: Any, inputs: Mapping[str, str]) -> Given:
    """A spec with operands from files, of stated shapes, or of default extents."""
    from einloom.api import as_module
    from einloom.cli.inputs import read_array
    from einloom.frontend.einsum.parse import parse_spec
    from einloom.frontend.einsum.program import operand_name

    count = len(parse_spec(text).inputs)
    names = [operand_name(k) for k in range(count)]
    shapes, dtypes = dict(arguments.shape), dict(arguments.dtype)
    for option, table in (("input", inputs), ("shape", shapes), ("dtype", dtypes)):
        for name in table:
            if name not in names:
                raise UsageError(f"--{option} {name}: the operands are {', '.join(names)}")
    for name in inputs:
        for option, table in (("shape", shapes), ("dtype", dtypes)):
            if name in table:
                raise UsageError(f"--{option} {name}: its file says that already")
    arrays = {name: read_array(name, file) for name, file in inputs.items()}
    known = {**{name: array.shape for name, array in arrays.items()}, **shapes}
    operands, assumed = _operands(text, names, known, dict(arguments.extent), dtypes, arrays)
    module = as_module(text, tuple(operands), None)
    sizes: dict[str, int] = {}
    from einloom.ir.expressions import Symbol

    for item, operand in zip(module.inputs, operands, strict=True):
        assert item.type is not None
        for rank, size in zip(item.type.ranks, operand.shape, strict=True):
            assert isinstance(rank.extent, Symbol)
            sizes[rank.extent.name] = max(size, sizes.get(rank.extent.name, 0))
    return Given(module, sizes, arrays, assumed)


def _operands(
    text: str,
    names: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    extents: Mapping[str, int],
    dtypes: Mapping[str, str],
    arrays: Mapping[str, Any],
) -> tuple[list[Any], list[str]]:
    """One array or TensorSpec per operand, and the labels that took the default extent."""
    from einloom.api import TensorSpec
    from einloom.frontend.einsum.parse import parse_spec
    from einloom.frontend.einsum.spec import ELLIPSIS

    plain = parse_spec(text)
    if ELLIPSIS in plain.output or any(ELLIPSIS in labels for labels in plain.inputs):
        for name, typed in zip(names, plain.inputs, strict=True):
            if ELLIPSIS in typed and name not in shapes:
                raise UsageError(f"what ... stands for is open: --shape {name}=8x16")
    ranks = [
        len(shapes[name]) if name in shapes else len(typed)
        for name, typed in zip(names, plain.inputs, strict=True)
    ]
    spec = parse_spec(text, ranks)
    terms = [[str(label) for label in labels] for labels in spec.inputs]
    sizes: dict[str, int] = {}
    for name, labels in zip(names, terms, strict=True):
        for label, size in zip(labels, shapes.get(name, ()), strict=False):
            sizes[label] = max(size, sizes.get(label, 1))
    every = list(dict.fromkeys(label for labels in terms for label in labels))
    for label, size in extents.items():
        if label not in every:
            raise _unknown_label(label, every)
        if sizes.get(label, 1) not in (size, 1):
            raise ShapeError(
                f"label {label} is {sizes[label]} in the operands, but --extent says {size}"
            )
        sizes[label] = size
    assumed = [label for label in every if label not in sizes]
    sizes |= dict.fromkeys(assumed, DEFAULT_EXTENT)
    made: list[Any] = []
    for name, labels in zip(names, terms, strict=True):
        shape = shapes[name] if name in shapes else tuple(sizes[label] for label in labels)
        made.append(arrays[name] if name in arrays else TensorSpec(shape, dtypes.get(name, "f32")))
    return made, assumed


def _unknown_label(label: str, labels: Sequence[str]) -> ShapeError:
    return ShapeError(
        f"the spec has no label {label}", suggestion=f"its labels are: {', '.join(labels)}"
    )
