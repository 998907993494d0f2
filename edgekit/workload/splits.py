"""Who sees which samples: train, calibration, selection and test, disjoint and with digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset, Subset, TensorDataset

from edgekit.errors import DataError
from edgekit.workload.loading import item_of, size_of
from edgekit.workload.randomness import derive, isolated

SELECTION_AT_MOST = 5000
TRAIN_AT_LEAST = 16
TEST_AT_LEAST = 8
SAMPLED = 16
"""Samples whose bytes go into a split's digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """The four parts of a workload's data; no sample is in two of them.

    Args:
        train: what training draws from, augmentations included.
        calibration: held out of train, in random order; sets ranges, importances and BatchNorm statistics.
        selection: the only part a decision may look at.
        test: scored once, at the end.
        sources: where train, selection and test came from, for the report.
        seed: of the split, and of the augmentations while digests are taken.
    """

    train: Dataset[Any]
    calibration: Dataset[Any]
    selection: Dataset[Any]
    test: Dataset[Any]
    sources: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def digests(self) -> dict[str, dict[str, Any]]:
        """For every part its size `n`, its `source` and a `sha256` over source, indexes and 16 samples' bytes."""
        return {
            name: {
                "n": size_of(part),
                "sha256": _digest(part, self.sources.get(name, ""), self.seed),
                "source": self.sources.get(name, ""),
            }
            for name, part in (
                ("train", self.train),
                ("calibration", self.calibration),
                ("selection", self.selection),
                ("test", self.test),
            )
        }


