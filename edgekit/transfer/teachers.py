"""An ONNX file as a teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from edgekit.spec import IOSpec
from edgekit.validate.feeds import feeds_of
from edgekit.validate.scoring import answers_of
from edgekit.workload import Batch

_ASLEEP = {"session.intra_op.allow_spinning": "0"}
"""ONNX Runtime's threads would wait for the next batch in a busy loop, on cores that PyTorch trains on meanwhile."""


def onnx_teacher(
    path: Path, spec: IOSpec, *, target: str = "any", provider: str = "cpu", threads: int | None = None
) -> Callable[[Batch], tuple[Any, ...]]:
    """A function for `edgekit.distill.distill` that asks an ONNX file in ONNX Runtime.

    On a CPU an int8 file mostly answers faster than the network that it was made from does in PyTorch.

    Args:
        path: the file.
        spec: its inputs and outputs (`edgekit.export.spec_of`).
        target: the kind of CPU that an int8 file is for, as for `edgekit.validate.score`.
        provider: `cpu`, `cuda` or `tensorrt`.
        threads: intra-op threads; as many as PyTorch has without it, 0 lets ONNX Runtime choose.

    Returns:
        From a batch to the file's outputs as tensors on the batch's device.

    Raises:
        ProviderError: the provider is unknown, absent, or did not take the model.
    """
    threads = torch.get_num_threads() if threads is None else threads
    answers = answers_of(path, spec=spec, target=target, provider=provider, threads=threads, config=_ASLEEP)

    def teacher(batch: Batch) -> tuple[Any, ...]:
        device = batch.leaves()[0].device
        return tuple(torch.from_numpy(array).to(device) for array in answers(feeds_of(batch, spec)))

    return teacher
