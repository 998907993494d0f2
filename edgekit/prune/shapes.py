"""How operators that move elements about couple channels: one rule each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.fx import Node

from edgekit.prune.atoms import PINNED
from edgekit.prune.walk import Dim, Value, Walk, argument, shape_of

aten = torch.ops.aten


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
    if [size for _, size in kept] == [new[index] for index in wide]:
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
