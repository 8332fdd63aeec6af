"""The structural hash: one number for all modules that differ in local names only.

Counts: the statements and their order, the order of operands, dtypes, extents, formats, the
sections, and the names of inputs and results, which callers use. Does not count: the name of
the program, of intermediates, indices, extent symbols, rank labels, kernels, definitions and
parameters; where a module was written; the order of `where` bounds and of laws; the file that
a blob lies in (its digest counts). Operands and statements are not reordered: floats would
round otherwise, and a canonical order under renaming is the graph isomorphism problem.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

from einloom.ir.expressions import Access, Apply, Cast, Index, Local, Pack, Project, Symbol
from einloom.ir.meaning import meaning_hash, probe_record
from einloom.ir.names import unique_name
from einloom.ir.node import Node, child_nodes, postorder
from einloom.ir.ops import MONOIDS, OPS
from einloom.ir.program import (
    Bound,
    Call,
    Constant,
    Einsum,
    Function,
    Kernel,
    Layout,
    Mapping,
    Module,
    Monoid,
    Parameter,
    Reduction,
    Scan,
    Statement,
    Target,
)
from einloom.ir.types import Rank, TensorType

__all__ = ["meaning_hash", "probe_record", "structural_hash"]

SIZE = 16  # bytes of a digest

Numbers = dict[str, int]
"""Names in order of first appearance."""


def structural_hash(module: Module) -> str:
    """The hash of a module up to renaming, as 32 hexadecimal digits."""
    return _Hasher(module).run().hex()


def _number(numbers: Numbers, name: str) -> bytes:
    return b"%d;" % numbers.setdefault(name, len(numbers))


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"%d:" % len(data) + data


# Bytes to hash, each with its length, or more parts in their place.
Parts = Iterator["bytes | Parts"]


@dataclass
class _Hasher:
    module: Module
    tensors: Numbers = field(default_factory=dict)
    symbols: Numbers = field(default_factory=dict)
    definitions: Numbers = field(default_factory=dict)
    kernels: Numbers = field(default_factory=dict)
    ranks: dict[str, Numbers] = field(default_factory=dict)  # of kernels that are mapped
    labels: dict[str, list[str]] = field(default_factory=dict)  # rank labels of tensors

    def run(self) -> bytes:
        total = blake2b(digest_size=SIZE)
        stack = [self.parts()]
        while stack:
            part = next(stack[-1], None)
            if part is None:
                stack.pop()
            elif isinstance(part, bytes):
                total.update(b"%d:" % len(part) + part)
            else:
                stack.append(part)
        return total.digest()

    def parts(self) -> Parts:
        module = self.module
        types: dict[TensorType, bytes] = {}
        for definition in module.definitions:
            yield self.definition(definition)
        for item in module.inputs:
            if item.type is None:
                yield b"extent" + _text(item.name) + _number(self.symbols, item.name)
                continue
            number = _number(self.tensors, item.name)
            # equal types have equal digests: their symbols are numbered by the first of them
            digest = types.get(item.type) or types.setdefault(item.type, self.digest(item.type, {}))
            yield b"input" + _text(item.name) + number + digest
            self.labels[item.name] = [rank.name for rank in item.type.ranks]
        mapped = {mapping.kernel for mapping in module.mappings}
        self.ranks = {kernel: {} for kernel in mapped}
        yield self.block(module.body, {}, shared=False, scan=None)
        for name in module.outputs:
            yield b"result" + _text(name) + _number(self.tensors, name)
        yield from (self.mapping(mapping) for mapping in module.mappings)
        yield from (self.layout(layout) for layout in module.layouts)

    # -- statements

    def block(
        self, body: tuple[Statement, ...], indices: Numbers, shared: bool, scan: Scan | None
    ) -> Parts:
        """Statements in order. `indices`: the numbers of the indices around them; `shared`:
        whether theirs are numbered together, because a mapping speaks of them."""
        for statement in body:
            match statement:
                case Kernel():
                    yield b"kernel" + _number(self.kernels, statement.name)
                    mapped = self.ranks.get(statement.name)
                    inside = indices if mapped is None else mapped
                    yield self.block(statement.body, inside, shared or mapped is not None, scan)
                    results = (_number(self.tensors, name) for name in statement.outputs)
                    yield b"end kernel" + b"".join(results)
                case Scan():
                    yield self.scan(statement, indices, shared)
                case _:
                    yield self.statement(statement, indices if shared else dict(indices), scan)

    def scan(self, scan: Scan, indices: Numbers, shared: bool) -> Parts:
        inside = indices if shared else dict(indices)
        # a mapped kernel has all its indices in one space, any other scan binds its own
        number = _number(inside, scan.index) if shared else b"%d;" % len(inside)
        inside[scan.index] = int(number[:-1])
        direction = b"down" if scan.down else b"up"
        yield b"scan" + direction + number + self.digest(scan.extent, {})
        yield self.block(scan.initial, indices if shared else dict(indices), shared, scan)
        yield b"body"
        yield self.block(scan.body, inside, shared, None)
        yield b"until" + (b"" if scan.until is None else self.digest(scan.until, inside))

    def statement(self, statement: Statement, indices: Numbers, first_of: Scan | None) -> bytes:
        digest = self.digest(statement, indices)
        if isinstance(statement, Einsum):
            for target in statement.targets:
                if target.type is not None:
                    labels = [rank.name for rank in target.type.ranks]
                else:
                    labels = _labels(statement, first_of)
                self.labels.setdefault(target.name, labels)
        elif isinstance(statement, Call | Constant):
            types = [(t.name, t.type) for t in statement.targets] if isinstance(
                statement, Call) else [(statement.name, statement.type)]  # fmt: skip
            for name, type_ in types:
                if type_ is not None:
                    self.labels.setdefault(name, [rank.name for rank in type_.ranks])
        return digest

    # -- definitions and sections

    def definition(self, definition: Node) -> bytes:
        assert isinstance(definition, Function | Monoid)
        if isinstance(definition, Function):
            names = [parameter.name for parameter in definition.parameters]
        else:
            names = [definition.left, definition.right]
        local = {name: k for k, name in enumerate(names)}
        digest = self.digest(definition, {}, local)
        return b"definition" + _number(self.definitions, definition.name) + digest

    def mapping(self, mapping: Mapping) -> bytes:
        ranks = self.ranks[mapping.kernel]

        def rank(name: str) -> bytes:
            stem = name.rstrip("0123456789")
            if name in ranks or stem not in ranks:
                return _reference(ranks, name)
            return _reference(ranks, stem) + b"part" + _text(name[len(stem) :])

        parts = [b"mapping", _reference(self.kernels, mapping.kernel)]
        parts += [b"loops", *map(rank, mapping.loops), b"spatial", *map(rank, mapping.spatial)]
        parts += [b"tile" + rank(tile.rank) + b"%d" % tile.size for tile in mapping.tiles]
        for placement in mapping.placements:
            unit = _text(placement.unit)
            parts.append(b"place" + _reference(self.tensors, placement.statement) + unit)
        for interleave in mapping.interleavings:
            names = (_reference(self.tensors, name) for name in interleave.statements)
            parts.append(b"interleave" + b"".join(names) + _text(interleave.scope))
        return b"|".join(parts)

    def layout(self, layout: Layout) -> bytes:
        labels = {label: k for k, label in enumerate(self.labels.get(layout.tensor, []))}
        parts = [b"layout", _reference(self.tensors, layout.tensor)]
        parts += [b"stride%d" % stride for stride in layout.strides]
        parts += [b"order" + _reference(labels, label) for label in layout.order]
        if layout.alias is not None:
            parts.append(b"alias" + _reference(self.tensors, layout.alias))
        return b"|".join([*parts, b"donate" if layout.donate else b""])

    # -- nodes

    def digest(self, root: Node, indices: Numbers, local: Numbers | None = None) -> bytes:
        """The digest of a node with its names numbered; shared nodes are digested once."""
        done: dict[int, bytes] = {}
        for current in postorder(root):
            content = self.content(current, done, indices, local or {})
            tag = type(current).__name__.encode()
            done[id(current)] = blake2b(tag + b" " + content, digest_size=SIZE).digest()
        return done[id(root)]

    def content(
        self, current: Node, done: dict[int, bytes], indices: Numbers, local: Numbers
    ) -> bytes:
        """What a node says, its children by their digests."""

        def all_of(children: tuple[Node, ...]) -> bytes:
            return b"%d(" % len(children) + b"".join([done[id(child)] for child in children])

        def option(child: Node | None) -> bytes:
            return b"-" if child is None else b"+" + done[id(child)]

        match current:
            case Index():
                return _number(indices, current.name)
            case Symbol():
                return _number(self.symbols, current.name)
            case Local():
                return _reference(local, current.name)
            case Access():
                tensor = _number(self.tensors, current.tensor) + _text(current.view)
                return tensor + option(current.padding) + all_of(current.indices)
            case Apply():
                op = current.op
                name = _text(op) if op in OPS else b"own" + _reference(self.definitions, op)
                return name + all_of(current.arguments)
            case Rank():
                return done[id(current.extent)]
            case Target():
                return _number(self.tensors, current.name) + option(current.type)
            case Bound():
                return _number(indices, current.index) + done[id(current.extent)]
            case Reduction():
                monoid = current.monoid
                name = _text(monoid)
                if monoid not in MONOIDS:
                    name = b"own" + _reference(self.definitions, monoid)
                reduced = b"".join([_number(indices, index) for index in current.indices])
                return name + reduced + option(current.accumulator)
            case Einsum():
                bounds = b"".join(sorted(done[id(bound)] for bound in current.bounds))
                left = all_of(current.targets) + all_of(current.indices)
                right = done[id(current.body)] + all_of(current.reductions)
                return left + right + option(current.condition) + bounds
            case Constant():
                kind = b"inline" if current.path is None else b"blob"
                number = _number(self.tensors, current.name)
                return kind + number + done[id(current.type)] + current.data
            case Call():
                name = _text(current.function) + b"@%d" % current.version
                return name + all_of(current.targets) + all_of(current.arguments)
            case Parameter():
                return option(current.dtype)
            case Function():
                return all_of(current.parameters) + done[id(current.body)]
            case Monoid():
                laws = b"".join(_text(law) for law in sorted(current.laws))
                bodies = done[id(current.identity)] + done[id(current.combine)]
                return done[id(current.dtype)] + bodies + laws
            case TensorType():
                encrypted = b"enc" if current.encrypted else b""
                shape = all_of(current.ranks) + all_of(current.format) + option(current.fill)
                return done[id(current.dtype)] + shape + encrypted
        # Nothing else holds a name of the module, so its own digest says all but its children.
        return self.other(current, done)

    def other(self, current: Node, done: dict[int, bytes]) -> bytes:
        if isinstance(current, Cast | Pack | Project):
            item = b"%d;" % current.item if isinstance(current, Project) else b""
            return item + b"".join([done[id(child)] for child in child_nodes(current)])
        return current.digest


def _reference(numbers: Numbers, name: str) -> bytes:
    """The number of a name that is known; a name that is not counts as it is spelled."""
    number = numbers.get(name)
    return b"unknown" + _text(name) if number is None else b"%d;" % number


def _labels(statement: Einsum, first_of: Scan | None) -> list[str]:
    """The rank labels that inference gives what a statement defines."""
    labels: list[str] = []
    for position, expression in enumerate(statement.indices):
        label = expression.name if isinstance(expression, Index) else "rank"
        if first_of is not None and position == 0:
            label = first_of.index
        labels.append(unique_name(label, labels))
    return labels
