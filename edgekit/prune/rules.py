"""How each operator couples channels: the table of rules, and those for operators without weights that keep the shape.

A rule reads the values of a node's inputs and returns that of its output. An operator without a rule is not guessed at:
the walk pins every atom that it touches.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node

from edgekit.prune.attention import einsum, product_and_mask, scaled_dot_product_attention
from edgekit.prune.layers import (
    addmm,
    batch_norm,
    convolution,
    embedding,
    group_norm,
    layer_norm,
    linear,
    matmul,
    prelu,
)
from edgekit.prune.recurrent import recurrent, recurrent_cell
from edgekit.prune.shapes import (
    channel_shuffle,
    concat,
    constant,
    cut,
    expand,
    gated,
    getitem,
    look_up,
    pad,
    patches,
    permute,
    pixel_shuffle,
    pixel_unshuffle,
    repeat,
    repeat_each,
    reshape,
    split,
    stack,
    sum_of_patches,
    turn,
    unbind,
    windows,
)
from edgekit.prune.walk import Dim, Value, Values, Walk, argument, shape_of

aten = torch.ops.aten
Rule = Callable[[Walk, Node], Values]


def broadcast(walk: Walk, node: Node) -> Value:
    """Elementwise operators on any number of tensors: aligned from the right, equal sizes join."""
    size = shape_of(node)
    result: list[Dim] = [None] * len(size)
    seen: list[bool] = [False] * len(size)
    for source in node.all_input_nodes:
        value, shape = walk.value(source), shape_of(source)
        assert value is not None
        offset = len(size) - len(shape)
        for index, dim in enumerate(value):
            at = index + offset
            if shape[index] == 1 and size[at] != 1:
                # Stretched over every index: it neither has channels here nor stands in the way of removing some.
                if dim is not None:
                    walk.atoms.pin(dim, f"{node.name} stretches it")
                continue
            result[at] = walk.couple(result[at], dim, f"{node.name} meets a fixed size") if seen[at] else dim
            seen[at] = True
    return tuple(result)


def same(walk: Walk, node: Node) -> Value:
    """Operators that act on each element, or inside each channel, and keep the shape."""
    value = walk.value(node.args[0])
    assert value is not None
    return value


def spatial(walk: Walk, node: Node) -> Value:
    """Pooling and resizing: [n, channels, space] keeps its channels, and what was not space."""
    value = walk.value(node.args[0])
    assert value is not None
    # How many dimensions are space is in the operator's name; the rest may lack the batch.
    space = int(node.target.__name__.partition(".")[0].rpartition("d")[0][-1])  # type: ignore[union-attr]
    walk.pin(value[-space:], f"{node.name} works along it")
    return (*value[:-space], *(None for _ in range(space)))


def spatial_with_indices(walk: Walk, node: Node) -> list[Value]:
    """Max pooling that also says where: both outputs have the input's channels."""
    value = spatial(walk, node)
    return [value, value]


def reduce(walk: Walk, node: Node) -> Value:
    """Sums, means, norms: free over dimensions without channels; channels that are summed over are frozen."""
    value = walk.value(node.args[0])
    assert value is not None
    names = [each.name for each in node.target._schema.arguments]  # type: ignore[union-attr] # noqa: SLF001
    over = argument(node, names.index("dim"), "dim") if "dim" in names else None
    dims = range(len(value)) if over is None else [over] if isinstance(over, int) else over
    reduced = {int(dim) % len(value) for dim in dims} or set(range(len(value)))
    for index in reduced if node not in walk.normalizing else ():
        walk.pin((value[index],), f"{node.name} reduces over it")
    if argument(node, names.index("keepdim"), "keepdim", default=False) if "keepdim" in names else False:
        return tuple(None if index in reduced else dim for index, dim in enumerate(value))
    return tuple(dim for index, dim in enumerate(value) if index not in reduced)


def reduce_to_two(walk: Walk, node: Node) -> list[Value]:
    """A spread with its mean, an extreme with its place: two outputs of one shape."""
    value = reduce(walk, node)
    return [value, value]


def along(walk: Walk, node: Node) -> Value:
    """Softmax, running sums: the shape stays; frozen along what it goes over."""
    value = walk.value(node.args[0])
    assert value is not None
    walk.pin((value[int(argument(node, 1, "dim")) % len(value)],), f"{node.name} goes over it")
    return value


