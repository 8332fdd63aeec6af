"""Transcendental functions of reals, through LLVM's intrinsics or the C library's functions.

The intrinsics become calls of the C library's functions, f32 ones for f32. f16 and bf16 are
computed in f32.
"""

from __future__ import annotations

from einloom.backends.cpu.emit_arithmetic import Emit, Parts, Site

# Operations that LLVM has an intrinsic for under the given name.
_INTRINSICS = {
    **{name: name for name in ("sqrt", "exp", "exp2", "log", "log2", "log10", "sin", "cos")},
    **{name: name for name in ("tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh")},
}
_LIBRARY = ("expm1", "log1p", "erf")


def real_function(name: str) -> Emit:
    """The emitter of one function of the table."""

    def intrinsic(site: Site, *operands: Parts) -> Parts:
        arguments = [part for operand in operands for part in operand]
        return (site.builder.intrinsic(f"llvm.{_INTRINSICS[name]}", site.type, *arguments),)

    def library(site: Site, operand: Parts) -> Parts:
        return (site.builder.libm(name, site.type, *operand),)

    return intrinsic if name in _INTRINSICS else library


def real_functions() -> dict[str, Emit]:
    """Every transcendental operation on reals, by name."""
    emitters = {name: real_function(name) for name in (*_INTRINSICS, *_LIBRARY)}
    return emitters | {"rsqrt": reciprocal_root, "sigmoid": sigmoid}


def reciprocal_root(site: Site, a: Parts) -> Parts:
    """1 / sqrt(x), each step rounded."""
    root = site.builder.intrinsic("llvm.sqrt", site.type, *a)
    return (site.builder.op("fdiv", site.type, site.number(1.0), root),)


def sigmoid(site: Site, a: Parts) -> Parts:
    """1 / (1 + exp(-x)) without overflow: only exp of a number that is not positive is taken."""
    builder, t, (x,) = site.builder, site.type, a
    size = builder.intrinsic("llvm.fabs", t, x)
    decay = builder.intrinsic("llvm.exp", t, builder.op("fneg", t, size))
    total = builder.op("fadd", t, site.number(1.0), decay)
    right = builder.compare("fcmp oge", t, x, site.number(0.0))
    above = builder.select(right, t, site.number(1.0), decay)
    return (builder.op("fdiv", t, above, total),)
