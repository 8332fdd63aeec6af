"""Rules on names: defined once, known, bound, and never two things at a time."""

from __future__ import annotations

from collections.abc import Iterator

from einloom.ir import extents as ext
from einloom.ir.errors import UnsupportedError
from einloom.ir.expressions import Access, Apply, Expression, Index, Local, Symbol
from einloom.ir.names import defined_names
from einloom.ir.node import Node, postorder
from einloom.ir.ops import MONOIDS, OPS
from einloom.ir.program import Bound, Definition, Function, Kernel, Monoid, Reduction, Scan, Target
from einloom.ir.verify.complaints import Complaint, complaint, near
from einloom.ir.verify.parts import Parts

VIEWS = ("", "final", "codes", "scales")


def names_are_not_empty(parts: Parts) -> Iterator[Complaint]:
    """Everything has a name of at least one character."""
    named: list[tuple[str, Node, str]] = [(i.name, i, "input") for i in parts.module.inputs]
    named += [(t.name, owner, "tensor") for t, owner in parts.found(Target)]
    named += [(index.name, owner, "index") for index, owner in parts.found(Index)]
    named += [(symbol.name, owner, "extent") for symbol, owner in parts.found(Symbol)]
    for name, owner, what in named:
        if not name:
            yield complaint(f"the name of an {what} is empty", owner)


def extents_are_declared_once(parts: Parts) -> Iterator[Complaint]:
    """No two inputs share a name; two tensors are inference's to report."""
    tensors = {item.name for item in parts.module.inputs if item.type is not None}
    seen: set[str] = set()
    for item in parts.module.inputs:
        if item.type is None:
            if item.name in seen or item.name in tensors:
                yield complaint(f"the input {item.name} is declared twice", item)
            seen.add(item.name)


def results_are_distinct(parts: Parts) -> Iterator[Complaint]:
    """Each result is listed once."""
    outputs = parts.module.outputs
    for name in dict.fromkeys(name for name in outputs if outputs.count(name) > 1):
        yield complaint(f"the result {name} is listed twice", parts.module)


def symbols_are_bound(parts: Parts) -> Iterator[Complaint]:
    """Every extent symbol is the whole extent of an input's rank, or an input itself."""
    sizes: dict[str, Expression] = {}
    bound = {item.name for item in parts.module.inputs if item.type is None}
    for item in parts.module.inputs:
        for extent in item.type.extents if item.type is not None else ():
            for name in ext.symbols_in(extent):
                sizes.setdefault(name, extent)
            if isinstance(extent, Symbol):
                bound.add(extent.name)
    known = sorted({*sizes, *bound})
    indices = {index.name for index, _ in parts.found(Index)}
    reported: set[str] = set()
    for symbol, owner in parts.found(Symbol):
        if symbol.name in bound or symbol.name in reported:
            continue
        reported.add(symbol.name)
        if symbol.name in sizes:
            yield complaint(
                f"the value of {symbol.name} cannot be found from the extent "
                f"{sizes[symbol.name]} alone",
                symbol,
                owner,
                hint=f"add an input that gives it: {symbol.name}: extent",
                kind=UnsupportedError,
            )
        else:
            hint = near(symbol.name, known) or f"add an input that gives it: {symbol.name}: extent"
            if symbol.name in indices:
                hint = f"an extent cannot depend on an index; write: if ... < {symbol.name}"
            message = f"the extent {symbol.name} is bound by no input"
            yield complaint(message, symbol, owner, hint=hint)


def indices_are_no_symbols(parts: Parts) -> Iterator[Complaint]:
    """A name is an index or an extent, not both: the text could not tell them apart."""
    symbols = {item.name for item in parts.module.inputs if item.type is None}
    for item in parts.module.inputs:
        if item.type is not None:
            symbols.update(*(ext.symbols_in(extent) for extent in item.type.extents))
    used: list[tuple[str, Node, Node]] = [(i.name, i, owner) for i, owner in parts.found(Index)]
    used += [(n, r, owner) for r, owner in parts.found(Reduction) for n in r.indices]
    used += [(b.index, b, owner) for b, owner in parts.found(Bound)]
    for place in parts.places:
        if isinstance(place.statement, Scan):
            used.append((place.statement.index, place.statement, place.statement))
    seen: set[tuple[str, int]] = set()
    for name, part, owner in used:
        if name in symbols and (name, id(owner)) not in seen:
            seen.add((name, id(owner)))
            message = f"{name} is both an index and an extent"
            yield complaint(message, part, owner, hint="give the index another name")


