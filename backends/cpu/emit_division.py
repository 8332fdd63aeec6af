"""Floor division, remainder, ceiling division and powers, which never trap.

Integers: division by zero gives 0, the least integer by -1 wraps, a negative power of an
integer is 0 but for bases 1 and -1. Floats follow NumPy's `npy_divmod`.

Source: numpy/_core/src/npymath/npy_math_internal.h.src (npy_divmod, npy_floor_divide), NumPy 2.
"""

from __future__ import annotations

from einloom.backends.cpu.builder import FunctionBuilder, element_of, mangled
from einloom.backends.cpu.emit_arithmetic import Parts, Site, mul, neg
from einloom.backends.cpu.emit_math import real_function
from einloom.backends.cpu.values import integer_range, number
from einloom.ir.types import FLOAT, SIGNED


def floor_divide(site: Site, *operands: Parts) -> Parts:
    """The greatest whole number not above a / b."""
    (a,), (b,) = operands
    builder, t = site.builder, site.type
    if site.kind == FLOAT:
        quotient, _ = _float_division(site, a, b)
        zero = builder.compare("fcmp oeq", t, b, number(t, 0.0))
        return (builder.select(zero, t, builder.op("fdiv", t, a, b), quotient),)
    quotient, _ = _integer_division(site, a, b)
    return (quotient,)


def remainder(site: Site, *operands: Parts) -> Parts:
    """What `floor_divide` leaves; it has the sign of b."""
    (a,), (b,) = operands
    builder, t = site.builder, site.type
    if site.kind == FLOAT:
        _, rest = _float_division(site, a, b)
        zero = builder.compare("fcmp oeq", t, b, number(t, 0.0))
        return (builder.select(zero, t, builder.op("frem", t, a, b), rest),)
    _, rest = _integer_division(site, a, b)
    return (rest,)


def ceiling_divide(site: Site, *operands: Parts) -> Parts:
    """The least whole number not below a / b; by zero 0 for integers."""
    a, b = operands
    if site.kind == FLOAT:
        return neg(site, floor_divide(site, neg(site, a), b))
    builder, t = site.builder, site.type
    quotient, rest = _integer_division(site, a[0], b[0])
    inexact = builder.compare("icmp ne", t, rest, site.number(0))
    return (builder.op("add", t, quotient, builder.convert("zext", site.truth, inexact, t)),)


def _integer_division(site: Site, a: str, b: str) -> tuple[str, str]:
    """Quotient and remainder. Divisors that would trap are replaced by 1."""
    builder, t, truth = site.builder, site.type, site.truth
    zero, one = number(t, 0), number(t, 1)
    by_zero = builder.compare("icmp eq", t, b, zero)
    if site.kind != SIGNED:
        divisor = builder.select(by_zero, t, one, b)
        quotient = builder.op("udiv", t, a, divisor)
        rest = builder.op("urem", t, a, divisor)
    else:
        by_minus_one = builder.compare("icmp eq", t, b, number(t, -1))
        least = builder.compare("icmp eq", t, a, site.number(integer_range(site.dtype)[0]))
        # least // -1 wraps to least, with nothing left: what dividing by 1 gives
        traps = builder.op("or", truth, by_zero, builder.op("and", truth, by_minus_one, least))
        divisor = builder.select(traps, t, one, b)
        quotient = builder.op("sdiv", t, a, divisor)
        rest = builder.op("srem", t, a, divisor)
        apart = builder.compare("icmp slt", t, builder.op("xor", t, rest, divisor), zero)
        inexact = builder.compare("icmp ne", t, rest, zero)
        lower = builder.op("and", truth, apart, inexact)
        quotient = builder.select(lower, t, builder.op("sub", t, quotient, one), quotient)
        rest = builder.select(lower, t, builder.op("add", t, rest, divisor), rest)
    return builder.select(by_zero, t, zero, quotient), builder.select(by_zero, t, zero, rest)


