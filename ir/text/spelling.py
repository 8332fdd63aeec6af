"""How names and numbers are spelled in the text, both ways."""

from __future__ import annotations

import json
import math
import re
import struct

from einloom.ir.expressions import Value
from einloom.ir.ops import MONOIDS
from einloom.ir.types import SCALARS

RESERVED = frozenset(
    ("and", "cast", "False", "from", "if", "inf", "infj", "nan", "nanj", "not", "or", "True",
     "until", "where"),
)  # fmt: skip
"""Words that name nothing unless they stand in backquotes. Reducers are reserved, too."""

VIEWS = ("final", "codes", "scales")
"""What may be read of a tensor instead of its values: `final(RM)[p]`."""

SPECIAL_CALLS = frozenset(("iota", "complex", *VIEWS, *SCALARS))
"""Names that are called like an operation and are none, casts among them; a definition may
bear one, and is then called in backquotes."""

LOOP_RESERVED = frozenset(("across", "carry", "in", "slices", "step", "work"))
"""Words that name nothing at the loops level, either: they stand in front of expressions or
behind them."""

PLAIN_NAME = re.compile(r"[^\W\d]\w*", re.ASCII)

CANONICAL_NAN = 0x7FF8000000000000


# ---- names --------------------------------------------------------------------------------


def spell_name(name: str, reserved: frozenset[str] = frozenset()) -> str:
    """`name` as it stands in the text: in backquotes where it would not read back bare.

    `reserved` holds the reducers that the module defines; the builtin ones count anyway.
    """
    plain = PLAIN_NAME.fullmatch(name) or name.isidentifier()
    if name == "zq":  # `zq < 8 >> 2` would begin with a dtype
        return quoted(name)
    if plain and name not in RESERVED and name not in MONOIDS and name not in reserved:
        return name
    return quoted(name)


def quoted(name: str) -> str:
    """`name` in backquotes."""
    return "`" + "".join(map(_escape, name)) + "`"


def _escape(character: str) -> str:
    if character in "`\\":
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([`\\]))")
_BACKSLASH = re.compile(r"\\.?")


def read_quoted_name(text: str) -> str:
    """The name that stands in backquotes; ValueError says what is wrong with it."""
    inner = text[1:-1]
    if not inner:
        raise ValueError("the name between the backquotes is empty")
    if "\\" not in inner:
        return inner
    rest = _BACKSLASH.search(_ESCAPED.sub("", inner))
    if rest:
        raise ValueError(f"unknown escape {rest.group()} in a name")
    return _ESCAPED.sub(_unescape, inner)


def _unescape(match: re.Match[str]) -> str:
    short, long, itself = match.groups()
    if itself:
        return str(itself)
    code = int(short or long, 16)
    if code > 0x10FFFF:
        raise ValueError(f"{match.group()} is no character")
    return chr(code)


def spell_string(text: str) -> str:
    """A file name in double quotes."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def read_string(text: str) -> str:
    """The string that stands in double quotes; ValueError says what is wrong with it."""
    try:
        return str(json.loads(text))
    except json.JSONDecodeError:
        raise ValueError(
            "a string takes the escapes of JSON, for example \\\\ and \\u00e9"
        ) from None


# ---- numbers ------------------------------------------------------------------------------


def float_bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def float_of_bits(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


def is_negative(value: float) -> bool:
    """Whether the sign bit is set, on a number that is not NaN."""
    return not math.isnan(value) and math.copysign(1.0, value) < 0


def spell_float(value: float) -> str:
    """The shortest text that reads back as these 64 bits."""
    if math.isnan(value):
        bits = float_bits(value)
        return "nan" if bits == CANONICAL_NAN else f"nan(0x{bits:016x})"
    return repr(value)


def spell_value(value: Value) -> tuple[str, bool]:
    """The text of a literal, and whether it begins with a sign."""
    if isinstance(value, bool):
        return str(value), False
    if isinstance(value, int):
        return str(value), value < 0
    if isinstance(value, float):
        return spell_float(value), is_negative(value)
    negative = is_negative(value.imag)
    # `-2.0j` negates both components, as it does in Python, so it stands for (-0.0, -2.0)
    if value.real == 0 and is_negative(value.real) == negative and value.imag == value.imag:
        return f"{spell_float(value.imag)}j", negative
    return f"complex({spell_float(value.real)}, {spell_float(value.imag)})", False


def read_number(text: str) -> Value:
    """The value of a number token without a sign; ValueError says what is wrong with it."""
    word = _WORDS.get(text)
    if word is not None:
        return word
    if text[-1] == "j":
        imaginary = read_number(text[:-1])
        return complex(0.0, float(imaginary.real))
    if text.startswith("nan"):
        return _nan(text)
    if text[:2] in ("0x", "0X"):
        value = int(text, 16)
        # nodes hash decimal digits, of which Python converts a limited number
        str(value)
        return value
    if text.isdigit():
        return int(text)
    return _float(text)


_WORDS: dict[str, Value] = {
    "True": True,
    "False": False,
    "inf": math.inf,
    "nan": float_of_bits(CANONICAL_NAN),
}


def _nan(text: str) -> float:
    value = float_of_bits(nan_bits(text))
    if not math.isnan(value):
        raise ValueError(f"{text} are not the bits of a NaN; write all 64 of them")
    return value


def nan_bits(text: str) -> int:
    """The bits inside `nan(0x...)`; ValueError where there are more than 64."""
    bits = int(text[4:-1], 16)
    if bits >> 64:
        raise ValueError(f"{text} has more than 64 bits")
    return bits


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is larger than any float; write inf")
    return value
