"""How each operator couples channels: one function a kind of operator.

A value is known by its dimensions: an array of atoms (one per index) for a dimension that carries channels, None for
one that does not (batch, space, time). A rule reads the values of a node's inputs and returns that of its output. An
operator without a rule is not guessed at: the walk pins every atom that it touches.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from edgekit.prune.atoms import PINNED, Atoms

Dim = np.ndarray | None
Value = tuple[Dim, ...]
Values = Value | list[Value]

aten = torch.ops.aten


class Walk:
    """What the rules share: the values found so far, the atoms, and shapes."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self.values: dict[Node, Values] = {}

    def value(self, argument: Any) -> Value | None:
        """The value of a node; None for a number or no argument."""
        if not isinstance(argument, Node):
            return None
        value = self.values[argument]
        assert isinstance(value, tuple)
        return value

    def pin(self, value: Values | None, reason: str) -> None:
        """Freeze every atom of a value."""
        for part in value if isinstance(value, list) else [value]:
            for dim in part or ():
                if dim is not None:
                    self.atoms.pin(dim, reason)

    def couple(self, left: Dim, right: Dim, reason: str) -> Dim:
        """Join two dimensions of one size; one that carries no channels freezes the other."""
        if left is None or right is None:
            for dim in (left, right):
                if dim is not None:
                    self.atoms.pin(dim, reason)
            return left if right is None else right
        self.atoms.join(left, right)
        return left


def shape_of(node: Node) -> tuple[int, ...]:
    """The shape of a node's output in the traced example."""
    return tuple(int(size) for size in node.meta["val"].shape)


