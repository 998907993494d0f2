"""Dynamic int8 for recurrent networks and Transformers: weights ahead of time, activations at run time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import constant, drop_unused_initializers, initializer, replace
from edgekit.quantize.macs import macs
from edgekit.quantize.weights import one_scale, quantized_weight, weight_scales

CONTRIB = "com.microsoft"
LEAST_HIDDEN = 48
"""Measured on AVX512-VNNI, one sample at a time: DynamicQuantizeLSTM runs at 0.8x of fp32 for a hidden size of 32, at
1.3x for 64, 1.9x for 128 and 2.8x for 256."""

ONE_SCALE = 2.0
"""A product's weight gets one scale for all columns where that raises the power of the rounding error at most so much.

The kernel is 5 % faster then, and the error stays below that of the activations, which have one scale in any case."""


def refusals(graph: ir.Graph) -> dict[str, str]:
    """For every node that dynamic int8 leaves in fp32 the reason."""
    found = {str(node.name): _refusal(node) for node in graph}
    return {name: why for name, why in found.items() if why is not None}


def is_better(graph: ir.Graph) -> bool:
    """Whether most of a graph's arithmetic is in LSTMs and matrix products rather than in convolutions."""
    convolved = sum(macs(node) for node in graph if node.op_type in ("Conv", "ConvTranspose"))
    return sum(map(macs, graph)) > 2 * convolved or not convolved


def _refusal(node: ir.Node) -> str | None:
    if node.op_type == "LSTM":
        return _lstm_refusal(node)
    if node.op_type in ("MatMul", "Gemm"):
        return product_refusal(node)
    if node.op_type == "Conv":
        return "a convolution on dynamically quantized activations is slower than in fp32"
    if node.op_type == "GRU":
        return "ONNX Runtime has no int8 kernel for GRU"
    return f"dynamic int8 is for matrix products and LSTM, not for {node.op_type}"


def convert(model: ir.Model, nodes: frozenset[str], limit: int, pair: int | None = None) -> None:
    """Replace the named nodes in place by ONNX Runtime's dynamic kernels.

    `limit` is the largest absolute integer of a weight, `pair` that of two neighbours together (see
    `edgekit.quantize.weights.without_overflow`).
    """
    graph = model.graph
    quantized: dict[str, tuple[ir.Value, ir.Value, ir.Value]] = {}
    rewrites: dict[str, Callable[[ir.Node], None]] = {
        "LSTM": lambda node: _lstm(graph, node, limit, pair),
        "MatMul": lambda node: _product(graph, node, limit, pair, quantized),
        "Gemm": lambda node: _product(graph, node, limit, pair, quantized),
    }
    for node in [node for node in graph if node.name in nodes]:
        rewrites[node.op_type](node)
    model.opset_imports.setdefault(CONTRIB, 1)
    drop_unused_initializers(graph)


def _lstm_refusal(node: ir.Node) -> str | None:
    if constant(node.inputs[1]) is None or constant(node.inputs[2]) is None:
        return "its weights are computed"
    hidden = node.attributes["hidden_size"].as_int() if "hidden_size" in node.attributes else 0
    if hidden < LEAST_HIDDEN:
        return f"with a hidden size below {LEAST_HIDDEN} int8 is slower than fp32"
    if len(node.inputs) > 7 and node.inputs[7] is not None:
        return "peephole weights are kept in fp32"
    if "layout" in node.attributes and node.attributes["layout"].as_int():
        return "ONNX Runtime's int8 LSTM takes time first"
    return None


def product_refusal(node: ir.Node) -> str | None:
    """Why a MatMul or Gemm is no plain product with constant weights, or None if it is."""
    weight = constant(node.inputs[1])
    if weight is None or weight.ndim != 2:
        return "both sides are computed" if weight is None else "its weight has more than two dimensions"
    if node.op_type == "Gemm":
        plain = all(node.attributes[name].as_float() == 1.0 for name in ("alpha", "beta") if name in node.attributes)
        if not plain or ("transA" in node.attributes and node.attributes["transA"].as_int()):
            return "it scales or transposes its input"
    return None


