"""Lightning Fabric for one process, or for all those that torchrun started."""

from __future__ import annotations

import atexit
import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
"""Our names, and Fabric's."""


def fabric_for(precision: str) -> Fabric:
    """A launched Fabric on the best accelerator here; under torchrun over all its ranks, with DDP (gloo on CPUs).

    >>> fabric_for("fp32").world_size
    1
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    with _quiet():
        fabric = Fabric(
            accelerator="auto",
            devices=local,
            num_nodes=max(world // local, 1),
            strategy="ddp" if world > 1 else "auto",
            precision=PRECISIONS[precision],  # type: ignore[arg-type] # a dict's values are no Literal
        )
        fabric.launch()
    if world > 1:
        _leave_at_exit()
    return fabric


def precision_of(fabric: Fabric) -> str:
    """`fp32` or `bf16` where it is one of ours, else Fabric's own name."""
    name = fabric.strategy.precision.precision
    return {value: key for key, value in PRECISIONS.items()}.get(name, str(name))


@functools.cache
def _leave_at_exit() -> None:
    """Have this process leave the group when it ends: gloo's threads abort a process that exits around them."""

    def leave() -> None:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()

    atexit.register(leave)


@contextmanager
def _quiet() -> Iterator[None]:
    """Fabric announces precision and ranks on stderr; here the result tells them."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
