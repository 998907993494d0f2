"""The plan that does least damage for a wanted gain, if damages and gains add up: a multiple-choice knapsack.

H. Kellerer, U. Pferschy and D. Pisinger, *Knapsack Problems* (2004), chapter 11, by dynamic programming over gains in
whole steps. Damages do not quite add up, so what it proposes is measured as a whole before anything is built on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from edgekit.compress.choice import Choice

A = TypeVar("A")

STEPS = 400
"""Gains are rounded to this fraction of the wanted one: a plan may miss it by half of that for each choice."""


def knapsack(choices: Sequence[Choice[A]], *, gain_ms: float, within: Mapping[str, str]) -> tuple[Choice[A], ...]:
    """Of all plans that gain at least `gain_ms` the one with the least sum of damages; empty where there is none.

    Args:
        choices: those that gain nothing are left out.
        gain_ms: milliseconds that the plan is to save.
        within: for a subject that lies inside another one, that other one; a plan decides about one of the two.

    >>> rows = (("a", 0.1, 0.2), ("b", 0.5, 0.3), ("b", 0.2, 0.1))
    >>> made = [Choice(action=i, subject=s, text=s, damage=d, gain_ms=g, gain_bytes=0)
    ...         for i, (s, d, g) in enumerate(rows)]
    >>> [choice.action for choice in knapsack(made, gain_ms=0.3, within={})]
    [0, 2]
    """
    useful = [choice for choice in choices if choice.gain_ms > 0]
    table: _Table[A] = _Table(gain_ms)
    # A subject with all that lies inside it, which goes with it or is decided about by itself.
    outer = {within.get(choice.subject, choice.subject) for choice in useful}
    for subject in sorted(outer):
        inner = sorted({choice.subject for choice in useful if within.get(choice.subject) == subject})
        whole = table.with_one_of([choice for choice in useful if choice.subject == subject])
        for each in inner:
            table = table.with_one_of([choice for choice in useful if choice.subject == each])
        table = table.or_better(whole)
    return table.taken[-1]


class _Table(Generic[A]):
    """For each gain in steps, up to the wanted one, the least damage that reaches it, and how."""

    def __init__(self, gain_ms: float) -> None:
        self.step = gain_ms / STEPS
        self.damage = np.full(STEPS + 1, np.inf)
        self.damage[0] = 0.0
        self.taken: list[tuple[Choice[A], ...]] = [() for _ in self.damage]

    def with_one_of(self, choices: Sequence[Choice[A]]) -> _Table[A]:
        """This table with at most one of some choices taken besides."""
        best = self._copy()
        for choice in choices:
            gain = round(choice.gain_ms / self.step)
            for before in np.flatnonzero(np.isfinite(self.damage)).tolist():
                # More than the wanted gain counts as that.
                after = min(before + gain, STEPS)
                damage = self.damage[before] + choice.damage
                if damage < best.damage[after]:
                    best.damage[after] = damage
                    best.taken[after] = (*self.taken[before], choice)
        return best

    def or_better(self, other: _Table[A]) -> _Table[A]:
        """At each gain the better of two tables."""
        best = self._copy()
        for index in np.flatnonzero(other.damage < self.damage).tolist():
            best.damage[index], best.taken[index] = other.damage[index], other.taken[index]
        return best

    def _copy(self) -> _Table[A]:
        twin: _Table[A] = _Table(self.step * STEPS)
        twin.damage, twin.taken = self.damage.copy(), list(self.taken)
        return twin
