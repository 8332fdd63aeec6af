"""Random modules that are sound: what they name exists, indices and dtypes fit together.

`random_module(random.Random(seed), size)` uses every statement form, dtype, kind of literal,
awkward name and section of the language. Values are not meant to mean anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from einloom.ir.expressions import (
    Access,
    Apply,
    Cast,
    Expression,
    Index,
    Literal,
    Local,
    Pack,
    Project,
    Symbol,
    Value,
)
from einloom.ir.ops import MONOIDS, OPS, apply
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
from einloom.ir.types import (
    SCALARS,
    DType,
    Level,
    Modular,
    Quantized,
    Rank,
    Scalar,
    TensorType,
    Tuple,
    bool_,
    f32,
    f64,
    i32,
    i64,
)
from tests.ir.samples import AWKWARD_NAMES, FLOATS, QUANTIZED


@dataclass
class Generator:
    """State of one random module: the tensors, definitions and names so far."""

    rng: Random
    tensors: dict[str, TensorType] = field(default_factory=dict)
    definitions: list[Definition] = field(default_factory=list)
    names: int = 0
    awkward: list[str] = field(default_factory=list)

    def name(self, stem: str) -> str:
        """A fresh name, awkward at times."""
        if self.awkward and self.rng.random() < 0.15:
            return self.awkward.pop()
        self.names += 1
        return f"{stem}{self.names}"

    # -- literals and expressions

    def real(self) -> Literal:
        return Literal(self.rng.choice((*FLOATS, 0, 1, 7, 100, self.rng.uniform(-9, 9))))

    def leaf(self, kind: str, reads: list[Expression]) -> Expression:
        """A value of a kind: an access of that kind, or a literal."""
        if kind == "bool":
            return Literal(self.rng.random() < 0.5)
        if reads and self.rng.random() < 0.7:
            return self.rng.choice(reads)
        if kind == "int":
            return Literal(self.rng.choice((0, 1, 2, 7, 100)))  # every dtype holds them
        return self.real()

    def expression(self, kind: str, depth: int, reads: dict[str, list[Expression]]) -> Expression:
        """A random expression of kind float, int or bool over the given reads."""
        rng = self.rng
        if depth == 0 or rng.random() < 0.1:
            return self.leaf(kind, reads.get(kind, []))

        def inner(of: str = kind) -> Expression:
            return self.expression(of, depth - 1, reads)

        if kind == "bool":
            match rng.randrange(4):
                case 0:
                    return Apply("not", (inner(),))
                case 1:
                    return apply(
                        rng.choice(("and", "or")), *(inner() for _ in range(rng.randint(2, 3)))
                    )
                case _:
                    of = rng.choice(("float", "int"))
                    op = rng.choice(("eq", "ne", "lt", "le", "gt", "ge"))
                    return Apply(op, (inner(of), inner(of)))
        shared = ("add", "mul", "max", "min")
        match rng.randrange(5):
            case 0:
                return apply(rng.choice(shared), *(inner() for _ in range(rng.randint(2, 4))))
            case 1:
                return Apply("select", (inner("bool"), inner(), inner()))
            case 2 if kind == "int":
                return Apply(rng.choice(("neg", "bitnot", "abs")), (inner(),))
            case 2:
                return Apply(rng.choice(("neg", "exp", "abs", "tanh", "floor")), (inner(),))
            case 3 if kind == "int":
                return Cast(rng.choice((i32, i64)), inner(rng.choice(("int", "float"))))
            case 3:
                functions = [d for d in self.definitions if isinstance(d, Function)]
                if functions and rng.random() < 0.5:
                    chosen = rng.choice(functions)
                    return Apply(chosen.name, tuple(inner() for _ in chosen.parameters))
                return Cast(rng.choice((f32, f64)), inner(rng.choice(("int", "float"))))
        if kind == "int":
            op = rng.choice(("sub", "floordiv", "mod", "shl", "shr", "bitand", "bitor", "bitxor"))
        else:
            op = rng.choice(("sub", "div", "pow", "floordiv", "mod"))
        return apply(op, inner(), inner())

    # -- types and inputs

    def extent(self) -> Expression:
        return self.rng.choice(
            (Literal(2), Literal(3), Literal(8), Symbol("N"), Symbol("M"),
             apply("add", Symbol("M"), Literal(1)), Apply("ceildiv", (Symbol("N"), Literal(4))),
             apply("mul", Symbol("N"), Symbol("M")), Apply("floordiv", (Symbol("N"), Literal(2)))),
        )  # fmt: skip

    def tensor_type(self, dtype: DType, rank: int) -> TensorType:
        rng = self.rng
        ranks = tuple(Rank(f"r{k}", self.extent()) for k in range(rank))
        format_: tuple[Level, ...] = ()
        if rank and rng.random() < 0.3:
            kinds = ("dense", "compressed", "hashed", "bitmap", "run", "band", "nm")
            chosen = [rng.choice(kinds) for _ in range(rank)]
            format_ = tuple(Level(k, (2, 4) if k == "nm" else ()) for k in chosen)
            if rng.random() < 0.3:
                format_ += tuple(Level("block", (rng.choice((2, 16)),)) for _ in range(rank))
        fill: Value | None = None
        if isinstance(dtype, Scalar) and dtype.kind == "float" and rng.random() < 0.2:
            fill = rng.choice((0.0, -0.0, float("-inf"), float("nan")))
        return TensorType(
            dtype, ranks, format_, None if fill is None else Literal(fill),
            isinstance(dtype, Scalar) and dtype != bool_ and rng.random() < 0.05,
        )  # fmt: skip

    def inputs(self) -> list[Input]:
        rng = self.rng
        found = [Input("steps", None), Input("N", None), Input("M", None)]
        plain: list[DType] = [Scalar(name) for name in SCALARS]
        fixed = TensorType(f32, (Rank("m", Literal(8)), Rank("p", Symbol("N"))))
        types = [fixed, TensorType(i64, (Rank("t", Literal(3)),)), TensorType(f64)]
        types += [self.tensor_type(rng.choice(plain), rng.randint(0, 3)) for _ in range(4)]
        types += [self.tensor_type(Modular(rng.choice((2, 97, 2**61 - 1))), 1)]
        types += [self.tensor_type(Tuple((f32, Tuple((i64,)))), 1)]
        types += [self.tensor_type(rng.choice(QUANTIZED), 2)]
        for type_ in types:
            name = self.name("A")
            self.tensors[name] = type_
            found.append(Input(name, type_))
        return found

    # -- statements

    def read(self, name: str, index_of: dict[Expression, str]) -> Access:
        """A plain read of a tensor; indices of one extent are shared at times."""
        indices: list[Expression] = []
        for rank in self.tensors[name].ranks:
            if rank.extent not in index_of or self.rng.random() < 0.3:
                index_of[rank.extent] = self.name("i")
            indices.append(Index(index_of[rank.extent]))
        return Access(name, tuple(indices))

    def readable(self, *kinds: str) -> list[str]:
        return [
            name for name, type_ in self.tensors.items()
            if isinstance(type_.dtype, Scalar) and type_.dtype.kind in kinds and not type_.encrypted
        ]  # fmt: skip

    def reads(self, count: int) -> tuple[list[Access], dict[str, list[Expression]]]:
        """Random reads of real tensors, and the same with iota and extents, by kind."""
        index_of: dict[Expression, str] = {}
        real = self.readable("float", "signed", "unsigned")
        accesses = [self.read(self.rng.choice(real), index_of) for _ in range(count)]
        by_kind: dict[str, list[Expression]] = {"int": [Symbol("N"), Literal(3)], "float": []}
        for access in accesses:
            dtype = self.tensors[access.tensor].dtype
            # u64 becomes f64 as soon as it meets a signed integer
            whole = isinstance(dtype, Scalar) and dtype.is_integer and dtype.name != "u64"
            by_kind["int" if whole else "float"].append(access)
            by_kind["int"] += access.indices
        return accesses, by_kind

    def indices_in(self, *roots: Expression) -> list[str]:
        from einloom.ir.extents import indices_in

        return list(dict.fromkeys(name for root in roots for name in indices_in(root)))

    def einsum(self) -> list[Statement]:
        """A map or a reduction with a random body, a condition at times."""
        rng = self.rng
        accesses, by_kind = self.reads(rng.randint(1, 3))
        kind = rng.choice(("float", "float", "int"))
        deep = self.expression(kind, rng.randint(0, 3), by_kind)
        # every read takes part, so that each index has an extent
        body = apply("add", deep, *(a for a in accesses)) if rng.random() < 0.5 else apply(
            "mul", *accesses, deep)  # fmt: skip
        condition = self.expression("bool", 2, by_kind) if rng.random() < 0.3 else None
        names = self.indices_in(body, *([condition] if condition is not None else []))
        rng.shuffle(names)
        cut = rng.randint(0, len(names))
        left, folded = names[:cut], names[cut:]
        reductions: list[Reduction] = []
        while folded:
            size = rng.randint(1, len(folded))
            monoid = rng.choice(("sum", "max", "min", "prod"))
            reductions.append(Reduction(monoid, tuple(folded[:size])))
            folded = folded[size:]
        name = self.name("B")
        indices = tuple(Index(n) for n in left)
        statement = Einsum(
            (Target(name),), indices, body, tuple(reductions), condition
        )  # fmt: skip
        return [statement]

    def typed(self) -> list[Statement]:
        """Targets with types: labels as indices, and a scatter with its own left side."""
        rng = self.rng
        source = self.read(rng.choice(self.readable("float")), {})
        labels = self.indices_in(source)
        ranks = tuple(
            Rank(label, next(r.extent for r, i in zip(
                self.tensors[source.tensor].ranks, source.indices, strict=True)
                if i == Index(label)))
            for label in labels
        )  # fmt: skip
        copied = self.name("C")
        type_ = TensorType(f64, ranks, (Level("dense"),) * len(ranks))
        self.tensors[copied] = type_
        indices = tuple(Index(label) for label in labels)
        found: list[Statement] = [Einsum((Target(copied, type_),), indices, source)]
        fixed, gather = list(self.tensors)[:2]
        t, p, scattered = self.name("t"), self.name("p"), self.name("G")
        type_ = TensorType(f32, (Rank("v", Literal(100)), Rank(p, Symbol("N"))))
        read = Access(fixed, (Index(t), Index(p)))
        place = Access(gather, (apply("mod", Index(t), Literal(3)),))
        found.append(
            Einsum((Target(scattered, type_),), (place, Index(p)), read, (Reduction("sum", (t,)),))
        )
        return found

    def split(self) -> list[Statement]:
        """`where` bounds, padding, a condition that keeps reads in range, `stored`."""
        fixed = next(iter(self.tensors))
        outer, inner, p, name = self.name("m"), self.name("m"), self.name("p"), self.name("D")
        row = apply("add", apply("mul", Index(outer), Literal(4)), Index(inner))
        bounds = (Bound(outer, Literal(2)), Bound(inner, Literal(4)))
        indices = (Index(outer), Index(inner), Index(p))
        body = Access(fixed, (row, Index(p)))
        stored = Apply("stored", (Access(fixed, (row, Index(p))),))
        condition = apply("and", Apply("lt", (row, Literal(7))), stored)
        i, padded = self.name("i"), self.name("P")
        shifted = apply("sub", apply("mul", Literal(2), Index(i)), Literal(1))
        far = Access(fixed, (shifted, Literal(0)), Literal(self.rng.choice((0.0, float("-inf")))))
        return [
            Einsum((Target(name),), indices, body, (), condition, bounds),
            Einsum((Target(padded),), (Index(i),), far, (), None, (Bound(i, Literal(9)),)),
        ]

    def pairs(self) -> list[Statement]:
        """Several targets, tuples, projections, user monoids, residues, quantized parts."""
        rng = self.rng
        fixed = next(iter(self.tensors))
        m, p = self.name("m"), self.name("p")
        read = Access(fixed, (Index(m), Index(p)))
        value, place = Target(self.name("V")), Target(self.name("I"))
        if rng.random() < 0.5:
            ranks = (Rank(p, Symbol("N")),)
            value = Target(value.name, TensorType(f32, ranks))
            place = Target(place.name, TensorType(i64, ranks))
        found: list[Statement] = [
            Einsum((value, place), (Index(p),), Pack((read, Index(m))),
                   (Reduction(rng.choice(("argmax", "argmin")), (m,)),)),
        ]  # fmt: skip
        for name, type_ in list(self.tensors.items()):
            if isinstance(type_.dtype, Tuple):
                read = self.read(name, {})
                nested = Project(Project(read, 1), 0)
                found.append(Einsum((Target(self.name("U")),), read.indices, nested))
            elif isinstance(type_.dtype, Modular):
                read = self.read(name, {})
                body = apply("mul", read, read, Cast(type_.dtype, Literal(5)))
                found.append(Einsum((Target(self.name("Z")),), read.indices, body))
            elif isinstance(type_.dtype, Quantized):
                read = self.read(name, {})
                codes = Access(name, read.indices, view="codes")
                found.append(Einsum((Target(self.name("K")),), read.indices, codes))
        return found

    def scan(self, depth: int = 1) -> list[Statement]:
        """A scan up or down, one inside it at times, and what reads its last state."""
        rng = self.rng
        fixed = next(iter(self.tensors))
        t, p, state, down = self.name("t"), self.name("p"), self.name("S"), rng.random() < 0.3
        steps: Expression = Literal(3) if down else rng.choice((Literal(3), Symbol("steps")))
        now, new = apply("add", Index(t), Literal(1)), Index(t)
        if not down:
            now, new = new, now
        start = Access(fixed, (Literal(1), Index(p)))
        first = Literal(3) if down else Literal(0)
        initial = Einsum((Target(state),), (first, Index(p)), apply("mul", start, Literal(2)))
        body: list[Statement] = []
        old: Expression = Access(state, (now, Index(p)))
        if depth and rng.random() < 0.6:
            u, inner = self.name("u"), self.name("S")
            begin = Einsum((Target(inner),), (Literal(0), Index(p)), old)
            after = (apply("add", Index(u), Literal(1)), Index(p))
            before = apply("mul", Access(inner, (Index(u), Index(p))), Literal(0.5))
            body.append(Scan(u, Literal(2), (begin,), (Einsum((Target(inner),), after, before),)))
            old = Access(inner, (Index(p),), view="final")
        step = apply("add", old, start)
        body.append(Einsum((Target(state),), (new, Index(p)), step))
        until = None
        if rng.random() < 0.4:
            until = Apply("ge", (Index(t), Literal(2)))
        last = Access(state, (Index(p),), view="final")
        return [
            Scan(t, steps, (initial,), tuple(body), until, down),
            Einsum((Target(self.name("L")),), (Index(p),), last),
        ]

    def call(self) -> list[Statement]:
        rng = self.rng
        chosen = rng.sample(list(self.tensors), 2)
        targets = tuple(
            Target(self.name("Y"), self.tensor_type(f32, 2)) for _ in range(rng.randint(1, 2))
        )
        arguments = tuple(Access(name) for name in chosen)
        return [
            Call(targets, rng.choice(("sort", "np.top-k", "if")), rng.randint(0, 99), arguments)
        ]

    def constant(self) -> list[Statement]:
        """A constant of any dtype: random bytes, so that all bit patterns occur; or a blob."""
        from einloom.ir.promotion import numpy_dtype

        rng = self.rng
        choices: list[DType] = [Scalar(name) for name in SCALARS]
        choices += [Modular(97), Tuple((f32, i64)), Tuple((bool_,))]
        dtype = rng.choice(choices)
        shape = [rng.randint(0, 3) for _ in range(rng.randint(0, 3))]
        count = 1
        for size in shape:
            count *= size
        data = rng.randbytes(count * numpy_dtype(dtype).itemsize)
        if dtype == bool_ or dtype == Tuple((bool_,)):
            data = bytes(byte % 2 for byte in data)
        if dtype == Modular(97):
            data = b"".join(rng.randrange(97).to_bytes(8, "little") for _ in range(count))
        ranks = tuple(Rank(f"k{k}", Literal(size)) for k, size in enumerate(shape))
        name = self.name("W")
        if rng.random() < 0.2:
            path = rng.choice(("w.npy", 'da"ta/é \\x.npy', "new\nline"))
            return [Constant(name, TensorType(dtype, ranks), rng.randbytes(32), path)]
        return [Constant(name, TensorType(dtype, ranks), data)]

    # -- definitions, sections, the module

    def define(self) -> None:
        rng = self.rng
        for _ in range(rng.randint(0, 2)):
            first, second = self.name("x"), self.name("y")
            reads: dict[str, list[Expression]] = {"float": [Local(first), Local(second)]}
            body = self.expression("float", 2, reads)
            parameters = (Parameter(first, f32), Parameter(second))
            name = self.name("f")
            while (
                name in OPS or name in MONOIDS or name in SCALARS or name == "zq"
            ):  # a definition may not
                name = self.name("f")
            self.definitions.append(Function(name, parameters, body))
        if rng.random() < 0.5:
            left, right = Local("a"), Local(self.name("b"))
            combined = Apply("select", (Apply("ge", (left, right)), left, right))
            self.definitions.append(
                Monoid(f"mine{self.names}", f32, Literal(float("-inf")), "a", right.name, combined,
                       rng.choice(((), ("associative",), ("associative", "commutative")))),
            )  # fmt: skip

    def folded(self) -> list[Statement]:
        """Reductions by the module's own monoids, and by each builtin one with accumulators."""
        rng = self.rng
        fixed = next(iter(self.tensors))
        m, p = self.name("m"), self.name("p")
        read = Access(fixed, (Index(m), Index(p)))
        found: list[Statement] = []
        for definition in self.definitions:
            if isinstance(definition, Monoid):
                reduction = Reduction(definition.name, (m,))
                target = Target(self.name("R"))
                found.append(Einsum((target,), (Index(p),), read, (reduction,)))
        truth = Apply("gt", (read, Literal(0.5)))
        bodies: dict[str, Expression] = {"all": truth, "any": truth, "xor": Cast(i64, read)}
        name = rng.choice([x for x, monoid in MONOIDS.items() if not monoid.paired])
        accumulator = f64 if name in ("sum", "prod") and rng.random() < 0.5 else None
        reductions = (Reduction(name, (m,), accumulator), Reduction(name, (p,), accumulator))
        found.append(Einsum((Target(self.name("R")),), (), bodies.get(name, read), reductions))
        return found

    def kernel(self, statements: list[Statement]) -> tuple[Kernel, Mapping]:
        """A kernel around einsums, and a mapping of it."""
        rng = self.rng
        names = [s.targets[0].name for s in statements if isinstance(s, Einsum)]
        indices = [
            part.name for s in statements if isinstance(s, Einsum)
            for part in s.indices if isinstance(part, Index)
        ]  # fmt: skip
        ranks = list(dict.fromkeys(indices))
        label = self.name("k")
        outputs = [t.name for s in statements if isinstance(s, Einsum) for t in s.targets]
        interleavings: tuple[Interleave, ...] = ()
        if len(names) > 1:
            interleavings = (Interleave(tuple(names[:2]), rng.choice(("across", "within"))),)
        mapping = Mapping(
            label, tuple(ranks[:2]), tuple(Tile(rank, 8 + k) for k, rank in enumerate(ranks)),
            tuple(ranks[2:]), tuple(Placement(name, "pe2d") for name in names), interleavings,
        )  # fmt: skip
        return Kernel(label, tuple(statements), tuple(outputs)), mapping


