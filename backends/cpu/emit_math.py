"""Transcendental functions of reals: generated code where there is some, else the C library.

`elementary` has f32 altogether and the commonest functions of f64; its code is free of branches
and calls, so loops over it become vector code. What it lacks goes through LLVM's intrinsics or
by name to the C library. f16 and bf16 are computed in f32.
"""

from __future__ import annotations

from einloom.backends.cpu.emit_arithmetic import Emit, Parts, Site

# Operations that LLVM has an intrinsic for under the given name.
_INTRINSICS = (
    *("exp", "exp2", "log", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "atan2"),
    *("sinh", "cosh", "tanh", "pow"),
)
_LIBRARY = ("expm1", "log1p", "erf")
# No C library has it; every width is generated.
_OURS = ("sigmoid",)


def real_function(name: str) -> Emit:
    """The emitter of one function of the table."""

    def emit(site: Site, *operands: Parts) -> Parts:
        # Imported here: a first product of two matrices needs none of it.
        from einloom.backends.cpu.elementary.arithmetic import Arithmetic
        from einloom.backends.cpu.elementary.table import of_bits

        arguments = [part for operand in operands for part in operand]
        generated = of_bits(site.bits).get(name)
        if generated is not None:
            return (generated.emit(Arithmetic(site.builder, site.type), *arguments),)
        if name in _LIBRARY:
            return (site.builder.libm(name, site.type, *arguments),)
        return (site.builder.intrinsic(f"llvm.{name}", site.type, *arguments),)

    return emit


def real_functions() -> dict[str, Emit]:
    """Every transcendental operation on reals, by name; powers of integers stand elsewhere."""
    names = (*_INTRINSICS, *_LIBRARY, *_OURS)
    emitters = {name: real_function(name) for name in names if name != "pow"}
    return emitters | {"sqrt": square_root, "rsqrt": reciprocal_root}


def square_root(site: Site, a: Parts) -> Parts:
    """Rounded once, an instruction on every target."""
    return (site.builder.intrinsic("llvm.sqrt", site.type, *a),)


def reciprocal_root(site: Site, a: Parts) -> Parts:
    """1 / sqrt(x), each step rounded."""
    return (site.builder.op("fdiv", site.type, site.number(1.0), *square_root(site, a)),)


def literal_power(site: Site, base: Parts, exponent: float) -> Parts | None:
    """base ** exponent where a constant exponent has a shorter way; None where it has not."""
    if site.bits != 32:
        return None  # LLVM itself has the same short ways for its intrinsic
    from einloom.backends.cpu.elementary import power
    from einloom.backends.cpu.elementary.arithmetic import Arithmetic

    short = power.literal_power(Arithmetic(site.builder, site.type), exponent)
    return None if short is None else (short(*base),)
