"""Operations on complex values, which are pairs (real, imaginary) of one real dtype.

Elementary functions are those of the C library, whose special values NumPy has too.

Source: numpy/_core/src/umath/loops.c.src (division, sign) and
numpy/_core/src/npymath/npy_math_complex.c.src (powers), NumPy 2.
"""

from __future__ import annotations

from einloom.backends.cpu.builder import FunctionBuilder, phi_text
from einloom.backends.cpu.emit_arithmetic import Emit, Parts, Site
from einloom.backends.cpu.values import number
from einloom.ir.errors import UnsupportedError
from einloom.ir.types import Scalar, f32, f64

_PURE = "nounwind willreturn memory(none)"


def add(site: Site, a: Parts, b: Parts) -> Parts:
    opcode = site.flags.on("fadd", "float")
    return tuple(site.builder.op(opcode, site.type, x, y) for x, y in zip(a, b, strict=True))


def sub(site: Site, a: Parts, b: Parts) -> Parts:
    opcode = site.flags.on("fsub", "float")
    return tuple(site.builder.op(opcode, site.type, x, y) for x, y in zip(a, b, strict=True))


def mul(site: Site, a: Parts, b: Parts) -> Parts:
    builder, t, (ar, ai), (br, bi) = site.builder, site.type, a, b

    def flagged(opcode: str) -> str:
        return site.flags.on(opcode, "float")

    real = builder.op(
        flagged("fsub"),
        t,
        builder.op(flagged("fmul"), t, ar, br),
        builder.op(flagged("fmul"), t, ai, bi),
    )
    imaginary = builder.op(
        flagged("fadd"),
        t,
        builder.op(flagged("fmul"), t, ar, bi),
        builder.op(flagged("fmul"), t, ai, br),
    )
    return real, imaginary


def divide(site: Site, a: Parts, b: Parts) -> Parts:
    """Smith's method, as NumPy has it: the larger part of the divisor is divided out."""
    builder, t, (ar, ai), (br, bi) = site.builder, site.type, a, b
    real_size = builder.intrinsic("llvm.fabs", t, br)
    imaginary_size = builder.intrinsic("llvm.fabs", t, bi)
    by_real = builder.compare("fcmp oge", t, real_size, imaginary_size)
    large, small = builder.select(by_real, t, br, bi), builder.select(by_real, t, bi, br)
    ratio = builder.op("fdiv", t, small, large)
    total = builder.op("fadd", t, large, builder.op("fmul", t, small, ratio))
    scale = builder.op("fdiv", t, site.number(1.0), total)
    # (ar + ai*ratio, ai - ar*ratio) or (ar*ratio + ai, ai*ratio - ar)
    real_scaled = builder.op("fmul", t, ar, ratio)
    imaginary_scaled = builder.op("fmul", t, ai, ratio)
    upper = builder.select(
        by_real,
        t,
        builder.op("fadd", t, ar, imaginary_scaled),
        builder.op("fadd", t, real_scaled, ai),
    )
    lower = builder.select(
        by_real,
        t,
        builder.op("fsub", t, ai, real_scaled),
        builder.op("fsub", t, imaginary_scaled, ar),
    )
    zero = site.number(0.0)
    nothing = builder.op(
        "and",
        site.truth,
        builder.compare("fcmp oeq", t, br, zero),
        builder.compare("fcmp oeq", t, bi, zero),
    )
    quotients = []
    for numerator, scaled in ((ar, upper), (ai, lower)):
        by_zero = builder.op("fdiv", t, numerator, real_size)
        product = builder.op("fmul", t, scaled, scale)
        quotients.append(builder.select(nothing, t, by_zero, product))
    return tuple(quotients)


def neg(site: Site, a: Parts) -> Parts:
    return tuple(site.builder.op("fneg", site.type, part) for part in a)


def conj(site: Site, a: Parts) -> Parts:
    return a[0], site.builder.op("fneg", site.type, a[1])


def real(site: Site, a: Parts) -> Parts:
    return (a[0],)


def imag(site: Site, a: Parts) -> Parts:
    return (a[1],)


