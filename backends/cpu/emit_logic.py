"""Comparisons, truth, bits, shifts, rounding and the classes of floats."""

from __future__ import annotations

from einloom.backends.cpu.emit_arithmetic import Emit, Parts, Site, same
from einloom.backends.cpu.values import Value, integer_range
from einloom.ir.types import BOOL, COMPLEX, FLOAT, SIGNED, Scalar

# Predicates on floats, signed integers, and what is held unsigned (bool too).
_PREDICATES = {
    "eq": ("fcmp oeq", "icmp eq", "icmp eq"),
    "ne": ("fcmp une", "icmp ne", "icmp ne"),
    "lt": ("fcmp olt", "icmp slt", "icmp ult"),
    "le": ("fcmp ole", "icmp sle", "icmp ule"),
    "gt": ("fcmp ogt", "icmp sgt", "icmp ugt"),
    "ge": ("fcmp oge", "icmp sge", "icmp uge"),
}


def comparison(op: str) -> Emit:
    """The emitter of `eq`, `lt`, ...; complex values are equal where both parts are."""
    real, signed, unsigned = _PREDICATES[op]

    def emit(site: Site, a: Parts, b: Parts) -> Parts:
        predicate = {FLOAT: real, COMPLEX: real, SIGNED: signed}.get(site.kind, unsigned)
        tests = [
            site.builder.compare(predicate, site.type, x, y) for x, y in zip(a, b, strict=True)
        ]
        if len(tests) == 1:
            return (tests[0],)
        return (site.builder.op("or" if op == "ne" else "and", site.truth, *tests),)

    return emit


def settled_comparison(op: str, a: Value, b: Value, site: Site) -> str | None:
    """The outcome of comparing integers with a literal that their dtype cannot hold.

    Such a literal would wrap; compared as the number it is, the answer is known. None where
    neither operand is such a literal.
    """
    if site.kind in (FLOAT, COMPLEX, BOOL) or not isinstance(site.dtype, Scalar):
        return None
    low, high = integer_range(site.dtype)
    for value, swapped in ((a, True), (b, False)):
        number = value.literal
        if isinstance(number, int) and not low <= number <= high:
            above = (number > high) != swapped  # whether the right operand is the greater one
            outcome = {"eq": False, "ne": True, "lt": above, "le": above}.get(op, not above)
            text = "true" if outcome else "false"
            return f"splat (i1 {text})" if site.lanes > 1 else text
    return None


def bitwise(opcode: str) -> Emit:
    """`and`, `or` and `xor`, of bits or of truth values."""

    def emit(site: Site, a: Parts, b: Parts) -> Parts:
        return (site.builder.op(opcode, site.type, *a, *b),)

    return emit


def complement(site: Site, a: Parts) -> Parts:
    """All bits turned over; of a bool, "not"."""
    return (site.builder.op("xor", site.type, *a, site.number(1 if site.kind == BOOL else -1)),)


def shift_left(site: Site, a: Parts, b: Parts) -> Parts:
    """a << b, 0 where b is negative or at least the width."""
    inside, amount = _shift_amount(site, b[0])
    shifted = site.builder.op("shl", site.type, *a, amount)
    return (site.builder.select(inside, site.type, shifted, site.number(0)),)


def shift_right(site: Site, a: Parts, b: Parts) -> Parts:
    """a >> b, filling with the sign; where b is out of range only the fill is left."""
    inside, amount = _shift_amount(site, b[0])
    if site.kind == SIGNED:
        last = site.number(site.bits - 1)
        amount = site.builder.select(inside, site.type, amount, last)
        return (site.builder.op("ashr", site.type, *a, amount),)
    shifted = site.builder.op("lshr", site.type, *a, amount)
    return (site.builder.select(inside, site.type, shifted, site.number(0)),)


def _shift_amount(site: Site, b: str) -> tuple[str, str]:
    """Whether an amount is within the width, and one that is, so that no shift is undefined."""
    width = site.number(site.bits)
    inside = site.builder.compare("icmp ult", site.type, b, width)
    return inside, site.builder.select(inside, site.type, b, site.number(0))


def rounding(intrinsic: str) -> Emit:
    """`llvm.floor` and its kin; integers and bool are whole already."""

    def emit(site: Site, a: Parts) -> Parts:
        if site.kind != FLOAT:
            return same(site, a)
        return (site.builder.intrinsic(intrinsic, site.type, *a),)

    return emit


def float_class(name: str) -> Emit:
    """`isnan`, `isinf` and `isfinite`; what is not a float is finite."""

    def emit(site: Site, parts: Parts) -> Parts:
        if site.kind not in (FLOAT, COMPLEX):
            answer = "true" if name == "isfinite" else "false"
            return (f"splat (i1 {answer})" if site.lanes > 1 else answer,)
        builder, t = site.builder, site.type
        tests = []
        for part in parts:
            if name == "isnan":
                tests.append(builder.compare("fcmp uno", t, part, part))
                continue
            size = builder.intrinsic("llvm.fabs", t, part)
            predicate = "fcmp oeq" if name == "isinf" else "fcmp olt"
            tests.append(builder.compare(predicate, t, size, site.number(float("inf"))))
        if len(tests) == 1:
            return (tests[0],)
        return (builder.op("and" if name == "isfinite" else "or", site.truth, *tests),)

    return emit
