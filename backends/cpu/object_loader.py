"""Loads relocatable ELF objects for x86-64 into executable memory, without LLVM.

A kernel from the disk cache is ready in about a millisecond this way, where importing llvmlite
alone takes sixty. It handles what the code generator emits: code and read-only data, no
initialisers and nothing writable.

Source: System V ABI (gABI 4.1), chapter 4; System V AMD64 psABI 1.0, section 4.4.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
from collections.abc import Iterator
from functools import cache

from einloom.ir.errors import BackendError
from einloom.ir.record import record

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_RELOCATABLE, _X86_64 = 1, 62
_SYMBOL_TABLE, _RELOCATIONS, _NO_BITS = 2, 4, 8
_WRITABLE, _ALLOCATED = 1, 2
_UNDEFINED, _ABSOLUTE = 0, 0xFFF1

# Relocation types
_ADDRESS64, _RELATIVE32, _CALL32, _TABLE32, _RELATIVE64, _TABLE32X, _TABLE32RX = (
    1, 2, 4, 9, 24, 41, 42,
)  # fmt: skip
_JUMP = b"\xff\x25\x00\x00\x00\x00"  # jmp *[next]; the address follows
_STUB = 16  # bytes of a jump and the address that it reads


@record
class _Section:
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    target: int
    alignment: int


def is_for_this_system() -> bool:
    """Whether objects for this system have the format that this loader reads."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


