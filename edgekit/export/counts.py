"""How large a model is: learnable values, and multiply-accumulates for one sample."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgekit.workload import Batch


def parameter_count(model: nn.Module) -> int:
    """Learnable values, each shared one counted once.

    >>> parameter_count(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in model.parameters())


def mac_count(model: nn.Module, example: Batch) -> int:
    """Multiply-accumulates for one sample: convolutions, matrix products, attention; no element-wise work.

    `torch.utils.flop_counter` counts two operations for each of them. Its tables know matrix products and convolutions,
    so fused kernels that it would miss (oneDNN's recurrent one, PyTorch's attention) are switched off while it counts.

    >>> mac_count(nn.Linear(3, 2), Batch((torch.ones(4, 3),), {}, None))
    6
    """
    return macs_by_module(model, example)[""]


def macs_by_module(model: nn.Module, example: Batch) -> dict[str, int]:
    """`mac_count` of each module that is called, by its name; that of the whole model has the empty name.

    >>> macs_by_module(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), Batch((torch.ones(4, 3),), {}, None))["0"]
    6
    """
    # The counter hooks into the gradients of what goes into a module, where it wants some: a class token as it is.
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), _plain_kernels(), counter:
        example.call(twin)
    per_sample = 2 * max(1, len(example))
    root = f"{type(model).__name__}."
    return {
        "": round(counter.get_total_flops() / per_sample),
        **{
            name.removeprefix(root): round(sum(counts.values()) / per_sample)
            for name, counts in counter.get_flop_counts().items()
            if name.startswith(root)
        },
    }


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Compute with the kernels that the counter knows."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            # Switching oneDNN off touches its TF32 setting, of which torch then says that it is for Intel's GPUs.
            warnings.filterwarnings("ignore", "TF32 acceleration", UserWarning)
            with torch.backends.mkldnn.flags(enabled=False):
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
