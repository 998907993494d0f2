"""What the world does to inputs: noise, blur, light and compression, in stated strengths.

Images: D. Hendrycks and T. Dietterich, *Benchmarking Neural Network Robustness to Common Corruptions and Perturbations*
(ICLR 2019), with the constants of the authors' code: those of CIFAR-10-C for pictures of up to 64 pixels, those of
ImageNet-C for larger ones. Other inputs of real numbers: Gaussian noise only, in shares of each channel's own standard
deviation; these strengths are edgekit's own.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgekit.spec import Feeds
from edgekit.validate.behaviour.pixels import RANGE_SAMPLES, Inputs, PixelSpace, pixel_space

SEVERITIES = (1, 3, 5)
"""Of the five that there are: the mildest, the middle and the strongest."""
SMALL_SIDE = 64

_NOISE_SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Of each channel's standard deviation, for inputs that are no images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Perturbation:
    """One perturbation in one strength.

    Args:
        name: such as `gaussian noise`.
        severity: 1 to 5.
        setting: the strength in words.
        apply: (inputs, generator) to the perturbed inputs.
    """

    name: str
    severity: int
    setting: str
    apply: Callable[[Feeds, np.random.Generator], Feeds]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The perturbations that the inputs of a model allow.

    Args:
        perturbations: in order.
        scale: whose strengths they have.
        source: how inputs became pixels and back, or what noise is measured by.
    """

    perturbations: tuple[Perturbation, ...]
    scale: str
    source: str


def suite(inputs: Inputs) -> Suite | str:
    """The perturbations for these data; in words why there are none."""
    space = pixel_space(inputs)
    if space is None:
        return _noise_suite(inputs)
    return _image_suite(space, _small(inputs.first(1)[0], space))


def _small(feeds: Feeds, space: PixelSpace) -> bool:
    return bool(max(space.pixels(feeds[space.name]).shape[1:3]) <= SMALL_SIDE)


def _image_suite(space: PixelSpace, small: bool) -> Suite:  # noqa: FBT001 - it is the one thing that is asked
    by_name: dict[str, tuple[tuple[float, ...], str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]]]
    by_name = {
        "gaussian noise": (
            (0.04, 0.06, 0.08, 0.09, 0.10) if small else (0.08, 0.12, 0.18, 0.26, 0.38),
            "σ {:g} of white",
            gaussian_noise,
        ),
        "gaussian blur": (
            (0.4, 0.6, 0.7, 0.8, 1.0) if small else (1.0, 2.0, 3.0, 4.0, 6.0),
            "σ {:g} pixels",
            lambda pixels, strength, _: gaussian_blur(pixels, strength),
        ),
        "brightness": (
            (0.05, 0.1, 0.15, 0.2, 0.3) if small else (0.1, 0.2, 0.3, 0.4, 0.5),
            "value + {:g}",
            lambda pixels, strength, _: brightness(pixels, strength),
        ),
        "jpeg": (
            (80.0, 65.0, 58.0, 50.0, 40.0) if small else (25.0, 18.0, 15.0, 10.0, 7.0),
            "quality {:g}",
            lambda pixels, strength, _: jpeg(pixels, round(strength)),
        ),
    }

    def applied(
        perturb: Callable[[np.ndarray, float, np.random.Generator], np.ndarray], strength: float
    ) -> Callable[[Feeds, np.random.Generator], Feeds]:
        def apply(feeds: Feeds, rng: np.random.Generator) -> Feeds:
            given = feeds[space.name]
            pixels = perturb(np.clip(space.pixels(given), 0, 1), strength, rng)
            # Pictures are bytes, so what comes out of a camera or a file has 256 steps.
            stepped = np.rint(255 * np.clip(pixels, 0, 1)) / 255
            return {**feeds, space.name: space.values(stepped, given.dtype)}

        return apply

    return Suite(
        perturbations=tuple(
            Perturbation(
                name=name,
                severity=severity,
                setting=words.format(strengths[severity - 1]),
                apply=applied(perturb, strengths[severity - 1]),
            )
            for name, (strengths, words, perturb) in by_name.items()
            for severity in SEVERITIES
        ),
        scale="CIFAR-10-C" if small else "ImageNet-C",
        source=space.source,
    )


