"""Where an image lands in a model's input, and the way back: boxes are found in the one and wanted in the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgekit.device.processing.resize import Filter, resize
from edgekit.errors import DataError

Fit = Literal["stretch", "resize-crop", "crop-resize", "letterbox"]
FITS = ("stretch", "resize-crop", "crop-resize", "letterbox")
MAX_PIXELS = 100_000_000
"""Of an image, and of what it becomes on its way: a strip of one pixel's height would grow without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Cut a part out of an image, resize it, and lay it on a canvas; all in pixels, height or top first.

    Attributes:
        cut: top, left, height and width of the part of the image that is used.
        resized: height and width that the part is resized to.
        offset: top and left of the resized part on the canvas; negative where the canvas shows its middle only.
        size: height and width of the canvas, the model's input.
    """

    cut: tuple[int, int, int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]

    def apply(self, image: np.ndarray, filter_: Filter, *, antialias: bool, pad: int) -> np.ndarray:
        """`image` uint8 [H, W, C] as the canvas uint8 [height, width, C]; `pad` fills what the part does not cover."""
        top, left, height, width = self.cut
        part = resize(image[top : top + height, left : left + width], self.resized, filter_, antialias=antialias)
        (down, right), (rows, columns) = self.offset, self.size
        part = part[max(-down, 0) :, max(-right, 0) :][:rows, :columns]
        if part.shape[:2] == self.size:
            return part
        canvas = np.full((*self.size, image.shape[2]), pad, np.uint8)
        down, right = max(down, 0), max(right, 0)
        canvas[down : down + part.shape[0], right : right + part.shape[1]] = part
        return canvas

    def back(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes float64 [n, 4] (x1, y1, x2, y2) of the canvas in pixels of the image."""
        top, left, height, width = self.cut
        factors = np.array([width / self.resized[1], height / self.resized[0]] * 2)
        moved: np.ndarray = (boxes - np.array(self.offset[::-1] * 2)) * factors + np.array([left, top] * 2)
        return moved


def geometry(image: tuple[int, int], size: tuple[int, int], fit: Fit, shorter_side: int | None) -> Geometry:
    """How an image of (height, width) `image` becomes the model's input of `size`.

    Fits:
        `stretch` resizes to `size`, whatever that does to proportions. `resize-crop` resizes the shorter side to
        `shorter_side`, the longer in proportion and cut to an integer, and cuts `size` out of the centre, at half the
        difference, rounded half to even: torchvision's Resize and CenterCrop. `crop-resize` cuts out the largest
        centred rectangle of `size`'s proportions and resizes it. `letterbox` resizes the whole image to fit in `size`
        and centres it between borders, as Darknet and its descendants do.

    Raises:
        DataError: the resized image would have over 100 megapixels.

    >>> geometry((480, 640), (320, 320), "letterbox", None)
    Geometry(cut=(0, 0, 480, 640), resized=(240, 320), offset=(40, 0), size=(320, 320))
    """
    (h, w), (height, width) = image, size
    cut, resized, offset = (0, 0, h, w), size, (0, 0)
    if fit == "resize-crop":
        assert shorter_side is not None
        side = shorter_side
        resized = (side, side * w // h) if h <= w else (side * h // w, side)
        # Python's round, half to even, is torchvision's CenterCrop too.
        offset = (-round((resized[0] - height) / 2), -round((resized[1] - width) / 2))
    elif fit == "crop-resize":
        wide = w * height > h * width
        rows = h if wide else max(1, w * height // width)
        columns = max(1, h * width // height) if wide else w
        cut = ((h - rows) // 2, (w - columns) // 2, rows, columns)
    elif fit == "letterbox":
        factor = min(height / h, width / w)
        rows, columns = (max(1, min(most, math.floor(side * factor + 0.5))) for most, side in ((height, h), (width, w)))
        resized, offset = (rows, columns), ((height - rows) // 2, (width - columns) // 2)
    if resized[0] * resized[1] > MAX_PIXELS:
        raise DataError(
            f"an image of {h} x {w} pixels",
            where="image",
            rule=f"at most {MAX_PIXELS} pixels when its shorter side is resized to {shorter_side}",
            way_out="cut the image into parts that are less long",
        )
    return Geometry(cut=cut, resized=resized, offset=offset, size=size)
