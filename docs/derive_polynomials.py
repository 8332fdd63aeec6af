"""Derives the polynomials of the elementary functions: `python docs/derive_polynomials.py`.

Writes backends/cpu/elementary/coefficients.py. Each polynomial is the minimax approximation of a
function on an interval, found by Remez's exchange with Python's decimal numbers, so that nothing
needs installing and the result is the same everywhere. It takes a few seconds.

Source: E. Remez, "Sur le calcul effectif des polynomes d'approximation de Tchebichef" (1934);
J.-M. Muller, Elementary Functions (2016), chapter 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, localcontext
from pathlib import Path
from typing import NamedTuple

Function = Callable[[Decimal], Decimal]

DIGITS = 70
NEGLIGIBLE = Decimal(10) ** (2 - DIGITS)
# Sampled instead of 0, where the functions below are quotients 0 / 0.
NEAR_ZERO = Decimal("1e-14")
TARGET = Path(__file__).resolve().parent.parent / "backends/cpu/elementary/coefficients.py"
PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899863"
)
# Bits of 1 / (2 pi) that the reduction of f32 angles may meet: exponents reach 2^127.
TURN_BITS = 256
# Digits of pi that these bits need, with some to spare.
LONG_PI = Decimal(
    "3.141592653589793238462643383279502884197169399375105820974944592307816406286208998628034825"
    "3421170679821480865132823066470938446095505822317253594081284811174502841027019385211055596"
)


# ---- functions ----------------------------------------------------------------------------


def series(first: Decimal, ratio: Callable[[int], Decimal]) -> Decimal:
    """The sum of terms, each `ratio(k)` times the one before, until they no longer count."""
    total = term = first
    k = 0
    while abs(term) > NEGLIGIBLE * abs(total):
        term *= ratio(k)
        total += term
        k += 1
    return total


def sine(x: Decimal) -> Decimal:
    return series(x, lambda k: -x * x / ((2 * k + 2) * (2 * k + 3)))


def cosine(x: Decimal) -> Decimal:
    return series(Decimal(1), lambda k: -x * x / ((2 * k + 1) * (2 * k + 2)))


def arctangent(x: Decimal) -> Decimal:
    """Euler's series, whose terms are all positive."""
    t = 1 / (1 + x * x)
    return series(x * t, lambda k: (2 * k + 2) * x * x * t / (2 * k + 3))


def error_function(x: Decimal) -> Decimal:
    """Kummer's series, whose terms are all positive."""
    total = series(x, lambda k: 2 * x * x / (2 * k + 3))
    return 2 / PI.sqrt() * (-x * x).exp() * total


def log_complement(x: Decimal) -> Decimal:
    """log(1 - erf(x))."""
    return (1 - error_function(x)).ln()


def hyperbolic_tangent(x: Decimal) -> Decimal:
    power = (2 * x).exp()
    return (power - 1) / (power + 1)


def of_root(f: Function) -> Function:
    """f(sqrt(z)) / sqrt(z), for odd f."""
    return lambda z: f(z.sqrt()) / z.sqrt()


def log_by_quotient(z: Decimal) -> Decimal:
    """(log((1 + s) / (1 - s)) / s - 2) / z, s being sqrt(z)."""
    s = z.sqrt()
    return (((1 + s) / (1 - s)).ln() / s - 2) / z


# ---- Remez's exchange ---------------------------------------------------------------------


def evaluated(coefficients: Sequence[Decimal], x: Decimal) -> Decimal:
    total = Decimal(0)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


