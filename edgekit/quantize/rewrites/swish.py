"""Swish as a sigmoid and a product, both of which have int8 kernels."""

from __future__ import annotations

import onnx_ir as ir

from edgekit.quantize.graph import put, replace


def swishes_to_products(graph: ir.Graph) -> int:
    """Write Swish (opset 24) and Microsoft's QuickGelu as x * Sigmoid(x), where they have no factor.

    In fp32 ONNX Runtime makes one operator of both again.
    """
    return sum(_swish(graph, node) for node in list(graph) if node.op_type in ("Swish", "QuickGelu"))


def _swish(graph: ir.Graph, node: ir.Node) -> bool:
    source, plain = node.inputs[0], 1.0 if node.op_type == "Swish" else 1.702
    if source is None or node.attributes.get_float("alpha", plain) != 1.0:
        return False
    gate = put(graph, node, ir.node("Sigmoid", [source], name=f"{node.name}_gate"), source)
    replace(graph, node, ir.node("Mul", [source, gate], name=node.name))
    return True
