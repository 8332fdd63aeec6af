"""Executables: a module made ready to run, compiled per layout of its operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from einloom.cache import memory_cache
from einloom.calls.operands import OutputError
from einloom.ir.binding import bind
from einloom.ir.errors import DTypeError, RangeError, ShapeError, UnsupportedError
from einloom.ir.infer import infer
from einloom.ir.names import counted
from einloom.ir.program import Module
from einloom.ir.promotion import numpy_dtype
from einloom.ir.quantized import (
    QuantizedArray,
    codes_of,
    component_name,
    decode,
    scales_of,
)
from einloom.ir.record import record
from einloom.ir.types import Quantized, TensorType
from einloom.kernels import LayoutClass, kernels_for, layout_class, lowered, run_prepared

if TYPE_CHECKING:
    from einloom.backends.cost import StatementCost
    from einloom.backends.cpu.launcher import IndexFault, Prepared
    from einloom.ir.loops import LoopProgram
    from einloom.report import Report

Array = np.ndarray[Any, Any]
DEFAULT_EXTENT = 64
"""What `cost` and `explain` take for a symbol of which no size is given."""


@record
class Signature:
    """Everything about the operands of one call but their addresses."""

    shapes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    aligned: tuple[bool, ...]
    symbols: tuple[tuple[str, int], ...]


class Executable:
    """A compiled program: call it with arrays in the order of its inputs.

    Machine code is made once per layout class of the operands (`layout_class`), for any
    extents. Executables may be called from many threads at once, and they pickle.
    `extents` are the likely sizes of symbols that it was compiled for.
    """

    def __init__(
        self,
        module: Module,
        *,
        stages: Mapping[str, Module] | None = None,
        notes: Sequence[Any] = (),
        strict: bool = False,
        extents: Mapping[str, int] | None = None,
    ) -> None:
        from einloom.ir.constants import constant_arrays

        self.module = module
        self.stages = dict(stages or {"final": module})
        self.notes = tuple(notes)
        self.strict = strict
        self.extents = dict(extents or {})
        self._native = unpacked(module)
        self._inference = infer(module)
        self._constants: dict[str, Array] = constant_arrays(module)
        self._refuse_unsupported()

    def _refuse_unsupported(self) -> None:
        for name, type_ in self._inference.tensors.items():
            if type_.encrypted:
                raise UnsupportedError(
                    f"{name} is encrypted: the CPU backend computes in the clear",
                    suggestion="drop enc from its type, or use einloom.interpret to try it",
                )

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.module, self.stages, self.notes, self.strict, self.extents)

    def __repr__(self) -> str:
        inputs = ", ".join(
            f"{name}: {'extent' if type_ is None else type_}" for name, type_ in self.inputs.items()
        )
        outputs = ", ".join(f"{name}: {type_}" for name, type_ in self.outputs.items())
        return f"<Executable {self.module.name}({inputs}) -> ({outputs})>"

    @property
    def inputs(self) -> dict[str, TensorType | None]:
        """Names and types of the inputs in order; None for an extent."""
        return {item.name: item.type for item in self.module.inputs}

    @property
    def outputs(self) -> dict[str, TensorType]:
        """Names and types of the results in order."""
        return {name: self._inference.tensors[name] for name in self.module.outputs}

    def __call__(self, *arrays: Any, out: Any = None) -> Any:
        """Run on arrays in the order of `inputs`.

        Returns the result, or a tuple of several. `out` is one array or a tuple of arrays
        that receive the results; they stay untouched when the call fails.
        Raises ShapeError, DTypeError or RangeError for operands that do not fit.
        """
        names = list(self.inputs)
        if len(arrays) != len(names):
            raise ShapeError(
                f"{self.module.name} takes {counted(len(names), 'input')} ({', '.join(names)}), "
                f"{len(arrays)} {'is' if len(arrays) == 1 else 'are'} given"
            )
        results = self.run(dict(zip(names, arrays, strict=True)))
        values = tuple(results[name] for name in self.module.outputs)
        if out is not None:
            values = _write(out, values, self.module.outputs)
        return values[0] if len(values) == 1 else values

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Array]:
        """Run on named arrays; returns the named results, freshly allocated."""
        bound = bind(self.module, arrays)
        tensors = {**self._decoded(bound.arrays), **self._constants}
        prepared = self.prepared(tensors, bound.symbols)
        from einloom.backends.cpu.launcher import IndexFault

        try:
            return run_prepared(prepared, tensors, self.module.outputs)
        except IndexFault as fault:
            raise self._own_fault(fault, tensors) from None

    def _own_fault(self, fault: IndexFault, tensors: Mapping[str, Array]) -> RangeError:
        """The fault with the text of this program: equal programs at other places share code."""
        layouts = {name: layout_class(array) for name, array in tensors.items()}
        for site in lowered(self._native, layouts, self.strict).faults:
            if (site.function, site.number) == (fault.function, fault.number):
                return RangeError(fault.filled(site.message))
        return RangeError(str(fault))

    def _decoded(self, arrays: Mapping[str, Array | QuantizedArray]) -> dict[str, Array]:
        """The operands of the kernels: quantized inputs as what the program reads of them."""
        found: dict[str, Array] = {}
        wanted = {item.name for item in self._native.inputs}
        for name, value in arrays.items():
            if isinstance(value, np.ndarray):
                found[name] = value
                continue
            type_ = self.inputs[name]
            assert type_ is not None and isinstance(type_.dtype, Quantized)
            for view, read in (("", decode), ("codes", codes_of), ("scales", scales_of)):
                if component_name(name, view) in wanted:
                    found[component_name(name, view)] = read(type_.dtype, value)
        return found

    def prepared(self, tensors: Mapping[str, Array], symbols: Mapping[str, int]) -> Prepared:
        """The launch of this program for tensors of this signature."""
        signature = Signature(
            tuple(a.shape for a in tensors.values()),
            tuple(a.strides for a in tensors.values()),
            tuple(bool(a.flags.aligned) for a in tensors.values()),
            tuple(symbols.items()),
        )
        key = ("prepared", self._native.digest, self.strict, signature)

        def build() -> Prepared:
            layouts = {name: layout_class(array) for name, array in tensors.items()}
            kernels = kernels_for(self._native, layouts, self.strict)
            return kernels.prepare(tensors, symbols)

        return memory_cache().get_or_build(key, build)  # type: ignore[no-any-return]

    def default_layouts(self) -> dict[str, LayoutClass]:
        """The layouts of C-contiguous, aligned operands."""
        found: dict[str, LayoutClass] = {}
        for item in self._native.inputs:
            if item.type is not None:
                shape = (2,) * len(item.type.ranks)
                found[item.name] = layout_class(_example(shape, numpy_dtype(item.type.dtype)))
        for name, array in self._constants.items():
            found[name] = layout_class(array)
        return found

    def loops(self) -> LoopProgram:
        """The loops-level program for contiguous operands."""
        return lowered(self._native, self.default_layouts(), self.strict)

    def ir(self, stage: str | None = None) -> str:
        """The program after a pass, by the pass's name; `loops` is the lowered program."""
        if stage == "loops":
            return str(self.loops())
        if stage is None:
            return str(self.module)
        if stage not in self.stages:
            raise ShapeError(
                f"no stage {stage!r}", suggestion=f"stages: {', '.join([*self.stages, 'loops'])}"
            )
        return str(self.stages[stage])

    def cost(self, extents: Mapping[str, int] | None = None) -> list[StatementCost]:
        """Predicted operations, bytes and seconds of each statement.

        `extents` are sizes of symbols; those it was compiled for stand in for what is not given.
        """
        from einloom.backends.cost import MachineModel, cost_of

        return cost_of(self.module, self.sizes(extents), MachineModel())

    def explain(self, extents: Mapping[str, int] | None = None) -> Report:
        """Work, decisions of the passes, loop orders and storage, as tables; `str` prints it.

        `extents` as for `cost`.
        """
        from einloom.explanation import explain

        return explain(self, self.sizes(extents))

    def sizes(self, extents: Mapping[str, int] | None) -> dict[str, int]:
        """An extent for every symbol: as given, as compiled for, or `DEFAULT_EXTENT`."""
        given = {**self.extents, **(extents or {})}
        return {name: given.get(name, DEFAULT_EXTENT) for name in self._inference.symbols}

    def llvm(self, optimized: bool = False) -> str:
        """LLVM IR for contiguous operands, as emitted or after LLVM's passes."""
        from einloom.backends.cpu import compile as cpu

        return cpu.llvm(self.loops(), optimized=optimized)

    def asm(self) -> str:
        """Assembly of this machine for contiguous operands."""
        from einloom.backends.cpu import compile as cpu

        return cpu.assembly(self.loops())


