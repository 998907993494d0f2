"""The sizes of every value of a graph, also behind ONNX Runtime's own operators, which onnx knows nothing of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from edgekit.profiling.network import constants_of, fix_inputs, forget_sizes, kinds_of, make_light

Shape = tuple[int, ...]
Kinds = Mapping[str, tuple[int, Shape]]
"""Element type and sizes by name, of those values whose sizes are known."""
Assumed = dict[str, tuple[int | str, ...]]
ROUNDS = 64
"""Most rounds of inference; each takes the sizes on through at least one more of ONNX Runtime's operators."""


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name; texts as str, graphs and tensors left out."""
    texts = onnx.AttributeProto.STRING
    plain = (texts, onnx.AttributeProto.INT, onnx.AttributeProto.INTS, onnx.AttributeProto.FLOAT)
    return {
        each.name: each.s.decode("utf-8", "replace") if each.type == texts else onnx.helper.get_attribute_value(each)
        for each in node.attribute
        if each.type in plain
    }


def sizes(
    model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], *, batch: int, where: str
) -> tuple[Kinds, Assumed]:
    """Sizes of the values for some sizes of the inputs.

    Args:
        model: is not changed.
        shapes: sizes of inputs by name; what is not given and open stays open, but for the batch.
        batch: of inputs whose first dimension is open.
        where: the file, for messages.

    Returns:
        What is known of the values; and the sizes that the inputs have, open ones by name.

    Raises:
        EdgekitError: there is no input of a name, or sizes do not fit.
    """
    light = onnx.ModelProto()
    light.CopyFrom(model)
    graph = light.graph
    constants = constants_of(graph)
    nodes = list(graph.node)
    make_light(graph, nodes, constants)
    fix_inputs(graph, shapes, constants, where, batch=batch, leave_open=True)
    assumed: Assumed = {
        value.name: tuple(dim.dim_value or dim.dim_param or "?" for dim in value.type.tensor_type.shape.dim)
        for value in graph.input
        if value.name not in constants
    }
    forget_sizes(graph)
    own = [node for node in nodes if node.domain == "com.microsoft" or node.op_type == "SimplifiedLayerNormalization"]
    kinds: Kinds = {}
    for _ in range(ROUNDS):
        try:
            kinds = kinds_of(light, constants)
        except Exception:  # noqa: BLE001 - onnx raises anything for a graph that is none; what is known, is known
            break
        told = [
            (node.output[0], kind) for node in own if node.output[0] not in kinds and (kind := _output(node, kinds))
        ]
        if not told:
            break
        graph.value_info.extend(
            onnx.helper.make_tensor_value_info(name, element, list(shape)) for name, (element, shape) in told
        )
    return kinds, assumed


_LIKE_INPUT = frozenset(
    {
        "BiasAdd",
        "BiasGelu",
        "BiasSoftmax",
        "FastGelu",
        "Gelu",
        "GroupQueryAttention",
        "QLinearLeakyRelu",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QuickGelu",
        "RotaryEmbedding",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)

_MAKE_FLOAT = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QAttention")


def _output(node: onnx.NodeProto, kinds: Kinds) -> tuple[int, Shape] | None:
    """Element type and sizes of what one of ONNX Runtime's own operators makes; None where they are not known."""
    found = [kinds.get(name) for name in node.input]
    if not found or found[0] is None:
        return None
    element, _ = found[0]
    rule = _SHAPES.get(node.op_type)
    try:
        shape = rule and rule([each and each[1] for each in found], attributes_of(node))
    except (TypeError, IndexError, KeyError, ValueError):  # a size is not known, or the file is at odds with itself
        return None
    return None if shape is None else (onnx.TensorProto.FLOAT if node.op_type in _MAKE_FLOAT else element, shape)


def _gemm(first: Shape, second: Shape, attributes: Mapping[str, Any]) -> Shape:
    return first[1 if attributes.get("transA") else 0], second[0 if attributes.get("transB") else 1]


def _matmul(first: Shape, second: Shape, attributes: Mapping[str, Any]) -> Shape | None:
    if attributes.get("transBatchA") or attributes.get("transBatchB"):
        return None
    rows, columns = first[-1 if attributes.get("transA") else -2], second[-2 if attributes.get("transB") else -1]
    return (*np.broadcast_shapes(first[:-2], second[:-2]), rows, columns)


def _projected(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Shape:
    widths = attributes.get("qkv_hidden_sizes")
    return (*inputs[0][:2], int(widths[2]) if widths else inputs[1][1] // 3)


def _pooled(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Shape | None:
    return None if attributes.get("channels_last") else (*inputs[0][:2], *(1 for _ in inputs[0][2:]))


def _attended(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Shape:
    query, heads = inputs[0], int(attributes["num_heads"])
    if len(query) == 5:
        return query[0], query[1], query[2] * query[4]
    if len(inputs[1]) == 5:
        return (*query[:2], heads * inputs[1][4])
    value = inputs[2]
    return (*query[:2], heads * value[3] if len(value) == 4 else value[2])


_SHAPES: Mapping[str, Callable[[Sequence[Any], Mapping[str, Any]], Shape | None]] = {
    **dict.fromkeys(_LIKE_INPUT, lambda inputs, _: inputs[0]),
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4"), lambda inputs, attributes: (*inputs[0][:-1], int(attributes["N"]))),
    **dict.fromkeys(_MAKE_FLOAT[:2], lambda inputs, _: (*inputs[0][:-1], inputs[1][-1])),
    "FusedGemm": lambda inputs, attributes: _gemm(inputs[0], inputs[1], attributes),
    "QGemm": lambda inputs, attributes: _gemm(inputs[0], inputs[3], attributes),
    "FusedMatMul": lambda inputs, attributes: _matmul(inputs[0], inputs[1], attributes),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), lambda inputs, _: np.broadcast_shapes(inputs[0], inputs[3])),
    "QLinearGlobalAveragePool": _pooled,
    "Attention": _projected,
    "QAttention": _projected,
    "MultiHeadAttention": _attended,
}
"""Sizes of the first output, from those of the inputs."""