def operations_are_known(parts: Parts) -> Iterator[Complaint]:
    """What is applied is in the table of operations or defined in the text."""
    known = [*OPS, *parts.functions]
    for application, owner in parts.found(Apply):
        op = application.op
        if op in OPS or op in parts.functions:
            continue
        hint = near(op, known)
        if op in MONOIDS or op in parts.monoids:
            hint = f"{op} is a reducer, write {op}[i] and what it reduces"
        yield complaint(f"unknown operation {op}", application, owner, hint=hint)


def reducers_are_known(parts: Parts) -> Iterator[Complaint]:
    """A reduction names a builtin monoid or one of the text, and reduces something."""
    for reduction, owner in parts.found(Reduction):
        name = reduction.monoid
        if name not in MONOIDS and name not in parts.monoids:
            hint = near(name, [*MONOIDS, *parts.monoids]) or f"reducers are {', '.join(MONOIDS)}"
            yield complaint(f"unknown reducer {name}", reduction, owner, hint=hint)
        elif not reduction.indices:
            yield complaint(
                f"{name} reduces no index", reduction, owner, hint=f"write {name}[i], or drop it"
            )


def views_are_known(parts: Parts) -> Iterator[Complaint]:
    """An access reads a tensor, its final state, its codes or its scales."""
    for access, owner in parts.found(Access):
        if access.view not in VIEWS:
            message = f"{access.tensor} has no view {access.view}"
            yield complaint(message, access, owner, hint="views are final, codes and scales")


def parameters_stay_inside_definitions(parts: Parts) -> Iterator[Complaint]:
    """A parameter is read in the definition that has it, and nothing else is read there."""
    for local, owner in parts.found(Local):
        if not isinstance(owner, Definition):
            message = f"{local.name} is no tensor, extent or index here"
            yield complaint(message, local, owner)
    for definition in parts.module.definitions:
        names = parameters_of(definition)
        for part in postorder(definition):
            if isinstance(part, Local) and part.name not in names:
                message = f"{definition_name(definition)} has no parameter {part.name}"
                hint = near(part.name, names) or f"its parameters are {', '.join(names)}"
                yield complaint(message, part, definition, hint=hint)
            elif isinstance(part, Access | Index | Symbol):
                yield complaint(
                    f"{definition_name(definition)} reads {part}, which is no parameter of it",
                    part,
                    definition,
                    hint="hand it over as an argument",
                )


def parameters_of(definition: Definition) -> list[str]:
    if isinstance(definition, Function):
        return [parameter.name for parameter in definition.parameters]
    assert isinstance(definition, Monoid)
    return [definition.left, definition.right]


def definition_name(definition: Definition) -> str:
    assert isinstance(definition, Function | Monoid)
    return definition.name


def kernels_have_distinct_names(parts: Parts) -> Iterator[Complaint]:
    """A mapping refers to a kernel by its name."""
    seen: set[str] = set()
    for place in parts.places:
        kernel = place.statement
        if isinstance(kernel, Kernel):
            if kernel.name in seen:
                yield complaint(f"there are two kernels {kernel.name}", kernel)
            seen.add(kernel.name)


def kernels_show_their_results(parts: Parts) -> Iterator[Complaint]:
    """A kernel's outputs are defined in it, once each, and all that is used outside is one."""
    kernels = [p.statement for p in parts.places if isinstance(p.statement, Kernel)]
    if not kernels:
        return
    home: dict[str, Kernel] = {}
    for kernel in kernels:
        defined = {name for inner in kernel.body for name in defined_names(inner)}
        for name in dict.fromkeys(kernel.outputs):
            if name not in defined:
                message = f"kernel {kernel.name} returns {name}, which it does not define"
                yield complaint(message, kernel, hint=near(name, sorted(defined)))
            if kernel.outputs.count(name) > 1:
                yield complaint(f"kernel {kernel.name} returns {name} twice", kernel)
        for name in defined:
            home.setdefault(name, kernel)
    reported: set[str] = set()
    uses: list[tuple[str, Node | None, Kernel | None]] = [
        (name, None, None) for name in parts.module.outputs
    ]
    inside = {id(place.statement): place.kernel for place in parts.places}
    uses += [(a.tensor, a, inside.get(id(owner))) for a, owner in parts.found(Access)]
    for name, part, kernel_of_use in uses:
        owner = home.get(name)
        if owner is None or kernel_of_use is owner or name in owner.outputs or name in reported:
            continue
        reported.add(name)
        yield complaint(
            f"{name} is used outside kernel {owner.name}, which does not return it",
            part,
            owner,
            hint=f"add it to the results of the kernel: -> ({', '.join((*owner.outputs, name))})",
        )
