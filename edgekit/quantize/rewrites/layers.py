"""Scaling and shifting the outputs of a layer by its weights and bias."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import constant, initializer, only_user

BIASED = ("Conv", "ConvTranspose", "Gemm")
"""Layers that have a bias of their own."""


def layer_before(value: ir.Value | None) -> ir.Node | None:
    """The Conv, ConvTranspose, Gemm or MatMul that makes a value for one reader, if its weights can take up factors."""
    layer = None if value is None else value.producer()
    if value is None or layer is None or layer.op_type not in (*BIASED, "MatMul") or not only_user(value):
        return None
    # Where Gemm has factors of its own, scaling the weight does not scale the output.
    scaled = any(layer.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta"))
    biased = len(layer.inputs) > 2 and layer.inputs[2] is not None
    bias = constant(layer.inputs[2]) if biased else np.zeros(1)
    # Gemm's may differ between rows, too.
    if scaled or constant(layer.inputs[1]) is None or bias is None or (bias.ndim > 1 and len(bias) > 1):
        return None
    return layer


def rescale(graph: ir.Graph, layer: ir.Node, factor: np.ndarray, offset: np.ndarray | None = None) -> None:
    """Let a layer give factor * y + offset in place of y.

    Args:
        graph: its graph.
        layer: what `layer_before` found; a MatMul takes no offset.
        factor: one number, or one for each output channel.
        offset: likewise.
    """
    weight, before = constant(layer.inputs[1]), layer.inputs[1]
    assert weight is not None
    assert before is not None
    stem = before.name
    layer.replace_input_with(1, initializer(graph, f"{stem}.folded", _scaled(layer, weight, factor)))
    if offset is None and (len(layer.inputs) < 3 or layer.inputs[2] is None):
        return
    assert layer.op_type in BIASED
    old = constant(layer.inputs[2]) if len(layer.inputs) > 2 and layer.inputs[2] is not None else np.zeros(1)
    assert old is not None
    bias = np.broadcast_to(old.ravel() * factor + (0.0 if offset is None else offset), (outputs(layer, weight),))
    layer.resize_inputs(3)
    layer.replace_input_with(2, initializer(graph, f"{stem}.folded_bias", bias.astype(weight.dtype)))


def outputs(layer: ir.Node, weight: np.ndarray) -> int:
    """How many channels a layer makes."""
    if layer.op_type == "ConvTranspose":
        return int(weight.shape[1]) * layer.attributes.get_int("group", 1)
    if layer.op_type == "Conv" or _is_turned(layer):
        return int(weight.shape[0])
    return int(weight.shape[-1])


def _is_turned(layer: ir.Node) -> bool:
    """Whether a Gemm's weight is [outputs, inputs]."""
    return layer.op_type == "Gemm" and bool(layer.attributes.get_int("transB"))


def _scaled(layer: ir.Node, weight: np.ndarray, factor: np.ndarray) -> np.ndarray:
    channels = np.broadcast_to(np.asarray(factor, np.float64), (outputs(layer, weight),))
    if layer.op_type == "ConvTranspose":  # [inputs, outputs / groups, ...], the groups one after the other
        parts = weight.reshape(layer.attributes.get_int("group", 1), -1, *weight.shape[1:])
        per_group = channels.reshape(len(parts), 1, -1, *[1] * (weight.ndim - 2))
        scaled = (parts * per_group).reshape(weight.shape)
    elif layer.op_type == "Conv" or _is_turned(layer):
        scaled = weight * channels.reshape(-1, *[1] * (weight.ndim - 1))
    else:
        scaled = weight * channels
    return np.asarray(scaled, weight.dtype)
