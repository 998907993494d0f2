"""A small network with BatchNorm and dropout, and data that augment themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from edgekit.workload import digest_of


class Blobs(Dataset):
    """Four kinds of 8x8 images, shifted at random from torch's global generator."""

    def __init__(self, n=96):
        generator = torch.Generator().manual_seed(0)
        self.labels = (torch.arange(n) % 4).tolist()
        patterns = torch.randn(4, 1, 8, 8, generator=generator)
        self.images = patterns[torch.tensor(self.labels)] + 0.3 * torch.randn(n, 1, 8, 8, generator=generator)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = self.images[index].roll(int(torch.randint(0, 2, (1,))), 2)
        return image + 0.1 * torch.rand(1), self.labels[index]


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(512, 4),
    )


def cross_entropy(model, batch):
    return F.cross_entropy(batch.call(model).float(), batch.target)


@pytest.fixture
def blobs():
    return Blobs()


@pytest.fixture
def net():
    return make_net()


@pytest.fixture
def objective():
    return cross_entropy


@pytest.fixture
def digest():
    return digest_of
