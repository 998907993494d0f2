"""Data as users have them: a function, or a file or folder that `edgekit.data` reads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from edgekit.data import DATA_RULE, Image, Text, read_source
from edgekit.errors import DataError
from edgekit.workload.references import load_callable

ITERABLE_LIMIT = 100_000
"""How many samples of an iterable data set are taken into memory, at most."""


class Tensors(Dataset[Any]):
    """A source in numpy as torch's loaders like it: arrays become tensors, everything else stays.

    >>> Tensors([(np.zeros(2), 1)])[0]
    (tensor([0., 0.], dtype=torch.float64), 1)
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        for name in ("labels", "classes", "collate"):
            if hasattr(source, name):
                setattr(self, name, getattr(source, name))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        return _as_tensors(self.source[index])


class Samples(Dataset[Any]):
    """The user's samples with the function that stacks them, where that is not torch's own."""

    def __init__(self, samples: Any, collate: Callable[[list[Any]], Any]) -> None:
        self.samples, self.collate = samples, collate
        for name in ("labels", "targets", "classes"):
            if hasattr(samples, name):
                setattr(self, name, getattr(samples, name))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def load_data(
    reference: str,
    *,
    image: Image | None = None,
    text: Text | None = None,
    limit: int = ITERABLE_LIMIT,
) -> Dataset[Any]:
    """The data that `reference` names.

    Args:
        reference: what `edgekit.data.read_source` reads (a directory or zip with one folder of images per class, an
            `.npz` with `x` and `y`, or several inputs by name and `y`, a `.csv`, WebDataset shards, `hf:FOLDER`), a
            data set of torchvision (`torchvision:CIFAR10?root=FOLDER`), or a function that returns a `Dataset` or a
            `DataLoader`.
        image: makes float32 [1, channels, height, width] from RGB uint8 [height, width, 3]; needed for images.
        text: makes inputs by name from a text; needed for texts.
        limit: samples that a data set may have that can only be iterated.

    Returns:
        A map-style data set. Of a `DataLoader` its data set and its `collate_fn` are taken; batching and order are not.

    Raises:
        WorkloadError: the function is missing or raises.
        DataError: the file is missing, is none of these, or holds no samples.
    """
    if reference.startswith("torchvision:"):
        from edgekit.workload.torchvision_data import from_torchvision

        return from_torchvision(reference, image=image)
    source = read_source(reference, image=image, text=text)
    if source is not None:
        return Tensors(source)
    if ":" not in reference:
        raise DataError(
            f"{reference!r} is no function and no such directory exists",
            where="data",
            rule=DATA_RULE,
            way_out="check the path; it starts from the folder you are in",
        )
    return as_dataset(load_callable(reference)(), where=reference, limit=limit)


def as_dataset(data: Any, *, where: str = "data", limit: int = ITERABLE_LIMIT) -> Dataset[Any]:
    """A map-style data set out of a `Dataset`, a `DataLoader`, a sequence, or something that can only be iterated.

    The last is read once into memory: splits that hold out calibration data need samples by index, and the same ones
    every time. A stream of more than `limit` samples is refused rather than cut off.

    Raises:
        DataError: `data` is none of these, or longer than `limit`.

    >>> len(as_dataset(iter([(torch.zeros(2), 0), (torch.ones(2), 1)])))
    2
    """
    if isinstance(data, DataLoader):
        samples = as_dataset(data.dataset, where=where, limit=limit)
        own = data.collate_fn is not None and data.collate_fn is not default_collate and data.batch_size is not None
        return Samples(samples, cast("Any", data.collate_fn)) if own else samples
    if not isinstance(data, IterableDataset) and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        if isinstance(data, Mapping | str):
            raise _no_data(data, where)
        return cast("Dataset[Any]", data)
    if not hasattr(data, "__iter__"):
        raise _no_data(data, where)
    read = list(itertools.islice(data, limit + 1))
    if len(read) > limit:
        raise DataError(
            f"a {type(data).__name__} that can only be iterated, of more than {limit:,} samples",
            where=where,
            rule="samples by index (__len__ and __getitem__), since splits hold some out; a short stream is read once",
            way_out="return itertools.islice(data, N), or name the files themselves: shards-{000..009}.tar, hf:FOLDER",
        )
    return cast("Dataset[Any]", read)


def _no_data(data: Any, where: str) -> DataError:
    return DataError(
        f"got a {type(data).__name__}",
        where=where,
        rule="the function returns a torch Dataset or DataLoader",
        way_out="return the Dataset; batching, order and workers are edgekit's",
    )


def _as_tensors(item: Any) -> Any:
    if isinstance(item, tuple):
        return tuple(map(_as_tensors, item))
    if isinstance(item, Mapping):
        return {name: _as_tensors(value) for name, value in item.items()}
    # torch warns of arrays that cannot be written to; numpy's single numbers are no arrays.
    return torch.from_numpy(np.require(item, requirements="W")) if isinstance(item, np.ndarray | np.generic) else item
