"""Transposed convolutions without overlap from what has int8 kernels; ConvTranspose has none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import constant, initializer, only_user, put, replace
from edgekit.quantize.macs import macs
from edgekit.quantize.rewrites.asking import Pays


def upsamplings_to_convolutions(graph: ir.Graph, pays: Pays) -> list[str]:
    """Write a ConvTranspose whose windows do not overlap as a 1x1 convolution that makes all numbers of a window.

    They are put in their places with channels last, as int8 convolutions have them, so that only rows change places:
    W. Shi et al., *Is the deconvolution layer the same as a convolutional layer?*, 2016. DepthToSpace would ask for
    channels first. A ReLU or Clip that follows comes before it, where it fuses.
    """
    nodes = [node for node in graph if node.op_type == "ConvTranspose"]
    return [str(node.name) for node in nodes if _write(graph, node, pays)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Upsampling:
    """What a ConvTranspose does.

    Args:
        source: images.
        batch: their number, which may be open.
        height: of an image.
        width: likewise.
        weight: [channels, outputs, *window].
        bias: [outputs], or None.
    """

    source: ir.Value
    batch: int | ir.SymbolicDim
    height: int
    width: int
    weight: np.ndarray
    bias: np.ndarray | None


def _upsampling(node: ir.Node) -> _Upsampling | None:
    source, weight, attributes = node.inputs[0], constant(node.inputs[1]), node.attributes
    biased = len(node.inputs) > 2 and node.inputs[2] is not None
    bias = constant(node.inputs[2]) if biased else None
    if (
        source is None
        or source.shape is None
        or source.dtype != ir.DataType.FLOAT
        or weight is None
        or weight.ndim != 4
    ):
        return None
    batch, _, height, width = source.shape
    shifted = any(any(attributes.get_ints(name, ())) for name in ("pads", "output_padding"))
    spread = any(step != 1 for step in attributes.get_ints("dilations", ()))
    automatic = attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or "output_shape" in attributes
    overlaps = list(attributes.get_ints("strides", (1, 1))) != list(weight.shape[2:])
    if shifted or spread or automatic or overlaps or attributes.get_int("group", 1) != 1 or (biased and bias is None):
        return None
    if not isinstance(height, int) or not isinstance(width, int):
        return None
    return _Upsampling(source=source, batch=batch, height=height, width=width, weight=weight, bias=bias)


def _write(graph: ir.Graph, node: ir.Node, pays: Pays) -> bool:
    found = _upsampling(node)
    # What puts the rows in their places is left out, and so are two changes of layout around the ConvTranspose, which
    # take longer.
    if found is None or not pays(node, {"Conv.pointwise": macs(node)}):
        return False
    _, outputs, down, across = found.weight.shape
    batch, height, width = found.batch, found.height, found.width
    kernel = found.weight.transpose(2, 3, 1, 0).reshape(down * across * outputs, -1, 1, 1)  # [down, across, outputs]
    inputs = [found.source, initializer(graph, f"{node.name}.kernel", np.ascontiguousarray(kernel))]
    if found.bias is not None:
        inputs.append(initializer(graph, f"{node.name}.kernel_bias", np.tile(found.bias, down * across)))
    convolution = ir.node("Conv", inputs, {"kernel_shape": [1, 1]}, name=f"{node.name}_windows")
    value = put(graph, node, convolution, found.source)
    value.shape = ir.Shape([batch, len(kernel), height, width])
    value = _with_activation(graph, node, value)
    apart = np.array([-1, width, down, across * outputs], np.int64)
    together = np.array([-1, height * down, width * across, outputs], np.int64)
    last = _turned(graph, node, value, [0, 2, 3, 1], "last")
    # [batch * height, width, down, across * outputs], then rows first
    rows = _reshaped(graph, node, last, apart, "rows")
    rows = _turned(graph, node, rows, [0, 2, 1, 3], "turned")
    whole = _reshaped(graph, node, rows, together, "whole")
    whole.shape = ir.Shape([batch, *together[1:].tolist()])
    replace(graph, node, ir.node("Transpose", [whole], {"perm": [0, 3, 1, 2]}, name=node.name))
    return True


def _with_activation(graph: ir.Graph, node: ir.Node, value: ir.Value) -> ir.Value:
    """Take the ReLU or Clip behind a node in front of it, for a value that takes the place of its input."""
    output = node.outputs[0]
    follower = next(iter(output.uses())).node if only_user(output) else None
    if follower is None or follower.op_type not in ("Relu", "Clip") or follower.outputs[0].is_graph_output():
        return value
    behind = follower.outputs[0]
    graph.remove(follower)
    ir.convenience.replace_all_uses_with(behind, output)
    follower.replace_input_with(0, value)
    graph.insert_before(node, follower)
    behind.shape = value.shape
    return behind


def _turned(graph: ir.Graph, node: ir.Node, value: ir.Value, order: list[int], what: str) -> ir.Value:
    made = put(graph, node, ir.node("Transpose", [value], {"perm": order}, name=f"{node.name}_{what}"), value)
    made.shape = None if value.shape is None else ir.Shape([value.shape[axis] for axis in order])
    return made


def _reshaped(graph: ir.Graph, node: ir.Node, value: ir.Value, shape: np.ndarray, what: str) -> ir.Value:
    target = initializer(graph, f"{node.name}.{what}", shape)
    made = put(graph, node, ir.node("Reshape", [value, target], name=f"{node.name}_{what}"), value)
    made.shape = ir.Shape([None, *shape[1:].tolist()])
    return made