def argument(node: Node, index: int, name: str, default: Any = None) -> Any:
    """An operator's argument, by position or by name."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


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


def convolution(walk: Walk, node: Node) -> Value:
    """Convolutions, grouped and depthwise included; transposed ones have input and output channels exchanged."""
    x, weight = walk.value(node.args[0]), walk.value(node.args[1])
    bias = walk.value(argument(node, 2, "bias"))
    assert x is not None
    assert weight is not None
    assert len(x) == len(weight), "an input without a batch"
    transposed = "transpose" in node.target.__name__  # type: ignore[union-attr]
    # (x, weight, bias, stride, padding, dilation, groups), or with output_padding before groups where transposed.
    groups = int(argument(node, 6, "groups", 1))
    for dim in weight[2:]:
        walk.pin((dim,), "a kernel's size")
    channels_in, out = x[1], weight[0]
    assert out is not None
    assert weight[1] is not None
    if groups == 1:
        if transposed:
            walk.couple(weight[0], channels_in, f"{node.name} reads fixed channels")
            out = weight[1]
        else:
            walk.couple(weight[1], channels_in, f"{node.name} reads fixed channels")
    elif transposed:
        walk.pin((*weight, channels_in), f"{node.name} is a grouped transposed convolution")
        out = walk.atoms.fresh(shape_of(node)[1])
        walk.atoms.pin(out, f"{node.name} is a grouped transposed convolution")
    else:
        walk.atoms.pin(weight[1], "the channels inside a group")
        if channels_in is None:
            walk.atoms.pin(out, f"{node.name} reads fixed channels")
        else:
            # A group goes whole: its inputs and its outputs are one class.
            for ins, outs in zip(np.split(channels_in, groups), np.split(out, groups), strict=True):
                whole = np.concatenate([ins, outs])
                walk.atoms.join(whole, np.full_like(whole, whole[0]))
    if bias is not None:
        walk.couple(bias[0], out, "a bias")
    return (x[0], out, *(None for _ in shape_of(node)[2:]))


def linear(walk: Walk, node: Node) -> Value:
    """Input [.., in] and weight [out, in]."""
    x, weight = walk.value(node.args[0]), walk.value(node.args[1])
    bias = walk.value(argument(node, 2, "bias"))
    assert x is not None
    assert weight is not None
    walk.couple(weight[1], x[-1], f"{node.name} reads fixed features")
    if bias is not None:
        walk.couple(bias[0], weight[0], "a bias")
    return (*x[:-1], weight[0])


def matmul(walk: Walk, node: Node) -> Value:
    """Products of activations: the contracted dimension joins, batch dimensions join, the others pass."""
    a, b = walk.value(node.args[0]), walk.value(node.args[1])
    assert a is not None
    assert b is not None
    if len(a) < 2 or len(b) < 2 or len(a) != len(b):
        walk.pin(a, f"{node.name} has no rule for these ranks")
        walk.pin(b, f"{node.name} has no rule for these ranks")
        return tuple(None for _ in shape_of(node))
    walk.couple(a[-1], b[-2], f"{node.name} contracts a fixed size")
    batch = [walk.couple(p, q, f"{node.name} meets a fixed size") for p, q in zip(a[:-2], b[:-2], strict=True)]
    return (*batch, a[-2], b[-1])


def batch_norm(walk: Walk, node: Node) -> Value:
    """Every tensor of the layer has the channels of its input."""
    x = walk.value(node.args[0])
    assert x is not None
    for index in range(1, 5):
        value = walk.value(node.args[index])
        if value is not None:
            walk.couple(value[0], x[1], f"{node.name} normalizes fixed channels")
    return x


def layer_norm(walk: Walk, node: Node) -> Value:
    """Frozen along what it normalizes over: removing a channel there changes the statistics of all others."""
    x, rank = walk.value(node.args[0]), len(node.args[1])  # type: ignore[arg-type]
    assert x is not None
    reason = f"{node.name} normalizes over it: removing a channel would change the others"
    walk.pin(x[-rank:], reason)
    for index in (2, 3):
        walk.pin(walk.value(argument(node, index, "")), reason)
    return x


def group_norm(walk: Walk, node: Node) -> Value:
    """Groups go whole: the statistics of the others stay as they are."""
    x, groups = walk.value(node.args[0]), int(node.args[1])  # type: ignore[arg-type]
    assert x is not None
    for index in (2, 3):
        value = walk.value(argument(node, index, ""))
        if value is not None:
            walk.couple(value[0], x[1], f"{node.name} normalizes fixed channels")
    if x[1] is not None:
        for part in np.split(x[1], groups):
            walk.atoms.join(part, np.full_like(part, part[0]))
    return x


def prelu(walk: Walk, node: Node) -> Value:
    """One slope for each channel, or one for all."""
    x, weight = walk.value(node.args[0]), walk.value(node.args[1])
    assert x is not None
    assert weight is not None
    assert weight[0] is not None
    if len(weight[0]) == 1:
        walk.pin(weight, "one slope for all channels")
    else:
        walk.couple(weight[0], x[1], f"{node.name} has fixed channels")
    return x


def embedding(walk: Walk, node: Node) -> Value:
    """The vectors' features may go, the entries stay."""
    weight = walk.value(node.args[0])
    assert weight is not None
    walk.pin((weight[0],), "the entries of an embedding")
    return (*(None for _ in shape_of(node)[:-1]), weight[1])


def concat(walk: Walk, node: Node) -> Value:
    """Atoms one after the other along the dimension; joined elsewhere."""
    sources: Sequence[Node] = node.args[0]  # type: ignore[assignment]
    values = [value for source in sources if (value := walk.value(source)) is not None]
    at = int(argument(node, 1, "dim", 0)) % len(values[0])
    result: list[Dim] = list(values[0])
    for value in values[1:]:
        for index, dim in enumerate(value):
            if index != at:
                result[index] = walk.couple(result[index], dim, f"{node.name} meets a fixed size")
    if any(value[at] is not None for value in values):
        sizes = [shape_of(source)[at] for source in sources]
        parts = [
            np.full(size, PINNED) if value[at] is None else value[at] for value, size in zip(values, sizes, strict=True)
        ]
        result[at] = np.concatenate([part for part in parts if part is not None])
    return tuple(result)


