"""Every pass that a pipeline may name: one visible list, in the order of the manual."""

from __future__ import annotations

from einloom.passes.base import Pass
from einloom.passes.contract import Contract
from einloom.passes.fuse import Fuse
from einloom.passes.simplify import Simplify

ALL_PASSES: tuple[type[Pass], ...] = (Simplify, Contract, Fuse)
