"""Values carried through loops and out of branches: phi nodes, one per register."""

from __future__ import annotations

from collections.abc import Sequence

from einloom.backends.cpu.builder import phi_text
from einloom.backends.cpu.emit_cast import convert, widened
from einloom.backends.cpu.emit_expression import Memo, Scope, evaluate
from einloom.backends.cpu.values import Value, is_complex, register_type
from einloom.ir.errors import BackendError
from einloom.ir.expressions import Expression
from einloom.ir.loops import Carried, Vector
from einloom.ir.types import DType


class CarriedValues:
    """The carried values of one loop or branch, from before it to after it."""

    def __init__(self, carried: Sequence[Carried], scope: Scope, memo: Memo) -> None:
        """Evaluates the initial values in the current block."""
        self.carried = carried
        self.scope = scope
        self.builder = scope.builder
        values = [evaluate(item.initial, scope, memo) for item in carried]
        self.initial = self._as_carried(values)
        self._phis: list[tuple[int, str, str]] = []  # reserved line, name, type

    def enter(self) -> None:
        """Name a loop's phi nodes, first in its block; `close` fills in their text."""
        for item in self.carried:
            element, lanes = _shape(item.dtype)
            machine_type = register_type(element, lanes)
            names = []
            for _ in range(2 if is_complex(element) else 1):
                name = self.builder.name(item.name)
                self._phis.append((self.builder.reserve(), name, machine_type))
                names.append(name)
            self.scope.values[item.name] = Value(element, tuple(names), lanes)

    def bind(self, values: list[Value]) -> None:
        """Make these the current values: in a branch of an `if`, or a turn of no loop."""
        for item, value in zip(self.carried, values, strict=True):
            self.scope.values[item.name] = value

    def yielded(self, yields: Sequence[Expression]) -> list[Value]:
        """What a body yields, evaluated in the current block."""
        if len(self.carried) != len(yields):
            raise BackendError(
                f"internal: {len(self.carried)} values are carried and {len(yields)} are yielded"
            )
        memo = Memo()
        return self._as_carried([evaluate(x, self.scope, memo) for x in yields])

    def close(self, before: str, final: list[Value], latch: str) -> None:
        """Fill in the phi nodes of a loop entered from block `before` and from its latch."""
        for (position, name, machine_type), first, last in zip(
            self._phis, _parts(self.initial), _parts(final), strict=True
        ):
            incoming = phi_text(machine_type, ((first, before), (last, latch)))
            self.builder.fill(position, f"{name} = phi {incoming}")

    def leave(
        self, first: list[Value], first_block: str, second: list[Value], second_block: str
    ) -> None:
        """Bind the carried names to their final values, first in a block that joins two."""
        for item, a, b in zip(self.carried, first, second, strict=True):
            parts = tuple(
                self.builder.phi(a.machine_type, ((x, first_block), (y, second_block)), item.name)
                for x, y in zip(a.parts, b.parts, strict=True)
            )
            self.scope.values[item.name] = Value(a.dtype, parts, a.lanes)

    def _as_carried(self, values: list[Value]) -> list[Value]:
        """Values in the dtypes and lanes that they are carried in."""
        results = []
        for value, item in zip(values, self.carried, strict=True):
            element, lanes = _shape(item.dtype)
            if value.lanes not in (1, lanes):
                raise BackendError(
                    f"internal: {item.name} carries {lanes} lanes and gets {value.lanes}"
                )
            converted = widened(self.builder, convert(self.builder, value, element), lanes)
            # It may change from turn to turn without bounds: not a sum of indices any more.
            results.append(converted.replace(affine=False))
        return results


def _shape(dtype: DType) -> tuple[DType, int]:
    return (dtype.element, dtype.lanes) if isinstance(dtype, Vector) else (dtype, 1)


def _parts(values: list[Value]) -> list[str]:
    return [part for value in values for part in value.parts]
