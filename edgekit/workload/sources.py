"""Data as users have them: a function, a folder or zip of images, an .npz file."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from edgekit.errors import DataError
from edgekit.workload.batch import TARGET_KEYS
from edgekit.workload.images import ImageFolder
from edgekit.workload.references import load_callable

ITERABLE_LIMIT = 100_000
"""How many samples of an iterable data set are taken into memory."""


class Arrays(Dataset[Any]):
    """Samples out of named arrays of one length; items are (input or dict of inputs, target), or inputs alone.

    Floating-point inputs become float32, integers int64.

    >>> data = Arrays({"x": np.zeros((3, 2)), "y": np.array([0, 1, 2])}, "memory")
    >>> len(data), data[1][0].dtype, int(data[1][1])
    (3, torch.float32, 1)
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], where: str) -> None:
        key = next((key for key in TARGET_KEYS if key in arrays and len(arrays) > 1), None)
        self.inputs = {name: _tensor(array, where, name) for name, array in arrays.items() if name != key}
        self.target = None if key is None else _tensor(arrays[key], where, key)
        lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        if not self.inputs or len(set(lengths.values())) != 1:
            raise DataError(
                f"the arrays have lengths {lengths}",
                where=where,
                rule="at least one input, and all arrays with one sample per row",
                way_out="save with np.savez(path, x=inputs, y=labels)",
            )
        self._length = next(iter(lengths.values()))
        if self.target is not None and self.target.ndim == 1 and not self.target.is_floating_point():
            self.labels = self.target

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        inputs: Any = {name: array[index] for name, array in self.inputs.items()}
        if len(inputs) == 1:
            inputs = next(iter(inputs.values()))
        return inputs if self.target is None else (inputs, self.target[index])


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
    image: Callable[[np.ndarray], np.ndarray] | None = None,
    limit: int = ITERABLE_LIMIT,
) -> Dataset[Any]:
    """The data that `reference` names.

    Args:
        reference: a directory or zip with one folder of images per class, an `.npz` file (`x` and `y`, or several
            inputs by name and `y`), or a function that returns a `Dataset` or a `DataLoader`.
        image: makes float32 [1, channels, height, width] from RGB uint8 [height, width, 3]; needed for images.
        limit: samples that are taken from a data set that can only be iterated.

    Returns:
        A map-style data set. Of a `DataLoader` its data set and its `collate_fn` are taken; batching and order are not.

    Raises:
        WorkloadError: the function is missing or raises.
        DataError: the file is missing, is none of these, or holds no samples.
    """
    path = Path(reference).expanduser()
    if path.suffix.lower() in (".npz", ".zip") or path.is_dir():
        return _from_file(path, image)
    if ":" not in reference:
        raise DataError(
            f"{reference!r} is no function and no such directory exists",
            where="data",
            rule="a directory or zip of images, an .npz file, or path/to/file.py:function",
            way_out="check the path; it starts from the folder you are in",
        )
    return as_dataset(load_callable(reference)(), where=reference, limit=limit)


def as_dataset(data: Any, *, where: str = "data", limit: int = ITERABLE_LIMIT) -> Dataset[Any]:
    """A map-style data set out of a `Dataset`, a `DataLoader`, a sequence, or something that can only be iterated.

    Raises:
        DataError: `data` is none of these.

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
    return cast("Dataset[Any]", list(itertools.islice(data, limit)))


def _no_data(data: Any, where: str) -> DataError:
    return DataError(
        f"got a {type(data).__name__}",
        where=where,
        rule="the function returns a torch Dataset or DataLoader",
        way_out="return the Dataset; batching, order and workers are edgekit's",
    )


def _from_file(path: Path, image: Callable[[np.ndarray], np.ndarray] | None) -> Dataset[Any]:
    if not path.exists():
        raise DataError(
            "no such file", where=str(path), rule="an existing path", way_out="it starts from the folder you are in"
        )
    if path.suffix.lower() == ".npz":
        return _from_npz(path)
    if image is None:
        raise DataError(
            "images, but nothing says how the model takes them",
            where=str(path),
            rule="image_size, mean and std as in training",
            way_out="set image_size, mean and std in edgekit.toml (--image-size, --mean, --std)",
        )
    return ImageFolder(path, image)


def _from_npz(path: Path) -> Arrays:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(
            f"cannot read: {error}",
            where=str(path),
            rule="an .npz of plain numeric arrays (no Python objects)",
            way_out="save with np.savez(path, x=inputs, y=labels)",
        ) from error
    return Arrays(arrays, str(path))


def _tensor(array: np.ndarray, where: str, name: str) -> Tensor:
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name!r} has dtype {array.dtype}", where=where, rule="floats, integers or booleans")
    kind = np.float32 if array.dtype.kind == "f" else np.int64
    return torch.from_numpy(np.ascontiguousarray(array.astype(kind, copy=False)))
