"""How likely rungs are to hold after a recovery, and of which the most can be expected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from edgekit.compress.budget import Budget
from edgekit.compress.ladder import Rung
from edgekit.compress.screening import Screened
from edgekit.prune import Action
from edgekit.stats import Estimate

UNSURE = 0.3
"""Share of an expected drop by which recoveries miss it: those of ResNet-56 on CIFAR-10 (JPEG) that followed on another
ended 0.1 to 0.3 of the drop beside it, beyond the noise of the selection split."""


def screened_drops(rungs: Sequence[Rung[Action]], screened: Sequence[Screened]) -> np.ndarray:
    """What a short recovery leaves of each rung's drop in points, float64 [rungs].

    Between screened rungs it is taken to rise with the damage, from nothing where there is none; beyond them it stays.
    """
    known = sorted((max(rungs[each.rung].damage, 0.0), each.drop.value) for each in screened)
    damages, drops = zip((0.0, 0.0), *known, strict=True)
    found: np.ndarray = np.interp([max(rung.damage, 0.0) for rung in rungs], damages, drops)
    for each in screened:
        found[each.rung] = each.drop.value  # However it stands among damages that are alike.
    return found


def chance(drop: float, like: Estimate, budget: Budget) -> float:
    """How likely a recovery that should leave `drop` points is to hold the limit with the margin of that decision.

    Args:
        drop: points that are expected.
        like: a drop on the same split, whose standard error the next one will have, too.
        budget: with a limit on the drop.
    """
    assert budget.max_drop is not None
    error = like.raised(1.0) - like.value
    spread = math.hypot(error, UNSURE * max(drop, 0.0))
    most = budget.max_drop - (budget.cautious(like) - like.value)
    return NormalDist().cdf((most - drop) / spread) if spread else float(drop <= most)


def surest(rungs: Sequence[Rung[Action]], expected: Mapping[int, float], like: Estimate, budget: Budget) -> int:
    """The rung of which the most latency is expected to be saved: by its chance to hold, since else nothing is.

    Args:
        rungs: the ladder.
        expected: of each rung that may be gone for, the points that it should lose.
        like: see `chance`.
        budget: see `chance`.

    Raises:
        ValueError: there is no rung to go for.
    """

    def worth(rung: int) -> float:
        return chance(expected[rung], like, budget) * (1 - 1 / rungs[rung].predicted_ratio)

    return max(expected, key=worth)
