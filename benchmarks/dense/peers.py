"""The libraries that we are compared with, and how each holds operands and runs a form.

Every side has its operands in a container of its own before the clock starts, over the same bytes
and in the same layout where the library can express it. All else is inside: casts, packing,
copies to contiguous memory, and waiting for the result. What filling the container costs is
timed apart (`hold`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.dense.case import Array, Case, Form
from benchmarks.dense.kernels import Kernels, aligned


@dataclass(frozen=True)
class Way:
    """A call that is ready to be timed. `out`: the array, there before, that it writes to."""

    label: str
    call: Callable[[], Any]
    out: Any = None
    checked: bool = True

    @property
    def into(self) -> bool:
        return self.out is not None


class Peer:
    """One library. `package`: the distribution; `module`: its import; `family`: whose forms."""

    name = "numpy"
    module = "numpy"
    package = "numpy"
    family = "numpy"
    is_library = True

    def __init__(self, threads: int) -> None:
        self.library = self.load(threads)

    @classmethod
    def missing(cls) -> str | None:
        """Why this peer cannot be run here; None if it can."""
        if find_spec(cls.module) is None:
            return f"{cls.package} is not installed"
        return None

    @classmethod
    def version(cls) -> str:
        try:
            return version(cls.package)
        except PackageNotFoundError:
            return "unknown"

    def load(self, threads: int) -> Any:
        return import_module(self.module)

    def hold(self, case: Case, bases: list[Array]) -> list[Any]:
        """The operands as this library holds them."""
        return list(case.arrays(bases))

    def fetch(self, value: Any) -> Any:
        """A result as a NumPy array."""
        return np.asarray(value)

    def function(self, form: Form, case: Case) -> Callable[..., Any]:
        return form.make(self.library)

    def empty(self, case: Case) -> Any:
        return case.empty()

    def has_form(self, case: Case) -> bool:
        """Whether there is anything to run on this case."""
        return bool(case.forms.get(self.family))

    def ways(self, case: Case, bases: list[Array]) -> list[Way]:
        """Every form of the case that this peer has, ready."""
        held = self.hold(case, bases)
        found = []
        for form in case.forms.get(self.family, ()):
            function = self.function(form, case)
            if form.into:
                out = self.empty(case)
                found.append(Way(form.label, partial(function, out, *held), out))
            else:
                found.append(Way(form.label, partial(function, *held)))
        return found


class OptEinsum(Peer):
    name = module = package = family = "opt_einsum"


class Numba(Peer):
    name = module = package = family = "numba"


class Torch(Peer):
    name = module = package = family = "torch"

    def load(self, threads: int) -> Any:
        torch = import_module("torch")
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        return torch

    def hold(self, case: Case, bases: list[Array]) -> list[Any]:
        return [self.library.from_numpy(array) for array in case.arrays(bases)]

    def fetch(self, value: Any) -> Any:
        return value.numpy() if hasattr(value, "numpy") else np.asarray(value)

    def empty(self, case: Case) -> Any:
        return self.library.from_numpy(case.empty())


class TorchCompile(Torch):
    name = "torch.compile"

    def ways(self, case: Case, bases: list[Array]) -> list[Way]:
        # Forms of all cases share their code, and after a few shapes of one code torch.compile
        # gives up and runs it uncompiled: each case starts afresh.
        self.library.compiler.reset()
        return super().ways(case, bases)

    def function(self, form: Form, case: Case) -> Callable[..., Any]:
        compiled: Callable[..., Any] = self.library.compile(form.make(self.library), dynamic=False)
        return compiled


class Jax(Peer):
    name = module = package = family = "jax"

    def load(self, threads: int) -> Any:
        jax = import_module("jax")
        jax.config.update("jax_enable_x64", True)
        return jax

    def hold(self, case: Case, bases: list[Array]) -> list[Any]:
        # A jax array has no strides: it holds the base, and the view is taken in the function.
        return [self.library.block_until_ready(self.library.numpy.asarray(b)) for b in bases]

    def function(self, form: Form, case: Case) -> Callable[..., Any]:
        made = form.make(self.library)
        if any(operand.is_view for operand in case.operands):
            whole = made

            def made(*bases: Any) -> Any:
                pairs = zip(case.operands, bases, strict=True)
                return whole(*[operand.view(base) for operand, base in pairs])

        compiled = self.library.jit(made)

        def finished(*held: Any) -> Any:
            return compiled(*held).block_until_ready()

        return finished


class Machine(Peer):
    """Not a library: what the processor can read, copy, multiply-add or do on tiles."""

    name = "machine"
    family = "machine"
    is_library = False
    module = package = "llvmlite"

    def load(self, threads: int) -> Any:
        return Kernels(threads)

    def has_form(self, case: Case) -> bool:
        return True  # if only our own call, which a bar in seconds needs

    def ways(self, case: Case, bases: list[Array]) -> list[Way]:
        limit = case.limit
        if limit is None:
            return []
        kernels: Kernels = self.library
        match limit.kind:
            case "read":
                found = [Way("read", kernels.reader(bases))]
            case "copy":
                source = bases[0]
                room = aligned(source.nbytes)
                target = room.view(source.dtype).reshape(source.shape)
                found = [
                    Way("copy", kernels.copier(source, room, "copy")),
                    Way("streaming copy", kernels.copier(source, room, "stream")),
                    Way("np.copyto", partial(np.copyto, target, source)),
                ]
                # Memory that is there already on both sides: fresh pages are not bandwidth.
                found = [Way(way.label, way.call, target) for way in found]
            case "fma":
                found = [Way("multiply-adds", kernels.multiplier(limit.amount, limit.dtype))]
            case _:
                found = [Way("bf16 tiles", kernels.tile_multiplier(limit.amount))]
        return [Way(way.label, way.call, way.out, checked=False) for way in found]


class Highest(Peer):
    """Not a library: our own call at the highest precision, for cases at a lower one."""

    name = "highest"
    family = "highest"
    is_library = False

    def has_form(self, case: Case) -> bool:
        return case.highest is not None

    def ways(self, case: Case, bases: list[Array]) -> list[Way]:
        assert case.highest is not None
        out = case.empty()
        return [Way("einloom at highest", case.highest(case.arrays(bases), out), out)]


PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (Peer, OptEinsum, Torch, TorchCompile, Jax, Numba)
}
OURSELVES: dict[str, type[Peer]] = {peer.name: peer for peer in (Machine, Highest)}