class LoadedObject:
    """The sections of one object, placed and linked in memory that is unmapped on release."""

    def __init__(self, data: bytes) -> None:
        """Raises BackendError for a damaged object or one that needs what is not there."""
        try:
            self._load(data)
        except (struct.error, LookupError, OverflowError, ValueError) as error:
            raise BackendError(f"the compiled code is damaged: {error}") from error

    def address(self, symbol: str) -> int | None:
        """Where a global symbol is, None where the object does not define it."""
        return self._symbols.get(symbol)

    def _load(self, data: bytes) -> None:
        sections = _sections(data)
        placed: dict[int, int] = {}  # section number: offset in memory
        end = 0
        for number, section in enumerate(sections):
            if section.flags & _ALLOCATED and section.size:
                if section.flags & _WRITABLE:
                    raise BackendError("internal: the compiled code has writable data")
                alignment = max(1, section.alignment)
                if alignment > mmap.PAGESIZE or section.size > len(data):
                    raise ValueError("a section is larger than the whole")
                end = -(-end // alignment) * alignment
                placed[number] = end
                end += section.size
        table, strings = _symbol_table(data, sections)
        names = [_name(strings, entry[0]) for entry in table]
        outside = sorted(
            {name for entry, name in zip(table, names, strict=True) if entry[3] == _UNDEFINED}
            - {""}
        )
        stubs = -(-end // _STUB) * _STUB
        size = max(1, stubs + _STUB * len(outside))
        memory = mmap.mmap(
            -1,
            size,
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for number, place in placed.items():
            section = sections[number]
            if section.kind != _NO_BITS:
                content = data[section.offset : section.offset + section.size]
                if len(content) != section.size:
                    raise ValueError("a section reaches beyond the end")
                memory[place : place + section.size] = content
        jumps: dict[str, int] = {}
        for number, name in enumerate(outside):
            jumps[name] = stubs + _STUB * number
            stub = _JUMP + struct.pack("<Q", _outside_address(name))
            memory[jumps[name] : jumps[name] + len(stub)] = stub

        def value(symbol: int) -> int:
            """The address of a symbol; of an outside one, that of its jump."""
            _, _, _, home, offset, _ = table[symbol]
            if home == _UNDEFINED:
                return base + jumps[names[symbol]]
            if home == _ABSOLUTE:
                return int(offset)
            return base + placed[home] + int(offset)

        for place, symbol, kind, addend in _relocations(data, sections, placed):
            table_entry = None
            if table[symbol][3] == _UNDEFINED:
                table_entry = base + jumps[names[symbol]] + len(_JUMP)
            _relocate(memory, base, place, kind, addend, value(symbol), table_entry)
        _protect(base, size)
        self._memory = memory
        self._symbols = {
            name: value(number)
            for number, (entry, name) in enumerate(zip(table, names, strict=True))
            if entry[1] >> 4 and entry[3] in placed
        }


def _sections(data: bytes) -> list[_Section]:
    fields = _HEADER.unpack_from(data)
    kind, machine, table, entry_size, count = (
        fields[1],
        fields[2],
        fields[6],
        fields[11],
        fields[12],
    )
    if (kind, machine, entry_size) != (_RELOCATABLE, _X86_64, _SECTION.size):
        raise ValueError("it is not a relocatable object for x86-64")
    sections = []
    for number in range(count):
        (_, kind, flags, _, offset, size, link, target, alignment, _) = _SECTION.unpack_from(
            data, table + number * entry_size
        )
        sections.append(_Section(kind, flags, offset, size, link, target, alignment))
    return sections


def _symbol_table(
    data: bytes, sections: list[_Section]
) -> tuple[list[tuple[int, int, int, int, int, int]], bytes]:
    """Entries (name, info, other, section, value, size), and the text that holds the names."""
    for section in sections:
        if section.kind == _SYMBOL_TABLE:
            table = data[section.offset : section.offset + section.size]
            strings = sections[section.link]
            names = data[strings.offset : strings.offset + strings.size]
            return list(_SYMBOL.iter_unpack(table)), names
    raise ValueError("it has no symbols")


def _name(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(b"\0", offset)].decode("utf-8", "surrogatepass")


def _relocations(
    data: bytes, sections: list[_Section], placed: dict[int, int]
) -> Iterator[tuple[int, int, int, int]]:
    """Place in memory, symbol number, type and addend of every relocation."""
    for section in sections:
        if section.kind != _RELOCATIONS or section.target not in placed:
            continue
        table = data[section.offset : section.offset + section.size]
        limit = sections[section.target].size
        for offset, info, addend in _RELOCATION.iter_unpack(table):
            if not 0 <= offset <= limit - 4:
                raise ValueError("a relocation lies outside its section")
            yield placed[section.target] + offset, info >> 32, info & 0xFFFFFFFF, addend


def _relocate(
    memory: mmap.mmap,
    base: int,
    place: int,
    kind: int,
    addend: int,
    value: int,
    table_entry: int | None,
) -> None:
    """Write one address. `table_entry` is where the address of an outside symbol is kept."""
    relative = value + addend - (base + place)
    if kind in (_RELATIVE32, _CALL32):
        memory[place : place + 4] = struct.pack("<i", relative)
    elif kind in (_TABLE32, _TABLE32X, _TABLE32RX) and table_entry is not None:
        memory[place : place + 4] = struct.pack("<i", table_entry + addend - (base + place))
    elif kind == _ADDRESS64:
        memory[place : place + 8] = struct.pack("<Q", (value + addend) % 2**64)
    elif kind == _RELATIVE64:
        memory[place : place + 8] = struct.pack("<q", relative)
    else:
        raise BackendError(f"internal: the compiled code has a relocation of type {kind}")


@cache
def _library(name: str | None) -> ctypes.CDLL | None:
    """A shared library, the process itself for None; None where the system lacks it."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


@cache
def _outside_address(name: str) -> int:
    """The address of a C function. Raises BackendError where there is none."""
    for source in (None, "libm.so.6"):
        library = _library(source)
        if library is not None and hasattr(library, name):
            address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
            if address:
                return address
    raise BackendError(
        f"the compiled code calls {name}, which the C library of this system does not have"
    )


def _protect(base: int, size: int) -> None:
    """Make the memory executable and no longer writable."""
    protect = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)(
        _outside_address("mprotect")
    )
    if protect(base, size, mmap.PROT_READ | mmap.PROT_EXEC):
        raise BackendError(
            "the system refuses to make memory executable, which compiled kernels need"
        )
