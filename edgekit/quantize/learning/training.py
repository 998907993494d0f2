"""Quantization-aware training: the network learns with the integers that it will run on.

Scales are learned, too (S. Esser et al., *Learned Step Size Quantization*, 2020, section 2; here their logarithms), and
weights that swing between two integers are frozen (M. Nagel et al., *Overcoming Oscillations in Quantization-Aware
Training*, 2022, algorithm 1). BatchNorm is folded before: what it would be re-estimated for, the mean of each channel,
is learned as the bias that it was folded into.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgekit.quantize.equalization import equalize
from edgekit.quantize.graph import constant, initializer, load
from edgekit.quantize.learning.network import Call
from edgekit.quantize.learning.simulation import Simulation
from edgekit.quantize.plan import QuantPlan, Scale
from edgekit.quantize.rewrites import rewrite
from edgekit.store import write_atomic

LEARNED = frozenset({"Add", "Conv", "ConvTranspose", "Gemm", "InstanceNormalization", "LayerNormalization", "MatMul"})
"""Operators whose constants are trained."""
MEMORY, THRESHOLD = 0.98, 0.02
"""How slowly the rate of swings is forgotten, and from which rate on a weight is frozen."""


class Trainable(Simulation):
    """A simulation with parameters: weights, biases, and all scales. Made by `trainable`."""

    def __init__(self, graph: ir.Graph, plan: QuantPlan) -> None:
        super().__init__(graph, plan)
        for call in self.calls:
            if call.op in LEARNED:
                for name in call.inputs[1 if call.op != "Add" else 0 :]:
                    self._learn(name)
        for call in self.calls:
            if call.name in self.axes and len(call.inputs) > 2 and call.inputs[2] is not None:
                # From here on the shift is a part of the bias.
                shift = self.held(f"shift {call.name}")
                with torch.no_grad():
                    self.constant(call.inputs[2]).add_(shift)
                    shift.zero_()
        for what, place in self._scale_places.items():
            if not what.startswith("shift ") and self.roots.get(what, what) == what:
                # The logarithm of its growth: no step can make a scale negative, or jump over orders of magnitude.
                self.register_parameter(f"growth_{place}", nn.Parameter(torch.zeros_like(getattr(self, place))))
        for name in self.axes:
            for kind in ("last", "move", "rate", "frozen"):
                self.register_buffer(f"{kind}_{self._scale_places[f'weight {name}']}", None, persistent=False)

    def _learn(self, name: str | None) -> None:
        place = self._places.get(name) if name else None
        if place is not None and not isinstance(getattr(self, place), nn.Parameter):
            first = getattr(self, place)
            if first.is_floating_point():
                delattr(self, place)
                self.register_parameter(place, nn.Parameter(first))

    def held(self, what: str) -> Tensor:
        """Values that share a scale share the parameter."""
        what = self.roots.get(what, what)
        first = super().held(what)
        growth = getattr(self, f"growth_{self._scale_places[what]}", None)
        return first if growth is None else first * growth.exp()

    def integers(self, call: Call, weight: Tensor) -> Tensor:
        """Weights that swing between integers stay where they were most of the time."""
        found = super().integers(call, weight)
        if not self.training:
            return found
        key = self._scale_places[f"weight {call.name}"]
        with torch.no_grad():
            now = found.detach()
            last, move, rate = (getattr(self, f"{kind}_{key}") for kind in ("last", "move", "rate"))
            if last is None:
                last, move, rate = now.clone(), torch.zeros_like(now), torch.zeros_like(now)
            step = now - last
            swings = (step != 0) & (move != 0) & (step.sign() != move.sign())
            rate = MEMORY * rate + (1 - MEMORY) * swings
            fixed = rate > THRESHOLD
            frozen = getattr(self, f"frozen_{key}")
            frozen = torch.where(fixed, last, torch.full_like(now, torch.nan)) if frozen is None else frozen
            frozen = torch.where(frozen.isnan() & fixed, last, frozen)
            for kind, value in (("move", torch.where(step != 0, step, move)), ("rate", rate), ("frozen", frozen)):
                setattr(self, f"{kind}_{key}", value)
            held = ~frozen.isnan()
            setattr(self, f"last_{key}", torch.where(held, frozen, now))
        return torch.where(held, frozen, found)


def trainable(model: Path, plan: QuantPlan) -> Trainable:
    """The network of an fp32 file under a static plan, to be trained: it takes what the file takes, in its order.

    Raises:
        QuantizeError: an operator has no counterpart in torch.
    """
    return Trainable(_prepared(model, plan).graph, plan)


def harvest(model: Path, plan: QuantPlan, trained: Trainable, path: Path) -> QuantPlan:
    """Write the fp32 file that a training has led to, and give the plan for it.

    Args:
        model: the fp32 file that `trainable` was given.
        plan: the plan that it was given.
        trained: what it returned, trained.
        path: the file to write; its weights are multiples of their scales.

    Raises:
        StoreError: the file cannot be written.
    """
    source = _prepared(model, plan)
    trained.eval()
    by_name = {call.name: call for call in trained.calls}
    scales: dict[str, tuple[float, ...]] = {}
    with torch.no_grad():
        for node in source.graph:
            call = by_name.get(str(node.name))
            if call is None or call.op not in LEARNED:
                continue
            for index, name in enumerate(call.inputs):
                # A bias that the file does not have is one input more.
                before = constant(node.inputs[index]) if index < len(node.inputs) else None
                if name is None or not trained.is_constant(name) or (before is None and index < 2):
                    continue
                value = trained.constant(name)
                if call.name in trained.axes and index == 1:
                    held = trained.held(f"weight {call.name}")
                    scales[call.name] = tuple(held.double().tolist())
                    value = trained.quantized_weight(call, value)
                dtype = np.float32 if before is None else before.dtype
                if not value.is_floating_point():
                    continue
                node.resize_inputs(max(index + 1, len(node.inputs)))
                new = initializer(source.graph, f"{name}.trained", value.detach().numpy().astype(dtype))
                node.replace_input_with(index, new)
        activations = {
            name: Scale(
                scale=float(trained.held(name)) if name in trained.roots else scale.scale,
                zero_point=scale.zero_point,
                dtype=scale.dtype,
            )
            for name, scale in plan.activations.items()
        }
    write_atomic(path, ir.to_proto(source).SerializeToString())
    return replace(plan, activations=activations, weight_scales=scales, equalized={}, bias_shift={})


def _prepared(model: Path, plan: QuantPlan) -> ir.Model:
    source = load(model)
    rewrite(source)
    equalize(source.graph, plan.equalized)
    return source
