"""Compiled forms of one spec: at most three, whatever sizes its operands come in.

A spec of several operands is compiled for the contraction that suits the sizes of a call. Once
three programs exist, later calls run the one that the cost model rates best for their sizes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from einloom.api import compile_module, contract_options, new_context
from einloom.calls.request import Request
from einloom.frontend.einsum.program import RESULT, operand_name, symbol_names, to_module
from einloom.frontend.einsum.semiring import SUM_PRODUCT
from einloom.frontend.einsum.spec import Label, Spec
from einloom.ir.machine import SMALLEST, SMALLEST_COPY
from einloom.ir.promotion import numpy_dtype
from einloom.ir.record import record
from einloom.ir.types import Scalar
from einloom.kernels import Blockings, LayoutClass, blockings_for, kernels_for, unlike

if TYPE_CHECKING:
    from einloom.backends.cpu.launcher import Kernels
    from einloom.ir.program import Module
    from einloom.passes.contraction.choose import Choice
    from einloom.passes.contraction.network import Network
    from einloom.passes.contraction.recognize import Contraction

MOST_VARIANTS = 3

Layouts = tuple[LayoutClass, ...]


@record
class FamilyKey:
    """What all forms have in common. `spec` is canonical; `common` is the dtype computed in."""

    spec: Spec
    dtypes: tuple[Scalar, ...]
    common: Scalar
    order: tuple[int, ...]
    operand_orders: tuple[tuple[int, ...] | None, ...]
    layouts: tuple[tuple[tuple[int | None, ...], bool], ...]
    request: Request


@record
class Variant:
    """One compiled form: how it contracts (None: one loop nest), the layouts it takes, and how
    its large products are cut."""

    choice: Choice | None
    layouts: Layouts
    blockings: Blockings
    kernels: Kernels

    @property
    def contraction(self) -> object:
        return contraction_of(self.choice)


class Family:
    """The compiled forms of one key."""

    def __init__(self, key: FamilyKey) -> None:
        self.key = key
        self.symbols = symbol_names(key.spec)
        self._variants: list[Variant] = []
        self._modules: dict[object, Module] = {}
        self._lock = threading.Lock()

    @cached_property
    def module(self) -> Module:
        """The program of the spec, before any pass."""
        key = self.key
        module = to_module(
            key.spec,
            key.dtypes,
            semiring=key.request.semiring,
            dtype=key.common,
            order=key.order,
            operand_orders=key.operand_orders,
        )
        if key.request.semiring.definitions:
            from einloom.ir.verify import verify

            verify(module)
        return module

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the result."""
        if self.key.request.semiring == SUM_PRODUCT:
            return numpy_dtype(self.key.common)
        from einloom.ir.infer import infer

        return numpy_dtype(infer(self.module).tensors[RESULT].dtype)

    @cached_property
    def is_single_nest(self) -> bool:
        """Whether no pass has anything to do: at most two operands that share all that is folded.

        Such a program is lowered as it is, which spares a first call the import of all passes.
        """
        spec = self.key.spec
        if len(spec.inputs) > 2 or self.key.request.semiring.definitions:
            return False
        folded = set(spec.labels) - set(spec.output)
        return all(folded <= set(labels) for labels in spec.inputs)

    @cached_property
    def contraction(self) -> Contraction | None:
        return None if self.is_single_nest else recognized(self.module, self.key.request)

    def variant(self, extents: dict[Label, int], layouts: Layouts) -> Variant:
        """The form to run for these sizes; it may take more general layouts than asked for.

        Where three forms exist and none of them takes these layouts, the layouts of the form
        returned differ, and operands have to be copied to fit them.
        """
        sizes = {self.symbols[label]: extent for label, extent in extents.items()}
        with self._lock:
            full = len(self._variants) >= MOST_VARIANTS and not self.is_limited
            choice = self.choice(sizes)
            wanted = contraction_of(choice)
            if full and not self.is_single_nest and wanted not in self._modules:
                return self._best(sizes, layouts, None)
            module = self._compiled(sizes, wanted)
            named = {operand_name(k): layout for k, layout in enumerate(layouts)}
            strict = self.key.request.strict
            blockings: Blockings = ()
            if not self.is_small(sizes):
                blockings = blockings_for(module, named, strict, sizes, self.key.request.rounding)
            for variant in self._variants:
                if (variant.contraction, variant.layouts, variant.blockings) == (
                    wanted, layouts, blockings,
                ):  # fmt: skip
                    return variant
            if full:
                return self._best(sizes, layouts, blockings)
            kernels = kernels_for(module, named, strict, blockings)
            variant = Variant(choice, layouts, blockings, kernels)
            self._variants.append(variant)
            return variant

    def is_small(self, sizes: dict[str, int]) -> bool:
        """Whether nothing is worth cutting, which is known here without a look at the program."""
        spec = self.key.spec
        product = len(spec.inputs) == 2 and len(set(spec.output)) < len(spec.labels)
        return prod(sizes.values()) < (SMALLEST if product else SMALLEST_COPY)

    @property
    def is_limited(self) -> bool:
        """Whether memory is limited, so that a form for other sizes might need too much."""
        return self.key.request.memory_limit is not None

    def choice(self, sizes: dict[str, int]) -> Choice | None:
        """How the contraction is split for sizes of the symbols; None where there is nothing to."""
        if self.contraction is None:
            return None
        return chosen(self.contraction, sizes, self.key.request)

    def _best(
        self, sizes: dict[str, int], layouts: Layouts, blockings: Blockings | None
    ) -> Variant:
        """The form that is fastest by the cost model; forms that need copies come last.

        Of forms that contract alike, the one that cuts as `blockings` do, or cuts the same tensors.
        """

        def rating(variant: Variant) -> tuple[bool, float, int]:
            needs_copies = any(map(_is_narrower, variant.layouts, layouts))
            return needs_copies, self._seconds(variant, sizes), unlike(variant.blockings, blockings)

        return min(self._variants, key=rating)

    def _seconds(self, variant: Variant, sizes: dict[str, int]) -> float:
        from einloom.passes.contraction.cost import Plan, measured
        from einloom.passes.contraction.network import Tree

        if variant.choice is None or self.contraction is None:
            return 0.0
        network = sized(self.contraction, sizes)
        plan = variant.choice.plan
        tree = Tree(network, plan.tree.steps)
        moved = Plan(network, tree, plan.finder, plan.sliced)
        model = new_context(self.key.request.strict, sizes).cost_model
        return measured(moved, self.contraction.dtype, model).seconds

    def _compiled(self, sizes: dict[str, int], wanted: object) -> Module:
        """The program after the passes, for a way to contract that suits some sizes."""
        if self.is_single_nest:
            return self.module
        if wanted not in self._modules:
            request = self.key.request
            self._modules[wanted] = compile_module(
                self.module,
                strict=request.strict,
                extents=sizes,
                optimize=request.contraction,
                memory_limit=request.memory_limit,
            ).module
        return self._modules[wanted]


