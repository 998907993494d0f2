r"""Segmentation as a user's project: a U-Net that finds handwritten digits pasted onto pictures.

    python tools/reference/segments.py train unet
    edgekit compress tools/reference/segments.py:unet --train tools/reference/segments.py:train_data \
        --test tools/reference/segments.py:test_data

The pictures are those of images.py, the digits scikit-learn's (8x8, enlarged to 16x16). Each pixel is background (0) or
belongs to a digit (1 to 10 for the digits 0 to 9), so the task is `classification` with a label at every position.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from images import normalized, pictures
from networks.unet import UNet
from torch import Tensor, nn
from torch.utils.data import Dataset
from training import Recipe, Run, command_line, trained

SIDE, DIGIT = 32, 16
INK = 0.35
"""From this share of full ink on a pixel belongs to the digit."""


@cache
def digits(split: str) -> tuple[Tensor, Tensor]:
    """Ink float32 [n, 16, 16] in 0..1 and digits int64 [n]: the first 1,400 to learn from, the others to test."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    part = slice(None, 1400) if split == "train" else slice(1400, None)
    ink = torch.from_numpy(images[part].reshape(-1, 1, 8, 8) / 16).float()
    ink = F.interpolate(ink, (DIGIT, DIGIT), mode="bilinear", align_corners=False)
    return ink[:, 0], torch.from_numpy(labels[part].astype(np.int64))


class PastedDigits(Dataset[tuple[Tensor, Tensor]]):
    """Items are (float32 [3, 32, 32], int64 [32, 32]): a picture under one to three digits, and each pixel's class.

    `augment` draws the digits anew each time; without it an item is always the same.
    """

    def __init__(self, split: str, *, augment: bool = False) -> None:
        self.pictures = torch.from_numpy(pictures(split)[0])
        self.ink, self.digits = digits(split)
        self.augment = augment

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.default_generator if self.augment else torch.Generator().manual_seed(index)
        picture = self.pictures[index].permute(2, 0, 1).float()
        mask = torch.zeros(SIDE, SIDE, dtype=torch.int64)
        for _ in range(int(torch.randint(1, 4, (), generator=generator))):
            which = int(torch.randint(0, len(self.ink), (), generator=generator))
            top, left = torch.randint(0, SIDE - DIGIT + 1, (2,), generator=generator).tolist()
            colour = 255 * torch.rand(3, 1, 1, generator=generator)
            place = (slice(top, top + DIGIT), slice(left, left + DIGIT))
            ink = self.ink[which]
            picture[:, *place] += ink * (colour - picture[:, *place])
            mask[place][ink > INK] = self.digits[which] + 1
        return normalized(picture), mask


def figures(run: Run) -> dict[str, float]:
    """Intersection over union of the first 1,000 pictures, the mean over the 11 classes, in percent."""
    data = test_data()
    rows = [data[index] for index in range(1000)]
    found = run({"x": torch.stack([x for x, _ in rows]).numpy()})[0].argmax(1)
    truth = torch.stack([mask for _, mask in rows]).numpy()
    both = [((found == label) & (truth == label)).sum() for label in range(11)]
    either = [((found == label) | (truth == label)).sum() for label in range(11)]
    return {"mIoU (%)": 100 * float(np.mean(np.array(both) / np.maximum(either, 1)))}


RECIPES = {"unet": Recipe(network=UNet, epochs=3, settings={"learning_rate": 0.1, "batch_size": 64})}


def unet() -> nn.Module:
    """The trained U-Net."""
    return trained("unet", "segments.py", RECIPES)


def train_data() -> PastedDigits:
    """Pictures to learn from, with other digits each time."""
    return PastedDigits("train", augment=True)


def test_data() -> PastedDigits:
    """Pictures and digits that training never sees."""
    return PastedDigits("test")


if __name__ == "__main__":
    command_line(__doc__, RECIPES, train_data, test_data)
