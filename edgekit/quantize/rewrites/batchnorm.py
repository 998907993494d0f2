"""Folding BatchNormalization into what stands before it; alone it has no int8 kernel."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import constant, initializer, only_user

FOLDABLE = ("Conv", "ConvTranspose", "Gemm")


def fold_batchnorm(graph: ir.Graph) -> int:
    """Multiply weights and biases by what inference-mode BatchNormalization does to each channel.

    y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, hence W' = W * f and b' = (b - mean) * f + beta with
    f = gamma / sqrt(variance + epsilon) (B. Jacob et al., *Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference*, 2018, section 3.2). One that follows an activation or a branch does not fold.
    """
    return sum(_fold(graph, node) for node in list(graph) if node.op_type == "BatchNormalization")


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    source = node.inputs[0]
    layer = source.producer() if source is not None else None
    if source is None or layer is None or layer.op_type not in FOLDABLE or not only_user(source):
        return False
    training = node.attributes.get("training_mode")
    numbers = [constant(value) for value in node.inputs[1:5]]
    weight = constant(layer.inputs[1])
    biased = len(layer.inputs) > 2 and layer.inputs[2] is not None
    bias = constant(layer.inputs[2]) if biased else np.zeros(1, np.float32)
    if (training is not None and training.as_int()) or weight is None or bias is None:
        return False
    if any(array is None for array in numbers) or not _scalable(layer):
        return False
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in numbers)
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    factor = gamma / np.sqrt(variance + epsilon)
    stem = layer.inputs[1].name if layer.inputs[1] is not None else layer.name
    new_weight = initializer(graph, f"{stem}.folded", _scaled(layer, weight, factor).astype(weight.dtype))
    new_bias = initializer(graph, f"{stem}.folded_bias", ((bias - mean) * factor + beta).astype(weight.dtype))
    layer.replace_input_with(1, new_weight)
    layer.resize_inputs(3)
    layer.replace_input_with(2, new_bias)
    output = node.outputs[0]
    name = output.name
    ir.convenience.replace_all_uses_with(output, source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    output.name, source.name = None, name
    return True


def _scalable(layer: ir.Node) -> bool:
    """Whether scaling the weight scales the output: not where Gemm has factors of its own."""
    return all(layer.attributes[name].as_float() == 1.0 for name in ("alpha", "beta") if name in layer.attributes)


def _scaled(layer: ir.Node, weight: np.ndarray, factor: np.ndarray) -> np.ndarray:
    if layer.op_type == "ConvTranspose":  # [inputs, outputs / groups, ...], the groups one after the other
        groups = layer.attributes["group"].as_int() if "group" in layer.attributes else 1
        parts = weight.reshape(groups, -1, *weight.shape[1:])  # [groups, inputs / groups, outputs / groups, ...]
        per_group = factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
        return np.asarray((parts * per_group).reshape(weight.shape))
    if layer.op_type == "Gemm" and not ("transB" in layer.attributes and layer.attributes["transB"].as_int()):
        return np.asarray(weight * factor)
    return np.asarray(weight * factor.reshape(-1, *[1] * (weight.ndim - 1)))
