"""Intervals and percentiles: every figure edgekit reports carries one.

Bootstrap percentile intervals as in B. Efron and R. Tibshirani, *An Introduction to the Bootstrap* (1993), section
13.3. Samples that were taken one after the other resemble their neighbours: for these, whole blocks of them are drawn
(`grouped_median`, `grouped_mean`, `grouped_percentile`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

RESAMPLES = 2000
Z = NormalDist().inv_cdf(0.975)
"""Standard errors on either side of a normal estimate that make a 95 % interval."""
MANY_GROUPS = 5
"""So many groups show well enough how groups differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval and the number of samples behind it."""

    value: float
    low: float
    high: float
    n: int

    def raised(self, errors: float) -> float:
        """The value with so many standard errors added, read off the width of the interval.

        >>> round(Estimate(value=1.0, low=0.804, high=1.196, n=100).raised(2), 3)
        1.2
        """
        return self.value + errors * (self.high - self.low) / (2 * Z)

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


def grouped_median(samples: np.ndarray, groups: Sequence[int] = (), *, seed: int = 0) -> Estimate:
    """Median of a time series `samples` [n] that was taken in one or several processes, with its 95 % interval.

    Neighbours in time are alike, so the bootstrap draws blocks of neighbours whose length comes from the series'
    autocorrelation (`block_length`). A process has a speed of its own (where its memory lies), so with several groups
    the value is the median of their medians, and the bootstrap draws groups (T. Kalibera and R. Jones, *Rigorous
    Benchmarking in Reasonable Time*, ISMM 2013). Groups are drawn whole: how their medians differ holds the noise
    within them already, and blocks drawn within them would count it twice (A. Davison and D. Hinkley, *Bootstrap
    Methods and their Application*, 1997, section 3.8); only from fewer than five groups, which may be alike by chance,
    blocks are drawn as well, and no interval is narrower than that of the blocks alone. A median, because a process
    that shared its core with other work is off by as much as ten per cent: a mean would follow it. Few groups vary less
    among themselves than they should: distances from the value are stretched by sqrt(g / (g - 1)).

    Args:
        samples: in the order in which they were taken, group after group.
        groups: how many samples each group has; empty for one group.
        seed: of the bootstrap.

    Raises:
        ValueError: there are no samples, or the groups are not made of them.

    >>> grouped_median(np.array([1.0, 1.0, 1.0, 3.0, 3.0, 3.0]), (3, 3)).value
    2.0
    """
    return _grouped(samples, groups, "median", seed)


def grouped_mean(samples: np.ndarray, groups: Sequence[int] = (), *, seed: int = 0) -> Estimate:
    """Mean of a time series, of several groups the mean of their means; else as `grouped_median`.

    >>> grouped_mean(np.ones(10), (5, 5)).high
    1.0
    """
    return _grouped(samples, groups, "mean", seed)


def grouped_percentile(
    samples: np.ndarray, rounds: int, q: float, groups: Sequence[int] = (), *, seed: int = 0
) -> Estimate | None:
    """The q-th percentile of `samples` [rounds * k] with its 95 % interval, or None where they are too few for either.

    The samples of a round are alike, so whole rounds are drawn, in blocks: how the share of samples beyond the
    percentile varies gives the interval (R. Woodruff, *Confidence Intervals for Medians and Other Position Measures*,
    JASA 1952). Where that share could as well be none, as if all of them came in one bad moment, there is no interval.

    Args:
        samples: the same number from each round, round after round.
        rounds: how many rounds there were.
        q: 0 < q < 100.
        groups: how many rounds each process had; empty for one process.
        seed: of the bootstrap.

    Raises:
        ValueError: the samples are not of so many rounds, or the groups are not made of them.
    """
    value = percentile(samples, q)
    if value is None:
        return None
    samples = _checked(samples)
    if len(samples) % rounds:
        raise ValueError(f"{len(samples)} samples of {rounds} rounds: not the same number from each")
    beyond = (samples.reshape(rounds, -1) > value).mean(axis=1)
    # The share beyond the value itself is at most 1 - q: ties at the value belong to neither side.
    share = _grouped(beyond, groups, "mean", seed)
    low, high = share.low + (1 - q / 100 - share.value), share.high + (1 - q / 100 - share.value)
    if low * len(samples) < 1 or high >= 1:
        return None
    return Estimate(
        value=value,
        low=float(np.quantile(samples, 1 - high)),
        high=float(np.quantile(samples, 1 - low)),
        n=len(samples),
    )


def block_length(samples: np.ndarray) -> int:
    """How many neighbours in a time series `samples` [n] are drawn together, from its autocorrelation.

    D. Politis and H. White, *Automatic Block-Length Selection for the Dependent Bootstrap* (2004), for circular blocks,
    with the correction of 2009; on ranks, which outliers do not reach.

    >>> block_length(np.random.default_rng(0).standard_normal(400)) < 5
    True
    """
    samples = _checked(samples)
    n = len(samples)
    if n < 8 or np.ptp(samples) == 0:
        return 1
    ranks = np.argsort(np.argsort(samples, kind="stable"), kind="stable") - (n - 1) / 2
    quiet = max(5, math.ceil(math.log10(n)))
    reach = min(n // 2, math.ceil(math.sqrt(n)) + quiet)
    covariance = np.array([ranks[: n - lag] @ ranks[lag:] for lag in range(2 * reach + 1) if lag < n]) / n
    large = np.abs(covariance / covariance[0]) >= 2 * math.sqrt(math.log10(n) / n)
    # The last lag before as many quiet ones as could not be chance.
    last = next((lag for lag in range(reach) if not large[lag + 1 : lag + 1 + quiet].any()), reach)
    lags = np.arange(1, min(2 * max(last, 1), len(covariance) - 1) + 1)
    weight = np.clip(2 * (1 - lags / lags[-1]), 0, 1)
    spectrum = covariance[0] + 2 * float(weight @ covariance[lags])
    slope = 2 * float((weight * lags) @ covariance[lags])
    if spectrum <= 0:
        return 1
    length = (1.5 * (slope / spectrum) ** 2 * n) ** (1 / 3)
    return int(max(1, min(math.ceil(length), math.ceil(3 * math.sqrt(n)), n // 3)))


def _grouped(samples: np.ndarray, groups: Sequence[int], statistic: Literal["mean", "median"], seed: int) -> Estimate:
    samples = _checked(samples)
    if groups and (sum(groups) != len(samples) or min(groups) < 1):
        raise ValueError(f"groups {list(groups)} of {len(samples)} samples")
    parts = np.split(samples, np.cumsum(groups)[:-1]) if groups else [samples]
    of = np.mean if statistic == "mean" else np.median
    values = np.array([of(part) for part in parts])
    value, count = float(of(values)), len(parts)
    rng = np.random.default_rng(seed)
    draws = np.stack([np.concatenate([of(drawn, axis=1) for drawn in _in_blocks(part, rng)]) for part in parts])

    def reach(drawn: np.ndarray) -> np.ndarray:
        """How far the interval reaches below and above the value."""
        low, high = np.quantile(drawn, [0.025, 0.975])
        return np.maximum(0.0, [value - low, high - value])

    if count == 1:
        below, above = reach(draws[0])
    else:
        which, stretch = rng.integers(0, count, (count, RESAMPLES)), math.sqrt(count / (count - 1))
        if count < MANY_GROUPS:
            below, above = stretch * reach(of(draws[which, rng.integers(0, RESAMPLES, which.shape)], axis=0))
        else:
            below, above = np.maximum(stretch * reach(of(values[which], axis=0)), reach(of(draws, axis=0)))
    return Estimate(value=value, low=value - float(below), high=value + float(above), n=len(samples))


def _in_blocks(samples: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """`RESAMPLES` series [m, n] of blocks of `samples` [n], in slices so that long ones do not fill the memory."""
    n, length = len(samples), block_length(samples)
    blocks, step = -(-n // length), max(1, 2_000_000 // n)
    for start in range(0, RESAMPLES, step):
        first = rng.integers(0, n, (min(step, RESAMPLES - start), blocks, 1))
        yield samples[((first + np.arange(length)) % n).reshape(len(first), -1)[:, :n]]


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
