"""Random numbers that depend on a seed and a place alone, whatever ran before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch


def derive(seed: int, *place: int) -> int:
    """A 32-bit seed for one place (an epoch, a batch, a rank) of a run with `seed`.

    >>> derive(0, 1) == derive(0, 1), derive(0, 1) == derive(0, 2)
    (True, False)
    """
    return int(np.random.SeedSequence([seed, *place]).generate_state(1)[0])


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed the global generators of torch (CPU), numpy and Python; give them back afterwards as they were.

    The data's own augmentations draw from the global generators, so these are what has to be seeded.

    >>> with isolated(3):
    ...     first = torch.rand(1)
    >>> with isolated(3):
    ...     assert torch.rand(1) == first
    """
    before = generator_states()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the user's code may draw from the global generator
    random.seed(seed)
    try:
        yield
    finally:
        restore_generators(before)


def generator_states() -> dict[str, Any]:
    """The states of the global generators, made of tensors, ints and tuples alone (`weights_only` reads them)."""
    name, keys, position, has_gauss, gauss = cast("Any", np.random.get_state(legacy=True))  # noqa: NPY002 - as above
    return {
        "torch": torch.default_generator.get_state(),
        "numpy": (str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "python": random.getstate(),
    }


def restore_generators(states: dict[str, Any]) -> None:
    """Put back what `generator_states` gave."""
    torch.default_generator.set_state(states["torch"])
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002 - as above
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
