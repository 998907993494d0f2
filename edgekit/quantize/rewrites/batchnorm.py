"""Folding BatchNormalization into what stands before it; alone it has no int8 kernel."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import bypass, constant
from edgekit.quantize.rewrites.layers import BIASED, layer_before, rescale


def fold_batchnorm(graph: ir.Graph) -> int:
    """Multiply weights and biases by what inference-mode BatchNormalization does to each channel.

    y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, hence W' = W * f and b' = (b - mean) * f + beta with
    f = gamma / sqrt(variance + epsilon) (B. Jacob et al., *Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference*, 2018, section 3.2). One that follows an activation or a branch does not fold.
    """
    return sum(_fold(graph, node) for node in list(graph) if node.op_type == "BatchNormalization")


def channel_factors(node: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    """What an inference-mode BatchNormalization multiplies each channel with, and then adds to it."""
    numbers = [constant(value) for value in node.inputs[1:5]]
    if any(array is None for array in numbers) or node.attributes.get_int("training_mode"):
        return None
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in numbers)
    factor = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return factor, beta - mean * factor


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    source, numbers = node.inputs[0], channel_factors(node)
    layer = layer_before(source)
    if source is None or numbers is None or layer is None or layer.op_type not in BIASED:
        return False
    rescale(graph, layer, *numbers)
    output, name = node.outputs[0], node.outputs[0].name
    bypass(graph, node, source)
    output.name, source.name = None, name
    return True