def _is_narrower(compiled: LayoutClass, given: LayoutClass) -> bool:
    """Whether code for one layout relies on more than another layout has."""
    strides = any(c is not None and c != g for c, g in zip(compiled[0], given[0], strict=True))
    merged = any(c and not g for c, g in zip(compiled[2], given[2], strict=True))
    return strides or merged or (compiled[1] and not given[1])


def copies_needed(variant: Variant, layouts: Layouts) -> tuple[int, ...]:
    """The operands that have to be copied so that this form can run on them."""
    pairs = enumerate(zip(variant.layouts, layouts, strict=True))
    return tuple(k for k, (compiled, given) in pairs if _is_narrower(compiled, given))


def recognized(module: Any, request: Request) -> Contraction | None:
    """The network of factors that a one-statement program is, where it can be split."""
    from einloom.ir.infer import infer
    from einloom.passes.contraction.recognize import Contraction, Recognizer

    context = new_context(request.strict, {})
    found = Recognizer(module, infer(module), context).read(module.body[0])
    return found if isinstance(found, Contraction) else None


def sized(contraction: Contraction, sizes: dict[str, int]) -> Network:
    """The network of a contraction with the sizes of a call."""
    from einloom.ir import extents as ext

    known = {k: ext.evaluate(extent, sizes) for k, extent in enumerate(contraction.extents)}
    return replace(contraction.network, sizes=known)


def chosen(contraction: Contraction, sizes: dict[str, int], request: Request) -> Choice:
    """The plan that the pass `contract` takes for these sizes."""
    from einloom.passes.contract import Contract

    options = contract_options(request.contraction, request.memory_limit)
    context = new_context(request.strict, sizes)
    now = replace(contraction, network=sized(contraction, sizes))
    return Contract(**options).choice(now, context)


def contraction_of(choice: Choice | None) -> object:
    """What tells two plans apart, apart from sizes."""
    if choice is None:
        return None
    steps: Sequence[Any] = choice.plan.tree.steps
    return tuple((s.operands, s.kept, s.reduced) for s in steps), choice.plan.sliced
