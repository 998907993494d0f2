"""What nodes cost on a device in fp32 and in int8, predicted from its profile."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir

from edgekit.device.profile import Cost, DeviceProfile
from edgekit.quantize.graph import constant
from edgekit.quantize.macs import elements, macs
from edgekit.quantize.rewrites.channelwise import covers_image
from edgekit.quantize.targets import ACTIVATION

FEW_INPUTS = 32
"""A convolution that sums over no more numbers has a pattern of its own: gathering them is what takes time."""
LIKE = {"Flatten": "Reshape", "Squeeze": "Reshape", "Unsqueeze": "Reshape", "Split": "Slice"}
"""Operators that do what another one does, and cost as much."""


LAYOUT = Cost(base_us=3.0, rate_us=0.3)
"""Of two changes of layout: int8 convolutions keep channels last, fp32 ones keep them in blocks. ONNX Runtime puts a
Transpose and a reordering between the two (some 1.5 us and 0.15 us per 1000 numbers each, on AVX512-VNNI)."""


def pattern_of(node: ir.Node) -> str:
    """The name of the profile's pattern that a node belongs to."""
    kind = node.op_type
    if kind == "Conv":
        return f"Conv.{_kind_of_convolution(node)}"
    if kind == "Resize":
        mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "nearest"
        return f"Resize.{mode}"
    if kind in ("Add", "Mul") and any(constant(value) is not None for value in node.inputs):
        return f"{kind}.constant"
    if kind == "AveragePool" and covers_image(node):
        return "GlobalAveragePool"
    return LIKE.get(kind, kind)


class Costs:
    """Predicted microseconds of nodes.

    Args:
        profile: of the device.
        layouts: whether images that go from int8 to fp32, or back, pay for the change of layout.
    """

    def __init__(self, profile: DeviceProfile, *, layouts: bool = False) -> None:
        self.profile, self.layouts = profile, layouts

    def fp32(self, node: ir.Node) -> float:
        """Of a node in fp32."""
        pattern = self.profile.patterns[pattern_of(node)]
        return pattern.fp32.of(self._work(node, pattern.unit))

    def int8(self, node: ir.Node) -> float:
        """Of a node between int8 operators; where no kernel fuses, with the DQ and Q that stand around it."""
        pattern = self.profile.patterns[pattern_of(node)]
        return pattern.int8.of(self._work(node, pattern.unit))

    def in_both_forms(self, node: ir.Node) -> tuple[float, float]:
        """Of a node in fp32 and in int8; what the profile does not know costs nothing: it follows its neighbours.

        An activation that fuses into the node costs nothing in either form.
        """
        known = pattern_of(node) in self.profile.patterns
        return (self.fp32(node), self.int8(node)) if known else (0.0, 0.0)

    def quantize(self, value: ir.Value) -> float:
        """Of a Q of a value."""
        return self.profile.patterns["QuantizeLinear"].int8.of(elements(value)) + self._layout(value)

    def dequantize(self, value: ir.Value) -> float:
        """Of a DQ of a value."""
        return self.profile.patterns["DequantizeLinear"].int8.of(elements(value)) + self._layout(value)

    def _layout(self, value: ir.Value) -> float:
        if not self.layouts or value.shape is None or len(value.shape) != 4:
            return 0.0
        return LAYOUT.of(elements(value))

    def is_cheaper(self, node: ir.Node, instead: Mapping[str, float]) -> bool:
        """Whether other patterns, each with its work, cost less between int8 operators than a node that is there.

        Not where the profile lacks one of them.
        """
        patterns = self.profile.patterns
        if not patterns.keys() >= {pattern_of(node), *instead}:
            return False
        return sum(patterns[name].int8.of(work) for name, work in instead.items()) < self.int8(node)

    def both_ways(self, graph: ir.Graph) -> dict[str, tuple[float, float]]:
        """For each node that the profile knows in both forms, its cost in fp32 and in int8."""
        known = (node for node in graph if self._knows_both_forms(node))
        return {str(node.name): (round(self.fp32(node), 2), round(self.int8(node), 2)) for node in known}

    def _knows_both_forms(self, node: ir.Node) -> bool:
        pattern = self.profile.patterns.get(pattern_of(node))
        if pattern is None or not self.profile.fuses(pattern_of(node), ACTIVATION[self.profile.target]):
            return False
        return all(cost.base_us or cost.rate_us for cost in (pattern.fp32, pattern.int8))

    @staticmethod
    def _work(node: ir.Node, unit: str) -> float:
        if unit == "MACs":
            return macs(node)
        read = 0.0 if node.inputs[0] is None else elements(node.inputs[0])
        return max(read, sum(elements(value) for value in node.outputs))


def _kind_of_convolution(node: ir.Node) -> str:
    weight = constant(node.inputs[1])
    if weight is None:
        return "dense"
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    if groups > 1:
        if weight.shape[1] > 1:
            return "grouped"
        return "channelwise" if weight[0].size == 1 else "depthwise"
    if weight[0].size <= FEW_INPUTS:
        return "few_inputs"
    return "pointwise" if math.prod(weight.shape[2:]) == 1 else "dense"
