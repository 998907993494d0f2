"""Forecasters: a GRU, and a TCN (S. Bai, J. Kolter and V. Koltun, *An Empirical Evaluation*, 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor, nn


class GRUForecaster(nn.Module):
    """Reads a series of any length and says how it goes on."""

    def __init__(self, *, width: int = 64, layers: int = 2, horizon: int = 24) -> None:
        super().__init__()
        self.gru = nn.GRU(1, width, layers, batch_first=True)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, horizon))

    def forward(self, series: Tensor) -> Tensor:
        """Forecasts [n, horizon] of series [n, time, 1]."""
        return self.head(self.gru(series)[0][:, -1])


class CausalConv(nn.Module):
    """Two dilated convolutions that see the past alone, and what they add to."""

    def __init__(self, inputs: int, width: int, dilation: int) -> None:
        super().__init__()
        self.pad = 2 * dilation
        self.first = nn.Conv1d(inputs, width, 3, dilation=dilation)
        self.second = nn.Conv1d(width, width, 3, dilation=dilation)
        self.shortcut = nn.Conv1d(inputs, width, 1) if inputs != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """A tensor [n, width, time]."""
        y = torch.relu(self.first(F.pad(x, (self.pad, 0))))
        y = torch.relu(self.second(F.pad(y, (self.pad, 0))))
        return torch.relu(y + self.shortcut(x))


class TCNForecaster(nn.Module):
    """Blocks of ever wider dilation; the last time step decides."""

    def __init__(self, *, width: int = 32, blocks: int = 5, horizon: int = 24) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(CausalConv(1 if i == 0 else width, width, 2**i) for i in range(blocks)))
        self.head = nn.Linear(width, horizon)

    def forward(self, series: Tensor) -> Tensor:
        """Forecasts [n, horizon] of series [n, time, 1]."""
        return self.head(self.blocks(series.transpose(1, 2))[:, :, -1])
