"""What nobody reads is not computed: statements, scans, and single states of scans."""

from __future__ import annotations

from collections.abc import Iterator

from einloom.ir.program import Call, Constant, Einsum, Kernel, Scan, Statement
from einloom.ir.rewrite.graph import Graph, Slot, slots_in, tensors_read
from einloom.ir.rewrite.patterns import Match
from einloom.ir.rewrite.rule import Edit, StatementRule
from einloom.ir.rewrite.scope import Scope

SOURCE = "a program is pure: a tensor that nobody reads has no effect"


def _unread(statement: Statement, scope: Scope) -> Iterator[Match]:
    graph = scope.graph
    if isinstance(statement, Einsum | Call | Constant):
        names = scope.slot.targets
        if not any(graph.is_needed(name) or name in graph.states for name in names):
            yield {}
    elif isinstance(statement, Kernel) and not any(slots_in(scope.slot.regions[0])):
        yield {}
    elif isinstance(statement, Scan):
        inside = [s for region in scope.slot.regions for s in slots_in(region)]
        names = tuple(dict.fromkeys(name for s in inside for name in s.targets))
        if not any(is_used_outside(name, scope.slot, graph) for name in names):
            yield {}


def is_used_outside(name: str, scan: Slot, graph: Graph) -> bool:
    """Whether a tensor that a scan writes is a result, or read after the scan."""
    return name in graph.outputs or any(
        reader is not scan and not any(r.encloses(reader.region) for r in scan.regions)
        for reader in graph.readers_of(name)
    )


def _dead_states(statement: Statement, scope: Scope) -> Iterator[Match]:
    """Slots of a scan that nothing which is needed depends on."""
    if not isinstance(statement, Scan):
        return
    scan, graph = scope.slot, scope.graph
    inside = [s for region in scan.regions for s in slots_in(region) if not s.regions]
    inner = [s for region in scan.regions for s in slots_in(region) if s.regions]
    writers: dict[str, list[Slot]] = {}
    for slot in inside:
        for name in slot.targets:
            writers.setdefault(name, []).append(slot)
    needed = [name for name in writers if is_used_outside(name, scan, graph)]
    for frame in (scan, *inner):
        needed += tensors_read(frame.statement)
    live: set[Slot] = set()
    while needed:
        for slot in writers.get(needed.pop(), ()):
            if slot not in live:
                live.add(slot)
                # What a statement with several targets writes is written whole.
                needed += [*slot.reads, *slot.targets]
    dead = tuple(slot for slot in inside if slot not in live)
    # An inner scan may not lose all its states; without any live slot it goes whole, elsewhere.
    if dead and not inner:
        yield {"statement": statement, "dead": dead}


DEAD_CODE = (
    StatementRule(
        "statement_without_a_reader_is_dropped",
        "T = f is dropped where T is no result and nobody reads it",
        ("Einsum", "Call", "Constant", "Scan", "Kernel"),
        source=SOURCE,
        pattern=_unread,
        replacement=lambda match, scope: Edit(()),
    ),
    StatementRule(
        "state_without_a_reader_is_dropped",
        "a state that only its own update reads is dropped with that update",
        ("Scan",),
        source=SOURCE,
        pattern=_dead_states,
        replacement=lambda match, scope: Edit((match["statement"],), dropped=match["dead"]),
    ),
)
