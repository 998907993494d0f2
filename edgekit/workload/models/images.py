"""Preprocessing of images as libraries write it, in the bundle's own terms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from edgekit.device.processing import ImagePreprocessing
from edgekit.device.processing.resize import FILTERS, Filter
from edgekit.errors import WorkloadError


def image_preprocessing(
    *,
    size: tuple[int, int],
    shorter_side: int | None,
    interpolation: str,
    mean: Sequence[float],
    std: Sequence[float],
    where: str,
    scale: float = 1 / 255,
) -> ImagePreprocessing:
    """Preprocessing out of what timm, torchvision and transformers say of a model.

    Args:
        size: height and width of the input.
        shorter_side: what the shorter side is resized to before `size` is cut out of the centre; None resizes straight
            to `size`.
        interpolation: `bilinear`, `bicubic` or `nearest`.
        mean: of each channel, of scaled values.
        std: likewise.
        where: the model's reference, for messages.
        scale: factor of the bytes.

    Raises:
        WorkloadError: images cannot be resized so.
    """
    if interpolation not in FILTERS:
        raise WorkloadError(
            f"images are resized by {interpolation!r}",
            where=where,
            rule=f"one of {', '.join(FILTERS)}",
            way_out="give the data as arrays (.npz, or file.py:function) that are prepared already",
        )
    return ImagePreprocessing(
        size=size,
        fit="stretch" if shorter_side is None else "resize-crop",
        shorter_side=shorter_side,
        filter=cast("Filter", interpolation),
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        scale=scale,
    )


def resized_to(height: int, width: int, crop_share: float) -> int:
    """The shorter side before the crop, where the crop is `crop_share` of it: as timm rounds it.

    >>> resized_to(224, 224, 0.875), resized_to(224, 224, 0.95)
    (256, 235)
    """
    return max(math.floor(height / crop_share), math.floor(width / crop_share))
