"""The loops level: explicit loops over strided buffers, with loop-carried SSA values.

Scalar expressions are those of `ir/expressions.py` restricted to Literal, Symbol (an i64
parameter of the function), Local (an SSA value), Apply of primitive operations, Cast, and the
value nodes below. Dtypes follow the one op table (`promotion.op_typing`).

Names of SSA values are unique within a function. The carried names of a loop or an `if` are
visible inside it as the current values and after it as the final ones. f16 and bf16 values
are held in f32 and rounded by `Store` and `Cast`.

The dense part is built by `backends/cpu`; the nodes under "sparse" and "tiles" print and
parse, and a backend that lacks them refuses them by name.
"""

from __future__ import annotations

from einloom.ir.expressions import Expression
from einloom.ir.node import Node, node
from einloom.ir.types import DType

# ---- values -------------------------------------------------------------------------------


@node
class Vector(DType):
    """`f32x16`: a vector of lanes, held in registers."""

    element: DType
    lanes: int


@node
class Load(Expression):
    """`A[i, j]`: a read of a buffer; with lanes > 1, of that many elements along its last
    dimension, whose stride is the element's size."""

    buffer: str
    indices: tuple[Expression, ...]
    lanes: int = 1


@node
class Splat(Expression):
    """`splat<16>(x)`: a scalar in every lane."""

    value: Expression
    lanes: int


@node
class Across(Expression):
    """`across add(v)`: the lanes of a vector folded to a scalar by an associative operation."""

    op: str
    value: Expression


@node
class Dot(Expression):
    """`dot<4>(sums, left, right)`: a sum of `terms` products added to every lane.

    `left` has `terms` lanes and serves every lane of the result; `right` has `terms` lanes for
    each lane of `sums`, side by side: lane l is `sums[l] + left[0]*right[terms*l] + ...`.
    Integers of 8 bits are multiplied and added in i32, which wraps. bf16 is multiplied and added
    in f32, in any order, and numbers below the least normal one may count as zero.
    """

    terms: int
    sums: Expression
    left: Expression
    right: Expression


# ---- statements ---------------------------------------------------------------------------


@node
class LoopStatement(Node):
    """Base of the statements of this level."""


@node
class Carried(Node):
    """A value carried through a loop or out of an `if`: `acc: f32 = initial`.

    In an `if` the initial expression is what the value is where the branch yields nothing.
    """

    name: str
    dtype: DType
    initial: Expression


@node
class For(LoopStatement):
    """`for KIND i in lower .. upper step s carry (...) { ...; yield ... }`.

    KIND is serial, parallel, vector or unroll. `lower` and `upper` are i64 expressions; with a
    negative step the loop runs from upper-1 down to lower. A parallel loop is the only
    top-level statement of its function and has lower 0, step 1 and nothing carried: its slice
    is given by the caller.
    """

    index: str
    lower: Expression
    upper: Expression
    body: tuple[LoopStatement, ...]
    kind: str = "serial"
    step: int = 1
    carried: tuple[Carried, ...] = ()
    yields: tuple[Expression, ...] = ()


@node
class While(LoopStatement):
    """`while condition carry (...) { ...; yield ... }`; the condition reads carried values."""

    condition: Expression
    carried: tuple[Carried, ...]
    body: tuple[LoopStatement, ...]
    yields: tuple[Expression, ...]


@node
class If(LoopStatement):
    """`if condition carry (x: f32 = a) { ...; yield b } else { ...; yield c }`.

    Without an else branch the carried values keep their initial ones when the condition is
    false.
    """

    condition: Expression
    then: tuple[LoopStatement, ...]
    otherwise: tuple[LoopStatement, ...] = ()
    carried: tuple[Carried, ...] = ()
    then_yields: tuple[Expression, ...] = ()
    otherwise_yields: tuple[Expression, ...] = ()


@node
class Let(LoopStatement):
    """`let x = value`: an SSA value; its dtype is the expression's."""

    name: str
    value: Expression


@node
class Transpose(LoopStatement):
    """`transpose (t0, t1) = (v0, v1)`: a square block of vectors, transposed in registers.

    2, 4, 8, 16 or 32 vectors of one dtype, each with as many lanes or a multiple: lane i of `tk`
    is lane k of value i, lanes that are a multiple being moved in groups of neighbours. The
    names are SSA values.
    """

    names: tuple[str, ...]
    values: tuple[Expression, ...]


@node
class Store(LoopStatement):
    """`A[i, j] = value`; a vector value is stored along the last dimension."""

    buffer: str
    indices: tuple[Expression, ...]
    value: Expression


@node
class Stream(LoopStatement):
    """`stream A[i, j] = W[k], count`: elements copied past the caches.

    `count` elements, 0 or more, that lie side by side in W from the given one on go to as many
    of A, of the same dtype. Nothing is gained where A is read again soon, or where it fits the
    last cache.
    """

    buffer: str
    indices: tuple[Expression, ...]
    source: Load
    count: Expression


@node
class Prefetch(LoopStatement):
    """`prefetch A[i, j]` or `prefetch A[i, j] out`: the line of an element will soon be read, or
    written. The element must exist; nothing else changes."""

    buffer: str
    indices: tuple[Expression, ...]
    role: str = "in"


