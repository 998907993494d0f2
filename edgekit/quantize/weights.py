"""Weights as 8-bit integers: one scale for each output channel, by the largest weight or by the least error."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import constant
from edgekit.quantize.placement import COMPUTE
from edgekit.quantize.plan import QuantPlan
from edgekit.quantize.targets import PAIR_LIMIT, CpuTarget

_PRODUCTS = frozenset({"DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "QLinearMatMul"})
"""Operators with weights [.., inputs, outputs] in integers."""
_CONVOLUTIONS = frozenset({"ConvInteger", "QLinearConv"})
_INTEGER = _PRODUCTS | _CONVOLUTIONS | {"QuantizeLinear", "DynamicQuantizeLinear"}
"""Operators that go with integer arithmetic: files with weights alone in integers have none of them."""
SMALLEST_PAIR = min(PAIR_LIMIT.values())

LEAST_SHARE, STEPS = 0.5, 51
"""Scales are searched between half of what the largest weight asks for and all of it."""


def output_axis(node: ir.Node) -> int:
    """The axis of a node's weight that counts its outputs."""
    if node.op_type == "Conv":
        return 0
    transposed = "transB" in node.attributes and bool(node.attributes["transB"].as_int())
    return 0 if node.op_type == "Gemm" and transposed else 1


def pair_limit(node: ir.Node, target: str) -> int | None:
    """Largest absolute sum of two neighbours in a node's weight (`without_overflow`); None where nothing overflows.

    Depthwise convolutions have kernels of their own, which add in 32 bits.
    """
    weight = constant(node.inputs[1])
    assert weight is not None
    return PAIR_LIMIT.get(target) if _is_added_in_pairs(node, weight) else None


def _is_added_in_pairs(node: ir.Node, weight: np.ndarray) -> bool:
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    return not (node.op_type == "Conv" and groups == len(weight) > 1 == weight.shape[1])


