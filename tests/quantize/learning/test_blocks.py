"""Where a network is cut."""

import torch
from torch import nn

from edgekit.quantize.graph import load
from edgekit.quantize.learning.blocks import blocks_of
from edgekit.quantize.learning.network import Network


def blocks(exported):
    network = Network(load(exported.path).graph)
    learned = {call.name for call in network.calls if call.op in ("Conv", "Gemm", "MatMul")}
    found = blocks_of(network, learned)
    # Every call once, in its order.
    assert [call for block in found for call in block.calls] == list(network.calls)
    return [sum(call.name in learned for call in block.calls) for block in found]


def test_a_chain_is_cut_behind_each_layer(fp32):
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1))
    assert blocks(fp32(net, 4, 8, 8)) == [1, 1, 1]


def test_a_residual_block_is_one(resnet):
    assert blocks(resnet) == [1, 2, 2, 1]


def test_a_skip_is_carried_on_by_its_concatenation(fp32):
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.down, self.up = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 2, 2), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            x = self.stem(x)
            return self.up(torch.cat([x, nn.functional.interpolate(self.down(x), scale_factor=2)], 1))

    assert blocks(fp32(Skips(), 2, 8, 8)) == [1, 1, 1]


def test_two_outputs_end_the_last_block(fp32):
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 3)

        def forward(self, x):
            x = self.stem(x)
            return self.a(x), self.b(x)

    assert blocks(fp32(Heads(), 4)) == [1, 2]