def magnitude(site: Site, a: Parts) -> Parts:
    return (site.builder.libm("hypot", site.type, *a),)


def sign(site: Site, a: Parts) -> Parts:
    """z / |z|, 0 for 0; an infinite part alone points along its axis, two give NaN."""
    builder, t = site.builder, site.type
    zero, one, infinity = site.number(0.0), site.number(1.0), site.number(float("inf"))
    (size,) = magnitude(site, a)
    endless = builder.compare("fcmp oeq", t, size, infinity)
    nothing = builder.compare("fcmp oeq", t, size, zero)
    infinite = [
        builder.compare("fcmp oeq", t, builder.intrinsic("llvm.fabs", t, part), infinity)
        for part in a
    ]
    both = builder.op("and", site.truth, *infinite)
    parts = []
    for part, alone in zip(a, infinite, strict=True):
        axis = builder.intrinsic("llvm.copysign", t, one, part)
        direction = builder.select(alone, t, axis, zero)
        direction = builder.select(both, t, site.number(float("nan")), direction)
        # hypot(inf, nan) is inf, and the sign then follows the infinite part
        scaled = builder.op("fdiv", t, part, size)
        scaled = builder.select(nothing, t, zero, scaled)
        parts.append(builder.select(endless, t, direction, scaled))
    return tuple(parts)


# ---- the C library ------------------------------------------------------------------------


def _call(builder: FunctionBuilder, name: str, t: str, operands: tuple[Parts, ...]) -> Parts:
    """Call a complex function of the C library on scalars.

    How a complex number is passed is the platform's affair: in two registers each, but for a
    pair of floats on x86-64, which share one.

    Source: System V AMD64 psABI 1.0, section 3.2.3; AAPCS64, section 6.8.
    """
    full = name + "f" if t == "float" else name
    if t == "float" and builder.module.target.architecture == "x86_64":
        pair = "<2 x float>"
        packed = []
        for real_part, imaginary_part in operands:
            half = builder.value(f"insertelement {pair} poison, float {real_part}, i64 0")
            packed.append(
                builder.value(f"insertelement {pair} {half}, float {imaginary_part}, i64 1")
            )
        builder.module.declare(full, pair, [pair] * len(operands), _PURE)
        arguments = ", ".join(f"{pair} {operand}" for operand in packed)
        result = builder.value(f"call {pair} @{full}({arguments})")
        return tuple(builder.value(f"extractelement {pair} {result}, i64 {k}") for k in (0, 1))
    pair = f"{{ {t}, {t} }}"
    flat = [part for operand in operands for part in operand]
    builder.module.declare(full, pair, [t] * len(flat), _PURE)
    arguments = ", ".join(f"{t} {part}" for part in flat)
    result = builder.value(f"call {pair} @{full}({arguments})")
    return tuple(builder.value(f"extractvalue {pair} {result}, {k}") for k in (0, 1))


def library_function(name: str) -> Emit:
    """The emitter of `exp`, `log`, `sqrt`, `sin` or `cos`."""

    def emit(site: Site, a: Parts) -> Parts:
        _refuse_vectors(site, name)
        return _call(site.builder, f"c{name}", site.type, (a,))

    return emit


def power(site: Site, a: Parts, b: Parts) -> Parts:
    """a ** b. A whole exponent below 100 in size is done by products, as in NumPy."""
    _refuse_vectors(site, "pow")
    builder, t = site.builder, site.type
    name = f"power.complex.{t}"
    builder.module.helper(name, lambda: _power_function(builder, name, t))
    pair = f"{{ {t}, {t} }}"
    arguments = ", ".join(f"{t} {part}" for part in (*a, *b))
    result = builder.value(f"call {pair} @{name}({arguments})")
    return tuple(builder.value(f"extractvalue {pair} {result}, {k}") for k in (0, 1))


def _refuse_vectors(site: Site, name: str) -> None:
    if site.lanes > 1:
        raise UnsupportedError(
            f"the CPU backend has no {name} of explicit vectors of complex numbers",
            suggestion="leave the vectorisation of this loop to the compiler: `for vector`",
        )