def make_splits(
    train: Dataset[Any],
    test: Dataset[Any],
    selection: Dataset[Any] | None = None,
    *,
    seed: int = 0,
    calibration_size: int = 512,
    selection_from: Literal["test", "train"] = "test",
    limit_train: int | None = None,
    limit_test: int | None = None,
    sources: Mapping[str, str] | None = None,
) -> Splits:
    """Divide the user's data.

    A trained model has seen all of its training data. A selection part held out of train would flatter that original,
    which has memorised it, and make every honest candidate look bad. So the selection part comes out of test unless the
    user has one: half of it, at most 5,000 samples; the rest stays test. `selection_from="train"` is for models that
    are trained here, on what remains of train.

    Limits and divisions are drawn from `seed`, stratified where the data set has an attribute `labels` or `targets`.

    Args:
        train: training data.
        test: data that the model has never seen.
        selection: the user's own validation data.
        seed: of every draw.
        calibration_size: samples held out of train for calibration, at most a quarter of train.
        selection_from: where the selection part comes from if there is none.
        limit_train: use only so many samples of train.
        limit_test: use only so many samples of test.
        sources: names of the data for the report, by part.

    Raises:
        DataError: too few samples; the message says how many there are and how many are needed.

    >>> import torch
    >>> data = TensorDataset(torch.zeros(100, 2), torch.arange(100) % 4)
    >>> parts = make_splits(data, data, calibration_size=20)
    >>> [parts.digests()[name]["n"] for name in ("train", "calibration", "selection", "test")]
    [80, 20, 50, 50]
    """
    _enough(train, "train", TRAIN_AT_LEAST, limit_train)
    _enough(test, "test", TEST_AT_LEAST, limit_test)
    if selection is not None:
        _enough(selection, "selection", TEST_AT_LEAST, None)
    train_index = _draw(train, np.arange(size_of(train)), limit_train, derive(seed, 1))
    test_index = _draw(test, np.arange(size_of(test)), limit_test, derive(seed, 2))
    calibration_index = _draw(train, train_index, min(calibration_size, len(train_index) // 4), derive(seed, 3))
    train_index = np.setdiff1d(train_index, calibration_index, assume_unique=True)
    # A folder of images lies there class by class. Batches that hold one class each would spoil BatchNorm statistics,
    # and whoever looks at the first samples alone would see few classes.
    calibration_index = np.random.default_rng(derive(seed, 5)).permutation(calibration_index)
    if selection is None:
        pool, of = (test, test_index) if selection_from == "test" else (train, train_index)
        share = len(of) // 2 if selection_from == "test" else max(len(of) // 10, 1)
        selection_index = _draw(pool, of, min(share, SELECTION_AT_MOST), derive(seed, 4))
        selection = _part(pool, selection_index)
        rest = np.setdiff1d(of, selection_index, assume_unique=True)
        train_index, test_index = (train_index, rest) if selection_from == "test" else (rest, test_index)
    named = {"train": "", "test": "", **(sources or {})}
    named.setdefault("calibration", named["train"])
    named.setdefault("selection", named[selection_from])
    return Splits(
        train=_part(train, train_index),
        calibration=_part(train, calibration_index),
        selection=selection,
        test=_part(test, test_index),
        sources=named,
        seed=seed,
    )


def labels_of(dataset: Dataset[Any]) -> np.ndarray | None:
    """The labels [n] of a data set where they cost nothing: attribute `labels` or `targets`, or the last tensor.

    >>> import torch
    >>> labels_of(Subset(TensorDataset(torch.zeros(3, 2), torch.tensor([5, 6, 7])), [2, 0])).tolist()
    [7, 5]
    """
    if isinstance(dataset, Subset):
        labels = labels_of(dataset.dataset)
        return None if labels is None else labels[np.asarray(dataset.indices)]
    found = getattr(dataset, "labels", None)
    if found is None:
        found = getattr(dataset, "targets", None)
    if found is None and isinstance(dataset, TensorDataset):
        found = dataset.tensors[-1]
    if not isinstance(found, Sequence | np.ndarray | Tensor) or isinstance(found, str):
        return None
    try:
        labels = np.asarray(found)
    except (ValueError, TypeError):
        return None
    fits = labels.ndim == 1 and len(labels) == size_of(dataset) and labels.dtype.kind in "iubU"
    return labels if fits else None


def _enough(dataset: Dataset[Any], name: str, needed: int, limit: int | None) -> None:
    found = size_of(dataset)
    usable = found if limit is None else min(found, limit)
    if usable < needed:
        raise DataError(
            f"{usable} samples" + (f" of {found}, since the limit is {limit}" if limit is not None else ""),
            where=f"{name} data",
            rule=f"at least {needed} samples",
            way_out="raise the limit"
            if found >= needed
            else "check the path; an empty folder or filter gives no samples",
        )


def _draw(dataset: Dataset[Any], pool: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    """`count` of the indexes in `pool`, sorted; where labels are known each gets its share (largest remainders)."""
    if count is None or count >= len(pool):
        return pool
    rng = np.random.default_rng(seed)
    labels = labels_of(dataset)
    if labels is None:
        return np.sort(rng.choice(pool, count, replace=False))
    values, members = np.unique(labels[pool], return_inverse=True)
    exact = np.bincount(members, minlength=len(values)) * count / len(pool)
    take = np.floor(exact).astype(int)
    by_remainder = np.argsort(take - exact, kind="stable")
    take[by_remainder[: count - take.sum()]] += 1
    chosen = [
        rng.choice(pool[members == index], size, replace=False) for index, size in enumerate(take.tolist()) if size
    ]
    return np.sort(np.concatenate(chosen))


def _part(dataset: Dataset[Any], indexes: np.ndarray) -> Dataset[Any]:
    return dataset if len(indexes) == size_of(dataset) else Subset(dataset, cast("list[int]", indexes.tolist()))


def _digest(dataset: Dataset[Any], source: str, seed: int) -> str:
    size = size_of(dataset)
    indexes = np.arange(size)
    root = dataset
    while isinstance(root, Subset):
        indexes = np.asarray(root.indices)[indexes]
        root = root.dataset
    digest = hashlib.sha256(f"{source}\n{size_of(root)}\n".encode() + indexes.astype("<i8").tobytes())
    with isolated(seed):
        for position in sorted({index * size // SAMPLED for index in range(SAMPLED)}):
            for leaf in pytree.tree_leaves(item_of(dataset, position)):
                digest.update(_leaf_bytes(leaf))
    return digest.hexdigest()


def _leaf_bytes(leaf: Any) -> bytes:
    if isinstance(leaf, Tensor):
        leaf = leaf.detach().float().cpu().numpy() if leaf.is_floating_point() else leaf.cpu().numpy()
    if isinstance(leaf, np.ndarray):
        return f"{leaf.dtype.str}{leaf.shape}".encode() + np.ascontiguousarray(leaf).tobytes()
    return repr(leaf).encode()
