"""Writing a static plan into the graph as Q and DQ nodes, where ONNX Runtime fuses them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import constant, drop_unused_initializers, initializer
from edgekit.quantize.placement import COMPUTE, ELEMENTWISE, Placement, activations_of, produced
from edgekit.quantize.plan import QuantPlan, Scale
from edgekit.quantize.targets import FLOAT_BIAS
from edgekit.quantize.weights import output_axis, rounded


def insert(model: ir.Model, placement: Placement, plan: QuantPlan) -> None:
    """Quantize activations, weights and biases of the plan's nodes in place."""
    graph = model.graph
    values = {value.name: value for node in graph for value in node.outputs} | {v.name: v for v in graph.inputs}
    int8 = [node for node in graph if node.name in placement.nodes]
    # Before the activations: afterwards the inputs of a node are DQ nodes.
    constants = _Constants(graph)
    for node in int8:
        if node.op_type in COMPUTE:
            _quantize_weights(node, plan, plan.activations[str(activations_of(node)[0].name)], constants)
        elif node.op_type in ELEMENTWISE and not placement.inputs_only:
            _quantize_number(graph, node, plan.activations[str(activations_of(node)[0].name)].dtype)
    everywhere = produced(graph, placement)
    fused = {id(activation) for activation in placement.fused.values()}
    readers = {id(node) for node in int8 if id(node) not in fused}
    # Equal scales are one constant, so that ONNX Runtime sees at once that a value passes through unchanged.
    shared: dict[Scale, tuple[ir.Value, ir.Value]] = {}
    for name in sorted(placement.quantized):
        scale = plan.activations[name]
        if scale not in shared:
            shared[scale] = (
                initializer(graph, f"{name}.scale", np.array(scale.scale, np.float32)),
                initializer(graph, f"{name}.zero_point", np.array(scale.zero_point, scale.dtype)),
            )
        exact = {id(node) for node in int8 if (node.name, name) in placement.exact}
        value, source = values[name], values[name]
        if name not in everywhere and not placement.inputs_only:
            source = _channels_last(graph, value, readers - exact)
        _quantize_value(graph, value, source, shared[scale], readers - exact, everywhere=name in everywhere)
    drop_unused_initializers(graph)


def _channels_last(graph: ir.Graph, value: ir.Value, readers: set[int]) -> ir.Value:
    """The value that int8 kernels read in place of an fp32 one; the same numbers, brought to channels last on the way.

    Int8 convolutions keep channels last. Where images come in channels first and are added to what such a convolution
    made of them, ONNX Runtime goes on adding channels first, with two transposes for each residual block up to the
    next stride (3 % of a ResNet-56). Here it meets a transpose that it can cancel; the Reshape to the same shape keeps
    it from cancelling the one before.
    """
    maker = value.producer()
    kinds = {use.node.op_type for use in value.uses() if id(use.node) in readers}
    if maker is None or value.shape is None or len(value.shape) != 4 or "Conv" not in kinds or not kinds & ELEMENTWISE:
        return value
    shape = initializer(graph, f"{value.name}.shape", np.zeros(4, np.int64))
    last = ir.node("Transpose", [value], {"perm": [0, 2, 3, 1]}, name=f"{value.name}_last")
    same = ir.node("Reshape", [last.outputs[0], shape], name=f"{value.name}_same")
    first = ir.node("Transpose", [same.outputs[0]], {"perm": [0, 3, 1, 2]}, name=f"{value.name}_first")
    made = [last, same, first]
    for node in made:
        node.outputs[0].name = f"{node.name}_out"
    graph.insert_after(maker, made)
    return first.outputs[0]


