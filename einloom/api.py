"""The Python API: parse, load, compile, interpret."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from einloom.ir.errors import DTypeError, ParseError, ShapeError, UnsupportedError
from einloom.ir.program import Module
from einloom.ir.promotion import from_numpy
from einloom.options import current

if TYPE_CHECKING:
    from einloom.executable import Executable
    from einloom.passes import Context, Pipeline

TARGETS = ("cpu",)
_PROGRAM = re.compile(r"\s*(#[^\n]*\n\s*)*(program|fn|monoid)\s+[\w`]")


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of an operand that is not there yet.

    `dtype` is anything that NumPy takes as one, or an Einloom name such as `"f32"`, `"bf16"`.
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

    module = parse_text(text)
    verify(module)
    return module


def load(path: str | Path) -> Module:
    """The module in a file (UTF-8), verified."""
    from einloom.ir.text import load as load_text
    from einloom.ir.verify import verify

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

    return run(module, arrays, calls=calls)


def compile(
    program: Module | str | Path,
    *operands: Any,
    target: str = "cpu",
    pipeline: str | Pipeline | None = None,
    strict: bool | None = None,
    semiring: Any = None,
    optimize: Any = "auto",
    memory_limit: int | str | None = None,
    extents: Mapping[str, int] | None = None,
) -> Executable:
    """Compile a module, a program text, a path of one, or an einsum spec.

    A spec needs its operands, as arrays or `TensorSpec`s; their dtypes are compiled in, their
    shapes only guide decisions. `pipeline` replaces the target's default. `extents` are likely
    sizes of a program's symbols. Raises EinloomError, and TypeError for an unknown option.
    """
    check_target(target)
    module = as_module(program, operands, semiring)
    hints = dict(extents or {})
    if isinstance(program, str) and not _PROGRAM.match(program):
        hints.update(_hints(module, operands))
    return compile_module(
        module,
        target=target,
        pipeline=pipeline,
        strict=strict,
        extents=hints,
        optimize=optimize,
        memory_limit=memory_limit,
    )


def check_target(target: str) -> None:
    if target not in TARGETS:
        raise UnsupportedError(
            f"unknown target {target!r}", suggestion=f"targets: {', '.join(TARGETS)}"
        )


def as_module(program: Module | str | Path, operands: tuple[Any, ...], semiring: Any) -> Module:
    """The module that `compile` was given, in whatever form."""
    if isinstance(program, Module | Path) or _PROGRAM.match(program):
        if operands or semiring is not None:
            raise ParseError(
                "operands and semiring go with an einsum spec, not with a program",
                suggestion="compile(program), then call the executable with its arrays",
            )
        if isinstance(program, Module):
            from einloom.ir.verify import verify

            verify(program)
            return program
        return load(program) if isinstance(program, Path) else parse(program)
    from einloom.frontend.einsum.parse import parse_spec
    from einloom.frontend.einsum.program import to_module
    from einloom.frontend.einsum.semiring import find_semiring

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


def new_context(strict: bool | None, extents: Mapping[str, int]) -> Context:
    from einloom.backends.cost import MachineModel
    from einloom.passes import Context

    return Context(
        cost_model=MachineModel(),
        strict=current().strict if strict is None else strict,
        extents=extents,
    )


def compile_module(
    module: Module,
    *,
    target: str = "cpu",
    pipeline: str | Pipeline | None = None,
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
    if pipeline is None:
        pipeline = default_pipeline(target, optimize, memory_limit)
    elif isinstance(pipeline, str):
        pipeline = Pipeline.parse(pipeline)
    context = new_context(strict, extents or {})
    stages: dict[str, Module] = {"input": module}

    def listen(event: Event) -> None:
        if isinstance(event, AfterPass) and isinstance(event.module, Module):
            stages[event.pass_.name] = event.module

    from einloom.debug import debug_code, debug_listeners

    context.listeners = (listen, *debug_listeners())
    final = pipeline.run(module, context)
    executable = Executable(final, stages=stages, notes=context.notes, strict=context.strict)
    debug_code(executable)
    return executable
