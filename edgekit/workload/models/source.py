"""A model with what its library knows of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edgekit.data import Text
from edgekit.device.processing import ImagePreprocessing, Preprocessing
from edgekit.workload.batch import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where a model comes from.

    Args:
        factory: makes the trained model afresh.
        preprocessing: how raw input becomes its inputs, where that is known.
        vocabulary: what that names: tokens, one a line.
        text: the library's own tokenizer, where it takes texts.
        labels: names of its classes, or ().
    """

    factory: Callable[[], nn.Module]
    preprocessing: Preprocessing | None = None
    vocabulary: bytes | None = None
    text: Text | None = None
    labels: tuple[str, ...] = ()

    def example(self, n: int) -> Batch | None:
        """`n` black images or empty texts as the model takes them; None where nothing says what it takes."""
        if isinstance(self.preprocessing, ImagePreprocessing):
            image = self.preprocessing.apply(np.zeros((*self.preprocessing.size, 3), np.uint8))
            return Batch((torch.from_numpy(np.repeat(image, n, axis=0)),), {}, None)
        if self.text is not None:
            return Batch((), {name: torch.from_numpy(np.stack([ids] * n)) for name, ids in self.text("").items()}, None)
        return None
