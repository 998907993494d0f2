"""How products of activations couple channels, beside the plain one in `layers.matmul`."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.fx import Node

from edgekit.prune.walk import Dim, Value, Walk, argument, broadcast_batch, shape_of


def scaled_dot_product_attention(walk: Walk, node: Node) -> Value:
    """Heads (and what else is before positions and features) join; values keep their features."""
    q, k, v = (walk.value(each) for each in node.args[:3])
    assert q is not None
    assert k is not None
    assert v is not None
    assert len(q) == len(k) == len(v)
    shapes = [shape_of(each) for each in node.args[:3]]  # type: ignore[arg-type]
    walk.couple(q[-1], k[-1], f"{node.name} contracts a fixed size")
    if argument(node, 6, "scale") is None and q[-1] is not None:
        walk.atoms.pin(q[-1], f"{node.name} scales by their number")
    for positions in (q[-2], k[-2], v[-2]):
        walk.pin((positions,), f"{node.name} attends to fixed positions")
    batch: list[Dim] = list(q[:-2])
    for other, shape in ((k, shapes[1]), (v, shapes[2])):
        shared = [_shared(dim, size, heads) for dim, size, heads in zip(other[:-2], shape, shapes[0], strict=False)]
        sizes = [1 if size == 1 else heads for size, heads in zip(shape[:-2], shapes[0], strict=False)]
        batch = broadcast_batch(walk, node, (batch, shapes[0][:-2]), (shared, sizes))
    batch = _masked(walk, node, batch, argument(node, 3, "attn_mask"))
    return (*batch, None, v[-1])


def product_and_mask(walk: Walk, node: Node) -> Value:
    """(mask, a, b): the product of a and b [n, rows, columns], and a mask that is added to it."""
    a, b = (walk.value(each) for each in node.args[1:3])
    assert a is not None
    assert b is not None
    walk.couple(a[2], b[1], f"{node.name} contracts a fixed size")
    walk.pin((a[1], b[2]), f"{node.name} meets fixed positions")
    batch = walk.couple(a[0], b[0], f"{node.name} meets a fixed size")
    return (*_masked(walk, node, [batch], node.args[0]), None, None)


def _masked(walk: Walk, node: Node, batch: list[Dim], mask: Any) -> list[Dim]:
    """Couple what a mask has for each head; one that the code repeats for as many as there are freezes none."""
    value = walk.value(mask)
    if value is None:
        return batch
    walk.pin(value[-2:], f"{node.name} attends to fixed positions")
    sizes = shape_of(node)[: len(batch)]
    return broadcast_batch(walk, node, (batch, sizes), (value[:-2], shape_of(mask)[:-2]), fixed=False)


def _shared(dim: Dim, size: int, heads: int) -> Dim:
    """Heads of keys and values that several heads of queries share, once for each of those."""
    return dim if dim is None or size in (1, heads) else np.repeat(dim, heads // size)


def einsum(walk: Walk, node: Node) -> Value:
    """Indexes of one letter join."""
    equation, operands = str(node.args[0]).replace(" ", ""), node.args[1]
    inputs, _, output = equation.partition("->")
    assert output
    assert "." not in equation
    found: dict[str, Dim] = {}
    for letters, operand in zip(inputs.split(","), operands, strict=True):  # type: ignore[arg-type]
        value = walk.value(operand)
        assert value is not None
        for letter, dim in zip(letters, value, strict=True):
            known = letter in found
            found[letter] = walk.couple(found[letter], dim, f"{node.name} meets a fixed size") if known else dim
    return tuple(found[letter] for letter in output)
