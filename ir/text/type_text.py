"""The text of dtypes and level formats."""

from __future__ import annotations

from einloom.ir.text.spelling import spell_value
from einloom.ir.types import DType, Level, Modular, Quantized, Scalar, Scale, Tuple


def dtype_text(dtype: DType) -> str:
    """The text of a dtype; tuples may nest to any depth."""
    out: list[str] = []
    pending: list[DType | str] = [dtype]
    while pending:
        current = pending.pop()
        if isinstance(current, str):
            out.append(current)
        elif isinstance(current, Tuple):
            parts: list[DType | str] = ["("]
            for k, item in enumerate(current.items):
                parts += [", ", item] if k else [item]
            parts.append(",)" if len(current.items) == 1 else ")")
            pending.extend(reversed(parts))
        else:
            out.append(_plain_dtype_text(current))
    return "".join(out)


def _plain_dtype_text(dtype: DType) -> str:
    match dtype:
        case Scalar():
            return dtype.name
        case Modular():
            return f"zq<{dtype.modulus}>"
        case Quantized():
            return _quantized_text(dtype)
    from einloom.ir.loops import Vector  # a level that the text of a program does without

    if isinstance(dtype, Vector):
        return f"{dtype_text(dtype.element)}x{dtype.lanes}"
    raise TypeError(f"{type(dtype).__name__} is no dtype")


def _quantized_text(dtype: Quantized) -> str:
    codes = list(dtype.codes)
    if "table" in codes:
        values = ", ".join(spell_value(literal.value)[0] for literal in dtype.table)
        codes[codes.index("table")] = f"table({values})"
    parts = ["|".join(codes)]
    parts += [f"scale={scale_text(scale)}" for scale in dtype.scales]
    if dtype.offset is not None:
        parts.append(f"offset={scale_text(dtype.offset)}")
    if dtype.selector is not None:
        parts.append(f"select{_block_text(dtype.selector)}")
    return f"q<{', '.join(parts)}>"


def scale_text(scale: Scale) -> str:
    return scale.dtype.name + _block_text(scale.block)


def _block_text(block: tuple[int, ...]) -> str:
    return "@" + "x".join(str(size) if size else "*" for size in block) if block else ""


def level_text(level: Level) -> str:
    if not level.parameters:
        return level.kind
    separator = ":" if level.kind == "nm" else ", "
    return f"{level.kind}<{separator.join(map(str, level.parameters))}>"