def random_module(rng: Random, size: int = 4) -> Module:
    """A random sound module of about `2 * size` statements."""
    awkward = list(AWKWARD_NAMES)
    rng.shuffle(awkward)
    make = Generator(rng, awkward=awkward)
    name = make.name("main")
    make.define()
    inputs = make.inputs()
    rng.shuffle(inputs)
    forms = (make.einsum, make.typed, make.split, make.pairs, make.scan, make.call,
             make.constant, make.folded)  # fmt: skip
    body: list[Statement] = []
    mappings: list[Mapping] = []
    for _ in range(size):
        statements = rng.choice(forms)()
        if rng.random() < 0.2 and all(isinstance(s, Einsum) for s in statements):
            kernel, mapping = make.kernel(statements)
            statements = [kernel]
            if rng.random() < 0.7:
                mappings.append(mapping)
        body += statements
    results = [s.targets[0].name for s in body if isinstance(s, Einsum)][:3]
    layouts: list[Layout] = []
    for item in inputs:
        if item.type is not None and item.type.ranks and rng.random() < 0.1:
            labels = [rank.name for rank in item.type.ranks]
            strides = tuple(rng.choice((1, 64, -8)) for _ in labels)
            layouts.append(
                Layout(item.name, strides, tuple(labels[::-1]), None, rng.random() < 0.5)
            )
    return Module(
        name, tuple(inputs), tuple(results), tuple(body), tuple(make.definitions),
        tuple(mappings), tuple(layouts),
    )  # fmt: skip
