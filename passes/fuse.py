"""The `fuse` pass: statements that share their outer loops become one kernel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from einloom.ir.definitions import functions_of, monoids_of
from einloom.ir.expressions import Access
from einloom.ir.infer import infer
from einloom.ir.names import defined_names, unique_name
from einloom.ir.node import postorder
from einloom.ir.program import Einsum, Kernel, Module, Statement
from einloom.passes.base import Context, Pass
from einloom.passes.lowering.function import ProgramContext
from einloom.passes.lowering.spine import Member, Refusal, join, join_sibling, start

MOST_SIBLINGS = 16
"""Of so many groups, the latest, a statement may join one that reads what it reads."""


@dataclass(frozen=True)
class Fuse(Pass):
    """Groups statements into kernels: producers with consumers, epilogues with reductions.

    A statement joins the kernel that computes what it reads when both can run inside common
    outer loops: every shared loop index is an index of all their results, and nothing is read
    across its iterations. Intermediates that nobody else reads then hold one iteration's part
    only. A statement that reads nothing of a kernel joins it when both stream the same tensor in
    the same loops, which then is read once. Each refusal is recorded with its reason.
    Before: `C[i, k] = sum[j] A[i, j] * B[j, k]` and `D[i, k] = max(C[i, k], 0.0)`; after: both
    inside `kernel k0 { ... } -> (D)`.
    Source: kernel fusion along common outer loops, as in Halide's compute_at.
    """

    max_ops: int = 16
    name: ClassVar[str] = "fuse"

    def run(self, module: Module, context: Context) -> Module:
        if any(isinstance(s, Kernel) for s in module.body):
            context.note(self.name, module.name, "has kernels already, which stay as they are")
            return module
        inference = infer(module)
        program = ProgramContext(
            inference, {}, functions_of(module), monoids_of(module), {}, context.strict
        )
        work = _Grouping(module, program, context, self.max_ops)
        for statement in module.body:
            work.add(statement)
        body = work.body()
        return module if body == module.body else replace(module, body=body)


@dataclass
class _Group:
    members: tuple[Member, ...]
    single: Statement | None = None

    @property
    def statements(self) -> tuple[Statement, ...]:
        if self.single is not None:
            return (self.single,)
        return tuple(member.statement for member in self.members)


@dataclass
class _Grouping:
    module: Module
    program: ProgramContext
    context: Context
    max_ops: int
    groups: list[_Group] = field(default_factory=list)
    home: dict[str, int] = field(default_factory=dict)

    def add(self, statement: Statement) -> None:
        """Put a statement into the latest group that it reads from, or into one of its own."""
        if isinstance(statement, Einsum):
            reads = {p.tensor for p in postorder(statement) if isinstance(p, Access)}
            homes = {self.home[name] for name in reads if name in self.home}
            if homes and self.joined(statement, max(homes)):
                self.settle(statement, max(homes))
                return
            sibling = self.sibling(statement, max(homes, default=-1) + 1)
            if sibling is not None:
                self.settle(statement, sibling)
                return
            members = start(statement, self.program)
            if isinstance(members, Refusal):
                self.note(statement, members.reason)
                self.groups.append(_Group((), statement))
            else:
                self.groups.append(_Group(members))
        else:
            self.groups.append(_Group((), statement))
        self.settle(statement, len(self.groups) - 1)

    def settle(self, statement: Statement, group: int) -> None:
        for name in defined_names(statement):
            self.home[name] = group

    def joined(self, statement: Einsum, position: int) -> bool:
        group = self.groups[position]
        if group.single is not None:
            what = "a scan" if not isinstance(group.single, Einsum) else "a statement on its own"
            self.note(statement, f"what it reads is computed by {what}")
            return False
        if len(group.members) >= self.max_ops:
            self.note(statement, f"the kernel has max_ops = {self.max_ops} statements")
            return False
        members = join(group.members, statement, self.program)
        if isinstance(members, Refusal):
            self.note(statement, members.reason)
            return False
        self.groups[position] = _Group(members)
        return True

    def sibling(self, statement: Einsum, after: int) -> int | None:
        """The latest group that reads what a statement reads, in the same loops."""
        for position in reversed(range(max(after, len(self.groups) - MOST_SIBLINGS),
                                       len(self.groups))):  # fmt: skip
            group = self.groups[position]
            if group.single is not None or len(group.members) >= self.max_ops:
                continue
            members = join_sibling(group.members, statement, self.program)
            if not isinstance(members, Refusal):
                self.groups[position] = _Group(members)
                return position
        return None

    def note(self, statement: Einsum, reason: str) -> None:
        self.context.note("fuse", statement.targets[0].name, f"not fused: {reason}")

    def body(self) -> tuple[Statement, ...]:
        readers: dict[str, set[int]] = {}
        for position, group in enumerate(self.groups):
            for statement in group.statements:
                for part in postorder(statement):
                    if isinstance(part, Access):
                        readers.setdefault(part.tensor, set()).add(position)
        found: list[Statement] = []
        taken = list(self.program.inference.tensors)
        for position, group in enumerate(self.groups):
            statements = group.statements
            if len(statements) == 1:
                found.append(statements[0])
                continue
            names = [name for s in statements for name in defined_names(s)]
            outputs = tuple(
                name for name in names
                if name in self.module.outputs or readers.get(name, set()) - {position}
            )  # fmt: skip
            kernel = unique_name(f"k{len(found)}", taken)
            taken.append(kernel)
            found.append(Kernel(kernel, statements, outputs))
            self.context.note(
                "fuse", kernel,
                f"{', '.join(names)} share the loops over "
                f"{', '.join(group.members[0].spine)}",
            )  # fmt: skip
        return tuple(found)
