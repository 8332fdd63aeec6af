"""Calls of `einsum`: from arguments to a plan, and from a plan to a result.

`einsum` takes the call and finds its plan; `request` checks keyword arguments, `operands` makes
NumPy arrays of operands, `build` makes a plan, `variants` keeps the compiled forms of one spec,
`steps` runs contractions of very many operands, `plan` runs the rest, `path` reports paths.
"""
