"""Intervals and percentiles: every figure edgekit reports carries one.

Bootstrap percentile intervals as in B. Efron and R. Tibshirani, *An Introduction to the Bootstrap* (1993), section
13.3.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

RESAMPLES = 2000
Z = NormalDist().inv_cdf(0.975)
"""Standard errors on either side of a normal estimate that make a 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval and the number of samples behind it."""

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)


def _bootstrap(samples: np.ndarray, statistic: Literal["mean", "median"], seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    n = len(samples)
    # In slices, so that 10,000 samples do not need 2,000 x 10,000 indexes at once.
    step = max(1, 2_000_000 // n)
    drawn = (samples[rng.integers(0, n, (min(step, RESAMPLES - start), n))] for start in range(0, RESAMPLES, step))
    values = np.concatenate([np.mean(d, axis=1) if statistic == "mean" else np.median(d, axis=1) for d in drawn])
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def mean(samples: np.ndarray, *, seed: int = 0) -> Estimate:
    """Mean of `samples` [n] with its bootstrap 95 % interval.

    >>> mean(np.ones(10)).value
    1.0
    """
    samples = _checked(samples)
    low, high = _bootstrap(samples, "mean", seed)
    return Estimate(value=float(np.mean(samples)), low=low, high=high, n=len(samples))


def median(samples: np.ndarray, *, seed: int = 0) -> Estimate:
    """Median of `samples` [n] with its bootstrap 95 % interval."""
    samples = _checked(samples)
    low, high = _bootstrap(samples, "median", seed)
    return Estimate(value=float(np.median(samples)), low=low, high=high, n=len(samples))


def median_ratio(baseline: np.ndarray, candidate: np.ndarray, *, seed: int = 0) -> Estimate:
    """How many times faster `candidate` [rounds] is than `baseline` [rounds], timed in the same interleaved rounds.

    Pairing by round cancels the drift of a shared machine: the estimate is the median over rounds of
    `baseline[i] / candidate[i]`, its interval the bootstrap over rounds.

    >>> median_ratio(np.array([2.0, 4.0]), np.array([1.0, 2.0])).value
    2.0
    """
    baseline, candidate = _checked(baseline), _checked(candidate)
    if baseline.shape != candidate.shape:
        raise ValueError(f"paired samples need equal lengths, got {len(baseline)} and {len(candidate)}")
    return median(baseline / candidate, seed=seed)


def percentile(samples: np.ndarray, q: float) -> float | None:
    """The q-th percentile (0 < q < 100), or None where `samples` [n] are too few to say.

    A percentile needs at least one sample beyond it with 95 % confidence: n >= ln(0.05) / ln(q / 100), hence 29 for
    p90, 299 for p99 and 2,995 for p99.9 (S. S. Wilks, *Determination of Sample Sizes for Setting Tolerance Limits*,
    1941).

    >>> percentile(np.arange(28.0), 90) is None, percentile(np.arange(29.0), 90) is None
    (True, False)
    """
    if not 0 < q < 100:
        raise ValueError(f"q is {q}: a percentile lies between 0 and 100")
    samples = _checked(samples)
    return float(np.percentile(samples, q)) if len(samples) >= needed_samples(q) else None


def needed_samples(q: float) -> int:
    """How many samples the q-th percentile needs; see `percentile`."""
    return math.ceil(round(math.log(0.05) / math.log(q / 100), 9))


def simultaneous_z(comparisons: int) -> float:
    """The `Z` with which that many independent intervals hold all together with 95 % (Z. Šidák, 1967).

    >>> round(simultaneous_z(1), 2), round(simultaneous_z(10), 2)
    (1.96, 2.8)
    """
    return NormalDist().inv_cdf((1 + 0.95 ** (1 / max(comparisons, 1))) / 2)


def share(count: int, n: int) -> Estimate:
    """`count` of `n` in percent, with the score interval of E. B. Wilson (1927), which holds near 0 and 100 % too.

    L. D. Brown, T. T. Cai and A. DasGupta, *Interval Estimation for a Binomial Proportion* (2001) recommend it.

    >>> share(0, 10).value, round(share(0, 10).high, 1)
    (0.0, 27.8)
    """
    if not 0 <= count <= n or n < 1:
        raise ValueError(f"{count} of {n} is no share")
    centre = (count + Z**2 / 2) / (n + Z**2)
    half = Z * math.sqrt(count * (n - count) / n + Z**2 / 4) / (n + Z**2)
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    # Exactly 0 and 1 at the ends, where rounding would leave the value outside of its interval.
    return Estimate(
        value=100 * count / n, low=100 * low if count else 0.0, high=100 * high if count < n else 100.0, n=n
    )


def paired_loss(lost: int, won: int, n: int, *, z: float = Z) -> Estimate:
    """The share of `n` pairs that one side loses, in points of 100: (`lost` - `won`) / `n`, and its interval.

    Half a pair is added to each of the four cells, as A. Agresti and Y. Min recommend (*Simple improved confidence
    intervals for comparing matched proportions*, Statistics in Medicine 24, 2005): the interval has a width where no
    pair changed, which a bootstrap's has not. It is widened to hold the value itself, which it may leave out at the
    ends of the scale.

    >>> paired_loss(2, 1, 10).value
    10.0
    """
    if min(lost, won) < 0 or lost + won > n or n < 1:
        raise ValueError(f"{lost} lost and {won} won of {n} pairs")
    value, centre = (lost - won) / n, (lost - won) / (n + 2)
    half = z * math.sqrt(lost + won + 1 - (lost - won) ** 2 / (n + 2)) / (n + 2)
    low, high = min(max(centre - half, -1.0), value), max(min(centre + half, 1.0), value)
    return Estimate(value=100 * value, low=100 * low, high=100 * high, n=n)


def resampled_sums(rows: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Sums over `rows` [n, k], drawn again with replacement: float64 [RESAMPLES, k].

    For statistics that are functions of sums, such as ratios; the same `seed` and n draw the same rows.
    """
    rng = np.random.default_rng(seed)
    n = len(rows)
    step = max(1, 4_000_000 // n)
    sums = []
    for start in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - start)
        drawn = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=size * n).reshape(size, n)
        sums.append(counts.astype(np.float64) @ rows)
    return np.concatenate(sums)


def _checked(samples: np.ndarray) -> np.ndarray:
    array = np.asarray(samples, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"expected a non-empty one-dimensional array, got shape {array.shape}")
    return array
