"""The int8 form of a graph on made-up scales: as fast as the real one, and made without data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgekit.device.profile import shipped_profile
from edgekit.quantize import dynamic
from edgekit.quantize.costs import Costs
from edgekit.quantize.graph import constant
from edgekit.quantize.layout import place
from edgekit.quantize.paying import paying
from edgekit.quantize.placement import Placement
from edgekit.quantize.plan import QuantPlan, Scale
from edgekit.quantize.qdq import insert
from edgekit.quantize.rewrites import rewrite
from edgekit.quantize.targets import ACTIVATION, PAIR_LIMIT, WEIGHT_LIMIT, Target

NOT_BELOW_ZERO = ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Abs")
KEEPS_SIGN = (
    *("MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "Reshape", "Flatten", "Transpose", "Slice", "Split"),
    *("Squeeze", "Unsqueeze", "Resize", "Concat", "Pad", "Add", "Mul"),
)
SCALE = 0.05
CUT_SCALE = 0.5 / 255
"""Behind a ReLU6 and whatever else cuts off, so that the range does what the operator did: ONNX Runtime leaves out what
cuts nothing off of it, and takes the convolution before to int8 with it. Far enough below 6 / 255 for `_distinct`."""


def sketch(model: ir.Model, target: Target) -> ir.Model:
    """A copy of an fp32 graph in int8 by the rules of placement, to be timed or priced; its answers mean nothing.

    Static where `plan_quantization` would be by itself, else dynamic.

    Args:
        model: fp32, each node with a name of its own; left as it is.
        target: `x86-vnni`, `x86-avx2` or `arm64`.
    """
    twin = model.clone()
    graph = twin.graph
    at_run_time = {str(node.name) for node in graph} - set(dynamic.refusals(graph))
    if not dynamic.is_better(graph):
        rewrite(twin, paying(Costs(shipped_profile(target)), target, keep_float=()))
        placement = place(graph, target)
        _share_with_concatenations(graph, placement)
        plan = made_up(placement, ACTIVATION[target], target, _never_negative(graph))
        insert(twin, placement, _distinct(plan, placement))
        at_run_time &= {str(node.name) for node in graph if node.op_type == "LSTM"}
    if at_run_time:
        dynamic.convert(twin, frozenset(at_run_time), WEIGHT_LIMIT[target], PAIR_LIMIT.get(target))
    return twin


def _share_with_concatenations(graph: ir.Graph, placement: Placement) -> None:
    """Let the parts of a concatenation have its scale, as they mostly do in earnest: then bytes are copied."""
    for node in reversed([node for node in graph if node.op_type == "Concat" and node.name in placement.nodes]):
        follower = placement.fused.get(str(node.name), node)
        whole = placement.root(str(follower.outputs[0].name))
        for value in node.inputs:
            part = placement.root(str(value.name)) if value is not None else whole
            if part != whole and part in placement.quantized:
                placement.source[part] = whole


def _distinct(plan: QuantPlan, placement: Placement) -> QuantPlan:
    """Other scales for values that need not share one, as in earnest: what shares one by chance might run otherwise."""
    roots = {name: index for index, name in enumerate(sorted({placement.root(name) for name in plan.activations}))}
    scales = {
        name: replace(scale, scale=scale.scale * (1 + roots[placement.root(name)] / 1024))
        for name, scale in plan.activations.items()
    }
    return replace(plan, activations=scales)


def _never_negative(graph: ir.Graph) -> frozenset[str]:
    """The values that cannot be below zero: their range begins there, and so do their integers."""
    found: set[str] = set()
    for node in graph:
        given = [str(value.name) for value in node.inputs if value is not None and constant(value) is None]
        lowest = constant(node.inputs[1]) if node.op_type == "Clip" and len(node.inputs) > 1 else None
        if (
            node.op_type in NOT_BELOW_ZERO
            or (lowest is not None and float(lowest) >= 0)
            or (node.op_type in KEEPS_SIGN and given and found.issuperset(given))
        ):
            found.update(str(value.name) for value in node.outputs)
    return frozenset(found)


def made_up(placement: Placement, dtype: str, target: str, never_negative: Collection[str] = frozenset()) -> QuantPlan:
    """Scales that fit any numbers: zero is the lowest integer behind a ReLU, and of what else is never negative.

    Elsewhere it lies in the middle.
    """
    lowest = int(np.iinfo(dtype).min)
    cut = {value.name for node in placement.fused.values() for value in node.outputs} | set(never_negative)
    scales = {
        name: Scale(scale=CUT_SCALE, zero_point=lowest, dtype=dtype)
        if name in cut
        else Scale(scale=SCALE, zero_point=lowest + 128, dtype=dtype)
        for name in placement.quantized
    }
    return QuantPlan(
        target=target,
        scheme="static",
        ranges="",
        weight_limit=WEIGHT_LIMIT[target],
        activations=scales,
        nodes=tuple(sorted(placement.nodes)),
        reasons={},
        bias_shift={},
    )
