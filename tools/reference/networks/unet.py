"""U-Net for small pictures (O. Ronneberger et al., 2015), with BatchNorm and learned upsampling."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _double(cin: int, cout: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (cin, cout):
        layers += [nn.Conv2d(width, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Up(nn.Module):
    """Twice the resolution by a transposed convolution, the skipped level beside it, two convolutions."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(cin, cout, 2, 2)
        self.norm = nn.Sequential(nn.BatchNorm2d(cout), nn.ReLU(inplace=True))
        self.convs = _double(2 * cout, cout)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        """[n, cout, 2 h, 2 w] of [n, cin, h, w] and [n, cout, 2 h, 2 w]."""
        return self.convs(torch.cat((skipped, self.norm(self.up(x))), 1))


class UNet(nn.Module):
    """Three levels."""

    def __init__(self, width: int = 8, classes: int = 11) -> None:
        super().__init__()
        w = width
        self.level1, self.level2, self.level3 = _double(3, w), _double(w, 2 * w), _double(2 * w, 4 * w)
        self.bottom = _double(4 * w, 8 * w)
        self.pool = nn.MaxPool2d(2)
        self.up3, self.up2, self.up1 = Up(8 * w, 4 * w), Up(4 * w, 2 * w), Up(2 * w, w)
        self.classify = nn.Conv2d(w, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, classes, h, w] of pictures [n, 3, h, w]; h and w are multiples of 8."""
        level1 = self.level1(x)
        level2 = self.level2(self.pool(level1))
        level3 = self.level3(self.pool(level2))
        x = self.up3(self.bottom(self.pool(level3)), level3)
        return self.classify(self.up1(self.up2(x, level2), level1))
