"""Image resizing in numpy, to the values that training saw.

Preprocessing that differs between training and device is the most common fault of deployed vision models. Two families
are in use, and a model wants the one it was trained with:

- **antialiased**: Pillow (torchvision, timm), whose filter widens with the reduction. Both passes use Pillow's 22-bit
  fixed-point weights (`src/libImaging/Resample.c`), so that the bytes agree: all of them up to Pillow 12, which resizes
  the rows first, as we do. From 13 on it takes the columns first where that is cheaper: some bytes then differ by one
  level, and with bicubic, which overshoots and is clipped between the passes, by a few at the sharpest edges.
- **not antialiased**: `torch.nn.functional.interpolate` and OpenCV, whose filter has the same few taps whatever the
  reduction. Computed in float64 and rounded once, half up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

Filter = Literal["bilinear", "bicubic", "nearest"]
FILTERS = ("bilinear", "bicubic", "nearest")

PRECISION_BITS = 22


def resize(
    image: np.ndarray, size: tuple[int, int], filter_: Filter = "bilinear", *, antialias: bool = True
) -> np.ndarray:
    """`image` uint8 [H, W, C] at `size` (height, width): uint8 [height, width, C].

    Antialiased, `bilinear` is a triangle and `bicubic` Keys' cubic with a = -0.5 (Cubic Convolution Interpolation for
    Digital Image Processing, 1981), both as wide as the reduction asks for. Without, they are 2 and 4 taps (a = -0.75)
    around the source coordinate (i + 0.5) * old / new - 0.5. `nearest` takes the pixel under the centre of each new
    one, with `antialias` or without.

    >>> resize(np.array([[[0], [200]]], np.uint8), (1, 1))[0, 0, 0]
    np.uint8(100)
    """
    height, width = size
    if filter_ == "nearest":
        picked: np.ndarray = image[_nearest(image.shape[0], height)][:, _nearest(image.shape[1], width)]
        return picked
    # Each row first. Pillow rounds to bytes between the passes; the others do not.
    if antialias:
        wide = image if image.shape[1] == width else _swapped(_fixed_point(_swapped(image), width, filter_))
        return wide if wide.shape[0] == height else _fixed_point(wide, height, filter_)
    exact = _interpolated(_swapped(_interpolated(_swapped(image.astype(np.float64)), width, filter_)), height, filter_)
    rounded: np.ndarray = np.clip(np.floor(exact + 0.5), 0, 255).astype(np.uint8)
    return rounded


def _nearest(old: int, new: int) -> np.ndarray:
    step = old / new
    # Pillow adds the step again and again; so do we, because multiplication rounds differently at ties.
    return np.cumsum(np.array([step * 0.5, *[step] * (new - 1)])).astype(np.int64)


def _swapped(image: np.ndarray) -> np.ndarray:
    return np.swapaxes(image, 0, 1)


def _fixed_point(image: np.ndarray, new: int, filter_: Filter) -> np.ndarray:
    """Resize axis 0 of `image` uint8 [old, ...] to `new`, antialiased."""
    first, weights = _weights(image.shape[0], new, filter_)
    total = np.full((new, *image.shape[1:]), 1 << (PRECISION_BITS - 1), np.int32)
    column = (-1, *[1] * (image.ndim - 1))
    for tap in range(weights.shape[1]):
        rows = np.minimum(first + tap, image.shape[0] - 1)  # Beyond the edge the weight is zero.
        total += image[rows] * weights[:, tap].reshape(column)
    clipped: np.ndarray = np.clip(total >> PRECISION_BITS, 0, 255).astype(np.uint8)
    return clipped


def _weights(old: int, new: int, filter_: Filter) -> tuple[np.ndarray, np.ndarray]:
    """For each new row the first old row it draws from [new], and its weights int32 [new, taps]."""
    scale = old / new
    stretch = max(scale, 1.0)
    support = stretch * (1.0 if filter_ == "bilinear" else 2.0)
    taps = math.ceil(support) * 2 + 1
    centre = (np.arange(new) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), old)
    index = first[:, None] + np.arange(taps)
    distance = np.abs((index - centre[:, None] + 0.5) * (1.0 / stretch))
    height = np.maximum(1.0 - distance, 0.0) if filter_ == "bilinear" else _cubic(distance, -0.5)
    height = np.where(index < last[:, None], height, 0.0)
    # Added one by one, as Pillow and the loaders in other languages do; numpy's sum goes by pairs.
    share = height / np.cumsum(height, axis=1)[:, -1:]
    return first, np.trunc(share * (1 << PRECISION_BITS) + np.copysign(0.5, share)).astype(np.int32)


def _interpolated(image: np.ndarray, new: int, filter_: Filter) -> np.ndarray:
    """Resize axis 0 of `image` float64 [old, ...] to `new` between so many taps, without antialiasing."""
    old = image.shape[0]
    where = (np.arange(new) + 0.5) * old / new - 0.5
    base = np.floor(where)
    taps = (0, 1) if filter_ == "bilinear" else (-1, 0, 1, 2)
    curve: Callable[[np.ndarray], np.ndarray] = (
        (lambda distance: 1.0 - distance) if filter_ == "bilinear" else (lambda distance: _cubic(distance, -0.75))
    )
    column = (-1, *[1] * (image.ndim - 1))
    total = np.zeros((new, *image.shape[1:]))
    for tap in taps:
        weight = curve(np.abs(where - base - tap))
        # Beyond the edge the last pixel goes on.
        total += image[np.clip(base.astype(np.int64) + tap, 0, old - 1)] * weight.reshape(column)
    return total


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic of a distance from 0 up."""
    near = ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1.0
    far = (((distance - 5.0) * distance + 8.0) * distance - 4.0) * a
    return np.where(distance < 1.0, near, np.where(distance < 2.0, far, 0.0))
