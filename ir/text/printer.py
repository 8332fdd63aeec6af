"""Every node of the program level as canonical text: `parse(show(module)) == module`."""

from __future__ import annotations

from einloom.ir.errors import UnsupportedError
from einloom.ir.expressions import Access, Expression, Index
from einloom.ir.node import Node, postorder
from einloom.ir.program import (
    Bound,
    Call,
    Constant,
    Definition,
    Einsum,
    Function,
    Input,
    Interleave,
    Kernel,
    Layout,
    Mapping,
    Module,
    Monoid,
    Parameter,
    Placement,
    Reduction,
    Scan,
    Statement,
    Target,
    Tile,
)
from einloom.ir.text.constants import decode, shape_of
from einloom.ir.text.expression_text import EXTENT, INDEX, ExpressionPrinter
from einloom.ir.text.spelling import spell_name, spell_string, spell_value
from einloom.ir.text.type_text import dtype_text, level_text, scale_text
from einloom.ir.types import DType, Level, Rank, Scale, TensorType

INDENT = "  "


def show(node: Node) -> str:
    """The canonical text of a node.

    The text of a module ends with a newline; every other text has none at its end. Raises
    UnsupportedError for a node that has no text form.
    """
    monoids: frozenset[str] = frozenset()
    if isinstance(node, Module):
        monoids = frozenset(d.name for d in node.definitions if isinstance(d, Monoid))
    try:
        return Printer(monoids).show(node)
    except UnsupportedError:  # a node of another level, or an expression that holds one
        from einloom.ir.text.loops_printer import show_loops

        return show_loops(node)


