"""Which rung to aim at: each is recovered for a moment, and what is left of its drop tells how a long recovery ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.compress.budget import Budget
from edgekit.compress.ladder import Rung
from edgekit.compress.recovery import Recovered, recover
from edgekit.compress.run import Run
from edgekit.prune import Action, Coupling, combine
from edgekit.stats import Estimate
from edgekit.transfer import Teaching
from edgekit.validate import Score, compare, score_torch

SHARE = 0.03
"""Of the time budget, for the short recovery of one rung."""
MOST_SCREENED = 4
RATE = 0.3
"""Share of the learning rate. There is no time to come down from more: ResNet-20 on CIFAR-10 (JPEG) was left with 1.36
points after two epochs at the whole rate, with 1.08 at a third of it. After three epochs it no longer matters."""
RECOVERY_EXPONENT = 0.5
"""With so many times the training, the drop is divided by that number to this power.

Measured over 14 recoveries of ResNet-20, ResNet-56, MobileNetV2 and a small vision transformer, of 6 to 18 times the
training of their screening: the powers lie between 0.1 and 1.7, half of them above 0.6. Those below 0.4 are drops of
half a point, of which most is noise, and the transformer.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """A rung after a short recovery: its drop on the selection split in points, and its weights.

    `left` is the share of the drop that a long recovery is expected to leave.
    """

    rung: int
    drop: Estimate
    recovered: Recovered
    left: float

    @property
    def expected(self) -> Estimate:
        """The drop that a long recovery is expected to leave, which will be known no better than the one there is."""
        value = self.left * self.drop.value if self.drop.value > 0 else self.drop.value
        less = self.drop.value - value
        return replace(self.drop, value=value, low=self.drop.low - less, high=self.drop.high - less)

    def should_hold(self, budget: Budget) -> bool:
        """Whether it is expected to be accepted.

        With the margin of that decision: a short budget has time for a single round, which must not be in vain.
        """
        return budget.allows(budget.cautious(self.expected))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {"rung": self.rung, "drop": self.drop.to_dict(), "expected_drop": self.expected.value}


def screen(
    run: Run, rungs: Sequence[Rung[Action]], coupling: Coupling, *, taught: Teaching, reserve_s: float
) -> list[Screened]:
    """Recover rungs for a moment, each from the weights of a milder one where its plan includes that one's.

    A single rung needs no choice, and no drop is too large without a limit. `reserve_s` of the time left is for what
    comes after recoveries.
    """
    budget = run.budget
    if len(rungs) < 2 or budget.max_drop is None:
        return []
    left = left_after(SHARE * budget.time_s, run.left_s - reserve_s - MOST_SCREENED * SHARE * budget.time_s)
    reference = _score(run, None)
    found: list[Screened] = []
    while (rung := next_to_screen(found, len(rungs), budget)) is not None:
        plan = combine(coupling, [choice.action for choice in rungs[rung].choices])
        milder = [each for each in found if each.rung < rung and plan.includes(each.recovered.plan)]
        recovered = recover(
            run,
            f"screening-rung-{rung + 1}",
            plan,
            max(milder, key=lambda each: each.rung).recovered if milder else None,
            taught,
            deadline_s=SHARE * budget.time_s,
            seed=100 + rung,
            rate=RATE,
        )
        drop = compare(_score(run, recovered), reference, run.workload.task).drop
        found.append(Screened(rung=rung, drop=drop, recovered=recovered, left=left))
    return found


def left_after(short_s: float, long_s: float) -> float:
    """The share of the drop after a training of `short_s` that `long_s` more are expected to leave.

    >>> left_after(10.0, 150.0)
    0.25
    """
    return float((short_s / (short_s + max(long_s, 0.0))) ** RECOVERY_EXPONENT)


def next_to_screen(found: Sequence[Screened], rungs: int, budget: Budget) -> int | None:
    """The rung in the middle between the boldest that should hold and the mildest that should not; None at the end."""
    holds = max((each.rung for each in found if each.should_hold(budget)), default=-1)
    fails = min((each.rung for each in found if not each.should_hold(budget)), default=rungs)
    return (holds + fails) // 2 if fails - holds > 1 and len(found) < MOST_SCREENED else None


def _score(run: Run, recovered: Recovered | None) -> Score:
    """Score a network in PyTorch on the selection split: close enough to choose where to begin, and no export."""

    def make(folder: Path) -> None:
        model = run.model if recovered is None else recovered.model(run)
        score_torch(
            model,
            run.workload.splits.selection,
            run.workload.task,
            seed=run.settings.seed,
            progress=run.progress,
        ).save(folder)

    key = {"folder": "" if recovered is None else recovered.folder.name}
    return Score.load(run.stage("score-torch" if recovered is None else f"score-{recovered.folder.name}", key, make))
