"""LLVM text to machine code: optimised text, assembly, objects, and code loaded to be called.

Compilation holds llvmlite's own lock around each call and has a context of its own, so threads
may compile at once. Loading needs llvmlite only where `object_loader` cannot read the object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from einloom.backends.cpu.library import Library
from einloom.backends.cpu.object_loader import LoadedObject, is_for_this_system
from einloom.backends.cpu.target import Target, host, llvm_for
from einloom.ir.errors import BackendError

ResultT = TypeVar("ResultT")

# Loops are not unrolled here: the vectoriser interleaves, and `unroll` is done by the emission.
SPEED_LEVEL = 2
CODE_LEVEL = 2


def optimized(text: str, target: Target | None = None) -> str:
    """LLVM text after LLVM's passes for a target, this machine by default."""
    return _compile(text, target or host(), lambda module, machine: str(module))


def assembly(text: str, target: Target | None = None) -> str:
    """The assembly that LLVM text becomes."""
    return _compile(
        text, target or host(), lambda module, machine: str(machine.emit_assembly(module))
    )


def compile_object(text: str, target: Target | None = None, *, optimize: bool = True) -> bytes:
    """A relocatable object file, position-independent; at once where it is not optimised.

    Raises BackendError where LLVM refuses the text, which is a defect of the code generator.
    """
    return _compile(
        text,
        target or host(),
        lambda module, machine: bytes(machine.emit_object(module)),
        optimize,
    )


def load_object(data: bytes) -> Library:
    """Make the functions of an object that was compiled for this machine callable.

    Raises BackendError for data that is not such an object, and where a function that it calls
    is not found in the process.
    """
    return Library(LoadedObject(data) if is_for_this_system() else _EngineCode(data))


def _compile(
    text: str, target: Target, produce: Callable[[Any, Any], ResultT], optimize: bool = True
) -> ResultT:
    """Parse, verify and optimise LLVM text, then make something of the module."""
    binding = llvm_for(target.architecture)
    machine = (
        binding.Target.from_triple(target.triple)
        # The processor's name stays empty: only features are sure to be there.
        .create_target_machine(
            cpu="",
            features=target.feature_text,
            opt=CODE_LEVEL if optimize else 0,
            reloc="pic",
            codemodel="small",
        )
    )
    context = binding.create_context()
    try:
        module = binding.parse_assembly(text, context)
        module.verify()
    except RuntimeError as error:
        raise BackendError(f"internal: LLVM refuses the generated text: {error}") from error
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    options = binding.create_pipeline_tuning_options(speed_level=SPEED_LEVEL if optimize else 0)
    options.loop_vectorization = True
    options.loop_interleaving = True
    options.slp_vectorization = False
    options.loop_unrolling = False
    # Closed in this order, so that nothing outlives what it refers to.
    with machine, module, binding.create_pass_builder(machine, options) as passes:
        with passes.getModulePassManager() as manager:
            manager.run(module, passes)
        return produce(module, machine)


class _EngineCode:
    """An object that LLVM's own engine links, on systems whose format `object_loader` lacks."""

    def __init__(self, data: bytes) -> None:
        target = host()
        binding = llvm_for(target.architecture)
        machine = binding.Target.from_triple(target.triple).create_target_machine()
        self._engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
        try:
            self._engine.add_object_file(binding.ObjectFileRef.from_data(data))
        except RuntimeError as error:
            raise BackendError(f"the compiled code cannot be loaded: {error}") from error
        self._engine.finalize_object()

    def address(self, symbol: str) -> int | None:
        return int(self._engine.get_function_address(symbol)) or None
