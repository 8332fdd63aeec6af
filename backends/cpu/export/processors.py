"""Processors that libraries are made for: levels of features, and how a processor states them.

A library holds its kernels once per level, from the one it was asked for upwards, and takes the
highest that the processor has. Source of the levels: System V AMD64 psABI 1.0, section 3.1.1;
of the bits: Intel SDM volume 2A, CPUID, and AMD APM volume 3, appendix E.
"""

from __future__ import annotations

from difflib import get_close_matches

from einloom.backends.cpu.target import Target, baseline, host
from einloom.ir.errors import UnsupportedError
from einloom.ir.record import record

TRIPLES = {"x86-64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}
DEFAULT_PROCESSORS = {"x86-64": "x86-64-v3", "aarch64": "armv8-a"}

_V2 = frozenset({"cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3"})
_V3 = frozenset({"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"})
_V4 = frozenset({"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"})

Register = tuple[int, int, int]
"""A leaf of CPUID, a subleaf, and the register of the answer: 0 to 3 for eax to edx."""

_ONE_C, _SEVEN_B, _SEVEN_C = (1, 0, 2), (7, 0, 1), (7, 0, 2)
_SEVEN_D, _SEVEN_ONE_A, _EXTENDED_C = (7, 0, 3), (7, 1, 0), (0x80000001, 0, 2)

BITS: dict[str, tuple[Register, int]] = {
    **{
        name: (_ONE_C, bit)
        for name, bit in {
            "sse3": 0, "ssse3": 9, "fma": 12, "cx16": 13, "sse4.1": 19, "sse4.2": 20,
            "movbe": 22, "popcnt": 23, "xsave": 26, "avx": 28, "f16c": 29,
        }.items()
    },
    **{
        name: (_SEVEN_B, bit)
        for name, bit in {
            "bmi": 3, "avx2": 5, "bmi2": 8, "avx512f": 16, "avx512dq": 17, "avx512ifma": 21,
            "avx512cd": 28, "avx512bw": 30, "avx512vl": 31,
        }.items()
    },
    **{
        name: (_SEVEN_C, bit)
        for name, bit in {
            "avx512vbmi": 1, "avx512vbmi2": 6, "gfni": 8, "avx512vnni": 11,
            "avx512bitalg": 12, "avx512vpopcntdq": 14,
        }.items()
    },
    "avx512fp16": (_SEVEN_D, 23),
    "avxvnni": (_SEVEN_ONE_A, 4),
    "avx512bf16": (_SEVEN_ONE_A, 5),
    "sahf": (_EXTENDED_C, 0),
    "lzcnt": (_EXTENDED_C, 5),
}  # fmt: skip

SYSTEM_SAVES = (_ONE_C, 27)
"""Set where the system saves wide registers, and XGETBV says which."""
SAVED_AVX, SAVED_AVX512 = 0x06, 0xE6
_NEED_AVX = frozenset({"avx", "avx2", "f16c", "fma", "avxvnni"})


@record
class Level:
    """Features that kernels may rely on. `suffix` tells their symbols from other levels'."""

    name: str
    features: frozenset[str]

    @property
    def suffix(self) -> str:
        return self.name.replace("-", "_")

    @property
    def checked(self) -> frozenset[str]:
        """The features that not every processor of the architecture has."""
        return self.features & BITS.keys()

    @property
    def saved(self) -> int:
        """Bits of XCR0 that must be set."""
        if any(name.startswith("avx512") for name in self.features):
            return SAVED_AVX512
        return SAVED_AVX if self.features & _NEED_AVX else 0


@record
class Processor:
    """What a library is made for: `levels` from the one that it needs upwards."""

    name: str
    architecture: str
    levels: tuple[Level, ...]

    @property
    def triple(self) -> str:
        return TRIPLES[self.architecture]

    @property
    def base(self) -> Target:
        """What every processor of the architecture runs: the entry is made for it."""
        return baseline(self.triple)

    def target(self, level: Level) -> Target:
        return Target(self.triple, level.features)


def _x86_levels() -> tuple[Level, ...]:
    first = baseline(TRIPLES["x86-64"]).features
    return (
        Level("x86-64", first),
        Level("x86-64-v2", first | _V2),
        Level("x86-64-v3", first | _V2 | _V3),
        Level("x86-64-v4", first | _V2 | _V3 | _V4),
    )


PROCESSORS = ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "armv8-a", "native")


def host_architecture() -> str:
    """`x86-64` or `aarch64`. Raises UnsupportedError on another machine."""
    name = host().architecture.replace("_", "-")
    if name not in TRIPLES:
        raise UnsupportedError(
            f"libraries are not made for {name}", suggestion=f"name one of {', '.join(PROCESSORS)}"
        )
    return name


def find_processor(cpu: str | None = None, architecture: str | None = None) -> Processor:
    """The processor of a name, or the default one of an architecture, this machine's by default.

    `native` is this machine as it is, without dispatch. Raises UnsupportedError for a name that is
    none, and for one of another architecture than the one given.
    """
    if architecture is not None and architecture not in TRIPLES:
        raise UnsupportedError(
            f"unknown architecture {architecture!r}",
            suggestion=f"architectures: {', '.join(TRIPLES)}",
        )
    if cpu is None:
        cpu = DEFAULT_PROCESSORS[architecture or host_architecture()]
    if cpu not in PROCESSORS:
        near = get_close_matches(str(cpu), PROCESSORS, 1) if isinstance(cpu, str) else []
        hint = f"did you mean {near[0]}?" if near else f"processors: {', '.join(PROCESSORS)}"
        raise UnsupportedError(f"unknown processor {cpu!r}", suggestion=hint)
    found = _native() if cpu == "native" else _named(cpu)
    if architecture not in (None, found.architecture):
        raise UnsupportedError(
            f"the processor {cpu} is of the architecture {found.architecture}, not {architecture}"
        )
    return found


def _named(cpu: str) -> Processor:
    if cpu == "armv8-a":
        level = Level(cpu, baseline(TRIPLES["aarch64"]).features)
        return Processor(cpu, "aarch64", (level,))
    levels = _x86_levels()
    first = [level.name for level in levels].index(cpu)
    # v2 brings little to kernels: it is there for who asks for it
    kept = levels[first : first + 1] + tuple(x for x in levels[first + 1 :] if x.name[-1] != "2")
    return Processor(cpu, "x86-64", kept)


def _native() -> Processor:
    """This machine. Only features that the library can check are relied upon."""
    if host_architecture() != "x86-64":
        raise UnsupportedError(
            "native libraries are made on x86-64 only: elsewhere the features of a processor "
            "cannot be checked when the library is used",
            suggestion="cpu='armv8-a'",
        )
    least = baseline(TRIPLES["x86-64"]).features
    return Processor(
        "native", "x86-64", (Level("native", least | (host().features & BITS.keys())),)
    )
