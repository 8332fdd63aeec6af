"""Index and scalar expressions: one small closed set of nodes for both.

An index expression is an expression over `Index`, `Symbol`, integer literals and integer
tensor reads; a scalar expression may hold everything. Operations live in `ir/ops.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from einloom.ir.node import Node, node

if TYPE_CHECKING:
    from einloom.ir.types import DType

Value = bool | int | float | complex


@node
class Expression(Node):
    """Base of index and scalar expressions."""


@node
class Literal(Expression):
    """A literal. Its kind and bit pattern count: `1`, `1.0`, `True`, `-0.0` stay apart.

    A literal is weak: it takes the dtype of what it meets, as Python scalars do in NumPy.
    """

    value: Value


@node
class Index(Expression):
    """An index variable of the enclosing statement or scan. In a scalar position it reads as
    its own value (printed `iota(i)`, dtype i64)."""

    name: str


@node
class Symbol(Expression):
    """An extent bound at run time. In a scalar position it is a weak integer."""

    name: str


@node
class Local(Expression):
    """A parameter of a definition (`fn`, `monoid`), or an SSA value at the loops level."""

    name: str


@node
class Access(Expression):
    """A read of a tensor: `A[i, j+1]`.

    `padding`: value taken where an index is out of range (`X?(0)[i-1]`), None: that is an error.
    `view`: "" for the tensor, "final" for the last state of a scan, "codes" or "scales" for
    the components of a quantized tensor.
    """

    tensor: str
    indices: tuple[Expression, ...] = ()
    padding: Literal | None = None
    view: str = ""


@node
class Apply(Expression):
    """An operation of the table (`ir/ops.py`) or a definition of the module, applied.

    Associative-commutative operations are n-ary and flat: build them with `ops.apply`.
    """

    op: str
    arguments: tuple[Expression, ...]


@node
class Cast(Expression):
    """`f32(x)`: conversion to a dtype; rounds to nearest even, integers wrap."""

    dtype: DType
    value: Expression


@node
class Pack(Expression):
    """A tuple value, `(a, b)`."""

    items: tuple[Expression, ...]


@node
class Project(Expression):
    """Component `item` of a tuple value, `x.0`."""

    value: Expression
    item: int
