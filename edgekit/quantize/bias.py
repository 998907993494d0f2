"""Bias correction: rounding shifts the mean of each output channel, and the bias can take the shift back.

M. Nagel et al., *Data-Free Quantization Through Weight Equalization and Bias Correction*, 2019, section 4.2; here with
measured means instead of those that BatchNorm suggests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgekit.progress import Progress, Step
from edgekit.quantize.calibration import channel_means, samples_in
from edgekit.quantize.graph import constant, initializer
from edgekit.quantize.layout import wired
from edgekit.quantize.macs import macs
from edgekit.quantize.placement import Placement
from edgekit.quantize.plan import QuantPlan
from edgekit.quantize.qdq import insert
from edgekit.quantize.weights import output_axis, rounded
from edgekit.spec import Feeds

Shifts = dict[str, tuple[float, ...]]

SEQUENTIAL_MACS = 1e12
"""Multiply-accumulates that the sequential correction may spend: some ten seconds of one core."""


def bias_shifts(
    model: ir.Model, placement: Placement, plan: QuantPlan, batches: Sequence[Feeds], progress: Progress
) -> Shifts:
    """What to add to the bias of each int8 Conv and Gemm, one number per output channel.

    Layer by layer from the input on, the mean output of the quantized network is measured with all shifts so far and
    compared with that of the fp32 network, so that what earlier layers do to a layer's input is corrected too. Where
    this would take too long (it runs the network once per layer), each layer is corrected for the rounding of its own
    weights alone, on fp32 inputs, all in one run.
    """
    layers = [n for n in model.graph if n.name in placement.nodes and n.op_type in ("Conv", "Gemm")]
    if not layers:
        return {}
    samples = sum(map(samples_in, batches))
    if len(layers) / 2 * samples * sum(map(macs, layers)) > SEQUENTIAL_MACS:
        return _of_weights(model, layers, plan, batches)
    return _sequential(model, replace(plan, nodes=tuple(placement.nodes)), layers, batches, progress)


def _sequential(
    model: ir.Model, plan: QuantPlan, layers: list[ir.Node], batches: Sequence[Feeds], progress: Progress
) -> Shifts:
    wanted = channel_means(model, [str(layer.outputs[0].name) for layer in layers], batches)
    shifts: Shifts = {}
    for index, layer in enumerate(layers):
        value = str(layer.outputs[0].name)
        twin = model.clone()
        insert(twin, wired(twin.graph, plan.nodes, plan.target), replace(plan, bias_shift=shifts))
        # Where the fp32 value is an output of the graph, its quantized twin has taken over the name.
        inner = f"{value}_exact" if any(v.name == f"{value}_exact" for n in twin.graph for v in n.outputs) else value
        have = channel_means(twin, [inner], batches)[inner]
        shifts[str(layer.name)] = tuple((wanted[value] - have).tolist())
        progress(Step("correcting biases", index + 1, len(layers)))
    return shifts


def _of_weights(model: ir.Model, layers: list[ir.Node], plan: QuantPlan, batches: Sequence[Feeds]) -> Shifts:
    """Give every layer a twin whose weights are the errors of rounding: its mean output is the shift."""
    copy = model.clone()
    graph, names = copy.graph, {str(layer.name) for layer in layers}
    errors: dict[str, str] = {}
    for layer in [node for node in graph if node.name in names]:
        weight = constant(layer.inputs[1])
        assert weight is not None
        axis = output_axis(layer)
        integers, scales = rounded(layer, plan)
        kept = integers * scales.reshape([-1 if index == axis else 1 for index in range(weight.ndim)])
        error = initializer(graph, f"{layer.name}.error", (weight - kept).astype(np.float32))
        twin = ir.node(layer.op_type, [layer.inputs[0], error], dict(layer.attributes), name=f"{layer.name}_error")
        twin.outputs[0].name, twin.outputs[0].shape = f"{layer.name}_error", layer.outputs[0].shape
        twin.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        graph.insert_after(layer, twin)
        errors[str(layer.name)] = str(twin.outputs[0].name)
    means = channel_means(copy, list(errors.values()), batches)
    return {name: tuple(means[value].tolist()) for name, value in errors.items()}
