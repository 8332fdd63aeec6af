"""Grammar callbacks for statements: left sides, reducers, scans, calls, constants, kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from einloom.ir.errors import Location, ParseError, Source
from einloom.ir.expressions import Access, Apply, Expression, Index
from einloom.ir.program import (
    Bound,
    Call,
    Constant,
    Einsum,
    Kernel,
    Reduction,
    Scan,
    Statement,
    Target,
)
from einloom.ir.text.build_expressions import ExpressionBuilder
from einloom.ir.text.constants import Data, Element, Number, Record, Rows, encode, shape_of
from einloom.ir.text.constants import is_written_out as has_elements
from einloom.ir.text.lexer import Token
from einloom.ir.text.spelling import read_string
from einloom.ir.types import DType, TensorType

ADDITIVE = ("add", "sub")
MULTIPLICATIVE = ("mul", "div")


@dataclass(slots=True)
class Left:
    """The left side of a statement; `indices` None where none are written."""

    targets: tuple[Target, ...]
    indices: tuple[Expression, ...] | None
    location: Location


class StatementBuilder(ExpressionBuilder):
    """Turns the pieces of a statement into nodes.

    `scans`: indices of the scans around the statement being read. `left_seen`: index
    variables of its left side.
    """

    def begin(self, source: Source) -> None:
        super().begin(source)
        self.scans: list[str] = []
        self.left_seen: dict[str, int] = {}

    def span(self, first: Token, last: Token) -> Location:
        return Location(self.source, first.start, last.end)

    def block(self, children: list[Statement]) -> tuple[Statement, ...]:
        return tuple(children)

    # -- einsum

    def target(self, children: list[Any]) -> tuple[Token, Target]:
        name = children[0]
        self.tensors.add(name.text)
        type_ = children[1] if len(children) == 2 else None
        return name, Target(name.text, type_, location=self.span(name, name))

    def targets(self, children: list[Any]) -> list[tuple[Token, Target]]:
        return children

    def left(self, children: list[Any]) -> Left:
        first, last = children[0], children[-1]
        if isinstance(first, Token):
            targets = tuple(target for _, target in children[1])
        else:
            first, target = first
            targets = (target,)
        end = last.end if isinstance(last, Token) else first.end
        indices = children[-2] if isinstance(last, Token) and last.text == "]" else None
        self.left_seen, self.seen = self.seen, {}
        self.bare = set()
        return Left(targets, indices, Location(self.source, first.start, end))

    def left_indices(self, left: Left) -> tuple[Expression, ...]:
        """The indices of a left side; the rank labels of the type where none are written."""
        if left.indices is not None:
            return left.indices
        labels = {
            tuple(rank.name for rank in target.type.ranks) if target.type else None
            for target in left.targets
        }
        if len(labels) > 1 or (len(left.targets) > 1 and None in labels):
            raise ParseError(
                "the indices of these results are not given", location=left.location,
                suggestion="write them once, behind the parentheses: (A, B)[i, j] = ...",
            )  # fmt: skip
        names = labels.pop() or ()
        self.left_seen = dict.fromkeys(names, 0)
        return tuple(Index(name) for name in names)

    def reductions(self, children: list[Reduction]) -> tuple[Reduction, ...]:
        return tuple(children)

    def reduction(self, children: list[Any]) -> Reduction:
        name, names = children[0], children[-2]
        accumulator = children[2] if isinstance(children[2], DType) else None
        location = self.span(name, children[-1])
        if not names:
            self.fail(
                f"{name.text}[] reduces nothing", location.start, location.end,
                f"name the indices: {name.text}[i, j]",
            )  # fmt: skip
        return Reduction(name.text, names, accumulator, location=location)

    def bound(self, children: list[Any]) -> Bound:
        name, extent = children
        extent = self.located(extent, name.end, name.end)
        end = extent.location.end if extent.location else name.end
        return Bound(name.text, extent, location=Location(self.source, name.start, end))

    def where(self, children: list[Any]) -> tuple[Bound, ...]:
        return tuple(children[1:])

    def condition(self, children: list[Any]) -> Expression | None:
        return children[1] if children else None

    def until(self, children: list[Any]) -> Expression | None:
        if not children:
            return None
        return self.with_indices(children[1], set(self.scans))

    def einsum(self, children: list[Any]) -> Einsum:
        left, reductions, body, bounds, condition = children
        indices = self.left_indices(left)
        if condition is not None and self.bare:
            names = {*self.seen, *self.left_seen, *self.scans}
            names.update(name for reduction in reductions for name in reduction.indices)
            names.update(bound.index for bound in bounds)
            condition = self.with_indices(condition, names)
        reductions = self.reduced(left, reductions, body)
        last = condition if condition is not None else bounds[-1] if bounds else body
        end = max(last.location.end if last.location else 0, left.location.end)
        self.seen = {}
        return Einsum(
            left.targets, indices, body, reductions, condition, bounds,
            location=Location(self.source, left.location.start, end),
        )  # fmt: skip

    def reduced(
        self, left: Left, reductions: tuple[Reduction, ...], body: Expression
    ) -> tuple[Reduction, ...]:
        """The reductions, with the sum that a product of factors implies."""
        known = {name for reduction in reductions for name in reduction.indices}
        known.update(self.left_seen)
        known.update(self.scans)
        free = sorted(self.seen.keys() - known, key=self.seen.__getitem__)
        if not free:
            return reductions
        listed = ", ".join(free)
        where = body.location or left.location
        plural = "indices" if len(free) > 1 else "index"
        if reductions:
            raise ParseError(
                f"{plural} {listed} of the body: neither on the left nor in a reducer",
                location=where,
                suggestion=f"a written reducer names all of them, for example "
                f"{reductions[-1].monoid}[{', '.join((*reductions[-1].indices, *free))}]",
            )
        if not is_product(body):
            raise ParseError(
                f"{plural} {listed} of the body: not on the left, and the reducer is not written",
                location=where,
                suggestion=f"only products are summed by themselves; write sum[{listed}], "
                f"max[{listed}], ... before the body",
            )
        return (Reduction("sum", tuple(free), location=where),)

    # -- scan, call, kernel

    def scan_start(self, children: list[Any]) -> tuple[Any, ...]:
        word, name, extent, *down, _, initial = children
        for statement in initial:
            if not isinstance(statement, Einsum):
                where = statement.location or self.span(word, name)
                raise ParseError(
                    "only plain definitions stand in the from block of a scan", location=where
                )
        if down and down[0].text != "down":
            self.fail_at(down[0], f"unexpected {down[0].text}", "a scan may run down from a state")
        self.scans.append(name.text)
        return word, name, extent, bool(down), initial

    def scan(self, children: list[Any]) -> Scan:
        (word, name, extent, down, initial), body, until = children
        self.scans.pop()
        self.seen = {}
        return Scan(
            name.text, extent, initial, body, until, down, location=self.span(word, name)
        )  # fmt: skip

    def argument(self, children: list[Token]) -> Access:
        name = children[0]
        location = self.span(name, children[-1])
        if len(children) == 1:
            return Access(name.text, location=location)
        if name.text not in ("final", "codes", "scales"):
            self.fail(
                f"a call takes whole tensors, not {name.text}(...)", location.start, location.end,
                "define the value in a statement of its own and pass that",
            )  # fmt: skip
        return Access(children[2].text, view=name.text, location=location)

    def call(self, children: list[Any]) -> Call:
        left, _, _, name, version, *rest = children
        if left.indices is not None:
            raise ParseError(
                "the results of a call have no indices", location=left.location,
                suggestion="a call fills whole tensors: Y: f32[n=N] = call ...",
            )  # fmt: skip
        if not version.text[1:].isdigit():
            self.fail_at(version, f"{version.text} is no version", "write a number: sort@1")
        arguments = tuple(item for item in rest if isinstance(item, Access))
        location = Location(self.source, left.location.start, rest[-1].end)
        return Call(left.targets, name.text, int(version.text[1:]), arguments, location=location)

    def kernel(self, children: list[Any]) -> Kernel:
        word, name, body, _, outputs = children
        return Kernel(name.text, body, outputs, location=self.span(word, name))

    # -- constants

    def element(self, children: list[Any]) -> Element:
        number = children[0]
        if len(children) == 1:
            return Element(number)
        sign, token = children[1], children[2]
        if sign.text not in ("+", "-") or not token.text.endswith("j"):
            self.fail(
                "expected a number", number.start, token.end,
                "the elements of a constant are numbers, complex ones as 1.0 + 2.0j",
            )  # fmt: skip
        return Element(number, Number(token, sign.text == "-", sign.start))

    def record(self, children: list[Any]) -> Record:
        items = [item for item in children[1:-1] if not isinstance(item, Token)]
        return Record(items, children[0].start, children[-1].end)

    def rows(self, children: list[Any]) -> Rows:
        items = [item for item in children[1:-1] if not isinstance(item, Token)]
        return Rows(items, children[0].start, children[-1].end)

    def constant(self, children: list[Any]) -> Constant:
        word, name, type_, data = children
        assert isinstance(type_, TensorType)
        shape = shape_of(type_)
        if shape is None:
            self.fail_at(name, f"the extents of the constant {name.text} are not whole numbers")
        if not has_elements(type_.dtype):
            self.fail_at(
                name, f"elements of {type_.dtype} cannot be written out",
                'write the stored bytes in hexadecimal: = bytes "00ff"',
            )  # fmt: skip
        values: Data = data
        encoded = encode(type_, shape, values, self.complain)
        return Constant(name.text, type_, encoded, location=self.span(word, name))

    def complain(self, message: str, start: int, end: int) -> NoReturn:
        self.fail(message, start, end)

    def stored_constant(self, children: list[Any]) -> Constant:
        word, name, type_, kind, string, *digest = children
        location = self.span(word, name)
        try:
            text = read_string(string.text)
        except ValueError as error:
            self.fail_at(string, str(error))
        if kind.text == "blob":
            if not digest:
                self.fail_at(string, "a blob names its digest", 'blob "w.npy" sha256:...')
            data = self.hexadecimal(digest[0], digest[0].text)
            if len(data) != 32:
                self.fail_at(digest[0], "a sha256 digest has 64 hexadecimal digits")
            return Constant(name.text, type_, data, text, location=location)
        if kind.text != "bytes" or digest:
            self.fail_at(
                kind, f"unexpected {kind.text}",
                'a constant is a list of numbers, blob "w.npy" sha256:... or bytes "00ff"',
            )  # fmt: skip
        return Constant(name.text, type_, self.hexadecimal(string, text), location=location)

    def hexadecimal(self, token: Token, digits: str) -> bytes:
        try:
            return bytes.fromhex(digits)
        except ValueError:
            self.fail_at(token, "these are not pairs of hexadecimal digits")


def is_product(body: Expression) -> bool:
    """Whether a body is one access, or a product or quotient of factors that are no sums."""
    if not isinstance(body, Apply):
        return isinstance(body, Access)
    if body.op not in MULTIPLICATIVE:
        return False
    pending: list[Expression] = list(body.arguments)
    while pending:
        factor = pending.pop()
        if isinstance(factor, Apply):
            if factor.op in ADDITIVE:
                return False
            if factor.op in MULTIPLICATIVE:
                pending.extend(factor.arguments)
    return True
