"""The C header of a library: its entry, the structure of arguments, the codes."""

from __future__ import annotations

from einloom.backends.cpu.export.interface import (
    FIRST_SHAPE,
    Interface,
    Member,
    SizeMember,
    packed_parts,
)
from einloom.ir.types import DType, Modular, Scalar, Tuple

_C_TYPES = {
    "bool": "uint8_t", "f16": "uint16_t", "bf16": "uint16_t", "f32": "float", "f64": "double",
    "c64": "float", "c128": "double",
    **{f"i{bits}": f"int{bits}_t" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"uint{bits}_t" for bits in (8, 16, 32, 64)},
}  # fmt: skip
_NOTES = {
    "bool": "0 or 1",
    "f16": "the bits of IEEE half precision",
    "bf16": "the upper 16 bits of a float",
    "c64": "2 floats per element: real, imaginary",
    "c128": "2 doubles per element: real, imaginary",
}


def c_type(dtype: DType) -> str:
    """What `data` points to."""
    if isinstance(dtype, Modular):
        return "uint64_t"
    return _C_TYPES[dtype.name] if isinstance(dtype, Scalar) else "void"


def header(interface: Interface) -> str:
    """The text of the header, which C99 and C++11 compilers take."""
    name = interface.name
    guard = f"{name.upper()}_H"
    return "\n".join(
        [
            f"/* {commented(_summary(interface))} */",
            f"#ifndef {guard}",
            f"#define {guard}",
            "",
            "#include <stdint.h>",
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            *_structure(interface),
            "",
            *_codes(interface),
            "",
            "/* Runs the program. Returns 0, or the code of what is wrong; results are then",
            "   undefined. Any number of threads may call it at once. */",
            f"int32_t {name}(const struct {name}_arguments *arguments);",
            "",
            "/* What a code means: a constant text, in English. */",
            f"const char *{name}_message(int32_t code);",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "",
            "#endif",
            "",
        ]
    )


def commented(text: str) -> str:
    """A text that neither ends a comment nor looks as if it began one."""
    return text.replace("*/", "* /").replace("/*", "/ *").replace("\n", " ").replace("\r", " ")


def _summary(interface: Interface) -> str:
    names = " and ".join(level.name for level in interface.processor.levels)
    return f"{interface.program}, compiled by Einloom for {names} (Linux)."


def _structure(interface: Interface) -> list[str]:
    lines = [
        "/* Extents are in elements. strides, in elements too, may be null: the tensor is then",
        "   C-contiguous, its last rank innermost. The stride of the last rank must be 1. Data",
        "   must be aligned to its elements. Results overlap neither each other nor inputs. */",
        f"struct {interface.name}_arguments {{",
    ]
    for item in (*interface.inputs, *interface.outputs):
        lines += _size(item) if isinstance(item, SizeMember) else _tensor(item)
    return [
        *lines,
        "    /* Null, or where an index outside its tensor, and the extent there, are put. */",
        "    int64_t *fault;",
        "    /* How many threads may work on it; 0 and 1: only the one that calls. */",
        "    int32_t threads;",
        "};",
    ]


def _size(item: SizeMember) -> list[str]:
    return [f"    /* input {commented(item.name)}: an extent */", f"    int64_t {item.member};"]


def _tensor(item: Member) -> list[str]:
    role = "result" if item.written else "input"
    notes = "; ".join([f"{role} {item.name}: {item.type}", *_notes(item.type.dtype)])
    const = "" if item.written else "const "
    lines = [
        f"    /* {commented(notes)} */",
        "    struct {",
        f"        {const}{c_type(item.type.dtype)} *data;",
    ]
    if item.rank:
        lines.append(f"        int64_t extents[{item.rank}];")
        lines.append("        const int64_t *strides;")
    return [*lines, f"    }} {item.member};"]


def _notes(dtype: DType) -> list[str]:
    match dtype:
        case Scalar() if dtype.name in _NOTES:
            return [_NOTES[dtype.name]]
        case Modular():
            return [f"values below {dtype.modulus}, which is not checked"]
        case Tuple():
            parts = ", ".join(f"{part} at byte {place}" for part, place in packed_parts(dtype))
            return [f"packed: {parts}"]
    return []


def _codes(interface: Interface) -> list[str]:
    prefix = interface.name.upper()
    names = ("OK", "NULL", "LAYOUT", "MEMORY", "PROCESSOR", "SIZE")
    lines = ["enum {"]
    for code, name in enumerate(names):
        lines.append(f"    /* {commented(interface.messages[code])} */")
        lines.append(f"    {prefix}_{name} = {code},")
    end = interface.first_fault - 1
    lines.append(f"    /* {FIRST_SHAPE} to {end}: shapes that do not fit")
    lines += _listed(interface, FIRST_SHAPE, interface.first_fault)
    lines[-1] += " */"
    lines.append(f"    {prefix}_FIRST_SHAPE = {FIRST_SHAPE},")
    lines.append(f"    /* from {interface.first_fault}: an index outside its tensor")
    last = max(interface.messages) + 1
    lines += _listed(interface, interface.first_fault, max(last, interface.first_fault))
    lines[-1] += " */"
    lines.append(f"    {prefix}_FIRST_INDEX = {interface.first_fault}")
    return [*lines, "};"]


def _listed(interface: Interface, first: int, end: int) -> list[str]:
    return [
        f"       {code} {commented(interface.messages[code])}"
        for code in range(first, end)
        if code in interface.messages
    ]
