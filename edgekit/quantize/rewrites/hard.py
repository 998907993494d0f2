"""HardSigmoid and HardSwish from what has int8 kernels; they themselves have none."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import initializer, put, replace
from edgekit.quantize.macs import elements
from edgekit.quantize.rewrites.asking import Pays
from edgekit.quantize.rewrites.channelwise import CHANNELWISE
from edgekit.quantize.rewrites.layers import BIASED, layer_before, rescale

ALPHA, BETA = 1 / 6, 0.5
"""Of the HardSigmoid in HardSwish(x) = x * HardSigmoid(x)."""


def fold_hard_sigmoids(graph: ir.Graph) -> int:
    """Write the HardSigmoid behind a layer as Clip(0, 1), which fuses into an int8 range.

    HardSigmoid(y) = min(max(alpha * y + beta, 0), 1), and the layer's weights and bias take alpha and beta.
    """
    return sum(_fold(graph, node) for node in list(graph) if node.op_type == "HardSigmoid")


def hard_sigmoids_to_convolutions(graph: ir.Graph, pays: Pays) -> list[str]:
    """Write a HardSigmoid of images that does not fold as a depthwise 1x1 convolution and Clip(0, 1)."""
    nodes = [node for node in graph if node.op_type == "HardSigmoid"]
    return [str(node.name) for node in nodes if _to_convolution(graph, node, pays)]


def hard_swishes_to_products(graph: ir.Graph, pays: Pays) -> list[str]:
    """Write HardSwish (A. Howard et al., *Searching for MobileNetV3*, 2019, section 5.2) as x times its gate.

    Behind a layer whose weights take a factor, with z = x / sqrt(6):

        HardSwish(x) = x * min(max(x / 6 + 1/2, 0), 1) = z * min(max(z + sqrt(3/2), 0), sqrt(6))

    that is an addition and a multiplication, with a Clip that vanishes into a range between them. Elsewhere the gate
    is a depthwise 1x1 convolution with such a Clip, which takes more time.
    """
    nodes = [node for node in graph if node.op_type == "HardSwish"]
    return [str(node.name) for node in nodes if _to_product(graph, node, pays)]


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    layer = layer_before(node.inputs[0])
    if layer is None or layer.op_type not in BIASED:
        return False
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    rescale(graph, layer, np.array(alpha), np.array(beta))
    replace(graph, node, _clip(graph, node, node.inputs[0], 1.0))
    return True


def _to_convolution(graph: ir.Graph, node: ir.Node, pays: Pays) -> bool:
    channels = _channels(node)
    if channels is None or not pays(node, {CHANNELWISE: elements(node.outputs[0])}):
        return False
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    replace(graph, node, _clip(graph, node, _affine(graph, node, channels, alpha, beta), 1.0))
    return True


def _to_product(graph: ir.Graph, node: ir.Node, pays: Pays) -> bool:
    source, work = node.inputs[0], elements(node.outputs[0])
    if source is None or source.dtype != ir.DataType.FLOAT:
        return False
    layer, channels = layer_before(source), _channels(node)
    if layer is not None:
        if not pays(node, {"Add.constant": work, "Mul": work}):
            return False
        rescale(graph, layer, np.array(math.sqrt(ALPHA)))
        number = initializer(graph, f"{node.name}.shift", np.array(math.sqrt(3 / 2), np.float32))
        raw, top = put(graph, node, ir.node("Add", [source, number], name=f"{node.name}_shifted"), source), math.sqrt(6)
    elif channels is not None and pays(node, {CHANNELWISE: work, "Mul": work}):
        raw, top = _affine(graph, node, channels, ALPHA, BETA), 1.0
    else:
        return False
    gate = put(graph, node, _clip(graph, node, raw, top), source)
    replace(graph, node, ir.node("Mul", [source, gate], name=node.name))
    return True


def _channels(node: ir.Node) -> int | None:
    """How many channels the images have that a node works on; None for what are no images, and where it is unknown."""
    source = node.inputs[0]
    if source is None or source.shape is None or len(source.shape) != 4 or source.dtype != ir.DataType.FLOAT:
        return None
    return source.shape[1] if isinstance(source.shape[1], int) else None


def _affine(graph: ir.Graph, node: ir.Node, channels: int, alpha: float, beta: float) -> ir.Value:
    """Put alpha * x + beta in front of a node, x being its input."""
    assert node.inputs[0] is not None
    weight = initializer(graph, f"{node.name}.alpha", np.full((channels, 1, 1, 1), alpha, np.float32))
    bias = initializer(graph, f"{node.name}.beta", np.full(channels, beta, np.float32))
    made = ir.node(
        "Conv", [node.inputs[0], weight, bias], {"kernel_shape": [1, 1], "group": channels}, name=f"{node.name}_as_conv"
    )
    return put(graph, node, made, node.inputs[0])


def _clip(graph: ir.Graph, node: ir.Node, value: ir.Value | None, top: float) -> ir.Node:
    """Clip(0, top), to stand before a node or in its place."""
    bounds = {"low": 0.0, "high": top}
    limits = [initializer(graph, f"{node.name}.{name}", np.array(to, np.float32)) for name, to in bounds.items()]
    return ir.node("Clip", [value, *limits], name=f"{node.name}_cut")