def split(walk: Walk, node: Node) -> list[Value]:
    """Equal parts lose the same channels, so that code which divides the size still does; others are frozen."""
    value = walk.value(node.args[0])
    assert value is not None
    at = int(argument(node, 2, "dim", 0)) % len(value)
    sizes = [int(part.shape[at]) for part in node.meta["val"]]
    dim = value[at]
    if dim is None:
        return [value for _ in sizes]
    parts = np.split(dim, np.cumsum(sizes)[:-1])
    if len(set(sizes)) == 1:
        for part in parts[1:]:
            walk.atoms.join(parts[0], part)
    else:
        walk.atoms.pin(dim, f"{node.name} cuts it into unequal parts")
    return [(*value[:at], part, *value[at + 1 :]) for part in parts]


def stack(walk: Walk, node: Node) -> Value:
    """Joined like the operands of a sum, with a new dimension between."""
    sources: Sequence[Node] = node.args[0]  # type: ignore[assignment]
    values = [value for source in sources if (value := walk.value(source)) is not None]
    result: list[Dim] = list(values[0])
    for value in values[1:]:
        result = [walk.couple(a, b, f"{node.name} meets a fixed size") for a, b in zip(result, value, strict=True)]
    result.insert(int(argument(node, 1, "dim", 0)) % (len(result) + 1), None)
    return tuple(result)


def unbind(walk: Walk, node: Node) -> list[Value]:
    """Free along a dimension without channels."""
    value = walk.value(node.args[0])
    assert value is not None
    at = int(argument(node, 1, "dim", 0)) % len(value)
    walk.pin((value[at],), f"{node.name} takes it apart")
    return [(*value[:at], *value[at + 1 :]) for _ in node.meta["val"]]


def gated(walk: Walk, node: Node) -> Value:
    """A gated linear unit: the halves lose the same channels."""
    value = walk.value(node.args[0])
    assert value is not None
    at = int(argument(node, 1, "dim", -1)) % len(value)
    dim = value[at]
    if dim is None:
        return value
    first, second = np.split(dim, 2)
    walk.atoms.join(first, second)
    return (*value[:at], first, *value[at + 1 :])


def pixel_shuffle(walk: Walk, node: Node) -> Value:
    """The channels that become the pixels of one channel go together."""
    value = walk.value(node.args[0])
    assert value is not None
    dim = value[-3]
    if dim is None:
        return value
    parts = dim.reshape(shape_of(node)[-3], -1).T
    for part in parts[1:]:
        walk.atoms.join(parts[0], part)
    return (*value[:-3], parts[0], None, None)


def channel_shuffle(walk: Walk, node: Node) -> Value:
    """Each of the groups that are interleaved loses the same channels."""
    value = walk.value(node.args[0])
    assert value is not None
    dim = value[1]
    if dim is None:
        return value
    parts = dim.reshape(int(argument(node, 1, "groups")), -1)
    for part in parts[1:]:
        walk.atoms.join(parts[0], part)
    return (value[0], parts.T.reshape(-1), *value[2:])


def repeat(walk: Walk, node: Node) -> Value:
    """Each channel appears several times."""
    value, times = walk.value(node.args[0]), argument(node, 1, "repeats")
    assert value is not None
    aligned = (*(None for _ in range(len(times) - len(value))), *value)
    return tuple(None if dim is None else np.tile(dim, int(n)) for dim, n in zip(aligned, times, strict=True))


def getitem(walk: Walk, node: Node) -> Value:
    """One of several outputs."""
    values = walk.values[node.args[0]]  # type: ignore[index]
    assert isinstance(values, list)
    return values[int(node.args[1])]  # type: ignore[arg-type]


def cut(walk: Walk, node: Node) -> Value:
    """Slices and selections: free along a dimension without channels; along channels their bounds are the code's."""
    value, source = walk.value(node.args[0]), node.args[0]
    assert value is not None
    at = int(argument(node, 1, "dim", 0)) % len(value)
    dim = value[at]
    gone = node.target == aten.select.int
    if gone:
        if dim is not None:
            walk.atoms.pin(dim, f"{node.name} takes a fixed index")
        return (*value[:at], *value[at + 1 :])
    if dim is not None and shape_of(node)[at] != shape_of(source)[at]:  # type: ignore[arg-type]
        walk.atoms.pin(dim, f"{node.name} cuts at a fixed index")
        dim = np.full(shape_of(node)[at], PINNED)
    return (*value[:at], dim, *value[at + 1 :])


