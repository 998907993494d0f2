"""Image resizing in numpy, to the values that Pillow gives.

Preprocessing that differs between training and device is the most common fault of deployed vision models. Pillow is
what training uses (torchvision, timm); a device may not have it. Both passes use Pillow's 22-bit fixed-point weights
(`src/libImaging/Resample.c`), so that the bytes agree: all of them up to Pillow 12; from 13 on, which takes the columns
first where that is cheaper, some differ by one level.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Filter = Literal["bilinear", "nearest"]

PRECISION_BITS = 22


def resize(image: np.ndarray, size: tuple[int, int], filter_: Filter = "bilinear") -> np.ndarray:
    """`image` uint8 [H, W, C] at `size` (height, width): uint8 [height, width, C].

    `bilinear` is Pillow's: a triangle filter that widens with the reduction (antialiasing). `nearest` takes the pixel
    under the centre of each new one.

    >>> resize(np.array([[[0], [200]]], np.uint8), (1, 1))[0, 0, 0]
    np.uint8(100)
    """
    height, width = size
    if filter_ == "nearest":
        picked: np.ndarray = image[_nearest(image.shape[0], height)][:, _nearest(image.shape[1], width)]
        return picked
    # Like Pillow, each row first, and rounded to bytes between the passes.
    wide = image if image.shape[1] == width else np.swapaxes(_rows(np.swapaxes(image, 0, 1), width), 0, 1)
    return wide if wide.shape[0] == height else _rows(wide, height)


def _nearest(old: int, new: int) -> np.ndarray:
    step = old / new
    # Pillow adds the step again and again; so do we, because multiplication rounds differently at ties.
    return np.cumsum(np.array([step * 0.5, *[step] * (new - 1)])).astype(np.int64)


def _rows(image: np.ndarray, new: int) -> np.ndarray:
    """Resize axis 0 of `image` uint8 [old, ...] to `new`."""
    first, weights = _weights(image.shape[0], new)
    total = np.full((new, *image.shape[1:]), 1 << (PRECISION_BITS - 1), np.int32)
    column = (-1, *[1] * (image.ndim - 1))
    for tap in range(weights.shape[1]):
        rows = np.minimum(first + tap, image.shape[0] - 1)  # Beyond the edge the weight is zero.
        total += image[rows] * weights[:, tap].reshape(column)
    clipped: np.ndarray = np.clip(total >> PRECISION_BITS, 0, 255).astype(np.uint8)
    return clipped


def _weights(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """For each new row the first old row it draws from [new], and its weights int32 [new, taps]."""
    scale = old / new
    stretch = max(scale, 1.0)
    taps = math.ceil(stretch) * 2 + 1
    centre = (np.arange(new) + 0.5) * scale
    first = np.maximum((centre - stretch + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + stretch + 0.5).astype(np.int64), old)
    index = first[:, None] + np.arange(taps)
    triangle = np.maximum(1.0 - np.abs((index - centre[:, None] + 0.5) / stretch), 0.0)
    triangle = np.where(index < last[:, None], triangle, 0.0)
    share = triangle / triangle.sum(axis=1, keepdims=True)
    return first, np.floor(share * (1 << PRECISION_BITS) + 0.5).astype(np.int32)
