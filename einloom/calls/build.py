"""From a call of `einsum` to the plan that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from einloom.backends.cpu.addresses import address_of
from einloom.cache import memory_cache
from einloom.calls.operands import ir_dtype
from einloom.calls.plan import Copy, DiagonalPlan, KernelPlan, Plan, ViewPlan, Writing
from einloom.calls.request import Request, check_path
from einloom.calls.variants import Family, FamilyKey, Layouts, copies_needed
from einloom.frontend.einsum.memory_order import result_order
from einloom.frontend.einsum.program import RESULT, canonical, operand_name
from einloom.frontend.einsum.semiring import SUM_PRODUCT
from einloom.frontend.einsum.spec import Binding, Spec
from einloom.frontend.einsum.views import is_view, view_of
from einloom.ir.errors import DTypeError, ShapeError
from einloom.ir.promotion import from_numpy, numpy_dtype, promote_all
from einloom.ir.record import record
from einloom.ir.types import Scalar
from einloom.kernels import LayoutClass, layout_of

Array = np.ndarray[Any, Any]

MOST_FACTORS = 16
"""Beyond this many operands a contraction runs step by step, through the plans of its steps."""


@record
class Operand:
    """All of an array but its memory; shape and strides are those that kernels see."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    aligned: bool

    @staticmethod
    def of(array: Array) -> Operand:
        bits = address_of(array)
        for extent, stride in zip(array.shape, array.strides, strict=True):
            if extent > 1:
                bits |= stride
        aligned = not bits & (array.dtype.alignment - 1)
        return Operand(array.dtype, array.shape, array.strides, aligned)

    @staticmethod
    def contiguous(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Operand:
        """A fresh array in C order."""
        strides: list[int] = []
        step = dtype.itemsize
        for extent in reversed(shape):
            strides.append(step)
            step *= max(1, extent)
        return Operand(dtype, shape, tuple(reversed(strides)), True)

    @property
    def mask(self) -> int:
        """The bits of an address that must be 0."""
        return self.dtype.alignment - 1 if self.aligned else 0

    @property
    def layout(self) -> LayoutClass:
        """What kernels are specialised on: see `einloom.kernels.layout_of`."""
        return layout_of(self.shape, self.strides, self.dtype.itemsize, self.aligned)

    @property
    def order(self) -> tuple[int, ...] | None:
        """The order of ranks that puts one of unit stride last; None where nothing is gained."""
        rank = len(self.shape)
        item = self.dtype.itemsize
        if rank < 2 or self.shape[-1] == 1 or self.strides[-1] == item:
            return None
        units = [k for k in range(rank) if self.strides[k] == item and self.shape[k] > 1]
        if not units:
            return None
        return (*(k for k in range(rank) if k != units[0]), units[0])

    def permuted(self, order: Sequence[int] | None) -> Operand:
        if order is None:
            return self
        shape, strides = (tuple(x[k] for k in order) for x in (self.shape, self.strides))
        return replace(self, shape=shape, strides=strides)

    def stretched(self, shape: tuple[int, ...]) -> Operand:
        """Repeated along ranks of extent 1 to another shape."""
        if shape == self.shape:
            return self
        pairs = zip(self.shape, shape, self.strides, strict=True)
        return replace(self, shape=shape, strides=tuple(s if a == b else 0 for a, b, s in pairs))


def build_plan(spec: Spec, arrays: Sequence[Array], out: Array | None, request: Request) -> Plan:
    """The plan of a call. Raises ShapeError or DTypeError where operands or `out` do not fit."""
    binding = spec.bind([array.shape for array in arrays])
    if out is not None and out.shape != binding.shape:
        raise ShapeError(
            f"out has shape {out.shape}, the result {binding.shape}",
            location=spec.location(None),
            suggestion="out is not broadcast: pass an array of the result's shape",
        )
    if request.path is not None:
        check_path(request.path, len(arrays))
    dtypes = [ir_dtype(array.dtype, f"operand {k}") for k, array in enumerate(arrays)]
    common = common_dtype(dtypes, [array.dtype for array in arrays], request)
    if out is None and request.semiring == SUM_PRODUCT and common == dtypes[0]:
        plan = view_plan(binding.spec, arrays, request)
        if plan is not None:
            return plan
    operands = [Operand.of(array) for array in arrays]
    bound = replace(binding, spec=canonical(binding.spec))
    bound = replace(bound, extents=dict(zip(bound.spec.labels, _extents(binding), strict=True)))
    order = order_of(bound, operands, request.order, out)
    if len(operands) > MOST_FACTORS:
        from einloom.calls.steps import steps_plan

        found = steps_plan(bound, operands, dtypes, common, order, request, out)
        if found is not None:
            return found
    return kernel_plan(bound, operands, dtypes, common, order, request, out)


def _extents(binding: Binding) -> list[int]:
    return [binding.extents[label] for label in binding.spec.labels]


def common_dtype(
    dtypes: Sequence[Scalar], given: Sequence[np.dtype[Any]], request: Request
) -> Scalar:
    """The dtype that operands are converted to. Raises DTypeError where `casting` forbids it."""
    common = promote_all(dtypes) if request.dtype is None else from_numpy(request.dtype)
    assert isinstance(common, Scalar)
    # Promotion converts safely; only a dtype that was asked for, or a strict rule, can fail.
    if request.dtype is not None or request.casting in ("no", "equiv"):
        for position, dtype in enumerate(given):
            if not np.can_cast(dtype, numpy_dtype(common), request.casting):  # type: ignore[arg-type]
                raise DTypeError(
                    f"operand {position} is {dtype}, which casting {request.casting!r} does not "
                    f"convert to {numpy_dtype(common)}",
                    suggestion=f"convert it, .astype('{numpy_dtype(common)}'), or pass "
                    "casting='unsafe'",
                )
    return common


def view_plan(spec: Spec, arrays: Sequence[Array], request: Request) -> Plan | None:
    """The plan for a result that is a view of its one operand, unless `order` asks for a copy."""
    if not is_view(spec):
        return None
    (labels,) = spec.inputs
    view = view_of(arrays[0], labels, spec.output)
    flags = {"C": view.flags.c_contiguous, "F": view.flags.f_contiguous}
    if not flags.get(request.order, True):
        return None
    if len(labels) == len(spec.output):
        return ViewPlan(tuple(labels.index(label) for label in spec.output))
    return DiagonalPlan(labels, spec.output)


def order_of(
    binding: Binding, operands: Sequence[Operand], order: str, out: Array | None
) -> tuple[int, ...]:
    """How the ranks of the result lie in memory: as `out` has them, or as `order` says."""
    if out is not None:
        return contiguous_order(out) or tuple(range(out.ndim))
    strides = [operand.strides for operand in operands]
    fortran = all(_is_fortran(operand) for operand in operands)
    return result_order(order, binding.spec, strides, fortran)


def _is_fortran(operand: Operand) -> bool:
    step = operand.dtype.itemsize
    for extent, stride in zip(operand.shape, operand.strides, strict=True):
        if extent != 1 and stride != step and 0 not in operand.shape:
            return False
        step *= extent
    return True


def contiguous_order(array: Array) -> tuple[int, ...] | None:
    """The order of ranks in which an array is contiguous, outermost first, or None."""
    ranks = sorted(range(array.ndim), key=lambda k: -array.strides[k] if array.shape[k] > 1 else 0)
    ones = [k for k in ranks if array.shape[k] <= 1]
    order = ones + [k for k in ranks if array.shape[k] > 1]
    return tuple(order) if array.transpose(order).flags.c_contiguous else None


def kernel_plan(
    binding: Binding,
    operands: Sequence[Operand],
    dtypes: Sequence[Scalar],
    common: Scalar,
    order: tuple[int, ...],
    request: Request,
    out: Array | None,
) -> KernelPlan:
    """The plan for kernels that compute a canonical spec in one go."""
    spec = binding.spec
    orders = tuple(operand.order for operand in operands)
    natural = tuple(x.permuted(o).layout[:2] for x, o in zip(operands, orders, strict=True))
    key = FamilyKey(
        spec, tuple(dtypes), common, order, orders, natural,
        replace(request, dtype=None, order="K", casting="safe", optimizes=False),
    )  # fmt: skip
    family: Family = memory_cache().get_or_build(("einsum", key), lambda: Family(key))
    shapes = [tuple(binding.extents[label] for label in labels) for labels in spec.inputs]
    seen = [
        x.stretched(shape).permuted(o) for x, shape, o in zip(operands, shapes, orders, strict=True)
    ]
    layouts: Layouts = tuple(operand.layout for operand in seen)
    variant = family.variant(binding.extents, layouts)
    copies = {
        k: Copy(shapes[k], orders[k] or tuple(range(len(shapes[k]))))
        for k in copies_needed(variant, layouts)
    }
    for k, copy in copies.items():
        seen[k] = Operand.contiguous(operands[k].dtype, tuple(copy.shape[r] for r in copy.order))
    symbols = {family.symbols[label]: extent for label, extent in binding.extents.items()}
    named: Any = {operand_name(k): operand for k, operand in enumerate(seen)}
    prepared = variant.kernels.prepare(named, symbols)
    writing = None if out is None else writing_to(out, family.dtype, order, request, len(operands))
    if writing is not None and variant.kernels.can_fault:
        writing = Writing(False, writing.exact)
    masks = [operand.mask for operand in seen]
    return KernelPlan(prepared, masks, order, RESULT, copies, writing)


def writing_to(
    out: Array, dtype: np.dtype[Any], order: tuple[int, ...], request: Request, operands: int
) -> Writing:
    """How results of `dtype` get into `out`. Raises DTypeError where `casting` forbids it.

    NumPy's optimised paths write into an `out` of any dtype; here they do where no value changes.
    """
    exact = False
    if not np.can_cast(dtype, out.dtype, request.casting):  # type: ignore[arg-type]
        exact = request.optimizes and operands > 1 and request.casting == "safe"
        if not exact:
            raise DTypeError(
                f"the result is {dtype}, which casting {request.casting!r} does not convert to "
                f"out's {out.dtype}",
                suggestion=f"pass an out of dtype {dtype}, or casting='unsafe'",
            )
    return Writing(out.dtype == dtype and contiguous_order(out) == order, exact)
