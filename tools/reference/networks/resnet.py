"""ResNet for small pictures (K. He et al., *Deep Residual Learning*, 2016, section 4.2), with 1x1 shortcuts."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions, with a shortcut around them unless `plain`."""

    def __init__(self, cin: int, cout: int, stride: int, *, plain: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.plain = plain
        self.shortcut = nn.Sequential()
        if not plain and (stride != 1 or cin != cout):
            self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x: Tensor) -> Tensor:
        """[n, cout, h / stride, w / stride] of [n, cin, h, w]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y if self.plain else y + self.shortcut(x))


class ResNet(nn.Module):
    """Stages of so many blocks each, the first 16 channels wide and each next one twice as wide, at half the height.

    (3, 3, 3) is ResNet-20, (9, 9, 9) ResNet-56; (2, 2, 2, 2) is ResNet-18 (table 1) at a quarter of its width. `plain`
    leaves the shortcuts out.
    """

    def __init__(self, stages: Sequence[int], classes: int = 10, *, plain: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        blocks, width = [], 16
        for stage, count in enumerate(stages):
            channels = 16 * 2**stage
            for index in range(count):
                blocks.append(Block(width, channels, 2 if index == 0 and stage > 0 else 1, plain=plain))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, classes] of pictures [n, 3, h, w]."""
        return self.linear(self.pool(self.blocks(F.relu(self.bn(self.conv(x))))).flatten(1))
