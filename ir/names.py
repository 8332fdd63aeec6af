"""Names of a program: what statements define and write, and fresh names beside taken ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from einloom.ir.program import Call, Constant, Einsum, Kernel, Scan, Statement


def unique_name(name: str, taken: Collection[str]) -> str:
    """`name`, or with the first free suffix `_1`, `_2`, ..."""
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def nested_statements(statements: Iterable[Statement]) -> Iterator[Statement]:
    """The statements and all inside their scans and kernels, in the order of the text."""
    stack = list(statements)[::-1]
    while stack:
        statement = stack.pop()
        yield statement
        if isinstance(statement, Scan):
            stack.extend(reversed(statement.body))
            stack.extend(reversed(statement.initial))
        elif isinstance(statement, Kernel):
            stack.extend(reversed(statement.body))


def own_names(statement: Statement) -> list[str]:
    """Names that a statement writes itself, those of nested statements left out."""
    match statement:
        case Einsum() | Call():
            return [target.name for target in statement.targets]
        case Constant():
            return [statement.name]
    return []


def defined_names(statement: Statement) -> list[str]:
    """Names that a statement makes visible after it: of a scan, its states."""
    match statement:
        case Kernel():
            return [name for inner in statement.body for name in defined_names(inner)]
        case Scan():
            return [name for inner in statement.initial for name in own_names(inner)]
    return own_names(statement)


def written_names(statement: Statement) -> list[str]:
    """Names that a statement writes, those inside scans included."""
    return [name for inner in nested_statements([statement]) for name in own_names(inner)]


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """`1 rank`, `2 ranks`."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"
