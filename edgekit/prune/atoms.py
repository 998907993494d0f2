"""Channels as atoms: a union-find over every index of every parameter dimension.

Coupling is tracked index by index, not dimension by dimension: two indexes that can only be removed together share a
class.
"""

from __future__ import annotations

import numpy as np

PINNED = 0
"""The atom of everything that must stay; what joins its class is frozen."""


class Atoms:
    """Disjoint classes of atoms, with the reasons why some are pinned."""

    def __init__(self) -> None:
        self._parent = [PINNED]
        self.reasons: list[tuple[int, str]] = []

    def fresh(self, count: int) -> np.ndarray:
        """`count` new atoms, each in a class of its own: int64 [count]."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def root(self, atom: int) -> int:
        """The class that `atom` is in."""
        parent = self._parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        """Couple two arrays of atoms of one shape, element by element."""
        for a, b in zip(left.ravel().tolist(), right.ravel().tolist(), strict=True):
            # The smaller one leads, so that whatever joins PINNED is found there.
            low, high = sorted((self.root(a), self.root(b)))
            self._parent[high] = low

    def pin(self, atoms: np.ndarray, reason: str) -> None:
        """Freeze `atoms`, and remember why."""
        for atom in np.unique(atoms).tolist():
            root = self.root(atom)
            if root != PINNED:
                self.reasons.append((atom, reason))
                self._parent[root] = PINNED

    def is_pinned(self, atom: int) -> bool:
        """Whether `atom` must stay."""
        return self.root(atom) == PINNED

    def stay_alike(self, left: np.ndarray, right: np.ndarray) -> bool:
        """Whether of two arrays of atoms of one shape, element by element, both are pinned or neither is."""
        pairs = zip(left.ravel().tolist(), right.ravel().tolist(), strict=True)
        return all(self.is_pinned(a) == self.is_pinned(b) for a, b in pairs)
