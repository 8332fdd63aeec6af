"""The Python API: parse, load, compile, interpret."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from einloom import config
from einloom.ir.errors import DTypeError, EinloomError, ParseError, ShapeError, UnsupportedError
from einloom.ir.program import Module
from einloom.ir.promotion import from_numpy
from einloom.ir.record import record
from einloom.options import current

if TYPE_CHECKING:
    from einloom.executable import Executable
    from einloom.passes import Context, Pass, Pipeline

    Passes = str | Pipeline | Iterable[Pass | str]

TARGETS = ("cpu",)
_PROGRAM = re.compile(r"\s*(#[^\n]*\n\s*)*(program|fn|monoid)\s+[\w`]")


class OptionError(EinloomError, TypeError):
    """Options that exclude each other."""


@record
class TensorSpec:
    """Shape and dtype of an operand that is not there yet.

    `dtype` is an Einloom name such as `"f32"`, `"bf16"`, or else anything that NumPy takes as one.
    Einloom's names count bits, NumPy's short ones bytes: `"i8"` is `int8` here and `int64` as
    `einsum`'s `dtype=`. `"int64"`, `np.int64` or an array's dtype mean the same everywhere.

    >>> TensorSpec((2, 3), "i8").dtype, TensorSpec((2, 3), "int64").dtype
    (dtype('int8'), dtype('int64'))
    """

    shape: tuple[int, ...]
    dtype: Any = "f32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(extent) for extent in self.shape))
        if any(extent < 0 for extent in self.shape):
            raise ShapeError(f"a shape has no negative extents: {self.shape}")
        object.__setattr__(self, "dtype", find_dtype(self.dtype))


def find_dtype(dtype: Any) -> np.dtype[Any]:
    """The NumPy dtype that a user's dtype stands for. Raises DTypeError for an unknown one."""
    from einloom.ir.promotion import numpy_dtype
    from einloom.ir.types import SCALARS, Scalar

    if isinstance(dtype, Scalar):
        return numpy_dtype(dtype)
    if isinstance(dtype, str) and dtype in SCALARS:
        return numpy_dtype(Scalar(dtype))
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        raise DTypeError(
            f"{dtype!r} is no dtype", suggestion=f"one of {', '.join(SCALARS)}"
        ) from None
    from_numpy(found)
    return found


def parse(text: str | bytes) -> Module:
    """The module that a program text describes, verified. Raises ParseError and its like."""
    from einloom.ir.text import parse as parse_text
    from einloom.ir.verify import verify

    if not isinstance(text, str | bytes):
        raise ParseError(
            f"parse takes the text of a program, not a value of type {type(text).__name__}",
            suggestion="read a file by load(path)",
        )
    module = parse_text(text)
    verify(module)
    return module


def load(path: str | PathLike[str]) -> Module:
    """The module in a file (UTF-8), verified. Raises EinloomError for one it cannot read."""
    from einloom.ir.text import load as load_text
    from einloom.ir.verify import verify

    if not isinstance(path, str | PathLike):
        raise ParseError(
            f"load takes the path of a file, not a value of type {type(path).__name__}"
        )
    module = load_text(path)
    verify(module)
    return module


