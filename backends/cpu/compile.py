"""From a loops-level program to kernels: text, machine code, and the payload that is cached."""

from __future__ import annotations

import os
import struct
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from einloom.backends.cpu.launcher import Kernels
from einloom.backends.cpu.plan import Plan
from einloom.backends.cpu.target import Target, host, host_fingerprint

if TYPE_CHECKING:
    from einloom.ir.loops import LoopProgram

_HEAD = struct.Struct("<Q")


def llvm(program: LoopProgram, *, target: Target | None = None, optimized: bool = False) -> str:
    """LLVM IR of a program, as emitted or after LLVM's passes."""
    from einloom.backends.cpu import jit
    from einloom.backends.cpu.codegen import emit

    target = target or host()
    text = emit(program, target)
    return jit.optimized(text, target) if optimized else text


def assembly(program: LoopProgram, *, target: Target | None = None) -> str:
    """Assembly of a program."""
    from einloom.backends.cpu import jit
    from einloom.backends.cpu.codegen import emit

    target = target or host()
    return jit.assembly(emit(program, target), target)


def object_code(program: LoopProgram, *, target: Target | None = None) -> bytes:
    """A relocatable object file of a program."""
    from einloom.backends.cpu import jit
    from einloom.backends.cpu.codegen import emit

    target = target or host()
    return jit.compile_object(emit(program, target), target)


@cache
def fingerprint() -> str:
    """What machine code depends on besides the program: the machine's features, LLVM.

    llvmlite is not imported, so that code from the disk cache runs without it.
    """
    found = find_spec("llvmlite")
    if found is None or found.origin is None:
        return host_fingerprint()
    version = Path(found.origin).with_name("_version.py")
    try:
        return f"{host_fingerprint()}\n{version.read_text('utf-8')}"
    except OSError:
        return f"{host_fingerprint()}\n{os.stat(found.origin).st_mtime_ns}"


def compile_payload(program: LoopProgram) -> bytes:
    """The launch plan and the object code of a program, as one string of bytes."""
    from einloom.backends.cpu.planning import plan_of

    plan = plan_of(program).to_json()
    return _HEAD.pack(len(plan)) + plan + object_code(program)


def from_payload(payload: bytes) -> Kernels | None:
    """Load what `compile_payload` made; None where it is not that."""
    from einloom.backends.cpu import jit

    if len(payload) < _HEAD.size:
        return None
    (length,) = _HEAD.unpack_from(payload)
    end = _HEAD.size + length
    try:
        plan = Plan.from_json(payload[_HEAD.size : end])
    except (ValueError, KeyError, TypeError):
        return None
    return Kernels(plan, jit.load_object(payload[end:]))
