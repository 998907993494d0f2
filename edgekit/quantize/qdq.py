"""Writing a static plan into the graph as Q and DQ nodes, where ONNX Runtime fuses them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import constant, drop_unused_initializers, initializer
from edgekit.quantize.placement import Placement, activations_of, output_of
from edgekit.quantize.plan import QuantPlan, Scale
from edgekit.quantize.ranges import quantized_weight, weight_scales


def insert(model: ir.Model, placement: Placement, plan: QuantPlan) -> None:
    """Quantize activations, weights and biases of the plan's nodes in place."""
    graph = model.graph
    values = {value.name: value for node in graph for value in node.outputs} | {v.name: v for v in graph.inputs}
    int8 = [node for node in graph if node.name in placement.nodes]
    # Before the activations: afterwards the inputs of a node are DQ nodes.
    for node in int8:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            source = activations_of(node)[0]
            assert source.name is not None
            _quantize_weights(graph, node, plan, plan.activations[placement.root(source.name)])
    produced = {output_of(node, placement).name for node in int8}
    fused = {id(activation) for activation in placement.fused.values()}
    readers = {id(node) for node in int8 if id(node) not in fused}
    scales: dict[str, tuple[ir.Value, ir.Value]] = {}
    for name in sorted(placement.quantized):
        root = placement.root(name)
        if root not in scales:
            scale = plan.activations[root]
            scales[root] = (
                initializer(graph, f"{root}.scale", np.array(scale.scale, np.float32)),
                initializer(graph, f"{root}.zero_point", np.array(scale.zero_point, scale.dtype)),
            )
        _quantize_value(graph, values[name], scales[root], readers, everywhere=name in produced)
    drop_unused_initializers(graph)


def _quantize_value(
    graph: ir.Graph, value: ir.Value, scale: tuple[ir.Value, ir.Value], readers: set[int], *, everywhere: bool
) -> None:
    """Q and DQ behind a value. What an int8 kernel makes is read through them by all; other values by int8 kernels alone."""
    name = value.name
    uses = [use for use in value.uses() if everywhere or id(use.node) in readers]
    quantize = ir.node("QuantizeLinear", [value, *scale], name=f"{name}_quantize")
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *scale], name=f"{name}_dequantize")
    quantize.outputs[0].name, dequantize.outputs[0].name = f"{name}_int8", f"{name}_real"
    dequantize.outputs[0].type, dequantize.outputs[0].shape = value.type, value.shape
    producer = value.producer()
    if producer is None:
        first = next(iter(graph))
        graph.insert_before(first, [quantize, dequantize])
    else:
        graph.insert_after(producer, [quantize, dequantize])
    for use in uses:
        use.node.replace_input_with(use.idx, dequantize.outputs[0])
    if everywhere:
        for index, output in enumerate(graph.outputs):
            if output is value:
                value.name = f"{name}_exact"
                dequantize.outputs[0].name = name
                graph.outputs[index] = dequantize.outputs[0]


def _quantize_weights(graph: ir.Graph, node: ir.Node, plan: QuantPlan, scale: Scale) -> None:
    weight = constant(node.inputs[1])
    assert weight is not None
    axis = output_axis(node)
    scales = weight_scales(weight, axis, plan.weight_limit)
    stem = node.inputs[1].name  # type: ignore[union-attr]
    node.replace_input_with(
        1,
        _dequantized(graph, node, f"{stem}", quantized_weight(weight, scales, axis, plan.weight_limit), scales, axis),
    )
    if node.op_type == "MatMul":
        return
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    shift = plan.bias_shift.get(str(node.name))
    if bias is None and shift is None:
        return
    total = (np.zeros(weight.shape[axis]) if bias is None else bias.astype(np.float64).ravel()) + (
        0.0 if shift is None else np.array(shift)
    )
    steps = scales * scale.scale
    limits = np.iinfo(np.int32)
    integers = np.clip(np.round(total / steps), limits.min, limits.max).astype(np.int32)
    value = _dequantized(graph, node, f"{node.name}.bias", integers, steps, 0)
    if len(node.inputs) > 2:
        node.replace_input_with(2, value)
    else:
        node.resize_inputs(3)
        node.replace_input_with(2, value)


def output_axis(node: ir.Node) -> int:
    """The axis of a node's weight that counts its outputs."""
    if node.op_type == "Conv":
        return 0
    transposed = "transB" in node.attributes and bool(node.attributes["transB"].as_int())
    return 0 if node.op_type == "Gemm" and transposed else 1


def _dequantized(
    graph: ir.Graph, node: ir.Node, stem: str, integers: np.ndarray, scales: np.ndarray, axis: int
) -> ir.Value:
    inputs = [
        initializer(graph, f"{stem}.int{8 * integers.itemsize}", integers),
        initializer(graph, f"{stem}.scale", scales.astype(np.float32)),
        initializer(graph, f"{stem}.zero_point", np.zeros(scales.shape, integers.dtype)),
    ]
    dequantize = ir.node("DequantizeLinear", inputs, {"axis": axis}, name=f"{stem}_dequantize_for_{node.name}")
    dequantize.outputs[0].name = f"{stem}_real_for_{node.name}"
    graph.insert_before(node, dequantize)
    return dequantize.outputs[0]
