"""The default pipeline of each target, in one visible list."""

from __future__ import annotations

DEFAULT_PIPELINES: dict[str, str] = {
    "cpu": "simplify, contract, fuse",
}