def _float_division(site: Site, a: str, b: str) -> tuple[str, str]:
    """Quotient and remainder where b is not zero."""
    builder, t, truth = site.builder, site.type, site.truth
    zero, one = number(t, 0.0), number(t, 1.0)
    rest = builder.op("frem", t, a, b)
    quotient = builder.op("fdiv", t, builder.op("fsub", t, a, rest), b)
    # A remainder whose sign is not that of b moves up by b, and the quotient down by one.
    b_negative = builder.compare("fcmp olt", t, b, zero)
    rest_negative = builder.compare("fcmp olt", t, rest, zero)
    some = builder.compare("fcmp une", t, rest, zero)
    apart = builder.op("and", truth, some, builder.op("xor", truth, b_negative, rest_negative))
    moved = builder.select(apart, t, builder.op("fadd", t, rest, b), rest)
    signed_zero = builder.intrinsic("llvm.copysign", t, zero, b)
    final_rest = builder.select(some, t, moved, signed_zero)
    quotient = builder.select(apart, t, builder.op("fsub", t, quotient, one), quotient)
    # The quotient is whole but for rounding: take the nearest whole number.
    floored = builder.intrinsic("llvm.floor", t, quotient)
    over = builder.compare("fcmp ogt", t, builder.op("fsub", t, quotient, floored), number(t, 0.5))
    nearest = builder.select(over, t, builder.op("fadd", t, floored, one), floored)
    exact = builder.op("fdiv", t, a, b)
    signless = builder.intrinsic("llvm.copysign", t, zero, exact)
    nothing = builder.compare("fcmp oeq", t, quotient, zero)
    return builder.select(nothing, t, signless, nearest), final_rest


# ---- powers -------------------------------------------------------------------------------


def power(site: Site, *operands: Parts) -> Parts:
    """a ** b of floats, or of integers by repeated squaring."""
    (a,), (b,) = operands
    builder, t = site.builder, site.type
    if site.kind == FLOAT:
        return real_function("pow")(site, (a,), (b,))
    scalar = element_of(t)
    signed = site.kind == SIGNED
    name = f"power.{'s' if signed else 'u'}{mangled(scalar)}"
    builder.module.helper(name, lambda: _integer_power(builder, name, scalar, signed))
    return (
        builder.lanewise(
            t,
            (a, b),
            lambda x: builder.value(f"call {scalar} @{name}({scalar} {x[0]}, {scalar} {x[1]})"),
        ),
    )


def constant_power(site: Site, base: Parts, exponent: int) -> Parts:
    """base ** exponent for a known exponent from 1 on, as a short chain of products."""
    result: Parts | None = None
    square = base
    while True:
        if exponent & 1:
            result = square if result is None else mul(site, result, square)
        exponent >>= 1
        if not exponent:
            assert result is not None, "an exponent from 1 on has a bit set"
            return result
        square = mul(site, square, square)


def _integer_power(builder: FunctionBuilder, name: str, t: str, signed: bool) -> str:
    """The text of a function that raises an integer to an integer power."""
    body = FunctionBuilder(builder.module)
    body.line(f"br i1 {body.compare('icmp eq', t, '%exponent', '0')}, label %done, label %loop")
    body.start("loop")
    result, square = "%result", "%square"
    body.line(f"{result} = phi {t} [ 1, %entry ], [ %next, %loop ]")
    body.line(f"{square} = phi {t} [ %base, %entry ], [ %squared, %loop ]")
    body.line(f"%left = phi {t} [ %exponent, %entry ], [ %halved, %loop ]")
    odd = body.convert("trunc", t, "%left", "i1")
    product = body.op("mul", t, result, square)
    body.line(f"%next = select i1 {odd}, {t} {product}, {t} {result}")
    body.line(f"%squared = mul {t} {square}, {square}")
    body.line(f"%halved = lshr {t} %left, 1")
    body.branch(body.compare("icmp ne", t, "%halved", "0"), "loop", "done")
    body.start("done")
    answer = body.phi(t, (("1", "entry"), ("%next", "loop")))
    if signed:
        # 1 / base ** n is whole for bases 1 and -1 only; -1 is its own reciprocal.
        negative = body.compare("icmp slt", t, "%exponent", "0")
        one = body.compare("icmp eq", t, "%base", "1")
        minus_one = body.compare("icmp eq", t, "%base", "-1")
        odd = body.convert("trunc", t, "%exponent", "i1")
        sign = body.select(odd, t, "-1", "1")
        reciprocal = body.select(one, t, "1", body.select(minus_one, t, sign, "0"))
        answer = body.select(negative, t, reciprocal, answer)
    body.line(f"ret {t} {answer}")
    head = (
        f"define internal {t} @{name}({t} %base, {t} %exponent) nounwind willreturn memory(none) {{"
    )
    return "\n".join([head, "entry:", *body.lines, "}"])
