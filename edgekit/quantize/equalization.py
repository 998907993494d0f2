"""Equalization: a channel's range is scaled down in one layer and up again in the next, so that all are alike.

M. Nagel et al., *Data-Free Quantization Through Weight Equalization and Bias Correction*, 2019, section 4.1. An output
channel's weights have a scale of their own here, so that what counts is the range of the activation, which has one
scale for all channels, against the input channels of the weights that read it; hence the factors of G. Xiao et al.,
*SmoothQuant*, 2023, section 4 (with alpha = 1/2), which also reach through LayerNormalization.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit.errors import QuantizeError
from edgekit.quantize.calibration import channel_limits
from edgekit.quantize.graph import constant, initializer, only_user
from edgekit.quantize.weights import output_axis
from edgekit.spec import Feeds

Factors = Mapping[str, tuple[float, ...]]

PASSES_SCALE = frozenset({"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool"})
"""Operators that treat channels alike and commute with positive factors. Clip does not: its limits are not scaled."""
LARGEST = 64.0
"""Factors stay between 1/64 and 64: a channel that is zero on all calibration data need not be so on others."""


@dataclass(frozen=True, slots=True)
class Site:
    """A value whose channels may be scaled.

    Args:
        value: its name.
        scaled: weights, biases and the like that are divided by the factors: node, input and axis.
        readers: weights that are multiplied with them: node and axis; a depthwise convolution's axis is 0.
        channels: how many.
        axis: of the value's channels: 1, or -1 behind matrix products.
    """

    value: str
    scaled: tuple[tuple[str, int, int], ...]
    readers: tuple[tuple[str, int], ...]
    channels: int
    axis: int


def sites(graph: ir.Graph) -> list[Site]:
    """Every value of a graph whose channels may be scaled, in the graph's order."""
    found = []
    for node in graph:
        for value in node.outputs[:1]:
            site = _site(value)
            if site is not None:
                found.append(site)
    return found


def choose_factors(model: ir.Model, nodes: Iterable[str], batches: Iterable[Feeds]) -> dict[str, tuple[float, ...]]:
    """The factors for each site all of whose readers are among the int8 `nodes`.

    Args:
        model: the fp32 graph after the rewrites.
        nodes: names of int8 nodes.
        batches: calibration data.
    """
    chosen, by_name = set(nodes), {str(node.name): node for node in model.graph}
    usable = [site for site in sites(model.graph) if all(name in chosen for name, _ in site.readers)]
    if not usable:
        return {}
    limits = channel_limits(model, {site.value: site.axis for site in usable}, batches)
    return {site.value: _factors(site, limits[site.value], by_name) for site in usable}


def equalize(graph: ir.Graph, factors: Factors) -> None:
    """Scale in place; the graph's outputs stay as they are.

    Raises:
        QuantizeError: a value of `factors` cannot be scaled in this graph.
    """
    found = {site.value: site for site in sites(graph)} if factors else {}
    by_name = {str(node.name): node for node in graph}
    odd = [value for value in factors if value not in found or found[value].channels != len(factors[value])]
    if odd:
        raise QuantizeError(
            f"channels of {', '.join(odd[:5])} cannot be scaled",
            where="equalize",
            rule="the graph that was planned for",
        )
    for value, numbers in factors.items():
        site, factor = found[value], np.asarray(numbers)
        for name, index, axis in site.scaled:
            _multiply(graph, by_name[name], index, axis, 1 / factor)
        for name, axis in site.readers:
            _multiply(graph, by_name[name], 1, axis, factor)


def _factors(site: Site, limits: np.ndarray, by_name: Mapping[str, ir.Node]) -> tuple[float, ...]:
    dense = np.zeros(site.channels)
    for name, axis in site.readers:
        weight = constant(by_name[name].inputs[1])
        assert weight is not None
        if not _is_depthwise(by_name[name]):  # Whose weights have a scale for each channel in any case.
            others = tuple(index for index in range(weight.ndim) if index != axis % weight.ndim)
            dense = np.maximum(dense, np.abs(weight).max(axis=others))
    known = (limits > 0) & ((dense > 0) | (not dense.any()))
    if not known.any():
        return (1.0,) * site.channels
    factor = np.ones(site.channels)
    factor[known] = np.sqrt(limits[known] / dense[known]) if dense.any() else limits[known]
    factor[known] /= np.exp(np.log(factor[known]).mean())
    return tuple(np.clip(factor, 1 / LARGEST, LARGEST).tolist())


