"""How operators that move elements about couple channels: one rule each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch.fx import Node

from edgekit.prune.atoms import PINNED
from edgekit.prune.heads import heads_of, order_of
from edgekit.prune.walk import UNKNOWN, Dim, Value, Walk, argument, shape_of

aten = torch.ops.aten


def concat(walk: Walk, node: Node) -> Value:
    """Atoms one after the other along the dimension; joined elsewhere."""
    operands: Sequence[Node] = node.args[0]  # type: ignore[assignment]
    # torch passes over an empty vector, such as a cache that nothing has been put into.
    sources = [source for source in operands if shape_of(source) != (0,)]
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


def pixel_unshuffle(walk: Walk, node: Node) -> Value:
    """Each channel becomes as many as a pixel of the smaller image has pixels of the larger one."""
    value = walk.value(node.args[0])
    assert value is not None
    dim = value[-3]
    return (*value[:-3], None if dim is None else np.repeat(dim, int(node.args[1]) ** 2), None, None)  # type: ignore[arg-type]


def patches(walk: Walk, node: Node) -> Value:
    """[n, channels, space] to [n, channels * places in a kernel, positions]."""
    value, kernel = walk.value(node.args[0]), argument(node, 1, "kernel_size")
    assert value is not None
    walk.pin(value[-2:], f"{node.name} works along it")
    dim = value[-3]
    return (*value[:-3], None if dim is None else np.repeat(dim, int(np.prod(kernel))), None)


def sum_of_patches(walk: Walk, node: Node) -> Value:
    """The way back: the places in a kernel of one channel go together."""
    value, kernel = walk.value(node.args[0]), argument(node, 2, "kernel_size")
    assert value is not None
    walk.pin(value[-1:], f"{node.name} works along it")
    dim = value[-2]
    if dim is None:
        return (*value[:-2], None, None, None)
    first, *others = dim.reshape(-1, int(np.prod(kernel))).T
    for other in others:
        walk.atoms.join(first, other)
    return (*value[:-2], first, None, None)


def windows(walk: Walk, node: Node) -> Value:
    """Windows along a dimension, a further one behind: free along one without channels."""
    value = walk.value(node.args[0])
    assert value is not None
    at = int(argument(node, 1, "dimension")) % len(value)
    walk.pin((value[at],), f"{node.name} works along it")
    return (*value[:at], None, *value[at + 1 :], None)


def turn(walk: Walk, node: Node) -> Value:
    """Rolled or flipped along dimensions without channels."""
    value = walk.value(node.args[0])
    assert value is not None
    is_roll = node.target == aten.roll.default
    dims = argument(node, 2, "dims", ()) if is_roll else argument(node, 1, "dims")
    turned = {int(dim) % len(value) for dim in dims} or set(range(len(value)))
    for index in turned:
        walk.pin((value[index],), f"{node.name} moves along it")
    return tuple(None if index in turned else dim for index, dim in enumerate(value))


def look_up(walk: Walk, node: Node) -> Value:
    """A table read by whole numbers, as of relative positions, or tokens picked out by a mask: the rest keeps channels.

    A mask stands for as many dimensions as it has, and leaves one whose size depends on its values.
    """
    value, given = walk.value(node.args[0]), list(node.args[1])  # type: ignore[arg-type]
    assert value is not None
    places = [at for at, index in enumerate(given) if index is not None]
    if any(given[at].meta["val"].dtype == torch.bool for at in places):
        (at,) = places
        behind = at + len(shape_of(given[at]))
        walk.pin(value[at:behind], f"{node.name} picks from it by a mask")
        walk.pin(walk.values[given[at]], f"{node.name} picks by it")
        return (*value[:at], None, *value[behind:])
    for at in places:
        walk.pin((value[at],), f"{node.name} takes fixed indexes")
    for index in (given[at] for at in places):
        walk.pin(walk.values[index], f"{node.name} looks up by it")
    new: Value = (None,) * max(len(shape_of(given[at])) for at in places)
    kept = [dim for at, dim in enumerate(value) if at not in places]
    # What is looked up stands where the indexes stood if those are neighbours, else in front.
    front = places[0] if places[-1] - places[0] == len(places) - 1 else 0
    return (*kept[:front], *new, *kept[front:])


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
    value, times = walk.value(node.args[0]), list(node.args[1])  # type: ignore[arg-type]
    assert value is not None
    # A tile may leave out the first dimensions.
    times = [1] * (len(value) - len(times)) + times
    aligned = (*(None for _ in range(len(times) - len(value))), *value)
    return tuple(None if dim is None else np.tile(dim, int(n)) for dim, n in zip(aligned, times, strict=True))


def repeat_each(walk: Walk, node: Node) -> Value:
    """Each index of one dimension appears several times, one after the other."""
    value, at = walk.value(node.args[0]), argument(node, 2, "dim")
    assert value is not None
    assert at is not None
    result = list(value)
    dim = result[int(at)]
    result[int(at)] = None if dim is None else np.repeat(dim, int(node.args[1]))  # type: ignore[arg-type]
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
    elif node.args[0].op != "placeholder":  # type: ignore[union-attr]
        # Rows of a weight may be told apart by where they are, as PyTorch does with those of queries, keys and values.
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
    return tuple(value[index] for index in order_of(node, len(value)))


def reshape(walk: Walk, node: Node) -> Value:
    """Views, flattening and (un)squeezing: runs of dimensions of equal product belong together.

    Merging repeats each atom over the dimensions beside it. Splitting keeps one part, with the channels at one position
    of all the others joined: the heads where an attention follows, else the last one (groups of a channel shuffle).
    Whether the code computes its sizes, the probe finds out.
    """
    value, old, new = walk.value(node.args[0]), shape_of(node.args[0]), shape_of(node)  # type: ignore[arg-type]
    assert value is not None
    if UNKNOWN in (*old, *new):
        return _behind_unknown(walk, node, value)
    result: list[Dim] = []
    i = j = 0
    while i < len(old) or j < len(new):
        i_end, j_end = min(i + 1, len(old)), min(j + 1, len(new))
        while (left := int(np.prod(old[i:i_end]))) != (right := int(np.prod(new[j:j_end]))):
            if i_end == len(old) and j_end == len(new):
                raise ValueError(f"{old} and {new} are no shapes of one tensor")
            if (left < right and i_end < len(old)) or j_end >= len(new):
                i_end += 1
            else:
                j_end += 1
        result.extend(_regroup(walk, node, value[i:i_end], old[i:i_end], range(j, j_end)))
        i, j = i_end, j_end
    return tuple(result)


def _behind_unknown(walk: Walk, node: Node, value: Value) -> Value:
    """Where a size depends on values, what keeps its size at the end stays as it is."""
    old, new = shape_of(node.args[0]), shape_of(node)  # type: ignore[arg-type]
    same = 0
    while same < min(len(old), len(new)) and old[-1 - same] == new[-1 - same] != UNKNOWN:
        same += 1
    walk.pin(value[: len(old) - same], f"{node.name} mixes it with other dimensions")
    return (*[None] * (len(new) - same), *value[len(old) - same :])


def _regroup(walk: Walk, node: Node, value: Value, old: tuple[int, ...], places: range) -> list[Dim]:
    """One run: each dimension is split at the others' bounds, and the parts are merged."""
    new = shape_of(node)
    result: list[Dim] = [None] * len(places)
    # Dimensions of size one are neither merged nor split; they come and go beside the others.
    kept = [(dim, size) for dim, size in zip(value, old, strict=True) if size != 1]
    wide = [place for place in places if new[place] != 1]
    tracked = [dim for dim, _ in kept if dim is not None]
    if not tracked:
        return result
    wholes = [size for _, size in kept], [new[place] for place in wide]
    bounds = sorted({1, *(bound for sizes in wholes for bound in np.cumprod(sizes[::-1]).tolist())})
    if any(outer % inner for inner, outer in pairwise(bounds)):
        for mixed in tracked:
            walk.atoms.pin(mixed, f"{node.name} mixes it with other dimensions")
        return result
    sizes = [outer // inner for inner, outer in pairwise(bounds)][::-1]
    befores, afters = (_cut(sizes, each) for each in wholes)
    home = {part: place for place, own in zip(wide, afters, strict=True) for part in own}
    parts: list[Dim] = [None] * len(sizes)
    for (dim, _), own in zip(kept, befores, strict=True):
        if dim is not None:
            at, atoms = _split(walk, node, dim, {part: (sizes[part], home[part]) for part in own})
            parts[at] = atoms
    for place, own in zip(wide, afters, strict=True):
        result[place - places.start] = _merge(walk, node, [parts[part] for part in own], [sizes[part] for part in own])
    return result


def _cut(sizes: Sequence[int], wholes: Sequence[int]) -> list[range]:
    """Which of consecutive sizes make each whole by their product."""
    found, start = [], 0
    for whole in wholes:
        end = start
        while int(np.prod(sizes[start:end])) != whole:
            end += 1
        found.append(range(start, end))
        start = end
    return found


def _split(walk: Walk, node: Node, dim: np.ndarray, parts: Mapping[int, tuple[int, int]]) -> tuple[int, np.ndarray]:
    """Split into parts of (size, dimension that it becomes); the atoms of the part that keeps them, and which it is."""
    if len(parts) == 1:
        return next(iter(parts)), dim
    grid = dim.reshape([size for size, _ in parts.values()])
    heads = heads_of(node)
    rows = {
        part: np.moveaxis(grid, axis, 0).reshape(size, -1)
        for axis, (part, (size, place)) in enumerate(parts.items())
        if place in heads or part == max(parts)
    }
    # Samples that heads were merged with are no heads: to keep the heads joins nothing that is not joined already.
    at = min(rows, key=lambda part: (parts[part][1] not in heads, not _is_joined(walk, rows[part])))
    first, *others = rows[at].T
    for other in others:
        walk.atoms.join(first, other)
    return at, first


def _is_joined(walk: Walk, rows: np.ndarray) -> bool:
    return all(len({walk.atoms.root(atom) for atom in row}) == 1 for row in rows.tolist())


def _merge(walk: Walk, node: Node, parts: Sequence[Dim], sizes: Sequence[int]) -> Dim:
    """The first part that has channels has them in the whole, each for all that the other parts are."""
    tracked = [(index, dim) for index, dim in enumerate(parts) if dim is not None]
    if not tracked:
        return None
    (at, first), *others = tracked
    for _, other in others:
        walk.atoms.pin(other, f"{node.name} mixes it with other dimensions")
    return np.broadcast_to(first.reshape([-1 if i == at else 1 for i in range(len(sizes))]), sizes).reshape(-1)


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
