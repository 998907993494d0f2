"""ShuffleNet for small pictures: half of the channels passes untouched, and channels are shuffled between blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _pointwise(cin: int, cout: int) -> list[nn.Module]:
    return [nn.Conv2d(cin, cout, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
    ]


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the groups of channels."""
    n, channels, height, width = x.shape
    x = x.reshape(n, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(n, channels, height, width)


class Unit(nn.Module):
    """One unit of N. Ma et al., *ShuffleNet V2* (2018), figure 3 (c), or (d) where it halves the resolution."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        half = cout // 2
        self.stride = stride
        self.shortcut = nn.Sequential(*_depthwise(cin, stride), *_pointwise(cin, half)) if stride > 1 else nn.Identity()
        self.branch = nn.Sequential(
            *_pointwise(cin if stride > 1 else half, half), *_depthwise(half, stride), *_pointwise(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[n, cout, h / stride, w / stride] of [n, cin, h, w]."""
        kept, changed = x.chunk(2, dim=1) if self.stride == 1 else (x, x)
        return channel_shuffle(torch.cat((self.shortcut(kept), self.branch(changed)), dim=1), 2)


class ShuffleNetV2(nn.Module):
    """Stem, three stages of units, one pointwise layer."""

    STAGES = ((64, 3), (128, 4), (256, 2))

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        width = 16
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        for channels, count in self.STAGES:
            for index in range(count):
                layers.append(Unit(width, channels, 1 if index else 2))
                width = channels
        self.features = nn.Sequential(*layers, *_pointwise(width, 256))
        self.classify = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, classes] of pictures [n, 3, h, w]."""
        return self.classify(self.features(x).mean([2, 3]))
