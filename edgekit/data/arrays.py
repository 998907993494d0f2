"""Arrays of samples, as .npz files hold them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import DataError

TARGET_KEYS = ("label", "labels", "target", "targets", "y")
"""The names under which data may hold the target."""


class Arrays:
    """Samples out of named arrays of one length; items are (input or dict of inputs, target), or inputs alone.

    Floating-point inputs become float32, integers int64.

    >>> data = Arrays({"x": np.zeros((3, 2)), "y": np.array([0, 1, 2])}, "memory")
    >>> len(data), data[1][0].dtype.name, int(data[1][1])
    (3, 'float32', 1)
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], where: str) -> None:
        key = next((key for key in TARGET_KEYS if key in arrays and len(arrays) > 1), None)
        self.inputs = {name: as_input(array, where, name) for name, array in arrays.items() if name != key}
        self.target = None if key is None else as_input(arrays[key], where, key)
        lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        if not self.inputs or len(set(lengths.values())) != 1:
            raise DataError(
                f"the arrays have lengths {lengths}",
                where=where,
                rule="at least one input, and all arrays with one sample per row",
                way_out="save with np.savez(path, x=inputs, y=labels)",
            )
        self._length = next(iter(lengths.values()))
        if self.target is not None and self.target.ndim == 1 and self.target.dtype.kind != "f":
            self.labels = self.target

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        inputs: Any = {name: array[index] for name, array in self.inputs.items()}
        if len(inputs) == 1:
            inputs = next(iter(inputs.values()))
        return inputs if self.target is None else (inputs, self.target[index])


def from_npz(path: Path) -> Arrays:
    """The arrays of an .npz file.

    Raises:
        DataError: it cannot be read, or holds something else than numbers.
    """
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


def as_input(array: np.ndarray, where: str, name: str) -> np.ndarray:
    """Numbers as models take them: float32, or int64 for integers and booleans.

    Raises:
        DataError: they are no numbers.
    """
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name!r} has dtype {array.dtype}", where=where, rule="floats, integers or booleans")
    kind = np.float32 if array.dtype.kind == "f" else np.int64
    return np.ascontiguousarray(array.astype(kind, copy=False)).reshape(array.shape)
