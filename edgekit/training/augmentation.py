"""Images that are moved a little each time, for data that come out alike and would be learnt by heart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor
from torch.utils.data import Dataset

from edgekit.errors import DataError
from edgekit.tasks import Task
from edgekit.workload import Stream, isolated, size_of
from edgekit.workload.loading import collate_of, item_of

Augmentation = Literal["none", "shift", "mirror"]
AugmentationName = Literal["auto", "none", "shift", "mirror"]
AUGMENTATIONS: tuple[AugmentationName, ...] = ("auto", "none", "shift", "mirror")

SHIFT = 8
"""Images move by at most one part in so many of their height and width."""
SAMPLED = 8
"""Samples that are fetched twice to see whether they come out alike."""
_LABEL_DIMS = {"classification": 0, "multilabel": 1}
"""Tasks, and dimensions of a target that is about the whole image: a mask or a box would have to move with it."""
_PICTURES = (1, 3)
"""Channels of what is most likely a picture."""


def augmentation_for(
    name: AugmentationName, data: Dataset[Any], *, task: Task, model: Callable[..., Any], seed: int = 0
) -> Augmentation:
    """What is done to training data under a name; for `auto`, what suits them.

    Grey or colour pictures with a label are shifted, unless their data set augments them itself. Whether they may be
    mirrored, it does not say of itself: digits and letters may not.

    Args:
        name: the choice, or `auto`.
        data: training data.
        task: decides whether targets stay true when an image moves.
        model: whose signature decides how a batch is passed.
        seed: of the two looks at the data.

    Raises:
        DataError: the data set raised; or `shift` or `mirror` for items that are no images, or whose targets are about
            places in them.

    >>> from edgekit.tasks import classification
    >>> pictures = [(torch.zeros(3, 8, 8), 0), (torch.ones(3, 8, 8), 1)]
    >>> augmentation_for("auto", pictures, task=classification(), model=torch.nn.Identity())
    'shift'
    """
    if name == "none":
        return "none"
    with isolated(seed):
        item = item_of(data, 0)
    movable = _is_image(item) and _is_labelled(item, task)
    if name == "auto":
        return "shift" if movable and len(item[0]) in _PICTURES and is_fixed(data, model, seed=seed) else "none"
    if not movable:
        raise DataError(
            f"augment is {name!r}, and an item is ({', '.join(map(_said, _parts(item)))}) for the task {task.name}",
            where="training data",
            rule="only for items (float image [channels, height, width], label), with sides of 8 pixels or more",
            way_out="augment='none', or augment in the dataset's own __getitem__",
        )
    return name


def augmented(data: Dataset[Any], kind: Augmentation) -> Dataset[Any]:
    """`data` as a training sees them.

    >>> data = [(torch.zeros(3, 8, 8), 0)]
    >>> augmented(data, "none") is data
    True
    """
    return data if kind == "none" else Shifted(data, mirror=kind == "mirror")


class Shifted(Dataset[Any]):
    """Images moved at random by up to an eighth of their size, the border repeated; half of them mirrored if so asked.

    Items are (image [channels, h, w], target), or images alone, as those of the data below. Draws from torch's global
    generator.

    >>> data = Shifted([(torch.arange(64.0).reshape(1, 8, 8), 3)])
    >>> tuple(data[0][0].shape), data[0][1]
    ((1, 8, 8), 3)
    """

    def __init__(self, data: Any, *, mirror: bool = False) -> None:
        self.data, self.mirror = data, mirror
        self.collate = collate_of(data)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        item = self.data[index]
        image, *rest = _parts(item)
        high, wide = image.shape[-2] // SHIFT, image.shape[-1] // SHIFT
        down, right = int(torch.randint(2 * high + 1, ())), int(torch.randint(2 * wide + 1, ()))
        framed = F.pad(image[None], (wide, wide, high, high), mode="replicate")[0]
        moved = framed[..., down : down + image.shape[-2], right : right + image.shape[-1]]
        if self.mirror and int(torch.randint(2, ())):
            moved = moved.flip(-1)
        return (moved, *rest) if isinstance(item, tuple | list) else moved


def is_fixed(data: Dataset[Any], model: Callable[..., Any], *, seed: int = 0) -> bool:
    """Whether samples come out alike whenever they are fetched, which augmented ones do not.

    >>> is_fixed([(torch.zeros(2), 0), (torch.ones(2), 1)], torch.nn.Linear(2, 2))
    True
    """
    size = min(size_of(data), SAMPLED)
    first, second = (
        Stream(data, model, batch_size=size, seed=each, limit=size).batch(0).leaves() for each in (seed, seed + 1)
    )
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _parts(item: Any) -> Sequence[Any]:
    return item if isinstance(item, tuple | list) else (item,)


def _is_image(item: Any) -> bool:
    """Whether an item is (float image [channels, h, w], ...)."""
    first, *rest = _parts(item)
    is_map = isinstance(first, Tensor) and first.ndim == 3 and first.is_floating_point()
    return is_map and bool(rest) and min(first.shape[1:]) >= SHIFT


def _is_labelled(item: Any, task: Task) -> bool:
    """Whether an item's target is about all of its image."""
    dims = _LABEL_DIMS.get(task.name)
    return dims is not None and all(np.ndim(part) == dims for part in _parts(item)[1:])


def _said(part: Any) -> str:
    return f"{part.dtype} {list(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
