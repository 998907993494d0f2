"""A dueling Q-network (Z. Wang et al., 2016) for observations that are vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class QNetwork(nn.Module):
    """What each action is worth."""

    def __init__(self, observations: int = 4, actions: int = 2, *, width: int = 128) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(observations, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.state, self.advantage = nn.Linear(width, 1), nn.Linear(width, actions)

    def forward(self, observation: Tensor) -> Tensor:
        """Values [n, actions] of observations [n, observations]."""
        x = self.body(observation)
        advantage = self.advantage(x)
        return self.state(x) + advantage - torch.mean(advantage, dim=1, keepdim=True)
