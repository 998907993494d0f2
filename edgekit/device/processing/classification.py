"""From a model's scores to names and confidences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np

from edgekit.device.processing import fields
from edgekit.errors import BundleError

Scores = Literal["softmax", "sigmoid", "probabilities"]
SCORES = ("softmax", "sigmoid", "probabilities")
MAX_TOP = 100
FEW = 32
"""Up to so many scores, Python's own numbers are faster than numpy's calls: 4 us against 13 us for 10 classes, after a
model that has taken the caches."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """The likeliest class of one sample, and how likely all are.

    `probabilities` is float64 [classes]; for a model of several labels at once (sigmoid) they need not add up to 1.
    `shown` is how many classes an app shows.
    """

    label: str
    index: int
    confidence: float
    probabilities: np.ndarray = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    shown: int = 1

    def top(self, k: int | None = None) -> tuple[tuple[str, float], ...]:
        """The `k` likeliest classes with their confidences, the likeliest first; as many as an app shows by default.

        Of equal ones, the class of the lower index comes first.
        """
        order = np.argsort(-self.probabilities, kind="stable")[: self.shown if k is None else k]
        return tuple((self.labels[index], float(self.probabilities[index])) for index in order.tolist())

    def __str__(self) -> str:
        return ", ".join(f"{label} ({confidence:.1%})" for label, confidence in self.top())

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "label": self.label,
            "index": self.index,
            "confidence": self.confidence,
            "top": [{"label": label, "confidence": confidence} for label, confidence in self.top()],
            "probabilities": self.probabilities.tolist(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationPostprocessing:
    """How an output becomes labels with confidences.

    Attributes:
        output: the model's output [samples, classes]; the bundle has a label for each class.
        scores: `softmax` and `sigmoid` turn logits into probabilities; `probabilities` takes them as they are.
        top: how many classes an app shows, 1 to 100.

    Raises:
        DataError: a field is out of range; the text names it.

    >>> read = ClassificationPostprocessing(output="y", top=2)
    >>> print(read.apply({"y": np.array([[0.0, 1.0]])}, ("cat", "dog"))[0])
    dog (73.1%), cat (26.9%)
    """

    kind: ClassVar[str] = "classification"
    side: ClassVar[str] = "postprocessing"

    output: str
    scores: Scores = "softmax"
    top: int = 1

    def __post_init__(self) -> None:
        fields.check_text(self, "output")
        fields.check_choice(self, "scores", SCORES)
        fields.check_whole(self, "top", 1, MAX_TOP)

    def apply(self, outputs: Mapping[str, np.ndarray], labels: Sequence[str]) -> tuple[Prediction, ...]:
        """A `Prediction` for each row of the output.

        Args:
            outputs: what the model put out, by name.
            labels: the classes' names.

        Raises:
            BundleError: there are not as many scores as labels.
        """
        scores, names = outputs[self.output], tuple(labels)
        if scores.ndim != 2 or scores.shape[1] != len(names) or not names:
            raise BundleError(
                f"scores {list(scores.shape)} for {len(labels)} labels",
                where=f"output {self.output!r}",
                rule="[samples, classes] with one score for each label",
                way_out="use `run` for the raw outputs",
            )
        if scores.size <= FEW and self.scores == "softmax":
            few = [_softmax(row) for row in scores.tolist()]
            return tuple([self._prediction(row.index(max(row)), max(row), np.array(row), names) for row in few])
        rows = probabilities(scores, self.scores)
        best = rows.argmax(axis=1).tolist()
        return tuple([self._prediction(at, row.item(at), row, names) for row, at in zip(rows, best, strict=True)])

    def _prediction(self, best: int, confidence: float, row: np.ndarray, labels: tuple[str, ...]) -> Prediction:
        return Prediction(
            label=labels[best], index=best, confidence=confidence, probabilities=row, labels=labels, shown=self.top
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return fields.write(self)

    @classmethod
    def from_dict(cls, data: object, where: str = "postprocessing", *, complete: bool = True) -> Self:
        """Read what `to_dict` wrote; without `complete`, keys that are missing have their defaults.

        Raises:
            DataError: a key is missing, unknown or of another type, or a value is out of range; the text says which.
        """
        return fields.read(cls, data, where, complete=complete)


def _softmax(scores: list[float]) -> list[float]:
    """The softmax of one row, as `probabilities` has it."""
    largest = max(scores)
    powers = [math.exp(score - largest) for score in scores]
    total = sum(powers)
    return [power / total for power in powers]


def probabilities(scores: np.ndarray, kind: Scores) -> np.ndarray:
    """Probabilities float64 of the same shape; softmax goes along the last axis."""
    exact = scores.astype(np.float64)
    if kind == "probabilities" or not exact.size:
        return exact
    if kind == "sigmoid":
        # exp of a non-positive number cannot overflow.
        small = np.exp(-np.abs(exact))
        each: np.ndarray = np.where(exact >= 0, 1 / (1 + small), small / (1 + small))
        return each
    # The reductions themselves: arrays' own methods for them cost more than they do, for so few numbers.
    exact -= np.maximum.reduce(exact, axis=-1, keepdims=True)
    powers: np.ndarray = np.exp(exact, out=exact)
    powers /= np.add.reduce(powers, axis=-1, keepdims=True)
    return powers
