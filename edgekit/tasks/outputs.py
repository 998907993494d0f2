"""What a model gives back, as a flat tuple of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from edgekit.errors import WorkloadError


def outputs_of(raw: Any) -> tuple[Any, ...]:
    """Flatten a model's return value: a tensor, or nested tuples, lists and dicts of tensors, in their own order.

    None entries are left out, as ONNX has no such output; arrays pass like tensors.

    Raises:
        WorkloadError: something in `raw` is no tensor, or there is no tensor at all.

    >>> import torch
    >>> [tuple(t.shape) for t in outputs_of({"logits": torch.ones(2, 3), "state": (torch.ones(2), None)})]
    [(2, 3), (2,)]
    """
    if isinstance(raw, Tensor | np.ndarray):
        return (raw,)
    leaves = tuple(_leaves(raw, "output"))
    if not leaves:
        raise WorkloadError(
            "the model returned no tensor",
            where="the model's forward",
            rule="a tensor, or nested tuples, lists or dicts of tensors",
        )
    return leaves


def _leaves(raw: Any, where: str) -> Iterator[Any]:
    if raw is None:
        return
    if isinstance(raw, Tensor | np.ndarray):
        yield raw
    elif isinstance(raw, Mapping):
        for key, value in raw.items():
            yield from _leaves(value, f"{where}[{key!r}]")
    elif isinstance(raw, Sequence) and not isinstance(raw, str):
        for index, value in enumerate(raw):
            yield from _leaves(value, f"{where}[{index}]")
    else:
        raise WorkloadError(
            f"the model returned a {type(raw).__name__}",
            where=where,
            rule="a tensor, or nested tuples, lists or dicts of tensors",
            way_out="wrap the model so that its forward returns tensors",
        )
