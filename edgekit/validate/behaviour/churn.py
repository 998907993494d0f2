"""How many answers changed, and which way.

M. Milani Fard, Q. Cormier, K. Canini and M. Gupta, *Launch and Iterate: Reducing Prediction Churn* (NeurIPS 2016):
the churn of two classifiers is the share of samples that they answer differently, whatever their accuracies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit import stats
from edgekit.stats import Estimate
from edgekit.validate.behaviour.answers import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Churn:
    """Answers that changed, in percent of all of them: of samples, or of positions.

    Args:
        of: what is counted: `samples` or `positions`.
        interval: how the intervals were made.
        changed: the churn: all answers that are not what they were.
        fixed: wrong before, right now; None where nothing is right or wrong.
        broken: right before, wrong now.
        both_wrong: changed from one wrong answer to another.
        needed: the churn that no model with the new metric could avoid: the change of the share that is right.
        counts: how many are `n`, `changed`, `fixed`, `broken`, `both_wrong`.
    """

    of: str
    interval: str
    changed: Estimate
    fixed: Estimate | None
    broken: Estimate | None
    both_wrong: Estimate | None
    needed: float | None
    counts: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        parts = {name: getattr(self, name) for name in ("fixed", "broken", "both_wrong")}
        return {
            "of": self.of,
            "unit": "percent",
            "interval": self.interval,
            "changed": self.changed.to_dict(),
            **{name: None if part is None else part.to_dict() for name, part in parts.items()},
            "needed": self.needed,
            "counts": dict(self.counts),
        }


def churn(pair: Pair, *, seed: int = 0) -> Churn:
    """Count the answers that changed.

    Shares of samples have Wilson intervals. Positions of one sample are not independent, so their shares are
    bootstrapped over samples. A sample with several labels is right when all of them are.
    """
    before, after, changed = pair.reference.right, pair.candidate.right, pair.changed
    parts = {
        "changed": changed,
        "fixed": ~before & after,
        "broken": before & ~after,
        "both_wrong": changed & ~before & ~after,
    }
    positions = pair.reference.kind == "positions"

    def estimate(where: np.ndarray) -> Estimate:
        if positions:
            return stats.mean(100 * where.mean(axis=1), seed=seed)
        return stats.share(int(where.sum()), where.size)

    found = {name: estimate(where) for name, where in parts.items()}
    return Churn(
        of="positions" if positions else "samples",
        interval="bootstrap over samples" if positions else "Wilson",
        changed=found["changed"],
        fixed=found["fixed"],
        broken=found["broken"],
        both_wrong=found["both_wrong"],
        needed=abs(found["fixed"].value - found["broken"].value),
        counts={"n": changed.size, **{name: int(where.sum()) for name, where in parts.items()}},
    )


def disagreement(alike: np.ndarray) -> Churn:
    """The churn of a task without classes, where the task itself says which samples are answered alike.

    Args:
        alike: [n], 1 where both models say the same by `Task.agreement`.
    """
    changed = int((np.asarray(alike) < 1).sum())
    return Churn(
        of="samples",
        interval="Wilson",
        changed=stats.share(changed, len(alike)),
        fixed=None,
        broken=None,
        both_wrong=None,
        needed=None,
        counts={"n": len(alike), "changed": changed},
    )