def without_overflow(integers: np.ndarray, axis: int, pair: int | None) -> np.ndarray:
    """`integers` with pairs of one sign moved towards zero until none of them exceeds `pair` together.

    Pairs are those whose products ONNX Runtime's kernels add in 16 bits where there is no VNNI: of the numbers that
    make one output, channels last, the first and the second, the third and the fourth, and so on (seen on Zen 3 in
    ONNX Runtime 1.32, for convolutions with and without groups and for matrix products).

    Args:
        integers: [outputs, inputs, ...] of a convolution, or of a product in two dimensions.
        axis: which counts the outputs.
        pair: None changes nothing.

    >>> without_overflow(np.array([[100, 90, 100, -90]]), 0, 128).tolist()
    [[69, 59, 100, -90]]
    """
    if pair is None:
        return integers
    rows = _as_multiplied(integers, axis)
    pairs = _in_pairs(rows).astype(np.int64)
    excess = np.where(pairs.prod(axis=2) > 0, np.abs(pairs.sum(axis=2)) - pair, 0).clip(0)
    pairs -= np.sign(pairs) * np.stack([excess - excess // 2, excess // 2], axis=2)
    count = rows[0].size
    kept = pairs.reshape(len(rows), -1)[:, :count].astype(integers.dtype).reshape(rows.shape)
    return np.moveaxis(np.moveaxis(kept, -1, 1), 0, axis)


def _as_multiplied(weight: np.ndarray, axis: int) -> np.ndarray:
    """[outputs, ..., inputs], as kernels go through a weight."""
    return np.moveaxis(np.moveaxis(weight, axis, 0), 1, -1)


def _in_pairs(rows: np.ndarray) -> np.ndarray:
    """[outputs, pairs, 2] of what `_as_multiplied` gives, with a zero beside a last one that is alone."""
    ordered = rows.reshape(len(rows), -1)
    return np.pad(ordered, ((0, 0), (0, ordered.shape[1] % 2))).reshape(len(rows), -1, 2)


def weight_scales(weight: np.ndarray, axis: int, limit: int, pair: int | None = None) -> np.ndarray:
    """Symmetric scales for each channel along `axis`: the largest magnitude becomes `limit`.

    With `pair`, no two neighbours exceed that together (see `without_overflow`).

    >>> weight_scales(np.array([[1.27, -0.5], [0.0, 0.0]]), 0, 127).round(4).tolist()
    [0.01, 1.0]
    >>> weight_scales(np.array([[1.28, 1.28]]), 0, 127, 128).round(4).tolist()
    [0.02]
    """
    return _or_one(_least_scales(weight, axis, limit, pair))


def one_scale(weight: np.ndarray, limit: int, pair: int | None = None) -> float:
    """The symmetric scale for all columns of a product's weight [inputs, outputs], as `weight_scales` has one for each.

    >>> one_scale(np.array([[0.0, 1.27], [0.0, -0.5]]), 127)
    0.01
    """
    return float(_or_one(_least_scales(weight, 1, limit, pair).max(initial=0.0)))


def _least_scales(weight: np.ndarray, axis: int, limit: int, pair: int | None) -> np.ndarray:
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scales: np.ndarray = np.abs(weight).max(axis=others).astype(np.float64) / limit
    if pair is not None:
        sums = _in_pairs(_as_multiplied(weight, axis).astype(np.float64)).sum(axis=2)
        scales = np.maximum(scales, np.abs(sums).max(axis=1) / pair)
    return scales


def _or_one(scales: np.ndarray) -> np.ndarray:
    """What a file could not hold as a float32 scale is as good as zero, and any scale does."""
    return np.where(scales >= np.finfo(np.float32).tiny, scales, 1.0)


def quantized_weight(
    weight: np.ndarray, scales: np.ndarray, axis: int, limit: int, pair: int | None = None
) -> np.ndarray:
    """`weight` as int8 on `scales` along `axis`, no two neighbours above `pair` together (`without_overflow`)."""
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    integers: np.ndarray = np.clip(np.round(weight / scales.reshape(shape)), -limit, limit).astype(np.int8)
    return without_overflow(integers, axis, pair)


def mse_scales(weight: np.ndarray, axis: int, limit: int, pair: int | None = None) -> np.ndarray:
    """Symmetric scales, float64 [channels along `axis`], with the least squared error of rounding and clipping.

    Searched for each channel alone, over shares of its largest magnitude (M. Nagel et al., *A White Paper on Neural
    Network Quantization*, 2021, section 3.1, by grid). With `pair` the error is that of `without_overflow`, too.

    >>> mse_scales(np.array([[1.27, -0.5], [0.0, 0.0]]), 0, 127).round(4).tolist()
    [0.01, 1.0]
    """
    turned = _as_multiplied(np.asarray(weight, np.float64), axis)
    rows = turned.reshape(len(turned), -1)
    largest = weight_scales(rows, 0, limit)
    most = 1.0 if pair is None else 2 * limit / pair  # Two of the largest side by side ask for that much.
    best, least = largest.copy(), np.full(len(rows), np.inf)
    for share in np.linspace(most, LEAST_SHARE, round(STEPS * most)).tolist():
        scales = largest * share
        integers = without_overflow(np.clip(np.round(rows / scales[:, None]), -limit, limit), 0, pair)
        error = ((integers * scales[:, None] - rows) ** 2).sum(axis=1)
        better = error < least * (1 - 1e-9)
        best[better], least[better] = scales[better], error[better]
    return best


def scales_of(node: ir.Node, plan: QuantPlan) -> np.ndarray:
    """The scales of a node's weight under a plan: those that it names, else those of the largest magnitudes."""
    weight = constant(node.inputs[1])
    assert weight is not None
    named = plan.weight_scales.get(str(node.name))
    if named is not None:
        return np.asarray(named)
    return weight_scales(weight, output_axis(node), plan.weight_limit, pair_limit(node, plan.target))


def rounded(node: ir.Node, plan: QuantPlan) -> tuple[np.ndarray, np.ndarray]:
    """A node's weight as int8 under a plan, and its scales."""
    weight, scales = constant(node.inputs[1]), scales_of(node, plan)
    assert weight is not None
    axis, pair = output_axis(node), pair_limit(node, plan.target)
    return quantized_weight(weight, scales, axis, plan.weight_limit, pair), scales


def target_of(graph: ir.Graph) -> CpuTarget | Literal["any"]:
    """The kind of CPU that an int8 file is for, by its integers; `any` where it is right on all of them.

    8-bit weights beside unsigned activations overflow sums where there is no VNNI, unless no two neighbours are large;
    signed activations are ARM's. Weights alone (they are turned into floats again) are right everywhere.
    """
    if not any(node.op_type in _INTEGER for node in graph) or not any(map(_overflows, graph)):
        return "any"
    kinds = [node.inputs[2] for node in graph if node.op_type == "QuantizeLinear" and len(node.inputs) > 2]
    signed = [kind is not None and kind.dtype == ir.DataType.INT8 for kind in kinds]
    return "arm64" if 2 * sum(signed) > len(signed) else "x86-vnni"


def _overflows(node: ir.Node) -> bool:
    """Whether weights that a node reads may overflow sums of 16 bits."""
    if node.op_type in _PRODUCTS | _CONVOLUTIONS:
        weights = [each for each in map(constant, node.inputs) if each is not None and each.ndim > 1]
        stored = [each for each in weights if each.dtype == np.int8 and each.size]
        if node.op_type in _CONVOLUTIONS:
            return any(_is_too_large(each, 0) for each in stored)
        return any(_is_too_large(columns, 1) for each in stored for columns in each.reshape(-1, *each.shape[-2:]))
    if node.op_type not in COMPUTE:
        return False
    turned = node.inputs[1].producer() if node.inputs[1] is not None else None
    integers = constant(turned.inputs[0]) if turned is not None and turned.op_type == "DequantizeLinear" else None
    if integers is None or integers.dtype != np.int8 or not _is_added_in_pairs(node, integers):
        return False
    return _is_too_large(integers, output_axis(node))


def _is_too_large(integers: np.ndarray, axis: int) -> bool:
    return bool((without_overflow(integers, axis, SMALLEST_PAIR) != integers).any())
