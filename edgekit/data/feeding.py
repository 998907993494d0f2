"""Batches of a source as ONNX Runtime takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgekit.data.source import Source
from edgekit.errors import DataError
from edgekit.spec import Feeds, IOSpec, TensorSpec


def feeds_in_batches(
    source: Source, spec: IOSpec, *, batch: int = 32, limit: int | None = None, seed: int = 0
) -> Iterator[Feeds]:
    """Inputs by name, in batches, as the file of `spec` takes them.

    Args:
        source: the samples; their targets are left out.
        spec: inputs of the file. A source with one input need not know its name, one with several names them so.
        batch: samples in a batch; a file that is fixed to another number gets that, and what is left over is dropped.
        limit: so many samples, drawn with the seed: folders of images lie there class by class.
        seed: of the draw.

    Raises:
        DataError: there are no samples, or they do not fit the file.

    >>> spec = IOSpec(inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 2)),), outputs=())
    >>> [feeds["x"].shape for feeds in feeds_in_batches([np.zeros(2)] * 3, spec, batch=2)]
    [(2, 2), (1, 2)]
    """
    order = np.arange(len(source))
    if limit is not None and limit < len(order):
        order = np.random.default_rng(seed).permutation(order)[:limit]
    fixed = next((tensor.shape[0] for tensor in spec.inputs if tensor.shape and isinstance(tensor.shape[0], int)), None)
    size = fixed or batch
    if len(order) < (fixed or 1):
        raise DataError(f"{len(order)} samples", where="the data", rule=f"at least {fixed or 1}")
    for start in range(0, len(order) - (fixed - 1 if fixed else 0), size):
        yield _stacked([_inputs(source[int(index)]) for index in order[start : start + size]], spec)


def _inputs(item: Any) -> Any:
    return item[0] if isinstance(item, tuple) else item


def _stacked(items: Sequence[Any], spec: IOSpec) -> dict[str, np.ndarray]:
    tensors = spec.inputs
    if not isinstance(items[0], Mapping):
        if len(tensors) != 1:
            raise _misfit("one input", tensors)
        return {tensors[0].name: _fitting(np.stack(list(map(np.asarray, items))), tensors[0])}
    given = list(items[0])
    if len(given) == len(tensors) == 1:
        return {tensors[0].name: _fitting(np.stack([item[given[0]] for item in items]), tensors[0])}
    if set(given) != {tensor.name for tensor in tensors}:
        raise _misfit(", ".join(given), tensors)
    return {each.name: _fitting(np.stack([item[each.name] for item in items]), each) for each in tensors}


def _fitting(array: np.ndarray, tensor: TensorSpec) -> np.ndarray:
    wanted = np.dtype(tensor.dtype)
    if (array.dtype.kind == "f") == (wanted.kind == "f"):
        array = array.astype(wanted, copy=False)
    if not TensorSpec(name=tensor.name, dtype=tensor.dtype, shape=("samples", *tensor.shape[1:])).accepts(array):
        raise DataError(
            f"got {array.dtype} {list(array.shape)}",
            where=f"input {tensor.name!r}",
            rule=f"the file takes {tensor}",
            way_out="give the data as the model was exported with them (images: --image-size, --mean, --std)",
        )
    return np.ascontiguousarray(array)


def _misfit(given: str, tensors: Sequence[TensorSpec]) -> DataError:
    return DataError(
        f"an item of the data has {given}",
        where="the data",
        rule=f"the file takes {', '.join(tensor.name for tensor in tensors)}",
        way_out="name the inputs in the data as the file does",
    )
