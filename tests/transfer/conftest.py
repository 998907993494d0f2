"""A small residual network, pictures of four patterns, and a workload of both."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from edgekit.tasks import classification
from edgekit.training import FitConfig
from edgekit.workload import Batch, Workload, make_splits


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.norm(self.conv(x)))


class Net(nn.Module):
    def __init__(self, classes=3, width=8):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.first = nn.Sequential(Block(width))
        self.second = nn.Sequential(Block(width))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.second(self.first(torch.relu(self.norm(self.stem(x))))).mean((2, 3)))


def make_net(classes=3):
    torch.manual_seed(0)
    net = Net(classes)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def pictures(n, seed):
    """Four kinds of 8x8 pictures, told apart by their patterns."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    patterns = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    return TensorDataset(patterns[labels] + 0.7 * torch.randn(n, 1, 8, 8, generator=generator), labels)


@pytest.fixture
def net():
    return make_net()


@pytest.fixture
def example():
    return Batch((torch.randn(2, 1, 8, 8),), {}, torch.tensor([0, 1]))


@pytest.fixture
def fast():
    """A training of seconds."""
    return FitConfig(
        epochs=4,
        batch_size=16,
        learning_rate=3e-3,
        optimizer="adamw",
        precision="fp32",
        channels_last=False,
        threads=1,
        workers=0,
        checkpoint_every_s=1e-6,
    )


@pytest.fixture
def workload():
    splits = make_splits(pictures(64, 1), pictures(80, 2), calibration_size=2)
    return Workload(
        name="pictures", model_reference="tests:net", factory=make_net, task=classification(), splits=splits
    )
