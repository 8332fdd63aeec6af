"""What `einsum` keeps of a call: a plan for arrays of the same dtypes, shapes and strides.

A plan holds no array. Running one costs a native call and little else, because all that follows
from dtypes, shapes and strides was worked out when it was made.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from einloom.backends.cpu.addresses import address_of
from einloom.backends.cpu.launcher import IndexFault
from einloom.ir.errors import BackendError, DTypeError, EinloomError
from einloom.ir.record import record
from einloom.kernels import kernel_pool, threads_to_use

if TYPE_CHECKING:
    from einloom.backends.cpu.launcher import Prepared

Array = np.ndarray[Any, Any]

MISALIGNED = object()
"""What a plan returns, having done nothing, for an array that is not aligned as it assumes."""

_Fault = ctypes.c_int64 * 2
_empty = np.empty
_may_share_memory = np.may_share_memory


class Plan(Protocol):
    """A call of `einsum` that can be repeated on arrays of one signature."""

    def run(self, arrays: Sequence[Array], out: Array | None) -> Any:
        """The result as `einsum` returns it, `MISALIGNED`, or `out`."""


class ViewPlan:
    """The result is the operand with its ranks rearranged."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def run(self, arrays: Sequence[Array], out: Array | None) -> Any:
        view = arrays[0].transpose(self.axes)
        return view if view.ndim else view[()]


class DiagonalPlan:
    """The result is a diagonal of the operand."""

    def __init__(self, labels: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        self.labels = labels
        self.output = output

    def run(self, arrays: Sequence[Array], out: Array | None) -> Any:
        from einloom.frontend.einsum.views import view_of

        return view_of(arrays[0], self.labels, self.output)


class Writing:
    """How a result gets into `out`.

    `direct`: `out` has the dtype of the result and is contiguous in its order of ranks, so that
    kernels may write there where no operand is. Else the result is converted and copied; `exact`
    refuses a conversion that changes a value.
    """

    def __init__(self, direct: bool, exact: bool) -> None:
        self.direct = direct
        self.exact = exact

    def copy(self, result: Array, out: Array) -> None:
        if self.exact:
            with np.errstate(all="ignore"):
                converted = result.astype(out.dtype)
                same = (converted == result) | ((converted != converted) & (result != result))
            if not same.all():
                raise DTypeError(
                    f"the result is {result.dtype} and does not fit out, which is {out.dtype}",
                    suggestion="pass casting='unsafe' to convert it nevertheless",
                )
            result = converted
        np.copyto(out, result, casting="unsafe")


@record
class Copy:
    """An operand to be copied: broadcast to `shape`, then contiguous with its ranks in `order`."""

    shape: tuple[int, ...]
    order: tuple[int, ...]

    def of(self, array: Array) -> Array:
        copy = np.ascontiguousarray(np.broadcast_to(array, self.shape).transpose(self.order))
        return copy if copy.flags.aligned else copy.copy()


class KernelPlan:
    """The result is computed by native code.

    `prepared` runs on the operands in order. `masks`: for each operand, the bits of its address
    that must be 0. `order`: rank k of what the kernels store is rank `order[k]` of the result.
    `copies`: operands to be copied first.
    """

    def __init__(
        self,
        prepared: Prepared,
        masks: Sequence[int],
        order: tuple[int, ...],
        result: str,
        copies: Mapping[int, Copy],
        writing: Writing | None,
    ) -> None:
        self.prepared = prepared
        self.masks = tuple(masks)
        self.copies = copies
        self.writing = writing
        self.storages = [(s.shape, s.dtype) for s in prepared.storages]
        self.result = [s.name for s in prepared.storages].index(result)
        self.shape, self.dtype = self.storages[self.result]
        self.order = order
        self.back = None if order == tuple(range(len(order))) else inverse(order)
        self.alignment = self.dtype.alignment - 1
        self.function: Any = None
        self._shorten()

    def _shorten(self) -> None:
        """Prepare the short way, for one native call on the calling thread."""
        (call, *more) = self.prepared.calls
        if more or len(self.storages) > 1 or any(offset for _, offset in call.offsets):
            return
        if call.is_wide:
            return
        self.function = call.function
        self.pack = struct.Struct(f"{len(call.offsets)}P").pack
        places = [position for position, _ in call.offsets]
        self.places = None if places == list(range(len(self.masks) + 1)) else places
        self.parameters = ctypes.addressof(call.parameters)  # `prepared` keeps them
        self.slices = call.slices

    def run(self, arrays: Sequence[Array], out: Array | None) -> Any:
        if self.copies:
            arrays = self.copied(arrays)
        addresses = []
        for array, mask in zip(arrays, self.masks, strict=True):
            address = address_of(array)
            if address & mask:
                return MISALIGNED
            addresses.append(address)
        if out is None:
            result = _empty(self.shape, self.dtype)
            self.compute(addresses, result)
            if self.back is not None:
                return result.transpose(self.back)
            return result if self.shape else result[()]
        assert self.writing is not None
        direct = self.writing.direct and not address_of(out) & self.alignment
        if direct and not any(_may_share_memory(out, array) for array in arrays):
            self.compute(addresses, out)
            return out
        result = _empty(self.shape, self.dtype)
        self.compute(addresses, result)
        self.writing.copy(result if self.back is None else result.transpose(self.back), out)
        return out

    def compute(self, addresses: list[int], result: Array) -> None:
        """Run the kernels on operands at these addresses."""
        function = self.function
        if function is None:
            self.launch(addresses, result)
            return
        addresses.append(address_of(result))
        if self.places is not None:
            addresses = [addresses[place] for place in self.places]
        fault = _Fault()
        status = function(self.pack(*addresses), self.parameters, 0, self.slices, fault)
        if status:
            raise self.failure(status, fault[0], fault[1])

    def failure(self, status: int, value: int, limit: int) -> EinloomError:
        """What a kernel's status says: negative for memory, else the number of a check."""
        if status < 0:
            return BackendError("out of memory for a kernel's workspace")
        (call,) = self.prepared.calls
        return IndexFault(call.name, status, call.faults[status - 1], value, limit)

    def launch(self, addresses: list[int], result: Array) -> None:
        """The long way: intermediates are allocated, and wide loops are shared out to threads."""
        storages = [
            result if k == self.result else _empty(shape, dtype)
            for k, (shape, dtype) in enumerate(self.storages)
        ]
        addresses += [address_of(storage) for storage in storages]
        pool = kernel_pool()
        self.prepared.run_at(addresses, pool, threads_to_use(pool.num_threads))

    def copied(self, arrays: Sequence[Array]) -> list[Array]:
        copies = self.copies
        return [copies[k].of(array) if k in copies else array for k, array in enumerate(arrays)]


def inverse(order: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes another."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))
