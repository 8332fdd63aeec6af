"""The pass `contract`: einsums of many factors become trees of small ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol
from typing import Literal as Choices

from einloom.ir.errors import PassError
from einloom.ir.infer import Inference, infer
from einloom.ir.names import nested_statements, written_names
from einloom.ir.program import Einsum, Kernel, Mapping, Module, Scan, Statement
from einloom.ir.types import DType
from einloom.passes.base import Context, Pass
from einloom.passes.contraction.choose import Choice, Method, Wish, choose, parse_path
from einloom.passes.contraction.cost import CostModel, PlainCostModel, counted, direct_operations
from einloom.passes.contraction.emit import Names, emitted
from einloom.passes.contraction.network import Network
from einloom.passes.contraction.recognize import Contraction, Recognizer, Refusal


class Splittable(Protocol):
    """What a plan is chosen for: see `Contraction`."""

    @property
    def network(self) -> Network: ...

    @property
    def dtype(self) -> DType: ...

    @property
    def sliceable(self) -> frozenset[int]: ...


@dataclass(frozen=True)
class Contract(Pass):
    """Split einsums of many factors into trees of small ones, which takes far fewer operations.

    A statement whose body is one associative and commutative product, folded by a reducer that
    the product distributes over (`*` under `sum`, `+` under `max`, `and` under `any`, ...), is
    replaced by statements that define temporaries:

        R[i, l] = sum[j, k] A[i, j] * B[j, k] * C[k, l]

    becomes

        R_1[i, k] = sum[j] A[i, j] * B[j, k]
        R[i, l] = sum[k] R_1[i, k] * C[k, l]

    Indices that one factor alone has are folded before it meets the others. Candidate trees come
    from opt_einsum's path finders; the context's cost model decides between them (operations,
    bytes moved, cost of a launch, strided reads), and not splitting at all is a candidate too:
    fewer operations are often slower. Sizes are those of the program, or the context's hints for
    its symbols, or 64.

    `method`: `auto` compares several finders. A finder's name takes its path, or that of a
    cheaper one where there are too many factors for it to end soon. `left` goes from left to
    right, `none` splits nothing, `given` takes `path`, written as by NumPy: `"(0, 1), (0, 1)"`.
    `memory_limit`: elements that an intermediate may have, or `max_input`: those of the largest
    input. Where the best tree needs more, a scan runs over slices of reduced indices and adds
    them up, and intermediates that are still too large are computed where they are used. The
    result itself, and the running sum over slices, are not counted.

    Floating laws hold up to rounding and for finite values, so a strict context leaves floats
    alone. f16 and bf16 temporaries are f32, so that rounding happens once.

    Source: D. G. A. Smith and J. Gray, "opt_einsum", JOSS 3(26), 753, 2018; slicing: J. Gray and
    S. Kourtis, "Hyper-optimized tensor network contraction", Quantum 5, 410, 2021.
    """

    method: Method = "auto"
    path: str | None = None
    memory_limit: int | Choices["max_input"] | None = None

    name: ClassVar[str] = "contract"
    assumes: ClassVar[tuple[str, ...]] = ("floating values are finite",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.memory_limit, int) and self.memory_limit < 1:
            raise PassError(
                f"memory_limit is {self.memory_limit}, and an intermediate has at least 1 element",
                suggestion="give a number of elements, max_input, or none",
            )
        if self.path is not None and self.method != "given":
            raise PassError(
                f"a path is given, but method is {self.method}",
                suggestion="write contract{method=given, path=...}",
            )
        if self.path is None and self.method == "given":
            raise PassError(
                "method is given, but there is no path",
                suggestion='write contract{method=given, path="(0, 1), (0, 1)"}',
            )
        if self.path is not None:
            parse_path(self.path)

    def run(self, module: Module, context: Context) -> Module:
        """The module with its contractions split; itself where there are none."""
        if not any(_could_split(s) for s in nested_statements(module.body)):
            return module
        return _Splitting(self, module, context).run()

    def wish(self, contraction: Splittable, context: Context) -> Wish:
        """What the options ask of one contraction."""
        path = parse_path(self.path) if self.path is not None else []
        return Wish(self.method, path, self.limit(contraction), context.seed)

    def limit(self, contraction: Splittable) -> int | None:
        """The limit in elements."""
        if self.memory_limit == "max_input":
            network = contraction.network
            return max(1, *(network.size(term) for term in network.terms))
        return self.memory_limit

    def choice(self, contraction: Splittable, context: Context) -> Choice:
        """The plan for one contraction. Raises PassError for a path that does not fit it."""
        model: CostModel = context.cost_model or PlainCostModel()
        wish = self.wish(contraction, context)
        return choose(contraction.network, wish, contraction.sliceable, contraction.dtype, model)


class _Splitting:
    """One run of the pass over one module."""

    def __init__(self, options: Contract, module: Module, context: Context) -> None:
        self.options = options
        self.module = module
        self.context = context
        self.inference: Inference = infer(module)
        self.recognizer = Recognizer(module, self.inference, context)
        self.names = Names(_taken(module, self.inference))
        self.split: set[str] = set()

    def run(self) -> Module:
        body = self.statements(self.module.body)
        if not self.split:
            return self.module
        kept = tuple(m for m in self.module.mappings if not self.outdated(m))
        return replace(self.module, body=tuple(body), mappings=kept)

    def statements(self, statements: Iterable[Statement]) -> list[Statement]:
        # Scans nest at most 32 deep, which inference has checked.
        out: list[Statement] = []
        for statement in statements:
            if isinstance(statement, Einsum):
                out += self.einsum(statement)
            elif isinstance(statement, Scan):
                for first in statement.initial:
                    self.left_alone(first, "it defines the first state of a scan")
                body = tuple(self.statements(statement.body))
                same = body == statement.body
                out.append(statement if same else replace(statement, body=body))
            else:
                if isinstance(statement, Kernel):
                    for inner in nested_statements(statement.body):
                        if isinstance(inner, Einsum):
                            self.left_alone(inner, f"it is fused in kernel {statement.name}")
                out.append(statement)
        return out

    def left_alone(self, statement: Einsum, reason: str) -> None:
        if isinstance(self.recognizer.read(statement), Contraction):
            self.note(statement, f"left as it is: {reason}")

    def note(self, statement: Einsum, text: str) -> None:
        self.context.note(self.options.name, statement.targets[0].name, text)

    def einsum(self, statement: Einsum) -> list[Statement]:
        found = self.recognizer.read(statement)
        if found is None:
            return [statement]
        if isinstance(found, Refusal):
            self.note(statement, f"left as it is: {found.reason}")
            return [statement]
        if self.options.method == "none":
            return [statement]
        choice = self.options.choice(found, self.context)
        plan, cost = choice.plan, choice.cost
        direct = direct_operations(found.network)
        if len(plan.tree.steps) == 1 and not plan.sliced:
            what = f"{plan.finder} keeps one loop nest of {counted(direct)} operations"
            self.note(statement, f"not split: {what}")
            return [statement]
        self.split.add(found.name)
        text = (
            f"split in {len(plan.tree.steps)} steps by the path of {plan.finder}: "
            f"{counted(cost.operations)} operations instead of {counted(direct)}, "
            f"largest intermediate {counted(cost.largest)} elements"
        )
        if plan.sliced:
            over = ", ".join(found.names[index] for index in plan.sliced)
            text += f", in {plan.slices} slices over {over}"
        self.note(statement, text)
        return emitted(found, plan, self.names, self.inference)

    def outdated(self, mapping: Mapping) -> bool:
        """Whether a mapping speaks of a statement that is no longer one; noted if so."""
        placed = {p.statement for p in mapping.placements}
        placed |= {name for i in mapping.interleavings for name in i.statements}
        hit = sorted((placed | {mapping.kernel}) & self.split)
        if hit:
            text = f"its mapping is dropped, since {', '.join(hit)} was split"
            self.context.note(self.options.name, mapping.kernel, text)
        return bool(hit)


def _could_split(statement: Statement) -> bool:
    return isinstance(statement, Einsum) and bool(statement.reductions)


def _taken(module: Module, inference: Inference) -> set[str]:
    """All names of a module."""
    found = set(inference.tensors) | set(inference.symbols)
    found.update(item.name for item in module.inputs)
    found.update(name for statement in module.body for name in written_names(statement))
    found.update(index for typing in inference.einsums.values() for index in typing.extents)
    found.update(d.name for d in module.definitions if hasattr(d, "name"))
    return found
