"""The samples that are explained, and what each of them is to a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from edgekit.errors import DataError
from edgekit.spec import IOSpec
from edgekit.tasks import Task
from edgekit.validate.feeds import feeds_of, signature_of
from edgekit.workload import Batch, Signature, derive, loader

RIGHT_OR_WRONG = ("classification", "multilabel")
"""Tasks whose answer for a sample is right or not."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One sample of the data.

    Args:
        index: in the data.
        batch: as the PyTorch model takes it, [1, ...].
        feeds: as ONNX Runtime takes it, [1, ...] by name.
        target: what it should be answered, [1, ...], or None.
    """

    index: int
    batch: Batch
    feeds: dict[str, np.ndarray]
    target: np.ndarray | None


def draw(
    data: Dataset[Any],
    spec: IOSpec,
    limit: int,
    *,
    signature: Callable[..., Any] | Signature | None = None,
    seed: int = 0,
) -> list[Sample]:
    """`limit` samples, evenly spaced over the data, in an order drawn from `seed`: any first part of it is fair.

    Args:
        data: map-style data.
        spec: the inputs of the files.
        limit: at most so many.
        signature: the PyTorch model, or its signature, by which items become inputs; without it the names in `spec`
            decide.
        seed: of the order.

    Raises:
        DataError: there are no data, or they do not fit the file.
    """
    batches = loader(data, 1, model=signature or signature_of(spec), limit=limit, seed=seed)
    samples = [
        Sample(
            index=batches.stream.indexes(step)[0],
            batch=batch,
            feeds=feeds_of(batch, spec),
            target=batch.target.numpy() if isinstance(batch.target, Tensor) else None,
        )
        for step, batch in enumerate(batches)
    ]
    order = np.random.default_rng(derive(seed, len(samples))).permutation(len(samples))
    return [samples[int(index)] for index in order]


def right(task: Task, output: np.ndarray, sample: Sample) -> bool | None:
    """Whether `output` [1, outputs] answers the sample right; None where the task or the data cannot say."""
    if task.name not in RIGHT_OR_WRONG or sample.target is None:
        return None
    return bool(task.per_sample((output,), sample.target)[0] == 1.0)


def explained(output: np.ndarray) -> int:
    """The output that is explained: the largest of [1, outputs], the only one of [1, 1].

    Raises:
        DataError: the output has another shape.
    """
    if output.ndim != 2:
        raise DataError(
            f"the first output has shape {list(output.shape)}",
            where="explain",
            rule="one row of scores for each sample, [n, outputs]: an explanation is of one number",
            way_out="explain a model whose answer is a class; maps of pixels or boxes have no single score",
        )
    return int(output[0].argmax())
