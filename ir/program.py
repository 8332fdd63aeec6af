"""The program level: a module is a cascade of extended einsums over named ranks."""

from __future__ import annotations

from dataclasses import field

from einloom.ir.errors import Location
from einloom.ir.expressions import Access, Expression
from einloom.ir.node import Node, node
from einloom.ir.types import DType, TensorType

# ---- statements ---------------------------------------------------------------------------


@node
class Statement(Node):
    """Base of what stands in the body of a program."""


@node
class Bound(Node):
    """`where m1 < ceil(M/M0)`: the extent of an index, stated."""

    index: str
    extent: Expression


@node
class Reduction(Node):
    """`max[i, j]`: fold the listed indices with a monoid; the first index is outermost.

    `accumulator` is the dtype the fold runs in; None takes the rule of the dtype.
    """

    monoid: str
    indices: tuple[str, ...]
    accumulator: DType | None = None


@node
class Target(Node):
    """A tensor that a statement defines, with its type where the text states one."""

    name: str
    type: TensorType | None = None


@node
class Einsum(Statement):
    """`T[out] = reduction... body where ... if condition`.

    `indices` are the index expressions of the left side, the same for all targets. With
    several targets the body is a tuple. Every index of the body that is not a plain index of
    the left side stands in exactly one reduction.
    """

    targets: tuple[Target, ...]
    indices: tuple[Expression, ...]
    body: Expression
    reductions: tuple[Reduction, ...] = ()
    condition: Expression | None = None
    bounds: tuple[Bound, ...] = ()


@node
class Scan(Statement):
    """`scan t < T from { init } { body } until condition`.

    Each state has rank 0 of extent T+1. Upwards, `from` defines state 0 and iteration t
    defines state t+1; with `down`, `from` defines state T and iteration t (from T-1 to 0)
    defines state t.
    """

    index: str
    extent: Expression
    initial: tuple[Einsum, ...]
    body: tuple[Statement, ...]
    until: Expression | None = None
    down: bool = False


@node
class Call(Statement):
    """`Y: f32[n=N] = call sort@1(X)`: a host function, opaque to every pass."""

    targets: tuple[Target, ...]
    function: str
    version: int
    arguments: tuple[Access, ...]


@node
class Constant(Statement):
    """`const W: f32[i=2] = [1.0, 2.0]`, or `= blob "w.npy" sha256:...`.

    Inline: `data` holds the little-endian bytes in C order. Otherwise `path` names a .npy
    file, relative to the program's file, and `data` is its sha256 digest.
    """

    name: str
    type: TensorType
    data: bytes
    path: str | None = None


@node
class Kernel(Statement):
    """`kernel name { statements } -> (outputs)`: what is fused. It never changes meaning."""

    name: str
    body: tuple[Statement, ...]
    outputs: tuple[str, ...]


# ---- definitions --------------------------------------------------------------------------


@node
class Definition(Node):
    """Base of what stands before the program: `fn` and `monoid`."""


@node
class Parameter(Node):
    """A parameter of a definition; None: any dtype."""

    name: str
    dtype: DType | None = None


@node
class Function(Definition):
    """`fn f(x: f32, y) = body`, built from primitive operations and earlier definitions."""

    name: str
    parameters: tuple[Parameter, ...]
    body: Expression


@node
class Monoid(Definition):
    """`monoid m: dtype { identity e; combine(a, b) = ...; laws ... }`.

    `laws_location`: where its laws stand.
    """

    name: str
    dtype: DType
    identity: Expression
    left: str
    right: str
    combine: Expression
    laws: tuple[str, ...] = ()
    laws_location: Location | None = field(default=None, kw_only=True, compare=False)


# ---- sections that never change meaning ---------------------------------------------------


@node
class Interleave(Node):
    """Statements that share a unit in turns: `interleave(QK, LM) across` epochs, or `within`."""

    statements: tuple[str, ...]
    scope: str


@node
class Tile(Node):
    """`tile p = 64`."""

    rank: str
    size: int


@node
class Placement(Node):
    """`place QK on pe2d`: the unit that a statement runs on."""

    statement: str
    unit: str


@node
class Mapping(Node):
    """`mapping kernel { loops p2, m1; tile p = 64; spatial p0, m0; place QK on pe2d; ... }`."""

    kernel: str
    loops: tuple[str, ...] = ()
    tiles: tuple[Tile, ...] = ()
    spatial: tuple[str, ...] = ()
    placements: tuple[Placement, ...] = ()
    interleavings: tuple[Interleave, ...] = ()


@node
class Layout(Node):
    """`layout A { strides 1, 64; order j, i; alias B; donate }`: storage of one tensor.

    Strides are in elements; `order` is the packing order of its ranks, outermost first.
    """

    tensor: str
    strides: tuple[int, ...] = ()
    order: tuple[str, ...] = ()
    alias: str | None = None
    donate: bool = False


# ---- the module ---------------------------------------------------------------------------


@node
class Input(Node):
    """A parameter of the program: a tensor, or (`type` None) an extent: `T: extent`."""

    name: str
    type: TensorType | None


@node
class Module(Node):
    """A program: inputs, a cascade of statements, the names of its results."""

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    body: tuple[Statement, ...]
    definitions: tuple[Definition, ...] = ()
    mappings: tuple[Mapping, ...] = ()
    layouts: tuple[Layout, ...] = ()

    def __reduce__(self) -> tuple[object, ...]:
        from einloom.ir.text import parse

        return parse, (str(self),)
