"""Rules on the definitions of the text: functions and monoids."""

from __future__ import annotations

from collections.abc import Iterator

from einloom.ir.definitions import inline, substitute
from einloom.ir.errors import DTypeError, EinloomError, UnsupportedError
from einloom.ir.expressions import Access, Apply, Expression, Local
from einloom.ir.node import postorder
from einloom.ir.ops import MONOIDS, OPS
from einloom.ir.program import Definition, Function, Monoid
from einloom.ir.promotion import Typing
from einloom.ir.types import SCALARS, DType, Modular, Quantized, Scalar, TensorType, Tuple
from einloom.ir.typing import Lookup, typing_of
from einloom.ir.verify.complaints import Complaint, complaint
from einloom.ir.verify.names import definition_name, parameters_of
from einloom.ir.verify.parts import Parts

LAWS = ("associative", "commutative", "idempotent", "identity")
LARGEST_EXPANSION = 100_000  # nodes that a definition expands to
DEEPEST = 100  # definitions used by definitions


def definitions_have_distinct_names(parts: Parts) -> Iterator[Complaint]:
    """Functions and monoids share one space of names."""
    seen: set[str] = set()
    for definition in parts.module.definitions:
        name = definition_name(definition)
        if not name:
            yield complaint("a definition has no name", definition)
        if name in seen:
            hint = "give the second one another name"
            yield complaint(f"{name} is defined twice", definition, hint=hint)
        seen.add(name)


def definitions_shadow_nothing(parts: Parts) -> Iterator[Complaint]:
    """The names of operations, reducers and dtypes are taken."""
    for definition in parts.module.definitions:
        name = definition_name(definition)
        taken = "an operation" if name in OPS else "a reducer" if name in MONOIDS else None
        if name in SCALARS or name == "zq":
            taken = "a dtype"
        if taken:
            yield complaint(
                f"{name} is the name of {taken}", definition, hint=f"call it {name}_1, for example"
            )


def parameters_are_distinct(parts: Parts) -> Iterator[Complaint]:
    """Each parameter of a definition has its own name."""
    for definition in parts.module.definitions:
        names = parameters_of(definition)
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            message = f"{definition_name(definition)} has two parameters {name}"
            yield complaint(message, definition)
        if isinstance(definition, Function) and not names:
            yield complaint(f"{definition.name} has no parameters", definition)


def definitions_use_earlier_ones(parts: Parts) -> Iterator[Complaint]:
    """A definition uses primitives and definitions before it, so that expansion ends."""
    uses = _uses(parts)
    earlier: set[str] = set()
    reported: set[str] = set()
    for definition in parts.module.definitions:
        name = definition_name(definition)
        for used, site in uses[name].items():
            if used in earlier or used not in uses or used in reported:
                continue
            cycle = _path(used, name, uses)
            if used == name:
                message = f"{name} uses itself"
                hint = "definitions do not recur; iterate with a scan"
            elif cycle:
                message = f"definitions form a cycle: {' -> '.join([name, *cycle])}"
                hint = "definitions do not recur; iterate with a scan"
                reported.update(cycle)
            else:
                message = f"{name} uses {used} before it is defined"
                hint = f"move {used} up"
            yield complaint(message, site, definition, hint=hint)
        earlier.add(name)


def _uses(parts: Parts) -> dict[str, dict[str, Apply]]:
    """For each definition, the definitions that it applies, and where."""
    uses: dict[str, dict[str, Apply]] = {}
    for definition in parts.module.definitions:
        found = uses.setdefault(definition_name(definition), {})
        for part in postorder(definition):
            if isinstance(part, Apply) and part.op not in OPS:
                found.setdefault(part.op, part)
    return uses


def _path(start: str, end: str, uses: dict[str, dict[str, Apply]]) -> list[str]:
    """A shortest chain of uses from `start` to `end`, both included; empty without one."""
    before: dict[str, str | None] = {start: None}
    frontier = [start]
    while frontier and end not in before:
        following = []
        for current in frontier:
            for used in uses.get(current, {}):
                if used not in before:
                    before[used] = current
                    following.append(used)
        frontier = following
    chain: list[str] = []
    step: str | None = end if end in before else None
    while step is not None:
        chain.append(step)
        step = before[step]
    return chain[::-1]