def _site(value: ir.Value) -> Site | None:
    readers = []
    if value.is_graph_output() or not value.uses():
        return None
    axes = set()
    for use in value.uses():
        axis = _reading_axis(use.node) if use.idx == 0 else None
        if axis is None:
            return None
        readers.append((str(use.node.name), axis))
        axes.add(1 if use.node.op_type == "Conv" else -1)
    source = value.producer()
    while source is not None and source.op_type in PASSES_SCALE and source.inputs[0] is not None:
        if not only_user(source.inputs[0]):
            return None
        source = source.inputs[0].producer()
    scaled = None if source is None or len(axes) != 1 else _scaled(source)
    if scaled is None or source is None:
        return None
    axis, channels, parts = scaled
    behind = source.outputs[0]
    if axis not in axes or (behind is not value and not only_user(behind)):
        return None
    return Site(value=str(value.name), scaled=parts, readers=tuple(readers), channels=channels, axis=axis)


def _reading_axis(node: ir.Node) -> int | None:
    """The axis of a node's weight that counts its inputs, or None if it cannot take factors."""
    weight = constant(node.inputs[1]) if node.op_type in ("Conv", "Gemm", "MatMul") else None
    if weight is None:
        return None
    if node.op_type == "Conv":
        groups = _integer(node, "group", 1)
        return 1 if groups == 1 else 0 if groups == len(weight) and _is_depthwise(node) else None
    if node.op_type == "MatMul":
        return 0 if weight.ndim == 2 else None
    if _integer(node, "transA", 0) or ("alpha" in node.attributes and node.attributes["alpha"].as_float() != 1.0):
        return None
    return 1 if _integer(node, "transB", 0) else 0


def _scaled(node: ir.Node) -> tuple[int, int, tuple[tuple[str, int, int], ...]] | None:
    """Channel axis and number of channels of what a node makes, and its constants that factors divide."""
    name = str(node.name)
    if node.op_type == "Add":
        return _scaled_sum(node)
    weight = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    axis = None if weight is None else _making_axis(node, weight)
    biased = len(node.inputs) > 2 and node.inputs[2] is not None
    if weight is None or axis is None or (biased and constant(node.inputs[2]) is None):
        return None
    parts = ((name, 1, axis), *(((name, 2, -1),) if biased else ()))
    return 1 if node.op_type == "Conv" else -1, weight.shape[axis], parts


def _making_axis(node: ir.Node, weight: np.ndarray) -> int | None:
    """The axis of a node's weight that counts its outputs, or None if it cannot be divided."""
    if node.op_type == "LayerNormalization":
        return -1 if _integer(node, "axis", -1) == -1 and weight.ndim == 1 else None
    plain = all(node.attributes[key].as_float() == 1.0 for key in ("alpha", "beta") if key in node.attributes)
    known = node.op_type in ("Conv", "Gemm") or (node.op_type == "MatMul" and weight.ndim == 2)
    return output_axis(node) if known and plain else None


def _scaled_sum(node: ir.Node) -> tuple[int, int, tuple[tuple[str, int, int], ...]] | None:
    """The bias of a matrix product as an addition of its own."""
    for index in (0, 1):
        bias, other = constant(node.inputs[index]), node.inputs[1 - index]
        product = other.producer() if other is not None else None
        if bias is None or product is None or product.op_type != "MatMul" or other is None or not only_user(other):
            continue
        inner = _scaled(product)
        if inner is not None and bias.shape == (inner[1],):
            return inner[0], inner[1], (*inner[2], (str(node.name), index, -1))
    return None


def _is_depthwise(node: ir.Node) -> bool:
    weight = constant(node.inputs[1])
    return node.op_type == "Conv" and weight is not None and weight.shape[1] == 1 and _integer(node, "group", 1) > 1


def _integer(node: ir.Node, name: str, otherwise: int) -> int:
    return int(node.attributes[name].as_int()) if name in node.attributes else otherwise


def _multiply(graph: ir.Graph, node: ir.Node, index: int, axis: int, factor: np.ndarray) -> None:
    value = node.inputs[index]
    array = constant(value)
    assert array is not None
    assert value is not None
    shape = [1] * array.ndim
    shape[axis] = -1
    scaled = (array.astype(np.float64) * factor.reshape(shape)).astype(array.dtype)
    node.replace_input_with(index, initializer(graph, f"{value.name}.equalized", scaled))
