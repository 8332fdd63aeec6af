"""Calls that were made before, run without Python code: what is remembered of them, and when.

A call runs through Python some times first. Then it is written down as a known call, which the
entry of `backends.cpu.entry` finds by its operands' dtypes, extents and strides, and runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from einloom.backends.cpu.entry.known import (
    MISSED,
    Known,
    Returned,
    can_be_known,
    insert,
    known_call,
    new_table,
)
from einloom.cache import disk_cache, plan_cache
from einloom.calls.plan import KernelPlan, Plan
from einloom.calls.shared import SharedCall, Signature, signature_of
from einloom.ir.errors import EinloomError
from einloom.ir.types import Scalar
from einloom.options import CURRENT, DEFAULT, current

if TYPE_CHECKING:
    from einloom.executable import Executable

Array = np.ndarray[Any, Any]

RUNS = 3
"""How often a call runs through Python before it is written down."""
OFFERS = 16
"""How often any such call is repeated before the entries are loaded, or compiled: it takes some
milliseconds, which a process that calls little should not pay."""
SLOTS = 32
"""Slots of the table of one executable."""
MOST_SIGNATURES = 256


def _nothing_known(*arguments: Any) -> Any:
    return MISSED


class NativeCalls:
    """The entries, once they are loaded; until then, and where they cannot be, they know nothing.

    `einsum(arguments, out, *options)` and `executable(table, operands, out)` return what the call
    returns, or `MISSED`.
    """

    __slots__ = ("_loading", "_offers", "_settled", "einsum", "executable")

    def __init__(self) -> None:
        self.einsum: Callable[..., Any] = _nothing_known
        self.executable: Callable[..., Any] = _nothing_known
        self._offers = 0
        self._settled = False
        self._loading = threading.Lock()

    @property
    def loaded(self) -> bool:
        """Whether calls may be written down."""
        return self.einsum is not _nothing_known

    def wanted(self) -> bool:
        """The same, for a call that is repeated; enough of them load the entries."""
        if self._settled:
            return self.loaded
        self._offers += 1
        # A thread that finds the lock taken goes on without; so does a child that was forked
        # while its parent held it.
        if self._offers >= OFFERS and self._loading.acquire(blocking=False):
            self.load()
        return self.loaded

    def load(self) -> None:
        """Load the entries now. Where that fails, calls go through Python for good."""
        self._settled = True
        try:
            found = _entries()
        except EinloomError:
            return
        if found is not None:
            self.executable, self.einsum = found


def _entries() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """The entries from the disk cache, or compiled now; None where there can be none."""
    from einloom.backends.cpu import compile as cpu
    from einloom.backends.cpu.entry.functions import Usual, load_entries, object_code
    from einloom.backends.cpu.entry.layout import object_layout
    from einloom.calls.einsum import einsum
    from einloom.source_fingerprint import source_fingerprint

    layout = object_layout()
    if layout is None:
        return None
    disk = disk_cache()
    parts = ("entries", repr(layout), cpu.fingerprint(), source_fingerprint())
    key = b"\0".join(part.encode() for part in parts)
    code = disk.get(key) if disk is not None else None
    if code is None:
        code = object_code(layout)
        if disk is not None:
            disk.put(key, code)
    usual = Usual(usual_options(einsum), CURRENT, DEFAULT)
    found = load_entries(code, plan_cache().calls, usual)
    return None if found is None else (found.executable, found.einsum)


def usual_options(function: Callable[..., Any]) -> tuple[Any, ...]:
    """The defaults of keyword arguments but `out`, in the order in which an entry takes them."""
    defaults: dict[str, Any] = getattr(function, "__kwdefaults__", None) or {}
    return tuple(value for name, value in defaults.items() if name != "out")


_native = NativeCalls()


def native_calls() -> NativeCalls:
    """The entries of this process."""
    return _native


class Remembered:
    """A plan under the key of a call of `einsum`: how often it ran, and what is known of the call.

    `spec` is None for a call that the entry does not take: of lists, or with unusual options.
    """

    __slots__ = ("known", "plan", "runs", "spec")

    def __init__(self, plan: Plan, spec: str | None) -> None:
        self.plan = plan
        self.spec = spec if isinstance(plan, KernelPlan) else None
        self.runs = 1
        self.known: Known | None = None

    def ran(self, arrays: Sequence[Array], out: Array | None) -> None:
        """Count a run through Python; after enough of them, later ones go without it."""
        self.runs += 1
        if self.spec is None or self.runs < RUNS or not _native.wanted():
            return
        if current() is not DEFAULT:  # the key has no part in most options
            return
        if self.known is None:
            assert isinstance(self.plan, KernelPlan)
            self.known = known_of_plan(self.plan, self.spec, arrays, out)
            if self.known is None:
                self.spec = None
                return
        insert(plan_cache().calls, self.known)


def known_of_plan(
    plan: KernelPlan, spec: str, arrays: Sequence[Array], out: Array | None
) -> Known | None:
    """A call of `einsum` as a known call; None where Python has to take part."""
    if plan.copies or (out is not None and (plan.writing is None or not plan.writing.direct)):
        return None
    name = plan.prepared.storages[plan.result].name
    order = None if plan.back is None else plan.order
    returned = [Returned(name, order, as_scalar=not plan.shape)]
    if not can_be_known(plan.prepared, returned, out is not None):
        return None
    return known_call(spec, arrays, plan.masks, plan.prepared, returned, out=out)


class RepeatedCalls:
    """The calls of one executable: their table, and what was seen of each signature."""

    def __init__(self) -> None:
        self.table = new_table(SLOTS)
        self._seen: dict[Signature, int | Known | None] = {}
        self._shared: dict[Signature, SharedCall] = {}

    def recall(self, arrays: Sequence[Any], out: Any) -> Any:
        """The results of a call that threads share, or `MISSED`."""
        if not self._shared:
            return MISSED
        signature = signature_of(arrays, out)
        call = None if signature is None else self._shared.get(signature)
        return MISSED if call is None else call.run(arrays, out)

    def ran(self, executable: Executable, arrays: Sequence[Any], out: Any) -> None:
        """Count a run through Python; after enough of them, later ones go without most of it."""
        signature = signature_of(arrays, out)
        if signature is None:
            return
        if len(self._seen) > MOST_SIGNATURES:
            self._seen.clear()
            self._shared.clear()
        seen = self._seen.get(signature, 0)
        if isinstance(seen, int):
            self._seen[signature] = seen + 1
            if seen + 1 < RUNS or not _native.wanted():
                return
            found = repeated_call(executable, arrays, out)
            if isinstance(found, SharedCall):
                self._shared[signature] = found
            seen = self._seen[signature] = None if isinstance(found, SharedCall) else found
        if seen is not None:
            insert(self.table, seen)


def repeated_call(
    executable: Executable, arrays: Sequence[Array], out: Array | None
) -> Known | SharedCall | None:
    """What is kept of a call of an executable; None where each has to be checked whole."""
    module = executable.module
    for item, array in zip(module.inputs, arrays, strict=True):
        if item.type is None or not isinstance(item.type.dtype, Scalar):
            return None
        if not array.flags.aligned:
            return None
    tensors, symbols = executable.tensors(dict(zip(executable.inputs, arrays, strict=True)))
    if not all(tensors.get(x.name) is a for x, a in zip(module.inputs, arrays, strict=True)):
        return None  # an array was converted
    prepared = executable.prepared(tensors, symbols)
    returned = [Returned(name) for name in module.outputs]
    shared = any(call.is_wide for call in prepared.calls)
    if not shared and not can_be_known(prepared, returned, out is not None):
        return None
    stored = {storage.name for storage in prepared.storages}
    names = set(module.outputs)
    apart = len(names) == len(module.outputs) and names <= stored
    if shared and (prepared.kernels.can_fault or not apart):
        return None
    if out is not None:
        if len(module.outputs) != 1:
            return None
        (result,) = (s for s in prepared.storages if s.name == module.outputs[0])
        fits = out.dtype == result.dtype and out.shape == result.shape
        if not (fits and out.flags.c_contiguous and out.flags.aligned):
            return None
    constants = [tensors[name] for name in prepared.inputs[len(arrays) :]]
    if shared:
        return SharedCall(prepared, module.outputs, constants)
    masks = [array.dtype.alignment - 1 for array in arrays]
    return known_call(None, arrays, masks, prepared, returned, out=out, constants=constants)
