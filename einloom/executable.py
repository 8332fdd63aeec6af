"""Executables: a module made ready to run, compiled per layout of its operands."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from einloom.backends.cpu.entry.known import MISSED
from einloom.cache import memory_cache
from einloom.calls.native import RepeatedCalls, native_calls
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
from einloom.kernels import (
    Blockings,
    LayoutClass,
    blockings_for,
    kernels_for,
    layout_class,
    lowered,
    run_prepared,
    unlike,
)

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    from einloom.backends.cost import StatementCost
    from einloom.backends.cpu.launcher import IndexFault, Prepared
    from einloom.ir.loops import LoopProgram
    from einloom.report import Report

Array = np.ndarray[Any, Any]
_calls = native_calls()
MOST_FORMS = 3
"""Ways to cut contractions that are compiled for operands of one kind of layout."""
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
    `extents` are the likely sizes of symbols that it was compiled for. `autotune`: for these, and
    contiguous operands, packed contractions are cut as was measured to be the fastest.
    """

    def __init__(
        self,
        module: Module,
        *,
        stages: Mapping[str, Module] | None = None,
        notes: Sequence[Any] = (),
        strict: bool = False,
        extents: Mapping[str, int] | None = None,
        autotune: bool = False,
    ) -> None:
        from einloom.ir.constants import constant_arrays

        self.module = module
        self.stages = dict(stages or {"final": module})
        self.notes = tuple(notes)
        self.strict = strict
        self.extents = dict(extents or {})
        self.autotune = autotune
        self._native = unpacked(module)
        self._inference = infer(module)
        self._constants: dict[str, Array] = constant_arrays(module)
        self._repeated = RepeatedCalls()
        self._forms: dict[object, list[Blockings]] = {}
        self._lock = threading.Lock()
        self._refuse_unsupported()

    def _refuse_unsupported(self) -> None:
        for name, type_ in self._inference.tensors.items():
            if type_.encrypted:
                raise UnsupportedError(
                    f"{name} is encrypted: the CPU backend computes in the clear",
                    suggestion="drop enc from its type, or use einloom.interpret to try it",
                )

    def __reduce__(self) -> tuple[object, ...]:
        options = (self.strict, self.extents, self.autotune)
        return _rebuild, (self.module, self.stages, self.notes, *options)

    def __repr__(self) -> str:
        inputs = ", ".join(
            f"{name}: {'extent' if type_ is None else type_}" for name, type_ in self.inputs.items()
        )
        outputs = ", ".join(f"{name}: {type_}" for name, type_ in self.outputs.items())
        return f"<Executable {self.module.name}({inputs}) -> ({outputs})>"

    @property
    def native(self) -> Module:
        """The program that kernels compute: inputs of quantized types by their components."""
        return self._native

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
        known = _calls.executable(self._repeated.table, arrays, out)
        if known is not MISSED:
            return known
        shared = self._repeated.recall(arrays, out)
        if shared is not MISSED:
            return shared
        names = list(self.inputs)
        if len(arrays) != len(names):
            raise ShapeError(
                f"{self.module.name} takes {counted(len(names), 'input')} ({', '.join(names)}), "
                f"{len(arrays)} {'is' if len(arrays) == 1 else 'are'} given"
            )
        tensors, symbols = self.tensors(dict(zip(names, arrays, strict=True)))
        prepared = self.prepared(tensors, symbols)
        targets = None if out is None else _targets(out, self.module.outputs)
        given: dict[str, Array] = {}
        if targets is not None and not prepared.kernels.can_fault:
            given = _written_directly(prepared, targets, tensors)
        results = self._run(prepared, tensors, symbols, given)
        values = tuple(results[name] for name in self.module.outputs)
        if targets is not None:
            values = _write(targets, values)
        self._repeated.ran(self, arrays, out)
        return values[0] if len(values) == 1 else values

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Array]:
        """Run on named arrays; returns the named results, freshly allocated."""
        tensors, symbols = self.tensors(arrays)
        return self._run(self.prepared(tensors, symbols), tensors, symbols, {})

    def _run(
        self,
        prepared: Prepared,
        tensors: Mapping[str, Array],
        symbols: Mapping[str, int],
        given: Mapping[str, Array],
    ) -> dict[str, Array]:
        from einloom.backends.cpu.launcher import IndexFault

        try:
            return run_prepared(prepared, tensors, self.module.outputs, given)
        except IndexFault as fault:
            raise self._own_fault(fault, tensors, symbols) from None

    def tensors(self, arrays: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, int]]:
        """What the kernels run on, checked, and the sizes of all symbols."""
        bound = bind(self.module, arrays)
        return {**self._decoded(bound.arrays), **self._constants}, bound.symbols

    def _own_fault(
        self, fault: IndexFault, tensors: Mapping[str, Array], symbols: Mapping[str, int]
    ) -> RangeError:
        """The fault with the text of this program: equal programs at other places share code."""
        layouts = {name: layout_class(array) for name, array in tensors.items()}
        blockings = self.blockings(layouts, symbols)
        for site in lowered(self._native, layouts, self.strict, blockings).faults:
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
                component = component_name(self.module, name, view)
                if component in wanted:
                    found[component] = read(type_.dtype, value)
        return found

    def prepared(self, tensors: Mapping[str, Array], symbols: Mapping[str, int]) -> Prepared:
        """The launch of this program for tensors of this signature."""
        signature = Signature(
            tuple(a.shape for a in tensors.values()),
            tuple(a.strides for a in tensors.values()),
            tuple(bool(a.flags.aligned) for a in tensors.values()),
            tuple(symbols.items()),
        )
        key = ("prepared", self._native.digest, self.strict, self.autotune, signature)

        def build() -> Prepared:
            layouts = {name: layout_class(array) for name, array in tensors.items()}
            blockings = self.blockings(layouts, symbols)
            kernels = kernels_for(self._native, layouts, self.strict, blockings)
            return kernels.prepare(tensors, symbols)

        return memory_cache().get_or_build(key, build)  # type: ignore[no-any-return]

    def blockings(self, layouts: Mapping[str, LayoutClass], sizes: Mapping[str, int]) -> Blockings:
        """How contractions and the like are cut for operands of these layouts and sizes."""
        found = self._known_form(
            tuple(layouts.items()), blockings_for(self._native, layouts, self.strict, sizes)
        )
        asked = self.autotune and dict(sizes) == self.sizes(None)
        if not asked or dict(layouts) != self.default_layouts():
            return found
        from einloom.autotuning import tuned

        return tuned(self._native, layouts, sizes, found)

    def _known_form(self, layouts: object, wanted: Blockings) -> Blockings:
        """`wanted` while there are few forms for some layouts, else the one most like it.

        So any number of shapes causes few compilations.
        """
        with self._lock:
            forms = self._forms.setdefault(layouts, [])
            if wanted in forms or len(forms) >= MOST_FORMS:
                return min(forms, key=lambda form: unlike(form, wanted))
            forms.append(wanted)
            return wanted

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
        layouts = self.default_layouts()
        blockings = self.blockings(layouts, self.sizes(None))
        return lowered(self._native, layouts, self.strict, blockings)

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
        The machine is this one where `einloom doctor --measure` has measured it.
        """
        from einloom.predictions import costs

        return costs(self, self.sizes(extents))

    def explain(self, extents: Mapping[str, int] | None = None, *, measure: bool = False) -> Report:
        """Work, decisions, loop orders, cuts and memory, as tables; `str` prints it.

        `extents` as for `cost`. `measure` runs every kernel on random operands as well, and
        compares its time with the prediction and with the machine's peak: docs/cost.md.
        """
        from einloom.explanation import explain

        return explain(self, self.sizes(extents), measure=measure)

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

    def export(
        self,
        path: str | PathLike[str],
        cpu: str | None = None,
        *,
        architecture: str | None = None,
        name: str | None = None,
    ) -> tuple[Path, Path]:
        """Write a shared library (`lib.so`) or an object file (`lib.o`), and a header (`lib.h`).

        No Python is needed to use them: docs/export.md. `cpu` is the least processor to run on:
        `x86-64`, `x86-64-v2`, `-v3`, `-v4`, `armv8-a`, or `native`; by default `x86-64-v3` or
        `armv8-a`, as the architecture (`x86-64`, `aarch64`; this machine's if not given) has it.
        `name` replaces the program's as that of the C function. Both files are written or none
        is; their paths are returned. Raises UnsupportedError for what C cannot hand over,
        BackendError where a shared library finds no linker, EinloomError where writing fails.
        """
        from einloom.exporting import export

        return export(self, path, cpu, architecture, name)


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
    autotune: bool,
) -> Executable:
    return Executable(
        module, stages=stages, notes=notes, strict=strict, extents=extents, autotune=autotune
    )


def _targets(out: Any, names: Sequence[str]) -> dict[str, Array]:
    """The arrays that receive the results, by result."""
    targets = tuple(out) if isinstance(out, tuple | list) else (out,)
    if len(targets) != len(names):
        raise ShapeError(
            f"out has {counted(len(targets), 'array')}, the program {counted(len(names), 'result')}"
        )
    for target, name in zip(targets, names, strict=True):
        if not isinstance(target, np.ndarray):
            raise DTypeError(f"out for {name} is a {type(target).__name__}, not an array")
        if not target.flags.writeable:
            raise OutputError(f"out for {name} is read-only")
    return dict(zip(names, targets, strict=True))


def _written_directly(
    prepared: Prepared, targets: Mapping[str, Array], tensors: Mapping[str, Array]
) -> dict[str, Array]:
    """The targets that kernels may write to: laid out like storages, overlapping nothing."""
    storages = {storage.name: storage for storage in prepared.storages}
    for name, target in targets.items():
        expected = storages.get(name, tensors.get(name))
        assert expected is not None
        same = target.shape == expected.shape and target.dtype == expected.dtype
        if not (same and target.flags.c_contiguous and target.flags.aligned):
            return {}  # an error, or a copy: then all are copied, after nothing can fail any more
    arrays = [*tensors.values(), *targets.values()]
    return {
        name: target
        for name, target in targets.items()
        if name in storages
        and not any(np.may_share_memory(target, x) for x in arrays if x is not target)
        and sum(x is target for x in arrays) == 1
    }


def _write(targets: Mapping[str, Array], values: tuple[Array, ...]) -> tuple[Array, ...]:
    """The targets, with the values in them."""
    pairs = [
        (name, target, value) for (name, target), value in zip(targets.items(), values, strict=True)
    ]
    for name, target, value in pairs:
        if target.shape != value.shape:
            raise ShapeError(f"out for {name} has shape {target.shape}, not {value.shape}")
        if not np.can_cast(value.dtype, target.dtype, "safe"):
            raise DTypeError(f"out for {name} is {target.dtype}, the result is {value.dtype}")
    for _, target, value in pairs:
        if target is not value:
            np.copyto(target, value, casting="safe")
    return tuple(targets.values())


def unpacked(module: Module) -> Module:
    from einloom.passes.lowering.quantized import unpack

    return unpack(module)
