"""Which decisions to take together: a ladder of plans, each faster than the one before.

Every single decision (remove this block, narrow that group) has a damage, the rise of the loss that it causes alone,
and a gain, the measured latency that it saves alone in int8. Rungs collect decisions by damage per microsecond gained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

A = TypeVar("A")

FIRST_RATIO = 1.15
"""A rung that promises less is not worth a training of its own."""
NEXT_RATIO = 1.12
"""How much faster the next rung must promise to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Generic[A]):
    """One decision with its price.

    `subject` names what it decides about (a block, a group): of several choices on one subject a plan takes one.
    `damage` is the rise of the loss without any recovery, `gain_ms` the latency saved, both measured alone.
    """

    action: A
    subject: str
    text: str
    damage: float
    gain_ms: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {"subject": self.subject, "text": self.text, "damage": self.damage, "gain_ms": self.gain_ms}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung(Generic[A]):
    """Choices taken together, and how many times faster than the unpruned int8 file they promise to be."""

    choices: tuple[Choice[A], ...]
    predicted_ratio: float
    predicted_ms: float


def ladder(choices: Sequence[Choice[A]], *, baseline_ms: float, within: dict[str, str] | None = None) -> list[Rung[A]]:
    """Rungs of rising speed, cheapest damage per gain first.

    Args:
        choices: what can be decided; those that gain nothing are left out.
        baseline_ms: latency without any of them.
        within: for a subject that lies inside another one, that other one: with a block gone, its widths no longer
        matter.

    The prediction adds the gains up, which overstates them a little where choices overlap; what a rung really gives is
    measured before anything is decided on it.

    >>> both = [Choice(action=i, subject=s, text=s, damage=d, gain_ms=g) for i, (s, d, g) in
    ...         enumerate([("a", 0.1, 0.2), ("b", 0.5, 0.2)])]
    >>> [[c.subject for c in rung.choices] for rung in ladder(both, baseline_ms=1.0)]
    [['a'], ['a', 'b']]
    """
    inside = within or {}
    taken: dict[str, Choice[A]] = {}
    rungs: list[Rung[A]] = []
    ratio, left_ms = 1.0, baseline_ms
    while (best := _cheapest_step(choices, taken, inside)) is not None:
        taken[best.subject] = best
        taken = {name: choice for name, choice in taken.items() if inside.get(name) not in taken}
        left_ms = baseline_ms - sum(choice.gain_ms for choice in taken.values())
        if left_ms <= 0.05 * baseline_ms:  # Gains no longer add up: predictions beyond this are fiction.
            break
        ratio = baseline_ms / left_ms
        if ratio >= (FIRST_RATIO if not rungs else rungs[-1].predicted_ratio * NEXT_RATIO):
            rungs.append(Rung(choices=tuple(taken.values()), predicted_ratio=ratio, predicted_ms=left_ms))
    if taken and not rungs and ratio > 1:
        rungs.append(Rung(choices=tuple(taken.values()), predicted_ratio=ratio, predicted_ms=left_ms))
    return rungs


def _cheapest_step(
    choices: Sequence[Choice[A]], taken: dict[str, Choice[A]], inside: dict[str, str]
) -> Choice[A] | None:
    best, best_price = None, float("inf")
    for choice in choices:
        if inside.get(choice.subject) in taken:
            continue
        held = taken.get(choice.subject)
        gain = choice.gain_ms - (held.gain_ms if held else 0.0)
        damage = choice.damage - (held.damage if held else 0.0)
        price = max(damage, 1e-6) / gain if gain > 0 else float("inf")
        if price < best_price:
            best, best_price = choice, price
    return best
