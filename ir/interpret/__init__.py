"""The reference interpreter: what a program means, computed with NumPy.

Where the words of the language leave a choice, this is the one taken; every backend follows it.

- f16 and bf16 are computed, accumulated and compared in f32, and rounded where a statement
  stores them and where a cast says so. A literal beside them is an f32.
- All arguments of an operation are promoted together, before it is applied. Comparisons of
  integers promote nothing and are exact. A literal that does not fit the integer dtype it
  takes from what it meets is an error.
- Integers wrap. `//`, `%` and `ceildiv` by zero give 0. `pow` with a negative exponent gives
  1 for 1, +1 or -1 for -1, else 0. Rounding operations leave integers as they are.
- Index expressions are computed in i64, whatever the dtype of the tensors that they read.
- `if a and b`: `b` is evaluated where `a` holds only, and the body where both hold. The branches
  of `select` are both evaluated. A point of an outer reduction takes part if the condition
  holds at some point of the reductions inside it.
- argmax and argmin take the first point in iteration order (the first listed index is the
  outermost) that holds the extreme value, the first NaN if there is one, among the points where
  the condition holds. Without any: the identity of max (min), and 0.
- A monoid of the text folds from its identity in iteration order; builtin ones in any order.
- Reductions whose indices stand on the left side fold all points that write one cell, the
  other reduced indices inside them as usual.
- A statement in a scan that reduces onto computed cells of a state (`S[t+1, idx[k]] = sum[k] ...`)
  defines all cells of that state; one that does not reduce defines those it writes.
- Reading a state before its iteration is an error.
"""

from einloom.ir.interpret.program import DEFAULT_MEMORY_CAP, HostFunction, interpret

__all__ = ["DEFAULT_MEMORY_CAP", "HostFunction", "interpret"]