def interpret(
    module: Module,
    arrays: Mapping[str, Any],
    *,
    calls: Mapping[str, Callable[..., Any]] | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """Run a module by its reference semantics, slowly: named arrays in, named results out.

    `calls`: the host functions of its `call` statements, by `name@version`.
    """
    from einloom.ir.interpret import interpret as run

    if not isinstance(module, Module):
        raise ParseError(
            f"interpret takes a module, not a value of type {type(module).__name__}",
            suggestion="read one by parse(text) or load(path)",
        )
    return run(module, arrays, calls=calls)


def compile(
    program: Module | str | PathLike[str],
    *operands: Any,
    target: str = "cpu",
    pipeline: Passes | None = None,
    strict: bool | None = None,
    semiring: Any = None,
    optimize: Any = "auto",
    memory_limit: int | str | None = None,
    extents: Mapping[str, int] | None = None,
    autotune: bool | None = None,
) -> Executable:
    """Compile a module, a program text, a path of one, or an einsum spec.

    A string that ends in `.ein` is a path. A spec needs its operands, as arrays or `TensorSpec`s;
    their dtypes are compiled in, their shapes only guide decisions. `pipeline` replaces the
    target's default: a `Pipeline`, its text, or a list of passes and texts. `extents` are likely
    sizes of a program's symbols. `memory_limit`: elements that an intermediate may have, or
    `"max_input"`. `optimize` and `memory_limit` are those of `einsum`, and options of the
    default pipeline's `contract`: with a `pipeline` they are refused. `autotune` measures now how
    packed contractions are best cut, and keeps what was found in the disk cache; None does as
    `EINLOOM_AUTOTUNE` says. Raises EinloomError, and TypeError for an unknown option or one that
    is refused.
    """
    check_target(target)
    refuse_beside_pipeline(pipeline, optimize=optimize, memory_limit=memory_limit)
    optimize, memory_limit = read_contraction(optimize, memory_limit)
    module = as_module(program, operands, semiring)
    hints = dict(extents or {})
    if is_spec(program):
        hints.update(_hints(module, operands))
    executable = compile_module(
        module,
        target=target,
        pipeline=pipeline,
        strict=strict,
        extents=hints,
        optimize=optimize,
        memory_limit=memory_limit,
    )
    if config.autotune() if autotune is None else autotune:
        executable.autotune = True
        executable.blockings(executable.default_layouts(), executable.sizes(None))
    return executable


def refuse_beside_pipeline(pipeline: Any, *, optimize: Any, memory_limit: Any) -> None:
    """OptionError for options that a pipeline given by the caller would not follow."""
    given = [] if isinstance(optimize, str) and optimize == "auto" else ["optimize"]
    given += [] if memory_limit is None else ["memory_limit"]
    if pipeline is not None and given:
        raise OptionError(
            f"compile takes pipeline or {' and '.join(given)}, not both",
            suggestion="state them in the pipeline: contract{method=..., memory_limit=...}",
        )


def read_contraction(optimize: Any, memory_limit: Any) -> tuple[Any, int | str | None]:
    """`optimize` and `memory_limit` checked, in the forms of `contract_options`."""
    from einloom.calls.request import read_optimize

    method, path, limit = read_optimize(optimize)
    limit = limit if memory_limit is None else read_memory_limit(memory_limit)
    if path is not None:
        return path, limit
    return False if method == "none" else method, limit


def check_target(target: str) -> None:
    if not isinstance(target, str) or target not in TARGETS:
        raise UnsupportedError(
            f"unknown target {target!r}", suggestion=f"targets: {', '.join(TARGETS)}"
        )


def is_spec(program: Any) -> bool:
    """Whether this is an einsum spec: a string that is neither a program nor the path of one."""
    return isinstance(program, str) and not _PROGRAM.match(program) and not _is_path(program)


def _is_path(program: Any) -> bool:
    if isinstance(program, str):
        # `...ein` ends a spec whose result has the labels e, i and n
        named = program.endswith(".ein") and not program.endswith("...ein")
        return named and not _PROGRAM.match(program)
    return isinstance(program, PathLike)


def as_module(
    program: Module | str | PathLike[str], operands: tuple[Any, ...], semiring: Any
) -> Module:
    """The module that `compile` was given, in whatever form."""
    if not isinstance(program, Module | str | PathLike):
        raise ParseError(
            "compile takes a module, a program text, a path or an einsum spec, "
            f"not a value of type {type(program).__name__}",
            suggestion="for example compile('ij,jk->ik', a, b), or compile(load('softmax.ein'))",
        )
    if isinstance(program, Module) or not is_spec(program):
        if operands or semiring is not None:
            raise ParseError(
                "operands and semiring go with an einsum spec, not with a program",
                suggestion="compile(program), then call the executable with its arrays",
            )
        if isinstance(program, Module):
            from einloom.ir.verify import verify

            verify(program)
            return program
        return load(program) if _is_path(program) else parse(str(program))
    from einloom.frontend.einsum.parse import parse_spec
    from einloom.frontend.einsum.program import to_module
    from einloom.frontend.einsum.semiring import find_semiring

    assert isinstance(program, str)
    specs = [operand_spec(operand) for operand in operands]
    spec = parse_spec(program, [len(s.shape) for s in specs])
    binding = spec.bind([s.shape for s in specs])
    dtypes = [from_numpy(s.dtype) for s in specs]
    return to_module(binding.spec, dtypes, semiring=find_semiring(semiring))


def operand_spec(operand: Any) -> TensorSpec:
    if isinstance(operand, TensorSpec):
        return operand
    array = np.asanyarray(operand)
    return TensorSpec(array.shape, array.dtype)


def _hints(module: Module, operands: tuple[Any, ...]) -> dict[str, int]:
    """The extents of a spec's symbols for the operands given."""
    from einloom.ir.expressions import Symbol

    found: dict[str, int] = {}
    for item, operand in zip(module.inputs, operands, strict=True):
        assert item.type is not None
        for extent, size in zip(item.type.extents, operand_spec(operand).shape, strict=True):
            if isinstance(extent, Symbol):
                found[extent.name] = max(size, found.get(extent.name, 0))
    return found


def default_pipeline(target: str, optimize: Any = "auto", memory_limit: Any = None) -> Pipeline:
    """The pipeline of a target, with the options of `contract` put in."""
    from dataclasses import replace

    from einloom.passes import Pipeline
    from einloom.passes.contract import Contract
    from einloom.passes.defaults import DEFAULT_PIPELINES

    pipeline = Pipeline.parse(DEFAULT_PIPELINES[target])
    if optimize == "auto" and memory_limit is None:
        return pipeline
    passes = [
        replace(p, **contract_options(optimize, memory_limit)) if isinstance(p, Contract) else p
        for p in pipeline.passes
    ]
    return Pipeline(tuple(passes))


def contract_options(optimize: Any, memory_limit: Any) -> dict[str, Any]:
    """Options of the `contract` pass for the `optimize` and `memory_limit` of an einsum."""
    found: dict[str, Any] = {}
    if optimize is False:
        found["method"] = "none"
    elif isinstance(optimize, str) and optimize != "auto":
        found["method"] = optimize
    elif isinstance(optimize, list | tuple):
        steps = [s for s in optimize if not isinstance(s, str)]
        path = ", ".join(f"({', '.join(str(int(k)) for k in step)})" for step in steps)
        found.update(method="given", path=path)
    if memory_limit is not None:
        found["memory_limit"] = memory_limit
    return found


def read_memory_limit(limit: Any) -> int | str | None:
    """The `memory_limit` of an einsum: elements, at least 1, or `"max_input"`, or None.

    Raises ParseError for anything else.
    """
    if limit is None or (isinstance(limit, str) and limit == "max_input"):
        return limit
    number = isinstance(limit, Real) and not isinstance(limit, bool)
    if not number or not limit >= 0:  # which not-a-number is not either
        raise ParseError(
            f"memory_limit is {limit!r}",
            suggestion="give the elements that an intermediate may have, or 'max_input'",
        )
    return None if limit == float("inf") else max(1, int(limit))


def new_context(strict: bool | None, extents: Mapping[str, int]) -> Context:
    from einloom.machine_file import ThisMachine
    from einloom.passes import Context

    return Context(
        cost_model=ThisMachine(),
        strict=current().strict if strict is None else strict,
        extents=extents,
    )


def compile_module(
    module: Module,
    *,
    target: str = "cpu",
    pipeline: Passes | None = None,
    strict: bool | None = None,
    extents: Mapping[str, int] | None = None,
    optimize: Any = "auto",
    memory_limit: int | str | None = None,
) -> Executable:
    """Run a pipeline over a verified module and wrap what it leaves as an executable."""
    from einloom.executable import Executable
    from einloom.passes import Pipeline
    from einloom.passes.base import AfterPass, Event

    check_target(target)
    memory_limit = read_memory_limit(memory_limit)
    if pipeline is None:
        pipeline = default_pipeline(target, optimize, memory_limit)
    elif isinstance(pipeline, str):
        pipeline = Pipeline.parse(pipeline)
    elif not isinstance(pipeline, Pipeline):
        pipeline = Pipeline(pipeline)
    context = new_context(strict, extents or {})
    stages: dict[str, Module] = {"input": module}

    def listen(event: Event) -> None:
        if isinstance(event, AfterPass) and isinstance(event.module, Module):
            stages[event.pass_.name] = event.module

    from einloom.debug import debug_code, debug_listeners

    context.listeners = (listen, *debug_listeners())
    final = pipeline.run(module, context)
    executable = Executable(
        final, stages=stages, notes=context.notes, strict=context.strict, extents=extents
    )
    debug_code(executable)
    return executable
