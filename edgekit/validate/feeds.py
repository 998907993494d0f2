"""Batches of data as ONNX Runtime takes them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgekit.errors import DataError
from edgekit.spec import Feeds, IOSpec, TensorSpec
from edgekit.workload import Batch, Signature, Workload, loader

CALIBRATION_BATCH = 32


def signature_of(spec: IOSpec) -> Signature:
    """How items of data become inputs where there is no PyTorch model to ask: the file is a function of its inputs."""
    names = tuple(tensor.name for tensor in spec.inputs)
    return Signature(positional=names, required=len(names), spreads=False, keywords=frozenset(names), any_keyword=False)


def feeds_of(batch: Batch, spec: IOSpec) -> dict[str, np.ndarray]:
    """The inputs of `batch` by name: its leaves in order, floats in the width that the file takes, integers likewise.

    Raises:
        DataError: another number of inputs than the file has, or another kind or shape.

    >>> import torch
    >>> spec = IOSpec(inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 2)),), outputs=())
    >>> feeds_of(Batch((torch.ones(1, 2, dtype=torch.float64),), {}, None), spec)
    {'x': array([[1., 1.]], dtype=float32)}
    """
    leaves = batch.leaves()
    if len(leaves) != len(spec.inputs):
        raise DataError(
            f"an item of the data has {len(leaves)} inputs",
            where="the dataset",
            rule=f"the file takes {', '.join(tensor.name for tensor in spec.inputs)}",
        )
    feeds = {}
    for tensor, leaf in zip(spec.inputs, leaves, strict=True):
        # numpy has no bfloat16.
        array = (leaf.float() if leaf.is_floating_point() else leaf).detach().cpu().numpy()
        if np.issubdtype(array.dtype, np.floating) == np.issubdtype(np.dtype(tensor.dtype), np.floating):
            array = array.astype(tensor.dtype, copy=False)
        array = np.ascontiguousarray(array)
        if not _fits(tensor, array):
            raise DataError(
                f"got {array.dtype} {list(array.shape)}",
                where=f"input {tensor.name!r}",
                rule=f"the file takes {tensor}",
                way_out="let the dataset return what the model was exported with",
            )
        feeds[tensor.name] = array
    return feeds


def calibration_feeds(workload: Workload, spec: IOSpec, limit: int | None = None) -> Iterator[Feeds]:
    """The calibration split as ONNX Runtime takes it, in batches of 32."""
    batches = loader(
        workload.splits.calibration, CALIBRATION_BATCH, model=workload.model(), seed=workload.splits.seed, limit=limit
    )
    for batch in batches:
        yield feeds_of(batch, spec)


def fixed_batch(spec: IOSpec) -> int | None:
    """The batch size that the file is fixed to, if it is."""
    sizes = {tensor.shape[0] for tensor in spec.inputs if tensor.shape}
    return next((size for size in sizes if isinstance(size, int)), None)


def padded(feeds: Feeds, size: int) -> dict[str, np.ndarray]:
    """`feeds` with the first samples repeated until there are `size`."""
    return {name: np.ascontiguousarray(array[np.arange(size) % len(array)]) for name, array in feeds.items()}


def _fits(tensor: TensorSpec, array: np.ndarray) -> bool:
    """Whether the array has the tensor's type and shape, the number of samples aside."""
    return TensorSpec(name=tensor.name, dtype=tensor.dtype, shape=("samples", *tensor.shape[1:])).accepts(array)
