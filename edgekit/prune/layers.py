"""How layers with weights couple channels: one rule each."""

from __future__ import annotations

import numpy as np
from torch.fx import Node

from edgekit.prune.walk import Value, Walk, argument, broadcast_batch, shape_of


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
    if groups == 1:
        if transposed:
            walk.couple(weight[0], channels_in, f"{node.name} reads fixed channels")
            out = weight[1]
            assert out is not None
        else:
            walk.couple(weight[1], channels_in, f"{node.name} reads fixed channels")
    else:
        walk.pin(weight[1:2], "the channels inside a group")
        if transposed:
            walk.couple(weight[0], channels_in, f"{node.name} reads fixed channels")
            channels_in, out = weight[0], walk.atoms.fresh(shape_of(node)[1])
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
    if len(a) < 2 or len(b) < 2:
        walk.pin(a, f"{node.name} has no rule for these ranks")
        walk.pin(b, f"{node.name} has no rule for these ranks")
        return tuple(None for _ in shape_of(node))
    walk.couple(a[-1], b[-2], f"{node.name} contracts a fixed size")
    batches = [(value[:-2], shape_of(each)[:-2]) for value, each in zip((a, b), node.args[:2], strict=True)]  # type: ignore[arg-type]
    batch = broadcast_batch(walk, node, *sorted(batches, key=lambda each: -len(each[0])))
    return (*batch, a[-2], b[-1])


def addmm(walk: Walk, node: Node) -> Value:
    """(bias, a, b): the product of a [rows, in] and b [in, out] with a bias [out], a linear layer written out."""
    bias, a, b = (walk.value(each) for each in node.args[:3])
    assert bias is not None
    assert a is not None
    assert b is not None
    assert len(bias) == 1
    walk.couple(a[-1], b[0], f"{node.name} reads fixed features")
    return (a[0], walk.couple(b[1], bias[0], "a bias"))


def batch_norm(walk: Walk, node: Node) -> Value:
    """Every tensor of the layer has the channels of its input."""
    x = walk.value(node.args[0])
    assert x is not None
    for index in range(1, 5):
        value = walk.value(node.args[index])
        if value is not None:
            walk.couple(value[0], x[1], f"{node.name} normalizes fixed channels")
    if node.args[5]:
        # By the statistics of what comes in, as weights are standardized: what they are taken over has to stay.
        walk.pin((x[0], *x[2:]), f"{node.name} normalizes over it: removing a channel would change the others")
    return x


def layer_norm(walk: Walk, node: Node) -> Value:
    """That of a module of its own is over the channels that are left; else what it normalizes over is frozen."""
    x, rank = walk.value(node.args[0]), len(node.args[1])  # type: ignore[arg-type]
    assert x is not None
    if node in walk.normalizing and rank == 1:
        for each in map(walk.value, node.args[2:4]):
            if each is not None:
                walk.couple(x[-1], each[0], f"{node.name} normalizes fixed features")
        return x
    reason = f"{node.name} normalizes over it: removing a channel would change the others"
    walk.pin(x[-rank:], reason)
    # A weight, and a bias where there is one; then numbers.
    for weight in node.args[2:4]:
        walk.pin(walk.value(weight), reason)
    return x


def group_norm(walk: Walk, node: Node) -> Value:
    """Groups go whole: the statistics of the others stay as they are. One alone is over the channels that are left."""
    x, groups = walk.value(node.args[0]), int(node.args[1])  # type: ignore[arg-type]
    assert x is not None
    for index in (2, 3):
        value = walk.value(argument(node, index, ""))
        if value is not None:
            walk.couple(value[0], x[1], f"{node.name} normalizes fixed channels")
    if x[1] is not None and not (groups == 1 and node in walk.normalizing):
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
