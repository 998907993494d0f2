"""Backbone and neck of a detector in the manner of YOLO (SiLU, concatenations, nearest upsampling) as a classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Conv(nn.Module):
    """Convolution, BatchNorm, SiLU."""

    def __init__(self, cin: int, cout: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(cout)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[n, cout, h / stride, w / stride] of [n, cin, h, w]."""
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, and the input added where `shortcut` is set."""

    def __init__(self, width: int, *, shortcut: bool) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(width, width), Conv(width, width, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """A tensor like `x`."""
        y = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class C3(nn.Module):
    """Cross-stage partial block (C. Wang et al., *CSPNet*, 2020): one half through bottlenecks, one past them."""

    def __init__(self, cin: int, cout: int, count: int = 1, *, shortcut: bool = True) -> None:
        super().__init__()
        half = cout // 2
        self.cv1, self.cv2, self.cv3 = Conv(cin, half), Conv(cin, half), Conv(2 * half, cout)
        self.m = nn.Sequential(*(Bottleneck(half, shortcut=shortcut) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        """[n, cout, h, w] of [n, cin, h, w]."""
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class SPPF(nn.Module):
    """Pyramid of max pools, one after another, concatenated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(width, width // 2), Conv(2 * width, width)
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """A tensor like `x`."""
        x = self.cv1(x)
        once = self.pool(x)
        twice = self.pool(once)
        return self.cv2(torch.cat((x, once, twice, self.pool(twice)), 1))


class CSPClassifier(nn.Module):
    """Three levels of a backbone, a neck down and up again over them, and one linear layer on their means."""

    def __init__(self, width: int = 32, classes: int = 10) -> None:
        super().__init__()
        w = width
        self.level3 = nn.Sequential(Conv(3, w // 2, 3), Conv(w // 2, w, 3, 2), C3(w, w))
        self.level4 = nn.Sequential(Conv(w, 2 * w, 3, 2), C3(2 * w, 2 * w, 2))
        self.level5 = nn.Sequential(Conv(2 * w, 4 * w, 3, 2), C3(4 * w, 4 * w), SPPF(4 * w))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.lateral5, self.lateral4 = Conv(4 * w, 2 * w), Conv(2 * w, w)
        self.top_down4 = C3(4 * w, 2 * w, shortcut=False)
        self.top_down3 = C3(2 * w, w, shortcut=False)
        self.down3, self.down4 = Conv(w, w, 3, 2), Conv(2 * w, 2 * w, 3, 2)
        self.bottom_up4 = C3(2 * w, 2 * w, shortcut=False)
        self.bottom_up5 = C3(4 * w, 4 * w, shortcut=False)
        self.classify = nn.Linear(7 * w, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, classes] of pictures [n, 3, h, w]."""
        p3 = self.level3(x)
        p4 = self.level4(p3)
        lateral5 = self.lateral5(self.level5(p4))
        lateral4 = self.lateral4(self.top_down4(torch.cat((self.up(lateral5), p4), 1)))
        out3 = self.top_down3(torch.cat((self.up(lateral4), p3), 1))
        out4 = self.bottom_up4(torch.cat((self.down3(out3), lateral4), 1))
        out5 = self.bottom_up5(torch.cat((self.down4(out4), lateral5), 1))
        return self.classify(torch.cat([level.mean((2, 3)) for level in (out3, out4, out5)], 1))
