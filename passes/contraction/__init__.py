"""Contraction: splitting an einsum of many factors into a tree of small ones.

`recognize` reads a statement as a network of factors, `trees` builds contraction trees over it,
`paths` finds candidates, `memory` makes them fit a limit, `cost` measures them, `choose` picks
one, `emit` writes it as statements, `report` says in words what was chosen.
"""
