"""A module taken apart once, so that each rule of the verifier finds its nodes directly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from einloom.ir.definitions import functions_of, monoids_of
from einloom.ir.expressions import Expression
from einloom.ir.infer import Inference
from einloom.ir.node import Node, postorder
from einloom.ir.program import Einsum, Function, Kernel, Module, Monoid, Scan, Statement
from einloom.ir.record import record
from einloom.ir.typing import Lookup

NodeT = TypeVar("NodeT", bound=Node)


@record
class Place:
    """A statement and the scans around it, outermost first; `first`: for each of them, whether
    the statement stands in its `from`. `kernel`: the kernel around it."""

    statement: Statement
    scans: tuple[Scan, ...] = ()
    first: tuple[bool, ...] = ()
    kernel: Kernel | None = None


@dataclass
class Parts:
    """A module with its statements and nodes listed; `inference` once it is known."""

    module: Module
    inference: Inference | None = None
    owned: dict[type[Node], list[tuple[Node, Node]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        roots: list[tuple[Node, Node]] = [(item, item) for item in self.module.inputs]
        roots += [(definition, definition) for definition in self.module.definitions]
        for place in self.places:
            statement = place.statement
            if isinstance(statement, Scan):
                roots.append((statement.extent, statement))
                roots += [(statement.until, statement)] if statement.until is not None else []
            elif not isinstance(statement, Kernel):
                roots.append((statement, statement))
        for root, owner in roots:
            for part in postorder(root):
                self.owned.setdefault(type(part), []).append((part, owner))

    @cached_property
    def places(self) -> list[Place]:
        """Every statement, those inside scans and kernels included, in the order of the text."""
        found: list[Place] = []
        stack = [Place(statement) for statement in reversed(self.module.body)]
        while stack:
            place = stack.pop()
            found.append(place)
            stack.extend(reversed(list(_inside(place))))
        return found

    @cached_property
    def einsums(self) -> list[tuple[Einsum, Place]]:
        return [(p.statement, p) for p in self.places if isinstance(p.statement, Einsum)]

    @cached_property
    def functions(self) -> dict[str, Function]:
        return functions_of(self.module)

    @cached_property
    def monoids(self) -> dict[str, Monoid]:
        return monoids_of(self.module)

    @property
    def types(self) -> Inference:
        assert self.inference is not None, "this rule runs after inference"
        return self.inference

    def lookup(self) -> Lookup:
        return Lookup(self.types.tensors, set(), self.functions, self.monoids)

    def found(self, kind: type[NodeT]) -> Iterator[tuple[NodeT, Node]]:
        """All nodes of a class, each with the statement, input or definition that it is in."""
        for part, owner in self.owned.get(kind, []):
            assert isinstance(part, kind)
            yield part, owner


def _inside(place: Place) -> Iterator[Place]:
    statement = place.statement
    if isinstance(statement, Scan):
        scans = (*place.scans, statement)
        for inner in statement.initial:
            yield Place(inner, scans, (*place.first, True), place.kernel)
        for part in statement.body:
            yield Place(part, scans, (*place.first, False), place.kernel)
    elif isinstance(statement, Kernel):
        for part in statement.body:
            yield Place(part, place.scans, place.first, statement)


def roots_of(statement: Einsum) -> list[Expression]:
    """The expressions that a statement reads: left side, body, condition."""
    roots = [*statement.indices, statement.body]
    return roots if statement.condition is None else [*roots, statement.condition]