def _table(rules: Mapping[Rule, str]) -> dict[Any, Rule]:
    table: dict[Any, Rule] = {operator.getitem: getitem}
    for rule, names in rules.items():
        for name in names.split():
            packet, _, overload = name.partition(".")
            operation = getattr(aten, packet, None)
            overloads = [overload] if overload else (operation.overloads() if operation is not None else [])
            for each in overloads:
                table[getattr(operation, each)] = rule
    return table


RULES: Mapping[Any, Rule] = _table(
    {
        broadcast: "add add_ sub sub_ mul mul_ div div_ maximum minimum where rsub pow atan2 masked_fill masked_fill_ "
        "eq ne lt le gt ge logical_and logical_or bitwise_and bitwise_or addcmul addcdiv lerp "
        "multiply multiply_ divide subtract true_divide __and__ __or__ floor_divide",
        same: "relu relu_ relu6 relu6_ leaky_relu leaky_relu_ elu elu_ selu selu_ celu celu_ gelu silu silu_ mish "
        "mish_ sigmoid sigmoid_ tanh tanh_ hardtanh hardtanh_ "
        "hardswish hardswish_ hardsigmoid hardsigmoid_ log_sigmoid "
        "hardshrink softshrink threshold threshold_ softplus softsign exp log log1p expm1 sqrt rsqrt abs neg "
        "clamp clamp_ clamp_min clamp_max square dropout dropout_ feature_dropout feature_dropout_ alpha_dropout "
        "contiguous clone alias detach detach_ to _to_copy type_as lift_fresh_copy erf sin cos reciprocal "
        "logical_not bitwise_not zeros_like ones_like full_like",
        spatial: "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d adaptive_avg_pool1d "
        "adaptive_avg_pool2d adaptive_avg_pool3d upsample_nearest1d "
        "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d upsample_linear1d upsample_nearest3d "
        "upsample_trilinear3d _upsample_nearest_exact2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
        "reflection_pad1d reflection_pad2d replication_pad2d",
        spatial_with_indices: "adaptive_max_pool1d adaptive_max_pool2d max_pool2d_with_indices",
        convolution: "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
        linear: "linear",
        matmul: "matmul bmm mm",
        addmm: "addmm",
        scaled_dot_product_attention: "scaled_dot_product_attention",
        product_and_mask: "baddbmm.default",
        einsum: "einsum",
        batch_norm: "batch_norm instance_norm",
        layer_norm: "layer_norm rms_norm",
        group_norm: "group_norm",
        prelu: "prelu",
        embedding: "embedding",
        recurrent: "lstm.input gru.input rnn_tanh.input rnn_relu.input",
        recurrent_cell: "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell",
        concat: "cat concat concatenate",
        stack: "stack",
        unbind: "unbind",
        gated: "glu",
        pixel_shuffle: "pixel_shuffle",
        pixel_unshuffle: "pixel_unshuffle",
        patches: "im2col",
        sum_of_patches: "col2im",
        windows: "unfold",
        look_up: "index.Tensor",
        turn: "roll flip",
        channel_shuffle: "channel_shuffle native_channel_shuffle",
        repeat: "repeat tile",
        repeat_each: "repeat_interleave.self_int",
        split: "split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk",
        cut: "slice select.int narrow",
        pad: "pad constant_pad_nd",
        reduce: "mean.dim sum.dim_IntList amax amin mean sum linalg_vector_norm norm.ScalarOpt_dim logsumexp "
        "prod.dim_int var.dim var.correction std.dim std.correction",
        reduce_to_two: "var_mean.dim var_mean.correction std_mean.dim std_mean.correction max.dim min.dim",
        along: "softmax log_softmax cumsum cumprod logcumsumexp",
        permute: "permute transpose.int t mT numpy_T",
        reshape: "view reshape flatten unflatten squeeze unsqueeze _unsafe_view view_as reshape_as",
        expand: "expand expand_as broadcast_to",
        constant: "zeros ones full arange scalar_tensor new_zeros new_ones new_full empty eye linspace",
    }
)
"""The rule for each operator that has one."""
