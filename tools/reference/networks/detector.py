"""An anchor-free detector in the manner of FCOS (Z. Tian et al., 2019): each cell says what stands there."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor, nn


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Detector(nn.Module):
    """A backbone, a top-down path over two levels, and heads that both levels share."""

    STRIDES = (4, 8)

    def __init__(self, classes: int = 10, *, width: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(_layer(3, 24), _layer(24, 32, 2))
        self.fine = nn.Sequential(_layer(32, width, 2), _layer(width, width))
        self.coarse = nn.Sequential(_layer(width, width, 2), _layer(width, width))
        self.lateral = nn.Conv2d(width, width, 1)
        self.merge = _layer(width, width)
        self.classify = nn.Sequential(_layer(width, width), nn.Conv2d(width, classes, 3, padding=1))
        self.measure = nn.Sequential(_layer(width, width), nn.Conv2d(width, 4, 3, padding=1))
        nn.init.constant_(self.classify[-1].bias, -4.0)  # At first nothing is anywhere (T. Lin et al., 2017).

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(distances [n, cells, 4] left, top, right, bottom in strides, logits [n, cells, classes]) of [n, 3, h, w]."""
        fine = self.fine(self.stem(image))
        coarse = self.coarse(fine)
        levels = [self.merge(fine + F.interpolate(self.lateral(coarse), scale_factor=2.0, mode="nearest")), coarse]
        distances = [F.softplus(self.measure(level)).flatten(2).transpose(1, 2) for level in levels]
        logits = [self.classify(level).flatten(2).transpose(1, 2) for level in levels]
        return torch.cat(distances, 1), torch.cat(logits, 1)
