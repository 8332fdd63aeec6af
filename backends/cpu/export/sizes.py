"""LLVM IR that computes extents from the sizes of symbols, in 64 bits, and notices overflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from einloom.backends.cpu.builder import FunctionBuilder
from einloom.ir import extents as ext
from einloom.ir.errors import BackendError, UnsupportedError
from einloom.ir.expressions import Apply, Expression, Literal, Symbol
from einloom.ir.node import postorder

_OVERFLOWING = {"add": "llvm.sadd", "sub": "llvm.ssub", "mul": "llvm.smul"}


class SizeEmitter:
    """Emits extents. `symbols` holds the i64 value of every symbol.

    What no 64-bit integer holds, and a division by zero, makes a flag true that `take_flag` hands
    over; the value is then meaningless but computing it is harmless.
    """

    def __init__(self, builder: FunctionBuilder, symbols: Mapping[str, str]) -> None:
        self.builder = builder
        self.symbols = symbols
        self._flags: list[str] = []
        self._done: dict[Expression, str] = {}

    def take_flag(self) -> str | None:
        """The i1 that says whether anything since the last call went wrong, None: nothing can."""
        flag: str | None = None
        for part in self._flags:
            flag = part if flag is None else self.builder.op("or", "i1", flag, part)
        self._flags.clear()
        return flag

    def emit(self, extent: Expression) -> str:
        """The i64 value of an extent."""
        extent = ext.simplify(extent)
        for current in postorder(extent):
            if isinstance(current, Expression) and current not in self._done:
                self._done[current] = self._emit(current)
        return self._done[extent]

    def product(self, factors: Sequence[str]) -> str:
        """The product of i64 values; flagged like any other."""
        total = factors[0]
        for factor in factors[1:]:
            total = self.checked("mul", total, factor)
        return total

    def checked(self, op: str, a: str, b: str) -> str:
        """`a op b` of i64 values, flagged where it overflows."""
        name = f"{_OVERFLOWING[op]}.with.overflow.i64"
        self.builder.module.declare(name, "{ i64, i1 }", ["i64", "i64"], "")
        pair = self.builder.value(f"call {{ i64, i1 }} @{name}(i64 {a}, i64 {b})")
        self._flags.append(self.builder.value(f"extractvalue {{ i64, i1 }} {pair}, 1"))
        return self.builder.value(f"extractvalue {{ i64, i1 }} {pair}, 0")

    def _emit(self, current: Expression) -> str:
        match current:
            case Literal():
                value = int(current.value.real)
                if not -(2**63) <= value < 2**63:
                    self._flags.append("true")
                    return "0"
                return str(value)
            case Symbol():
                return self.symbols[current.name]
            case Apply():
                return self._apply(current.op, [self._done[a] for a in current.arguments])
        raise BackendError(f"internal: {current} is not an extent")

    def _apply(self, op: str, values: list[str]) -> str:
        match op:
            case "add" | "mul":
                total = values[0]
                for value in values[1:]:
                    total = self.checked(op, total, value)
                return total
            case "sub":
                return self.checked("sub", values[0], values[1])
            case "neg":
                return self.checked("sub", "0", values[0])
            case "max" | "min":
                total = values[0]
                for value in values[1:]:
                    total = self.builder.intrinsic(f"llvm.s{op}", "i64", total, value)
                return total
            case "floordiv":
                return self._quotient(values[0], values[1])
            case "ceildiv":
                down = self._quotient(self.checked("sub", "0", values[0]), values[1])
                return self.checked("sub", "0", down)
            case "mod":
                down = self._quotient(values[0], values[1])
                # b * (a // b) lies between a - b and a, so it does not overflow
                product = self.builder.op("mul", "i64", down, values[1])
                return self.builder.op("sub", "i64", values[0], product)
        raise UnsupportedError(f"an extent cannot use {op}")

    def _quotient(self, a: str, b: str) -> str:
        """`a // b`, rounded down; a division by zero is flagged."""
        builder = self.builder
        zero = builder.compare("icmp eq", "i64", b, "0")
        self._flags.append(zero)
        # -2^63 / -1 would trap, too
        minus = builder.compare("icmp eq", "i64", b, "-1")
        unsafe = builder.op("or", "i1", zero, minus)
        divisor = builder.select(unsafe, "i64", "1", b)
        quotient = builder.op("sdiv", "i64", a, divisor)
        rest = builder.op("srem", "i64", a, divisor)
        uneven = builder.compare("icmp ne", "i64", rest, "0")
        signs = builder.compare("icmp slt", "i64", builder.op("xor", "i64", rest, divisor), "0")
        step = builder.convert("zext", "i1", builder.op("and", "i1", uneven, signs), "i64")
        down = builder.op("sub", "i64", quotient, step)
        return builder.select(minus, "i64", self.checked("sub", "0", a), down)
