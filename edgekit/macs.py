"""How many multiply-accumulates an ONNX operator takes: the one definition that all counts of ONNX graphs share.

Counted are convolutions, matrix products, recurrent layers and attention, whatever the numbers' type. As in
`torch.utils.flop_counter`, element-wise work is not counted (activations, normalization, pooling, sums, interpolation,
quantization), and neither is the bias. A transposed convolution counts each number of its input against each weight of
its channel, also where the product falls outside of the cropped output. Masks of attention are counted as if nothing
were masked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

Shape = tuple[int, ...]
Shapes = Sequence[Shape | None]
"""Sizes of a node's inputs or outputs, in order; None for one that is left out or whose sizes are not known."""
Attributes = Mapping[str, Any]
"""A node's attributes by name, texts as str."""
Rule = Callable[[Shapes, Shapes, Attributes], int | None]


def macs(operator: str, inputs: Shapes, outputs: Shapes, attributes: Attributes | None = None) -> int | None:
    """Multiply-accumulates of one run of a node.

    Args:
        operator: its type, of ONNX or of ONNX Runtime's own domain (no name stands for two different ones).
        inputs: their sizes.
        outputs: their sizes.
        attributes: where they decide.

    Returns:
        The count, 0 for element-wise work; None where there is no rule for the operator (`is_known`), or a size that
        the rule needs is not known.

    >>> macs("Conv", [(1, 16, 32, 32), (32, 16, 3, 3)], [(1, 32, 32, 32)])
    4718592
    >>> macs("Relu", [(1, 16)], [(1, 16)]), macs("Loop", [], [])
    (0, None)
    """
    if operator in _ELEMENTWISE:
        return 0
    rule = _RULES.get(operator)
    try:
        return None if rule is None else rule(inputs, outputs, attributes or {})
    except (_UnknownSizeError, IndexError, KeyError, ValueError, ZeroDivisionError):  # a file may say anything
        return None


def is_known(operator: str) -> bool:
    """Whether there is a rule for an operator."""
    return operator in _ELEMENTWISE or operator in _RULES


def computes(operator: str) -> bool:
    """Whether an operator is one whose multiply-accumulates are counted."""
    return operator in _RULES


def weight_input(operator: str) -> int | None:
    """Which input of a counted operator holds the weights, where it has any; None for any other operator."""
    return _WEIGHTS.get(operator)


class _UnknownSizeError(Exception):
    """A rule needs a size that is not known."""


def _size(shapes: Shapes, index: int) -> Shape:
    shape = shapes[index] if index < len(shapes) else None
    if shape is None:
        raise _UnknownSizeError
    return shape


def _convolution(weight: int) -> Rule:
    def rule(inputs: Shapes, outputs: Shapes, attributes: Attributes) -> int:
        del attributes  # Groups, strides and dilation are in the sizes of weights and output.
        return prod(_size(outputs, 0)) * prod(_size(inputs, weight)[1:])

    return rule


def _transposed_convolution(inputs: Shapes, outputs: Shapes, attributes: Attributes) -> int:
    del outputs, attributes
    return prod(_size(inputs, 0)) * prod(_size(inputs, 1)[1:])


def _product(inputs: Shapes, outputs: Shapes, attributes: Attributes) -> int:
    """Each number of the output is a sum over the inner dimension, the last one of A."""
    if attributes.get("transBatchA"):
        raise _UnknownSizeError
    left = _size(inputs, 0)
    return prod(_size(outputs, 0)) * left[-2 if attributes.get("transA") and len(left) > 1 else -1]


def _nbits_product(inputs: Shapes, outputs: Shapes, attributes: Attributes) -> int:
    del outputs  # It follows from the attributes, and no inference of ONNX's own knows it.
    return prod(_size(inputs, 0)[:-1]) * int(attributes["K"]) * int(attributes["N"])


def _recurrent(inputs: Shapes, outputs: Shapes, attributes: Attributes) -> int:
    """Each step of each sample meets each weight once, those of the input and those of the hidden state."""
    del outputs, attributes
    steps, samples, _ = _size(inputs, 0)
    return steps * samples * (prod(_size(inputs, 1)) + prod(_size(inputs, 2)))


def _attention(inputs: Shapes, outputs: Shapes, attributes: Attributes) -> int:
    """Of ONNX (opset 23): queries times keys, and weights times values."""
    del outputs
    query, key, value = (_size(inputs, index) for index in range(3))
    if len(query) == 4:
        samples, heads, asks, width = query
        keys, value_width = key[2], value[3]
    else:
        samples, asks, all_width = query
        heads, key_heads = int(attributes["q_num_heads"]), int(attributes["kv_num_heads"])
        keys, width, value_width = key[1], all_width // heads, value[2] // key_heads
    if len(inputs) > 4 and inputs[4] is not None:
        keys += inputs[4][2]
    return samples * heads * asks * keys * (width + value_width)


