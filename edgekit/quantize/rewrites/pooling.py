"""Means over space as GlobalAveragePool, which has an int8 kernel where ReduceMean has none."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import constant, initializer, replace


def pool_spatial_means(graph: ir.Graph) -> int:
    """Write ReduceMean over all spatial axes as GlobalAveragePool, followed by a Reshape where the axes are dropped.

    An AveragePool over the full window is left: its own int8 kernel is as fast.
    """
    return sum(_pool(graph, node) for node in list(graph) if node.op_type == "ReduceMean")


def _pool(graph: ir.Graph, node: ir.Node) -> bool:
    source, axes = node.inputs[0], _axes(node)
    if source is None or source.shape is None or axes is None:
        return False
    rank = len(source.shape)
    if rank < 3 or sorted(axis % rank for axis in axes) != list(range(2, rank)):
        return False
    pool = ir.node("GlobalAveragePool", [source], name=node.name)
    keeps = node.attributes.get("keepdims")
    if keeps is None or keeps.as_int():
        replace(graph, node, pool)
        return True
    pooled = pool.outputs[0]
    pooled.name = f"{node.outputs[0].name}_pooled"
    pooled.type, pooled.shape = source.type, ir.Shape([*source.shape[:2], *[1] * (rank - 2)])
    graph.insert_before(node, pool)
    shape = initializer(graph, f"{node.outputs[0].name}.shape", np.array([0, -1], np.int64))
    replace(graph, node, ir.node("Reshape", [pooled, shape], name=f"{node.name}_flat"))
    return True


def _axes(node: ir.Node) -> list[int] | None:
    """Axes are an attribute up to opset 17 and an input from opset 18 on."""
    if "axes" in node.attributes:
        return [int(axis) for axis in node.attributes["axes"].as_ints()]
    found = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if found is None else [int(axis) for axis in found.ravel()]
