"""What a model is for: its loss, its metric, and when two models say the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from edgekit.errors import DataError

Arrays = tuple[np.ndarray, ...]
"""A model's outputs as ONNX Runtime gives them, the first axis counting samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Loss and metric of a workload; `classification()` and its siblings make the usual ones, `custom()` any other.

    Args:
        name: the task's name in reports and in `edgekit.toml`.
        metric: the metric's name for people.
        unit: the metric's unit; `points` are percentage points.
        higher_is_better: whether a larger metric is the better one.
        scale: the metric is `scale` times the mean of `per_sample`, in `unit`.
        loss: (outputs, target) to a scalar tensor, the mean over the batch; `outputs` is what the model returned.
        distillation: (student outputs, teacher outputs, temperature) to a scalar tensor.
        per_sample: (output arrays, target array) to float64 [n], one value per sample.
        agreement: (output arrays of one model, of another) to float64 [n], 1.0 where both say the same.
        check: (output arrays, target array) raises `DataError` where targets and outputs do not fit each other.
        target_is_reference: the data carry no labels; the target is what the original model says.
    """

    name: str
    metric: str
    unit: str
    higher_is_better: bool
    scale: float
    loss: Callable[[Any, Any], Tensor]
    distillation: Callable[[Any, Any, float], Tensor]
    per_sample: Callable[[Arrays, np.ndarray], np.ndarray]
    agreement: Callable[[Arrays, Arrays], np.ndarray]
    check: Callable[[Arrays, np.ndarray], None]
    target_is_reference: bool = False

    def value(self, outputs: Arrays, target: np.ndarray) -> float:
        """The metric over all samples, in `unit`.

        >>> from edgekit.tasks import classification
        >>> classification().value((np.array([[0.1, 0.9], [0.8, 0.2]]),), np.array([1, 1]))
        50.0
        """
        return float(self.scale * np.mean(self.per_sample(outputs, target)))

    def drop(self, reference: float, candidate: float) -> float:
        """How much worse `candidate` is than `reference`, in `unit`; negative where it is better.

        >>> from edgekit.tasks import classification, regression
        >>> classification().drop(90.0, 88.0), regression().drop(1.0, 1.5)
        (2.0, 0.5)
        """
        return reference - candidate if self.higher_is_better else candidate - reference


def finite(outputs: Arrays) -> None:
    """Raise a `DataError` that counts the samples with NaN or infinite outputs, if there are any."""
    for index, array in enumerate(outputs):
        values = np.asarray(array)
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            bad = int((~np.isfinite(values.reshape(len(values), -1)).all(axis=1)).sum())
            raise DataError(
                f"output {index} is NaN or infinite for {bad} of {len(values)} samples",
                where="the model's outputs",
                rule="every output is finite",
                way_out="look for NaN in the samples and for overflow in the model (an fp16 model may need fp32)",
            )


def given(target: Tensor | None) -> Tensor:
    """`target`, or a `DataError` where the data carry none: a loss on the labels needs them."""
    if target is None:
        raise DataError(
            "the data carry no target",
            where="training data",
            rule="one target per sample, since the loss on the labels ranks channels",
            way_out='return (x, y) from the dataset, or set task = "imitation" to take the original as reference',
        )
    return target


def same_shape(output: np.ndarray, target: np.ndarray, what: str) -> None:
    """Raise a `DataError` unless output and target have one shape."""
    if output.shape != target.shape:
        raise DataError(
            f"the output has shape {list(output.shape)}, the target {list(target.shape)}",
            where=what,
            rule="output and target have the same shape",
            way_out="let the dataset return targets shaped like the model's output, or name another task",
        )