def _lstm(graph: ir.Graph, node: ir.Node, limit: int, pair: int | None) -> None:
    """Write DynamicQuantizeLSTM: weights as [directions, inputs, 4 * hidden] and a scale for each direction.

    A scale for each column, which the kernel takes too, costs it 15 % of its time and gains no accuracy: the gates
    saturate whatever is left of an error.
    """
    inputs: list[ir.Value | None] = list(node.inputs) + [None] * (8 - len(node.inputs))
    scales, zeros = [], []
    for index, stem in ((1, "W"), (2, "R")):
        weight = constant(inputs[index])
        assert weight is not None
        turned = np.ascontiguousarray(weight.transpose(0, 2, 1))
        per_direction = np.array([one_scale(columns, limit, pair) for columns in turned])
        integers = np.stack(
            [
                quantized_weight(columns, np.full(columns.shape[1], scale), 1, limit, pair)
                for columns, scale in zip(turned, per_direction, strict=True)
            ]
        )
        inputs[index] = initializer(graph, f"{node.name}.{stem}.int8", integers)
        scales.append(initializer(graph, f"{node.name}.{stem}.scale", per_direction.astype(np.float32)))
        zeros.append(initializer(graph, f"{node.name}.{stem}.zero_point", np.zeros(per_direction.shape, np.int8)))
    new = ir.node(
        "DynamicQuantizeLSTM",
        [*inputs, scales[0], zeros[0], scales[1], zeros[1]],
        {name: value for name, value in node.attributes.items() if name != "layout"},
        domain=CONTRIB,
        name=f"{node.name}_int8",
        num_outputs=len(node.outputs),
    )
    graph.insert_before(node, new)
    for before, after in zip(node.outputs, new.outputs, strict=True):
        after.shape, after.type = before.shape, before.type
        name = before.name
        ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
        before.name, after.name = None, name
    graph.remove(node, safe=True)


def _product(
    graph: ir.Graph,
    node: ir.Node,
    limit: int,
    pair: int | None,
    quantized: dict[str, tuple[ir.Value, ir.Value, ir.Value]],
) -> None:
    """The chain that ONNX Runtime fuses into one kernel: DynamicQuantizeLinear, MatMulInteger, Cast, Mul (and Add)."""
    source, weight = node.inputs[0], constant(node.inputs[1])
    assert source is not None
    assert weight is not None
    if node.op_type == "Gemm" and "transB" in node.attributes and node.attributes["transB"].as_int():
        weight = np.ascontiguousarray(weight.T)
    stem = str(node.name)
    key = str(source.name)
    if key not in quantized:
        measure = ir.node("DynamicQuantizeLinear", [source], num_outputs=3, name=f"{key}_quantize")
        for output, suffix in zip(measure.outputs, ("int8", "scale", "zero_point"), strict=True):
            output.name = f"{key}_dynamic_{suffix}"
        graph.insert_before(node, measure)
        quantized[key] = (measure.outputs[0], measure.outputs[1], measure.outputs[2])
    values, scale, zero = quantized[key]
    per_column = weight_scales(weight, 1, limit, pair)
    scales = _fewest(per_column)
    rounded = quantized_weight(weight, np.broadcast_to(scales, per_column.shape), 1, limit, pair)
    integers = initializer(graph, f"{stem}.weight.int8", rounded)
    weight_zero = initializer(graph, f"{stem}.weight.zero_point", np.zeros(scales.shape, np.int8))
    weight_scale = initializer(graph, f"{stem}.weight.scale", scales.astype(np.float32))
    both = ir.node("Mul", [scale, weight_scale], name=f"{stem}_scales")
    product = ir.node("MatMulInteger", [values, integers, zero, weight_zero], name=f"{stem}_int8")
    real = ir.node("Cast", [product.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{stem}_cast")
    scaled = ir.node("Mul", [real.outputs[0], both.outputs[0]], name=f"{stem}_scaled")
    for made in (both, product, real, scaled):
        made.outputs[0].name = f"{made.name}_value"
    graph.insert_before(node, [product, both, real])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        replace(graph, node, scaled)
    else:
        graph.insert_before(node, scaled)
        replace(graph, node, ir.node("Add", [scaled.outputs[0], bias], name=f"{stem}_biased"))


def _fewest(per_column: np.ndarray) -> np.ndarray:
    """One scale for all columns, of no dimension, if that is good enough; else a scale for each."""
    largest = np.asarray(per_column.max())
    # Rounding to steps of s adds an error of power s² / 12.
    return largest if largest**2 <= ONE_SCALE * np.mean(per_column**2) else per_column
