"""Factors and offsets of channels as part of the layer before: as operators of their own they are rounded once more."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import bypass, constant, initializer, only_user
from edgekit.quantize.rewrites.layers import BIASED, layer_before, outputs, rescale


def fold_factors(graph: ir.Graph) -> int:
    """Fold what is added to, and multiplied with, each channel of a layer's output into its weights and bias.

    A MatMul has no bias: there, a factor goes past the bias that is added to it, as in ConvNeXt's layer scale (Z. Liu
    et al., *A ConvNet for the 2020s*, 2022, section 2.6).
    """
    return sum(_fold(graph, node) for node in list(graph) if node.op_type in _EFFECTS)


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    value, numbers, turned = _split(node)
    if value is None or numbers is None or value.dtype != ir.DataType.FLOAT or value.shape is None:
        return False
    add = value.producer()
    if add is None or add.op_type != "Add" or not only_user(value):
        add = None
    layer = layer_before(value if add is None else _split(add)[0])
    vector = None if layer is None else _by_channel(numbers, layer, len(value.shape))
    effect = None if vector is None else _EFFECTS[node.op_type](vector, turned)
    if layer is None or effect is None:
        return False
    factor, offset = effect
    if offset.any() and layer.op_type not in BIASED:
        return False
    if add is not None and (layer.op_type != "MatMul" or not _scale_bias(graph, add, layer, factor)):
        return False
    rescale(graph, layer, factor, offset if offset.any() else None)
    return bypass(graph, node, value)


def _split(node: ir.Node) -> tuple[ir.Value | None, np.ndarray | None, bool]:
    """The input that is computed, the constant one, and whether that comes first."""
    if len(node.inputs) != 2:
        return None, None, False
    first, second = node.inputs
    if constant(first) is not None:
        return second, constant(first), True
    return first, constant(second), False


def _by_channel(numbers: np.ndarray, layer: ir.Node, rank: int) -> np.ndarray | None:
    """Constants as one number for all, or one for each channel that a layer makes; None if they differ otherwise."""
    weight = constant(layer.inputs[1])
    assert weight is not None
    axis = 1 if layer.op_type in ("Conv", "ConvTranspose") else rank - 1
    if numbers.ndim > rank:
        return None
    shape = (1,) * (rank - numbers.ndim) + numbers.shape
    if numbers.size not in (1, outputs(layer, weight)) or shape[axis] != numbers.size:
        return None
    return np.asarray(numbers.ravel(), np.float64)


def _scale_bias(graph: ir.Graph, add: ir.Node, layer: ir.Node, factor: np.ndarray) -> bool:
    value, bias, turned = _split(add)
    if value is None or value.shape is None or bias is None or _by_channel(bias, layer, len(value.shape)) is None:
        return False
    place = 0 if turned else 1
    stem = add.inputs[place]
    assert stem is not None
    scaled = np.asarray(bias * factor, bias.dtype)
    add.replace_input_with(place, initializer(graph, f"{stem.name}.folded", scaled))
    return True


_EFFECTS: Mapping[str, Callable[[np.ndarray, bool], tuple[np.ndarray, np.ndarray] | None]] = {
    "Add": lambda c, _: (np.ones_like(c), c),
    "Sub": lambda c, turned: (-np.ones_like(c), c) if turned else (np.ones_like(c), -c),
    "Mul": lambda c, _: (c, np.zeros_like(c)),
    "Div": lambda c, turned: None if turned or not c.all() else (1 / c, np.zeros_like(c)),
}
"""By operator: the factor and the offset that a constant stands for, with whether it comes first."""
