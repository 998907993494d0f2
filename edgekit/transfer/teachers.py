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


def onnx_teacher(
    path: Path, spec: IOSpec, *, provider: str = "cpu", threads: int = 1
) -> Callable[[Batch], tuple[Any, ...]]:
    """A function for `edgekit.distill.distill` that asks an ONNX file in ONNX Runtime.

    Args:
        path: the file.
        spec: its inputs and outputs (`edgekit.export.spec_of`).
        provider: `cpu`, `cuda` or `tensorrt`.
        threads: intra-op threads; 0 lets ONNX Runtime choose.

    Returns:
        From a batch to the file's outputs as tensors on the batch's device.

    Raises:
        ProviderError: the provider is unknown, absent, or did not take the model.
    """
    answers = answers_of(path, spec=spec, provider=provider, threads=threads)

    def teacher(batch: Batch) -> tuple[Any, ...]:
        device = batch.leaves()[0].device
        return tuple(torch.from_numpy(array).to(device) for array in answers(feeds_of(batch, spec)))

    return teacher
