"""The pass `simplify`: algebra, constants, copies, common statements and dead code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from einloom.ir.errors import PassError
from einloom.ir.expressions import Expression
from einloom.ir.program import Module
from einloom.ir.rewrite.driver import rewrite
from einloom.ir.rewrite.rule import Firing, Rule
from einloom.ir.rewrite.scope import expression_cost
from einloom.passes.base import Context, Pass, RuleFired


@dataclass(frozen=True)
class Simplify(Pass):
    """Rewrite a program with the laws of its algebra until nothing more can be done.

    Scalar expressions lose neutral elements, double signs, needless conversions and what can be
    computed now; folds over unused, single or empty ranks go; conditions that fix an index remove
    it (δ); copies and uniform tensors are read through; equal statements are computed once; what
    nobody reads is not computed. Each law is used only where the dtype has it, and under `strict`
    only where it holds bit for bit. Before: `B[i] = A[i] * 1.0 + 0.0; C[i] = sum[j, k] B[j]` with
    k of extent 3. After: `C[i] = sum[j] A[j] * 3`.

    Options: `max_firings` bounds the number of rewrites; what is reached then is still correct.
    `algebra`, `common` and `dead` switch off the rules on expressions and folds, the search for
    equal statements, and the removal of what is not read. `nesting` writes producers into their
    only readers (`nest`), or splits products under folds where that costs less (`denest`).

    Source: the laws of ir/ops.py; The Syntax and Semantics of einsum, arXiv 2509.20020.
    """

    name: ClassVar[str] = "simplify"
    assumes: ClassVar[tuple[str, ...]] = (
        "factors next to a zero, and terms that cancel, are finite",
        "what max and min absorb is not NaN",
        "sums and products of floats may be reassociated",
    )

    max_firings: int = 1_000_000
    algebra: bool = True
    common: bool = True
    dead: bool = True
    nesting: Literal["keep", "nest", "denest"] = "keep"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_firings < 0:
            raise PassError(
                f"option max_firings of simplify is {self.max_firings}; it cannot be negative"
            )

    def rules(self) -> tuple[Rule, ...]:
        """The rules that these options choose, in the order in which they are tried."""
        from einloom.ir import rules as lists

        chosen: list[Rule] = []
        if self.dead:
            chosen += lists.DEAD_RULES
        if self.algebra:
            chosen += (*lists.SCALAR_RULES, *lists.EINSUM_RULES)
        if self.common:
            chosen += lists.COMMON_RULES
        if self.nesting == "nest":
            chosen += lists.NEST_RULES
        elif self.nesting == "denest":
            chosen += lists.DENEST_RULES
        return tuple(chosen)

    def run(self, module: Module, context: Context) -> Module:
        """The simplified module; its inputs, results and their types stay."""

        def on_firing(firing: Firing) -> None:
            context.emit(
                RuleFired(
                    self.name,
                    firing.rule,
                    firing.statement,
                    firing.before,
                    firing.after,
                    firing.location,
                )
            )

        done = rewrite(
            module,
            self.rules(),
            strict=context.strict,
            assume_no_overflow=context.assume_no_overflow,
            cost=_cost(context),
            hints=context.extents,
            max_firings=self.max_firings,
            on_firing=on_firing if context.listeners else None,
            note=lambda subject, text: context.note(self.name, subject, text),
        )
        if done.exhausted:
            context.note(
                self.name, module.name, f"stopped after {self.max_firings} rewrites (max_firings)"
            )
        return done.module


def _cost(context: Context) -> Callable[[Expression], float]:
    """What an expression costs, by the cost model where it has an opinion."""
    of_model = getattr(context.cost_model, "expression_cost", None)
    return of_model if callable(of_model) else expression_cost
