"""From a model's input back to the picture it was, and forth: perturbations and people look at pixels, not tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from edgekit.device import ImagePreprocessing
from edgekit.spec import Feeds, IOSpec, TensorSpec
from edgekit.validate.feeds import feeds_of, signature_of
from edgekit.workload import loader

RANGE_SAMPLES, RANGE_BATCH = 256, 64
"""Samples that tell the range of the data."""
SMALLEST_SIDE = 8
"""What is smaller is a table of numbers rather than a picture."""
TOLERANCE = 0.02
"""How far beyond black and white the data may go and still be what the preprocessing makes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """The data that files were scored on, as far as looking at single samples needs it.

    Args:
        data: map-style data.
        spec: the files' inputs and outputs.
        preprocessing: how an image became an input, where that is known.
        limit: as it was given to `score`: so many samples, evenly spaced.
        seed: of data that draw random numbers.
    """

    data: Dataset[Any]
    spec: IOSpec
    preprocessing: ImagePreprocessing | None = None
    limit: int | None = None
    seed: int = 0

    def first(self, samples: int, batch_size: int = RANGE_BATCH) -> list[Feeds]:
        """So many samples, evenly spaced over those that were scored, in batches."""
        limit = samples if self.limit is None else min(samples, self.limit)
        batches = loader(self.data, batch_size, model=signature_of(self.spec), limit=limit, seed=self.seed)
        return [feeds_of(batch, self.spec) for batch in batches]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PixelSpace:
    """How the values of an image input lie between black and white.

    Args:
        name: of the input.
        channels_last: [n, h, w, c] rather than [n, c, h, w].
        black: the input's value for black, of each channel [c].
        white: likewise for white.
        reversed_colours: the channels are blue, green, red.
        whole: the input takes whole numbers.
        source: where black and white are known from, in words.
    """

    name: str
    channels_last: bool
    black: np.ndarray
    white: np.ndarray
    reversed_colours: bool
    whole: bool
    source: str

    def pixels(self, values: np.ndarray) -> np.ndarray:
        """The input [n, ...] as RGB or grey pixels float32 [n, h, w, c], 0 black and 1 white."""
        last = values if self.channels_last else values.transpose(0, 2, 3, 1)
        shares = ((last - self.black) / (self.white - self.black)).astype(np.float32)
        return np.asarray(shares[..., ::-1] if self.reversed_colours else shares)

    def values(self, pixels: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        """What `pixels` gives back: the input of pixels [n, h, w, c]."""
        shares = pixels[..., ::-1] if self.reversed_colours else pixels
        values = shares * (self.white - self.black) + self.black
        values = np.rint(values) if self.whole else values
        return np.ascontiguousarray((values if self.channels_last else values.transpose(0, 3, 1, 2)).astype(dtype))


def image_input(spec: IOSpec) -> tuple[TensorSpec, bool] | None:
    """The one input that is an image, and whether its channels come last; None where none is, or several are."""
    found = [(tensor, last) for tensor in spec.inputs if (last := _channels_last(tensor)) is not None]
    return found[0] if len(found) == 1 else None


def _channels_last(tensor: TensorSpec) -> bool | None:
    if len(tensor.shape) != 4 or np.dtype(tensor.dtype).kind not in "fu":
        return None
    for last, channels, sides in ((False, 1, (2, 3)), (True, 3, (1, 2))):
        wide = all(isinstance(s, str) or s >= SMALLEST_SIDE for s in (tensor.shape[axis] for axis in sides))
        if tensor.shape[channels] in (1, 3) and wide:
            return last
    return None


def pixel_space(inputs: Inputs) -> PixelSpace | None:
    """How to see the pictures in the data; None where no input is an image.

    Where the preprocessing is known, and what it makes is what the data hold, black and white are its own; bytes are 0
    to 255; else each channel is scaled by its own range in 256 samples of the data.
    """
    found = image_input(inputs.spec)
    if found is None:
        return None
    tensor, last = found
    known, whole = inputs.preprocessing, np.dtype(tensor.dtype).kind == "u"
    seen = np.concatenate([_flat(feeds[tensor.name], last=last) for feeds in inputs.first(RANGE_SAMPLES)])
    if whole:
        black, white, source = np.zeros(seen.shape[1]), np.full(seen.shape[1], 255.0), "the input takes bytes"
    elif known is not None and known.channels == seen.shape[1] and _made_by(seen, known):
        black, white = _ends(known)
        source = "the workload's preprocessing"
    else:
        black, white = seen.min(axis=0), seen.max(axis=0)
        white = np.where(white > black, white, black + 1)
        source = f"each channel's own range in {RANGE_SAMPLES} samples, since no preprocessing is known that made them"
    return PixelSpace(
        name=tensor.name,
        channels_last=last,
        black=black,
        white=white,
        reversed_colours=known is not None and known.colour == "BGR",
        whole=whole,
        source=source,
    )


def _flat(values: np.ndarray, *, last: bool) -> np.ndarray:
    """The range of one batch, channel by channel: float64 [2, c], the least and the largest values."""
    axes = (0, 1, 2) if last else (0, 2, 3)
    return np.stack([values.min(axis=axes), values.max(axis=axes)]).astype(np.float64)


def _ends(known: ImagePreprocessing) -> tuple[np.ndarray, np.ndarray]:
    mean, std = np.array(known.mean), np.array(known.std)
    return (0 - mean) / std, (255 * known.scale - mean) / std


def _made_by(seen: np.ndarray, known: ImagePreprocessing) -> bool:
    black, white = _ends(known)
    shares = (seen - black) / (white - black)
    return bool(shares.min() >= -TOLERANCE and shares.max() <= 1 + TOLERANCE)
