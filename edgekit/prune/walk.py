"""What the rules share: values made of atoms, and the walk over the graph that finds them.

A value is known by its dimensions: an array of atoms (one per index) for a dimension that carries channels, None for
one that does not (batch, space, time).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.fx import Node

from edgekit.prune.atoms import Atoms

Dim = np.ndarray | None
Value = tuple[Dim, ...]
Values = Value | list[Value]


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