def _power_function(caller: FunctionBuilder, name: str, t: str) -> str:
    """The text of the function behind `power`."""
    builder = FunctionBuilder(caller.module)
    site = Site(builder, _real_dtype(t))
    a, b = ("%ar", "%ai"), ("%br", "%bi")
    zero, one = number(t, 0.0), number(t, 1.0)
    pair = f"{{ {t}, {t} }}"

    def both_zero(parts: Parts) -> str:
        tests = [builder.compare("fcmp oeq", t, part, zero) for part in parts]
        return builder.op("and", "i1", *tests)

    def leave(parts: Parts) -> None:
        first = builder.value(f"insertvalue {pair} poison, {t} {parts[0]}, 0")
        builder.line(
            f"ret {pair} {builder.value(f'insertvalue {pair} {first}, {t} {parts[1]}, 1')}"
        )

    builder.branch(both_zero(b), "unit", "nonzero")
    builder.start("unit")
    leave((one, zero))
    builder.start("nonzero")
    builder.branch(both_zero(a), "of_zero", "regular")
    builder.start("of_zero")
    positive = builder.compare("fcmp ogt", t, "%br", zero)
    real_exponent = builder.compare("fcmp oeq", t, "%bi", zero)
    defined = builder.op("and", "i1", positive, real_exponent)
    answer = builder.select(defined, t, zero, number(t, float("nan")))
    leave((answer, answer))

    builder.start("regular")
    size = builder.intrinsic("llvm.fabs", t, "%br")
    small = builder.compare("fcmp olt", t, size, number(t, 100.0))
    whole = builder.compare("fcmp oeq", t, size, builder.intrinsic("llvm.floor", t, size))
    real_exponent = builder.compare("fcmp oeq", t, "%bi", zero)
    products = builder.op("and", "i1", builder.op("and", "i1", small, whole), real_exponent)
    builder.branch(products, "products", "general")
    builder.start("general")
    leave(_call(builder, "cpow", t, (a, b)))

    builder.start("products")
    exponent = builder.convert("fptoui", t, size, "i32")
    builder.jump("loop")
    builder.start("loop")
    positions = [builder.reserve() for _ in range(5)]
    left, result, base = "%left", ("%real", "%imag"), ("%base.real", "%base.imag")
    odd = builder.convert("trunc", "i32", left, "i1")
    # 1 * base is base itself: what is not finite must not meet the zero of the unit
    unit = builder.op(
        "and",
        "i1",
        builder.compare("fcmp oeq", t, result[0], one),
        builder.compare("fcmp oeq", t, result[1], zero),
    )
    following = tuple(
        builder.select(odd, t, builder.select(unit, t, factor, product), old)
        for factor, product, old in zip(base, mul(site, result, base), result, strict=True)
    )
    square = mul(site, base, base)
    halved = builder.op("lshr", "i32", left, "1")
    builder.branch(builder.compare("icmp ne", "i32", halved, "0"), "loop", "done")
    phis = [(left, "i32", exponent, halved)]
    firsts, nexts = (one, zero, *a), (*following, *square)
    for phi, first, update in zip((*result, *base), firsts, nexts, strict=True):
        phis.append((phi, t, first, update))
    for position, (phi, machine_type, first, update) in zip(positions, phis, strict=True):
        incoming = phi_text(machine_type, ((first, "products"), (update, "loop")))
        builder.fill(position, f"{phi} = phi {incoming}")
    builder.start("done")
    inverted = builder.compare("fcmp olt", t, "%br", zero)
    reciprocal = divide(site, (one, zero), following)
    leave(
        tuple(builder.select(inverted, t, x, y) for x, y in zip(reciprocal, following, strict=True))
    )
    parameters = ", ".join(f"{t} {part}" for part in (*a, *b))
    head = f"define internal {pair} @{name}({parameters}) {_PURE} {{"
    return "\n".join([head, "entry:", *builder.lines, "}"])


def _real_dtype(t: str) -> Scalar:
    return f32 if t == "float" else f64
