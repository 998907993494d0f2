"""Weights as 8-bit integers: one scale for each output channel, by the largest weight or by the least error."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import constant
from edgekit.quantize.plan import QuantPlan

LEAST_SHARE, STEPS = 0.5, 51
"""Scales are searched between half of what the largest weight asks for and all of it."""


def output_axis(node: ir.Node) -> int:
    """The axis of a node's weight that counts its outputs."""
    if node.op_type == "Conv":
        return 0
    transposed = "transB" in node.attributes and bool(node.attributes["transB"].as_int())
    return 0 if node.op_type == "Gemm" and transposed else 1


def weight_scales(weight: np.ndarray, axis: int, limit: int) -> np.ndarray:
    """Symmetric scales for each channel along `axis`: the largest magnitude becomes `limit`.

    >>> weight_scales(np.array([[1.27, -0.5], [0.0, 0.0]]), 0, 127).round(4).tolist()
    [0.01, 1.0]
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scales = np.abs(weight).max(axis=others).astype(np.float64) / limit
    # What a file could not hold as a float32 scale is as good as zero.
    return np.where(scales >= np.finfo(np.float32).tiny, scales, 1.0)


def quantized_weight(weight: np.ndarray, scales: np.ndarray, axis: int, limit: int) -> np.ndarray:
    """`weight` as int8 on `scales` along `axis`."""
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    integers: np.ndarray = np.clip(np.round(weight / scales.reshape(shape)), -limit, limit).astype(np.int8)
    return integers


def mse_scales(weight: np.ndarray, axis: int, limit: int) -> np.ndarray:
    """Symmetric scales, float64 [channels along `axis`], with the least squared error of rounding and clipping.

    Searched for each channel alone, over shares of its largest magnitude (M. Nagel et al., *A White Paper on Neural
    Network Quantization*, 2021, section 3.1, by grid).

    >>> mse_scales(np.array([[1.27, -0.5], [0.0, 0.0]]), 0, 127).round(4).tolist()
    [0.01, 1.0]
    """
    rows = np.moveaxis(np.asarray(weight, np.float64), axis, 0).reshape(weight.shape[axis], -1)
    largest = weight_scales(rows, 0, limit)
    best, least = largest.copy(), np.full(len(rows), np.inf)
    for share in np.linspace(1.0, LEAST_SHARE, STEPS).tolist():
        scales = largest * share
        integers = np.clip(np.round(rows / scales[:, None]), -limit, limit)
        error = ((integers * scales[:, None] - rows) ** 2).sum(axis=1)
        better = error < least * (1 - 1e-9)
        best[better], least[better] = scales[better], error[better]
    return best


def scales_of(node: ir.Node, plan: QuantPlan) -> np.ndarray:
    """The scales of a node's weight under a plan: those that it names, else those of the largest magnitudes."""
    weight = constant(node.inputs[1])
    assert weight is not None
    named = plan.weight_scales.get(str(node.name))
    return weight_scales(weight, output_axis(node), plan.weight_limit) if named is None else np.asarray(named)


def rounded(node: ir.Node, plan: QuantPlan) -> tuple[np.ndarray, np.ndarray]:
    """A node's weight as int8 under a plan, and its scales."""
    weight, scales = constant(node.inputs[1]), scales_of(node, plan)
    assert weight is not None
    return quantized_weight(weight, scales, output_axis(node), plan.weight_limit), scales
