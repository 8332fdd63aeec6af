"""A token that does not fit, told in the words of the person who wrote the text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches

from einloom.ir.errors import Location, ParseError
from einloom.ir.ops import MONOIDS
from einloom.ir.text.lexer import Lexer, Token
from einloom.ir.text.spelling import RESERVED

# Sets of tokens that stand for one thing a reader knows, largest first.
_GROUPS = (
    ("a statement", frozenset(("NAME", "FOR", "WHILE", "IF", "LET", "ALLOC", "CHECK", "CALL",
                               "APPEND", "HASH", "ATOMIC", "MMA", "PACK", "YIELD"))),
    ("an expression", frozenset(("NAME", "INTEGER", "NUMBER", "LPAR", "MINUS", "PREFIX",
                                 "MODULAR", "CAST", "ACROSS", "HASH"))),
    ("an expression", frozenset(("NAME", "INTEGER", "NUMBER", "LPAR", "MINUS", "PREFIX",
                                 "MODULAR", "CAST"))),
    ("a statement", frozenset(("NAME", "LPAR", "SCAN", "CONST", "KERNEL"))),
    ("an operator", frozenset(("INFIX", "MINUS", "LESSTHAN", "MORETHAN", "VBAR"))),
    ("a dtype", frozenset(("NAME", "MODULAR", "LPAR"))),
    ("a number", frozenset(("INTEGER", "NUMBER", "MINUS"))),
    ("a kernel, storage, launch or fault", frozenset(("KERNEL", "STORAGE", "LAUNCH", "FAULT"))),
    ("a mapping entry", frozenset(("LOOPS", "TILE", "SPATIAL", "PLACE", "INTERLEAVE"))),
    ("a layout entry", frozenset(("STRIDES", "ORDER", "ALIAS", "DONATE"))),
)  # fmt: skip

_READABLE = {
    "NAME": "a name", "INTEGER": "a whole number", "NUMBER": "a number", "STRING": "a string",
    "DIGEST": "sha256:...", "AT": "a version such as @1", "PROJECT": "a component such as .0",
    "_SEPARATOR": "a new line", "$END": "the end of the text", "REDUCER": "a reducer",
    "LPAR": "`(`", "RPAR": "`)`", "LSQB": "`[`", "RSQB": "`]`", "LBRACE": "`{`", "RBRACE": "`}`",
    "COMMA": "`,`", "COLON": "`:`", "EQUAL": "`=`", "QMARK": "`?`", "ARROW": "`->`",
    "LESSTHAN": "`<`", "MORETHAN": "`>`", "VBAR": "`|`", "MINUS": "`-`", "INFIX": "an operator",
    "RANGE": "`..`", "SEMICOLON": "`;`", "LANES": "`<16>`",
    "MODULAR": "`zq<17>`", "DIMENSIONS": "`4x1`", "PREFIX": "`not`",
}  # fmt: skip

# The order in which expected things are named; what is not listed comes last.
_ORDER = (
    "`=`", "`..`", "`)`", "`]`", "`>`", "`:`", "`from`", "`->`", "an expression", "a statement",
    "a name", "a dtype", "a whole number", "a number", "an operator", "a new line", "`}`", "`,`",
    "`{`", "`(`", "`[`", "`program`", "`fn`", "`monoid`",
)  # fmt: skip

MAXIMUM_NAMED = 3

Slip = Callable[[Token | None, set[str], Lexer], str | None]
"""What the person probably meant: the token (None: the end), what would fit, where."""

_OPERAND_ENDS = frozenset(("NAME", "INTEGER", "NUMBER", "RPAR", "RSQB", "PROJECT"))


def expected_things(accepted: Iterable[str]) -> list[str]:
    """Readable names of the tokens that would fit, the most telling first."""
    left = set(accepted)
    found: list[str] = []
    for name, group in _GROUPS:
        if group <= left:
            found.append(name)
            left -= group
    found.extend(_READABLE.get(token, f"`{token.lower()}`") for token in left)
    if "a new line" in found and "`}`" in found:
        found.remove("`}`")
    found = list(dict.fromkeys(found))
    rank = {name: k for k, name in enumerate(_ORDER)}
    return sorted(found, key=lambda name: (rank.get(name, len(rank)), name))[:MAXIMUM_NAMED]


def _listed(things: list[str]) -> str:
    if len(things) == 1:
        return things[0]
    return f"{', '.join(things[:-1])} or {things[-1]}"


def _shown(kind: str, text: str) -> str:
    if kind == "_SEPARATOR":
        return "the end of the line" if text == "\n" else "`;`"
    return f"`{text}`" if len(text) <= 40 else f"`{text[:37]}...`"


def misplaced(token: Token | None, accepted: Iterable[str], lexer: Lexer, slip: Slip) -> ParseError:
    """The error for `token` (None: the end of the text) where one of `accepted` fits."""
    kind, before = lexer.before, lexer.before_text
    accepted = set(accepted)
    if kind in _OPERAND_ENDS and accepted & {"IF", "UNTIL"}:
        accepted.add("INFIX")  # the parser has closed the expression before it stumbled
    things = expected_things(accepted)
    at_start = token is not None and not lexer.source.text[: token.start].strip()
    behind = "" if kind == "_SEPARATOR" or at_start else f" after {_shown(kind, before)}"
    found = "the end of the text" if token is None else _shown(token.type, token.text)
    message = f"expected {_listed(things)}{behind}, found {found}"
    unclosed = _unclosed(token, lexer)
    if unclosed is not None:
        return unclosed
    return ParseError(
        message, location=_location(token, lexer), suggestion=slip(token, accepted, lexer)
    )


def _location(token: Token | None, lexer: Lexer) -> Location:
    if token is None:
        end = len(lexer.source.text.rstrip())
        return Location(lexer.source, end, end + 1)
    return Location(lexer.source, token.start, token.end)


def _unclosed(token: Token | None, lexer: Lexer) -> ParseError | None:
    """The bracket that swallowed the end of a line, where that explains the error."""
    inside = lexer.open_brackets
    if token is None or not inside or lexer.bracket not in ("(", "["):
        return None
    opening = inside[-1][1]
    text = lexer.source.text
    line_start = text.rfind("\n", 0, token.start) + 1
    begins_line = not text[line_start : token.start].strip()
    if opening >= line_start or not (begins_line or token.type in ("EQUAL", "COLON")):
        return None
    closing = ")" if lexer.bracket == "(" else "]"
    line, _ = lexer.source.line_and_column(token.start)
    return ParseError(
        f"this {lexer.bracket} is not closed before line {line}",
        location=Location(lexer.source, opening, opening + 1),
        suggestion=f"close it with {closing}",
    )


def slip(token: Token | None, accepted: set[str], lexer: Lexer) -> str | None:
    """What the person probably meant."""
    if token is None:
        if "PROGRAM" in accepted:
            return "a text holds one program: program name(inputs) -> (outputs) { ... }"
        return None
    text, kind = token.text, token.type
    if "PROGRAM" in accepted or (kind == "NAME" and "MAPPING" in accepted):
        return "statements stand in a program: program name(inputs) -> (outputs) { ... }"
    if kind == "REDUCER" and "INFIX" not in accepted:
        if "NAME" in accepted and "INTEGER" not in accepted:
            return f"{text} is a reducer; to name something else so, write `{text}`"
        return (
            "a reducer stands in front of the whole right side; "
            "define the reduced tensor in a statement of its own"
        )
    known = slip_at_any_level(token, accepted, lexer)
    if known is not None:
        return known
    if kind == "COLON" and "EQUAL" in accepted:
        return "write = alone"
    if "FROM" in accepted:
        return "a scan says what it starts from: scan t < T from { ... } { ... }"
    if lexer.before == "NAME" and lexer.before_text == "call" and kind == "NAME":
        return f"a call names its version: call {text}@1(...)"
    if "INFIX" in accepted and kind in ("NAME", "INTEGER", "NUMBER", "LPAR", "REDUCER"):
        return _missing_reducer(token, lexer)
    return None


def slip_at_any_level(token: Token, accepted: set[str], lexer: Lexer) -> str | None:
    """What was probably meant, where that has nothing to do with the level of the text."""
    text, kind = token.text, token.type
    if text in RESERVED and "NAME" in accepted:
        return f"{text} is a reserved word; to name something so, write `{text}`"
    if text == "==" and "EQUAL" in accepted:
        return "= defines, == compares"
    if kind == "EQUAL":
        if lexer.bracket == "[" and "RSQB" in accepted:
            return "the [ in front of it is not closed"
        if "INFIX" in accepted:
            return "== compares, = defines; one statement stands on one line"
    if kind == "PROJECT":
        return f"a number begins with a digit: 0{text}"
    return None


def _missing_reducer(token: Token, lexer: Lexer) -> str | None:
    """`max(i) body` or `maxi[i] body`: an operand directly behind what should be a reducer."""
    if lexer.before not in ("RPAR", "RSQB"):
        return "an operator is missing between them"
    tokens: list[Token] = []
    for each in Lexer(lexer.source, lexer.first_position):
        if each.start >= token.start:
            break
        tokens.append(each)
    depth = 0
    for k in range(len(tokens) - 1, 0, -1):
        if tokens[k].type in ("RPAR", "RSQB"):
            depth += 1
        elif tokens[k].type in ("LPAR", "LSQB"):
            depth -= 1
            if depth == 0:
                name = tokens[k - 1]
                return _reducer_hint(name, lexer, tokens[k].start, token.start)
    return None


def _reducer_hint(name: Token, lexer: Lexer, opening: int, end: int) -> str:
    known = (*MONOIDS, *lexer.monoids)
    inside = lexer.source.text[opening + 1 : end].strip()[:-1]
    if name.text in known:
        return f"a reducer takes square brackets: {name.text}[{inside}]"
    match = get_close_matches(name.text, known, 1, 0.6) if name.type == "NAME" else []
    if match:
        return f"did you mean the reducer {match[0]}[{inside}]?"
    return "an operator is missing between them"