def solved(rows: list[list[Decimal]]) -> list[Decimal]:
    """The solution of a linear system whose right sides are the last column."""
    count = len(rows)
    for i in range(count):
        pivot = max(range(i, count), key=lambda r: abs(rows[r][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for r in range(i + 1, count):
            factor = rows[r][i] / rows[i][i]
            rows[r] = [a - factor * b for a, b in zip(rows[r], rows[i], strict=True)]
    result = [Decimal(0)] * count
    for i in reversed(range(count)):
        rest = sum((rows[i][j] * result[j] for j in range(i + 1, count)), Decimal(0))
        result[i] = (rows[i][count] - rest) / rows[i][i]
    return result


class Minimax(NamedTuple):
    """Coefficients, lowest power first, and the largest weighted error on the sample."""

    coefficients: list[Decimal]
    error: Decimal


def minimax(f: Function, low: Decimal, high: Decimal, degree: int, weight: Function) -> Minimax:
    """The polynomial p of a degree with the least maximum of |weight * (p - f)| on [low, high]."""
    count = degree + 2
    steps = 12 * count
    nodes = [math.cos(math.pi * i / steps) for i in range(steps + 1)]
    points = [(low + high) / 2 - (high - low) / 2 * Decimal(node) for node in nodes]
    points = [x if abs(x) > NEAR_ZERO else NEAR_ZERO for x in points]
    values, weights = [f(x) for x in points], [weight(x) for x in points]
    chosen = [round(i * steps / (count - 1)) for i in range(count)]
    for _ in range(20):
        rows = [
            [points[i] ** k for k in range(degree + 1)] + [(-1) ** j / weights[i], values[i]]
            for j, i in enumerate(chosen)
        ]
        *coefficients, level = solved(rows)
        errors = [
            w * (evaluated(coefficients, x) - y)
            for x, y, w in zip(points, values, weights, strict=True)
        ]
        worst = max(map(abs, errors))
        peaks = alternation(errors)
        while len(peaks) > count:  # the ends are where one too many can be dropped
            peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
        if len(peaks) < count or worst < abs(level) * Decimal("1.01"):
            break
        chosen = peaks
    return Minimax(coefficients, worst)


def alternation(errors: Sequence[Decimal]) -> list[int]:
    """Where the error is largest between two changes of its sign."""
    peaks: list[int] = []
    for i, error in enumerate(errors):
        if not peaks or (errors[peaks[-1]] > 0) != (error > 0):
            peaks.append(i)
        elif abs(error) > abs(errors[peaks[-1]]):
            peaks[-1] = i
    return peaks


# ---- the table ----------------------------------------------------------------------------


class Row(NamedTuple):
    """One polynomial: what it approximates, where, its degree, and the weight of its error."""

    name: str
    meaning: str
    function: Function
    low: Decimal
    high: Decimal
    degree: int
    weight: Function


def rows() -> Iterable[Row]:
    one = Decimal(1)
    half_log = Decimal(2).ln() / 2
    half = one / 2
    left, right = half.sqrt() - 1, 2 * half.sqrt() - 1
    eighth = (PI / 4) ** 2

    def exp_tail(r: Decimal) -> Decimal:
        return (r.exp() - 1 - r) / (r * r)

    def exp2_tail(r: Decimal) -> Decimal:
        return ((r * Decimal(2).ln()).exp() - 1) / r

    def log_tail(f: Decimal) -> Decimal:
        return ((1 + f).ln() - f + f * f / 2) / f**3

    def log_whole(f: Decimal) -> Decimal:
        return (1 + f).ln() / f

    erf_near = of_root(error_function)
    sin_whole, arctangent_whole = of_root(sine), of_root(arctangent)

    def sin_tail(z: Decimal) -> Decimal:
        return (sin_whole(z) - 1) / z

    def cos_tail(z: Decimal) -> Decimal:
        return (cosine(z.sqrt()) - 1 + z / 2) / (z * z)

    def far_weight(t: Decimal) -> Decimal:
        return (1 - error_function(t)) / error_function(t)

    def square(x: Decimal) -> Decimal:
        return x * x

    for suffix, degree in (("SINGLE", 4), ("DOUBLE", 9)):
        yield Row(
            f"EXP_{suffix}", "(exp(r) - 1 - r) / r^2", exp_tail, -half_log, half_log, degree, square
        )
    for suffix, degree in (("SINGLE", 5), ("WIDE", 6)):
        yield Row(f"EXP2_{suffix}", "(2^r - 1) / r", exp2_tail, -half, half, degree, abs)
    yield Row(
        "LOG_SINGLE",
        "(log(1 + f) - f + f^2 / 2) / f^3",
        log_tail,
        left,
        right,
        8,
        lambda f: abs(f**3 / (1 + f).ln()),
    )
    for suffix, degree in (("WIDE", 11), ("POWER", 14)):
        yield Row(
            f"LOG_{suffix}",
            "log(1 + f) / f",
            log_whole,
            left,
            right,
            degree,
            lambda f: 1 / log_whole(f),
        )
    bound = (right / (2 + right)) ** 2
    yield Row(
        "LOG_DOUBLE",
        "(log((1 + s) / (1 - s)) / s - 2) / z, z = s^2",
        log_by_quotient,
        Decimal(0),
        bound,
        6,
        lambda z: z,
    )
    for suffix, near, far, end in (("SINGLE", 6, 7, 4), ("DOUBLE", 12, 18, 6)):
        yield Row(
            f"ERF_NEAR_{suffix}",
            "erf(x) / x - 1 in x^2",
            lambda z: erf_near(z) - 1,
            Decimal(0),
            one,
            near,
            lambda z: 1 / erf_near(z),
        )
        yield Row(
            f"ERF_FAR_{suffix}",
            "log(1 - erf(1 + u))",
            lambda u: log_complement(1 + u),
            Decimal(0),
            end - one,
            far,
            lambda u: far_weight(1 + u),
        )
    tangent = of_root(hyperbolic_tangent)
    for suffix, degree in (("SINGLE", 4), ("DOUBLE", 10)):
        yield Row(
            f"TANH_{suffix}",
            "(tanh(x) / x - 1) / z, z = x^2",
            lambda z: (tangent(z) - 1) / z,
            Decimal(0),
            Decimal("0.55") ** 2,
            degree,
            lambda z: z / tangent(z),
        )
    for suffix, sines, cosines, end_of_angle in (("WIDE", 3, 2, one), ("DOUBLE", 5, 5, eighth)):
        yield Row(
            f"SIN_{suffix}",
            "(sin(x) / x - 1) / z, z = x^2",
            sin_tail,
            Decimal(0),
            end_of_angle,
            sines,
            lambda z: z,
        )
        yield Row(
            f"COS_{suffix}",
            "(cos(x) - 1 + z / 2) / z^2, z = x^2",
            cos_tail,
            Decimal(0),
            end_of_angle,
            cosines,
            square,
        )
    yield Row(
        "ATAN_WIDE",
        "(atan(x) / x - 1) / z, z = x^2",
        lambda z: (arctangent_whole(z) - 1) / z,
        Decimal(0),
        one,
        10,
        lambda z: z,
    )


def constants() -> Iterable[tuple[str, str, str]]:
    """Numbers that are no polynomials: name, text of the value, meaning."""
    log2 = Decimal(2).ln()
    for suffix, bits in (("SINGLE", 16), ("DOUBLE", 33)):
        high = (log2 * 2**bits).to_integral_value() / Decimal(2) ** bits
        yield f"LN2_HIGH_{suffix}", hexadecimal(high), f"ln 2 to {bits} bits behind the point"
        yield f"LN2_LOW_{suffix}", hexadecimal(log2 - high), "the rest of ln 2"
    with localcontext() as context:
        context.prec = 150
        turns = int(Decimal(2) ** TURN_BITS / (2 * LONG_PI))
    yield "TURN", f"0x{turns:064X}", f"the first {TURN_BITS} bits of 1 / (2 pi)"


def hexadecimal(value: Decimal) -> str:
    return f'float.fromhex("{float(value).hex()}")'


def page() -> str:
    lines = [
        '"""Coefficients of the elementary functions. Made by docs/derive_polynomials.py.',
        "",
        "Each tuple holds the lowest power first. The comment says what the polynomial is close",
        "to, on which interval, and its largest error as the function's result sees it.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
    ]
    for name, text, meaning in constants():
        comment = f"  # {meaning}"
        if len(name) + len(text) + len(comment) > 95:
            lines.append(comment.strip())
            comment = ""
        lines.append(f"{name} = {text}{comment}")
    for row in rows():
        found = minimax(row.function, row.low, row.high, row.degree, row.weight)
        error = math.log2(float(found.error))
        lines += [
            "",
            f"# {row.meaning}, from {float(row.low):.6g} to {float(row.high):.6g}: 2^{error:.1f}",
            f"{row.name} = (",
            *(f"    {hexadecimal(c)}," for c in found.coefficients),
            ")",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with localcontext() as context:
        context.prec = DIGITS
        TARGET.write_text(page(), encoding="utf-8")
