"""Operators that treat each channel alone as depthwise convolutions, for which there is a fast int8 kernel."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import initializer, replace
from edgekit.quantize.macs import elements
from edgekit.quantize.rewrites.asking import Pays
from edgekit.quantize.rewrites.batchnorm import channel_factors

CHANNELWISE, DEPTHWISE = "Conv.channelwise", "Conv.depthwise"
"""The patterns of depthwise 1x1 convolutions, and of those with a window."""


def norms_to_convolutions(graph: ir.Graph, pays: Pays) -> list[str]:
    """Write a BatchNormalization that does not fold (behind an addition, a concatenation) as a depthwise convolution.

    A ReLU that follows then fuses into it, as in pre-activation residual networks and DenseNets.
    """
    norms = [node for node in graph if node.op_type == "BatchNormalization"]
    return [str(node.name) for node in norms if _norm(graph, node, pays)]


def average_pools_to_convolutions(graph: ir.Graph, pays: Pays) -> list[str]:
    """Write an AveragePool whose windows all hold the same number of values as a depthwise convolution.

    ONNX Runtime's int8 AveragePool is some 20 times slower than the fp32 one unless its window is the whole image.
    """
    pools = [node for node in graph if node.op_type == "AveragePool"]
    return [str(node.name) for node in pools if _pool(graph, node, pays)]


def covers_image(node: ir.Node) -> bool:
    """Whether a pool's window is the whole image."""
    source = node.inputs[0]
    if source is None or source.shape is None:
        return False
    return list(source.shape[2:]) == list(node.attributes["kernel_shape"].as_ints())


def _norm(graph: ir.Graph, node: ir.Node, pays: Pays) -> bool:
    source, numbers = node.inputs[0], channel_factors(node)
    if source is None or source.shape is None or source.dtype != ir.DataType.FLOAT or len(source.shape) < 3:
        return False
    if numbers is None or not pays(node, {CHANNELWISE: elements(source)}):
        return False
    factor, offset = numbers
    kernel = factor.reshape(-1, 1, *[1] * (len(source.shape) - 2))
    _put_depthwise(graph, node, kernel, offset, {})
    return True


def _pool(graph: ir.Graph, node: ir.Node, pays: Pays) -> bool:
    source, attributes = node.inputs[0], node.attributes
    window = list(attributes["kernel_shape"].as_ints())
    pads = list(attributes["pads"].as_ints()) if "pads" in attributes else []
    counts_padding = "count_include_pad" in attributes and attributes["count_include_pad"].as_int()
    automatic = "auto_pad" in attributes and attributes["auto_pad"].as_string() not in ("NOTSET", "VALID")
    ceil = "ceil_mode" in attributes and attributes["ceil_mode"].as_int()
    if source is None or source.shape is None or source.dtype != ir.DataType.FLOAT or covers_image(node):
        return False
    channels = source.shape[1]
    if not isinstance(channels, int) or automatic or ceil or (any(pads) and not counts_padding):
        return False
    if not pays(node, {DEPTHWISE: elements(node.outputs[0]) * math.prod(window)}):
        return False
    kernel = np.full((channels, 1, *window), 1 / math.prod(window))
    kept = {name: list(attributes[name].as_ints()) for name in ("strides", "pads", "dilations") if name in attributes}
    _put_depthwise(graph, node, kernel, None, kept)
    return True


def _put_depthwise(
    graph: ir.Graph, node: ir.Node, kernel: np.ndarray, bias: np.ndarray | None, attributes: dict[str, list[int]]
) -> None:
    name = node.outputs[0].name
    inputs = [node.inputs[0], initializer(graph, f"{name}.kernel", kernel.astype(np.float32))]
    if bias is not None:
        inputs.append(initializer(graph, f"{name}.kernel_bias", bias.astype(np.float32)))
    convolution = ir.node(
        "Conv",
        inputs,
        {**attributes, "kernel_shape": list(kernel.shape[2:]), "group": len(kernel)},
        name=f"{node.name}_as_conv",
    )
    replace(graph, node, convolution)
