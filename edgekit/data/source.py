"""What all sources of data have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

Image = Callable[[np.ndarray], np.ndarray]
"""Makes float32 [1, channels, height, width] from an RGB image uint8 [height, width, 3]."""

Text = Callable[[str], Mapping[str, np.ndarray]]
"""Makes a model's inputs by name, each int64 [tokens], from a text."""


class Source(Protocol):
    """Samples by index; an item is (inputs, target), or the inputs alone where there is no target.

    Inputs are one array or a dict of arrays without an axis for the batch. A source may have `labels` (the target of
    each sample, where it is a class) and `classes` (their names, by index).
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...
