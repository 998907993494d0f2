"""What is said of models of PyTorch."""

import torch
from torch import nn

from edgekit.export import mac_count, parameter_count
from edgekit.inspection.torch_model import inspect_module
from edgekit.workload import Batch


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, groups=1)
        self.head = nn.Linear(8, 5)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, image):
        y = torch.relu(self.conv(image)).mean((2, 3)) * self.scale
        return {"scores": self.head(y), "norm": y @ y.T}


def test_a_module_is_told_by_layers():
    model, example = Net().eval(), Batch((torch.zeros(2, 3, 4, 6),), {}, None)
    found = inspect_module(model, example)
    assert [str(tensor) for tensor in found.inputs] == ["float32 [2, 3, 4, 6]"]
    assert [tensor.name for tensor in found.inputs] == ["image"]
    assert sorted(tensor.shape for tensor in found.outputs) == [(2, 2), (2, 5)]
    assert found.parameters == parameter_count(model) == 8 * 3 * 9 + 8 + 8 * 5 + 5 + 8
    assert found.weight_bytes == {"float32": 4 * found.parameters}
    assert {layer.name: layer.macs for layer in found.layers} == {
        "Net": 0,
        "conv": 2 * 8 * 24 * 27,
        "head": 2 * 8 * 5,
        "(between modules)": 2 * 2 * 8,
    }
    assert found.macs == 2 * mac_count(model, example)
    assert found.operators == {"Conv2d": 1, "Linear": 1}


def test_shared_weights_are_with_the_first_module():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    found = inspect_module(model, Batch((), {"input": torch.zeros(1, 4)}, None))
    assert [(layer.name, layer.parameters, layer.macs) for layer in found.layers] == [("0", 20, 16), ("1", 4, 16)]
    assert found.parameters == 24
