"""What somebody probably meant who wrote a token that does not fit into a text of loops."""

from __future__ import annotations

from difflib import get_close_matches

from einloom.ir.text.complaints import slip_at_any_level
from einloom.ir.text.lexer import Lexer, Token
from einloom.ir.text.spelling import LOOP_RESERVED

TOP_WORDS = ("kernel", "storage", "launch", "fault")
STATEMENT_WORDS = (
    "for", "while", "let", "transpose", "stream", "prefetch", "alloc", "check", "call",
    "append", "hash", "atomic", "mma", "pack", "yield",
)  # fmt: skip

_OPERATION = "name the operation that combines, as in A[key] add= value"

# By the tokens that would have fitted, all of them.
_BY_ACCEPTED: dict[frozenset[str], str] = {
    frozenset(("LPAR", "LSQB")):
        "comparisons do not chain; lanes are written A<16>[i] and splat<16>(x)",
    frozenset(("INFIX", "NAME")): _OPERATION,
    frozenset(("INFIX",)): "only += stands here",
    frozenset(("RSQB", "INTEGER", "NUMBER", "MINUS", "QMARK")):
        "strides are bytes, and ? where they are known at run time only",
}  # fmt: skip

# By what fits and the token that stands there.
_BY_TOKEN: dict[tuple[str, str], str] = {
    ("NAME", "COLON"): "a buffer says what it is for: in A: f32[4], out, or inout",
    ("NAME", "RPAR"): "scalars stand behind a semicolon: kernel k(in A: f32[4]; N)",
    ("NAME", "LPAR"): "write call kernel name(A, B; N)",
    ("EQUAL", "COLON"): "a value has the dtype of its expression; to convert it, write f32(x)",
}


def slip(token: Token | None, accepted: set[str], lexer: Lexer) -> str | None:
    if "WORK" in accepted:
        return "a launch ends with its work: launch k(N) slices N work N*N"
    if token is None:
        return None
    text, kind = token.text, token.type
    if kind.lower() == text and text in LOOP_RESERVED and "NAME" in accepted:
        return f"{text} is a reserved word; to name something so, write `{text}`"
    if accepted == {"LPAR"} and lexer.before in ("TRANSPOSE", "EQUAL"):
        return "write transpose (t, u) = (A<2>[0], A<2>[2])"
    if accepted == {"LSQB"} and _behind_first_word(token, lexer):
        return _of_statement(lexer.before_text, kind)
    if kind == "NAME" and (meant := _near(text, accepted)):
        return meant
    if "STORAGE" in accepted and kind == "NAME":
        if text == "program":
            return "this is a program; einloom.parse reads those"
        return "statements stand in a kernel: kernel name(in A: f32[4]; N) { ... }"
    if frozenset(accepted) in _BY_ACCEPTED:
        return _BY_ACCEPTED[frozenset(accepted)]
    if len(accepted) == 1 and (hint := _BY_TOKEN.get((min(accepted), kind))):
        return hint
    if lexer.before == "RSQB" and accepted == {"NAME"}:
        return "an allocation says where: stack, workspace or growable"
    if lexer.before == "RSQB" and accepted == {"EQUAL"} and text != "==":
        return "a store replaces: A[i] = A[i] + value"
    return _in_expression(token, accepted, lexer)


def _near(text: str, accepted: set[str]) -> str | None:
    words = [word.lower() for word in accepted if word.isalpha()]
    match = get_close_matches(text, words, 1, 0.7)
    return f"did you mean {match[0]}?" if match else None


def _behind_first_word(token: Token, lexer: Lexer) -> bool:
    """Whether a word alone stands between the token and what ended the statement before."""
    word = lexer.before_text
    before = lexer.source.text[: token.start].rstrip().removesuffix(word).rstrip(" \t")
    return lexer.before == "NAME" and before.endswith(("{", "}", "\n", ";"))


def _of_statement(word: str, kind: str) -> str:
    """A word that opens no statement, with something else than `[` behind it."""
    if word == "else":
        return "else stands behind the } of its if, with a block: } else { ... }"
    match = get_close_matches(word.lower(), (*STATEMENT_WORDS, "else", "if"), 1, 0.7)
    if match:
        return f"did you mean {match[0]}?"
    if kind == "EQUAL":
        return f"write {word}[i] = value to store, let {word} = value to name a value"
    return f"statements begin with {', '.join(STATEMENT_WORDS)}, if, or store: A[i] = value"


def _in_expression(token: Token, accepted: set[str], lexer: Lexer) -> str | None:
    kind = token.type
    if "RANGE" in accepted:
        return "bounds are written for i in 0 .. N"
    if kind == "LANES":
        return "lanes stand behind a buffer or splat: A<16>[i], splat<16>(x)"
    if "INFIX" in accepted:
        if kind == "LSQB":
            return "only buffers are indexed"
        if kind == "PROJECT":
            return "there are no tuples in loops: each component is a value or buffer of its own"
        if kind == "QMARK":
            return "a load has no padding; test the index: if i < N { ... }"
        if kind in ("NAME", "INTEGER", "NUMBER", "LPAR"):
            if "STEP" in accepted:
                return "behind the bounds stand step 2, carry (x: f32 = 0.0) and the block"
            if lexer.before_text == "hash":
                return "write hash lookup(A, key, default)"
            return "an operator is missing between them"
    return slip_at_any_level(token, accepted, lexer)
