"""How far outputs moved, for tasks whose answers are quantities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit import stats
from edgekit.stats import Estimate, Z
from edgekit.validate.scoring import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Percentiles over samples with order-statistic intervals; None where the samples are too few to say."""

    p50: Estimate | None
    p90: Estimate | None
    p99: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            name: None if value is None else value.to_dict()
            for name, value in (("p50", self.p50), ("p90", self.p90), ("p99", self.p99))
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputChange:
    """How far the outputs of quantities moved.

    Args:
        change: of the mean absolute difference of the first output, sample by sample, in the output's unit.
        spread: standard deviation of the original's output over all samples, to hold `change` against.
        largest: the largest change of any element.
        reference: of the metric of single samples before, in the metric's unit.
        candidate: likewise, after.
        unit: of the metric.
    """

    change: Quantiles
    spread: float
    largest: float
    reference: Quantiles
    candidate: Quantiles
    unit: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "change": self.change.to_dict(),
            "spread": self.spread,
            "largest": self.largest,
            "reference": self.reference.to_dict(),
            "candidate": self.candidate.to_dict(),
            "unit": self.unit,
            "interval": "order statistics",
        }


def output_change(reference: Score, candidate: Score) -> OutputChange:
    """Compare the first outputs that two scores have kept."""
    n = min(len(reference.outputs[0]), len(candidate.outputs[0]))
    before = reference.outputs[0][:n].astype(np.float64)
    moved = np.abs(candidate.outputs[0][:n].astype(np.float64) - before).reshape(n, -1)
    return OutputChange(
        change=quantiles(moved.mean(axis=1)),
        spread=float(before.std()),
        largest=float(moved.max()),
        reference=quantiles(reference.per_sample),
        candidate=quantiles(candidate.per_sample),
        unit=reference.unit,
    )


def quantiles(samples: np.ndarray) -> Quantiles:
    """The 50th, 90th and 99th percentile of `samples` [n].

    The ends of an interval are order statistics whose ranks are 1.96 binomial standard deviations off (W. J. Conover,
    *Practical Nonparametric Statistics* (1999), section 3.2): no distribution is assumed.

    >>> quantiles(np.arange(1.0, 101.0)).p50
    Estimate(value=50.5, low=40.0, high=61.0, n=100)
    """
    values = np.sort(np.asarray(samples, dtype=np.float64))

    def estimate(q: int) -> Estimate | None:
        value = stats.percentile(values, q)
        if value is None:
            return None
        n, at = len(values), q / 100
        half = Z * math.sqrt(n * at * (1 - at))
        low, high = math.floor(n * at - half), math.ceil(n * at + half) + 1
        ends = values[max(low, 1) - 1], values[min(high, n) - 1]
        return Estimate(value=value, low=float(ends[0]), high=float(ends[1]), n=n)

    return Quantiles(p50=estimate(50), p90=estimate(90), p99=estimate(99))
