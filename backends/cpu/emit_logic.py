"""Comparisons, truth, bits, shifts, rounding and the classes of floats."""

from __future__ import annotations

from einloom.backends.cpu.builder import FunctionBuilder, with_element
from einloom.backends.cpu.emit_arithmetic import Emit, Parts, Site, same
from einloom.backends.cpu.emit_cast import convert, settled
from einloom.backends.cpu.values import Value, integer_range, kind_of, number
from einloom.ir.promotion import promote
from einloom.ir.types import BOOL, COMPLEX, FLOAT, SIGNED, i64, u64

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


_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}


def integer_comparison(builder: FunctionBuilder, op: str, a: Value, b: Value) -> str:
    """Integers of any dtypes compared as the numbers that they are: nothing wraps.

    A literal that does not fit the other side's dtype has a known outcome.
    """
    for value, other, name in ((a, b, _MIRRORED[op]), (b, a, op)):
        if value.literal is not None and other.literal is None:
            whole, (low, high) = int(value.literal.real), integer_range(other.dtype)
            if low <= whole <= high:
                value = convert(builder, value, other.dtype)
                return _compared(builder, name, other, value)
            greater = whole > high
            known = {"eq": False, "ne": True, "lt": greater, "le": greater}.get(name, not greater)
            text = "true" if known else "false"
            return f"splat (i1 {text})" if other.lanes > 1 else text
    a, b = settled(a), settled(b)
    kinds = kind_of(a.dtype), kind_of(b.dtype)
    joined = promote(a.dtype, b.dtype)
    if kind_of(joined) != FLOAT:
        return _compared(builder, op, convert(builder, a, joined), convert(builder, b, joined))
    if kinds[0] != SIGNED:
        a, b, op = b, a, _MIRRORED[op]
    # A signed number and a u64: a negative one is the lesser, whatever its bits say.
    signed, unsigned = convert(builder, a, i64), convert(builder, b, u64)
    t = signed.machine_type
    truth = with_element(t, "i1")
    bits = builder.compare(_PREDICATES[op][2], t, signed.only, unsigned.only)
    negative = builder.compare("icmp slt", t, signed.only, number(t, 0))
    if op in ("lt", "le", "ne"):
        return builder.op("or", truth, negative, bits)
    return builder.op("and", truth, builder.op("xor", truth, negative, number(truth, 1)), bits)


def _compared(builder: FunctionBuilder, op: str, a: Value, b: Value) -> str:
    (outcome,) = comparison(op)(Site(builder, a.dtype, a.lanes), a.parts, b.parts)
    return outcome


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
