"""Types: dtypes, level formats, and tensor types with named ranks."""

from __future__ import annotations

from einloom.ir.expressions import Expression, Literal
from einloom.ir.node import Node, node

BOOL, SIGNED, UNSIGNED, FLOAT, COMPLEX = "bool", "signed", "unsigned", "float", "complex"


@node
class DType(Node):
    """Base of the element types."""


@node
class Scalar(DType):
    """A machine dtype, named as in the text: `bool`, `i32`, `bf16`, `c64`, ..."""

    name: str

    @property
    def kind(self) -> str:
        return SCALARS[self.name][0]

    @property
    def bits(self) -> int:
        """Bits of storage per element."""
        return SCALARS[self.name][1]

    @property
    def is_integer(self) -> bool:
        return self.kind in (SIGNED, UNSIGNED)


@node
class Modular(DType):
    """`zq<q>`: integers modulo q (2 <= q < 2^63), stored as u64. It mixes only with itself."""

    modulus: int


@node
class Tuple(DType):
    """A tuple of dtypes, `(f32, i64)`; arrays of it are NumPy structured arrays f0, f1, ..."""

    items: tuple[DType, ...]


@node
class Scale(Node):
    """One level of scales of a quantized dtype: their dtype and the block each one covers.

    `block` has one extent per rank; 0 stands for the whole rank, `()` for one scale in all.
    """

    dtype: Scalar
    block: tuple[int, ...] = ()


@node
class Quantized(DType):
    """`q<code, scale..., offset, select>`: reading such a tensor yields the real value.

    value = (decode(code) - offset) * product of the scales. `code` is an integer dtype with
    any width (`i4`, `u3`), a float given as exponent and mantissa bits (`e4m3`), or a table.
    With a selector, each block picks one of several codes.
    """

    codes: tuple[str, ...]
    table: tuple[Literal, ...] = ()
    scales: tuple[Scale, ...] = ()
    offset: Scale | None = None
    selector: tuple[int, ...] | None = None


SCALARS: dict[str, tuple[str, int]] = {
    "bool": (BOOL, 8),
    **{f"i{bits}": (SIGNED, bits) for bits in (8, 16, 32, 64)},
    **{f"u{bits}": (UNSIGNED, bits) for bits in (8, 16, 32, 64)},
    "f16": (FLOAT, 16),
    "bf16": (FLOAT, 16),
    "f32": (FLOAT, 32),
    "f64": (FLOAT, 64),
    "c64": (COMPLEX, 64),
    "c128": (COMPLEX, 128),
}

bool_, i8, i16, i32, i64, u8, u16, u32, u64, f16, bf16, f32, f64, c64, c128 = (
    Scalar(name) for name in SCALARS
)


@node
class Rank(Node):
    """One dimension of a tensor type: a label and an extent (an index expression of symbols)."""

    name: str
    extent: Expression


@node
class Level(Node):
    """How one stored dimension is kept: `dense`, `compressed`, `nm<2:4>`, `block<16>`, ..."""

    kind: str
    parameters: tuple[int, ...] = ()


@node
class TensorType(Node):
    """`dtype[rank=extent, ...] (level, ...) fill value enc`."""

    dtype: DType
    ranks: tuple[Rank, ...] = ()
    format: tuple[Level, ...] = ()
    fill: Literal | None = None
    encrypted: bool = False

    @property
    def extents(self) -> tuple[Expression, ...]:
        return tuple(rank.extent for rank in self.ranks)
