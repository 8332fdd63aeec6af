"""What the kernels of a compiled program are predicted to take, and what they take."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from einloom.ir.loops import LoopProgram, tensor_of
from einloom.ir.record import record
from einloom.kernels import default_threads, kernel_pool, known_layouts, lowered, threads_to_use
from einloom.report import Cell, Quantity, Table

if TYPE_CHECKING:
    from einloom.backends.cost import StatementCost
    from einloom.executable import Executable
    from einloom.passes.lowering.products.blocking import Blocking, Tiling
    from einloom.passes.lowering.products.decisions import Decision

LEAST_RUNS, MOST_RUNS, SECONDS_OF_RUNS = 5, 200, 0.5


@record
class KernelTime:
    """Kernels that run statements together, those as they were predicted, and the fastest run."""

    kernels: tuple[str, ...]
    costs: tuple[StatementCost, ...]
    seconds: float


def decisions(executable: Executable, sizes: Mapping[str, int]) -> list[Decision]:
    """How contractions and transpositions are cut for contiguous operands of these sizes."""
    from dataclasses import replace

    from einloom.backends.cpu.target import host_machine
    from einloom.passes.lowering.products.decisions import decisions_of

    layouts = known_layouts(executable.default_layouts())
    found = list(decisions_of(executable.native, layouts, sizes, host_machine()))
    if executable.strict:
        kept = "strict: sums are added up in their written order"
        return [replace(d, cut=None, reason=kept) for d in found]
    if executable.autotune:
        chosen = dict(executable.blockings(executable.default_layouts(), sizes))
        return [replace(d, cut=_chosen(d.cut, chosen.get(d.tensor))) for d in found]
    return found


def _chosen(usual: Blocking | Tiling | None, chosen: object) -> Blocking | Tiling | None:
    from einloom.passes.lowering.products.blocking import Blocking

    return chosen if usual is not None and isinstance(chosen, Blocking) else usual


def costs(executable: Executable, sizes: Mapping[str, int]) -> list[StatementCost]:
    """The predicted cost of every statement on this machine and its threads."""
    from einloom.backends.cost import cost_of
    from einloom.machine_file import machine_model
    from einloom.passes.lowering.products.blocking import Tiling

    decided = decisions(executable, sizes)
    packed = {d.tensor: d.share for d in decided if d.share}
    transposed = {d.tensor for d in decided if isinstance(d.cut, Tiling)}
    model = machine_model().on(threads_to_use(default_threads()))
    return cost_of(executable.module, sizes, model, packed, transposed)


def loops_for(executable: Executable, sizes: Mapping[str, int]) -> LoopProgram:
    """The loops-level program for contiguous operands of these sizes."""
    layouts = executable.default_layouts()
    blockings = executable.blockings(layouts, sizes)
    return lowered(executable.native, layouts, executable.strict, blockings)


def kernel_times(
    executable: Executable, sizes: Mapping[str, int], seed: int = 0
) -> list[KernelTime]:
    """Runs the program on random operands of these sizes, each kernel timed by itself.

    Results are allocated once, before; what a kernel finds in the caches is what the kernels
    before it left there. Raises UnsupportedError for a program that does not run natively.
    """
    seconds = iter(_seconds(executable, sizes, seed))
    found = kernels_of(loops_for(executable, sizes), costs(executable, sizes))
    return [KernelTime(names, own, sum(next(seconds) for _ in names)) for names, own in found]


def kernels_of(
    loops: LoopProgram, predicted: Sequence[StatementCost]
) -> list[tuple[tuple[str, ...], tuple[StatementCost, ...]]]:
    """The kernels in the order of their launches, and the statements that they run.

    Statements run in the order of the program, so a kernel runs all up to the last whose result
    it writes. One that writes no result of a statement prepares the next, and stands with it.
    """
    functions = {function.name: function for function in loops.functions}
    found: list[tuple[tuple[str, ...], tuple[StatementCost, ...]]] = []
    begin = 0
    waiting: tuple[str, ...] = ()
    for launch in loops.launches:
        waiting = (*waiting, launch.function)
        buffers = functions[launch.function].buffers
        written = {tensor_of(b.name)[0] for b in buffers if b.role != "in"}
        own = [k for k, c in enumerate(predicted) if written & set(c.name.split(", "))]
        end = max([begin, *(k + 1 for k in own)])
        if end > begin:
            found.append((waiting, tuple(predicted[begin:end])))
            begin, waiting = end, ()
    if waiting and found:
        found[-1] = (found[-1][0] + waiting, found[-1][1])
    elif waiting:
        found.append((waiting, ()))
    return found


def _seconds(executable: Executable, sizes: Mapping[str, int], seed: int) -> list[float]:
    """The fastest of several runs of each kernel."""
    from einloom.backends.cpu.addresses import address_of
    from einloom.cli.inputs import random_inputs

    module = executable.module
    operands = {item.name: item.value for item in random_inputs(module, sizes, {}, seed)}
    for item in module.inputs:
        if item.type is None:
            operands.setdefault(item.name, sizes[item.name])
    tensors, symbols = executable.tensors(operands)
    prepared = executable.prepared(tensors, symbols)
    arrays = [*(tensors[name] for name in prepared.inputs), *prepared.allocate()]
    addresses = [address_of(array) for array in arrays]
    pool, threads = kernel_pool(), threads_to_use(default_threads())
    least = [float("inf")] * len(prepared.calls)
    runs, begun = 0, time.perf_counter()
    while runs < LEAST_RUNS or (runs < MOST_RUNS and time.perf_counter() - begun < SECONDS_OF_RUNS):
        for position, call in enumerate(prepared.calls):
            started = time.perf_counter()
            call.run(addresses, pool, threads)
            least[position] = min(least[position], time.perf_counter() - started)
        runs += 1
    return least


def measured_table(times: Sequence[KernelTime]) -> Table:
    """Predicted and measured time of every kernel, and how near it comes to the machine's peak.

    The fraction of the roofline is the time that its operations or its bytes, whichever are
    slower, take at the peak that was measured, over the time that it took.
    """
    rows: list[tuple[Cell, ...]] = [
        (", ".join(t.kernels), ", ".join(c.name for c in t.costs), *_rates(t.costs, t.seconds))
        for t in times
    ]
    if len(times) > 1:
        every = [cost for t in times for cost in t.costs]
        rows.append(("all", "", *_rates(every, sum(t.seconds for t in times))))
    amounts = ("predicted", "measured", "ratio", "FLOP/s", "bytes/s", "of roofline")
    columns = ("kernel", "statements", *amounts)
    return Table("predicted and measured", columns, tuple(rows), tuple(range(2, len(columns))))


def _rates(parts: Sequence[StatementCost], seconds: float) -> tuple[Cell, ...]:
    predicted = sum(c.seconds for c in parts)
    moved = sum(c.bytes_read + c.bytes_written for c in parts)
    bound = max(sum(c.computing for c in parts), sum(c.moving for c in parts))
    return (
        Quantity(predicted, "seconds"),
        Quantity(seconds, "seconds"),
        Quantity(seconds / predicted, "ratio") if predicted else "-",
        Quantity(round(sum(c.flops for c in parts) / seconds)),
        Quantity(round(moved / seconds), "bytes"),
        Quantity(bound / seconds, "ratio"),
    )
