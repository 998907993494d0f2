from __future__ import annotations

import torch
from torch import nn

from edgekit.export import mac_count, parameter_count
from edgekit.workload import Batch, load_callable


def batch(*args) -> Batch:
    return Batch(args, {}, None)


def test_convolution_by_formula():
    # out_channels * out_height * out_width * kernel_height * kernel_width * in_channels / groups
    dense = nn.Conv2d(6, 10, (3, 5), stride=2, padding=1)
    height, width = (16 + 2 - 3) // 2 + 1, (20 + 2 - 5) // 2 + 1
    assert mac_count(dense, batch(torch.randn(4, 6, 16, 20))) == 10 * height * width * 3 * 5 * 6
    depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    assert mac_count(depthwise, batch(torch.randn(2, 6, 8, 8))) == 6 * 8 * 8 * 9
    assert parameter_count(dense) == 10 * 6 * 3 * 5 + 10


def test_linear_by_formula():
    assert mac_count(nn.Linear(7, 5), batch(torch.randn(3, 11, 7))) == 11 * 7 * 5


def test_lstm_by_formula():
    # For each step and layer: four gates from the input and from the state.
    model = nn.LSTM(6, 10, num_layers=2, batch_first=True).eval()
    assert mac_count(model, batch(torch.randn(3, 7, 6))) == 7 * (4 * 10 * (6 + 10) + 4 * 10 * (10 + 10))


def test_attention_by_formula():
    width, hidden, length = 16, 32, 12
    layer = nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True).eval()
    projections = length * width * (3 * width + width) + 2 * length * width * hidden
    products = 2 * length * length * width
    assert mac_count(layer, batch(torch.randn(3, length, width))) == projections + products


def test_resnet20_has_the_published_count(shared):
    model = load_callable(f"{shared / 'user-project' / 'project.py'}:model")()
    # He et al. 2015, section 4.2: 0.27 M parameters; 40.6 M multiply-adds.
    assert round(parameter_count(model) / 1e6, 2) == 0.27
    assert round(mac_count(model, batch(torch.randn(2, 3, 32, 32))) / 1e6, 1) == 40.6


def test_shared_weights_count_once():
    layer = nn.Linear(3, 3)
    assert parameter_count(nn.Sequential(layer, layer)) == 12


def test_a_class_token_goes_into_a_module():
    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.layer = nn.Parameter(torch.randn(1, 4)), nn.Linear(4, 5)

        def forward(self, x):
            return x + self.layer(self.token.expand(len(x), -1))

    model = Token()
    assert mac_count(model, batch(torch.randn(2, 5))) == 4 * 5
    assert all(value.requires_grad for value in model.parameters())
