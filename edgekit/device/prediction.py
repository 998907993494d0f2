"""From a model's scores to a name and a confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.device.manifest import Scores
from edgekit.errors import BundleError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """The likeliest class of one sample.

    `probabilities` is float64 [classes]; for a model of several labels at once (sigmoid) they need not add up to 1.
    """

    label: str
    index: int
    confidence: float
    probabilities: np.ndarray

    def __str__(self) -> str:
        return f"{self.label} ({self.confidence:.1%})"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "label": self.label,
            "index": self.index,
            "confidence": self.confidence,
            "probabilities": self.probabilities.tolist(),
        }


def predictions(scores: np.ndarray, labels: Sequence[str], kind: Scores) -> tuple[Prediction, ...]:
    """A `Prediction` for each row of `scores` [n, classes].

    Args:
        scores: what the model put out.
        labels: the classes' names.
        kind: `softmax` and `sigmoid` turn logits into probabilities; `probabilities` takes them as they are.

    Raises:
        BundleError: there are not as many scores as labels.

    >>> print(predictions(np.array([[0.0, 0.0]]), ("cat", "dog"), "softmax")[0])
    cat (50.0%)
    """
    if scores.ndim != 2 or scores.shape[1] != len(labels):
        raise BundleError(
            f"scores {list(scores.shape)} for {len(labels)} labels",
            where="the model's first output",
            rule="[samples, classes] with one score for each label",
            way_out="use `run` for the raw outputs",
        )
    rows = probabilities(scores.astype(np.float64), kind)
    return tuple(
        Prediction(label=labels[best], index=int(best), confidence=float(row[best]), probabilities=row)
        for row, best in zip(rows, rows.argmax(axis=1), strict=True)
    )


def probabilities(scores: np.ndarray, kind: Scores) -> np.ndarray:
    """Probabilities float64 [n, classes] from scores of the given kind."""
    if kind == "probabilities":
        return scores
    if kind == "sigmoid":
        # exp of a non-positive number cannot overflow.
        small = np.exp(-np.abs(scores))
        each: np.ndarray = np.where(scores >= 0, 1 / (1 + small), small / (1 + small))
        return each
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares
