"""Where an input is occluded: windows that move over an image, a sequence, features or tokens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np

from edgekit.errors import DataError
from edgekit.spec import TensorSpec

Kind = Literal["image", "steps", "features", "tokens"]

IMAGE_PARTS, STEP_PARTS = 6, 24
"""The default window is this part of a side, or of a sequence."""
COLOURS = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Windows over some axes of one sample's array [1, ...].

    Args:
        kind: what the input is.
        axes: the axes that windows move over, the batch axis counted.
        sizes: of these axes.
        window: how much of each axis is covered at a time.
        stride: how far it moves.
        shift: how far the first window lies before the first one of an unshifted grid, per axis. Windows that reach
            over an end are cut off there.

    >>> Grid(kind="image", axes=(2, 3), sizes=(8, 8), window=(4, 4), stride=(4, 4)).shape
    (2, 2)
    """

    kind: Kind
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    shift: tuple[int, ...] = ()

    def starts(self, axis: int) -> list[int]:
        """Where the windows begin on the axis of this position; the last one ends at the end."""
        size, window, stride = self.sizes[axis], self.window[axis], self.stride[axis]
        if self.shift and self.shift[axis]:
            return list(range(-self.shift[axis], size, stride))
        last = max(size - window, 0)
        return [*range(0, last, stride), last]

    @property
    def shape(self) -> tuple[int, ...]:
        """Windows along each axis; a map has this shape."""
        return tuple(len(self.starts(axis)) for axis in range(len(self.axes)))

    def windows(self) -> list[tuple[slice, ...]]:
        """For each window, in the order of a map's elements, a slice of each of the axes."""
        spans = [
            [slice(max(start, 0), min(start + self.window[axis], self.sizes[axis])) for start in self.starts(axis)]
            for axis in range(len(self.axes))
        ]
        return list(itertools.product(*spans))

    def shifted(self) -> Self | None:
        """The same windows half a stride further; None where the stride is one and there is no half of it."""
        if max(self.stride) < 2:
            return None
        return replace(self, shift=tuple(stride - stride // 2 if stride > 1 else 0 for stride in self.stride))

    def spread(self, values: np.ndarray) -> np.ndarray:
        """A map [*shape] as density over the axes [*sizes]: at each place the mean of value by area of what covers it.

        Places that no window covers are zero.
        """
        total, count = np.zeros(self.sizes), np.zeros(self.sizes)
        for window, value in zip(self.windows(), np.asarray(values, dtype=np.float64).reshape(-1), strict=True):
            total[window] += value / math.prod(part.stop - part.start for part in window)
            count[window] += 1
        return total / np.maximum(count, 1)

    def gathered(self, density: np.ndarray) -> np.ndarray:
        """What the windows of this grid would hold of a density [*sizes]: its sum over each window, [*shape]."""
        return np.array([density[window].sum() for window in self.windows()]).reshape(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "kind": self.kind,
            "sizes": list(self.sizes),
            "window": list(self.window),
            "stride": list(self.stride),
            "grid": list(self.shape),
        }


def kind_of(tensor: TensorSpec, rank: int) -> Kind:
    """What an input is, by its type and its number of axes, the batch axis counted.

    Raises:
        DataError: it is none of these.

    >>> kind_of(TensorSpec(name="ids", dtype="int64", shape=("batch", "time")), 2)
    'tokens'
    """
    if np.issubdtype(np.dtype(tensor.dtype), np.integer) and rank == 2:
        return "tokens"
    kinds: dict[int, Kind] = {2: "features", 3: "steps", 4: "image"}
    if not np.issubdtype(np.dtype(tensor.dtype), np.floating) or rank not in kinds:
        raise DataError(
            f"input {tensor.name!r} is {tensor}",
            where="explain",
            rule="images [n, c, h, w], sequences [n, time, features], features [n, f] or tokens [n, time]",
        )
    return kinds[rank]


def channel_axis(kind: Kind, shape: Sequence[int]) -> int | None:
    """The axis of an array [n, ...] whose entries mean different things: colours, or features; None for tokens.

    Images are taken as [n, c, h, w] unless only the last axis has as few entries as colours. Of a sequence's two axes
    the longer one is time.

    >>> channel_axis("image", (1, 32, 32, 3)), channel_axis("steps", (1, 16, 100))
    (3, 1)
    """
    if kind == "image":
        return 3 if shape[1] not in COLOURS and shape[3] in COLOURS else 1
    if kind == "steps":
        return 1 if shape[2] > shape[1] else 2
    return 1 if kind == "features" else None


def grid_for(kind: Kind, shape: Sequence[int], *, window: int | None = None, stride: int | None = None) -> Grid:
    """The grid for a sample's array of this shape [1, ...].

    Without a window an image is covered by a sixth of each side, moved by half of that; a sequence by a 24th, likewise;
    features and tokens go one at a time.

    Raises:
        DataError: window or stride do not fit.
    """
    channels = channel_axis(kind, shape)
    axes = (1,) if kind in {"features", "tokens"} else tuple(a for a in range(1, len(shape)) if a != channels)
    sizes = tuple(int(shape[axis]) for axis in axes)
    parts = {"image": IMAGE_PARTS, "steps": STEP_PARTS}
    windows = tuple(window or (math.ceil(size / parts[kind]) if kind in parts else 1) for size in sizes)
    strides = tuple(stride or math.ceil(each / 2) for each in windows)
    for each, step, size in zip(windows, strides, sizes, strict=True):
        if not 0 < step <= each <= size:
            raise DataError(
                f"a window of {each}, moved by {step}, over {size}",
                where="--window, --stride",
                rule="the window fits into the input, and the stride is no larger than the window",
            )
    return Grid(kind=kind, axes=axes, sizes=sizes, window=windows, stride=strides)
