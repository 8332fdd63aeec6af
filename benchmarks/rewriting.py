"""How long rewriting takes: all rules over a cascade of 10,000 statements. The bar is 5 s.

    python -m benchmarks rewriting [--json FILE]

The cascade mixes chains of elementwise statements with neutral elements, small products under
sums, copies, equal statements and unread ones, so that many rules look and many fire.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

from einloom.ir.expressions import Access, Expression, Index, Literal
from einloom.ir.infer import infer
from einloom.ir.ops import apply
from einloom.ir.program import Einsum, Input, Module, Reduction, Target
from einloom.ir.rewrite import rewrite
from einloom.ir.rules import COMMON_RULES, DEAD_RULES, EINSUM_RULES, SCALAR_RULES
from einloom.ir.types import Rank, TensorType, f64

BAR_SECONDS = 5.0
STATEMENTS = 10_000


def cascade(statements: int) -> Module:
    """A program of that many statements over two square inputs."""
    i, j, k = Index("i"), Index("j"), Index("k")
    type_ = TensorType(f64, (Rank("i", Literal(8)), Rank("j", Literal(8))))
    last = "A"
    body: list[Einsum] = []
    for number in range(statements):
        name = f"T{number}"
        value: Expression
        reductions: tuple[Reduction, ...] = ()
        match number % 8:
            case 0:
                value = apply("add", apply("mul", Access(last, (i, j)), Literal(1.0)), Literal(0.0))
            case 1:
                value = Access(last, (i, j))
            case 2:
                value = apply("mul", Access(last, (i, k)), Access("B", (k, j)), Literal(2.0))
                reductions = (Reduction("sum", ("k",)),)
            case 3:
                value = apply("exp", apply("sub", Access(last, (i, j)), Literal(0.0)))
            case 4:
                value = apply("neg", apply("neg", Access(last, (j, i))))
            case 5:
                value = apply(
                    "max", Access(last, (i, j)), Access(last, (i, j)), Access("A", (i, j))
                )
            case 6:
                value = apply("add", Access("A", (i, j)), Access("B", (i, j)), Access(last, (i, j)))
            case _:
                value = apply("mul", Access("A", (i, j)), Access("B", (j, i)))
        body.append(Einsum((Target(name),), (i, j), value, reductions))
        last = name if number % 8 != 7 else last
    return Module("cascade", (Input("A", type_), Input("B", type_)), (last,), tuple(body))


@dataclass(frozen=True)
class Figures:
    """What one run gives; times are of the CPU, in seconds, because the work is one thread."""

    statements: int
    rules: int
    firings: int
    statements_left: int
    inference: float
    rewriting: float
    bar: float = BAR_SECONDS

    @property
    def met(self) -> bool:
        return self.inference + self.rewriting <= self.bar


def run(statements: int = STATEMENTS) -> Figures:
    """All rules to a fixed point, and the inference that they need before."""
    rules = (*DEAD_RULES, *SCALAR_RULES, *EINSUM_RULES, *COMMON_RULES)
    module = cascade(statements)
    started = time.process_time()
    infer(module)
    inferred = time.process_time()
    done = rewrite(module, rules)
    finished = time.process_time()
    return Figures(
        statements,
        len(rules),
        done.firings,
        len(done.module.body),
        inferred - started,
        finished - inferred,
    )


def main(path: str | None = None) -> None:
    """Print the figures, and write them to `path` as JSON."""
    figures = run()
    print(f"statements             {figures.statements:>8}")
    print(f"rules                  {figures.rules:>8}")
    print(f"firings                {figures.firings:>8}")
    print(f"statements left        {figures.statements_left:>8}")
    print(f"inference, CPU         {figures.inference:>8.2f} s")
    print(f"rewriting, CPU         {figures.rewriting:>8.2f} s")
    print(f"both, at most {figures.bar:.0f} s    {'met' if figures.met else 'NOT met':>10}")
    if path is not None:
        with open(path, "w", encoding="utf-8") as file:
            json.dump([asdict(figures)], file, indent=2)


if __name__ == "__main__":
    main()
