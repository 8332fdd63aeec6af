"""The base of every IR node: frozen, compared and hashed by a digest computed once."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import field, fields, replace
from hashlib import blake2b
from typing import Any, ClassVar, TypeVar, dataclass_transform

from einloom.ir.errors import Location
from einloom.ir.record import frozen

T = TypeVar("T")
NodeT = TypeVar("NodeT", bound="Node")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def node(cls: type[T]) -> type[T]:
    """Declare an IR node class: a frozen dataclass whose equality is structural."""
    made: Any = frozen(cls)
    made.compared = tuple(f.name for f in fields(made) if f.compare and f.name != "location")
    return made  # type: ignore[no-any-return]


@node
class Node:
    """An immutable value. Equality compares digests, so it never recurses on depth.

    `location` says where the node came from; it takes no part in equality.
    """

    compared: ClassVar[tuple[str, ...]] = ()
    location: Location | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        hasher = blake2b(type(self).__name__.encode(), digest_size=16)
        for name in self.compared:
            _feed(hasher, getattr(self, name))
        object.__setattr__(self, "digest", hasher.digest())

    digest: bytes = field(init=False, compare=False)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Node) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __str__(self) -> str:
        from einloom.ir.text.printer import show

        return show(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def at(self: NodeT, location: Location | None) -> NodeT:
        """The same node with another location."""
        if location is None:
            return self
        moved = object.__new__(type(self))
        moved.__dict__.update(self.__dict__, location=location)  # no field is hashed again
        return moved


def _feed(hasher: Any, value: object) -> None:
    if isinstance(value, Node):
        hasher.update(b"N" + value.digest)
    elif isinstance(value, tuple):
        hasher.update(b"(%d" % len(value))
        for item in value:
            _feed(hasher, item)
    elif isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        hasher.update(b"s%d:" % len(data) + data)
    elif isinstance(value, bool):
        hasher.update(b"T" if value else b"F")
    elif isinstance(value, int):
        hasher.update(b"i%d;" % value)
    elif isinstance(value, float):
        hasher.update(b"f" + struct.pack("<d", value))
    elif isinstance(value, complex):
        hasher.update(b"c" + struct.pack("<dd", value.real, value.imag))
    elif isinstance(value, bytes):
        hasher.update(b"b%d:" % len(value) + value)
    elif value is None:
        hasher.update(b"0")
    else:
        raise TypeError(f"a node field cannot hold {type(value).__name__}")


def child_nodes(parent: Node) -> Iterator[Node]:
    """Direct children in field order, tuples flattened."""
    for name in parent.compared:
        value = getattr(parent, name)
        if isinstance(value, tuple):
            for item in value:
                if isinstance(item, Node):
                    yield item
        elif isinstance(value, Node):
            yield value


def postorder(root: Node) -> Iterator[Node]:
    """Every distinct node below and including `root`, children first, without recursion."""
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        current, expanded = stack.pop()
        if expanded:
            yield current
        elif id(current) not in seen:
            seen.add(id(current))
            children = [(child, False) for child in child_nodes(current)]
            if children:
                stack.append((current, True))
                stack.extend(reversed(children))
            else:
                yield current


def with_children(parent: NodeT, change: Callable[[Node], Node]) -> NodeT:
    """`parent` with each direct child replaced by `change(child)`; itself if none changed."""
    updates: dict[str, Any] = {}
    for name in parent.compared:
        value = getattr(parent, name)
        if isinstance(value, Node):
            new = change(value)
            if new is not value:
                updates[name] = new
        elif isinstance(value, tuple) and any(isinstance(item, Node) for item in value):
            items = tuple(change(item) if isinstance(item, Node) else item for item in value)
            if any(a is not b for a, b in zip(items, value, strict=True)):
                updates[name] = items
    return replace(parent, **updates) if updates else parent


def rebuild(root: NodeT, change: Callable[[Node], Node]) -> NodeT:
    """Apply `change` to every node from the leaves up; shared nodes are changed once."""
    done: dict[int, Node] = {}
    for current in postorder(root):
        done[id(current)] = change(with_children(current, lambda child: done[id(child)]))
    result = done[id(root)]
    return result  # type: ignore[return-value]
