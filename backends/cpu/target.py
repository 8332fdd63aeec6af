"""What code is made for: a triple and the features that its processor has.

Features decide, never the processor's name, which can be wrong under virtualization.
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from einloom.ir.errors import BackendError, UnsupportedError
from einloom.ir.machine import Machine
from einloom.ir.record import record

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
_BASELINE = {
    # Every 64-bit x86 and every 64-bit Arm has these.
    "x86_64": frozenset({"cx8", "fxsr", "mmx", "sse", "sse2"}),
    "aarch64": frozenset({"fp-armv8", "neon"}),
}


@record
class Target:
    """A machine to generate code for.

    `features` holds LLVM's names of the features that are present, such as `avx512f`.
    """

    triple: str
    features: frozenset[str]

    @property
    def feature_text(self) -> str:
        """The features as LLVM takes them: `+avx,+avx2,...`, sorted."""
        return ",".join(f"+{name}" for name in sorted(self.features))

    @property
    def architecture(self) -> str:
        """`x86_64`, `aarch64`, ...: the first part of the triple, under one spelling."""
        first = self.triple.split("-", 1)[0]
        return _ARCHITECTURES.get(first, first)

    def without(self, *features: str) -> Target:
        """The same machine lacking some features, for tests and for portable code."""
        return Target(self.triple, self.features - set(features))


def baseline(triple: str) -> Target:
    """The least that every processor of an architecture offers.

    Raises UnsupportedError for an architecture that this backend does not generate code for.
    """
    name = Target(triple, frozenset()).architecture
    if name not in _BASELINE:
        raise UnsupportedError(
            f"the CPU backend does not generate code for {name}",
            suggestion=f"it does for {' and '.join(sorted(_BASELINE))}",
        )
    return Target(triple, _BASELINE[name])


@cache
def host() -> Target:
    """This machine. Imports llvmlite, which takes about 60 ms the first time."""
    binding = llvm()
    present = frozenset(name for name, on in binding.get_host_cpu_features().items() if on)
    return Target(binding.get_process_triple(), present)


def machine(target: Target) -> Machine:
    """The registers of a target, with the caches of this machine."""
    return _machine(target.architecture, target.features)


@cache
def host_machine() -> Machine:
    """This machine. On Linux llvmlite is not imported."""
    flags = processor_flags()
    if flags is None:
        return machine(host())
    return _machine(_ARCHITECTURES.get(platform.machine().lower(), platform.machine()), flags)


def _machine(architecture: str, features: Collection[str]) -> Machine:
    vector_bytes, registers = 16, 16
    if architecture == "aarch64":
        registers = 32
    elif "avx512f" in features:
        vector_bytes, registers = 64, 32
    elif "avx2" in features:
        vector_bytes = 32
    names = frozenset(name.replace("_", "") for name in features)  # Linux has `avx512_vnni`
    bits = 8 * vector_bytes
    dots = (byte_dots(names, bits), bfloat_dots(names, bits))
    return Machine(vector_bytes, registers, *data_caches(), *dots)


def byte_dots(features: Collection[str], bits: int) -> bool:
    """Whether vectors of so many bits have an instruction for products of four bytes."""
    if bits == 512:
        return "avx512vnni" in features
    short = "avxvnni" in features or {"avx512vnni", "avx512vl"} <= set(features)
    return bits in (128, 256) and short


def bfloat_dots(features: Collection[str], bits: int) -> bool:
    """Whether vectors of so many bits have an instruction for products of two bf16 numbers."""
    short = bits in (128, 256) and "avx512vl" in features
    return "avx512bf16" in features and (bits == 512 or short)


@cache
def data_caches() -> tuple[int, int]:
    """Bytes of the first and second data cache of this machine, or those of a plain one."""
    found: dict[str, int] = {}
    units = {"K": 1 << 10, "M": 1 << 20}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level, kind, size = (
                (folder / name).read_text(encoding="ascii").strip()
                for name in ("level", "type", "size")
            )
            if kind in ("Data", "Unified"):
                found[level] = int(size.rstrip("KM")) * units.get(size[-1], 1)
        except (OSError, ValueError):
            continue
    plain = Machine()
    return found.get("1", plain.first_cache), found.get("2", plain.second_cache)


@cache
def llvm() -> Any:
    """llvmlite's binding with the native target initialised.

    Raises BackendError where llvmlite is missing or older than this backend needs.
    """
    try:
        import llvmlite.binding as binding
    except ImportError as error:
        raise BackendError(
            f"the CPU backend needs llvmlite: {error}", suggestion="pip install 'llvmlite>=0.50'"
        ) from error
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding


@cache
def llvm_for(architecture: str) -> Any:
    """llvmlite's binding with the targets of an architecture initialised."""
    binding = llvm()
    if architecture != host().architecture:
        binding.initialize_all_targets()
        binding.initialize_all_asmprinters()
    return binding


@cache
def host_fingerprint() -> str:
    """A text that differs between machines whose code may differ, cheap to make.

    It serves as a part of a cache key: llvmlite is not imported. On Linux it holds the flags of
    the first processor; elsewhere the machine and processor names that the system gives.
    """
    parts = [platform.system(), platform.machine(), *map(str, data_caches())]
    flags = processor_flags()
    return "\n".join([*parts, platform.processor() if flags is None else " ".join(sorted(flags))])


@cache
def processor_flags() -> frozenset[str] | None:
    """The features of the first processor as Linux names them; None on other systems."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() in ("flags", "Features"):
                    return frozenset(value.split())
    except OSError:
        pass
    return None
