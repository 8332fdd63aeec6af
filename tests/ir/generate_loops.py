"""Random loop programs that the verifier accepts: names exist, lanes and dtypes fit together.

`random_loops(random.Random(seed), size)` uses every node of the loops level, awkward names and
operations nested in ways that a program would not keep. Values are not meant to mean anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from einloom.ir.expressions import Apply, Cast, Expression, Literal, Local, Symbol
from einloom.ir.loops import (
    Across,
    Allocate,
    Append,
    AtomicAdd,
    Buffer,
    CallKernel,
    Carried,
    Check,
    Dot,
    FaultSite,
    For,
    HashInsert,
    HashLookup,
    If,
    Launch,
    Let,
    Load,
    LoopFunction,
    LoopProgram,
    LoopStatement,
    PackPanel,
    Prefetch,
    Search,
    Splat,
    Storage,
    Store,
    Stream,
    TileMultiply,
    Transpose,
    Vector,
    While,
)
from einloom.ir.types import SCALARS, DType, Modular, Scalar, Tuple, bool_, f32, f64, i32, i64
from tests.ir.samples import AWKWARD_NAMES, FLOATS

LOOP_NAMES = (
    "in", "carry", "step", "slices", "work", "across", "splat", "dot", "search", "hash", "lookup",
    "for", "while", "let", "transpose", "stream", "prefetch", "alloc", "check", "append",
    "atomic", "mma", "pack", "yield", "else", "storage", "launch", "fault", "stack", "strict",
    "unaligned", "out",
    "inout", "vector", "parallel", "block", "panel", "f32x16", "x8", "T.0", "S.steps", "ceil",
    "ceildiv", "exp", "insert", "workspace",
)  # fmt: skip
LANES = 8
MESSAGES = ("index i of X is {value}", 'a "quote" \\ and\na line', "λ → é", "")
ORDER = ("lt", "le", "gt", "ge", "eq", "ne")
FLAT = ("add", "mul", "max", "min")


@dataclass
class Generator:
    """State of one function: what is in scope, by kind (int, float, bool, vector)."""

    rng: Random
    awkward: list[str]
    functions: list[LoopFunction] = field(default_factory=list)
    names: int = 0
    faults: int = 0
    scalars: tuple[str, ...] = ()
    values: dict[str, list[str]] = field(default_factory=dict)
    buffers: dict[str, tuple[DType, int, bool]] = field(default_factory=dict)

    def name(self, stem: str) -> str:
        """A fresh name, awkward at times."""
        if self.awkward and self.rng.random() < 0.2:
            return self.awkward.pop()
        self.names += 1
        return f"{stem}{self.names}"

    # -- values

    def readable(self, *dtypes: DType, rank: int | None = None, written: bool = False) -> list[str]:
        return [
            name for name, (dtype, dimensions, writable) in self.buffers.items()
            if dtype in dtypes and rank in (None, dimensions) and (writable or not written)
        ]  # fmt: skip

    def indices(self, buffer: str, depth: int = 1) -> tuple[Expression, ...]:
        return tuple(self.value("int", depth) for _ in range(self.buffers[buffer][1]))

    def load(self, buffer: str, lanes: int = 1) -> Load:
        return Load(buffer, self.indices(buffer), lanes)

    def leaf(self, kind: str) -> Expression:
        rng = self.rng
        if self.values.get(kind) and rng.random() < 0.6:
            return Local(rng.choice(self.values[kind]))
        if kind == "int":
            symbols = [Symbol(name) for name in self.scalars]
            return rng.choice([*symbols, *(Literal(x) for x in (0, 1, -1, 512, 2**31))])
        if kind == "bool":
            return Literal(rng.random() < 0.5)
        scalar = Literal(rng.choice((*FLOATS, rng.uniform(-9, 9))))
        return scalar if kind == "float" else Splat(scalar, LANES)

    def value(self, kind: str, depth: int) -> Expression:
        rng = self.rng
        if depth <= 0 or rng.random() < 0.1:
            return self.leaf(kind)

        def inner(of: str = kind) -> Expression:
            return self.value(of, depth - 1)

        match kind:
            case "bool":
                if rng.random() < 0.3:
                    return Apply("not", (inner(),))
                if rng.random() < 0.4:
                    return Apply(rng.choice(("and", "or")), tuple(inner() for _ in range(2)))
                of = rng.choice(("int", "float"))
                return Apply(rng.choice(ORDER), (inner(of), inner(of)))
            case "vector":
                return self.vector(depth)
        choice = rng.randrange(7)
        if choice < 2:
            count = rng.randint(2, 4)
            return Apply(rng.choice(FLAT), tuple(inner() for _ in range(count)))
        if choice == 2:
            return Apply("select", (inner("bool"), inner(), inner()))
        return self.integer(depth, choice) if kind == "int" else self.floating(depth, choice)

    def integer(self, depth: int, choice: int) -> Expression:
        rng = self.rng
        one, two = self.value("int", depth - 1), self.value("int", depth - 1)
        match choice:
            case 3:
                return Apply(rng.choice(("neg", "bitnot", "abs")), (one,))
            case 4:
                ceiling = Apply("ceil", (Apply("div", (one, two)),))
                return Cast(rng.choice((i32, i64)), rng.choice((ceiling, one)))
            case 5:
                sorted_ = self.readable(i64, rank=1)
                if sorted_:
                    return Search(rng.choice(sorted_), one, two, self.value("int", depth - 1))
                return one
        ops = ("sub", "floordiv", "ceildiv", "mod", "shl", "shr", "bitand", "bitor", "bitxor")
        return Apply(rng.choice(ops), (one, two))

    def floating(self, depth: int, choice: int) -> Expression:
        rng = self.rng
        one = self.value("float", depth - 1)
        floats = self.readable(f32, f64)
        match choice:
            case 3:
                return Apply(rng.choice(("neg", "exp", "tanh", "floor", "abs")), (one,))
            case 4:
                kind = rng.choice(("float", "int"))
                return Cast(rng.choice((f32, f64, Scalar("bf16"))), self.value(kind, depth - 1))
            case 5 if floats:
                buffer = rng.choice(floats)
                if rng.random() < 0.2:
                    return HashLookup(buffer, self.value("int", depth - 1), one)
                return self.load(buffer)
            case 6 if rng.random() < 0.4:
                op = rng.choice(("add", "mul", "max", "min"))
                return Across(op, self.value("vector", depth - 1))
        two = self.value("float", depth - 1)
        return Apply(rng.choice(("sub", "div", "pow", "floordiv", "mod")), (one, two))

    def vector(self, depth: int) -> Expression:
        rng = self.rng
        floats = [name for name in self.readable(f32, f64) if self.buffers[name][1]]
        match rng.randrange(6):
            case 5:
                factors = [
                    Cast(
                        Vector(Scalar("bf16"), lanes), Splat(self.value("float", depth - 1), lanes)
                    )
                    for lanes in (2, 2 * LANES)
                ]
                sums = Cast(Vector(f32, LANES), self.value("vector", depth - 1))
                return Dot(2, sums, *factors)
            case 0 if floats:
                return self.load(rng.choice(floats), LANES)
            case 1:
                return Splat(self.value("float", depth - 1), LANES)
            case 2:
                return Cast(Vector(rng.choice((f32, f64)), LANES), self.value("vector", depth - 1))
        parts = tuple(self.value("vector", depth - 1) for _ in range(2))
        return Apply(rng.choice((*FLAT, "sub", "div")), parts)

    def any_value(self, depth: int = 3) -> tuple[str, Expression]:
        kind = self.rng.choice(("int", "float", "float", "bool", "vector"))
        return kind, self.value(kind, depth)

    # -- statements

    @contextmanager
    def block(self) -> Iterator[None]:
        """What is defined inside is forgotten at the end."""
        values = {kind: list(names) for kind, names in self.values.items()}
        buffers = dict(self.buffers)
        yield
        self.values, self.buffers = values, buffers

    def body(self, size: int, depth: int) -> tuple[LoopStatement, ...]:
        return tuple(self.statement(depth) for _ in range(self.rng.randint(0, size)))

    def carry(self) -> tuple[tuple[Carried, ...], list[str]]:
        """Carried values, and the kind of each; they are not yet in scope."""
        dtypes = {
            "int": i64, "float": self.rng.choice((f32, f64)), "bool": bool_,
            "vector": Vector(f32, LANES),
        }  # fmt: skip
        kinds = [self.rng.choice(list(dtypes)) for _ in range(self.rng.randint(0, 2))]
        items = tuple(Carried(self.name("c"), dtypes[k], self.value(k, 2)) for k in kinds)
        return items, kinds

    def define(self, names: tuple[str, ...], kinds: list[str]) -> None:
        for name, kind in zip(names, kinds, strict=True):
            self.values.setdefault(kind, []).append(name)

    def yields(self, kinds: list[str]) -> tuple[Expression, ...]:
        return tuple(self.value(kind, 2) for kind in kinds)

    def for_(self, depth: int, parallel: bool = False) -> For:
        rng = self.rng
        index = self.name("i")
        if parallel:
            with self.block():
                self.define((index,), ["int"])
                body = self.body(5, depth)
            return For(index, Literal(0), self.leaf("int"), body, "parallel")
        lower, upper = self.value("int", 2), self.value("int", 2)
        items, kinds = self.carry()
        names = tuple(item.name for item in items)
        self.define(names, kinds)
        with self.block():
            self.define((index,), ["int"])
            body = self.body(4, depth)
            yields = self.yields(kinds)
        kind = rng.choice(("serial", "serial", "vector", "unroll"))
        step = rng.choice((1, 1, 4, -1))
        return For(index, lower, upper, body, kind, step, items, yields)

    def while_(self, depth: int) -> While:
        items, kinds = self.carry()
        self.define(tuple(item.name for item in items), kinds)
        condition = self.value("bool", 2)
        with self.block():
            body = self.body(3, depth)
            yields = self.yields(kinds)
        return While(condition, items, body, yields)

    def if_(self, depth: int) -> If:
        condition = self.value("bool", 3)
        items, kinds = self.carry()
        self.define(tuple(item.name for item in items), kinds)
        with self.block():
            then, yields = self.body(3, depth), self.yields(kinds)
        if self.rng.random() < 0.5:
            return If(condition, then, (), items, yields)
        with self.block():
            return If(condition, then, self.body(3, depth), items, yields, self.yields(kinds))

    def statement(self, depth: int) -> LoopStatement:
        rng = self.rng
        if depth > 0 and rng.random() < 0.4:
            return rng.choice((self.for_, self.while_, self.if_))(depth - 1)
        written = self.readable(f32, f64, written=True)
        made: LoopStatement
        match rng.randrange(14):
            case 0 | 1:
                kind, value = self.any_value()
                made = Let(self.name("v"), value)
                self.define((made.name,), [kind])
            case 2:
                made = self.allocate()
            case 3:
                self.faults += 1
                reported = (self.value("int", 2), self.value("int", 1))
                made = Check(self.value("bool", 3), self.faults, *reported)
            case 4 if self.calls():
                made = rng.choice(self.calls())
            case 5:
                made = Append(rng.choice(written), self.value("float", 2))
            case 6:
                op = rng.choice(("add", "max", "or", "and", "bitxor"))
                made = HashInsert(
                    rng.choice(written), self.value("int", 2), self.value("float", 2), op
                )
            case 7:
                buffer = rng.choice(written)
                made = AtomicAdd(buffer, self.indices(buffer), self.value("float", 2))
            case 8:
                loads = [self.load(rng.choice(written), rng.choice((1, LANES))) for _ in range(3)]
                dtypes = (rng.choice((f32, i32)), Scalar("bf16"), Modular(17))
                made = TileMultiply((16, rng.randint(1, 64), 4), dtypes, *loads)
            case 9:
                source = self.load(rng.choice(self.readable(f32, f64)))
                block = (self.value("int", 1), self.value("int", 2))
                made = PackPanel(rng.choice(written), source, *block, 16)
            case 10:
                floats = [self.value("vector", 2) for _ in range(LANES)]
                values = tuple(Cast(Vector(f32, LANES), value) for value in floats)
                made = Transpose(tuple(self.name("t") for _ in values), values)
                self.define(made.names, ["vector"] * LANES)
            case 12:
                buffer = rng.choice(written)
                made = Prefetch(buffer, self.indices(buffer, 2), rng.choice(("in", "out")))
            case 11:
                buffer = rng.choice(written)
                dtype = self.buffers[buffer][0]
                others = [name for name in self.readable(dtype) if name != buffer]
                if not others:
                    return Store(buffer, self.indices(buffer, 2), Literal(1))
                source = self.load(rng.choice(others))
                made = Stream(buffer, self.indices(buffer, 2), source, self.value("int", 2))
            case _:
                buffer = rng.choice(written)
                value = self.value(rng.choice(("float", "vector")), 4)
                made = Store(buffer, self.indices(buffer, 2), value)
        return made

    def allocate(self) -> Allocate:
        name, storage = self.name("W"), self.rng.choice(("stack", "workspace", "growable"))
        dtype = self.rng.choice((f32, f64))
        count = self.rng.randint(0, 2)
        extents: tuple[Expression, ...] = tuple(Literal(64) for _ in range(count))
        if storage != "stack":
            extents = tuple(self.value("int", 2) for _ in range(count))
        self.buffers[name] = (dtype, count, True)
        return Allocate(name, dtype, extents, storage)

    def calls(self) -> list[CallKernel]:
        """Calls of the functions so far that have buffers of their kinds here."""
        found = []
        for function in self.functions:
            options = [self.readable(b.dtype, rank=len(b.strides)) for b in function.buffers]
            if all(options):
                buffers = tuple(self.rng.choice(names) for names in options)
                scalars = tuple(self.value("int", 2) for _ in function.scalars)
                found.append(CallKernel(function.name, buffers, scalars))
        return found

    # -- functions

    def boundary(self) -> tuple[Buffer, ...]:
        rng = self.rng
        rare: list[DType] = [Scalar(name) for name in SCALARS]
        rare += [Modular(97), Tuple((f32, i64)), Vector(Modular(5), 4)]
        wanted: list[tuple[DType, int, str]] = [
            (f32, 1, "in"), (i64, 1, "in"), (f64, 2, "out"), (f32, 1, "inout")
        ]  # fmt: skip
        wanted += [(rng.choice(rare), rng.randint(0, 3), rng.choice(("in", "out")))]
        found = []
        for dtype, rank, role in wanted:
            name = self.name("A")
            strides = tuple(rng.choice((None, 4, -8, 0)) for _ in range(rank))
            found.append(Buffer(name, dtype, strides, role, rng.random() < 0.8))
            self.buffers[name] = (dtype, rank, role != "in")
        return tuple(found)

    def function(self, size: int) -> LoopFunction:
        rng = self.rng
        self.values, self.buffers, self.faults = {}, {}, 0
        name = self.name("k")
        self.scalars = tuple(self.name("N") for _ in range(rng.randint(0, 2)))
        buffers = self.boundary()
        if rng.random() < 0.5:
            body: tuple[LoopStatement, ...] = (self.for_(3, parallel=True),)
        else:
            body = self.body(size, 3)
        made = LoopFunction(name, buffers, self.scalars, body, rng.random() < 0.8)
        self.functions.append(made)
        return made


def random_loops(rng: Random, size: int = 4) -> LoopProgram:
    """A random sound program of up to `size` functions, with launches of each."""
    awkward = [*AWKWARD_NAMES, *LOOP_NAMES]
    rng.shuffle(awkward)
    make = Generator(rng, awkward)
    symbols = [Symbol(make.name("N")) for _ in range(2)]

    def extent() -> Expression:
        one, two = (rng.choice((*symbols, Literal(64))) for _ in range(2))
        ops = ("add", "mul", "sub", "ceildiv", "floordiv", "mod", "max")
        once = Apply(rng.choice(ops), (one, two))
        return rng.choice((one, once, Apply("mul", (once, two)), Apply("add", (once, one, two))))

    faults: list[FaultSite] = []
    launches: list[Launch] = []
    for _ in range(rng.randint(0, size)):
        function = make.function(size)
        faults += [
            FaultSite(function.name, k, rng.choice(MESSAGES)) for k in range(1, make.faults + 1)
        ]
        parallel = any(isinstance(s, For) and s.kind == "parallel" for s in function.body)
        scalars = tuple(extent() for _ in function.scalars)
        launches.append(
            Launch(function.name, scalars, extent() if parallel else None, extent())
        )  # fmt: skip
    storages = tuple(
        Storage(
            make.name("T"),
            rng.choice((f32, bool_, Tuple((f32, i64)))),
            tuple(extent() for _ in range(rng.randint(0, 2))),
        )
        for _ in range(rng.randint(0, 3))
    )
    return LoopProgram(tuple(make.functions), storages, tuple(launches), tuple(faults))
