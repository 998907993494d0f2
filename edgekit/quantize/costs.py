"""What nodes cost on a device in fp32 and in int8, predicted from its profile."""

from __future__ import annotations

import math

import onnx_ir as ir

from edgekit.device.profile import DeviceProfile
from edgekit.quantize.graph import constant
from edgekit.quantize.macs import macs
from edgekit.quantize.rewrites.channelwise import covers_image

FEW_INPUTS = 32
"""A convolution that sums over no more numbers has a pattern of its own: gathering them is what takes time."""
LIKE = {"Flatten": "Reshape", "Squeeze": "Reshape", "Unsqueeze": "Reshape", "Split": "Slice"}
"""Operators that do what another one does, and cost as much."""


def pattern_of(node: ir.Node) -> str:
    """The name of the profile's pattern that a node belongs to."""
    kind = node.op_type
    if kind == "Conv":
        return f"Conv.{_kind_of_convolution(node)}"
    if kind == "Resize":
        mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "nearest"
        return f"Resize.{mode}"
    if kind == "AveragePool" and covers_image(node):
        return "GlobalAveragePool"
    return LIKE.get(kind, kind)


class Costs:
    """Predicted microseconds of nodes."""

    def __init__(self, profile: DeviceProfile) -> None:
        self.profile = profile

    def fp32(self, node: ir.Node) -> float:
        """Of a node in fp32."""
        pattern = self.profile.patterns[pattern_of(node)]
        return pattern.fp32.of(self._work(node, pattern.unit))

    def int8(self, node: ir.Node) -> float:
        """Of a node in int8."""
        pattern = self.profile.patterns[pattern_of(node)]
        return pattern.int8.of(self._work(node, pattern.unit))

    def boundary(self, value: ir.Value) -> float:
        """Of a Q and a DQ of a value."""
        patterns = (self.profile.patterns[name] for name in ("QuantizeLinear", "DequantizeLinear"))
        return sum(pattern.int8.of(_elements(value)) for pattern in patterns)

    def both_ways(self, graph: ir.Graph) -> dict[str, tuple[float, float]]:
        """For each node that the profile knows in both forms, its cost in fp32 and in int8."""
        known = (node for node in graph if self._in_both_forms(node))
        return {str(node.name): (round(self.fp32(node), 2), round(self.int8(node), 2)) for node in known}

    def _in_both_forms(self, node: ir.Node) -> bool:
        pattern = self.profile.patterns.get(pattern_of(node))
        return pattern is not None and all(cost.base_us or cost.rate_us for cost in (pattern.fp32, pattern.int8))

    @staticmethod
    def _work(node: ir.Node, unit: str) -> float:
        if unit == "MACs":
            return macs(node)
        read = 0.0 if node.inputs[0] is None else _elements(node.inputs[0])
        return max(read, sum(_elements(value) for value in node.outputs))


def _kind_of_convolution(node: ir.Node) -> str:
    weight = constant(node.inputs[1])
    if weight is None:
        return "dense"
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    if groups > 1:
        return "depthwise" if weight.shape[1] == 1 else "grouped"
    if weight[0].size <= FEW_INPUTS:
        return "few_inputs"
    return "pointwise" if math.prod(weight.shape[2:]) == 1 else "dense"


def _elements(value: ir.Value) -> float:
    """Numbers in a value of one sample; sizes that are not known ahead of time count as one."""
    return float(math.prod(size for size in value.shape or () if isinstance(size, int)))