def pad(walk: Walk, node: Node) -> Value:
    """Zeros around channels are pinned, since their number is the code's; the channels between may still go."""
    value, amounts = walk.value(node.args[0]), list(node.args[1])  # type: ignore[arg-type]
    assert value is not None
    result = list(value)
    for back, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        at = len(value) - 1 - back
        dim = result[at]
        if dim is None or (before == 0 and after == 0):
            continue
        mode = argument(node, 2, "mode", "constant") if node.target == aten.pad.default else "constant"
        if mode != "constant" or before < 0 or after < 0:
            walk.atoms.pin(dim, f"{node.name} mirrors or crops it")
            result[at] = np.full(shape_of(node)[at], PINNED)
        else:
            result[at] = np.concatenate([np.full(before, PINNED), dim, np.full(after, PINNED)])
    return tuple(result)


def reduce(walk: Walk, node: Node) -> Value:
    """Sums and means: free over dimensions without channels; channels that are summed over are frozen."""
    value = walk.value(node.args[0])
    assert value is not None
    over = argument(node, 1, "dim")
    dims = range(len(value)) if over is None else [over] if isinstance(over, int) else over
    reduced = {int(dim) % len(value) for dim in dims} or set(range(len(value)))
    for index in reduced:
        walk.pin((value[index],), f"{node.name} reduces over it")
    if len(shape_of(node)) == len(value):
        return tuple(None if index in reduced else dim for index, dim in enumerate(value))
    return tuple(dim for index, dim in enumerate(value) if index not in reduced)


def softmax(walk: Walk, node: Node) -> Value:
    """Frozen along what it normalizes over."""
    value = walk.value(node.args[0])
    assert value is not None
    walk.pin((value[int(argument(node, 1, "dim")) % len(value)],), f"{node.name} normalizes over it")
    return value


def permute(walk: Walk, node: Node) -> Value:
    """Dimensions in another order."""
    value = walk.value(node.args[0])
    assert value is not None
    if node.target == aten.permute.default:
        return tuple(value[int(index)] for index in argument(node, 1, "dims"))
    if node.target == aten.t.default:
        return tuple(reversed(value))
    order = list(range(len(value)))
    a, b = (int(argument(node, at, name)) % len(value) for at, name in ((1, "dim0"), (2, "dim1")))
    order[a], order[b] = order[b], order[a]
    return tuple(value[index] for index in order)


def reshape(walk: Walk, node: Node) -> Value:
    """Views, flattening and (un)squeezing: runs of dimensions of equal product belong together.

    Merging repeats each atom over the dimensions beside it. Splitting keeps the last part, with the channels at one
    position of all the others joined (heads, groups of a channel shuffle), provided that the code computes its sizes;
    if it does not, the probe finds out.
    """
    value, old, new = walk.value(node.args[0]), shape_of(node.args[0]), shape_of(node)  # type: ignore[arg-type]
    assert value is not None
    result: list[Dim] = []
    i = j = 0
    while i < len(old) or j < len(new):
        i_end, j_end = min(i + 1, len(old)), min(j + 1, len(new))
        while (left := int(np.prod(old[i:i_end]))) != (right := int(np.prod(new[j:j_end]))):
            if (left < right and i_end < len(old)) or j_end >= len(new):
                i_end += 1
            else:
                j_end += 1
        result.extend(_regroup(walk, node, value[i:i_end], old[i:i_end], new[j:j_end]))
        i, j = i_end, j_end
    return tuple(result)