def _example(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return np.empty(shape, dtype) if len(shape) <= 20 else _strided_example(shape, dtype)


def _strided_example(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array of many ranks without its memory: only the last rank has a stride."""
    strides = (0,) * (len(shape) - 1) + (dtype.itemsize,)
    return np.lib.stride_tricks.as_strided(np.empty(2, dtype), shape, strides)


def _rebuild(
    module: Module,
    stages: Mapping[str, Module],
    notes: Sequence[Any],
    strict: bool,
    extents: Mapping[str, int],
) -> Executable:
    return Executable(module, stages=stages, notes=notes, strict=strict, extents=extents)


def _write(out: Any, values: tuple[Array, ...], names: Sequence[str]) -> tuple[Array, ...]:
    targets = tuple(out) if isinstance(out, tuple | list) else (out,)
    if len(targets) != len(values):
        raise ShapeError(
            f"out has {counted(len(targets), 'array')}, "
            f"the program {counted(len(values), 'result')}"
        )
    for target, value, name in zip(targets, values, names, strict=True):
        if not isinstance(target, np.ndarray):
            raise DTypeError(f"out for {name} is a {type(target).__name__}, not an array")
        if target.shape != value.shape:
            raise ShapeError(f"out for {name} has shape {target.shape}, not {value.shape}")
        if not np.can_cast(value.dtype, target.dtype, "safe"):
            raise DTypeError(f"out for {name} is {target.dtype}, the result is {value.dtype}")
        if not target.flags.writeable:
            raise OutputError(f"out for {name} is read-only")
    for target, value in zip(targets, values, strict=True):
        np.copyto(target, value, casting="safe")
    return targets


def unpacked(module: Module) -> Module:
    from einloom.passes.lowering.quantized import unpack

    return unpack(module)
