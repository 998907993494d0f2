"""Tasks whose answer is a quantity, an image, or what another model says."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor

from edgekit.tasks.outputs import outputs_of
from edgekit.tasks.task import Arrays, Task, finite, given, same_shape

SAME = 0.05
"""Two continuous answers are the same where they differ by less than this share of the reference's spread."""


def regression(*, tolerance: float = SAME) -> Task:
    """Quantities: outputs and targets [n, ...] of one shape; a target [n] fits an output [n, 1].

    The metric is the mean absolute error, the loss and the distillation the mean squared error. Two models agree on a
    sample where they differ by at most `tolerance` standard deviations of the second model's outputs.

    >>> regression().value((np.array([[1.0], [3.0]]),), np.array([1.0, 2.0]))
    0.5
    """
    return Task(
        name="regression",
        metric="mean absolute error",
        unit="units",
        higher_is_better=False,
        scale=1.0,
        loss=_squared_error,
        distillation=_squared_difference,
        per_sample=lambda outputs, target: _rows(np.abs(outputs[0] - _shaped(target, outputs[0]))).mean(axis=1),
        agreement=lambda a, b: _within(a, b, tolerance),
        check=lambda outputs, target: _check(outputs, target, "regression"),
    )


def reconstruction(*, data_range: float = 1.0, tolerance: float = SAME) -> Task:
    """Images, spectra and other signals: outputs and targets [n, ...] of one shape, as autoencoders give.

    The metric is the peak signal-to-noise ratio, 10 log10(data_range² / mean squared error) in dB, taken per sample and
    then averaged; a perfect sample counts as 100 dB.

    >>> round(reconstruction().value((np.zeros((1, 4)),), np.full((1, 4), 0.1)), 6)
    20.0
    """

    def per_sample(outputs: Arrays, target: np.ndarray) -> np.ndarray:
        error = _rows((outputs[0].astype(np.float64) - target) ** 2).mean(axis=1)
        return np.asarray(np.minimum(10 * np.log10(data_range**2 / np.maximum(error, 1e-300)), 100.0))

    return Task(
        name="reconstruction",
        metric="PSNR",
        unit="dB",
        higher_is_better=True,
        scale=1.0,
        loss=_squared_error,
        distillation=_squared_difference,
        per_sample=per_sample,
        agreement=lambda a, b: _within(a, b, tolerance),
        check=lambda outputs, target: _check(outputs, target, "reconstruction"),
    )


def imitation(*, tolerance: float = SAME) -> Task:
    """Data without labels: the target is what the original model says, in its first output.

    The metric is the cosine similarity with it, in points of 100.

    >>> imitation().value((np.array([[2.0, 0.0]]),), np.array([[1.0, 0.0]]))
    100.0
    """

    def per_sample(outputs: Arrays, target: np.ndarray) -> np.ndarray:
        ours, theirs = _rows(outputs[0]), _rows(target)
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        # Two zero vectors say the same; a zero vector says nothing of any other.
        same = (ours == theirs).all(axis=1)
        return np.where(same, 1.0, (ours * theirs).sum(axis=1) / np.where(norms > 0, norms, 1.0))

    return Task(
        name="imitation",
        metric="cosine similarity with the original",
        unit="points",
        higher_is_better=True,
        scale=100.0,
        loss=_squared_error,
        distillation=_squared_difference,
        per_sample=per_sample,
        agreement=lambda a, b: _within(a, b, tolerance),
        check=lambda outputs, target: _check(outputs, target, "imitation"),
        target_is_reference=True,
    )


def _squared_error(outputs: Any, target: Tensor) -> Tensor:
    output = outputs_of(outputs)[0].float()
    return F.mse_loss(output, given(target).float().reshape(output.shape))


def _squared_difference(student: Any, teacher: Any, temperature: float) -> Tensor:
    del temperature  # A quantity has no distribution to soften.
    return F.mse_loss(outputs_of(student)[0].float(), outputs_of(teacher)[0].float())


def _rows(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, dtype=np.float64).reshape(len(array), -1)


def _shaped(target: np.ndarray, output: np.ndarray) -> np.ndarray:
    return target.reshape(output.shape) if target.size == output.size else target


def _within(a: Arrays, b: Arrays, tolerance: float) -> np.ndarray:
    ours, theirs = _rows(a[0]), _rows(b[0])
    same = np.abs(ours - theirs) <= tolerance * theirs.std(axis=0)
    return np.asarray(same.all(axis=1), dtype=np.float64)


def _check(outputs: Arrays, target: np.ndarray, task: str) -> None:
    finite(outputs)
    finite((target,))
    same_shape(outputs[0], _shaped(target, outputs[0]), task)