def _regroup(walk: Walk, node: Node, value: Value, old: tuple[int, ...], new: tuple[int, ...]) -> list[Dim]:
    # Dimensions of size one are neither merged nor split; they come and go beside the others.
    kept = [(dim, size) for dim, size in zip(value, old, strict=True) if size != 1]
    wide = [index for index, size in enumerate(new) if size != 1]
    result: list[Dim] = [None] * len(new)
    tracked = [dim for dim, _ in kept if dim is not None]
    if not tracked:
        return result
    if len(kept) == len(wide):
        for index, (dim, _) in zip(wide, kept, strict=True):
            result[index] = dim
    elif len(wide) == 1 and len(tracked) == 1:
        shape = [size for _, size in kept]
        axis = next(index for index, (dim, _) in enumerate(kept) if dim is not None)
        expanded = tracked[0].reshape([-1 if index == axis else 1 for index in range(len(shape))])
        result[wide[0]] = np.broadcast_to(expanded, shape).reshape(-1)
    elif len(kept) == 1 and len(wide) > 1:
        parts = tracked[0].reshape(-1, new[wide[-1]])
        for part in parts[1:]:
            walk.atoms.join(parts[0], part)
        result[wide[-1]] = parts[0]
    else:
        for dim in tracked:
            walk.atoms.pin(dim, f"{node.name} mixes it with other dimensions")
    return result


def expand(walk: Walk, node: Node) -> Value:
    """Sizes of one that are stretched carry no channels; new dimensions come in front."""
    value, old, new = walk.value(node.args[0]), shape_of(node.args[0]), shape_of(node)  # type: ignore[arg-type]
    assert value is not None
    result: list[Dim] = [None] * (len(new) - len(old))
    for dim, before, after in zip(value, old, new[len(new) - len(old) :], strict=True):
        if dim is not None and before != after:
            walk.atoms.pin(dim, f"{node.name} stretches it")
        result.append(dim if before == after else None)
    return tuple(result)


def constant(walk: Walk, node: Node) -> Value:
    """A tensor made of numbers: no channels, and one that meets channels freezes them unless it is a single number."""
    del walk
    return tuple(None for _ in shape_of(node))


Rule = Callable[[Walk, Node], Values]


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
        broadcast: "add add_ sub sub_ mul mul_ div div_ maximum minimum where rsub pow atan2",
        same: "relu relu_ relu6 relu6_ leaky_relu leaky_relu_ elu elu_ selu selu_ celu celu_ gelu silu silu_ mish mish_ "
        "sigmoid sigmoid_ tanh tanh_ hardtanh hardtanh_ hardswish hardswish_ hardsigmoid hardsigmoid_ log_sigmoid "
        "hardshrink softshrink threshold threshold_ softplus softsign exp log log1p expm1 sqrt rsqrt abs neg "
        "clamp clamp_ clamp_min clamp_max square dropout dropout_ feature_dropout feature_dropout_ alpha_dropout "
        "contiguous clone alias detach detach_ to _to_copy type_as lift_fresh_copy erf sin cos reciprocal logical_not "
        "bitwise_not zeros_like ones_like full_like",
        spatial: "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d adaptive_avg_pool1d "
        "adaptive_avg_pool2d adaptive_avg_pool3d upsample_nearest1d "
        "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d upsample_linear1d upsample_nearest3d "
        "upsample_trilinear3d _upsample_nearest_exact2d reflection_pad1d reflection_pad2d replication_pad2d",
        spatial_with_indices: "adaptive_max_pool1d adaptive_max_pool2d max_pool2d_with_indices",
        convolution: "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
        linear: "linear",
        matmul: "matmul bmm",
        batch_norm: "batch_norm instance_norm",
        layer_norm: "layer_norm",
        group_norm: "group_norm",
        prelu: "prelu",
        embedding: "embedding",
        concat: "cat concat concatenate",
        stack: "stack",
        unbind: "unbind",
        gated: "glu",
        pixel_shuffle: "pixel_shuffle",
        channel_shuffle: "channel_shuffle native_channel_shuffle",
        repeat: "repeat",
        split: "split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk",
        cut: "slice select.int narrow",
        pad: "pad constant_pad_nd",
        reduce: "mean.dim sum.dim_IntList amax amin mean sum",
        softmax: "softmax log_softmax",
        permute: "permute transpose.int t",
        reshape: "view reshape flatten unflatten squeeze unsqueeze _unsafe_view view_as",
        expand: "expand expand_as",
        constant: "zeros ones full arange scalar_tensor new_zeros new_ones new_full empty",
    }
)
"""The rule for each operator that has one."""
