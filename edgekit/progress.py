"""How long work tells how far it is, without knowing who looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Step:
    """One tick of long work: `done` of `total` units of `work`, with the figures worth showing beside it."""

    work: str
    done: int
    total: int
    figures: Mapping[str, float] = field(default_factory=dict)


Progress = Callable[[Step], None]
"""Takes every tick; must be cheap."""


def silent(step: Step) -> None:
    """The progress of those who do not look."""
    del step