@node
class Allocate(LoopStatement):
    """`alloc W: f32[n, m] workspace`: a dense, uninitialised, C-ordered buffer that lives to
    the end of the enclosing block. `stack` needs constant extents; `growable` is sparse only."""

    name: str
    dtype: DType
    extents: tuple[Expression, ...]
    storage: str = "workspace"


@node
class Check(LoopStatement):
    """`check condition, fault k (value, limit)`: leave the kernel with fault k (from 1) where
    the condition is false; the two i64 values are reported."""

    condition: Expression
    fault: int
    value: Expression
    limit: Expression


@node
class CallKernel(LoopStatement):
    """`call kernel name(A, B; n)`: another function of the same program, run to its end."""

    kernel: str
    buffers: tuple[str, ...]
    scalars: tuple[Expression, ...] = ()


# ---- sparse (printed and parsed; refused by name until built) ------------------------------


@node
class Append(LoopStatement):
    """`append A, value`: push onto a growable buffer."""

    buffer: str
    value: Expression


@node
class Search(Expression):
    """`search(A, lower, upper, key)`: first position in sorted A[lower:upper] not below key."""

    buffer: str
    lower: Expression
    upper: Expression
    key: Expression


@node
class HashInsert(LoopStatement):
    """`hash insert A[key] op= value`: insert into a hashed buffer, combining duplicates."""

    buffer: str
    key: Expression
    value: Expression
    op: str


@node
class HashLookup(Expression):
    """`hash lookup(A, key, default)`."""

    buffer: str
    key: Expression
    default: Expression


@node
class AtomicAdd(LoopStatement):
    """`atomic A[i] += value`."""

    buffer: str
    indices: tuple[Expression, ...]
    value: Expression


# ---- tiles (printed and parsed; refused by name until built) -------------------------------


@node
class TileMultiply(LoopStatement):
    """`mma<M,N,K,f32,f32,f32> C[..] += A[..] * B[..]`: one matrix tile product."""

    shape: tuple[int, int, int]
    dtypes: tuple[DType, DType, DType]
    result: Load
    left: Load
    right: Load


@node
class PackPanel(LoopStatement):
    """`pack P = A[rows, columns] panel<16>`: copy a block into contiguous panels."""

    destination: str
    source: Load
    rows: Expression
    columns: Expression
    width: int


# ---- functions ----------------------------------------------------------------------------


@node
class Buffer(Node):
    """A tensor at a kernel's boundary: `in A: f32[?, 4]`.

    `strides` are in bytes, one per dimension; None where known only at run time. `role` is
    `in`, `out` or `inout`. `aligned`: the base and every stride are multiples of the
    element's size. Distinct buffers do not overlap unless both are inputs.
    """

    name: str
    dtype: DType
    strides: tuple[int | None, ...]
    role: str = "in"
    aligned: bool = True


def buffer_name(tensor: str, component: int | None) -> str:
    """The name of the buffer of a tensor, or of one component of a tensor of tuples: `T.0`.

    A tensor whose own name could be read as a component's gets a dot at its end.
    """
    if component is not None:
        return f"{tensor}.{component}"
    _, dot, last = tensor.rpartition(".")
    return f"{tensor}." if dot and (not last or last.isdigit()) else tensor


def tensor_of(buffer: str) -> tuple[str, int | None]:
    """The tensor, and the component of it, that `buffer_name` made a name for."""
    tensor, dot, last = buffer.rpartition(".")
    if not dot or not (last.isdigit() or not last):
        return buffer, None
    return tensor, int(last) if last else None


@node
class LoopFunction(Node):
    """`kernel name(buffers; scalars) { ... }`.

    Calling convention: `i32 name(ptr[] bases, i64[] parameters, i64 begin, i64 end, i64[2]
    fault)`. `parameters` holds the scalars in order, then for each buffer in order its strides
    in bytes (all of them, also the static ones). [begin, end) is the slice of the parallel
    loop; a function without one ignores it. The result is 0 or the number of the fault, whose
    value and limit are then in `fault`, or -1 where memory for a workspace ran out.
    `reassociate` lets reductions be reordered.
    """

    name: str
    buffers: tuple[Buffer, ...]
    scalars: tuple[str, ...]
    body: tuple[LoopStatement, ...]
    reassociate: bool = True


@node
class Storage(Node):
    """`storage T: f32[n, m]`: a tensor that the launcher provides: a result or an intermediate.

    Extents are expressions over the program's symbols. A buffer named `T.k` of a function is
    component k of a tensor T with a tuple dtype.
    """

    name: str
    dtype: DType
    extents: tuple[Expression, ...]


@node
class Launch(Node):
    """`launch name(N, ceil(M/64)) slices N work N*M`: one function run over its buffers.

    `scalars` are evaluated by the launcher, in the order of the function's. `slices` is the
    extent of its parallel loop (None: it has none); `work` estimates scalar operations.
    """

    function: str
    scalars: tuple[Expression, ...]
    slices: Expression | None
    work: Expression


@node
class FaultSite(Node):
    """What fault `number` of a function means: an access, the rank and its extent's owner."""

    function: str
    number: int
    message: str


@node
class LoopProgram(Node):
    """Functions, the storage they need, and the launches in order."""

    functions: tuple[LoopFunction, ...]
    storages: tuple[Storage, ...] = ()
    launches: tuple[Launch, ...] = ()
    faults: tuple[FaultSite, ...] = ()
