"""What code is made for: a triple and the features that its processor has.

Features decide, never the processor's name, which can be wrong under virtualization.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import Any

from einloom.ir.errors import BackendError, UnsupportedError
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
    parts = [platform.system(), platform.machine()]
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() in ("flags", "Features"):
                    return "\n".join([*parts, " ".join(sorted(value.split()))])
    except OSError:
        pass
    return "\n".join([*parts, platform.processor()])
