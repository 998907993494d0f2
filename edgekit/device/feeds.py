"""Inputs to measure with: made up, from a file, of another batch size, and on their way to another process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import DataError, EdgekitError
from edgekit.spec import Feeds, IOSpec, TensorSpec

_WIDTHS = {"float": "float32", "double": "float64"}


def random_feeds(spec: IOSpec, batch: int = 1) -> Feeds:
    """`batch` samples of made-up inputs: normal numbers, and 1 for integers, which every index may be.

    A model that is fixed to another batch gets that batch.

    Raises:
        EdgekitError: a size other than the first is open.
    """
    rng = np.random.default_rng(0)
    feeds = {}
    for tensor in spec.inputs:
        open_sizes = [size for size in tensor.shape[1:] if isinstance(size, str)]
        if open_sizes:
            raise EdgekitError(
                f"input {tensor.name!r} has open sizes {', '.join(open_sizes)}",
                where="bench",
                rule="inputs without a fixed size need data",
                way_out="--data inputs.npz",
            )
        shape = [batch if isinstance(size, str) else size for size in tensor.shape]
        integer = np.issubdtype(np.dtype(tensor.dtype), np.integer)
        feeds[tensor.name] = (np.ones(shape) if integer else rng.standard_normal(shape)).astype(tensor.dtype)
    return feeds


def session_spec(session: Any) -> IOSpec:
    """Inputs and outputs as an ONNX Runtime session tells them."""

    def tensors(values: Any) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                name=value.name,
                dtype=_dtype(value.type),
                shape=tuple(size if isinstance(size, int) else str(size) for size in value.shape),
            )
            for value in values
        )

    return IOSpec(inputs=tensors(session.get_inputs()), outputs=tensors(session.get_outputs()))


def resized(feeds: Feeds, batch: int) -> Feeds:
    """`batch` samples out of `feeds`: the first ones, and again from the start where there are fewer.

    >>> resized({"x": np.arange(3)}, 5)["x"]
    array([0, 1, 2, 0, 1])
    """
    return {name: np.take(value, np.arange(batch) % len(value), axis=0) for name, value in feeds.items()}


def batch_of(feeds: Feeds) -> int:
    """Samples in `feeds`: the first size of the first input."""
    first = next(iter(feeds.values()))
    return len(first) if first.ndim else 1


def save_feeds(path: Path, feeds: Feeds) -> None:
    """Write `feeds` for another process. Names travel beside the arrays: a zip's entries may not hold any character."""
    with path.open("wb") as file:
        np.savez(file, *feeds.values(), names=np.array(list(feeds), dtype=np.str_))


def saved_feeds(path: Path) -> Feeds:
    """What `save_feeds` wrote."""
    with np.load(path) as arrays:
        return {str(name): arrays[f"arr_{index}"] for index, name in enumerate(arrays["names"])}


def _dtype(name: str) -> str:
    kind = name.removeprefix("tensor(").removesuffix(")")
    kind = _WIDTHS.get(kind, kind)
    try:
        return np.dtype(kind).name
    except TypeError as error:
        raise DataError(f"type {name}", where="model", rule="numpy's number types") from error
