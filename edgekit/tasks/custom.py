"""A task from the user's own loss and metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor

from edgekit.errors import DataError
from edgekit.tasks.continuous import SAME, regression
from edgekit.tasks.outputs import outputs_of
from edgekit.tasks.task import Arrays, Task, finite


def custom(
    *,
    loss: Callable[[Any, Any], Tensor],
    per_sample: Callable[[Arrays, np.ndarray], np.ndarray],
    metric: str = "score",
    unit: str = "points",
    higher_is_better: bool = True,
    scale: float = 1.0,
    distillation: Callable[[Any, Any, float], Tensor] | None = None,
    agreement: Callable[[Arrays, Arrays], np.ndarray] | None = None,
    name: str = "custom",
) -> Task:
    """A task from functions the user already has.

    Args:
        loss: (what the model returned, target) to a scalar tensor.
        per_sample: (output arrays, target array) to one number per sample [n]; the metric is `scale` times their mean.
        metric: the metric's name.
        unit: the metric's unit.
        higher_is_better: whether a larger metric is the better one.
        scale: 100 turns a share into points.
        distillation: (student outputs, teacher outputs, temperature) to a scalar; the mean squared difference over all
            floating-point outputs unless given.
        agreement: (output arrays, output arrays) to [n]; as in `regression` unless given.
        name: the task's name in reports.

    >>> task = custom(loss=lambda out, y: (out - y).abs().mean(), per_sample=lambda out, y: -abs(out[0] - y))
    >>> task.value((np.array([1.0, 2.0]),), np.array([1.0, 4.0]))
    -1.0
    """

    def checked(outputs: Arrays, target: np.ndarray) -> np.ndarray:
        values = np.asarray(per_sample(outputs, target), dtype=np.float64)
        if values.shape != (len(outputs[0]),):
            raise DataError(
                f"the metric function returned shape {list(values.shape)} for {len(outputs[0])} samples",
                where=f"task {name!r}",
                rule="one number per sample",
            )
        return values

    return Task(
        name=name,
        metric=metric,
        unit=unit,
        higher_is_better=higher_is_better,
        scale=scale,
        loss=loss,
        distillation=distillation or _squared_differences,
        per_sample=checked,
        agreement=agreement or regression(tolerance=SAME).agreement,
        check=lambda outputs, _target: finite(outputs),
    )


def _squared_differences(student: Any, teacher: Any, temperature: float) -> Tensor:
    del temperature
    pairs = [
        (ours.float(), theirs.float())
        for ours, theirs in zip(outputs_of(student), outputs_of(teacher), strict=True)
        if theirs.is_floating_point()
    ]
    terms = [F.mse_loss(ours, theirs) for ours, theirs in pairs]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
