"""The interpreter of whole programs: statements in order, scans, host functions, constants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod

import numpy as np

from einloom.ir import extents as ext
from einloom.ir.binding import bind, size_of, spelled
from einloom.ir.casting import literal_array
from einloom.ir.constants import constant_array
from einloom.ir.definitions import functions_of, monoids_of
from einloom.ir.errors import BackendError, Location, ParseError, UnsupportedError
from einloom.ir.expressions import Access, Expression, Index
from einloom.ir.infer import infer
from einloom.ir.interpret.compile import plan
from einloom.ir.interpret.einsum import EinsumRunner, Surroundings
from einloom.ir.interpret.plan import Plan
from einloom.ir.interpret.storage import Frame, State, Storage, of_quantized
from einloom.ir.interpret.values import Array, array_of, binary_size, converted, loaded
from einloom.ir.interpret.writing import allocated
from einloom.ir.names import nested_statements, own_names
from einloom.ir.node import Node, postorder
from einloom.ir.program import Call, Constant, Einsum, Kernel, Module, Scan, Statement
from einloom.ir.promotion import numpy_dtype
from einloom.ir.quantized import QuantizedArray
from einloom.ir.types import TensorType, bool_
from einloom.ir.typing import Lookup

HostFunction = Callable[..., object]

DEFAULT_MEMORY_CAP = 2**30


@np.errstate(all="ignore")
def interpret(
    module: Module,
    arrays: Mapping[str, object],
    *,
    memory_cap: int = DEFAULT_MEMORY_CAP,
    calls: Mapping[str, HostFunction] | None = None,
) -> dict[str, Array]:
    """Run a program as its semantics say, and return exactly its results, by name.

    `arrays`: the inputs by name, see `ir/binding.py`; they are never modified, and no result
    shares memory with them. `memory_cap`: bytes that one tensor, and the temporaries of one
    statement, may take; statements are evaluated in parts to keep to it. `calls`: the host
    functions of the program's calls, by `name@version`; each takes read-only arrays and returns
    one array, or a tuple of them.

    Raises ShapeError, DTypeError or RangeError for inputs that do not fit and for reads out of
    range, UnsupportedError for a result larger than the cap and for an unknown host function.

    >>> from einloom.ir.text import parse
    >>> module = parse("program p(X: f64[i=N]) -> (Y) { Y = sum[i] X[i] * X[i] }")
    >>> float(interpret(module, {"X": [3.0, 4.0]})["Y"])
    25.0
    """
    run = _Run(module, arrays, memory_cap, calls or {})
    run.statements(module.body)
    return {name: run.result(name) for name in module.outputs}


class _Run:
    def __init__(
        self,
        module: Module,
        arrays: Mapping[str, object],
        memory_cap: int,
        calls: Mapping[str, HostFunction],
    ) -> None:
        self.module, self.calls, self.memory_cap = module, calls, memory_cap
        self.inference = infer(module)
        bound = bind(module, arrays)
        self.symbols = bound.symbols
        self.storages: dict[str, Storage] = {}
        for item in module.inputs:
            if item.type is not None:
                self.storages[item.name] = self.input(item.name, item.type, bound.arrays[item.name])
        self.lookup = Lookup(
            self.inference.tensors, set(), functions_of(module), monoids_of(module)
        )
        self.around = Surroundings(self.storages, self.symbols, self.lookup, memory_cap)
        self.runners: dict[Einsum, EinsumRunner] = {}
        self.scan_indices: dict[str, int] = {}
        self.open: set[str] = set()
        self.handed_out: set[str] = set()

    def input(self, name: str, type_: TensorType, value: Array | QuantizedArray) -> Storage:
        if not isinstance(value, QuantizedArray):
            return Storage(type_, value, owned=False)
        size = 4 * prod(value.shape)
        if size > self.memory_cap:
            raise UnsupportedError(
                f"{name} takes {binary_size(size)} when decoded, the memory cap is "
                f"{binary_size(self.memory_cap)}"
            )
        return of_quantized(type_, value)

    def result(self, name: str) -> Array:
        storage = self.storages[name]
        if storage.quantized is not None:
            raise UnsupportedError(f"the result {name} is quantized")
        if storage.owned and name not in self.handed_out:
            self.handed_out.add(name)
            return storage.array
        return np.array(storage.array)

    def size(self, extent: Expression) -> int:
        return size_of(extent, self.symbols, extent.location)

    def shape(self, type_: TensorType) -> tuple[int, ...]:
        return tuple(self.size(extent) for extent in type_.extents)

    # -- statements

    def statements(self, body: tuple[Statement, ...]) -> None:
        """Run statements and what they contain; scans and kernels wait on a stack."""
        stack: list[Iterator[Statement]] = [iter(body)]
        while stack:
            statement = next(stack[-1], None)
            match statement:
                case None:
                    stack.pop()
                case Einsum():
                    self.einsum(statement)
                case Kernel():
                    stack.append(iter(statement.body))
                case Scan():
                    stack.append(self.scan(statement))
                case Constant():
                    array = constant_array(statement, self.shape(statement.type))
                    self.storages[statement.name] = Storage(statement.type, array, owned=False)
                case Call():
                    self.call(statement)
                case _:
                    raise UnsupportedError(
                        f"{type(statement).__name__} is no statement that is interpreted",
                        location=statement.location,
                    )

    def einsum(self, statement: Einsum) -> None:
        if statement not in self.runners:
            typing = self.inference.einsums[statement]
            self.runners[statement] = EinsumRunner(statement, typing, self.around)
        self.runners[statement].run(self.scan_indices)

    def call(self, statement: Call) -> None:
        key = f"{statement.function}@{statement.version}"
        if key not in self.calls:
            raise UnsupportedError(
                f"the host function {key} is not given",
                location=statement.location,
                suggestion=f"pass it: calls={{{key!r}: function}}",
            )
        results = self.calls[key](*(self.argument(access) for access in statement.arguments))
        parts = list(results) if isinstance(results, tuple) else [results]
        if len(parts) != len(statement.targets):
            raise BackendError(
                f"{key} returned {len(parts)} results, the program defines "
                f"{len(statement.targets)}",
                location=statement.location,
            )
        for target, part in zip(statement.targets, parts, strict=True):
            assert target.type is not None
            array, wanted = np.array(part), numpy_dtype(target.type.dtype)
            shape = self.shape(target.type)
            if array.shape != shape or array.dtype != wanted:
                raise BackendError(
                    f"{key} returned {array.dtype} of shape {array.shape} for {target.name}, "
                    f"declared {spelled(target.type.dtype)} of shape {shape}",
                    location=statement.location,
                )
            self.storages[target.name] = Storage(target.type, array)

    def argument(self, access: Access) -> Array:
        """The tensor that a call reads, whole and read-only."""
        if access.indices:
            raise UnsupportedError(
                "a call takes whole tensors", location=access.location,
                suggestion=f"copy the part first: part[...] = {access.tensor}[...]",
            )  # fmt: skip
        view = self.storages[access.tensor].view(access.view).view()
        view.flags.writeable = False
        return view

    # -- scans

    def scan(self, scan: Scan) -> Iterator[Statement]:
        """The statements to run, in order; what happens between them happens in between."""
        extent = self.size(scan.extent)
        names = [n for s in scan.initial for n in own_names(s) if n not in self.open]
        states = [self.new_state(scan, name, extent) for name in names]
        self.open.update(names)
        until = None if scan.until is None else plan(scan.until, self.lookup, ())
        if not self.scan_indices:
            self.open_histories(scan)
        first = extent if scan.down else 0
        for state in states:
            state.defined = first, first + 1
        yield from scan.initial
        last = first
        for t in range(extent - 1, -1, -1) if scan.down else range(extent):
            self.scan_indices[scan.index] = t
            last = t if scan.down else t + 1
            for state in states:
                state.defined = (t, extent + 1) if scan.down else (0, t + 2)
                state.forget(t if scan.down else t + 1)
            yield from scan.body
            if until is not None and self.holds(until):
                break
        self.scan_indices.pop(scan.index, None)
        self.open.difference_update(names)
        for state in states:
            state.last, state.defined = last, (0, extent + 1)

    def open_histories(self, outermost: Scan) -> None:
        """Make the tensors of the body that are indexed by an enclosing scan, full of their fill
        value: what an iteration writes stays for the ones after it."""
        for statement in nested_statements([outermost]):
            if not isinstance(statement, Einsum):
                continue
            around = set(self.inference.einsums[statement].scans)
            if not any(around & set(ext.indices_in(e)) for e in statement.indices):
                continue
            for name in own_names(statement):
                if name in self.inference.states:
                    continue
                type_ = self.inference.tensors[name]
                fill = literal_array(type_.fill.value if type_.fill else 0, type_.dtype)
                array = allocated(
                    name, type_, self.shape(type_), loaded(fill, type_.dtype), self.memory_cap,
                    statement.location,
                )  # fmt: skip
                self.storages[name] = Storage(type_, array, kept=True)

    def new_state(self, scan: Scan, name: str, extent: int) -> State:
        type_ = self.inference.tensors[name]
        window = min(extent + 1, self.window(scan, name) or extent + 1)
        shape = (window, *self.shape(type_)[1:])
        fill = literal_array(type_.fill.value if type_.fill is not None else 0, type_.dtype)
        array = allocated(
            name, type_, shape, loaded(fill, type_.dtype), self.memory_cap, scan.location
        )
        state = State(type_, array, extent=extent + 1, window=window, fill=fill)
        self.storages[name] = state
        return state

    def window(self, scan: Scan, name: str) -> int | None:
        """How many successive states are needed at a time; None: the whole history."""
        if name in self.module.outputs:
            self.check_history(scan, name, scan.location)
            return None
        inside = {id(part) for part in postorder(scan)}
        oldest = 0
        for part in _expressions(self.module):
            for access in postorder(part):
                if not isinstance(access, Access) or access.tensor != name:
                    continue
                if access.view == "final":
                    continue
                if id(part) not in inside:
                    self.check_history(scan, name, access.location)
                    return None
                if not access.indices:
                    return None
                form = ext.polynomial(access.indices[0])
                offset = form.pop((), 0)
                if form != {(Index(scan.index),): 1}:
                    return None
                oldest = max(oldest, offset if scan.down else 1 - offset)
        return oldest + 1

    def check_history(self, scan: Scan, name: str, location: Location | None) -> None:
        """Refuse a read of the history after a scan with `until`: there is none."""
        if scan.until is not None:
            raise ParseError(
                f"with until, only the final state of {name} can be read",
                location=location,
                suggestion=f"read final({name})[...] in a statement after the scan",
            )

    def holds(self, condition: Plan) -> bool:
        value = condition.run(Frame(self.storages, self.symbols, self.scan_indices))
        return bool(array_of(converted(value, bool_)))


def _expressions(module: Module) -> Iterator[Node]:
    """The parts of a program that read tensors, each scan's parts one by one."""
    for statement in nested_statements(module.body):
        if isinstance(statement, Scan):
            if statement.until is not None:
                yield statement.until
        elif isinstance(statement, Einsum | Call):
            yield statement
