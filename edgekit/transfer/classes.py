"""Which classes data have, how many samples of each, and a few of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Subset

from edgekit.errors import DataError
from edgekit.tasks import Task
from edgekit.workload import derive, labels_of, loader

SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """The classes of a task.

    Args:
        outputs: that a head needs.
        counts: samples of each class; empty where a sample has no single class.
        names: for messages; numbers where there are none.
    """

    outputs: int
    counts: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: Dataset[Any], task: Task, *, model: Callable[..., Any], names: Sequence[str] = ()) -> Classes:
        """Read them off the targets of the training data.

        Raises:
            DataError: there are no targets, there is a single class, or classes have no sample; they are named.
        """
        targets = targets_of(data, model=model)
        if task.name != "classification":
            return cls(outputs=targets.shape[1] if targets.ndim > 1 else 1, names=tuple(names))
        present = np.unique(targets[targets >= 0])
        outputs = max(len(names), int(present.max(initial=-1)) + 1)
        counts = np.bincount(targets, minlength=outputs) if targets.ndim == 1 and targets.min(initial=0) >= 0 else ()
        if names and len(names) < outputs:
            raise DataError(
                f"{len(names)} labels: {_listed(names)}",
                where="labels",
                rule=f"one for each of the {outputs} classes of the training data",
                way_out="name them with --labels (or labels in edgekit.toml), in the order of the classes' numbers",
            )
        titles = tuple(names) or tuple(map(str, range(outputs)))
        found = cls(outputs=outputs, counts=tuple(int(count) for count in counts), names=titles)
        absent = sorted(set(range(outputs)) - set(present.tolist()))
        if absent or outputs < 2:
            raise DataError(
                f"no sample of {_listed([titles[index] for index in absent])}" if absent else f"{outputs} class",
                where="training data",
                rule="two classes or more, numbered from 0 up, and samples of each",
                way_out="number the labels without gaps, or add samples",
            )
        return found

    def need(self, count: int) -> None:
        """Raise a `DataError` that names the classes with fewer than `count` samples, if there are any.

        So it does where a sample has no single class.
        """
        if not self.counts:
            raise DataError(
                "samples have no single class",
                where="training data",
                rule="a number of samples of each class is for classification with one label per sample",
                way_out="leave --shots out; --limit-train uses fewer samples",
            )
        short = [f"{name} ({have})" for name, have in zip(self.names, self.counts, strict=True) if have < count]
        if short:
            raise DataError(
                f"too few samples of {_listed(short)}",
                where="training data",
                rule=f"at least {count} of each class",
                way_out=f"add samples, or ask for fewer with --shots {max(1, min(self.counts))}",
            )


def few(data: Dataset[Any], count: int, *, model: Callable[..., Any], seed: int = 0) -> Dataset[Any]:
    """`count` samples of each class, drawn with `seed`.

    Raises:
        DataError: the data carry no labels.

    >>> import torch
    >>> from torch.utils.data import TensorDataset
    >>> data = TensorDataset(torch.zeros(8, 2), torch.arange(8) % 2)
    >>> len(few(data, 3, model=torch.nn.Linear(2, 2)))
    6
    """
    targets = targets_of(data, model=model)
    rng = np.random.default_rng(derive(seed, 11))
    chosen = [
        rng.choice(members, min(count, len(members)), replace=False)
        for members in (np.flatnonzero(targets == label) for label in np.unique(targets))
    ]
    return Subset(data, cast("list[int]", np.sort(np.concatenate(chosen)).tolist()))


def targets_of(data: Dataset[Any], *, model: Callable[..., Any]) -> np.ndarray:
    """All targets as one array [n, ...]; read from the samples where the data do not tell them.

    Raises:
        DataError: a sample has no target, or one that is no tensor.
    """
    labels = labels_of(data)
    if labels is not None and labels.dtype.kind in "iu":
        return labels
    parts = [batch.target for batch in loader(data, 256, model=model)]
    if not all(isinstance(part, Tensor) for part in parts):
        kind = next(type(part).__name__ for part in parts if not isinstance(part, Tensor))
        raise DataError(
            "the data carry no target" if kind == "NoneType" else f"a target is a {kind}",
            where="training data",
            rule="one target per sample to learn from",
            way_out="return (x, y) from the dataset",
        )
    return np.concatenate([cast("Tensor", part).numpy() for part in parts])


def counts_of(names: Sequence[str], counts: Sequence[int]) -> Mapping[str, int]:
    """Samples by class, for reports."""
    return dict(zip(names, counts, strict=False))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