def definitions_expand_to_a_bounded_size(parts: Parts) -> Iterator[Complaint]:
    """Definitions of definitions grow fast when they are written out; there is a limit."""
    sizes: dict[str, int] = {}
    depths: dict[str, int] = {}
    for definition in parts.module.definitions:
        name = definition_name(definition)
        size, depth = 0, 0
        for part in postorder(definition):
            used = part.op if isinstance(part, Apply) else ""
            size += sizes.get(used, 1)
            depth = max(depth, depths.get(used, 0))
        sizes[name], depths[name] = min(size, LARGEST_EXPANSION + 1), depth + 1
        if size > LARGEST_EXPANSION or depth >= DEEPEST:
            limit = f"more than {LARGEST_EXPANSION} operations"
            if size <= LARGEST_EXPANSION:
                limit = f"more than {DEEPEST} definitions inside one another"
            message = f"{name} expands to {limit}"
            yield complaint(message, definition, kind=UnsupportedError)
            return


# ---- typed: these run after inference ------------------------------------------------------


def laws_are_known(parts: Parts) -> Iterator[Complaint]:
    """A monoid declares laws of a fixed list, each once."""
    for monoid in parts.monoids.values():
        for law in dict.fromkeys(monoid.laws):
            if law not in LAWS:
                hint = f"laws are {', '.join(LAWS)}"
                yield complaint(f"{monoid.name} declares unknown law {law}", monoid, hint=hint)
            elif monoid.laws.count(law) > 1:
                yield complaint(f"{monoid.name} declares the law {law} twice", monoid)


def function_bodies_are_typed(parts: Parts) -> Iterator[Complaint]:
    """A function whose parameters all have dtypes has a body that fits them."""
    for function in parts.functions.values():
        dtypes = {p.name: p.dtype for p in function.parameters}
        known = {name: dtype for name, dtype in dtypes.items() if dtype is not None}
        if len(known) == len(dtypes):
            found = definition_typing(function, function.body, known, parts)
            if not isinstance(found, Typing):
                yield found


def monoids_are_typed(parts: Parts) -> Iterator[Complaint]:
    """A monoid's identity is a constant of its dtype, and combining two values gives one."""
    for monoid in parts.monoids.values():
        yield from monoid_problems(monoid, parts)


def monoid_problems(monoid: Monoid, parts: Parts) -> Iterator[Complaint]:
    """What is wrong with the types in one monoid."""
    if isinstance(monoid.dtype, Quantized):
        yield complaint(f"{monoid.name} cannot fold a quantized dtype", monoid, kind=DTypeError)
        return
    if any(isinstance(part, Local) for part in postorder(monoid.identity)):
        yield complaint(f"the identity of {monoid.name} is no constant", monoid)
        return
    both = {monoid.left: monoid.dtype, monoid.right: monoid.dtype}
    for what, body in (("identity", monoid.identity), ("combine", monoid.combine)):
        found = definition_typing(monoid, body, both, parts)
        if not isinstance(found, Typing):
            yield found
        elif not _stores(monoid.dtype, found):
            yield complaint(
                f"{what} of {monoid.name} is {found.dtype}, the monoid is {monoid.dtype}",
                body,
                monoid,
                kind=DTypeError,
            )


def definition_typing(
    definition: Definition, body: Expression, dtypes: dict[str, DType], parts: Parts
) -> Typing | Complaint:
    """The typing of a body for parameters of the given dtypes, or the complaint about it."""
    tensors = {name: TensorType(dtype) for name, dtype in dtypes.items()}
    lookup = Lookup(tensors, set(), parts.functions, parts.monoids)
    try:
        written_out = inline(body, parts.functions)
        return typing_of(substitute(written_out, {n: Access(n) for n in dtypes}), lookup)
    except EinloomError as error:
        first = error.diagnostics[0]
        message, hint = f"in {definition_name(definition)}: {first.message}", first.suggestion
        found = complaint(message, definition, hint=hint, kind=type(error))
        if first.location is not None:
            found = type(error), type(found[1])(message, first.location, hint)
        return found


def _stores(dtype: DType, typing: Typing) -> bool:
    """Whether values of the typing are kept by the dtype without losing their kind."""
    if isinstance(dtype, Tuple):
        items = typing.dtype.items if isinstance(typing.dtype, Tuple) else ()
        return len(items) == len(dtype.items) and all(
            _stores(mine, Typing(theirs, typing.weak))
            for mine, theirs in zip(dtype.items, items, strict=True)
        )
    if isinstance(dtype, Modular):
        weak_integer = typing.weak and isinstance(typing.dtype, Scalar) and typing.dtype.is_integer
        return weak_integer or typing.dtype == dtype
    if not (isinstance(dtype, Scalar) and isinstance(typing.dtype, Scalar)):
        return False
    order = {"bool": 0, "signed": 1, "unsigned": 1, "float": 2, "complex": 3}
    return order[typing.dtype.kind] <= order[dtype.kind]