def _quantize_value(
    graph: ir.Graph,
    value: ir.Value,
    source: ir.Value,
    scale: tuple[ir.Value, ir.Value],
    readers: set[int],
    *,
    everywhere: bool,
) -> None:
    """Put Q and DQ behind a value, or rather behind `source`, which has the same numbers.

    What an int8 kernel makes is read through them by all; what comes in fp32, by int8 kernels alone. They are known by
    their values; names of their own would be the larger part of what they take in the file.
    """
    name = value.name
    uses = [use for use in value.uses() if everywhere or id(use.node) in readers]
    quantize = ir.node("QuantizeLinear", [source, *scale])
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *scale])
    quantize.outputs[0].name, dequantize.outputs[0].name = f"{name}_int8", f"{name}_real"
    dequantize.outputs[0].type, dequantize.outputs[0].shape = value.type, value.shape
    producer = source.producer()
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


class _Constants:
    """Quantized constants of a graph, with zero points that are all zero.

    Biases of one size share theirs. Weights do not: session.x64quantprecision makes ONNX Runtime (1.32) replace the
    zero point of each 8-bit weight, and it refuses a file in which two of them share it.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._zeros: dict[int, ir.Value] = {}

    def dequantized(self, node: ir.Node, stem: str, integers: np.ndarray, scales: np.ndarray, axis: int) -> ir.Value:
        """The value scales * integers (scales along `axis`) in front of `node`."""
        graph, kind = self.graph, integers.dtype
        if kind == np.int8:
            zero = initializer(graph, f"{stem}.zero_point", np.zeros(scales.shape, kind))
        else:
            size = len(scales)
            if size not in self._zeros:
                self._zeros[size] = initializer(graph, f"zeros.{kind}.{size}", np.zeros(scales.shape, kind))
            zero = self._zeros[size]
        stored = initializer(graph, f"{stem}.{kind}", integers)
        scale = initializer(graph, f"{stem}.scale", scales.astype(np.float32))
        dequantize = ir.node("DequantizeLinear", [stored, scale, zero], {"axis": axis})
        dequantize.outputs[0].name = f"{stored.name}_real"
        graph.insert_before(node, dequantize)
        return dequantize.outputs[0]


def _quantize_number(graph: ir.Graph, node: ir.Node, dtype: str) -> None:
    """Give an addition or multiplication its one constant number as an 8-bit integer, which holds it exactly."""
    for index, value in enumerate(node.inputs):
        number = constant(value)
        if number is None:
            continue
        limits, negative = np.iinfo(dtype), bool(number.item() < 0)
        zero, largest = (limits.max, limits.min) if negative else (limits.min, limits.max)
        step = abs(number.item()) / (limits.max - limits.min) or 1.0
        stem = f"{node.outputs[0].name}.number"
        stored = initializer(graph, stem, np.full(number.shape, largest if number.item() else zero, dtype))
        scale = initializer(graph, f"{stem}.scale", np.array(step, np.float32))
        dequantize = ir.node(
            "DequantizeLinear", [stored, scale, initializer(graph, f"{stem}.zero", np.array(zero, dtype))]
        )
        dequantize.outputs[0].name = f"{stem}_real"
        graph.insert_before(node, dequantize)
        node.replace_input_with(index, dequantize.outputs[0])


def _quantize_weights(node: ir.Node, plan: QuantPlan, scale: Scale, constants: _Constants) -> None:
    weight, stem = constant(node.inputs[1]), node.inputs[1].name if node.inputs[1] is not None else node.name
    assert weight is not None
    axis = output_axis(node)
    integers, scales = rounded(node, plan)
    node.replace_input_with(1, constants.dequantized(node, str(stem), integers, scales, axis))
    if node.op_type == "MatMul":
        return
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    shift = plan.bias_shift.get(str(node.name))
    if bias is None and shift is None:
        return
    total = np.zeros(weight.shape[axis])
    for part in (bias, shift):
        total = total if part is None else total + np.asarray(part, np.float64).ravel()
    node.resize_inputs(3)
    if plan.target in FLOAT_BIAS:
        node.replace_input_with(2, initializer(constants.graph, f"{node.name}.bias", total.astype(np.float32)))
        return
    steps = scales * scale.scale
    limits = np.iinfo(np.int32)
    bias_integers = np.clip(np.round(total / steps), limits.min, limits.max).astype(np.int32)
    node.replace_input_with(2, constants.dequantized(node, f"{node.name}.bias", bias_integers, steps, 0))
