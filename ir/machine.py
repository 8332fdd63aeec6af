"""What a CPU is, as far as the shape of its loops depends on it: registers and caches."""

from __future__ import annotations

from einloom.ir.record import record

SMALLEST = 40 * 40 * 40
"""Multiplications below which packing a product does not pay for the code that it takes."""
SMALLEST_COPY = 1 << 14
"""Cells below which a transposition is not cut into tiles."""


@record
class Machine:
    """Vector registers and data caches of one core, sizes in bytes.

    `byte_dots`, `bfloat_dots`: whether one instruction adds products of neighbouring bytes to
    i32 sums, and of neighbouring bf16 numbers to f32 sums (on x86 VNNI and AVX512-BF16; matrix
    tiles, as AMX has them, would be a third kind). The defaults are the least that a 64-bit x86
    or Arm processor has.
    """

    vector_bytes: int = 16
    vector_registers: int = 16
    first_cache: int = 32 << 10
    second_cache: int = 256 << 10
    byte_dots: bool = False
    bfloat_dots: bool = False

    def lanes(self, element_bytes: int) -> int:
        """Elements of one vector register."""
        return max(1, self.vector_bytes // element_bytes)
