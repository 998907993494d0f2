"""What two models say about the same samples, as decisions with a confidence: what the comparisons start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgekit.errors import DataError
from edgekit.tasks import Task
from edgekit.tasks.labels import NO_LABEL
from edgekit.validate.scoring import Score

Kind = Literal["classes", "positions", "labels"]
"""One class a sample; one class at each position of a sample (segmentation, sequences); labels that each may hold."""

CONTINUOUS = {
    "regression": "its outputs are quantities, which are in no class and are neither right nor wrong",
    "reconstruction": "its outputs are signals, which are in no class and are neither right nor wrong",
    "imitation": "its data carry no labels, and what the original says may be no class",
}
"""The tasks without classes, and why."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """The decisions of one model, d for each of n samples: 1 for classes, the positions, or the labels.

    Args:
        kind: what the d decisions of a sample are.
        classes: how many classes or labels there are.
        predicted: int64 [n, d]: the class, or 1 where a label is given.
        confidence: float64 [n, d]: the probability that the model gives to its decision.
        truth: int64 [n, d].
    """

    kind: Kind
    classes: int
    predicted: np.ndarray
    confidence: np.ndarray
    truth: np.ndarray

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.truth)

    @property
    def correct(self) -> np.ndarray:
        """Bool [n, d]: which decisions are right."""
        return np.asarray(self.predicted == self.truth)

    @property
    def right(self) -> np.ndarray:
        """Bool [n, 1], or [n, d] for positions: what is right as a whole; a sample with labels when all are."""
        return np.asarray(self.correct.all(axis=1, keepdims=True) if self.kind == "labels" else self.correct)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """The answers of the reference and of the candidate to the same samples, and what was assumed to read them."""

    reference: Answers
    candidate: Answers
    note: str = ""

    @property
    def changed(self) -> np.ndarray:
        """Bool [n, 1], or [n, d] for positions: where the two say different things."""
        differs = self.reference.predicted != self.candidate.predicted
        return np.asarray(differs.any(axis=1, keepdims=True) if self.reference.kind == "labels" else differs)


def read(reference: Score, candidate: Score, task: Task) -> Pair | str:
    """The decisions in the outputs that two scores have kept; in words why there are none.

    Raises:
        DataError: outputs are NaN or infinite, or the two scores are not of the same samples.
    """
    if reference.n != candidate.n:
        raise DataError(
            f"{candidate.n} samples against {reference.n}",
            where="behaviour",
            rule="both files are scored on the same samples",
            way_out="score both with the same data, task and limit",
        )
    if task.name in CONTINUOUS:
        return f"none for the task {task.name}: {CONTINUOUS[task.name]}"
    n = min(len(reference.outputs[0]), len(candidate.outputs[0]))
    if reference.target is None:
        return f"none for the task {task.name}: its targets are no single array"
    target, ours, theirs = reference.target[:n], reference.outputs[0][:n], candidate.outputs[0][:n]
    if target.ndim > 1 and np.issubdtype(target.dtype, np.integer) and (target == NO_LABEL).any():
        share = float((target == NO_LABEL).mean())
        return f"none for the task {task.name}: {share:.0%} of the positions have no label ({NO_LABEL})"
    for values in (ours, theirs):
        _finite(values)
    kind = _kind(task, ours, target)
    if kind is None:
        return (
            f"none for the task {task.name}: its outputs {list(ours.shape)} and targets {target.dtype} "
            f"{list(target.shape)} are not those of classes or labels"
        )
    known = task.name in ("classification", "multilabel")
    note = "" if known else f"the outputs of the task {task.name} are read as those of {kind}, which their shapes fit"
    # A share where it has been one before compression: quantized probabilities need not sum to 1. The metric of the
    # task multilabel takes logits, whatever they are.
    decide = _labels if kind == "labels" else _classes
    shares = (kind != "labels" or not known) and _are_shares(ours, kind)
    if shares:
        note = "; ".join(
            [*([note] if note else []), "the outputs are taken for probabilities, since they are in [0, 1]"]
        )
    return Pair(
        reference=decide(ours, target, kind, shares=shares),
        candidate=decide(theirs, target, kind, shares=shares),
        note=note,
    )


def _finite(values: np.ndarray) -> None:
    bad = int((~np.isfinite(values.reshape(len(values), -1))).any(axis=1).sum())
    if bad:
        raise DataError(
            f"the outputs are NaN or infinite for {bad} of {len(values)} samples",
            where="behaviour",
            rule="every output is finite, so that it says something",
            way_out="look for overflow in the model (fp16 ends at 65504)",
        )


def _kind(task: Task, outputs: np.ndarray, target: np.ndarray) -> Kind | None:
    """What the outputs decide; by the task's name where edgekit knows it, else by shapes and values."""
    if task.name == "multilabel":
        return "labels"
    integer = np.issubdtype(target.dtype, np.integer) or target.dtype == bool
    fits = outputs.ndim >= 2 and (len(outputs), *outputs.shape[2:]) == target.shape and integer
    if fits and outputs.shape[1] >= 2 and target.size and target.min() >= 0 and target.max() < outputs.shape[1]:
        return "classes" if outputs.ndim == 2 else "positions"
    if task.name == "classification":
        return "classes" if outputs.ndim == 2 else "positions"
    binary = outputs.size == target.size and bool(np.isin(target, (0, 1)).all())
    return "labels" if binary and np.issubdtype(outputs.dtype, np.floating) else None


def _are_shares(outputs: np.ndarray, kind: Kind) -> bool:
    """Whether a model's outputs are probabilities already: all in [0, 1], and those of classes sum to 1."""
    if outputs.min() < 0 or outputs.max() > 1:
        return False
    return kind == "labels" or bool(np.allclose(outputs.astype(np.float64).sum(axis=1), 1, atol=1e-3))


def _classes(outputs: np.ndarray, target: np.ndarray, kind: Kind, *, shares: bool) -> Answers:
    n, classes = outputs.shape[:2]
    # Half precision would round the sum of the softmax.
    values = outputs.reshape(n, classes, -1).astype(np.promote_types(outputs.dtype, np.float32), copy=False)
    best = values.max(axis=1)
    # The softmax of the largest one alone.
    confidence = best if shares else 1 / np.exp(values - best[:, None]).sum(axis=1, dtype=np.float64)
    return Answers(
        kind=kind,
        classes=classes,
        predicted=values.argmax(axis=1),
        confidence=np.clip(confidence.astype(np.float64), 0.0, 1.0),
        truth=target.reshape(n, -1).astype(np.int64),
    )


def _labels(outputs: np.ndarray, target: np.ndarray, kind: Kind, *, shares: bool) -> Answers:
    values = outputs.reshape(len(outputs), -1).astype(np.float64)
    # exp of what is below zero cannot overflow.
    sure = np.maximum(values, 1 - values) if shares else 1 / (1 + np.exp(-np.abs(values)))
    return Answers(
        kind=kind,
        classes=values.shape[1],
        predicted=(values > (0.5 if shares else 0)).astype(np.int64),
        confidence=np.clip(sure, 0.0, 1.0),
        truth=(target.reshape(len(values), -1) > 0).astype(np.int64),
    )
