"""What the rules share: values made of atoms, and the walk over the graph that finds them.

A value is known by its dimensions: an array of atoms (one per index) for a dimension that carries channels, None for
one that does not (batch, space, time).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from edgekit.prune.atoms import Atoms

Dim = np.ndarray | None
Value = tuple[Dim, ...]
Values = Value | list[Value]
Sized = tuple[Sequence[Dim], Sequence[int]]
"""Dimensions with their sizes."""


class Walk:
    """What the rules share: the values found so far, the atoms, and shapes."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self.values: dict[Node, Values] = {}
        self.normalizing: frozenset[Node] = frozenset()
        """What modules compute that normalize over channels: those that stay are read without the others."""

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


def broadcast_batch(walk: Walk, node: Node, left: Sized, right: Sized, *, fixed: bool = True) -> list[Dim]:
    """Dimensions of two operands before those that a product works on, aligned from the right; equal sizes join.

    Args:
        walk: of the graph.
        node: the product.
        left: dimensions and sizes of one operand, the longer one.
        right: of the other.
        fixed: whether a dimension of `right` without channels freezes the channels of `left`.
    """
    result = list(left[0])
    offset = len(left[1]) - len(right[1])
    for index, (dim, size) in enumerate(zip(*right, strict=True)):
        at = index + offset
        if size == left[1][at]:
            if dim is not None or fixed:
                result[at] = walk.couple(result[at], dim, f"{node.name} meets a fixed size")
        elif size == 1:
            walk.pin((dim,), f"{node.name} stretches it")
        else:
            walk.pin((result[at],), f"{node.name} stretches it")
            result[at] = dim
    return result


def carries_channels(value: Values) -> bool:
    """Whether any dimension of a value, or of one of several, has channels."""
    return any(dim is not None for part in (value if isinstance(value, list) else [value]) for dim in part)


def alive(nodes: Iterable[Node]) -> list[Node]:
    """The nodes that an output depends on, in their order."""
    found: set[Node] = set()
    for node in reversed(listed := list(nodes)):
        if node.op != "call_function" or any(user in found for user in node.users):
            found.add(node)
    return [node for node in listed if node in found]


def modules_of(node: Node) -> list[str]:
    """The names of the modules that a node was traced in, the outermost first."""
    stack = node.meta.get("nn_module_stack") or {}
    names = (str(name) for name, _ in stack.values())
    return [name.removeprefix("L['self'].").replace("L['self']", "") for name in names]


UNKNOWN = -1
"""A size that depends on values, such as the number of tokens that a mask picks out."""


def shape_of(node: Node) -> tuple[int, ...]:
    """The shape of a node's output in the traced example."""
    return sizes_of(node.meta["val"])


def sizes_of(value: Tensor) -> tuple[int, ...]:
    """The shape of a traced tensor, `UNKNOWN` where it depends on values."""
    return tuple(UNKNOWN if free_unbacked_symbols(size) else int(size) for size in value.shape)


def argument(node: Node, index: int, name: str, default: Any = None) -> Any:
    """An operator's argument, by position or by name."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)