class Printer:
    """Prints nodes of one module, whose own reducers are `monoids`."""

    def __init__(self, monoids: frozenset[str]) -> None:
        self.monoids = monoids
        self.spelled: dict[str, str] = {}
        self.expressions = ExpressionPrinter(self.spell)

    def spell(self, name: str) -> str:
        found = self.spelled.get(name)
        if found is None:
            found = self.spelled[name] = spell_name(name, self.monoids)
        return found

    def spell_all(self, names: tuple[str, ...]) -> str:
        return ", ".join(map(self.spell, names))

    def show(self, node: Node) -> str:
        match node:
            case Expression():
                return self.expressions.text(node)
            case DType():
                return dtype_text(node)
            case TensorType():
                return self.tensor_type(node)
            case Rank():
                return self.rank(node)
            case Level():
                return level_text(node)
            case Scale():
                return scale_text(node)
            case Statement():
                return "\n".join(self.statements((node,), ""))
            case Module():
                return self.module(node)
        return self.part(node)

    def part(self, node: Node) -> str:
        """The text of a part of a statement, a definition or a section."""
        match node:
            case Bound():
                return f"{self.spell(node.index)} < {self.extent(node.extent)}"
            case Reduction():
                return self.reduction(node)
            case Target():
                return self.target(node)
            case Input():
                type_ = "extent" if node.type is None else self.tensor_type(node.type)
                return f"{self.spell(node.name)}: {type_}"
            case Definition():
                return self.definition(node)
            case Parameter():
                name = self.spell(node.name)
                return name if node.dtype is None else f"{name}: {dtype_text(node.dtype)}"
            case Mapping():
                return self.mapping(node)
            case Layout():
                return self.layout(node)
            case Tile():
                return f"tile {self.spell(node.rank)} = {node.size}"
            case Placement():
                return f"place {self.spell(node.statement)} on {self.spell(node.unit)}"
            case Interleave():
                return f"interleave ({self.spell_all(node.statements)}) {node.scope}"
        raise UnsupportedError(f"{type(node).__name__} has no text form")

    # -- types

    def extent(self, extent: Expression) -> str:
        return self.expressions.text(extent, EXTENT)

    def rank(self, rank: Rank) -> str:
        return f"{self.spell(rank.name)}={self.extent(rank.extent)}"

    def tensor_type(self, type_: TensorType) -> str:
        text = f"{dtype_text(type_.dtype)}[{', '.join(map(self.rank, type_.ranks))}]"
        if type_.format:
            text += f" ({', '.join(map(level_text, type_.format))})"
        if type_.fill is not None:
            text += f" fill {spell_value(type_.fill.value)[0]}"
        return text + " enc" if type_.encrypted else text

    # -- statements

    def statements(self, body: tuple[Statement, ...], indent: str) -> list[str]:
        """The lines of a block; blocks inside it do not recurse."""
        lines: list[str] = []
        pending: list[tuple[str, Statement | str, frozenset[str]]] = [
            (indent, statement, frozenset()) for statement in reversed(body)
        ]
        while pending:
            indent, item, scans = pending.pop()
            if isinstance(item, str):
                lines.append(indent + item)
            elif isinstance(item, Kernel | Scan):
                pending.extend(reversed(self.nested(item, indent, scans)))
            else:
                lines.append(indent + self.plain_statement(item, scans))
        return lines

    def nested(
        self, statement: Kernel | Scan, indent: str, scans: frozenset[str]
    ) -> list[tuple[str, Statement | str, frozenset[str]]]:
        """The lines and inner statements of a statement that holds blocks."""
        inner = indent + INDENT
        if isinstance(statement, Kernel):
            return [
                (indent, f"kernel {self.spell(statement.name)} {{", scans),
                *((inner, each, scans) for each in statement.body),
                (indent, f"}} -> ({self.spell_all(statement.outputs)})", scans),
            ]
        within = scans | {statement.index}
        down = " down" if statement.down else ""
        head = f"scan {self.spell(statement.index)} < {self.extent(statement.extent)}{down} from {{"
        until = ""
        if statement.until is not None:
            until = f" until {self.with_indices(within).text(statement.until)}"
        return [
            (indent, head, scans),
            *((inner, each, scans) for each in statement.initial),
            (indent, "} {", scans),
            *((inner, each, within) for each in statement.body),
            (indent, "}" + until, scans),
        ]

    def plain_statement(self, statement: Statement, scans: frozenset[str]) -> str:
        match statement:
            case Einsum():
                return self.einsum(statement, scans)
            case Call():
                arguments = ", ".join(map(self.call_argument, statement.arguments))
                function = f"{self.spell(statement.function)}@{statement.version}"
                return f"{self.targets(statement.targets)} = call {function}({arguments})"
            case Constant():
                return self.constant(statement)
        raise UnsupportedError(f"{type(statement).__name__} has no text form")

    def target(self, target: Target) -> str:
        name = self.spell(target.name)
        return name if target.type is None else f"{name}: {self.tensor_type(target.type)}"

    def targets(self, targets: tuple[Target, ...]) -> str:
        text = ", ".join(map(self.target, targets))
        return text if len(targets) == 1 else f"({text})"

    def left(self, statement: Einsum) -> str:
        text = self.targets(statement.targets)
        type_ = statement.targets[0].type if len(statement.targets) == 1 else None
        if type_ is not None:
            labels = tuple(Index(rank.name) for rank in type_.ranks)
            if labels == statement.indices:
                return text
        indices = ", ".join(self.expressions.text(x, INDEX) for x in statement.indices)
        return f"{text}[{indices}]"

    def reduction(self, reduction: Reduction) -> str:
        name = reduction.monoid
        if reduction.accumulator is not None:
            name += f":{dtype_text(reduction.accumulator)}"
        return f"{name}[{self.spell_all(reduction.indices)}]"

    def with_indices(self, names: frozenset[str]) -> ExpressionPrinter:
        return ExpressionPrinter(self.spell, names)

    def einsum(self, statement: Einsum, scans: frozenset[str]) -> str:
        parts = [self.left(statement), "=", *map(self.reduction, statement.reductions)]
        parts.append(self.expressions.text(statement.body))
        if statement.bounds:
            parts += ["where", ", ".join(map(self.part, statement.bounds))]
        if statement.condition is not None:
            names = scans | indices_of(statement)
            parts += ["if", self.with_indices(names).text(statement.condition)]
        return " ".join(parts)

    def call_argument(self, argument: Access) -> str:
        name = self.spell(argument.tensor)
        return f"{argument.view}({name})" if argument.view else name

    def constant(self, constant: Constant) -> str:
        left = f"const {self.spell(constant.name)}: {self.tensor_type(constant.type)}"
        if constant.path is not None:
            return f"{left} = blob {spell_string(constant.path)} sha256:{constant.data.hex()}"
        shape = shape_of(constant.type)
        text = None if shape is None else decode(constant.type, shape, constant.data)
        return f"{left} = " + (f'bytes "{constant.data.hex()}"' if text is None else text)

    # -- module

    def definition(self, definition: Definition) -> str:
        match definition:
            case Function():
                parameters = ", ".join(map(self.part, definition.parameters))
                body = self.expressions.text(definition.body)
                name = self.expressions.function_name(definition.name)
                return f"fn {name}({parameters}) = {body}"
            case Monoid():
                left, right = self.spell(definition.left), self.spell(definition.right)
                combined = self.expressions.text(definition.combine)
                lines = [
                    f"identity {self.expressions.text(definition.identity)}",
                    f"combine({left}, {right}) = {combined}",
                ]
                if definition.laws:
                    lines.append(f"laws {', '.join(definition.laws)}")
                return _braced(f"monoid {definition.name}: {dtype_text(definition.dtype)}", lines)
        raise UnsupportedError(f"{type(definition).__name__} has no text form")

    def mapping(self, mapping: Mapping) -> str:
        lines = []
        if mapping.loops:
            lines.append(f"loops {self.spell_all(mapping.loops)}")
        lines += map(self.part, mapping.tiles)
        if mapping.spatial:
            lines.append(f"spatial {self.spell_all(mapping.spatial)}")
        lines += map(self.part, mapping.placements)
        lines += map(self.part, mapping.interleavings)
        return _braced(f"mapping {self.spell(mapping.kernel)}", lines)

    def layout(self, layout: Layout) -> str:
        lines = []
        if layout.strides:
            lines.append(f"strides {', '.join(map(str, layout.strides))}")
        if layout.order:
            lines.append(f"order {self.spell_all(layout.order)}")
        if layout.alias is not None:
            lines.append(f"alias {self.spell(layout.alias)}")
        if layout.donate:
            lines.append("donate")
        return _braced(f"layout {self.spell(layout.tensor)}", lines)

    def module(self, module: Module) -> str:
        inputs = ", ".join(map(self.part, module.inputs))
        outputs = self.spell_all(module.outputs)
        head = f"program {self.spell(module.name)}({inputs}) -> ({outputs}) {{"
        program = "\n".join([head, *self.statements(module.body, INDENT), "}"])
        before = map(self.part, module.definitions)
        after = map(self.part, (*module.mappings, *module.layouts))
        return "\n\n".join([*before, program, *after]) + "\n"


def indices_of(statement: Einsum) -> frozenset[str]:
    """The index variables by which a condition of the statement may call its indices."""
    names = {name for reduction in statement.reductions for name in reduction.indices}
    names.update(bound.index for bound in statement.bounds)
    for root in (*statement.indices, statement.body):
        names.update(part.name for part in postorder(root) if isinstance(part, Index))
    return frozenset(names)


def _braced(head: str, lines: list[str]) -> str:
    return "\n".join([f"{head} {{", *(INDENT + line for line in lines), "}"])
