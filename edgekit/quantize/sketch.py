"""The int8 form of a graph on made-up scales: as fast as the real one, and made without data."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.device.profile import shipped_profile
from edgekit.quantize import dynamic
from edgekit.quantize.costs import Costs
from edgekit.quantize.layout import place
from edgekit.quantize.paying import paying
from edgekit.quantize.placement import Placement
from edgekit.quantize.plan import QuantPlan, Scale
from edgekit.quantize.qdq import insert
from edgekit.quantize.rewrites import rewrite
from edgekit.quantize.targets import ACTIVATION, WEIGHT_LIMIT, Target

SCALE = 0.05
CUT_SCALE = 6 / 255
"""Behind a ReLU6, so that the range does what the operator did."""


def sketch(model: ir.Model, target: Target = "x86-vnni") -> ir.Model:
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
        insert(twin, placement, made_up(placement, ACTIVATION[target], target))
        at_run_time &= {str(node.name) for node in graph if node.op_type == "LSTM"}
    if at_run_time:
        dynamic.convert(twin, frozenset(at_run_time), WEIGHT_LIMIT[target])
    return twin


def made_up(placement: Placement, dtype: str, target: str) -> QuantPlan:
    """Scales that fit any numbers: behind a ReLU, zero is the lowest integer; elsewhere it lies in the middle."""
    lowest = int(np.iinfo(dtype).min)
    cut = {value.name for node in placement.fused.values() for value in node.outputs}
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
