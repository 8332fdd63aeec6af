"""Reads of quantized inputs as reads of real tensors that are decoded at entry."""

from __future__ import annotations

from dataclasses import replace

from einloom.ir.expressions import Access
from einloom.ir.node import Node, postorder, rebuild
from einloom.ir.program import Input, Module
from einloom.ir.quantized import component_name
from einloom.ir.types import Quantized, TensorType, f32, i64
from einloom.ir.typing import component_dtype


def unpack(module: Module) -> Module:
    """The module with each quantized input W replaced by what is read of it.

    Those are `W` itself (f32, real values), `W.codes` and `W.scales`, all of the rank of W.
    """
    quantized = {
        item.name: item
        for item in module.inputs
        if item.type is not None and isinstance(item.type.dtype, Quantized)
    }
    if not quantized:
        return module
    names = {
        (name, view): component_name(module, name, view)
        for name in quantized
        for view in ("", "codes", "scales")
    }
    views: dict[str, set[str]] = {name: set() for name in quantized}
    for part in postorder(module):
        if isinstance(part, Access) and part.tensor in quantized:
            views[part.tensor].add(part.view)

    def change(current: Node) -> Node:
        if isinstance(current, Access) and current.tensor in quantized and current.view:
            return replace(current, tensor=names[current.tensor, current.view], view="")
        return current

    inputs: list[Input] = []
    for item in module.inputs:
        if item.name not in quantized:
            inputs.append(item)
            continue
        type_ = item.type
        assert type_ is not None and isinstance(type_.dtype, Quantized)
        dtypes = {"": f32, "codes": i64, "scales": component_dtype(type_.dtype, "scales")}
        for view in sorted(views[item.name]) or [""]:
            type_of_view = TensorType(dtypes[view], type_.ranks)
            inputs.append(Input(names[item.name, view], type_of_view))
    return replace(rebuild(module, change), inputs=tuple(inputs))
