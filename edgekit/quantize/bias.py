"""Bias correction: rounding shifts the mean of each output channel, and the bias can take the shift back.

M. Nagel et al., *Data-Free Quantization Through Weight Equalization and Bias Correction*, 2019, section 4.2; here with
measured means instead of those that BatchNorm suggests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from edgekit.progress import Progress, Step
from edgekit.quantize.calibration import channel_means
from edgekit.quantize.layout import wired
from edgekit.quantize.placement import Placement
from edgekit.quantize.plan import QuantPlan
from edgekit.quantize.qdq import insert
from edgekit.spec import Feeds

Shifts = dict[str, tuple[float, ...]]

TURNS = 8
"""Runs of the quantized network: with more layers than that, neighbours are corrected in one run."""


def bias_shifts(
    model: ir.Model, placement: Placement, plan: QuantPlan, batches: Sequence[Feeds], progress: Progress
) -> Shifts:
    """What to add to the bias of each int8 Conv and Gemm, one number per output channel.

    From the input on, a few layers at a time, the mean output of the quantized network is measured with all shifts so
    far and compared with that of the fp32 network, so that what earlier layers do to a layer's input is corrected too.
    """
    layers = [n for n in model.graph if n.name in placement.nodes and n.op_type in ("Conv", "Gemm")]
    plan = replace(plan, nodes=tuple(placement.nodes))
    wanted = channel_means(model, [str(layer.outputs[0].name) for layer in layers], batches) if layers else {}
    shifts: Shifts = {}
    turn = math.ceil(len(layers) / TURNS)
    for start in range(0, len(layers), turn or 1):
        together = layers[start : start + turn]
        twin = model.clone()
        insert(twin, wired(twin.graph, plan.nodes, plan.target), replace(plan, bias_shift=shifts))
        made = {value.name for node in twin.graph for value in node.outputs}
        # Where the fp32 value is an output of the graph, its quantized twin has taken over the name.
        values = [str(layer.outputs[0].name) for layer in together]
        inner = [f"{value}_exact" if f"{value}_exact" in made else value for value in values]
        have = channel_means(twin, inner, batches)
        for layer, value, exact in zip(together, values, inner, strict=True):
            shifts[str(layer.name)] = tuple((wanted[value] - have[exact]).tolist())
        progress(Step("correcting biases", min(start + turn, len(layers)), len(layers)))
    return shifts
