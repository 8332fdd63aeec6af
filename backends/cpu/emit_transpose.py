"""Square blocks of vectors transposed in registers, by shuffles of two vectors at a time.

Two networks follow one another, both of which any vector instruction set has instructions for.
Within pieces of 16 bytes, neighbouring lanes of two vectors are interleaved (`punpckl`, `zip1`);
then whole pieces are exchanged between vectors (`vperm2f128`, `vshuff64x2`, or nothing at all
where a register has 16 bytes). Each stage costs one instruction per vector.
"""

from __future__ import annotations

from collections.abc import Sequence

from einloom.backends.cpu.builder import FunctionBuilder, bits_of, lanes_of, with_element
from einloom.backends.cpu.emit_cast import from_memory
from einloom.backends.cpu.values import Value
from einloom.ir.errors import BackendError

PIECE_BITS = 128


def transposed(builder: FunctionBuilder, values: Sequence[Value]) -> list[Value]:
    """Vectors whose lane i of number k is lane k of value i, or groups of neighbouring lanes."""
    first = values[0]
    count = len(values)
    same = all((value.dtype, value.lanes) == (first.dtype, first.lanes) for value in values)
    if not same or first.lanes % count:
        raise BackendError(f"internal: {count} vectors are transposed that do not form a square")
    if count & (count - 1):
        raise BackendError(f"internal: {count} vectors are transposed, which is no power of two")
    if all(value.in_memory for value in values):  # 16-bit floats, as memory holds them
        machine_type = with_element(first.machine_type, "i16")
        moved = _grouped(builder, machine_type, [value.in_memory for value in values])
        return [
            Value(
                first.dtype,
                (from_memory(builder, first.dtype, first.lanes, bits),),
                first.lanes,
                in_memory=bits,
            )
            for bits in moved
        ]
    parts = [
        _grouped(builder, first.machine_type, [value.parts[k] for value in values])
        for k in range(len(first.parts))
    ]
    return [Value(first.dtype, part, first.lanes) for part in zip(*parts, strict=True)]


def _grouped(builder: FunctionBuilder, machine_type: str, rows: list[str]) -> list[str]:
    """The network over groups of neighbouring lanes, as many as there are rows."""
    group = lanes_of(machine_type) // len(rows)
    if group == 1:
        return _network(builder, machine_type, rows)
    whole = f"<{len(rows)} x i{group * bits_of(machine_type)}>"
    rows = [builder.convert("bitcast", machine_type, row, whole) for row in rows]
    rows = _network(builder, whole, rows)
    return [builder.convert("bitcast", whole, row, machine_type) for row in rows]


def _network(builder: FunctionBuilder, machine_type: str, rows: list[str]) -> list[str]:
    if bits_of(machine_type) == 1:  # truth values are shuffled as bytes, not as mask registers
        bytes_type = with_element(machine_type, "i8")
        rows = [builder.convert("zext", machine_type, row, bytes_type) for row in rows]
        rows = _network(builder, bytes_type, rows)
        return [builder.convert("trunc", bytes_type, row, machine_type) for row in rows]
    count = lanes_of(machine_type)
    piece = min(count, PIECE_BITS // bits_of(machine_type))
    for group in range(0, count, piece):
        rows[group : group + piece] = _interleaved(
            builder, machine_type, rows[group : group + piece], piece
        )
    for start in range(piece):
        rows[start::piece] = _exchanged(builder, machine_type, rows[start::piece], piece)
    return rows


def _interleaved(
    builder: FunctionBuilder, machine_type: str, rows: list[str], piece: int
) -> list[str]:
    """As many vectors as a piece has lanes, with every piece transposed among them.

    Each stage riffles the vectors and the lanes of their pieces; after as many stages as the
    count has bits the two have changed places.
    """
    pieces = range(0, lanes_of(machine_type), piece)
    half = piece // 2
    masks = [
        [lane for at in pieces for k in range(half) for lane in _pair(at + side + k, machine_type)]
        for side in (0, half)
    ]
    for _ in range(piece.bit_length() - 1):
        rows = [
            _shuffle(builder, machine_type, rows[k], rows[k + half], mask)
            for k in range(half)
            for mask in masks
        ]
    return rows


def _exchanged(
    builder: FunctionBuilder, machine_type: str, rows: list[str], piece: int
) -> list[str]:
    """As many vectors as there are pieces in one, with whole pieces transposed among them.

    Each stage takes the even pieces of two vectors, and the odd ones: a riffle backwards.
    """
    count = len(rows)
    masks = [
        [2 * piece * k + piece * odd + lane for k in range(count) for lane in range(piece)]
        for odd in (0, 1)
    ]
    for _ in range(count.bit_length() - 1):
        rows = [
            _shuffle(builder, machine_type, rows[k], rows[k + 1], mask)
            for mask in masks
            for k in range(0, count, 2)
        ]
    return rows


def _pair(lane: int, machine_type: str) -> tuple[int, int]:
    """The same lane of the first and of the second operand of a shuffle."""
    return lane, lane + lanes_of(machine_type)


def _shuffle(
    builder: FunctionBuilder, machine_type: str, first: str, second: str, mask: Sequence[int]
) -> str:
    lanes = ", ".join(f"i32 {lane}" for lane in mask)
    operands = f"{machine_type} {first}, {machine_type} {second}"
    return builder.value(f"shufflevector {operands}, <{len(mask)} x i32> <{lanes}>")
