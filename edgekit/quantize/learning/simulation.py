"""A plan in torch: values and weights pass through the integers that ONNX Runtime will see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from edgekit.quantize.graph import constant
from edgekit.quantize.layout import wired
from edgekit.quantize.learning.network import Call, Network
from edgekit.quantize.placement import COMPUTE, produced
from edgekit.quantize.plan import QuantPlan, Scale
from edgekit.quantize.planning import static_nodes
from edgekit.quantize.weights import output_axis, pair_limit, scales_of, without_overflow

LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}


class Rounding(torch.autograd.Function):
    """Rounding to the nearest, with the gradient of the identity.

    Y. Bengio et al., *Estimating or Propagating Gradients Through Stochastic Neurons*, 2013: the straight-through
    estimator.
    """

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        """The nearest integers."""
        return torch.round(x)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        """As it comes."""
        return gradients[0]


def rounded(x: Tensor) -> Tensor:
    """The nearest integers; gradients pass through."""
    done: Tensor = Rounding.apply(x)  # type: ignore[no-untyped-call]
    return done


class Simulation(Network):
    """The quantized network: the same numbers as its file gives, but for the rounding of 32-bit biases.

    Args:
        graph: the fp32 graph after the rewrites and the equalization of `plan`.
        plan: a static plan for it.

    Raises:
        QuantizeError: an operator has no counterpart in torch.
    """

    def __init__(self, graph: ir.Graph, plan: QuantPlan) -> None:
        super().__init__(graph)
        nodes = static_nodes(graph, plan)
        placement = wired(graph, nodes, plan.target)
        int8 = [node for node in graph if node.name in nodes]
        fused = {node.name for node in placement.fused.values()}
        self.produced = frozenset(produced(graph, placement) & placement.quantized)
        self.taken = frozenset(placement.quantized) - self.produced
        self.exact = frozenset(placement.exact)
        self.readers = frozenset(str(node.name) for node in int8 if node.name not in fused)
        # Values on one scale stay on one: between them ONNX Runtime copies bytes.
        first: dict[Scale, str] = {}
        self.roots = {name: first.setdefault(plan.activations[name], name) for name in sorted(placement.quantized)}
        self.zero_points = {name: plan.activations[name].zero_point for name in placement.quantized}
        self.limits = {name: LIMITS[plan.activations[name].dtype] for name in placement.quantized}
        self.axes = {str(node.name): output_axis(node) for node in int8 if node.op_type in COMPUTE}
        self.weight_limit = plan.weight_limit
        self.pairs = {str(node.name): pair_limit(node, plan.target) for node in int8 if str(node.name) in self.axes}
        self._scale_places: dict[str, str] = {}
        for name in sorted(placement.quantized):
            self._hold(name, torch.tensor(plan.activations[name].scale, dtype=torch.float32))
        for node in int8:
            weight = constant(node.inputs[1]) if str(node.name) in self.axes else None
            if weight is not None:
                self._hold(f"weight {node.name}", torch.from_numpy(scales_of(node, plan)).float())
                shift = plan.bias_shift.get(str(node.name))
                outputs = weight.shape[self.axes[str(node.name)]]
                self._hold(f"shift {node.name}", torch.tensor(shift or [0.0] * outputs, dtype=torch.float32))
        self.calls = tuple(self._biased(call) if call.name in self.axes else call for call in self.calls)

    def _biased(self, call: Call) -> Call:
        """A call with a bias, so that a shift has something to be added to; a matrix product has no place for one."""
        if call.op == "MatMul" or len([name for name in call.inputs if name]) > 2:
            return call
        name = f"{call.name} without bias"
        self._places[name] = f"constant_{len(self._places)}"
        self.register_buffer(self._places[name], torch.zeros_like(self.held(f"shift {call.name}")))
        return replace(call, inputs=(*call.inputs[:2], name))

    def _hold(self, what: str, tensor: Tensor) -> None:
        self._scale_places[what] = f"scale_{len(self._scale_places)}"
        self.register_buffer(self._scale_places[what], tensor)

    def held(self, what: str) -> Tensor:
        """The scale of a value, the scales of a weight (`weight NODE`) or a bias shift (`shift NODE`)."""
        found: Tensor = getattr(self, self._scale_places[what])
        return found

    def made(self, name: str, value: Tensor) -> Tensor:
        """What an int8 kernel makes is rounded for all that read it."""
        return self.quantized(name, value) if name in self.produced else value

    def read(self, call: Call, name: str, value: Tensor) -> Tensor:
        """What comes in fp32 is rounded for int8 kernels alone."""
        taken = name in self.taken and call.name in self.readers and (call.name, name) not in self.exact
        return self.quantized(name, value) if taken else value

    def weight(self, call: Call, index: int) -> Tensor:
        """Weights of int8 kernels are rounded, biases shifted."""
        plain = super().weight(call, index)
        if call.name not in self.axes or index == 0:
            return plain
        return self.quantized_weight(call, plain) if index == 1 else plain + self.held(f"shift {call.name}")

    def quantized(self, name: str, value: Tensor) -> Tensor:
        """A value as its integers stand for."""
        low, high = self.limits[name]
        scale, zero = self.held(name), self.zero_points[name]
        return (torch.clamp(rounded(value / scale) + zero, low, high) - zero) * scale

    def integers(self, call: Call, weight: Tensor) -> Tensor:
        """A weight's integers, as floating-point numbers with gradients."""
        whole = rounded(weight / self.weight_scales(call, weight))
        return self.without_overflow(call, torch.clamp(whole, -self.weight_limit, self.weight_limit))

    def without_overflow(self, call: Call, integers: Tensor) -> Tensor:
        """Integers whose sums the kernels can hold; gradients pass straight through."""
        pair = self.pairs[call.name]
        if pair is None:
            return integers
        kept = without_overflow(integers.detach().cpu().numpy(), self.axes[call.name], pair)
        return integers + (torch.from_numpy(kept).to(integers) - integers).detach()

    def weight_scales(self, call: Call, weight: Tensor) -> Tensor:
        """A weight's scales, shaped so that they multiply it."""
        shape = [1] * weight.ndim
        shape[self.axes[call.name]] = -1
        return self.held(f"weight {call.name}").reshape(shape)

    def quantized_weight(self, call: Call, weight: Tensor) -> Tensor:
        """A weight as its integers stand for."""
        return self.integers(call, weight) * self.weight_scales(call, weight)
