"""Where TensorRT wants Q and DQ nodes.

NVIDIA, *TensorRT Documentation*, "Working with Quantized Types", recommendations for the placement of Q/DQ layers:
quantize the inputs of weighted operators, not their outputs; leave the activation behind them to the fusion; quantize
the residual input of an addition that follows a weighted operator, since only then its sum leaves in int8; quantize the
inputs of other operators that compute in int8 (average pooling). Operators that only move values need nothing: TensorRT
moves Q and DQ across them.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from edgekit.quantize.placement import (
    ASKED,
    COMPUTE,
    SAME_SCALE,
    Placement,
    activation_behind,
    activations_of,
    weight_refusal,
)

POOLS = frozenset({"AveragePool", "GlobalAveragePool"})


def place(graph: ir.Graph, *, keep_float: Collection[str] = ()) -> Placement:
    """Choose the int8 nodes of a graph and the values that they read as integers.

    Args:
        graph: the fp32 graph after the rewrites.
        keep_float: names of nodes that stay in fp32 whatever the rules say.
    """
    reasons = {str(node.name): ASKED if node.name in keep_float else _refusal(node) for node in graph}
    nodes = {name for name, why in reasons.items() if why == ""}
    nodes |= {str(n.name) for n in graph if n.op_type in POOLS and n.name not in keep_float and _follows(n, nodes)}
    read = {str(node.inputs[0].name) for node in graph if node.name in nodes and node.inputs[0] is not None}
    # From the end on: an addition whose sum is the residual input of the next one goes along with that.
    for node in reversed(list(graph)):
        sides = _sides(node, nodes) if node.name not in keep_float else None
        if sides is not None and _last_value(node) in read:
            nodes.add(str(node.name))
            read.add(str(sides[1].name))
        elif sides is not None:
            reasons[str(node.name)] = "nothing reads its sum in int8"
    for node in graph:
        activation = activation_behind(node) if node.name in nodes else None
        if activation is not None and activation.name not in keep_float:
            nodes.add(str(activation.name))
    placement = wired(graph, nodes)
    placement.reasons = {name: why for name, why in reasons.items() if name not in nodes}
    return placement


def wired(graph: ir.Graph, nodes: Collection[str]) -> Placement:
    """The placement with these int8 nodes: each has Q and DQ on its inputs, and none behind it."""
    placement = Placement(nodes=set(nodes), inputs_only=True)
    for node in graph:
        if node.name not in placement.nodes:
            continue
        activation = activation_behind(node)
        if activation is not None and activation.name in placement.nodes:
            placement.fused[str(node.name)] = activation
        sides = _sides(node, placement.nodes)
        if sides is not None:
            computed, residual = sides
            placement.quantized.add(str(residual.name))
            placement.exact.add((str(node.name), str(computed.name)))
        elif node.op_type in COMPUTE | POOLS and node.inputs[0] is not None:
            placement.quantized.add(str(node.inputs[0].name))
    return placement


def _refusal(node: ir.Node) -> str:
    """Why a node has no integers to read, or nothing if it is a weighted operator that may have."""
    kind = node.op_type
    if kind in COMPUTE and node.domain in ("", "ai.onnx"):
        return weight_refusal(node, "tensorrt") or ""
    if kind in SAME_SCALE | {"Concat"}:
        return "it only moves values: TensorRT moves Q and DQ across it"
    if kind == "Add":
        return "it is no addition of a residual to what a weighted operator makes"
    if kind in POOLS | {"Relu", "Clip"}:
        return "what it follows is no weighted operator in int8"
    return "Q and DQ stand before weighted operators, residual additions and average pooling"


def _follows(node: ir.Node, weighted: Collection[str]) -> bool:
    """Whether a node reads what a weighted operator or an addition makes, through an activation or not."""
    maker = node.inputs[0].producer() if node.inputs[0] is not None else None
    if maker is not None and maker.op_type in ("Relu", "Clip") and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    return maker is not None and (maker.name in weighted or maker.op_type == "Add")


def _sides(node: ir.Node, nodes: Collection[str]) -> tuple[ir.Value, ir.Value] | None:
    """An addition's inputs: what the weighted operator makes that it is fused with, and the residual.

    Where both come from weighted operators, the later one is fused: the earlier one's result is there by then.
    """
    values = activations_of(node) if node.op_type == "Add" else []
    if len(values) != 2:
        return None
    computed = [v for v in values if (p := v.producer()) is not None and p.op_type in COMPUTE and p.name in nodes]
    if not computed or node.graph is None:
        return None
    if len(computed) == 2 and values[0] is not values[1]:
        order = [producer for producer in node.graph if producer in (values[0].producer(), values[1].producer())]
        computed = [value for value in values if value.producer() is order[-1]]
    chosen = computed[0]
    residual = values[1] if chosen is values[0] else values[0]
    return None if residual is chosen else (chosen, residual)


def _last_value(node: ir.Node) -> str:
    activation = activation_behind(node)
    return str((activation or node).outputs[0].name)
