"""Whether a model is right as often as it says it is, before and after.

The expected calibration error of C. Guo et al., *On Calibration of Modern Neural Networks* (ICML 2017), section 2: the
mean distance between confidence and accuracy over bins of confidence. Bins of equal mass instead of equal width, since
most confidences of a trained network lie in one bin of equal width (R. Roelofs et al., *Mitigating Bias in Calibration
Error Estimation*, AISTATS 2022); that of equal width is given beside it, by torchmetrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.stats import Estimate, resampled_sums
from edgekit.validate.behaviour.answers import Answers, Pair

BINS = 15
"""As in Guo et al."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Decisions of like confidence: mean confidence, share that is right (both in 0 to 1), and how many."""

    confidence: float
    accuracy: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {"confidence": self.confidence, "accuracy": self.accuracy, "n": self.n}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """One model.

    Args:
        ece: in points of 100, over bins of equal mass. An estimate of it from a sample is too large on average; its
            interval is that of the estimate's own scatter.
        ece_equal_width: over bins of equal width, by torchmetrics.
        confidence: mean confidence, in points; with `accuracy` it tells over- from under-confidence.
        accuracy: share of decisions that are right, in points.
        bins: by rising confidence.
    """

    ece: Estimate
    ece_equal_width: float
    confidence: float
    accuracy: float
    bins: tuple[Bin, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "ece": self.ece.to_dict(),
            "ece_equal_width": self.ece_equal_width,
            "confidence": self.confidence,
            "accuracy": self.accuracy,
            "bins": [each.to_dict() for each in self.bins],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Both models, and how much `ece` rose, in points of 100, on the same resamples."""

    reference: Reliability
    candidate: Reliability
    rise: Estimate

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "unit": "points",
            "interval": "bootstrap over samples, bins kept, centred on the estimate",
            "reference": self.reference.to_dict(),
            "candidate": self.candidate.to_dict(),
            "rise": self.rise.to_dict(),
        }


def calibration(pair: Pair, *, seed: int = 0) -> Calibration:
    """The calibration errors of both models over their decisions, and the rise.

    The confidence of a decision is the probability that the model gives to it; a label that is not given counts as a
    decision too.
    """
    spreads, found = [], []
    for answers in (pair.reference, pair.candidate):
        bin_of = _bins(answers.confidence)
        spread = _resampled(answers, bin_of, seed)
        value = _error(answers, bin_of)
        spreads.append((value, spread))
        found.append(
            Reliability(
                ece=_centred(value, spread, answers.n, floor=0.0),
                ece_equal_width=_equal_width(answers),
                confidence=100 * float(answers.confidence.mean()),
                accuracy=100 * float(answers.correct.mean()),
                bins=_means(answers, bin_of),
            )
        )
    (before, drawn_before), (after, drawn_after) = spreads
    rise = _centred(after - before, drawn_after - drawn_before, pair.reference.n)
    return Calibration(reference=found[0], candidate=found[1], rise=rise)


def _bins(confidence: np.ndarray) -> np.ndarray:
    """The bin of each decision [n, d]: equal mass as far as equal confidences, which stay together, allow."""
    edges = np.unique(np.quantile(confidence, np.arange(1, BINS) / BINS))
    return np.asarray(np.searchsorted(edges, confidence, side="right"))


def _gaps(answers: Answers) -> np.ndarray:
    return np.asarray(answers.correct - answers.confidence)


def _error(answers: Answers, bin_of: np.ndarray) -> float:
    # The sum over bins of n_bin / n |accuracy - confidence| is that of |sum of (right - confidence)| / n.
    sums = np.bincount(bin_of.reshape(-1), weights=_gaps(answers).reshape(-1), minlength=BINS)
    return 100 * float(np.abs(sums).sum()) / answers.confidence.size


def _resampled(answers: Answers, bin_of: np.ndarray, seed: int) -> np.ndarray:
    """The error on each resample of the samples, in points."""
    n, decisions = answers.confidence.shape
    flat = bin_of + BINS * np.arange(n)[:, None]
    gaps = np.bincount(flat.reshape(-1), weights=_gaps(answers).reshape(-1), minlength=n * BINS).reshape(n, BINS)
    return np.asarray(100 * np.abs(resampled_sums(gaps, seed=seed)).sum(axis=1) / (n * decisions))


def _centred(value: float, drawn: np.ndarray, n: int, floor: float = -np.inf) -> Estimate:
    """A bootstrap interval around the estimate: resampling adds noise to each bin, hence to the mean of the errors."""
    low, high = np.quantile(drawn, [0.025, 0.975]) - drawn.mean() + value
    return Estimate(value=value, low=max(min(float(low), value), floor), high=max(float(high), value), n=n)


def _equal_width(answers: Answers) -> float:
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    # The error of the decisions: "binary" takes a confidence, and whether it came true.
    sure = torch.from_numpy(np.ascontiguousarray(answers.confidence.reshape(-1)))
    right = torch.from_numpy(np.ascontiguousarray(answers.correct.reshape(-1).astype(np.int64)))
    return 100 * float(binary_calibration_error(sure, right, n_bins=BINS))


def _means(answers: Answers, bin_of: np.ndarray) -> tuple[Bin, ...]:
    sizes = np.bincount(bin_of.reshape(-1), minlength=BINS)
    sure = np.bincount(bin_of.reshape(-1), weights=answers.confidence.reshape(-1), minlength=BINS)
    right = np.bincount(bin_of.reshape(-1), weights=answers.correct.reshape(-1), minlength=BINS)
    return tuple(
        Bin(confidence=float(sure[index] / n), accuracy=float(right[index] / n), n=n)
        for index, n in enumerate(sizes.tolist())
        if n
    )