def _noise_suite(inputs: Inputs) -> Suite | str:
    names = [tensor.name for tensor in inputs.spec.inputs if np.dtype(tensor.dtype).kind == "f"]
    if not names:
        kinds = ", ".join(f"{tensor.name} {tensor.dtype}" for tensor in inputs.spec.inputs)
        return f"none for these inputs ({kinds}): whole numbers such as tokens have no small changes"
    seen = inputs.first(RANGE_SAMPLES)
    spreads = {name: _spread(np.concatenate([feeds[name] for feeds in seen])) for name in names}

    def noise(strength: float) -> Callable[[Feeds, np.random.Generator], Feeds]:
        def apply(feeds: Feeds, rng: np.random.Generator) -> Feeds:
            noisy = {
                name: (feeds[name] + strength * spread * rng.standard_normal(feeds[name].shape)).astype(
                    feeds[name].dtype
                )
                for name, spread in spreads.items()
            }
            return {**feeds, **noisy}

        return apply

    return Suite(
        perturbations=tuple(
            Perturbation(
                name="gaussian noise",
                severity=severity,
                setting=f"σ {_NOISE_SHARES[severity - 1]:g} of each channel's",
                apply=noise(_NOISE_SHARES[severity - 1]),
            )
            for severity in SEVERITIES
        ),
        scale="edgekit's own",
        source=f"standard deviations in {RANGE_SAMPLES} samples; only noise, since the inputs are no images",
    )


def _spread(values: np.ndarray) -> np.ndarray:
    """The standard deviation of each channel (axis 1), shaped to be multiplied with `values`."""
    axes = (0, *range(2, values.ndim)) if values.ndim > 1 else (0,)
    return np.asarray(values.astype(np.float64).std(axis=axes, keepdims=True))


def gaussian_noise(pixels: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Independent noise on each value of pixels [n, h, w, c] in [0, 1]."""
    return np.asarray(pixels + sigma * rng.standard_normal(pixels.shape, dtype=np.float32))


def gaussian_blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Pixels [n, h, w, c] blurred; beyond its edge a picture goes on with the edge's pixels.

    The kernel ends at 4 standard deviations, as scikit-image's does, which the authors used.
    """
    radius = math.floor(4 * sigma + 0.5)
    at = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (at / sigma) ** 2)
    weights /= weights.sum()
    blurred = pixels.astype(np.float32)
    for axis in (1, 2):
        width = [(radius, radius) if each == axis else (0, 0) for each in range(4)]
        wide = np.pad(blurred, width, mode="edge")
        size = blurred.shape[axis]
        shifted = (wide.take(range(start, start + size), axis=axis) for start in range(2 * radius + 1))
        blurred = np.sum([w * each for w, each in zip(weights.astype(np.float32), shifted, strict=True)], axis=0)
    return np.asarray(blurred)


def brightness(pixels: np.ndarray, more: float) -> np.ndarray:
    """`more` added to the value in HSV of pixels [n, h, w, c] in [0, 1]: hue and saturation stay."""
    value = pixels.max(axis=3, keepdims=True)
    brighter = np.minimum(value + more, 1)
    # All channels grow by one factor; black has no hue and turns grey.
    return np.asarray(np.where(value > 0, pixels * brighter / np.where(value > 0, value, 1), brighter))


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Pixels [n, h, w, c] in [0, 1] after JPEG compression by Pillow."""
    from PIL import Image

    through = []
    for picture in np.rint(255 * pixels).astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            through.append(np.asarray(image, dtype=np.float32).reshape(picture.shape) / 255)
    return np.stack(through)
