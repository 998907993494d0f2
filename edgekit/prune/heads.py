"""Which dimension of a split counts attention heads.

A linear layer's outputs that are split into heads and features of a head could be coupled along either. Where the split
leads to an attention (a product of activations), the dimension that is neither contracted nor a position there counts
the heads, and a head goes whole. Elsewhere a split keeps its last part (see `shapes.reshape`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from edgekit.prune.walk import argument, shape_of

aten = torch.ops.aten
PRODUCTS = (aten.scaled_dot_product_attention.default, aten.matmul.default, aten.bmm.default, aten.baddbmm.default)
PERMUTATIONS = (aten.permute.default, aten.transpose.int, aten.t.default, aten.mT.default, aten.numpy_T.default)
ENDS = ("linear", "conv", "addmm", "embedding", "group_norm", "batch_norm", "mean", "sum")
"""Behind these a dimension means something else; parts of the operators' names."""


def heads_of(node: Node) -> set[int]:
    """The dimensions of a node's output that count heads in an attention further on."""
    return {index for index in range(len(shape_of(node))) if _leads_to_batch(node, index, set())}


def _leads_to_batch(node: Node, at: int, seen: set[tuple[Node, int]]) -> bool:
    if (node, at) in seen:
        return False
    seen.add((node, at))
    # A check of a tensor's type reads it and gives nothing.
    users = [user for user in node.users if user.op == "call_function" and user.meta.get("val") is not None]
    if any(_is_batch(node, user, at) for user in users):
        return True
    on = [user for user in users if user.target not in PRODUCTS and not any(end in str(user.target) for end in ENDS)]
    return any(_leads_to_batch(reader, index, seen) for user in on for reader, index in _moved(node, user, at))


def _is_batch(node: Node, user: Node, at: int) -> bool:
    """Whether a product of activations works on each index of a dimension by itself."""
    if user.target in PRODUCTS:
        return at < len(shape_of(node)) - 2
    if user.target is not aten.einsum.default:
        return False
    operands: Any = user.args[1]
    inputs, _, output = str(user.args[0]).replace(" ", "").partition("->")
    terms = inputs.split(",")
    letter = terms[list(operands).index(node)][at]
    return len(terms) > 1 and all(letter in term for term in (*terms, output))


def _moved(node: Node, user: Node, at: int) -> Iterator[tuple[Node, int]]:
    """Where a dimension of `node` is in what a user makes of it: nodes and dimensions, none where that is unclear."""
    rank = len(shape_of(node))
    if user.target in (aten.unbind.int, aten.select.int):
        dim = int(argument(user, 1, "dim", 0)) % rank
        if dim != at:
            for reader in user.users if user.target is aten.unbind.int else [user]:
                yield reader, at - (dim < at)
    elif isinstance(user.meta["val"], list | tuple):
        for reader in user.users:
            if len(shape_of(reader)) == rank and shape_of(reader)[at] == shape_of(node)[at]:
                yield reader, at
    elif user.target in PERMUTATIONS:
        yield user, order_of(user, rank).index(at)
    else:
        yield from _kept(shape_of(node), user, at)


def order_of(node: Node, rank: int) -> list[int]:
    """The dimensions of a permutation's input in the order of its output."""
    if node.target is aten.permute.default:
        return [int(dim) % rank for dim in argument(node, 1, "dims")]
    if node.target is aten.numpy_T.default:
        return list(range(rank))[::-1]
    order = list(range(rank))
    swapped = (-1, -2)
    if node.target is aten.transpose.int:
        swapped = (int(argument(node, 1, "dim0")), int(argument(node, 2, "dim1")))
    a, b = (dim % rank for dim in swapped)
    order[a], order[b] = order[b], order[a]
    return order


def _kept(old: tuple[int, ...], user: Node, at: int) -> Iterator[tuple[Node, int]]:
    """Operators that keep or repeat dimensions, and views: one begins where as many elements lie before it."""
    new = shape_of(user)
    if np.prod(old) == np.prod(new) and old != new:
        yield user, int(np.searchsorted(np.cumprod(new), np.prod(old[:at]), side="right"))
    elif len(old) == len(new):
        yield user, at
