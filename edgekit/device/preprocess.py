"""From an image to a model's input, exactly as in training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np

from edgekit.device.resize import Filter, resize
from edgekit.errors import DataError

Colour = Literal["RGB", "BGR", "grey"]
Layout = Literal["NCHW", "NHWC"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "colour": ("RGB", "BGR", "grey"),
    "filter": ("bilinear", "nearest"),
    "layout": ("NCHW", "NHWC"),
}
MAX_SIDE = 16_384
_MAX_PIXELS = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How an image becomes a model's input: resize, crop, order of colours, then (value * scale - mean) / std.

    Attributes:
        size: height and width of the model's input, in pixels.
        shorter_side: resize so that the shorter side has so many pixels, then cut `size` out of the centre (as in
            ImageNet training: size 224, shorter_side 256). None resizes straight to `size`.
        filter: `bilinear` (antialiased, equal to Pillow's) or `nearest`.
        colour: what the model takes. None becomes `grey` where `mean` has one value, else `RGB`.
        scale: factor of the bytes; 1/255 maps them to [0, 1].
        mean, std: of each channel, in scaled values, in the order of `colour`.
        layout: `NCHW` or `NHWC`.

    Raises:
        DataError: a field is out of range; the text names it.

    >>> prepare = Preprocessing(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> prepare.apply(np.full((48, 64, 3), 255, np.uint8)).shape
    (1, 3, 32, 32)
    """

    size: tuple[int, int]
    shorter_side: int | None = None
    filter: Filter = "bilinear"
    colour: Colour | None = None
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    layout: Layout = "NCHW"

    def __post_init__(self) -> None:
        if self.colour is None:
            object.__setattr__(self, "colour", "grey" if len(self.mean) == 1 else "RGB")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                _refuse(name, getattr(self, name), f"one of {', '.join(choices)}")
        if len(self.size) != 2 or not all(_is_side(side) for side in self.size):
            _refuse("size", self.size, f"height and width in pixels, 1 to {MAX_SIDE}")
        if self.shorter_side is not None and not (_is_side(self.shorter_side) and self.shorter_side >= max(self.size)):
            _refuse("shorter_side", self.shorter_side, f"at least {max(self.size)}, so that the crop lies in the image")
        if not math.isfinite(self.scale) or self.scale <= 0:
            _refuse("scale", self.scale, "a positive number")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != self.channels or not all(math.isfinite(value) for value in values):
                _refuse(name, values, f"{self.channels} finite numbers, one for each channel of {self.colour}")
        if not all(value > 0 for value in self.std):
            _refuse("std", self.std, "positive numbers")

    @property
    def channels(self) -> int:
        """1 for grey, else 3."""
        return 1 if self.colour == "grey" else 3

    def apply(self, image: np.ndarray | str | Path) -> np.ndarray:
        """The model's input float32 [1, C, H, W] (or [1, H, W, C]) of one image.

        Args:
            image: uint8 [H, W, 3] in RGB order, uint8 [H, W] or [H, W, 1] grey; or an image file, which needs Pillow.
                Like torchvision and timm, a file is taken as stored: EXIF orientation is not applied.

        Raises:
            DataError: the array is no such image, the file cannot be read, or Pillow is missing.
        """
        pixels = image if isinstance(image, np.ndarray) else read_image(Path(image))
        pixels = self._coloured(_checked(pixels))
        height, width = self.size
        if self.shorter_side is None:
            pixels = resize(pixels, self.size, self.filter)
        else:
            pixels = resize(pixels, _side_to(pixels.shape[:2], self.shorter_side), self.filter)
            # Python's round, half to even, is torchvision's CenterCrop too.
            top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
            pixels = pixels[top : top + height, left : left + width]
        # A division, because torch's ToTensor divides by 255: multiplying by 1/255 differs in the last bit.
        scaled = pixels.astype(np.float32) / np.float32(1 / self.scale)
        normal = (scaled - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        batch = normal[None] if self.layout == "NHWC" else normal.transpose(2, 0, 1)[None]
        return np.ascontiguousarray(batch)

    def _coloured(self, pixels: np.ndarray) -> np.ndarray:
        """`pixels` uint8 [H, W, 1 or 3] in the model's colours."""
        if self.colour == "grey":
            if pixels.shape[2] == 1:
                return pixels
            # ITU-R 601-2 luma in 16-bit fixed point, as Pillow's convert("L").
            luma = (pixels.astype(np.uint32) * np.array([19595, 38470, 7471], np.uint32)).sum(axis=2, dtype=np.uint32)
            grey: np.ndarray = ((luma + 0x8000) >> 16).astype(np.uint8)[:, :, None]
            return grey
        pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
        return pixels[:, :, ::-1] if self.colour == "BGR" else pixels

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return {
            "size": list(self.size),
            "shorter_side": self.shorter_side,
            "filter": self.filter,
            "colour": self.colour,
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "layout": self.layout,
        }

    @classmethod
    def from_dict(cls, data: object, where: str = "preprocessing") -> Self:
        """Read what `to_dict` wrote.

        Raises:
            DataError: a key is missing, unknown or of another type, or a value is out of range; the text says which.
        """
        if not isinstance(data, Mapping):
            raise DataError(f"got {type(data).__name__}", where=where, rule="expected an object")
        names = {field.name for field in fields(cls)}
        if set(data) != names:
            odd = sorted(map(str, set(data) ^ names))
            raise DataError(
                f"missing or unknown: {', '.join(odd)}", where=where, rule=f"exactly {', '.join(sorted(names))}"
            )
        for name in ("size", "mean", "std"):
            if not isinstance(data[name], list) or not all(_is_number(value) for value in data[name]):
                raise DataError(f"got {data[name]!r}", where=f"{where}.{name}", rule="a list of numbers")
        if not _is_number(data["scale"]):
            raise DataError(f"got {data['scale']!r}", where=f"{where}.scale", rule="a number")
        for name, choices in _CHOICES.items():
            if data[name] not in choices:
                raise DataError(f"got {data[name]!r}", where=f"{where}.{name}", rule=f"one of {', '.join(choices)}")
        try:
            return cls(
                size=cast("tuple[int, int]", tuple(data["size"])),
                shorter_side=data["shorter_side"],
                filter=data["filter"],
                colour=data["colour"],
                scale=float(data["scale"]),
                mean=tuple(map(float, data["mean"])),
                std=tuple(map(float, data["std"])),
                layout=data["layout"],
            )
        except DataError as error:
            place = error.where.replace("preprocessing", where, 1)
            raise DataError(error.problem, where=place, rule=error.rule) from error


def read_image(path: Path) -> np.ndarray:
    """An image file as RGB uint8 [H, W, 3].

    Raises:
        DataError: Pillow is missing, or the file is no image, damaged, or over 100 megapixels.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "reading an image file needs Pillow, which is not installed",
            where=str(path),
            rule="an array uint8 [H, W, 3] needs numpy only",
            way_out="pip install 'edgekit[image]'",
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # The limit below is an error, not a warning.
            with Image.open(path) as image:
                if image.width * image.height > _MAX_PIXELS:
                    raise DataError(
                        f"{image.width} x {image.height} pixels", where=str(path), rule=f"at most {_MAX_PIXELS} pixels"
                    )
                return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"cannot read the image: {error}", where=str(path), rule="an image that Pillow reads"
        ) from error


def _checked(pixels: np.ndarray) -> np.ndarray:
    """`pixels` as uint8 [H, W, 1 or 3]."""
    shaped = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if shaped.dtype != np.uint8 or shaped.ndim != 3 or shaped.shape[2] not in {1, 3} or 0 in shaped.shape:
        raise DataError(
            f"got {pixels.dtype} {list(pixels.shape)}",
            where="image",
            rule="uint8 [height, width, 3] in RGB order, or uint8 [height, width] grey",
            way_out="drop an alpha channel, and leave scaling and layout to the preprocessing; a prepared tensor goes "
            "in by name: predict({'input': tensor})",
        )
    return shaped


def _side_to(size: tuple[int, ...], side: int) -> tuple[int, int]:
    """`size` scaled so that its shorter side is `side`; the longer is cut to an integer, as in torchvision's Resize."""
    height, width = size
    return (side, int(side * width / height)) if height <= width else (int(side * height / width), side)


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SIDE


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse(name: str, value: object, rule: str) -> None:
    raise DataError(f"got {value!r}", where=f"preprocessing.{name}", rule=rule)