def _attention_with_projection(inputs: Shapes, outputs: Shapes, attributes: Attributes) -> int:
    """Of ONNX Runtime: the projections to queries, keys and values, then attention."""
    del outputs
    (samples, steps, _), weights = _size(inputs, 0), _size(inputs, 1)
    widths = [int(width) for width in attributes.get("qkv_hidden_sizes", ())] or [weights[1] // 3] * 3
    past = inputs[4] if len(inputs) > 4 else None
    keys = steps + (0 if past is None else past[3])
    return samples * steps * prod(weights) + samples * steps * keys * (widths[0] + widths[2])


def _quantized_attention(inputs: Shapes, outputs: Shapes, attributes: Attributes) -> int:
    past = inputs[8] if len(inputs) > 8 else None
    return _attention_with_projection([*inputs[:4], past], outputs, attributes)


def _multi_head_attention(inputs: Shapes, outputs: Shapes, attributes: Attributes) -> int:
    """Of ONNX Runtime: attention alone; queries, keys and values may come packed in one."""
    del outputs
    query, heads = _size(inputs, 0), int(attributes["num_heads"])
    past = inputs[6] if len(inputs) > 6 else None
    before = 0 if past is None else past[2]
    if len(query) == 5:  # (B, T, heads, 3, width)
        samples, steps, _, _, width = query
        return samples * heads * steps * (steps + before) * 2 * width
    samples, asks, all_width = query
    key = _size(inputs, 1)
    if len(key) == 5:  # (B, S, heads, 2, width)
        return samples * asks * (key[1] + before) * (all_width + heads * key[4])
    value = _size(inputs, 2)
    if len(key) == 4:  # (B, heads, S, width)
        return samples * asks * (key[2] + before) * (all_width + heads * value[3])
    return samples * asks * (key[1] + before) * (all_width + value[2])


def _grouped_query_attention(inputs: Shapes, outputs: Shapes, attributes: Attributes) -> int:
    """Of ONNX Runtime: several heads of queries share one of keys. Without a cache; packed inputs have no rule."""
    del outputs
    (samples, asks, width), heads = _size(inputs, 0), int(attributes["num_heads"])
    keys, value = _size(inputs, 1)[1], _size(inputs, 2)
    past = inputs[3] if len(inputs) > 3 else None
    if past is not None:
        keys += past[2]
    return samples * asks * keys * (width + heads * value[2] // int(attributes["kv_num_heads"]))


def _einsum(inputs: Shapes, outputs: Shapes, attributes: Attributes) -> int:
    """Of two operands with a sum over a letter: each combination of letters is one product.

    Without such a letter it is an element-wise product; with one operand it moves or adds.
    """
    del outputs
    equation = str(attributes["equation"]).replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) == 1:
        return 0
    if len(terms) > 2 or "." in equation or any(len(set(term)) < len(term) for term in terms):
        raise _UnknownSizeError
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        for letter, size in zip(term, _size(inputs, index), strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    kept = set(right) if arrow else {letter for letter in sizes if left.count(letter) == 1}
    # A letter of one operand alone is summed before anything is multiplied.
    shared = set(terms[0]) & set(terms[1])
    summed_before = {letter for letter in sizes if letter not in kept and letter not in shared}
    return prod(size for letter, size in sizes.items() if letter not in summed_before) if shared - kept else 0


_RULES: Mapping[str, Rule] = {
    "Conv": _convolution(1),
    "FusedConv": _convolution(1),
    "NhwcFusedConv": _convolution(1),
    "NhwcConv": _convolution(1),
    "ConvInteger": _convolution(1),
    "DeformConv": _convolution(1),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed_convolution,
    "Gemm": _product,
    "FusedGemm": _product,
    "QGemm": _product,
    "MatMul": _product,
    "FusedMatMul": _product,
    "MatMulInteger": _product,
    "QLinearMatMul": _product,
    "DynamicQuantizeMatMul": _product,
    "MatMulIntegerToFloat": _product,
    "MatMulNBits": _nbits_product,
    "MatMulBnb4": _nbits_product,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "DynamicQuantizeLSTM": _recurrent,
    "Attention": lambda inputs, outputs, attributes: (
        # ONNX's own takes queries, keys and values; ONNX Runtime's takes weights, of rank 2.
        _attention_with_projection(inputs, outputs, attributes)
        if len(_size(inputs, 1)) == 2
        else _attention(inputs, outputs, attributes)
    ),
    "QAttention": _quantized_attention,
    "MultiHeadAttention": _multi_head_attention,
    "GroupQueryAttention": _grouped_query_attention,
    "Einsum": _einsum,
}
_WEIGHTS: Mapping[str, int] = {
    **dict.fromkeys(_RULES, 1),
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "QGemm": 3,
}
_ELEMENTWISE = frozenset(
    """
    Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Bernoulli
    BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike Ceil Celu CenterCropPad Clip Col2Im
    Compress Concat Constant ConstantOfShape Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout
    DynamicQuantizeLinear Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HammingWindow
    HannWindow HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu
    Less LessOrEqual Log LogSoftmax LpNormalization LpPool Max MaxPool MaxRoiPool MaxUnpool Mean
    MeanVarianceNormalization Min Mish Mod Mul Multinomial Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow
    QuantizeLinear RMSNormalization RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round ScatterElements ScatterND Selu Shape Shrink
    Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum SwiGLU Swish Tan
    Tanh ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor
    BiasAdd BiasGelu BiasSoftmax BiasSplitGelu EmbedLayerNormalization FastGelu NhwcMaxPool QLinearAdd
    QLinearAveragePool QLinearConcat QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean
    QLinearSigmoid QLinearSoftmax QLinearWhere QuickGelu ReorderInput ReorderOutput SimplifiedLayerNormalization
    SkipLayerNormalization SkipSimplifiedLayerNormalization
    """.split()  # noqa: SIM905 - a list of so many literals would take a line for each
)
"""Operators of ONNX, and of ONNX Runtime's own domain, that move, compare or take numbers one by one."""
