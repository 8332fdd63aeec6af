"""Names of a program as identifiers of C and C++ that clash with nothing."""

from __future__ import annotations

import re
from collections.abc import Collection

from einloom.ir.errors import UnsupportedError
from einloom.ir.names import unique_name

KEYWORDS = frozenset(
    """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t
    char8_t class co_await co_return co_yield compl concept const const_cast consteval constexpr
    constinit continue contract_assert decltype default delete do double dynamic_cast else enum
    explicit export extern false float for friend goto if inline int linux long mutable namespace
    new noexcept not not_eq nullptr operator or or_eq private protected public register
    reinterpret_cast requires restrict return short signed sizeof static static_assert static_cast
    struct switch template this thread_local throw true try typedef typeid typename typeof
    typeof_unqual union unix unsigned using virtual void volatile wchar_t while xor xor_eq
    """.split()  # noqa: SIM905
)

_DEFINED = re.compile(
    r"u?int(_(least|fast))?(8|16|32|64)_t|u?int(ptr|max)_t|(size|ptrdiff|max_align|nullptr)_t"
    r"|U?INT(_(LEAST|FAST))?(8|16|32|64)_(MIN|MAX|C|WIDTH)|U?INT(PTR|MAX)_(MIN|MAX|C|WIDTH)"
    r"|(SIZE|PTRDIFF|SIG_ATOMIC|WCHAR|WINT)_(MIN|MAX|WIDTH)"
    r"|NULL|EOF|offsetof|errno|stdin|stdout|stderr"
)
"""Types and macros of <stdint.h>, which every header includes, and what programs mostly include."""

_MATHEMATICAL = """
    acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 fabs
    fdim floor fma fmax fmin fmod frexp hypot ilogb ldexp lgamma llrint llround log log10 log1p
    log2 logb lrint lround modf nan nearbyint nextafter nexttoward pow remainder remquo rint round
    scalbln scalbn sin sincos sinh sqrt tan tanh tgamma trunc j0 j1 jn y0 y1 yn gamma exp10 pow10
    cabs carg cimag conj cpow cproj creal cexp clog csqrt csin ccos ctan
    """.split()  # noqa: SIM905

LIBRARY_NAMES = frozenset(
    [name + end for name in _MATHEMATICAL for end in ("", "f", "l")]
    + """
    abort abs accept access alarm atexit atof atoi atol bind bsearch calloc chdir clock close
    connect div dup environ errno exit fclose fopen fork fprintf fputs fread free fwrite getc getenv
    getpid index isalpha isdigit isspace kill labs link listen llabs longjmp main malloc memchr
    memcmp memcpy memmove memset open pause perror pipe printf pthread_create pthread_join putc
    puts qsort raise rand read
    realloc recv remove rename rewind rindex scanf select send signal sleep snprintf socket sprintf
    srand stat stderr stdin stdout strcat strchr strcmp strcpy strlen strncmp strncpy strstr strtol
    sync system time times tolower toupper truncate unlink wait write
    """.split()  # noqa: SIM905
)
"""Functions of C and POSIX: an entry of such a name would stand in for them."""


def c_identifier(name: str) -> str:
    """ASCII letters, digits and underscores, no digit first; of reserved names none."""
    text = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)
    # a leading underscore belongs to the implementation in some places, a digit is none
    if not text or not text[0].isalpha():
        text = f"x{text}"
    text = text.replace("__", "_")
    return f"{text}_" if text in KEYWORDS or _DEFINED.fullmatch(text) else text


def entry_name(program: str, wanted: str | None = None) -> str:
    """The C name of a program's entry: `wanted`, or one made of the program's own name.

    Raises UnsupportedError for a wanted name that is not a free identifier.
    """
    if wanted is None:
        name = c_identifier(program)
        return f"{name}_program" if name in LIBRARY_NAMES else name
    if wanted != c_identifier(wanted) or wanted in LIBRARY_NAMES:
        raise UnsupportedError(
            f"{wanted!r} cannot be the name of a C function here",
            suggestion="letters, digits and single underscores, a letter first, and no name of C",
        )
    return wanted


def member_name(name: str, taken: Collection[str]) -> str:
    """The C name of a member of a structure, beside those that are taken."""
    return unique_name(c_identifier(name), taken)
