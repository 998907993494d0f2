"""The learning rate as a function of how far a training is, and how far a step is."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

WARM_UP = 0.15
START = 25.0
END = 1e4


def learning_rate(schedule: str, peak: float, progress: float) -> float:
    """The learning rate at `progress` in [0, 1] of a training.

    `one-cycle` rises from peak / 25 over the first 15 % and falls to peak / 250,000, both along a cosine, as
    `torch.optim.lr_scheduler.OneCycleLR` does; `cosine` falls from the peak to 0.

    >>> learning_rate("one-cycle", 0.1, 0.15), learning_rate("cosine", 0.1, 0.5)
    (0.1, 0.05)
    """
    progress = min(max(progress, 0.0), 1.0)
    if schedule == "cosine":
        return _cosine(peak, 0.0, progress)
    if progress < WARM_UP:
        return _cosine(peak / START, peak, progress / WARM_UP)
    return _cosine(peak, peak / START / END, (progress - WARM_UP) / (1 - WARM_UP))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How steps map to progress: linear from (`since`, `done`) to (`steps`, 1).

    A deadline may change `steps` in mid-run; the progress made so far stays, so the learning rate does not jump.

    >>> pace = Pace(steps=11).until(21, at=5)
    >>> pace.progress(5), pace.progress(20)
    (0.5, 1.0)
    """

    steps: int
    since: int = 0
    done: float = 0.0

    def progress(self, step: int) -> float:
        """Progress in [0, 1] at `step`, which counts from 0; the last step is at 1."""
        left = self.steps - 1 - self.since
        return 1.0 if left <= 0 else self.done + (1 - self.done) * (step - self.since) / left

    def until(self, steps: int, *, at: int) -> Self:
        """This pace up to step `at`, and one that ends after `steps` steps from there on."""
        return type(self)(steps=steps, since=at, done=self.progress(at))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `Pace(**data)` takes it back."""
        return asdict(self)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
