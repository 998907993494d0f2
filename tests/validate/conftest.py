from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from edgekit.export import Exported, export
from edgekit.workload import Batch


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture(scope="session")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="session")
def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(37, 3, 8, 8, generator=generator), torch.randint(0, 4, (37,), generator=generator))


@pytest.fixture(scope="session")
def exported(net, data, tmp_path_factory) -> Exported:
    return export(net, Batch((data.tensors[0][:2],), {}, None), tmp_path_factory.mktemp("net") / "net.onnx")


@pytest.fixture(scope="session")
def other(net, data, tmp_path_factory) -> Path:
    """The same network with another head: it answers otherwise now and then."""
    changed = Net().eval()
    changed.load_state_dict(net.state_dict())
    with torch.no_grad():
        changed.head.weight += 0.3 * torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    return export(changed, Batch((data.tensors[0][:2],), {}, None), tmp_path_factory.mktemp("other") / "net.onnx").path


@pytest.fixture
def cuda() -> None:
    """Skips, with the reason, where CUDA cannot be had."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip(f"no CUDAExecutionProvider in this onnxruntime: {onnxruntime.get_available_providers()}")
