"""`einsum_path`: how a contraction of several operands would be split, and what that costs."""

from __future__ import annotations

from typing import Any


def einsum_path(*a: Any, **k: Any) -> Any: ...
