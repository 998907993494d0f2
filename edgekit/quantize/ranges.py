"""Ranges of activations from a stream of samples, in memory that does not grow with it."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from edgekit.errors import QuantizeError

Method = Literal["mse", "minmax", "percentile", "entropy"]
BINS = 4096
PERCENTILE = 99.99
SHRINKS = 100


class Histogram:
    """Counts of a value's magnitudes over [-limit, limit] in a fixed number of bins.

    Where a sample lies outside, the limit doubles and neighbouring bins are merged, so nothing is lost but resolution:
    the bins are limit / 2048 wide.

    >>> histogram = Histogram()
    >>> histogram.add(np.array([-1.0, 0.5, 3.0]))
    >>> histogram.low, histogram.high, int(histogram.counts.sum())
    (-1.0, 3.0, 3)
    """

    def __init__(self) -> None:
        self.limit = 0.0
        self.counts = np.zeros(BINS)
        self.low = self.high = 0.0

    def add(self, samples: np.ndarray, name: str = "value") -> None:
        """Count samples of any shape.

        Raises:
            QuantizeError: a sample is NaN or infinite.
        """
        flat = np.asarray(samples, np.float32).ravel()
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise QuantizeError(
                "NaN or infinite for a calibration sample",
                where=f"value {name!r}",
                rule="all activations are finite",
                way_out="look for NaN in the data, and for overflow in the model",
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        reach = max(abs(low), abs(high))
        if self.limit == 0.0 and reach > 0.0:
            # Zeros counted so far lie in the middle whatever the limit is.
            self.limit = max(reach, 1e-30)
        while self.limit < reach:
            inner = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([np.zeros(BINS // 4), inner, np.zeros(BINS // 4)])
            self.limit *= 2
        # Truncation rounds down since nothing is negative; four times as fast as np.histogram.
        bins = ((flat / np.float32(self.limit or 1.0) + 1) * np.float32(BINS / 2)).astype(np.int32)
        self.counts += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)

    def mirrored(self) -> Histogram:
        """Each sample and its negative: what a symmetric range is chosen from."""
        twin = Histogram()
        twin.limit, twin.counts = self.limit, self.counts + self.counts[::-1]
        twin.high = max(-self.low, self.high)
        twin.low = -twin.high
        return twin

    @property
    def centres(self) -> np.ndarray:
        """The middle of each bin: float64 [BINS]."""
        limit = self.limit or 1.0
        return (np.arange(BINS) + 0.5) * (2 * limit / BINS) - limit


def choose(histogram: Histogram, method: Method, levels: int = 256) -> tuple[float, float]:
    """The range (low <= 0 <= high) that `method` picks.

    minmax: all that was seen. percentile: the range that leaves out 0.005 % of the samples on each side. mse: the range
    with the least squared error of rounding and clipping together, over ranges that shrink both ends alike in 100 steps
    (as in R. Banner et al., *Post training 4-bit quantization*, 2019, section 3, by search). entropy: the range, among
    the same ones, whose integers tell most of the distribution: the least Kullback-Leibler divergence of what can be
    told apart from what was seen (S. Migacz, *8-bit Inference with TensorRT*, 2017), zeros left out: they are exact.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if method == "minmax" or high - low == 0.0 or not histogram.limit:
        return low, high
    centres, counts = histogram.centres, histogram.counts
    used = counts > 0
    if method == "entropy":
        used[BINS // 2] = False
        if not used.any():
            return low, high
    centres, counts = centres[used], counts[used]
    if method == "percentile":
        share = np.cumsum(counts) / counts.sum()
        outside = (1 - PERCENTILE / 100) / 2
        below = float(centres[np.searchsorted(share, outside)])
        above = float(centres[min(int(np.searchsorted(share, 1 - outside)), len(centres) - 1)])
        return max(low, min(below, 0.0)), min(high, max(above, 0.0))
    best, least = (low, high), math.inf
    for shrink in np.linspace(1.0, 0.2, SHRINKS).tolist():
        bottom, top = low * shrink, high * shrink
        step = (top - bottom) / (levels - 1)
        zero = np.round(-bottom / step)
        integers = np.clip(np.round(centres / step) + zero, 0, levels - 1)
        if method == "entropy":
            error = _divergence(counts, integers.astype(np.int64), (centres >= bottom) & (centres <= top))
        else:
            error = float((counts * ((integers - zero) * step - centres) ** 2).sum())
        if error < least:
            best, least = (bottom, top), error
    return best


def _divergence(counts: np.ndarray, integers: np.ndarray, inside: np.ndarray) -> float:
    """KL(P, Q) in nats: P has what was clipped in its outermost bins, Q spreads each integer evenly over its bins."""
    kept, first = np.flatnonzero(inside), integers[inside]
    if not len(kept):
        return math.inf
    told = (np.bincount(first, counts[kept]) / np.maximum(np.bincount(first), 1))[first]
    wanted = counts[kept].copy()
    wanted[0] += counts[: kept[0]].sum()
    wanted[-1] += counts[kept[-1] + 1 :].sum()
    share = wanted / wanted.sum()
    return float((share * np.log(share / (told / told.sum()))).sum())


def affine(low: float, high: float, dtype: str) -> tuple[float, int]:
    """Scale and zero point that map [low, high] to all 256 integers of `uint8` or `int8`; zero is exact.

    >>> affine(0.0, 127.5, "uint8")
    (0.5, 0)
    >>> affine(0.0, 127.5, "int8")
    (0.5, -128)
    """
    smallest = 0 if dtype == "uint8" else -128
    scale = (high - low) / 255
    if not scale > np.finfo(np.float32).tiny:
        return 1.0, smallest
    return scale, int(np.clip(round(-low / scale), 0, 255)) + smallest


def symmetric(high: float) -> tuple[float, int]:
    """Scale and zero point that map [-high, high] to the `int8` from -127 to 127.

    >>> symmetric(63.5)
    (0.5, 0)
    """
    scale = high / 127
    return (scale if scale > np.finfo(np.float32).tiny else 1.0), 0
