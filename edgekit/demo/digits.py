"""A project as users bring them, on data that scikit-learn carries: handwritten digits and a small residual network.

Nothing in here knows edgekit; `edgekit demo` takes it exactly as it takes a project from outside.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor, nn
from torch.utils.data import Dataset

TEST_SHARE = 0.45
MAX_SHIFT = 3


class Block(nn.Module):
    """Two 3x3 convolutions around an identity or a 1x1 projection, as in ResNet (He et al. 2016, fig. 2)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels_in, h, w] to [n, channels, h / stride, w / stride]."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return F.relu(out)


class DigitsResNet(nn.Module):
    """Three stages of residual blocks and a linear classifier."""

    def __init__(self, blocks: int = 2, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = ((16, 16), (16, 32), (32, 64))
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    *(Block(before if i == 0 else width, width, 2 if i == 0 and stage else 1) for i in range(blocks))
                )
                for stage, (before, width) in enumerate(widths)
            )
        )
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, 1, 32, 32]."""
        out = self.stages(F.relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


class Digits(Dataset[tuple[Tensor, int]]):
    """scikit-learn's 1,797 digits, enlarged to 32x32; items are (float32 [1, 32, 32] in [0, 1], int)."""

    def __init__(self, split: str, *, augment: bool = False) -> None:
        from sklearn.datasets import load_digits

        data = load_digits()
        order = np.random.default_rng(0).permutation(len(data.target))
        count = int(len(order) * TEST_SHARE)
        chosen = order[:count] if split == "test" else order[count:]
        images = torch.from_numpy(data.images[chosen]).float()[:, None] / 16
        self.images = F.interpolate(images, size=(32, 32), mode="bilinear", align_corners=False)
        self.labels = [int(label) for label in data.target[chosen]]
        self.augment = augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        if self.augment:
            down, right = torch.randint(0, 2 * MAX_SHIFT + 1, (2,)).tolist()
            image = F.pad(image, (MAX_SHIFT,) * 4)[:, down : down + 32, right : right + 32]
        return image, self.labels[index]


def untrained() -> DigitsResNet:
    """The network before training."""
    return DigitsResNet()


def train_data() -> Digits:
    """Shifted digits to learn from."""
    return Digits("train", augment=True)


def test_data() -> Digits:
    """Digits that training never sees."""
    return Digits("test")
