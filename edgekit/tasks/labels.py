"""Tasks whose answer is a label, or several."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor

from edgekit.errors import DataError
from edgekit.tasks.outputs import outputs_of
from edgekit.tasks.task import Arrays, Task, finite, given, same_shape

NO_LABEL = -100
"""What stands where there is no label; torch's cross entropy leaves it out."""


def classification(*, label_smoothing: float = 0.0) -> Task:
    """One label per sample (or per position): logits [n, classes, ...], integer targets [n, ...].

    Positions whose target is -100 have no label (padding of a text, the edge of an object) and do not count; each
    sample has to have one at some position. The loss is the cross entropy; distillation is T² KL(teacher ‖ student) at
    temperature T, as in G. Hinton et al., *Distilling the Knowledge in a Neural Network* (2015), section 2, the mean
    over samples (and positions).

    >>> task = classification()
    >>> task.metric, task.unit
    ('top-1 accuracy', 'points')
    """

    def loss(outputs: Any, target: Tensor) -> Tensor:
        logits = outputs_of(outputs)[0].float()
        labels = given(target).long()
        try:
            return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        except IndexError as error:
            raise _out_of_range(str(error), logits.shape[1]) from error

    return Task(
        name="classification",
        metric="top-1 accuracy",
        unit="points",
        higher_is_better=True,
        scale=100.0,
        loss=loss,
        distillation=_softened_divergence,
        per_sample=_top1,
        agreement=lambda a, b: _per_sample_mean(a[0].argmax(axis=1) == b[0].argmax(axis=1)),
        check=_check_classes,
    )


def multilabel() -> Task:
    """Any number of labels per sample: logits [n, labels], targets 0 or 1 of the same shape.

    The loss is the binary cross entropy; distillation is T² times the binary cross entropy against the teacher's
    softened probabilities; two models agree on a sample where they agree on every label.

    >>> multilabel().metric
    'label accuracy'
    """

    def loss(outputs: Any, target: Tensor) -> Tensor:
        logits = outputs_of(outputs)[0].float()
        return F.binary_cross_entropy_with_logits(logits, given(target).to(logits.dtype))

    def distillation(student: Any, teacher: Any, temperature: float) -> Tensor:
        ours, theirs = outputs_of(student)[0].float(), outputs_of(teacher)[0].float()
        soft = torch.sigmoid(theirs / temperature)
        return temperature**2 * F.binary_cross_entropy_with_logits(ours / temperature, soft)

    def per_sample(outputs: Arrays, target: np.ndarray) -> np.ndarray:
        return _per_sample_mean((outputs[0] > 0) == (target > 0))

    def agreement(a: Arrays, b: Arrays) -> np.ndarray:
        return np.asarray(_per_sample_mean((a[0] > 0) == (b[0] > 0)) == 1.0, dtype=np.float64)

    def check(outputs: Arrays, target: np.ndarray) -> None:
        finite(outputs)
        same_shape(outputs[0], target, "multilabel")
        odd = target[(target != 0) & (target != 1)]
        if odd.size:
            raise DataError(f"a target is {odd.flat[0]}", where="multilabel", rule="targets are 0 or 1")

    return Task(
        name="multilabel",
        metric="label accuracy",
        unit="points",
        higher_is_better=True,
        scale=100.0,
        loss=loss,
        distillation=distillation,
        per_sample=per_sample,
        agreement=agreement,
        check=check,
    )


def _softened_divergence(student: Any, teacher: Any, temperature: float) -> Tensor:
    ours, theirs = outputs_of(student)[0].float(), outputs_of(teacher)[0].float()
    divergence = F.kl_div(
        F.log_softmax(ours / temperature, 1), F.log_softmax(theirs / temperature, 1), reduction="none", log_target=True
    )
    return temperature**2 * divergence.sum(1).mean()


def _top1(outputs: Arrays, target: np.ndarray) -> np.ndarray:
    correct, counted = (outputs[0].argmax(axis=1) == target), target != NO_LABEL
    right, all_of_it = ((each & counted).reshape(len(target), -1).sum(axis=1) for each in (correct, counted))
    return np.asarray(right / all_of_it, dtype=np.float64)


def _per_sample_mean(correct: np.ndarray) -> np.ndarray:
    return np.asarray(correct.reshape(len(correct), -1).mean(axis=1), dtype=np.float64)


def _check_classes(outputs: Arrays, target: np.ndarray) -> None:
    finite(outputs)
    logits = outputs[0]
    if logits.ndim < 2 or (logits.shape[0], *logits.shape[2:]) != target.shape:
        raise DataError(
            f"the output has shape {list(logits.shape)}, the target {list(target.shape)}",
            where="classification",
            rule="logits [n, classes, ...] and integer labels [n, ...]",
            way_out="let the dataset return a class index per sample, or name another task in edgekit.toml",
        )
    if not np.issubdtype(target.dtype, np.integer):
        raise DataError(
            f"labels have dtype {target.dtype}",
            where="classification",
            rule="labels are integers",
            way_out="convert the labels to int, or name the task multilabel or regression",
        )
    classes = logits.shape[1]
    labelled = (target != NO_LABEL) | (target.ndim == 1)
    empty = ~labelled.any(axis=tuple(range(1, target.ndim)))
    if empty.any():
        raise DataError(
            f"sample {int(empty.argmax())} of a batch has no label at any position",
            where="classification",
            rule=f"a label at one position at least; {NO_LABEL} says that a position has none",
            way_out="leave such samples out",
        )
    wrong = np.flatnonzero(labelled & ((target < 0) | (target >= classes)))
    if wrong.size:
        raise _out_of_range(
            f"label {target.reshape(-1)[wrong[0]]} of sample {wrong[0] * len(target) // target.size} is out of range "
            f"({wrong.size} such labels)",
            classes,
        )


def _out_of_range(problem: str, classes: int) -> DataError:
    return DataError(
        problem,
        where="classification",
        rule=f"labels lie in 0..{classes - 1}, since the model has {classes} outputs",
        way_out="check the data's class order and the model's number of classes",
    )
