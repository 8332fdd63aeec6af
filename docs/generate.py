"""Writes the pages of the manual that are made from the code: `python docs/generate.py`.

passes.md comes from the passes' docstrings and options, operations.md from the table of
operations and the promotion rules, accuracy.md from the table of generated functions, rules.md
from the rewrite rules, settings.md from the table of environment variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from inspect import cleandoc
from pathlib import Path

from einloom.backends.cpu.elementary.table import DOUBLE, SINGLE
from einloom.cli.passes import defaults
from einloom.config import VARIABLES
from einloom.ir import rules
from einloom.ir.errors import DTypeError
from einloom.ir.ops import MONOIDS, OPS, Law
from einloom.ir.promotion import promote
from einloom.ir.rewrite.rule import ExpressionRule, Rule
from einloom.ir.types import SCALARS, Scalar
from einloom.passes.base import Pass
from einloom.passes.defaults import DEFAULT_PIPELINES
from einloom.passes.options import described, option_types
from einloom.passes.order import ORDER, Before
from einloom.passes.registry import ALL_PASSES

FOLDER = Path(__file__).resolve().parent
NOTICE = "<!-- Made by docs/generate.py from the code; do not edit. -->"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(_cell(c) for c in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def code(text: object) -> str:
    return f"`{text}`"


# ---- passes -------------------------------------------------------------------------------


def passes_page() -> str:
    parts = [
        NOTICE,
        "# Passes",
        "A pass is a function from program to program. A pipeline is a list of passes, in Python "
        "or as text, with options in braces: `simplify, contract{method=greedy}, fuse`. "
        "[Adding one](extending.md#a-pass) is described elsewhere.",
        "The default pipelines:",
        table(["target", "pipeline"], [[t, code(p)] for t, p in DEFAULT_PIPELINES.items()]),
        "Legal orders: where both stand in a pipeline,",
        "".join(f"- {_constraint(c)}\n" for c in ORDER),
    ]
    for cls in ALL_PASSES:
        parts += [f"## {cls.name}", cleandoc(cls.__doc__ or ""), *_options(cls)]
        if cls.assumes:
            parts += ["Unless `strict`, it assumes that", "".join(f"- {a}\n" for a in cls.assumes)]
    return _page(parts)


def _constraint(constraint: object) -> str:
    if isinstance(constraint, Before):
        return f"`{constraint.first}` stands before `{constraint.second}`: {constraint.why}."
    return str(constraint)


def _options(cls: type[Pass]) -> Iterator[str]:
    types = option_types(cls)
    values = dict(text.split("=", 1) for text in defaults(cls))
    rows = [[code(name), described(types[name]), code(values[name])] for name in types]
    if rows:
        yield table(["option", "takes", "default"], rows)


# ---- operations ---------------------------------------------------------------------------

DTYPE_RULES = {
    "arithmetic": "that of the operands together",
    "no-bool": "that of the operands; not bool",
    "no-complex": "that of the operands; not bool, not complex",
    "power": "that of the operands; not bool",
    "ordered": "that of the operands; not complex",
    "divide": "that of the operands; f64 for integers and bool",
    "float": "a float: integers become f16 (8 bits), f32 (16 bits) or f64",
    "real-float": "the same; not complex",
    "magnitude": "the same, real for complex",
    "component": "the same, real for complex",
    "compare": "bool",
    "order": "bool; not complex",
    "logical": "bool",
    "class": "bool",
    "select": "that of the second and third operand",
    "bitwise": "that of the operands; bool or integers",
    "shift": "that of the operands; integers",
    "rounding": "that of the operand; not complex",
    "stored": "bool",
}


def operations_page() -> str:
    operations = [
        [code(op.name), code(op.symbol) if op.symbol else "", "2+" if op.arity is None
         else str(op.arity), DTYPE_RULES[op.rule], ", ".join(map(_law, op.laws)), f"{op.cost:g}"]
        for op in OPS.values()
    ]  # fmt: skip
    monoids = [
        [code(m.name), code(m.op), code(m.identity) + (" of the dtype, and 0" if m.paired else "")]
        for m in MONOIDS.values()
    ]
    names = list(SCALARS)
    promotions = [[code(a), *(_promoted(a, b) for b in names)] for a in names]
    return _page(
        [
            NOTICE,
            "# Operations",
            "Operations are applied to scalars, `exp(x)`, `max(a, b)`, or written between or "
            "before them where they have a sign. Those of arity 2+ are associative and "
            "commutative; applications inside applications are merged into one.",
            "A law marked * holds on floats only up to rounding and for finite values: passes "
            "may use it, but not under `strict`. Cost is in additions.",
            "## All operations",
            table(["operation", "sign", "operands", "dtype of the result", "laws", "cost"],
                  operations),
            "## Reducers",
            "A reducer folds with an operation from its identity. `lowest` and `highest` are "
            "those of the dtype: -inf and inf for floats, `False` and `True` for bool. `argmax` "
            "and `argmin` fold pairs of a value and a position: ties take the first, NaN wins.",
            table(["reducer", "folds with", "identity"], monoids),
            "## Promotion",
            "The dtype that values of two dtypes are computed in. It is NumPy's where NumPy has "
            "the dtypes. Literals and extents are weak: they raise bool to integer to float to "
            "complex, and never the width. `f16` and `bf16` are computed in `f32` and rounded "
            "where a statement stores them.",
            table(["", *map(code, names)], promotions),
        ]
    )  # fmt: skip


def _law(law: Law) -> str:
    mark = "" if law.floats == "exact" else "*"
    match law.kind:
        case "distributes":
            return f"distributes over {law.operand}{mark}"
        case "right-distributes":
            return f"distributes over {law.operand} from the right{mark}"
        case "undoes":
            return f"undoes {law.operand}{mark}"
        case "turns-sums":
            return f"turns sums into {law.operand}{mark}"
        case "identity" | "annihilator":
            return f"{law.kind} {law.operand}{mark}"
    return law.kind + mark


def _promoted(a: str, b: str) -> str:
    try:
        return str(promote(Scalar(a), Scalar(b)))
    except DTypeError:
        return "-"


# ---- accuracy -----------------------------------------------------------------------------


def accuracy_page() -> str:
    rows = [
        [code(name), f"{single.ulps:g}", f"{DOUBLE[name].ulps:g}" if name in DOUBLE else "-"]
        for name, single in SINGLE.items()
    ]
    return _page(
        [
            NOTICE,
            "# Accuracy of the elementary functions",
            "The CPU backend generates these functions itself, as code without branches or "
            "calls, so that loops over them become vector code. The table holds the largest error "
            "in units in the last place of the exact result (ulp; 0.5 would be correct rounding), "
            "on every target, with fused multiplication or without. `f16` and `bf16` are computed "
            "in `f32`. Where a cell has a dash, the function comes from the C library.",
            table(["function", "f32, ulp", "f64, ulp"], rows),
            "NaN, infinities, signed zeros and subnormal numbers, as arguments and as results, "
            "are those of the C standard. `pow` with a literal exponent is a product, a quotient "
            "or a root where that is exact enough: `x**2` is `x*x`.",
            "The bounds of `f32` functions of one argument are tested for every argument "
            "(`pytest -m deep tests/backends/test_elementary.py` prints the largest error found "
            "and where), those of two arguments and of `f64` on samples. The polynomials are "
            "derived by `docs/derive_polynomials.py`.",
        ]
    )


# ---- rules --------------------------------------------------------------------------------

SECTIONS: tuple[tuple[str, str, tuple[Rule, ...]], ...] = (
    ("Scalar expressions", "`simplify{algebra=true}`", rules.SCALAR_RULES),
    ("Statements", "`simplify{algebra=true}`", rules.EINSUM_RULES),
    ("Nesting", "`simplify{nesting=nest}`", rules.NEST_RULES),
    ("Denesting", "`simplify{nesting=denest}`", rules.DENEST_RULES),
    ("Equal statements", "`simplify{common=true}`", rules.COMMON_RULES),
    ("What nobody reads", "`simplify{dead=true}`", rules.DEAD_RULES),
)


def rules_page() -> str:
    parts = [
        NOTICE,
        "# Rewrite rules",
        f"The {len(rules.ALL_RULES)} rules that `simplify` chooses from, used from left to right, "
        "in the order in which they are tried. A rule fires only where the dtype has its law: "
        "`exact` bit for bit, `ok` up to rounding or for finite values (not under `strict`), "
        "`no` never. Rules on statements ask the table of [operations](operations.md) for the "
        "laws of the reducer and the product at hand. "
        "[Adding one](extending.md#a-rule) is described elsewhere.",
    ]
    for title, option, found in SECTIONS:
        rows = [[code(r.name), _prose(r.law), _floats(r), r.source] for r in found]
        parts += [
            f"## {title}",
            f"Used under {option}.",
            table(["rule", "law", "on floats", "source"], rows),
        ]
    return _page(parts)


def _prose(text: str) -> str:
    """A law as Markdown shows it literally."""
    return re.sub(r"([*_<>\[\]\\])", r"\\\1", text)


def _floats(rule: Rule) -> str:
    return rule.validity.floats if isinstance(rule, ExpressionRule) else ""


# ---- settings -----------------------------------------------------------------------------


def settings_page() -> str:
    rows = [[code(v.name), v.meaning, v.takes, v.default] for v in VARIABLES]
    return _page(
        [
            NOTICE,
            "# Environment variables",
            "Every variable that Einloom reads. Values are read when they are used, so a program "
            "may set them in `os.environ` after `import einloom`. An empty value counts as "
            "unset.",
            table(["variable", "what it sets", "it takes", "unset"], rows),
        ]
    )


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def pages() -> dict[str, str]:
    """The generated pages: file name and text."""
    return {
        "passes.md": passes_page(),
        "operations.md": operations_page(),
        "accuracy.md": accuracy_page(),
        "rules.md": rules_page(),
        "settings.md": settings_page(),
    }


def main() -> None:
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
