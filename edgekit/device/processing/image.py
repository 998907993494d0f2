"""From an image to a model's input, exactly as in training."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from edgekit.device.processing import fields
from edgekit.device.processing.geometry import FITS, MAX_PIXELS, Fit, Geometry, geometry
from edgekit.device.processing.resize import FILTERS, Filter
from edgekit.errors import DataError

Colour = Literal["RGB", "BGR", "grey"]
Layout = Literal["NCHW", "NHWC"]
COLOURS = ("RGB", "BGR", "grey")
LAYOUTS = ("NCHW", "NHWC")
MAX_SIDE = 16_384
_SMALLEST = 1e-30


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePreprocessing:
    """How an image becomes a model's input: colours, geometry, then (value * scale - mean) / std.

    Attributes:
        size: height and width of the model's input, in pixels.
        fit: how the image comes to this size: `stretch`, `resize-crop` (as in ImageNet training: size 224,
            shorter_side 256), `crop-resize` or `letterbox`; see `geometry`.
        shorter_side: for `resize-crop` alone: what the shorter side is resized to before `size` is cut out.
        pad: for `letterbox` alone: the byte of the borders; 114 in YOLO's descendants.
        filter: `bilinear`, `bicubic` or `nearest`.
        antialias: true as Pillow (torchvision, timm), false as OpenCV and `torch.nn.functional.interpolate`. None
            becomes true, and false for `nearest`, which knows no such thing.
        colour: what the model takes. None becomes `grey` where `mean` has one value, else `RGB`.
        scale: factor of the bytes; 1/255 maps them to [0, 1].
        mean, std: of each channel, in scaled values, in the order of `colour`.
        layout: `NCHW` or `NHWC`.

    Raises:
        DataError: a field is out of range; the text names it.

    >>> prepare = ImagePreprocessing(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> prepare.apply(np.full((48, 64, 3), 255, np.uint8)).shape
    (1, 3, 32, 32)
    """

    kind: ClassVar[str] = "image"
    side: ClassVar[str] = "preprocessing"

    size: tuple[int, int]
    fit: Fit = "stretch"
    shorter_side: int | None = None
    pad: int | None = None
    filter: Filter = "bilinear"
    antialias: bool | None = None
    colour: Colour | None = None
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    layout: Layout = "NCHW"

    def __post_init__(self) -> None:
        if self.antialias is None:
            object.__setattr__(self, "antialias", self.filter != "nearest")
        if self.colour is None:
            single = isinstance(self.mean, tuple) and len(self.mean) == 1
            object.__setattr__(self, "colour", "grey" if single else "RGB")
        for name, choices in (("fit", FITS), ("filter", FILTERS), ("colour", COLOURS), ("layout", LAYOUTS)):
            fields.check_choice(self, name, choices)
        size: Any = self.size
        if (
            not isinstance(size, tuple)
            or len(size) != 2
            or not all(fields.is_whole(side, 1, MAX_SIDE) for side in size)
        ):
            fields.refuse(self, "size", f"height and width in pixels, 1 to {MAX_SIDE}")
        self._check_fit()
        self._check_channels()

    def _check_fit(self) -> None:
        if self.fit == "resize-crop":
            fields.check_whole(self, "shorter_side", max(self.size), MAX_SIDE)
        elif self.shorter_side is not None:
            fields.refuse(self, "shorter_side", "null, but for the fit resize-crop")
        if self.fit == "letterbox":
            fields.check_whole(self, "pad", 0, 255)
        elif self.pad is not None:
            fields.refuse(self, "pad", "null, but for the fit letterbox")
        fields.check_flag(self, "antialias")
        if self.filter == "nearest" and self.antialias:
            fields.refuse(self, "antialias", "false for the filter nearest")

    def _check_channels(self) -> None:
        fields.check_number(self, "scale", _SMALLEST)
        for name, low in (("mean", -fields.LARGEST), ("std", _SMALLEST)):
            values = getattr(self, name)
            if (
                not isinstance(values, tuple)
                or len(values) != self.channels
                or not all(fields.is_number(value, low) for value in values)
            ):
                what = "positive numbers" if name == "std" else "finite numbers"
                fields.refuse(self, name, f"{self.channels} {what}, one for each channel of {self.colour}")

    @property
    def channels(self) -> int:
        """1 for grey, else 3."""
        return 1 if self.colour == "grey" else 3

    def geometry(self, image: tuple[int, int]) -> Geometry:
        """Where an image of (height, width) lands in the model's input."""
        return geometry(image, self.size, self.fit, self.shorter_side)

    def apply(self, image: np.ndarray | str | Path) -> np.ndarray:
        """The model's input float32 [1, C, H, W] (or [1, H, W, C]) of one image.

        Args:
            image: uint8 [H, W, 3] in RGB order, uint8 [H, W] or [H, W, 1] grey; or an image file, which needs Pillow.
                Like torchvision and timm, a file is taken as stored: EXIF orientation is not applied.

        Raises:
            DataError: the array is no such image, the file cannot be read, or Pillow is missing.
        """
        pixels = checked(image if isinstance(image, np.ndarray) else read_image(Path(image)))
        placed = self.geometry(pixels.shape[:2])
        pixels = placed.apply(
            self._coloured(pixels), self.filter, antialias=bool(self.antialias), pad=0 if self.pad is None else self.pad
        )
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
        return fields.write(self)

    @classmethod
    def from_dict(cls, data: object, where: str = "preprocessing", *, complete: bool = True) -> Self:
        """Read what `to_dict` wrote; without `complete`, keys that are missing have their defaults.

        Raises:
            DataError: a key is missing, unknown or of another type, or a value is out of range; the text says which.
        """
        made = fields.read(cls, data, where, complete=complete)
        assert isinstance(data, Mapping)
        for name in ("antialias", "colour") if complete else ():
            if data[name] is None:  # A default for people who write one by hand, but a file says what it means.
                raise DataError("got None", where=f"{where}.{name}", rule=repr(getattr(made, name)))
        return made


def read_image(source: Path | bytes, formats: tuple[str, ...] | None = None) -> np.ndarray:
    """An image file as RGB uint8 [H, W, 3].

    Args:
        source: the file, or its bytes.
        formats: Pillow's names of those that may be decoded; None allows all that it has.

    Raises:
        DataError: Pillow is missing, or the file is no image, damaged, or over 100 megapixels.
    """
    where = "image" if isinstance(source, bytes) else str(source)
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "reading an image file needs Pillow, which is not installed",
            where=where,
            rule="an array uint8 [H, W, 3] needs numpy only",
            way_out="pip install 'edgekit[image]'",
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # The limit below is an error, not a warning.
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"{image.width} x {image.height} pixels", where=where, rule=f"at most {MAX_PIXELS} pixels"
                    )
                return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        known = f" of {', '.join(formats)}" if formats else ""
        # Bytes would be named by their address in memory.
        said = "" if isinstance(source, bytes) else f": {error}"
        raise DataError(
            f"cannot read the image{said}", where=where, rule=f"an image that Pillow reads{known}"
        ) from error


def checked(pixels: np.ndarray) -> np.ndarray:
    """`pixels` as uint8 [H, W, 1 or 3].

    Raises:
        DataError: they are no such image.
    """
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
